// The golden vectors through `applyOps`, as far as JavaScript's numbers can hold them. `applyOpsJson` runs all of them in
// every runtime: see runtimes.test.mjs.

import assert from "node:assert/strict";
import { before, test } from "node:test";

import { Exact, parseExact, plain } from "./exact-json.mjs";
import { installed } from "./installed.mjs";
import * as lines from "./vector-lines.mjs";

const applied = lines.applied.map(parseExact);
const refused = lines.refused.map(parseExact);

let core;
before(async () => {
  core = await installed("iii-stream/core");
  await core.init();
});

/** Runs `check` for each vector and fails once, with all that differed. */
function all(vectors, check) {
  const differences = [];
  for (const vector of vectors) {
    try {
      check(vector);
    } catch (error) {
      differences.push(`${vector.name}: ${error.message}`);
    }
  }
  assert.deepEqual(differences, []);
}

test("the vector files are whole", () => {
  assert.ok(applied.length > 1_287);
  assert.ok(refused.length > 40);
});

test("applyOps agrees with every vector whose numbers JavaScript can hold", () => {
  const cases = applied.filter(Exact.isPlain);
  assert.ok(cases.length > 900, `only ${cases.length} vectors are plain`);
  all(cases, (exact) => {
    const vector = plain(exact);
    const before = JSON.stringify([vector.old, vector.ops]);
    const { value, errors } = core.applyOps(vector.old, vector.ops);
    assert.deepEqual(value, vector.new);
    assert.deepEqual(errors.map(({ opIndex, code }) => ({ op_index: opIndex, code })), vector.errors);
    assert.equal(JSON.stringify([vector.old, vector.ops]), before, "an argument was changed");
  });
});

test("applyOps refuses what applyOpsJson refuses", () => {
  const cases = refused.filter((vector) => Exact.isPlain(vector) && !vector.document_accepts);
  assert.ok(cases.length > 25, `only ${cases.length} vectors are plain`);
  all(cases, (exact) => {
    const vector = plain(exact);
    assert.throws(() => core.applyOps({ a: 5 }, vector.ops), { name: "Error", code: vector.code });
  });
});
