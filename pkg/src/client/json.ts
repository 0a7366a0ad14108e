// JSON values and update operations as types.

/** Anything that JSON can say. */
export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

/** One operation of an update. A `path` that is absent, `null` or `""` is the item itself. */
export type UpdateOp =
  | { type: "set"; path?: string | null; value?: JsonValue }
  | { type: "merge"; path?: string | string[] | null; value: { [key: string]: JsonValue } }
  | { type: "increment"; path?: string | null; by: number }
  | { type: "decrement"; path?: string | null; by: number }
  | { type: "append"; path?: string | string[] | null; value: JsonValue }
  | { type: "remove"; path?: string | null };
