// Sends what a queue holds, in order, and draws the conclusions from the answers: `errors.ts` has the table.

import { Backoff, type BackoffOptions } from "./backoff.js";
import { StreamError, verdictOf } from "./errors.js";
import { type Answer, withMembers } from "./frames.js";
import type { MutationQueue, Sender } from "./mutation_queue.js";
import type { PendingMutation } from "./pending_mutation.js";
import { opErrorsOf, seqOf } from "./replica.js";

/** How mutations leave: over the socket, or by a function of the application. */
export interface Transport {
  /** How many more may be sent now. */
  room(inFlight: number): number;
  /** `answered` is called once, and not from within. */
  send(mutation: PendingMutation, data: string, answered: (answer: Answer) => void): void;
  /** Whether a refusal leaves open if the mutation counts for the server. */
  readonly isRoute: boolean;
  /** Why nothing can ever be sent. */
  refusal(): StreamError | undefined;
  /** Whether what may have arrived before can be sent again: not while a sync may still tell what became of it. */
  mayResend(stream: string, group: string): boolean;
}

/** What is done once the last answer of those in flight has come. */
type Halt =
  | { readonly then: "again" }
  | { readonly then: "renew"; readonly client: string }
  | { readonly then: "gap"; readonly client: string; readonly expected: number | undefined };

export class QueueSender implements Sender {
  readonly #queue: MutationQueue;
  readonly #transport: Transport;
  /** Whether the client is far enough: its core loaded, and what others left behind adopted. */
  readonly #isReady: () => boolean;
  readonly #backoff: Backoff;
  #isMarking = false;
  #isClosed = false;
  #inFlight = 0;
  #halt: Halt | undefined;
  /** Halts since something was last taken: from the second on there is a pause. */
  #haltsInRow = 0;
  #pause: ReturnType<typeof setTimeout> | undefined;

  constructor(queue: MutationQueue, transport: Transport, isReady: () => boolean, backoff: BackoffOptions) {
    this.#queue = queue;
    this.#transport = transport;
    this.#isReady = isReady;
    this.#backoff = new Backoff(backoff);
    queue.sender = this;
  }

  pump(): void {
    if (this.#isMarking || this.#isClosed || this.#halt !== undefined || this.#pause !== undefined || !this.#isReady()) return;
    const refusal = this.#transport.refusal();
    if (refusal !== undefined) {
      for (const one of [...this.#queue.list]) this.#queue.refuse(one, refusal);
      return;
    }
    const room = this.#transport.room(this.#inFlight);
    const batch = this.#next(room);
    if (batch.length === 0) return;
    // Many wait: rather few large batches than a transaction of the storage for each answer. There is more room with the next one.
    if (batch.length === room && batch.length * 2 < this.#inFlight) return;
    this.#isMarking = true;
    void this.#queue.storage.markSent(batch).then(({ ours, gone }) => {
      this.#isMarking = false;
      if (this.#isClosed) return;
      this.#queue.move(gone.filter(({ state }) => state === "pending"));
      for (const one of ours) this.#send(one);
      this.pump();
    });
  }

  /** Tries at once what was put off. */
  hurry(): void {
    clearTimeout(this.#pause);
    this.#pause = undefined;
    this.pump();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#pause);
  }

  /** What may be sent now: of one client only, so that a refusal cannot let a later one through. */
  #next(room: number): PendingMutation[] {
    const { list, stream, group } = this.#queue;
    const [head] = list;
    const batch: PendingMutation[] = [];
    for (const one of list) {
      if (batch.length >= room || one.client !== head?.client) break;
      if (one.isInFlight) continue;
      if (!one.isSaved || (one.mayHaveArrived && !this.#transport.mayResend(stream, group))) break;
      batch.push(one);
    }
    return batch;
  }

  #send(mutation: PendingMutation): void {
    // Anything may have happened while the storage was asked.
    if (mutation.state !== "pending" || this.#halt !== undefined || this.#transport.room(this.#inFlight) <= 0) return;
    const { client, seq, functionId, mayHaveArrived } = mutation;
    const data = withMembers(mutation.data, {
      mutation: { client, seq, ...(mayHaveArrived ? { resent: true } : {}) },
      ...(functionId === "stream::send" ? {} : { returning: "none" }),
    });
    mutation.isInFlight = true;
    mutation.isResent = mayHaveArrived;
    this.#inFlight += 1;
    this.#transport.send(mutation, data, (answer) => {
      this.#inFlight -= 1;
      mutation.isInFlight = false;
      if (this.#isClosed) return;
      if (mutation.state === "pending") this.#judge(mutation, answer);
      if (this.#halt !== undefined && this.#inFlight === 0) this.#afterHalt(this.#halt);
      this.pump();
    });
  }

  #judge(mutation: PendingMutation, answer: Answer): void {
    if ("result" in answer) {
      this.#haltsInRow = 0;
      this.#backoff.succeeded();
      this.#taken(mutation, answer.result);
      return;
    }
    if (mutation.confirmed !== undefined) {
      this.#queue.settleConfirmed(mutation, mutation.confirmed);
      return;
    }
    const { error } = answer;
    switch (verdictOf(error)) {
      case "final":
        this.#refuse(mutation, error);
        break;
      case "later":
        this.#halt ??= { then: "again" };
        break;
      case "unsure":
        mutation.mayHaveArrived = true;
        // After a lost connection the next one is what is waited for.
        if (error.code !== "connection_lost" || this.#transport.isRoute) this.#halt ??= { then: "again" };
        break;
      case "gap":
        // The server is not that far, so this one has never taken effect.
        mutation.mayHaveArrived = false;
        this.#halt ??= { then: "gap", client: mutation.client, expected: error.details.expected };
        break;
      case "unknown_client":
        if (mutation.isResent) {
          this.#queue.refuse(mutation, new StreamError("outcome_unknown",
            "the server has forgotten this client: the mutation may have taken effect before the connection was lost, or not"));
        } else {
          mutation.mayHaveArrived = false;
          this.#halt ??= { then: "renew", client: mutation.client };
        }
        break;
    }
  }

  #taken(mutation: PendingMutation, result: unknown): void {
    const fields = typeof result === "object" && result !== null ? (result as Record<string, unknown>) : {};
    const { seq, at, duplicate } = fields;
    if (duplicate === true) {
      this.#queue.settleConfirmed(mutation, { changeSeq: seqOf(at) });
      return;
    }
    const errors = opErrorsOf(fields["errors"]);
    if (errors.length > 0 && (seq === null || (seq === undefined && isAtomic(mutation)))) {
      const [first] = errors;
      this.#refuse(mutation, new StreamError("atomic_failed", `an operation failed, so none was applied: ${first?.message}`, { errors }));
      return;
    }
    const settled = { seq: seqOf(seq), errors, answered: true };
    this.#queue.settle(mutation, settled, seq !== undefined || !this.#transport.isRoute);
  }

  #refuse(mutation: PendingMutation, error: StreamError): void {
    const { client } = mutation;
    this.#queue.refuse(mutation, error);
    // The back end may have refused it without the server hearing of it, or after.
    if (this.#transport.isRoute) this.#queue.renew(this.#queue.list.filter((one) => one.client === client));
  }

  #afterHalt(halt: Halt): void {
    this.#halt = undefined;
    this.#haltsInRow += 1;
    if (halt.then !== "again") {
      const ofClient = this.#queue.list.filter((one) => one.client === halt.client);
      // Without the one that is expected none of these can have taken effect, nor ever will under this client.
      const isHeld = halt.then === "gap" && ofClient.some(({ seq }) => seq === halt.expected);
      if (!isHeld) this.#queue.renew(ofClient);
    }
    if (halt.then === "again" || this.#haltsInRow > 1) {
      this.#pause = setTimeout(() => this.hurry(), this.#backoff.next());
    }
  }
}

const isAtomic = ({ data }: PendingMutation): boolean => (JSON.parse(data) as { atomic?: unknown }).atomic === true;
