// The types of `iii-stream/core`.

/** Anything that JSON can say. */
export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

/** One operation of an update. A `path` that is absent, `null` or `""` is the item itself. */
export type UpdateOp =
  /** Replaces the item or one field; an absent `value` is `null`. */
  | { type: "set"; path?: string | null; value?: JsonValue }
  /** Replaces several fields of an object; missing parents are created. */
  | { type: "merge"; path?: string | string[] | null; value: { [key: string]: JsonValue } }
  /** Adds to an integer, exactly, or to a float. `by` is an integer of 64 bits. */
  | { type: "increment"; path?: string | null; by: number }
  /** Subtracts likewise. */
  | { type: "decrement"; path?: string | null; by: number }
  /** Adds one element to an array, or text to a string; missing parents are created. */
  | { type: "append"; path?: string | string[] | null; value: JsonValue }
  /** Removes a field; at the root, leaves `null`. */
  | { type: "remove"; path?: string | null };

/** One op that could not be applied; the others were. */
export interface OpError {
  /** Which op, from 0. */
  opIndex: number;
  /** What to branch on: one of {@link errorCodes}. */
  code: string;
  /** What to show to people. */
  message: string;
}

/** The outcome of an update. */
export interface Applied<Value> {
  /** The item's new value. */
  value: Value;
  /** Empty where every op was applied. */
  errors: OpError[];
}

/** Thrown where nothing was applied. */
export interface CoreError extends Error {
  /**
   * `deserialization_error`: the ops or the current value cannot be read.
   * `too_many_ops`: more than {@link Limits.opsMax}.
   * `not_initialized`: {@link init} has not finished.
   */
  code: "deserialization_error" | "too_many_ops" | "not_initialized";
}

/** What an update may hold at most. */
export interface Limits {
  /** Ops of one update. */
  opsMax: number;
  /** Segments of a path. */
  pathSegmentsMax: number;
  /** UTF-8 bytes of a path segment. */
  pathSegmentBytesMax: number;
  /** Top-level keys of a `merge` value. */
  mergeValueKeysMax: number;
  /** Levels a `merge` value may nest. */
  mergeValueDepthMax: number;
  /** Levels an item may nest. */
  valueDepthMax: number;
}

/** The wasm module: its bytes, compiled, on its way, or its address. */
export type ModuleSource = BufferSource | WebAssembly.Module | Response | Promise<Response> | URL | string;
