// Makes pkg/dist out of pkg/src:
//
//   dist/esm       ES modules and types, one file per source file
//   dist/cjs       the same as CommonJS modules, for `require`
//   dist/workerd   one file per entry, for workerd: it takes the wasm module as an import
//   dist/*.wasm    the modules themselves
//
// In dist/esm and dist/cjs the module is a text inside the package. The entries are those of package.json's `exports`.
// src/wasm must be there: `make wasm` brings it.

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const folder = fileURLToPath(new URL(".", import.meta.url));
const from = (...path) => join(folder, "src", ...path);
/** Built beside and put in place at the end: a failed build leaves the last one as it was. */
const fresh = join(folder, "dist.new");
const to = (...path) => join(fresh, ...path);

if (!existsSync(from("wasm/core.wasm"))) {
  console.error("pkg/src/wasm is not there yet; run: make wasm");
  process.exit(1);
}
rmSync(fresh, { recursive: true, force: true });

const base64 = readFileSync(from("wasm/core.wasm")).toString("base64");
writeIfNew(from("wasm/inlined.js"), `export const base64 =\n  "${base64}";\n`);
writeIfNew(from("wasm/inlined.d.ts"), "export declare const base64: string;\n");

const compiler = fileURLToPath(new URL("node_modules/typescript/bin/tsc", import.meta.url));
const compiled = spawnSync(process.execPath, [compiler, "--project", folder, "--outDir", to("esm")], { stdio: "inherit" });
if (compiled.status !== 0) process.exit(1);
// A source of its own for workerd only, which is bundled below.
for (const suffix of ["js", "d.ts"]) rmSync(to(`esm/core/default-module.workerd.${suffix}`));
mkdirSync(to("esm/wasm"));
writeFileSync(to("esm/wasm/glue.js"), encodingAtOnce(readFileSync(from("wasm/glue.js"), "utf8")));
cpSync(from("wasm/inlined.js"), to("esm/wasm/inlined.js"));

const modules = files(to("esm"));
const quiet = { absWorkingDir: fresh, logLevel: "warning" };
await build({
  ...quiet,
  entryPoints: modules.filter((path) => path.endsWith(".js")).map((path) => to("esm", path)),
  outbase: to("esm"),
  outdir: to("cjs"),
  format: "cjs",
  platform: "neutral",
  target: "es2022",
});
for (const path of modules.filter((path) => path.endsWith(".d.ts"))) cpSync(to("esm", path), to("cjs", path));
// What tells runtimes and compilers that these files are CommonJS.
writeFileSync(to("cjs/package.json"), '{ "type": "commonjs" }\n');

const { exports } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
const entries = Object.values(exports).filter((conditions) => typeof conditions === "object" && "workerd" in conditions);
await build({
  ...quiet,
  entryPoints: entries.map(({ workerd, import: esm }) => ({
    in: to(esm.default.replace("./dist/", "")),
    out: workerd.default.replace("./dist/workerd/", "").replace(/\.js$/, ""),
  })),
  outdir: to("workerd"),
  bundle: true,
  splitting: true,
  chunkNames: "shared-[hash]",
  format: "esm",
  platform: "neutral",
  target: "es2022",
  packages: "external",
  plugins: [{ name: "workerd", setup: takeModuleAsImport }],
});

cpSync(from("wasm/core.wasm"), to("core.wasm"));
cpSync(from("wasm/guest.wasm"), to("guest.wasm"));
rmSync(join(folder, "dist"), { recursive: true, force: true });
renameSync(fresh, join(folder, "dist"));

/**
 * The glue passes strings to the module character by character. That is fast for names, and takes half as long again as
 * the encoder for the texts of items: those go the way that the glue has for modules that cannot reallocate.
 */
function encodingAtOnce(glue) {
  const condition = "if (realloc === undefined) {";
  if (glue.split(condition).length !== 2) throw new Error(`the glue has not one \`${condition}\` any more`);
  return glue.replace(condition, "if (realloc === undefined || arg.length > 100) {");
}

function takeModuleAsImport({ onResolve }) {
  onResolve({ filter: /\/default-module\.js$/ }, () => ({ path: from("core/default-module.workerd.ts") }));
  onResolve({ filter: /\.wasm$/ }, ({ path }) => ({ path, external: true }));
}

/** The paths of all files below a folder, seen from there. */
function files(root) {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1));
}

function writeIfNew(path, text) {
  if (!existsSync(path) || readFileSync(path, "utf8") !== text) writeFileSync(path, text);
}
