// What is in the tarball, and what its types promise.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { files, folder } from "./installed.mjs";

const tsc = fileURLToPath(new URL("../node_modules/.bin/tsc", import.meta.url));

/** What the compiler says about a program that uses the installed package. */
function typecheck(program) {
  const file = join(folder, "program.ts");
  writeFileSync(file, program);
  const flags = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "--types", ""];
  try {
    return execFileSync(tsc, [...flags, file], { cwd: folder, encoding: "utf8" });
  } catch (error) {
    return error.stdout;
  }
}

test("the tarball holds what is listed and nothing else", () => {
  assert.deepEqual(files, [
    "LICENSE",
    "README.md",
    "core.d.ts",
    "core.js",
    "index.d.ts",
    "index.js",
    "package.json",
    "wasm/iii_stream_wasm.js",
    "wasm/iii_stream_wasm_bg.wasm",
  ]);
});

test("the module stays small", () => {
  const { length } = readFileSync(join(folder, "node_modules/iii-stream/wasm/iii_stream_wasm_bg.wasm"));
  assert.ok(length < 300_000, `the wasm module has ${length} bytes`);
});

test("types come first in every export", () => {
  const { exports } = JSON.parse(readFileSync(join(folder, "node_modules/iii-stream/package.json"), "utf8"));
  for (const [entry, conditions] of Object.entries(exports)) {
    if (typeof conditions === "object") assert.equal(Object.keys(conditions)[0], "types", entry);
  }
});

test("the README's example compiles", () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const [, example] = /```js\n([\s\S]*?)```/.exec(readme);
  assert.equal(typecheck(example), "");
});

test("the types accept what the core accepts", () => {
  const program = `
    import { init, applyOps, applyOpsJson, limits, errorCodes, type Applied, type CoreError } from "iii-stream/core";
    import { applyOps as again } from "iii-stream";
    await init();
    await init(new Uint8Array());
    await init(new URL("https://example.org/core.wasm"));
    const counted: Applied<{ n: number }> = applyOps<{ n: number }>(undefined, [
      { type: "increment", path: "n", by: 1 },
      { type: "merge", path: ["a", "b"], value: { c: [null] } },
      { type: "remove" },
      { type: "set", path: null },
    ]);
    const text: string = applyOpsJson(undefined, "[]").value;
    const depth: number = limits().valueDepthMax;
    const codes: string[] = errorCodes();
    try { again(null, []); } catch (error) { const code: string = (error as CoreError).code; }`;
  assert.equal(typecheck(program), "");
});

test("the types refuse what the core refuses", () => {
  for (const [op, fault] of [
    ['{ type: "set", path: ["a"], value: 1 }', "TS2322"],
    ['{ type: "merge", path: "a", value: 1 }', "TS2322"],
    ['{ type: "merge", path: "a" }', "TS2322"],
    ['{ type: "increment", path: "a" }', "TS2322"],
    ['{ type: "replace", path: "a" }', "TS2322"],
  ]) {
    assert.match(typecheck(`import { applyOps } from "iii-stream";\napplyOps({}, [${op}]);`), new RegExp(fault), op);
  }
});
