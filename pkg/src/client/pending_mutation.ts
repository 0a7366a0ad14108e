// One edit on its way: what was asked for, under which identity, and the promise of its outcome.

import type { StreamError } from "./errors.js";
import type { Confirmed } from "./replica.js";
import { randomSecret } from "./tab.js";
import type { FunctionId, Mutation, Prediction, Settled } from "./values.js";

/** A secret under which mutations of a group are counted from 1. */
export class Identity {
  readonly client = randomSecret();
  #last = 0;

  next(): number {
    this.#last += 1;
    return this.#last;
  }

  /** Takes back the last number: nobody has heard of it. */
  takeBack(): void {
    this.#last -= 1;
  }
}

export class PendingMutation implements Mutation {
  readonly settled: Promise<Settled>;
  predicted: Prediction | null = null;
  state: "pending" | "settled" | "rejected" = "pending";

  /** Whether the replica shows it. */
  isShown = false;
  /** Whether another tab made it. */
  isAdopted = false;
  /** Whether it may be sent as far as the storage is concerned. */
  isSaved = false;
  /** Under which identity the storage holds it, if it does: that may lag behind the present one. */
  storedAs: { readonly client: string; readonly seq: number } | undefined;
  /** Whether an answer is waited for. */
  isInFlight = false;
  /** Whether it was sent and the outcome is not known. */
  mayHaveArrived = false;
  /** Whether the server was told so with the last sending. */
  isResent = false;
  /** That the server has it, told by an event or a sync before the answer came. */
  confirmed: Confirmed | undefined;

  #resolve!: (settled: Settled) => void;
  #reject!: (error: StreamError) => void;

  constructor(
    public client: string,
    public seq: number,
    readonly functionId: FunctionId,
    readonly itemId: string | null,
    /** JSON text of the function's input, without `mutation`. */
    readonly data: string,
  ) {
    this.settled = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever does not wait for it is told by `client.onRejected`.
    this.settled.catch(() => {});
  }

  resolve(settled: Settled): void {
    this.state = "settled";
    this.#resolve(settled);
  }

  reject(error: StreamError): void {
    this.state = "rejected";
    this.#reject(error);
  }
}
