// Takes over what tabs that are gone have left in the storage, at the start and from time to time.

import { background, withinMs } from "./backoff.js";
import type { StoredMutation } from "./pending_store.js";
import type { StoreGuard } from "./store_guard.js";
import type { Tab } from "./tab.js";

export interface AdoptionUser {
  /** Mutations of a group whose tab is gone: ours now. */
  adopted(stream: string, group: string, client: string, mutations: readonly StoredMutation[]): void;
  /** The first look is over: whatever was left behind is known. */
  looked(): void;
  /** Looks after what other tabs have taken over from this one. */
  lookAfterMoved(): Promise<void>;
}

const ENTER_TIMEOUT_MS = 2_000;

export class Adoption {
  readonly #store: StoreGuard;
  readonly #tab: Tab;
  readonly #user: AdoptionUser;
  readonly #intervalMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  constructor(store: StoreGuard, tab: Tab, intervalMs: number, user: AdoptionUser) {
    this.#store = store;
    this.#tab = tab;
    this.#intervalMs = intervalMs;
    this.#user = user;
  }

  /** Looks now, then at intervals. */
  async start(): Promise<void> {
    // Edits wait for this, so it must not wait for a browser that does not answer.
    await withinMs(this.#tab.enter(), ENTER_TIMEOUT_MS, () => new Error("no lock")).catch(() => {});
    await this.#look();
    this.#user.looked();
    this.#again();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#tab.leave();
  }

  #again(): void {
    if (this.#isClosed || this.#store.isBroken) return;
    this.#timer = background(setTimeout(() => {
      void this.#look().then(() => this.#again());
    }, this.#intervalMs));
  }

  async #look(): Promise<void> {
    await this.#store.run((store) => store.touch(this.#tab.owner, Date.now()), undefined);
    await this.#user.lookAfterMoved();
    for (const queue of await this.#store.run((store) => store.queues(), [])) {
      if (this.#isClosed) return;
      await this.#tab.ifGone(queue, async () => {
        const mutations = await this.#store.run((store) => store.adopt(queue, this.#tab.owner, Date.now()), null);
        if (mutations !== null && !this.#isClosed) this.#user.adopted(queue.stream, queue.group, queue.client, mutations);
      });
    }
  }
}
