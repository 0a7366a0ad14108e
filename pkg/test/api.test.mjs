// The API reference is that of the sources.

import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { pages, target, typedoc } from "./api.mjs";

const skip = existsSync(typedoc) ? false : "typedoc is not installed; run: make setup";

test("docs/api is what `make api` makes", { skip }, () => {
  const made = pages();
  assert.deepEqual(readdirSync(target).sort(), Object.keys(made).sort());
  for (const [name, text] of Object.entries(made)) {
    assert.ok(readFileSync(join(target, name), "utf8") === text, `docs/api/${name} is old; run: make api`);
  }
});
