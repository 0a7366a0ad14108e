// What is in the tarball, and that it may be published.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { files, folder, tarball } from "./installed.mjs";

const MODULE_GZIPPED_BYTES_MAX = 150_000;
const packageFolder = fileURLToPath(new URL("..", import.meta.url));
const publint = join(packageFolder, "node_modules/publint/src/cli.js");
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

test("publint finds nothing", () => {
  const { status, stdout } = spawnSync(process.execPath, [publint, "run", tarball, "--strict"], { encoding: "utf8" });
  assert.match(stdout, /All good!/);
  assert.equal(status, 0, stdout);
});

test("npm would publish it without a warning", () => {
  const args = ["publish", "--dry-run", "--ignore-scripts"];
  const { status, stderr } = spawnSync("npm", args, { cwd: packageFolder, encoding: "utf8", shell: process.platform === "win32" });
  assert.equal(status, 0, stderr);
  // What npm has to say of this machine is not about the package.
  const aboutHere = /requires you to be logged in|Unknown \w+ config|npm notice/;
  const said = stderr.split("\n").filter((line) => line !== "" && !aboutHere.test(line));
  assert.deepEqual(said, []);
});
