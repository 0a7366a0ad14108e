// The server's update rules as functions.

import { codedError } from "./coded-error.js";
import { core } from "./module.js";
import type { Applied, JsonValue, Limits, UpdateOp } from "./types.js";

/**
 * Applies ops to an item's value, which is `undefined` where the item is missing (`null` is a value). Neither argument is
 * changed.
 *
 * Values pass through `JSON`, so integers beyond 2^53 are rounded; {@link applyOpsJson} keeps them.
 *
 * @throws {@link CoreError} where the ops or the current value cannot be read; nothing is applied then
 */
export function applyOps<Value extends JsonValue = JsonValue>(
  current: JsonValue | undefined,
  ops: readonly UpdateOp[],
): Applied<Value> {
  return core().applyOps(current, ops) as Applied<Value>;
}

/**
 * Applies ops to an item, text to text: numbers stay exactly as they were written.
 *
 * @throws {@link CoreError} where the ops or the current text cannot be read; nothing is applied then
 */
export function applyOpsJson(currentText: string | undefined, opsText: string): Applied<string> {
  const { applyOpsJson: apply } = core();
  if (currentText !== undefined) requireText(currentText, "currentText");
  requireText(opsText, "opsText");
  return apply(currentText, opsText) as Applied<string>;
}

/** What an update may hold at most. */
export function limits(): Limits {
  return core().limits() as Limits;
}

/** Every code that an op can fail with. */
export function errorCodes(): string[] {
  return core().errorCodes();
}

function requireText(value: unknown, name: string): asserts value is string {
  if (typeof value === "string") return;
  throw codedError("deserialization_error", `${name} must be a string, got ${typeof value}`);
}
