// Keeps the identity of parts of a JSON value that did not change, so that whoever compares by identity sees what did.

/** `after`, with every part that equals its counterpart in `before` replaced by that; `before` itself where all is equal. */
export function keepUnchanged(before: unknown, after: unknown): unknown {
  if (before === after) return before;
  if (typeof before !== "object" || typeof after !== "object" || before === null || after === null) return after;
  if (Array.isArray(before) !== Array.isArray(after)) return after;
  return Array.isArray(after) ? keepElements(before as unknown[], after) : keepMembers(before as Members, after as Members);
}

type Members = Record<string, unknown>;

function keepElements(before: unknown[], after: unknown[]): unknown[] {
  let isSame = before.length === after.length;
  after.forEach((element, index) => {
    if (index >= before.length) return;
    after[index] = keepUnchanged(before[index], element);
    isSame &&= after[index] === before[index];
  });
  return isSame ? before : after;
}

function keepMembers(before: Members, after: Members): Members {
  const keys = Object.keys(after);
  const formerKeys = Object.keys(before);
  let isSame = keys.length === formerKeys.length;
  keys.forEach((key, index) => {
    // The order of members is part of what is shown.
    isSame &&= formerKeys[index] === key;
    if (!Object.hasOwn(before, key) || key === "__proto__") {
      isSame = false;
      return;
    }
    after[key] = keepUnchanged(before[key], after[key]);
    isSame &&= after[key] === before[key];
  });
  return isSame ? before : after;
}
