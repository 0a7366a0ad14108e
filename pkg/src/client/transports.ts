// The two ways in which mutations leave a client: calls over its socket, or a function of the application, which brings them to its back end.

import { withinMs } from "./backoff.js";
import type { CallLane } from "./call_lane.js";
import { StreamError } from "./errors.js";
import type { Answer } from "./frames.js";
import type { PendingMutation } from "./pending_mutation.js";
import type { Transport } from "./queue_sender.js";
import type { OutgoingMutation } from "./values.js";

/** Brings a mutation to the application's back end. */
export type SendFunction = (mutation: OutgoingMutation) => unknown;

/** What the socket's transport has to know. */
export interface SocketState {
  /** Whether the server takes calls; `undefined`: nothing has been heard of it that would tell. */
  readonly takesCalls: boolean | undefined;
  mayResend(stream: string, group: string): boolean;
}

/** Mutations as calls over the socket, many at a time. */
export class SocketTransport implements Transport {
  readonly isRoute = false;
  readonly #lane: CallLane;
  readonly #state: SocketState;

  constructor(lane: CallLane, state: SocketState) {
    this.#lane = lane;
    this.#state = state;
  }

  room(): number {
    return this.#lane.room;
  }

  send(mutation: PendingMutation, data: string, answered: (answer: Answer) => void): void {
    this.#lane.call(mutation.functionId, data, answered);
  }

  refusal(): StreamError | undefined {
    return this.#state.takesCalls === false
      ? new StreamError("unsupported_by_server", "this server takes no calls from clients: give the client a `send` function") : undefined;
  }

  mayResend(stream: string, group: string): boolean {
    return this.#state.mayResend(stream, group);
  }
}

/** Mutations by the application's function, one after the other. */
export class RouteTransport implements Transport {
  readonly isRoute = true;
  readonly #send: SendFunction;
  readonly #timeoutMs: number;

  constructor(send: SendFunction, timeoutMs: number) {
    this.#send = send;
    this.#timeoutMs = timeoutMs;
  }

  room(inFlight: number): number {
    return inFlight === 0 ? 1 : 0;
  }

  send({ functionId, isResent }: PendingMutation, data: string, answered: (answer: Answer) => void): void {
    const input = JSON.parse(data) as OutgoingMutation["data"];
    const call = async (): Promise<unknown> => this.#send({ functionId, data: input, resent: isResent });
    const late = (): Error => new Error(`the \`send\` function gave nothing within ${this.#timeoutMs} ms`);
    withinMs(call(), this.#timeoutMs, late).then(
      (result) => answered({ result }),
      (error: unknown) => answered({
        error: error instanceof StreamError ? error : new StreamError("connection_lost", "the `send` function failed", {}, error),
      }),
    );
  }

  refusal(): undefined {
    return undefined;
  }

  mayResend(): boolean {
    return true;
  }
}
