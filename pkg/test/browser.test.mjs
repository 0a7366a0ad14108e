// The installed package in Chromium: as plain module scripts, and as each bundler takes it along.

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build as esbuild } from "esbuild";

import { launch, serve, skip } from "./chromium.mjs";
import { folder } from "./installed.mjs";
import { applied, count, refused } from "./vector-lines.mjs";

const OPS = '[{ type: "increment", path: "n", by: 1 }]';
const PAGE = (script) =>
  `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>test</title><script type="module" src="${script}"></script>`;
/** What the programs leave behind when they are done. */
const EXPECTED = { value: { n: 2 }, errors: [] };

/** Below the folder of the installation, so that bundlers find the package as in any project. */
const root = join(folder, "browser");
const apps = {
  main: `import { init, applyOps } from "iii-stream";\nawait init();\nglobalThis.result = applyOps({ n: 1 }, ${OPS});\n`,
  // Bundlers must not drop what this entry does when it is loaded.
  edge: `import { applyOps } from "iii-stream/edge";\nglobalThis.result = applyOps({ n: 1 }, ${OPS});\n`,
};

let browser;
let site;
before(async () => {
  mkdirSync(join(root, "app"), { recursive: true });
  for (const [name, text] of Object.entries(apps)) {
    writeFileSync(join(root, `app/${name}.js`), text);
    writeFileSync(join(root, `app/${name}.html`), PAGE(`./${name}.js`));
  }
  if (skip) return;
  site = await serve(folder);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await site?.close();
});

/** What the page leaves behind as `result`; its errors fail the test. */
async function resultOf(url) {
  const page = await browser.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  await page.goto(url);
  const fault = () => faults.length > 0 && Promise.reject(new Error(faults.join("\n")));
  await Promise.race([
    page.waitForFunction(() => globalThis.result !== undefined, undefined, { timeout: 30_000 }),
    page.waitForEvent("pageerror", { timeout: 0 }).then(fault, () => {}),
  ]);
  const result = await page.evaluate(() => globalThis.result);
  const loaded = await page.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => name));
  await page.close();
  assert.deepEqual(faults, []);
  return { result, loaded };
}

test("module scripts without a bundler run every vector", { skip }, async (t) => {
  for (const name of ["exact-json.mjs", "run-vectors.mjs"]) {
    copyFileSync(fileURLToPath(new URL(name, import.meta.url)), join(root, name));
  }
  writeFileSync(join(root, "lines.mjs"), `export default ${JSON.stringify({ applied, refused })};`);
  writeFileSync(
    join(root, "plain.js"),
    `import { init, applyOps, applyOpsJson } from "/node_modules/iii-stream/dist/esm/index.js";
    import { runVectors } from "./run-vectors.mjs";
    import lines from "./lines.mjs";
    await init();
    globalThis.result = { ...runVectors(applyOpsJson, lines), ...applyOps({ n: 1 }, ${OPS}) };`,
  );
  writeFileSync(join(root, "plain.html"), PAGE("./plain.js"));
  const { result } = await resultOf(`${site.url}/browser/plain.html`);
  t.diagnostic(`${result.ran} vectors ran in Chromium ${browser.version()}`);
  assert.deepEqual(result, { ran: count, differences: [], ...EXPECTED });
});

test("init takes the address of core.wasm", { skip }, async () => {
  writeFileSync(
    join(root, "address.js"),
    `import { init, applyOps } from "/node_modules/iii-stream/dist/esm/core/index.js";
    await init(new URL("/node_modules/iii-stream/dist/core.wasm", location.href));
    globalThis.result = applyOps({ n: 1 }, ${OPS});`,
  );
  writeFileSync(join(root, "address.html"), PAGE("./address.js"));
  const { result, loaded } = await resultOf(`${site.url}/browser/address.html`);
  assert.deepEqual(result, EXPECTED);
  assert.ok(loaded.some((url) => url.endsWith("/core.wasm")));
});

/** Opens both bundled programs. */
async function checkBundles(where) {
  for (const name of Object.keys(apps)) {
    const { result } = await resultOf(`${site.url}/browser/${where}/${name}.html`);
    assert.deepEqual(result, EXPECTED, name);
  }
}

test("esbuild", { skip }, async () => {
  const entryPoints = Object.keys(apps).map((name) => `app/${name}.js`);
  const target = "es2022";
  await esbuild({ absWorkingDir: root, entryPoints, outdir: "esbuild", bundle: true, minify: true, format: "esm", target, logLevel: "warning" });
  for (const name of Object.keys(apps)) writeFileSync(join(root, `esbuild/${name}.html`), PAGE(`./${name}.js`));
  await checkBundles("esbuild");
});

/** A bundler of this folder, or why it cannot be had. */
const bundler = (name) =>
  import(name).then(
    (module) => ({ ...module, skip }),
    (error) => ({ skip: `${name} cannot be loaded (make setup installs it): ${error.message}` }),
  );
const vite = await bundler("vite");
const webpack = await bundler("webpack");

test("webpack", { skip: webpack.skip }, async () => {
  const compiler = webpack.default({
    context: join(root, "app"),
    mode: "production",
    entry: Object.fromEntries(Object.keys(apps).map((name) => [name, `./${name}.js`])),
    output: { path: join(root, "webpack"), filename: "[name].js" },
    performance: false,
  });
  const stats = await new Promise((resolve, reject) => {
    compiler.run((error, done) => (error ? reject(error) : resolve(done)));
  });
  await new Promise((closed) => compiler.close(closed));
  assert.equal(stats.toString({ all: false, errors: true, warnings: true }), "");
  for (const name of Object.keys(apps)) writeFileSync(join(root, `webpack/${name}.html`), PAGE(`./${name}.js`));
  await checkBundles("webpack");
});

const viteOptions = () => ({ root: join(root, "app"), configFile: false, logLevel: "warn", base: "./" });

test("Vite, built", { skip: vite.skip }, async () => {
  await vite.build({
    ...viteOptions(),
    build: {
      outDir: join(root, "vite"),
      emptyOutDir: true,
      rolldownOptions: { input: Object.keys(apps).map((name) => join(root, `app/${name}.html`)) },
    },
  });
  await checkBundles("vite");
});

test("Vite, its development server", { skip: vite.skip }, async () => {
  const server = await vite.createServer({
    ...viteOptions(),
    base: "/",
    cacheDir: join(root, "vite-cache"),
    server: { host: "127.0.0.1", port: 0, fs: { allow: [folder] } },
  });
  await server.listen();
  try {
    for (const name of Object.keys(apps)) {
      const { result, loaded } = await resultOf(`http://127.0.0.1:${server.httpServer.address().port}/${name}.html`);
      assert.deepEqual(result, EXPECTED, name);
      assert.ok(loaded.some((url) => url.includes("/deps/iii-stream")), "it was bundled beforehand");
    }
  } finally {
    await server.close();
  }
});
