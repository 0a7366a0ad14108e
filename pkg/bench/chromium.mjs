// The same measurement in headless Chromium: serves the package on loopback and prints what the page sends back.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const TIME_LIMIT_MS = 60_000;
const TYPES = { js: "text/javascript", mjs: "text/javascript", wasm: "application/wasm" };
const packageFolder = fileURLToPath(new URL("..", import.meta.url));

const PAGE = `<!doctype html><meta charset="utf-8"><title>bench</title><script type="module">
  const send = (body) => fetch("/result", { method: "POST", body: JSON.stringify(body) });
  try {
    const [core, { measure }] = await Promise.all([import("/dist/esm/core/index.js"), import("/bench/measure.mjs")]);
    await core.init();
    await send({ agent: navigator.userAgent, rows: measure(core) });
  } catch (error) {
    await send({ fault: String(error?.stack ?? error) });
  }
</script>`;

const browser = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
  .filter(Boolean)
  .find(existsSync);
if (browser === undefined) {
  console.error("pkg/bench/chromium.mjs: no Chromium; name one in $CHROMIUM");
  process.exit(0);
}

const results = Promise.withResolvers?.() ?? deferred();
const server = createServer(async (request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  // Only a page that shares nothing with others has a fine clock.
  response.setHeader("cross-origin-opener-policy", "same-origin").setHeader("cross-origin-embedder-policy", "require-corp");
  if (path === "/") return response.setHeader("content-type", "text/html").end(PAGE);
  if (path === "/result") {
    let body = "";
    for await (const part of request) body += part;
    response.end();
    return results.resolve(JSON.parse(body));
  }
  const file = join(packageFolder, normalize(path));
  const type = TYPES[path.split(".").at(-1)];
  if (type === undefined || !existsSync(file)) return response.writeHead(404).end();
  response.setHeader("content-type", type).end(await readFile(file));
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const profile = await mkdtemp(join(tmpdir(), "iii-stream-bench-"));
const child = spawn(
  browser,
  [
    "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", `--user-data-dir=${profile}`,
    // Chromium's sandbox does not start for root.
    ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
    `http://127.0.0.1:${server.address().port}/`,
  ],
  { stdio: "ignore", detached: true },
);
const ended = new Promise((resolve) => child.once("exit", resolve));
const limit = setTimeout(() => results.reject(new Error(`no result in ${TIME_LIMIT_MS} ms`)), TIME_LIMIT_MS);
ended.then(() => results.reject(new Error("Chromium ended before it sent a result")));

try {
  const { agent, rows, fault } = await results.promise;
  if (fault !== undefined) throw new Error(fault);
  const where = /(?:Headless)?Chrome\/[\d.]+/.exec(agent)?.[0].replace("HeadlessChrome", "Chrome") ?? agent;
  for (const row of rows) console.log(JSON.stringify({ where, ...row }));
} finally {
  clearTimeout(limit);
  server.close();
  server.closeAllConnections();
  // The group: Chromium is several processes.
  if (child.exitCode === null) process.kill(-child.pid, "SIGKILL");
  await ended;
  await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
}

function deferred() {
  const handles = {};
  handles.promise = new Promise((resolve, reject) => Object.assign(handles, { resolve, reject }));
  return handles;
}
