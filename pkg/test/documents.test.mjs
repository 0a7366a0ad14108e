// docs/client.md: every block of code is compiled against the installed package, or is run as printed; sizes and policy are tried.
//
// What follows the language of a block says what happens to it, from top to bottom, in one folder:
//   nothing         TypeScript is compiled, strictly; it sees the names of GIVEN below. Text is for people
//   install         is a command of npm, for packages that are there
//   file=NAME       is written, and a later block has to run it
//   run             is `node NAME`, and must succeed
//   start=NAME      is `node NAME`, and stays until the end
//   expect          is what the last of these two said: these lines in this order, `…` standing for anything
// The ports 3112, 49134 and 8080 are those of the server that runs here, and a free one.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

import * as chromium from "./chromium.mjs";
import { folder } from "./installed.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const manual = readFileSync(here("../../docs/client.md"), "utf8");

/** What the page has introduced in words or in an earlier block. */
const GIVEN = `
  interface Todo { title: string; done: boolean }
  declare const client: import("iii-stream").StreamClient;
  declare const todos: import("iii-stream").GroupView<Todo>;
  declare function show(text: string): void;
`;
const FLAGS = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--noEmit", "--target", "es2022",
  "--lib", "es2022,dom", "--jsx", "react-jsx", "--module", "esnext", "--moduleResolution", "bundler", "--types", ""];
const TYPES = new Set(["js", "ts", "tsx"]);

const programs = join(folder, "documents");
mkdirSync(join(programs, "node_modules"), { recursive: true });

/** Has `name` found by the programs where it lies for other tests. */
function lend(name, path) {
  const place = join(programs, "node_modules", name);
  if (existsSync(path) && !existsSync(place)) symlinkSync(path, place, "dir");
}
mkdirSync(join(folder, "node_modules/@types"), { recursive: true });
const reactTypes = join(folder, "node_modules/@types/react");
if (!existsSync(reactTypes)) symlinkSync(here("../node_modules/@types/react"), reactTypes, "dir");
lend("iii-sdk", here("../../tests/clients/node_modules/iii-sdk"));
lend("ws", here("../node_modules/ws"));

const blocks = [...manual.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, info, body], index) => {
  const [language, what] = info.split(" ");
  const [verb, argument] = what?.split("=") ?? [];
  return { language, verb, argument, body, where: `block ${index + 1} (${info})` };
});

/** What the compiler says about the blocks that are not run. */
function compiled(made = "") {
  const files = blocks.filter(({ language, verb }) => TYPES.has(language) && verb === undefined).map(({ body, where }, index) => {
    const file = `block-${index}.tsx`;
    // A block without imports is a module all the same.
    writeFileSync(join(programs, file), `// ${where}\n${body}\nexport {};\n${made}`);
    return file;
  });
  assert.ok(files.length > 0);
  writeFileSync(join(programs, "given.d.ts"), GIVEN);
  const compiler = here("../node_modules/typescript/bin/tsc");
  return spawnSync(process.execPath, [compiler, ...FLAGS, "given.d.ts", ...files], { cwd: programs, encoding: "utf8" });
}

test("docs/client.md: what is not run compiles", () => {
  const { status, stdout } = compiled();
  assert.equal(stdout, "");
  assert.equal(status, 0);
  assert.match(compiled("todos.set(1);").stdout, /block-0\.tsx.*TS2554/);
});

test("docs/client.md: nothing is only printed", () => {
  const commands = blocks.filter(({ verb }) => verb === "run" || verb === "start").map(({ body }) => body);
  for (const { language, verb, argument, body, where } of blocks) {
    if (verb === "file") assert.ok(commands.some((command) => command.includes(argument)), `${where}: nothing runs it`);
    else if (verb === "install") assert.match(body, /^npm install( [\w-]+)+\n$/, where);
    else if (verb === undefined) assert.ok(language === "text" || TYPES.has(language), `${where}: nobody tries it`);
    else assert.ok(["run", "start", "expect"].includes(verb), where);
  }
});

/** A program of the page, with what it says. */
function started(command) {
  assert.match(command, /^node [\w.-]+\n$/);
  const args = ["--import", "./browser-names.mjs", command.trim().split(" ")[1]];
  const child = spawn(process.execPath, args, { cwd: programs, stdio: ["ignore", "pipe", "pipe"] });
  const program = { child, said: "", changed: () => {} };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      program.said += text;
      program.changed();
    });
  }
  return program;
}

const pattern = (line) => new RegExp(`^${line.trimEnd().split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(".*")}$`);

function says(program, expected) {
  const left = expected.trimEnd().split("\n").map(pattern);
  for (const line of program.said.split("\n")) if (left[0]?.test(line.trimEnd())) left.shift();
  return left.length === 0;
}

async function expects(program, expected, where) {
  const heard = new Promise((resolve) => {
    program.changed = () => says(program, expected) && resolve();
    program.changed();
  });
  const ended = once(program.child, "close");
  if (program.child.exitCode === null && !says(program, expected)) await Promise.race([heard, ended]);
  assert.ok(says(program, expected), `${where}: it said\n${program.said}`);
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

const EVERYTHING = [{ stream: "*", group: "*", can: ["read", "set", "update", "delete", "send"] }];
const harness = await import("../../tests/clients/harness.mjs").catch((error) => ({ missing: error.message }));
const binary = harness.serverBinary?.();
const skip = harness.missing !== undefined
  ? `tests/clients is not installed (make setup): ${harness.missing}`
  : !existsSync(binary) && `there is no ${binary}: cargo build -p iii-stream, or set III_STREAM_BIN`;

test("docs/client.md: its programs do what is printed", { skip, timeout: 60_000 }, async (t) => {
  const server = await harness.startServer({ stream: { default_grants: EVERYTHING } });
  t.after(() => server.stop());
  const ports = { 3112: new URL(server.subscribers).port, 49134: new URL(server.workers).port, 8080: await freePort() };
  const place = (text) => text.replace(/(?<!\d)(3112|49134|8080)(?!\d)/g, (port) => ports[port]);
  // What Node has from version 22 on, and browsers always had.
  writeFileSync(join(programs, "browser-names.mjs"), 'import { WebSocket } from "ws";\nglobalThis.WebSocket ??= WebSocket;\n');
  let last;
  for (const { verb, argument, body, where } of blocks) {
    if (verb === "file") {
      writeFileSync(join(programs, argument), place(body));
    } else if (verb === "run") {
      last = started(body);
      const [code] = await once(last.child, "close");
      assert.equal(code, 0, `${where}: it said\n${last.said}`);
    } else if (verb === "start") {
      last = started(body);
      const { child } = last;
      t.after(() => child.kill("SIGKILL"));
    } else if (verb === "expect") {
      await expects(last, place(body), where);
    }
  }
});

/** What a page loads that uses all of these entries: one file, or what a bundler makes of several. */
async function shipped(entries) {
  const [first] = entries;
  if (first.endsWith(".wasm")) return readFileSync(join(folder, "node_modules", first.replace("/", "/dist/")));
  return bundled(entries.map((entry, index) => `import * as e${index} from "${entry}"; globalThis.e${index} = e${index};`).join("\n"));
}

async function bundled(contents) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: programs },
    bundle: true,
    minify: true,
    format: "esm",
    external: ["react"],
    write: false,
  });
  return outputFiles[0].contents;
}

const skipInBrowser = skip || chromium.skip;
test("docs/client.md: the content security policy that it prints is enough, and needed", { skip: skipInBrowser, timeout: 60_000 }, async (t) => {
  const server = await harness.startServer({ stream: { default_grants: EVERYTHING } });
  t.after(() => server.stop());
  const [, printed] = manual.match(/`(default-src [^`]+)` is enough/);
  const policy = printed.replace("wss://example.org", server.subscribers);
  const root = join(programs, "policy");
  mkdirSync(root, { recursive: true });
  writeFileSync(join(root, "app.js"), await bundled(`
    import { StreamClient } from "iii-stream";
    const client = new StreamClient("${server.subscribers}");
    client.onError(({ code }) => { document.title = code; });
    client.group("s", "g").set("i", 1).settled.then(({ seq }) => { document.title = "change " + seq; });`));
  const pages = { enough: policy, less: policy.replace(" 'wasm-unsafe-eval'", "") };
  for (const [name, content] of Object.entries(pages)) {
    writeFileSync(join(root, `${name}.html`), `<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${content}">
      <title>none</title><script type="module" src="./app.js"></script>`);
  }
  const site = await chromium.serve(root);
  t.after(() => site.close());
  const browser = await chromium.launch();
  t.after(() => browser.close());
  const titles = {};
  for (const name of Object.keys(pages)) {
    const page = await browser.newPage();
    await page.goto(`${site.url}/${name}.html`);
    await page.waitForFunction(() => document.title !== "none", undefined, { timeout: 20_000 });
    titles[name] = await page.title();
  }
  assert.deepEqual(titles, { enough: "change 1", less: "core_unavailable" });
});

test("docs/client.md: sizes are as printed", async (t) => {
  const section = manual.split("## Sizes")[1];
  const rows = [...section.matchAll(/^\| (`.*) \| (\d+) KB \|$/gm)];
  assert.ok(rows.length >= 5);
  for (const [, what, printed] of rows) {
    const entries = [...what.matchAll(/`([^`]+)`/g)].map(([, entry]) => entry);
    const bytes = gzipSync(await shipped(entries), { level: 9 }).length;
    t.diagnostic(`${what}: ${bytes} bytes gzipped`);
    assert.ok(bytes <= printed * 1000 && bytes >= printed * 850, `${what}: ${bytes} bytes gzipped, ${printed} KB printed`);
  }
});
