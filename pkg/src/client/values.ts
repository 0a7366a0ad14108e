// The shapes that an application sees: items, snapshots of views, edits and what becomes of them.

import type { StreamError } from "./errors.js";
import type { JsonValue, OpError, UpdateOp } from "../core/types.js";

/** An item as it is shown: what the server has confirmed, with this client's pending mutations on top. */
export interface StreamItem<Value> {
  readonly id: string;
  readonly value: Value;
  /** The group's sequence at the item's last confirmed change; `null` while only pending mutations made it. Use it in {@link EditOptions.if}. */
  readonly seq: number | null;
  /** Whether a pending mutation is part of what is shown. */
  readonly pending: boolean;
}

/**
 * How a view stands.
 *
 * - `idle`: nobody listens, so nothing is followed
 * - `loading`: nothing complete has come yet; items may already be there
 * - `live`: what is shown is up to date
 * - `stale`: there is no connection, or what was missed is still coming; the last state is shown
 * - `denied`: the server does not let this client read it
 * - `failed`: the server cannot serve it, or the connection was closed for good, until `client.reconnect()`; `error` says why,
 *   and what was shown stays
 */
export type ViewStatus = "idle" | "loading" | "live" | "stale" | "denied" | "failed";

/** A group at one moment. The same object as long as nothing changes, and so are its unchanged items. */
export interface GroupSnapshot<Value> {
  /** In the order in which the server created them; those that only pending mutations create come last. */
  readonly items: readonly StreamItem<Value>[];
  readonly status: ViewStatus;
  /** Why the status is `denied` or `failed`. */
  readonly error: StreamError | null;
}

/** An item at one moment. The same object as long as nothing changes. */
export interface ItemSnapshot<Value> {
  /** `undefined`: there is no such item, or it is not known yet (see `status`). */
  readonly item: StreamItem<Value> | undefined;
  readonly status: ViewStatus;
  readonly error: StreamError | null;
}

/** An event made by `stream::send`. */
export interface StreamEvent {
  /** The item that it is about, if any. */
  readonly id: string | null;
  /** The group's sequence; `null` from a server that does not count. */
  readonly seq: number | null;
  readonly type: string;
  readonly data: unknown;
}

/** A condition on the item: exactly one of these. */
export type Condition = { readonly seq: number } | { readonly absent: true } | { readonly exists: true };

/** What an edit may ask for besides. */
export interface EditOptions {
  /** The edit is refused with `precondition_failed` where this does not hold. */
  readonly if?: Condition;
}

/** What a `set` may ask for besides. */
export interface SetOptions extends EditOptions {
  /** The item is deleted when it was not written for so long, in milliseconds. */
  readonly ttlMs?: number;
}

/** What an `update` may ask for besides. */
export interface UpdateOptions extends SetOptions {
  /** If one operation fails none is applied, and the edit is refused with `atomic_failed`. */
  readonly atomic?: boolean;
}

/** What this client expects of the server. The server decides. */
export interface Prediction {
  readonly errors: readonly OpError[];
  /** Why the server will refuse it, as far as this client can tell; nothing is shown then. */
  readonly refused: { readonly code: string; readonly message: string } | null;
}

/** What became of a mutation that was taken. */
export interface Settled {
  /** The group's sequence at the change; `null` where nothing changed or it is not known. */
  readonly seq: number | null;
  /** Operations that failed. */
  readonly errors: readonly OpError[];
  /**
   * `false`: the connection broke before the answer came, and the server says only that it has dealt with the mutation. One with
   * `if` or `atomic` may then have been refused; what is shown is right in any case.
   */
  readonly answered: boolean;
}

/** An edit that is shown at once and on its way to the server. */
export interface Mutation {
  readonly functionId: FunctionId;
  /** `null` for an event that is about no item. */
  readonly itemId: string | null;
  /** `null` until the core is loaded, which takes milliseconds once per page. */
  readonly predicted: Prediction | null;
  readonly state: "pending" | "settled" | "rejected";
  /**
   * Resolves when the server has taken it, however long that takes, also over a connection that was closed for good until
   * `client.reconnect()`; rejects with a {@link StreamError} when it never will. It is
   * rolled back then. Nobody needs to look: an unused rejection is not reported as unhandled, but see `client.onRejected`.
   */
  readonly settled: Promise<Settled>;
}

/** The functions that change something. */
export type FunctionId = "stream::set" | "stream::update" | "stream::delete" | "stream::send";

/** A mutation as the application's own route gets it: see {@link StreamClientOptions.send}. */
export interface OutgoingMutation {
  readonly functionId: FunctionId;
  /** The input for that function, with its `mutation`: call the function with exactly this. */
  readonly data: { readonly [key: string]: JsonValue };
  /** Whether it may have arrived before. */
  readonly resent: boolean;
}

/** How the client's connection stands. The same object as long as nothing changes. */
export interface ConnectionStatus {
  /** `idle`: not needed yet. `waiting`: lost, until `nextAttemptAt`. `closed`: for good, or until `reconnect()`. */
  readonly state: "idle" | "connecting" | "open" | "waiting" | "closed";
  /** Why there is no connection. */
  readonly reason: StreamError | null;
  /** Failed attempts in a row. */
  readonly attempt: number;
  /** Unix milliseconds of the next attempt; `null` unless `waiting`. */
  readonly nextAttemptAt: number | null;
}

export type { JsonValue, OpError, UpdateOp };
