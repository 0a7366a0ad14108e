// What is in the tarball, and what its types promise.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { files, folder } from "./installed.mjs";

const MODULE_GZIPPED_BYTES_MAX = 150 * 1024;
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

const manifest = JSON.parse(readFileSync(join(folder, "node_modules/iii-stream/package.json"), "utf8"));

test("the tarball holds what is listed and nothing else", () => {
  const sources = readdirSync(new URL("../src", import.meta.url), { recursive: true })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => /\.tsx?$/.test(path) && !/\.d\.ts$|\.workerd\.ts$/.test(path))
    .map((path) => path.replace(/\.tsx?$/, ""));
  const generated = ["wasm/glue.js", "wasm/inlined.js"];
  const compiled = [...sources.flatMap((path) => [`${path}.d.ts`, `${path}.js`]), ...generated];
  const entries = Object.values(manifest.exports).flatMap((conditions) => conditions.workerd?.default.slice(2) ?? []);
  const isShared = (path) => /^dist\/workerd\/shared-[A-Z0-9]{8}\.js$/.test(path);
  assert.ok(files.some(isShared));
  assert.deepEqual(
    files.filter((path) => !isShared(path)),
    [
      "LICENSE",
      "README.md",
      "dist/core.wasm",
      "dist/guest.wasm",
      ...["esm", "cjs"].flatMap((form) => compiled.map((path) => `dist/${form}/${path}`)),
      "dist/cjs/package.json",
      ...entries,
      "package.json",
    ].sort(),
  );
});

test("the module stays small", (t) => {
  const file = (path) => readFileSync(join(folder, "node_modules/iii-stream/dist", path));
  const module = gzipSync(file("core.wasm"), { level: 9 }).length;
  const inlined = gzipSync(file("esm/wasm/inlined.js"), { level: 9 }).length;
  t.diagnostic(`core.wasm: ${file("core.wasm").length} bytes, ${module} gzipped; as text in the package ${inlined} gzipped`);
  t.diagnostic(`guest.wasm: ${file("guest.wasm").length} bytes, ${gzipSync(file("guest.wasm"), { level: 9 }).length} gzipped`);
  assert.ok(module <= MODULE_GZIPPED_BYTES_MAX, `gzipped, the wasm module has ${module} bytes`);
});

test("types come first under every condition of every export", () => {
  for (const [entry, conditions] of Object.entries(manifest.exports)) {
    if (typeof conditions === "string") continue;
    assert.deepEqual(Object.keys(conditions), ["workerd", "import", "require"], entry);
    for (const targets of Object.values(conditions)) assert.deepEqual(Object.keys(targets), ["types", "default"], entry);
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
