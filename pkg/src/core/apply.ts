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
  const apply = core().applyOpsJson;
  const currentText = current === undefined ? undefined : jsonOf(current, "the current value");
  const { value, errors } = applied(apply(currentText, jsonOf(ops, "`ops`")));
  return { value: JSON.parse(value) as Value, errors };
}

/**
 * Applies ops to an item, text to text: numbers stay exactly as they were written.
 *
 * @throws {@link CoreError} where the ops or the current text cannot be read; nothing is applied then
 */
export function applyOpsJson(currentText: string | undefined, opsText: string): Applied<string> {
  const apply = core().applyOpsJson;
  if (currentText !== undefined) requireText(currentText, "currentText");
  requireText(opsText, "opsText");
  return applied(apply(currentText, opsText));
}

/** What an update may hold at most. */
export function limits(): Limits {
  return core().limits() as Limits;
}

/** Every code that an op can fail with. */
export function errorCodes(): string[] {
  return core().errorCodes();
}

/** What the core gives: the value's text alone where every op was applied. */
function applied(outcome: unknown): Applied<string> {
  return typeof outcome === "string" ? { value: outcome, errors: [] } : (outcome as Applied<string>);
}

function jsonOf(value: unknown, what: string): string {
  let reason: unknown = "it has no JSON form";
  try {
    const text: string | undefined = JSON.stringify(value);
    if (text !== undefined) return text;
  } catch (error) {
    reason = error;
  }
  throw codedError("deserialization_error", `${what} cannot be read: ${String(reason)}`);
}

function requireText(value: unknown, name: string): asserts value is string {
  if (typeof value === "string") return;
  throw codedError("deserialization_error", `${name} must be a string, got ${typeof value}`);
}
