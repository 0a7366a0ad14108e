// Types of `iii-stream/core`.

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

/**
 * Loads the core. Without a source it takes the module beside this file: from disk in Node, Deno and Bun, by `fetch` in a
 * browser. Calling it again gives the same promise; after a failure it tries again.
 */
export function init(source?: ModuleSource): Promise<void>;

/**
 * Applies ops to an item's value, which is `undefined` where the item is missing (`null` is a value). Neither argument is
 * changed.
 *
 * Values pass through `JSON`, so integers beyond 2^53 are rounded; {@link applyOpsJson} keeps them.
 *
 * @throws {CoreError} where the ops or the current value cannot be read; nothing is applied then
 */
export function applyOps<Value extends JsonValue = JsonValue>(
  current: JsonValue | undefined,
  ops: readonly UpdateOp[],
): Applied<Value>;

/**
 * Applies ops to an item, text to text: numbers stay exactly as they were written.
 *
 * @throws {CoreError} where the ops or the current text cannot be read; nothing is applied then
 */
export function applyOpsJson(currentText: string | undefined, opsText: string): Applied<string>;

/** What an update may hold at most. */
export function limits(): Limits;

/** Every code that an op can fail with. */
export function errorCodes(): string[];
