// The pending mutations of one group in one tab, in order: shown, kept, confirmed or rolled back. Who sends them is `queue_sender.ts`.

import type { Ability } from "../core/grants.js";
import { background } from "./backoff.js";
import { asStreamError, codeOf, StreamError } from "./errors.js";
import { Identity, PendingMutation } from "./pending_mutation.js";
import type { StoredMutation } from "./pending_store.js";
import { QueueStorage } from "./queue_storage.js";
import { type Confirmed, type Predicted, type Replica, opErrorsOf } from "./replica.js";
import type { StoreGuard } from "./store_guard.js";
import type { FunctionId, Mutation, Settled } from "./values.js";

/** What the queues of a client share. */
export interface QueueUser {
  /** `undefined` until the core is loaded. */
  readonly replica: Replica | undefined;
  readonly store: StoreGuard | undefined;
  readonly owner: string;
  /** Mutations that a group may have pending. */
  readonly pendingMax: number;
  /** Whether the server grants this, as far as this client knows. */
  may(ability: Ability, stream: string, group: string, item: string | undefined): boolean;
  /** What this tab shows has changed by its own doing. */
  shown(): void;
  /** What is shown may have changed by an answer. */
  changed(): void;
  rejected(mutation: Mutation, error: StreamError): void;
}

/** Whoever sends what is in the queue. */
export interface Sender {
  /** There may be something to send. */
  pump(): void;
}

/** How long a change is shown on that the application's route has confirmed without saying where it is in the group's order. */
const ECHO_WAIT_MS = 5_000;

const ABILITIES: ReadonlyMap<string, Ability> = new Map([
  ["stream::set", "set"], ["stream::update", "update"], ["stream::delete", "delete"], ["stream::send", "send"],
]);

export class MutationQueue {
  /** Those that this tab sends, in order; the ones of a client follow one another. */
  readonly list: PendingMutation[] = [];
  readonly storage: QueueStorage;
  sender: Sender | undefined;
  readonly #user: QueueUser;
  readonly #counted: () => void;
  /** Those that another tab has taken over, and that are shown until it is done with them. */
  readonly #moved = new Set<PendingMutation>();
  /** For the edits to come. */
  #own = new Identity();
  #closed: StreamError | undefined;

  /** `counted` hears that one more or less is pending. */
  constructor(readonly stream: string, readonly group: string, user: QueueUser, counted: () => void) {
    this.#user = user;
    this.#counted = counted;
    this.storage = new QueueStorage(user.store, user.owner, stream, group, {
      saved: () => this.sender?.pump(),
      notAdded: (mutations) => this.renew(mutations),
      notReplaced: (mutations) => {
        for (const one of mutations) this.refuse(one, new StreamError("outcome_unknown", "another tab has taken the mutation over"));
      },
    });
  }

  get size(): number {
    return this.list.length + this.#moved.size;
  }

  /** Clients of this queue that another tab sends for. */
  get movedClients(): ReadonlySet<string> {
    return new Set([...this.#moved].map(({ client }) => client));
  }

  /** Takes an edit: shows it, keeps it, and has it sent. `data` is the JSON text of the function's input. */
  add(functionId: FunctionId, itemId: string | null, data: string): Mutation {
    const { pendingMax } = this.#user;
    const mutation = new PendingMutation(this.#own.client, this.#own.next(), functionId, itemId, data);
    const isFull = this.size >= pendingMax;
    if (this.#closed !== undefined || isFull) {
      this.#own.takeBack();
      const full = new StreamError("too_many_pending", `${pendingMax} mutations of the group ${this.group} are pending already (pendingMax)`);
      this.#report(mutation, this.#closed ?? full);
      return mutation;
    }
    this.list.push(mutation);
    if (!this.#show(mutation)) {
      this.#own.takeBack();
      return mutation;
    }
    this.storage.add(mutation);
    this.#counted();
    this.#user.shown();
    this.sender?.pump();
    return mutation;
  }

  /** Refuses an edit that cannot even be written down. */
  refuseNew(functionId: FunctionId, itemId: string | null, error: StreamError): Mutation {
    const mutation = new PendingMutation(this.#own.client, 0, functionId, itemId, "{}");
    this.#report(mutation, error);
    return mutation;
  }

  /** Takes over what another tab has left behind: before the own edits, which are newer. */
  adopt(client: string, stored: readonly StoredMutation[]): void {
    const known = new Map([...this.list, ...this.#moved].filter((one) => one.client === client).map((one) => [one.seq, one]));
    const adopted = stored.map(({ seq, functionId, data, wasSent }) => {
      const mutation = known.get(seq) ?? new PendingMutation(client, seq, functionId, itemOf(data), data);
      mutation.mayHaveArrived = wasSent;
      mutation.isAdopted = true;
      mutation.isSaved = true;
      mutation.storedAs = { client, seq };
      this.#moved.delete(mutation);
      return mutation;
    });
    const listed = new Set(this.list);
    const added = adopted.filter((one) => !listed.has(one));
    const firstOwn = this.list.findIndex((one) => !one.isAdopted);
    this.#reshow(firstOwn < 0 ? this.list.length : firstOwn, (from) => this.list.splice(from, 0, ...added));
    this.#counted();
    this.sender?.pump();
  }

  /** Shows what could not be shown before the core was there. */
  showAll(): void {
    for (const mutation of [...this.list]) this.#show(mutation);
    this.#user.shown();
  }

  /** The server has taken it. */
  settle(mutation: PendingMutation, settled: Settled, isChangeKnown = true): void {
    if (!this.#take(mutation)) return;
    const { client, seq } = mutation;
    const drop = (): void => {
      this.#user.replica?.acknowledge(client, seq, settled.seq ?? undefined);
      this.#user.changed();
    };
    if (mutation.confirmed === undefined) {
      if (isChangeKnown) drop();
      else background(setTimeout(drop, ECHO_WAIT_MS));
    }
    mutation.resolve(settled);
    this.#counted();
  }

  /** It will never take effect. */
  refuse(mutation: PendingMutation, error: StreamError): void {
    if (!this.#take(mutation)) return;
    if (mutation.isShown) {
      this.#user.replica?.withdraw(mutation.client, mutation.seq);
      this.#user.changed();
    }
    this.#report(mutation, error);
    this.#counted();
  }

  /** The server says by an event or a sync that it has dealt with a mutation. */
  confirm(confirmed: Confirmed): void {
    const matches = (one: PendingMutation): boolean => one.seq === confirmed.seq && one.client === confirmed.client;
    const mutation = this.list.find(matches) ?? [...this.#moved].find(matches);
    if (mutation === undefined) return;
    mutation.confirmed = confirmed;
    // The answer of one in flight says more, and comes.
    if (!mutation.isInFlight) this.settleConfirmed(mutation, confirmed);
  }

  /** Settles without an answer. */
  settleConfirmed(mutation: PendingMutation, { changeSeq }: Pick<Confirmed, "changeSeq">): void {
    this.settle(mutation, { seq: changeSeq, errors: mutation.predicted?.errors ?? [], answered: false });
  }

  /** Gives mutations that never took effect under their client another one, under which they are counted from 1. */
  renew(mutations: readonly PendingMutation[]): void {
    const asked = new Set(mutations);
    const pending = new Set(this.list.filter((one) => asked.has(one)));
    const first = this.list.findIndex((one) => pending.has(one));
    if (first < 0) return;
    const former = this.list[first]?.client ?? "";
    const identity = new Identity();
    // Edits to come go on where these end.
    if (former === this.#own.client) this.#own = identity;
    this.#reshow(first, () => {
      for (const one of pending) {
        one.client = identity.client;
        one.seq = identity.next();
        one.mayHaveArrived = false;
      }
    });
    this.storage.replace(former, [...pending]);
  }

  /** Another tab has taken these over: it sends them, under their client; edits to come get another one. */
  move(mutations: readonly PendingMutation[]): void {
    for (const one of mutations) {
      const at = this.list.indexOf(one);
      if (at < 0) continue;
      this.list.splice(at, 1);
      this.#moved.add(one);
    }
    if (mutations.some((one) => one.client === this.#own.client)) this.#own = new Identity();
  }

  /** Looks whether the other tab is done with what it took over: what it forgot is settled, one way or the other. */
  async lookAfterMoved(): Promise<void> {
    for (const client of this.movedClients) {
      const seqs = await this.storage.seqsOf(client);
      if (seqs === undefined) continue;
      for (const one of [...this.#moved]) {
        if (one.client === client && !seqs.has(one.seq)) this.settleConfirmed(one, { changeSeq: null });
      }
    }
  }

  /** Ends the queue: nothing is sent any more. What is stored stays there. */
  async close(error: (isStored: boolean) => StreamError): Promise<void> {
    this.#closed = error(false);
    await this.storage.written();
    for (const one of [...this.list, ...this.#moved]) {
      // The storage keeps it, so `remove` must not be told.
      const closed = error(one.storedAs !== undefined || this.#moved.has(one));
      one.reject(closed);
      if (closed.details.stored !== true) this.#user.rejected(one, closed);
    }
    this.list.length = 0;
    this.#moved.clear();
  }

  /** Shows a mutation; `false` if it can never be accepted, and is refused therefore. */
  #show(mutation: PendingMutation): boolean {
    const { replica } = this.#user;
    if (replica === undefined || mutation.isShown) return true;
    const { functionId, itemId } = mutation;
    const ability = ABILITIES.get(functionId);
    if (ability !== undefined && !this.#user.may(ability, this.stream, this.group, itemId ?? undefined)) {
      const refused = { code: "forbidden", message: `${functionId} is not granted to this client here` };
      mutation.predicted = { errors: [], refused };
      return true;
    }
    try {
      const predicted = JSON.parse(replica.mutate(mutation.client, mutation.seq, mutation.functionId, mutation.data)) as Predicted;
      mutation.predicted = { errors: opErrorsOf(predicted.opErrors), refused: predicted.refused };
      mutation.isShown = true;
      return true;
    } catch (error) {
      const code = codeOf(error);
      // As many are shown as can be. One that is kept is sent all the same; only a new one can still be refused.
      if (code === "too_many_pending" && mutation.storedAs !== undefined) return true;
      const message = error instanceof Error ? error.message : String(error);
      this.refuse(mutation, code === undefined ? asStreamError(error, "core_unavailable") : new StreamError(code, message, {}, error));
      return false;
    }
  }

  /** Does `change` to the list from an index on, and has everything from there shown anew: the replica shows in the order of being told. */
  #reshow(from: number, change: (from: number) => void): void {
    const { replica } = this.#user;
    // From the end, so that there is nothing behind to be replayed.
    for (const one of this.list.slice(from).reverse()) {
      if (one.isShown) replica?.withdraw(one.client, one.seq);
      one.isShown = false;
    }
    change(from);
    for (const one of this.list.slice(from)) this.#show(one);
    this.#user.changed();
  }

  /** Takes a mutation out of the queue, if it is still in there. */
  #take(mutation: PendingMutation): boolean {
    const at = this.list.indexOf(mutation);
    if (at >= 0) this.list.splice(at, 1);
    else if (!this.#moved.delete(mutation)) return false;
    this.storage.remove(mutation);
    return true;
  }

  #report(mutation: PendingMutation, error: StreamError): void {
    mutation.reject(error);
    this.#user.rejected(mutation, error);
  }
}

/** The item that a function's input names. What is stored may be anything; the replica refuses what cannot be read. */
function itemOf(data: string): string | null {
  try {
    const { item_id: itemId, id } = JSON.parse(data) as { item_id?: string; id?: string };
    return itemId ?? id ?? null;
  } catch {
    return null;
  }
}
