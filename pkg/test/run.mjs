// Runs the tests: packs and installs the package once, for all files. Arguments go to Node's test runner.

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { folder } from "./installed.mjs";

const testsIn = (path) =>
  readdirSync(new URL(`../${path}`, import.meta.url))
    .filter((name) => name.endsWith(".test.mjs"))
    .map((name) => `${path}/${name}`);
const args = process.argv.length > 2 ? process.argv.slice(2) : [...testsIn("test"), ...testsIn("test/client")];
const { status } = spawnSync(
  process.execPath,
  ["--test", "--test-reporter=spec", "--test-timeout=120000", ...args],
  {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    env: { ...process.env, III_STREAM_INSTALLED: folder },
    stdio: "inherit",
  },
);
process.exitCode = status ?? 1;
