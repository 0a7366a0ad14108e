// The golden vectors as they lie in the repository, one JSON text each.

import { readFileSync } from "node:fs";

const lines = (name) =>
  readFileSync(new URL(`../../tests/vectors/${name}`, import.meta.url), "utf8")
    .split("\n")
    .filter(Boolean);

export const applied = [...lines("update-ops.jsonl"), ...lines("update-ops-added.jsonl")];
export const refused = [...lines("update-ops-rejected.jsonl"), ...lines("update-ops-added-rejected.jsonl")];
export const count = applied.length + refused.length;
