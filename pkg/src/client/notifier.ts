// When listeners are told: once per frame of a page that is seen, soon elsewhere, and at once of what the page itself did.

/** Has `task` run once, soon. */
export type Schedule = (task: () => void) => void;

/** A page that is hidden in the middle of a frame paints no more; its listeners are told all the same. */
const FRAME_MS_MAX = 100;

/** Once per animation frame where somebody sees the page; as a microtask where there is no page. */
export function defaultSchedule(task: () => void): void {
  if (typeof requestAnimationFrame !== "function" || typeof document === "undefined") {
    queueMicrotask(task);
    return;
  }
  if (document.visibilityState !== "visible") {
    setTimeout(task, 0);
    return;
  }
  const run = (): void => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    task();
  };
  const frame = requestAnimationFrame(run);
  const timer = setTimeout(run, FRAME_MS_MAX);
}

/** Something with listeners of its own. */
export interface Notified {
  notify(): void;
}

export class Notifier {
  readonly #schedule: Schedule;
  readonly #failed: (thrown: unknown) => void;
  readonly #waiting = new Set<Notified>();
  #isScheduled = false;
  #isFlushing = false;

  /** `failed` hears of what a target throws; the others are told all the same. */
  constructor(schedule: Schedule, failed: (thrown: unknown) => void) {
    this.#schedule = schedule;
    this.#failed = failed;
  }

  /** `target` is notified with the next flush. */
  add(target: Notified): void {
    this.#waiting.add(target);
    if (this.#isScheduled || this.#isFlushing) return;
    this.#isScheduled = true;
    this.#schedule(() => {
      this.#isScheduled = false;
      this.flush();
    });
  }

  /** Notifies now; from within a listener, after it. */
  flush(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    const targets = [...this.#waiting];
    this.#waiting.clear();
    for (const target of targets) {
      try {
        target.notify();
      } catch (error) {
        this.#failed(error);
      }
    }
    this.#isFlushing = false;
    const [left] = this.#waiting;
    if (left !== undefined) this.add(left);
  }
}
