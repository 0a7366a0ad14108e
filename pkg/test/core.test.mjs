// `iii-stream/core` as its user meets it: loading, values, errors, limits.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { before, test } from "node:test";

import { folder, installed } from "./installed.mjs";

/** Runs a module in a process of its own, where nothing was loaded yet, and gives the JSON that it prints. */
function inFreshProcess(script) {
  const output = execFileSync(process.execPath, ["--input-type=module", "-e", script], { cwd: folder, encoding: "utf8" });
  return JSON.parse(output);
}

const INCREMENT = '[{"type":"increment","path":"n","by":1}]';
const MODULE_BYTES = 'readFileSync("node_modules/iii-stream/dist/core.wasm")';

let core;
before(async () => {
  core = await installed("iii-stream/core");
  await core.init();
});

test("init needs no arguments, and loads once", () => {
  const seen = inFreshProcess(`
    import { init, applyOpsJson } from "iii-stream/core";
    const first = init();
    const same = first === init();
    await first;
    console.log(JSON.stringify([same, applyOpsJson(undefined, '${INCREMENT}')]));`);
  assert.deepEqual(seen, [true, { value: '{"n":1}', errors: [] }]);
});

for (const [what, source] of Object.entries({
  bytes: MODULE_BYTES,
  "an ArrayBuffer": `new Uint8Array(${MODULE_BYTES}).buffer`,
  "a compiled module": `new WebAssembly.Module(${MODULE_BYTES})`,
  "a response": `new Response(${MODULE_BYTES}, { headers: { "content-type": "application/wasm" } })`,
})) {
  test(`init takes ${what}`, () => {
    const seen = inFreshProcess(`
      import { readFileSync } from "node:fs";
      import { init, applyOpsJson } from "iii-stream/core";
      await init(${source});
      console.log(JSON.stringify(applyOpsJson('{"n":1}', '${INCREMENT}').value));`);
    assert.equal(seen, '{"n":2}');
  });
}

test("a failed init can be repeated", () => {
  const seen = inFreshProcess(`
    import { init, errorCodes } from "iii-stream/core";
    const failed = await init(new Uint8Array([1, 2, 3])).then(() => false, (error) => error instanceof WebAssembly.CompileError);
    await init();
    console.log(JSON.stringify([failed, errorCodes().length > 0]));`);
  assert.deepEqual(seen, [true, true]);
});

test("before init every function says what to do", () => {
  const seen = inFreshProcess(`
    import * as core from "iii-stream/core";
    const codeOf = (run) => { try { run(); return "none"; } catch (error) { return error.code; } };
    console.log(JSON.stringify([
      codeOf(() => core.applyOps({}, [])), codeOf(() => core.applyOpsJson("{}", "[]")),
      codeOf(() => core.limits()), codeOf(() => core.errorCodes()), codeOf(() => new core.Replica()),
    ]));`);
  assert.deepEqual(seen, Array(5).fill("not_initialized"));
});

test("the bare name and the edge give the same functions", async () => {
  const [index, edge] = await Promise.all([installed("iii-stream"), installed("iii-stream/edge")]);
  const names = ["Grants", "Replica", "applyOps", "applyOpsJson", "errorCodes", "init", "limits"];
  assert.deepEqual(Object.keys(core).sort(), names);
  assert.deepEqual(Object.keys(edge).sort(), names);
  for (const name of names) {
    assert.equal(index[name], core[name], name);
    assert.equal(edge[name], core[name], name);
  }
});

test("undefined is a missing item, null a stored value", () => {
  const ops = [{ type: "increment", path: "", by: 5 }];
  assert.deepEqual(core.applyOps(undefined, ops), { value: 5, errors: [] });
  assert.equal(core.applyOps(null, ops).errors[0].code, "increment.not_number");
  assert.equal(core.applyOps(null, ops).value, null);
});

test("errors are plain objects that name the op", () => {
  const { value, errors } = core.applyOps({ title: "x" }, [
    { type: "append", path: "title", value: 7 },
    { type: "merge", path: ["a", "__proto__"], value: {} },
    { type: "set", path: "ok", value: true },
  ]);
  assert.deepEqual(value, { title: "x", ok: true });
  assert.deepEqual(errors.map(({ opIndex, code }) => [opIndex, code]), [
    [0, "append.type_mismatch"],
    [1, "merge.path.proto_polluted"],
  ]);
  for (const error of errors) assert.deepEqual(Object.keys(error), ["opIndex", "code", "message"]);
});

test("applyOpsJson keeps 64-bit integers and floats as they are", () => {
  const { value } = core.applyOpsJson('{"n":9223372036854775807,"f":1.0}', INCREMENT);
  assert.equal(value, '{"n":9223372036854775808,"f":1.0}');
});

test("what cannot be read throws an Error with a code", () => {
  const cyclic = {};
  cyclic.self = cyclic;
  const malformed = { name: "Error", code: "deserialization_error" };
  for (const ops of [undefined, null, {}, "[]", [1], [{ type: "Set" }], [cyclic], [{ type: "set", value: 1n }]]) {
    assert.throws(() => core.applyOps({}, ops), malformed);
  }
  for (const current of [cyclic, 1n, () => {}, Symbol("s")]) {
    assert.throws(() => core.applyOps(current, []), malformed);
  }
  for (const text of [undefined, null, 7, {}, "", "{", "[{}]"]) {
    assert.throws(() => core.applyOpsJson("{}", text), malformed);
  }
  for (const text of [null, 7, {}, "", "{", "nul"]) {
    assert.throws(() => core.applyOpsJson(text, "[]"), malformed);
  }
  assert.deepEqual(core.applyOpsJson("{}", "[]"), { value: "{}", errors: [] }, "it works on after all that");
});

test("limits and codes are those of the server", () => {
  assert.deepEqual(core.limits(), {
    opsMax: 10_000,
    pathSegmentsMax: 32,
    pathSegmentBytesMax: 256,
    mergeValueKeysMax: 1_024,
    mergeValueDepthMax: 16,
    valueDepthMax: 125,
  });
  const { opsMax } = core.limits();
  const many = (count) => Array(count).fill({ type: "increment", by: 1 });
  assert.deepEqual(core.applyOps(undefined, many(opsMax)), { value: opsMax, errors: [] });
  assert.throws(() => core.applyOps(undefined, many(opsMax + 1)), { code: "too_many_ops" });
  const codes = core.errorCodes();
  assert.equal(new Set(codes).size, codes.length);
  assert.ok(codes.includes("merge.path.too_deep"));
});
