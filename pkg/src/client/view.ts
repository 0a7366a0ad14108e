// What group and item views have in common: listeners, following while there are any, and a snapshot that is read when asked for.

import type { StreamError } from "./errors.js";
import type { ViewChanges } from "./replica.js";
import type { FunctionId, Mutation, StreamEvent, ViewStatus } from "./values.js";

/** Where a view's contents come from, and its edits go. */
export interface ViewUser {
  follow(view: View): void;
  unfollow(view: View): void;
  /** What changed since it was last asked for; `undefined`: nothing, or the view is not followed. */
  changes(view: View): ViewChanges | undefined;
  mutate(view: View, functionId: FunctionId, itemId: string | null, input: Readonly<Record<string, unknown>>): Mutation;
  problem(thrown: unknown): void;
}

/** How a followed view stands. */
export interface Standing {
  readonly status: ViewStatus;
  readonly error: StreamError | null;
}

export const IDLE: Standing = { status: "idle", error: null };

export abstract class View<Snapshot extends object = object> {
  /** @internal */
  protected readonly user: ViewUser;
  readonly #listeners = new Set<(nothing: undefined) => void>();
  readonly #eventListeners = new Set<(event: StreamEvent) => void>();
  #standing: Standing = IDLE;
  /** @internal What `snapshot` gave last; `undefined`: it has to be made anew. */
  protected made: Snapshot | undefined;
  /** What the listeners were told of last. */
  #told: Snapshot | undefined;

  /** @internal */
  protected constructor(
    /** The stream's name. */
    readonly stream: string,
    /** The group's name. */
    readonly group: string,
    user: ViewUser,
  ) {
    this.user = user;
  }

  /** The item's name; `null` for a group. */
  abstract readonly id: string | null;

  /** Everything at this moment, for `useSyncExternalStore` and the like. */
  abstract get snapshot(): Snapshot;

  /** How the view stands. */
  get status(): ViewStatus {
    return this.#standing.status;
  }

  /** Why the status is `denied` or `failed`. */
  get error(): StreamError | null {
    return this.#standing.error;
  }

  /**
   * Calls `listener` when the view may have changed, and follows it on the server as long as there are listeners (and `lingerMs`
   * longer). Changes of others are told once per animation frame; own edits before the call that makes them returns, so that a
   * controlled input keeps its cursor.
   *
   * @returns ends it
   */
  subscribe(listener: () => void): () => void {
    return this.#listen(this.#listeners, listener);
  }

  /** Calls `listener` with every event of `stream::send` that comes while it listens; the view is followed as for `subscribe`. */
  onEvent(listener: (event: StreamEvent) => void): () => void {
    return this.#listen(this.#eventListeners, listener);
  }

  /** @internal */
  stand(standing: Standing): void {
    if (standing.status === this.#standing.status && standing.error === this.#standing.error) return;
    this.#standing = standing;
    this.made = undefined;
  }

  /** @internal */
  protected get standing(): Standing {
    return this.#standing;
  }

  /** @internal Tells the listeners, if there is something to tell. */
  notify(): void {
    const { snapshot } = this;
    if (snapshot === this.#told) return;
    this.#told = snapshot;
    this.#tell(this.#listeners, undefined);
  }

  /** @internal */
  event(event: StreamEvent): void {
    this.#tell(this.#eventListeners, event);
  }

  /** @internal Drops the contents: the view is not followed any more. */
  abstract clear(): void;

  #listen<Event>(listeners: Set<(event: Event) => void>, listener: (event: Event) => void): () => void {
    // The same function may listen twice, and ends each by itself.
    const own = (event: Event): void => listener(event);
    if (this.#count === 0) this.user.follow(this);
    listeners.add(own);
    return () => {
      if (listeners.delete(own) && this.#count === 0) this.user.unfollow(this);
    };
  }

  get #count(): number {
    return this.#listeners.size + this.#eventListeners.size;
  }

  #tell<Event>(listeners: Set<(event: Event) => void>, event: Event): void {
    for (const listener of [...listeners]) {
      // One that was ended by another is not told any more.
      if (!listeners.has(listener)) continue;
      try {
        listener(event);
      } catch (error) {
        this.user.problem(error);
      }
    }
  }
}
