// Pauses between attempts: growing, and with full chance in them, so that a crowd that lost its server does not come back at once.

/** How long to wait before trying again. */
export interface BackoffOptions {
  /** The first pause is at most this. Default 500. */
  readonly firstMs?: number;
  /** No pause is longer than this. Default 30,000. */
  readonly maxMs?: number;
}

/** Doubling stops mattering long before; this keeps the power finite. */
const DOUBLINGS_MAX = 30;

export class Backoff {
  readonly #firstMs: number;
  readonly #maxMs: number;
  #failures = 0;

  constructor({ firstMs = 500, maxMs = 30_000 }: BackoffOptions = {}) {
    this.#firstMs = firstMs;
    this.#maxMs = maxMs;
  }

  /** Attempts that failed since the last success. */
  get failures(): number {
    return this.#failures;
  }

  /** Counts a failure and gives the pause in milliseconds: anything from none to the present bound. */
  next(): number {
    const bound = Math.min(this.#maxMs, this.#firstMs * 2 ** Math.min(this.#failures, DOUBLINGS_MAX));
    this.#failures += 1;
    return Math.random() * bound;
  }

  succeeded(): void {
    this.#failures = 0;
  }
}

/** Milliseconds of a clock that nobody sets. */
export const monotonicMs = (): number => performance.now();

/** Resolves as `promise` does, or rejects with what `late` makes after `ms`. */
export function withinMs<T>(promise: Promise<T>, ms: number, late: () => Error): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** Lets a process of Node end although this timer runs; elsewhere nothing. */
export function background(timer: ReturnType<typeof setTimeout>): ReturnType<typeof setTimeout> {
  (timer as { unref?: () => void }).unref?.();
  return timer;
}
