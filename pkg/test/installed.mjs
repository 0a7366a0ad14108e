// Packs the package, installs the tarball into a folder of its own, and hands out what a user would import there.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const packageFolder = fileURLToPath(new URL("..", import.meta.url));
const npm = (args, cwd) =>
  execFileSync("npm", [...args, "--no-audit", "--no-fund", "--silent"], {
    cwd,
    encoding: "utf8",
    shell: process.platform === "win32",
  });

const tarballIn = (directory) => join(directory, readdirSync(directory).find((name) => name.endsWith(".tgz")));

/** The folder into which the tarball was installed. All files of a run share one; see run.mjs. */
export const folder = process.env.III_STREAM_INSTALLED ?? install();

function install() {
  const fresh = mkdtempSync(join(tmpdir(), "iii-stream-pkg-"));
  process.on("exit", () => rmSync(fresh, { recursive: true, force: true }));
  // What `make pkg` has built, as it is.
  npm(["pack", "--ignore-scripts", "--pack-destination", fresh], packageFolder);
  writeFileSync(join(fresh, "package.json"), '{"private":true,"type":"module"}');
  npm(["install", "--offline", tarballIn(fresh)], fresh);
  return fresh;
}

/** The tarball that was installed. */
export const tarball = tarballIn(folder);

/** The files the tarball holds, by their paths in the package. */
export const files = readdirSync(join(folder, "node_modules/iii-stream"), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name).slice(join(folder, "node_modules/iii-stream/").length))
  .sort();

/** Imports an entry of the installed package by its name. */
export async function installed(specifier) {
  const door = join(folder, `${specifier.replaceAll("/", "-")}.js`);
  writeFileSync(door, `export * from ${JSON.stringify(specifier)};\n`);
  return import(pathToFileURL(door));
}
