// A store that may fail at any moment without anybody but the application noticing: edits go on without it.

import { withinMs } from "./backoff.js";
import { StreamError } from "./errors.js";
import type { PendingStore } from "./pending_store.js";

/** A browser that neither opens nor refuses its database must not hold edits back. */
const TIMEOUT_MS = 5_000;

export class StoreGuard {
  readonly #store: PendingStore;
  readonly #failed: (error: StreamError) => void;
  #isBroken = false;

  /** `failed` is called once, at the first failure. */
  constructor(store: PendingStore, failed: (error: StreamError) => void) {
    this.#store = store;
    this.#failed = failed;
  }

  get name(): string {
    return this.#store.name;
  }

  /** Whether it has failed: nothing new is kept from then on. */
  get isBroken(): boolean {
    return this.#isBroken;
  }

  /** What `work` gives, or `otherwise` where the store is broken. Never rejects. */
  async run<T>(work: (store: PendingStore) => Promise<T>, otherwise: T): Promise<T> {
    return this.#isBroken ? otherwise : this.#attempt(work, otherwise);
  }

  /** As `run`, also of a broken store: what is settled should not come back, if that can be helped. */
  async runAnyway<T>(work: (store: PendingStore) => Promise<T>, otherwise: T): Promise<T> {
    return this.#attempt(work, otherwise);
  }

  async #attempt<T>(work: (store: PendingStore) => Promise<T>, otherwise: T): Promise<T> {
    try {
      return await withinMs(work(this.#store), TIMEOUT_MS, () => new Error(`the storage did not answer within ${TIMEOUT_MS} ms`));
    } catch (error) {
      if (!this.#isBroken) {
        this.#isBroken = true;
        const text = error instanceof Error ? error.message : String(error);
        this.#failed(new StreamError("storage_failed", `pending mutations are no longer kept: ${text}`, {}, error));
      }
      return otherwise;
    }
  }
}
