// The installed package in every runtime it is made for, without a browser: each loads it its own way, runs all golden
// vectors through `applyOpsJson`, and says how many there were.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";

import { folder } from "./installed.mjs";
import { runVectors } from "./run-vectors.mjs";
import { applied, count, refused } from "./vector-lines.mjs";

const run = promisify(execFile);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
/** What the programs below have in common: both doors, the second without `init`. */
const REPORT = `
  const atOnce = edge.applyOps({ n: 1 }, [{ type: "increment", path: "n", by: 1 }]);
  const report = { ...runVectors(core.applyOpsJson, lines), atOnce };`;
const EXPECTED = { ran: count, differences: [], atOnce: { value: { n: 2 }, errors: [] } };
const PROGRAMS = {
  "program.mjs": `
    import * as edge from "iii-stream/edge";
    import * as core from "iii-stream/core";
    import { runVectors } from "./run-vectors.mjs";
    import lines from "./lines.mjs";
    await core.init();
    ${REPORT}
    console.log(JSON.stringify(report));`,
  // The core alone: here nobody has loaded the module before \`init\`.
  "core.mjs": `
    import * as core from "iii-stream/core";
    await core.init();
    const edge = core;
    const { runVectors } = await import("./run-vectors.mjs");
    const { default: lines } = await import("./lines.mjs");
    ${REPORT}
    console.log(JSON.stringify(report));`,
  "program.cjs": `
    const core = require("iii-stream/core");
    Promise.all([core.init(), import("./run-vectors.mjs"), import("./lines.mjs")])
      .then(([, { runVectors }, { default: lines }]) => {
        const edge = require("iii-stream/edge");
        ${REPORT}
        console.log(JSON.stringify(report));
      });`,
  "worker.mjs": `
    import * as edge from "iii-stream/edge";
    import * as core from "iii-stream/core";
    import { applyOps } from "iii-stream";
    import { runVectors } from "./run-vectors.mjs";
    import lines from "./lines.mjs";
    ${REPORT}
    export default {
      async fetch() {
        await core.init();
        return Response.json(applyOps === core.applyOps ? report : { fault: "two instances" });
      },
    };`,
};

const programs = join(folder, "runtimes");
before(() => {
  mkdirSync(programs, { recursive: true });
  for (const name of ["exact-json.mjs", "run-vectors.mjs"]) copyFileSync(here(name), join(programs, name));
  writeFileSync(join(programs, "lines.mjs"), `export default ${JSON.stringify({ applied, refused })};`);
  for (const [name, text] of Object.entries(PROGRAMS)) writeFileSync(join(programs, name), text);
});

/** Says how many vectors ran, and fails where it was not all of them, with the right results. */
function check(t, report) {
  t.diagnostic(`${report.ran} vectors ran`);
  assert.deepEqual(report, EXPECTED);
}

async function output(program, args, env = {}) {
  const { stdout } = await run(program, args, { cwd: programs, env: { ...process.env, ...env } });
  return JSON.parse(stdout);
}

for (const program of ["program.mjs", "core.mjs", "program.cjs"]) {
  test(`Node: ${program}`, async (t) => check(t, await output(process.execPath, [program])));
}

/** A program out of npm, or why it cannot be had. */
async function installedProgram(name) {
  const path = here(`node_modules/.bin/${name}`);
  try {
    const { stdout } = await run(path, ["--version"]);
    return { path, version: stdout.trim().split("\n")[0] };
  } catch (error) {
    return { skip: `${name} does not run here (make setup installs it): ${error.message.split("\n")[0]}` };
  }
}

const deno = await installedProgram("deno");
for (const program of ["program.mjs", "core.mjs", "program.cjs"]) {
  // Reading is for `require` itself, which looks for its file.
  const permissions = program.endsWith(".cjs") ? [`--allow-read=${folder}`] : [];
  test(`Deno: ${program}, ${permissions.length === 0 ? "without any permission" : "may only read its folder"}`, { skip: deno.skip }, async (t) => {
    t.diagnostic(deno.version);
    const env = { DENO_DIR: join(folder, "deno"), DENO_NO_UPDATE_CHECK: "1" };
    const flags = ["run", "--no-prompt", "--no-remote", "--node-modules-dir=manual", ...permissions];
    check(t, await output(deno.path, [...flags, program], env));
  });
}

const bun = await installedProgram("bun");
for (const program of ["program.mjs", "core.mjs", "program.cjs"]) {
  test(`Bun: ${program}`, { skip: bun.skip }, async (t) => {
    t.diagnostic(`bun ${bun.version}`);
    check(t, await output(bun.path, ["run", "--no-install", program]));
  });
}

const workerd = await import("miniflare").then(
  ({ Miniflare }) => ({ Miniflare }),
  (error) => ({ skip: `miniflare cannot be loaded (make setup installs it): ${error.message}` }),
);
test("workerd", { skip: workerd.skip }, async (t) => {
  // As the tools for workers bundle: by these conditions, wasm kept as a file.
  const outfile = join(programs, "workerd/worker.mjs");
  await build({
    absWorkingDir: programs,
    entryPoints: ["worker.mjs"],
    outfile,
    bundle: true,
    format: "esm",
    conditions: ["workerd", "worker", "browser"],
    loader: { ".wasm": "copy" },
    logLevel: "warning",
  });
  const worker = new workerd.Miniflare({
    modules: true,
    modulesRoot: dirname(outfile),
    modulesRules: [{ type: "CompiledWasm", include: ["**/*.wasm"] }],
    scriptPath: outfile,
    compatibilityDate: "2026-01-01",
  });
  try {
    const response = await worker.dispatchFetch("http://worker/");
    check(t, await response.json());
  } finally {
    await worker.dispose();
  }
});

test("guest.wasm: imports nothing, answers JSON with JSON", async (t) => {
  const bytes = readFileSync(join(folder, "node_modules/iii-stream/dist/guest.wasm"));
  const source = process.env.III_STREAM_GUEST_WASM ?? here("../src/wasm/guest.wasm");
  assert.ok(bytes.equals(readFileSync(source)), "it is the module that the suite `vectors` runs in wasmtime");
  const { instance } = await WebAssembly.instantiate(bytes, {});
  const { memory, alloc, dealloc, update } = instance.exports;
  const ask = (text) => {
    const request = new TextEncoder().encode(text);
    const at = alloc(request.length);
    new Uint8Array(memory.buffer, at, request.length).set(request);
    const answer = BigInt.asUintN(64, update(at, request.length));
    dealloc(at, request.length);
    const [start, length] = [Number(answer >> 32n), Number(answer & 0xffff_ffffn)];
    const response = new TextDecoder().decode(new Uint8Array(memory.buffer, start, length));
    dealloc(start, length);
    return response;
  };
  const applyOpsJson = (current, ops) => {
    const answer = ask(`{${current === undefined ? "" : `"old":${current},`}"ops":${ops}}`);
    const { error } = JSON.parse(answer);
    if (error !== undefined) throw Object.assign(new Error(error.message), { code: error.code });
    // The value's own text: what JSON.parse makes of it has lost its numbers.
    const at = answer.lastIndexOf(',"errors":[');
    const errors = JSON.parse(answer.slice(at + 10, -1)).map(({ op_index, ...rest }) => ({ opIndex: op_index, ...rest }));
    return { value: answer.slice('{"value":'.length, at), errors };
  };
  check(t, { ...runVectors(applyOpsJson, { applied, refused }), atOnce: EXPECTED.atOnce });
});
