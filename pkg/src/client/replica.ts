// What the client needs of the core's replica: the confirmed state of what is followed, and the pending mutations on top of it.

import type { Replica as CoreReplica } from "../core/replica.js";
import type { OpError } from "./values.js";

/** The replica of `iii-stream/core`, or what stands in for it. */
export type Replica = Pick<CoreReplica, keyof CoreReplica>;

/** What {@link Replica.receive} gives where more than items changed. */
export interface Received {
  readonly rejoin?: readonly string[];
  readonly synced?: readonly string[];
  readonly denied?: readonly string[];
  readonly errors?: readonly { readonly subscription?: string; readonly code: string; readonly message: string }[];
  readonly events?: readonly ReceivedEvent[];
  readonly confirmed?: readonly Confirmed[];
  readonly version1?: boolean;
}

/** A custom event, for one subscription. */
export interface ReceivedEvent {
  readonly subscription: string;
  readonly id: string | null;
  readonly seq: number | null;
  readonly type: string;
  readonly data: unknown;
}

/** A pending mutation that the server has dealt with; `changeSeq` is `null` where it is not known. */
export interface Confirmed {
  readonly client: string;
  readonly seq: number;
  readonly changeSeq: number | null;
}

/** What {@link Replica.changes} gives. */
export interface ViewChanges {
  readonly reset: boolean;
  readonly synced: boolean;
  readonly items: readonly ChangedItem[];
  readonly removed: readonly string[];
}

/** An item that is new, or differs from what was told last. */
export interface ChangedItem {
  readonly id: string;
  readonly value: unknown;
  readonly seq: number | null;
  readonly order: number;
  readonly pending: boolean;
}

/** What {@link Replica.mutate} expects to happen. */
export interface Predicted {
  readonly opErrors: readonly WireOpError[];
  readonly refused: { readonly code: string; readonly message: string } | null;
}

/** An operation's error as the server and the core write it. */
export interface WireOpError {
  readonly op_index: number;
  readonly code: string;
  readonly message: string;
}

/** Operations' errors as this package gives them; anything else that came in their place counts as none. */
export function opErrorsOf(errors: unknown): readonly OpError[] {
  if (!Array.isArray(errors)) return [];
  return (errors as readonly unknown[]).filter(isWireOpError).map(({ op_index: opIndex, code, message }) => ({ opIndex, code, message }));
}

function isWireOpError(error: unknown): error is WireOpError {
  if (typeof error !== "object" || error === null) return false;
  const { op_index: opIndex, code, message } = error as Record<string, unknown>;
  return typeof opIndex === "number" && typeof code === "string" && typeof message === "string";
}

/** A sequence as an answer has it; `null` for whatever is none. */
export const seqOf = (value: unknown): number | null => (Number.isSafeInteger(value) && (value as number) >= 0 ? value as number : null);
