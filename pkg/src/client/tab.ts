// Which tab this is, and which others still live: by Web Locks where there are any, else by when they last said so.

import type { StoredQueue } from "./pending_store.js";

/** The part of `navigator.locks` that is used. */
export interface Locks {
  request(name: string, options: { ifAvailable?: boolean }, granted: (lock: unknown) => Promise<unknown>): Promise<unknown>;
}

const HEX = 16;
const SECRET_BYTES = 16;

/** 128 random bits in hexadecimal; also where the page is not secure, and `crypto.randomUUID` therefore missing. */
export function randomSecret(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(SECRET_BYTES));
  return Array.from(bytes, (byte) => byte.toString(HEX).padStart(2, "0")).join("");
}

export class Tab {
  /** Made anew with each client: a duplicated tab is another. */
  readonly owner = randomSecret();
  readonly #locks: Locks | undefined;
  readonly #storeName: string;
  readonly #aliveTimeoutMs: number;
  #release: (() => void) | undefined;

  constructor(storeName: string, locks: Locks | undefined, aliveTimeoutMs: number) {
    this.#storeName = storeName;
    this.#locks = locks;
    this.#aliveTimeoutMs = aliveTimeoutMs;
  }

  /** Shows that this tab lives until `leave`, or until the browser sees its end. Resolves when others can see it. */
  enter(): Promise<void> {
    const locks = this.#locks;
    if (locks === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const held = new Promise<void>((release) => {
        this.#release = release;
      });
      const granted = (): Promise<void> => {
        resolve();
        return held;
      };
      // A browser that refuses locks leaves the time of the last sign of life.
      locks.request(this.#lockName(this.owner), {}, granted).catch(() => resolve());
    });
  }

  leave(): void {
    this.#release?.();
  }

  /** Does `work` if the owner of `queue` is gone, and nobody else is looking at that moment. */
  async ifGone(queue: StoredQueue, work: () => Promise<void>): Promise<void> {
    if (queue.owner === this.owner) return;
    if (this.#locks === undefined) {
      if (this.#isSilent(queue)) await work();
      return;
    }
    let isAsked = false;
    try {
      await this.#locks.request(this.#lockName(queue.owner), { ifAvailable: true }, async (lock) => {
        isAsked = true;
        if (lock !== null) await work();
      });
    } catch {
      if (!isAsked && this.#isSilent(queue)) await work();
    }
  }

  /** A time in the future is a wrong clock. Taking a queue from a living tab does no harm: each asks before it sends. */
  #isSilent(queue: StoredQueue): boolean {
    return Math.abs(Date.now() - queue.aliveMs) > this.#aliveTimeoutMs;
  }

  #lockName(owner: string): string {
    return `iii-stream:${this.#storeName}:${owner}`;
  }
}
