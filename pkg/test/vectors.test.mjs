// Every vector through applyOpsJson, and those that JavaScript's numbers can hold through applyOps.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, test } from "node:test";

import { installed } from "./installed.mjs";
import { Exact, parseExact, plain } from "./exact-json.mjs";

const lines = (name) =>
  readFileSync(new URL(`../../tests/vectors/${name}`, import.meta.url), "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => ({ text: line, vector: parseExact(line) }));

const applied = [...lines("update-ops.jsonl"), ...lines("update-ops-added.jsonl")];
const refused = [...lines("update-ops-rejected.jsonl"), ...lines("update-ops-added-rejected.jsonl")];
const REFUSED_ITEM = '{"a":5}';

let core;
before(async () => {
  core = await installed("iii-stream/core");
  await core.init();
});

const codes = (errors) => errors.map(({ opIndex, code }) => ({ op_index: opIndex, code }));
const text = (value) => Exact.stringify(value);

/** Runs `check` for each case and fails once, with all that differed. */
function all(cases, check) {
  const differences = [];
  for (const { vector } of cases) {
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

test("applyOpsJson agrees with every applied vector", () => {
  all(applied, (vector) => {
    const current = "old" in vector ? text(vector.old) : undefined;
    const { value, errors } = core.applyOpsJson(current, text(vector.ops));
    assert.deepEqual(parseExact(value), vector.new);
    assert.deepEqual(codes(errors), plain(vector.errors));
    for (const { message } of errors) assert.ok(message.length > 0);
  });
});

test("applyOpsJson refuses every refused vector", () => {
  all(refused, (vector) => {
    const run = () => core.applyOpsJson(REFUSED_ITEM, text(vector.ops));
    if (vector.document_accepts) run();
    else assert.throws(run, { name: "Error", code: vector.code });
  });
});

test("applyOps agrees with every vector whose numbers JavaScript can hold", () => {
  const cases = applied.filter(({ vector }) => Exact.isPlain(vector));
  assert.ok(cases.length > 900, `only ${cases.length} vectors are plain`);
  all(cases, (exact) => {
    const vector = plain(exact);
    const before = JSON.stringify([vector.old, vector.ops]);
    const { value, errors } = core.applyOps(vector.old, vector.ops);
    assert.deepEqual(value, vector.new);
    assert.deepEqual(codes(errors), vector.errors);
    assert.equal(JSON.stringify([vector.old, vector.ops]), before, "an argument was changed");
  });
});

test("applyOps refuses what applyOpsJson refuses", () => {
  const cases = refused.filter(({ vector }) => Exact.isPlain(vector) && !vector.document_accepts);
  assert.ok(cases.length > 25, `only ${cases.length} vectors are plain`);
  all(cases, (exact) => {
    const vector = plain(exact);
    assert.throws(() => core.applyOps({ a: 5 }, vector.ops), { name: "Error", code: vector.code });
  });
});
