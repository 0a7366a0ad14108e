// What the package's types promise, to every way of compiling that a user may have.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { folder } from "./installed.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const compilers = { "TypeScript 7": here("../node_modules/typescript/bin/tsc"), "TypeScript 6": here("node_modules/typescript/bin/tsc") };
const STRICT = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--noEmit", "--skipLibCheck", "false"];
const FLAGS = [...STRICT, "--target", "es2022", "--lib", "es2022,dom", "--jsx", "react-jsx"];
const ways = {
  "nodenext, ES module": ["mts", ["--module", "nodenext"]],
  "nodenext, CommonJS": ["cts", ["--module", "nodenext"]],
  bundler: ["ts", ["--module", "esnext", "--moduleResolution", "bundler"]],
};

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
/** In a function, since a CommonJS module cannot await. A line below `@ts-expect-error` must not compile. */
const USE = `
  export async function use(): Promise<void> {
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
    try { again(null, []); } catch (error) { const code: string = (error as CoreError).code; }
    // @ts-expect-error
    applyOps({}, [{ type: "set", path: ["a"], value: 1 }]);
    // @ts-expect-error
    applyOps({}, [{ type: "merge", path: "a", value: 1 }]);
    // @ts-expect-error
    applyOps({}, [{ type: "merge", path: "a" }]);
    // @ts-expect-error
    applyOps({}, [{ type: "increment", path: "a" }]);
    // @ts-expect-error
    applyOps({}, [{ type: "replace", path: "a" }]);
  }`;
const PROGRAM = `
  import { init, applyOps, applyOpsJson, limits, errorCodes, type Applied, type CoreError } from "iii-stream/core";
  import { applyOps as again } from "iii-stream";
  import { applyOps as atOnce } from "iii-stream/edge";
  export const value: unknown = atOnce(null, []).value;
  ${USE}`;

const programs = join(folder, "types");
mkdirSync(programs, { recursive: true });
// Whoever uses the hooks has the types of React.
mkdirSync(join(folder, "node_modules/@types"), { recursive: true });
const reactTypes = join(folder, "node_modules/@types/react");
if (!existsSync(reactTypes)) symlinkSync(here("../node_modules/@types/react"), reactTypes, "dir");

/** What a compiler says about a program that uses the installed package. */
function typecheck(compiler, flags, file, program) {
  writeFileSync(join(programs, file), program);
  return spawnSync(process.execPath, [compiler, ...FLAGS, ...flags, file], { cwd: programs, encoding: "utf8" }).stdout;
}

for (const [name, compiler] of Object.entries(compilers)) {
  const skip = existsSync(compiler) ? false : `${name} is not installed; run: make setup`;
  for (const [way, [extension, flags]] of Object.entries(ways)) {
    test(`${name}, ${way}`, { skip }, () => {
      assert.equal(typecheck(compiler, flags, `program.${extension}`, PROGRAM), "");
    });
  }
}

test("the README's examples compile", () => {
  const examples = [...readme.matchAll(/```(?:js|ts|tsx)\n([\s\S]*?)```/g)].map(([, example]) => example);
  assert.ok(examples.length > 0);
  const [, flags] = ways.bundler;
  for (const [index, example] of examples.entries()) {
    assert.equal(typecheck(compilers["TypeScript 7"], flags, `readme-${index}.tsx`, example), "");
  }
});
