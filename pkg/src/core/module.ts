// Loads the wasm module, once, and hands out its functions when it is there.

import * as glue from "../wasm/glue.js";
import { codedError } from "./coded-error.js";
import { defaultModule } from "./default-module.js";
import type { ModuleSource } from "./types.js";

/** The loading that is under way or done. */
let loading: Promise<void> | undefined;
let isReady = false;

/**
 * Loads the core. Without a source it takes the module that is part of this package. Calling it again gives the same
 * promise; after a failure it tries again.
 *
 * @param source the module from elsewhere, `iii-stream/core.wasm` of this same version: its bytes, compiled, a response,
 * or its address, which is fetched (a `file:` address is read where there is a file system)
 */
export function init(source?: ModuleSource): Promise<void> {
  loading ??= (isReady ? Promise.resolve() : load(source)).catch((error: unknown) => {
    // A failed load may be tried again, with another source perhaps.
    loading = undefined;
    throw error;
  });
  return loading;
}

/**
 * Loads the core that is part of this package before it returns.
 *
 * @internal
 */
export function initNow(): void {
  if (isReady) return;
  glue.initSync({ module: defaultModule() });
  isReady = true;
}

/**
 * The functions of the module.
 *
 * @internal what it gives is not part of the package's types
 */
export function core(): typeof glue {
  if (!isReady) throw codedError("not_initialized", "call `await init()` of iii-stream/core first");
  return glue;
}

async function load(source: ModuleSource | undefined): Promise<void> {
  const module = await compile(source ?? defaultModule());
  if (isReady) return;
  try {
    // At once, so that nobody can come in between and start a second instance.
    glue.initSync({ module });
  } catch (error) {
    // Older browsers do not do this at once where it would hold up a page.
    if (!(error instanceof RangeError)) throw error;
    await glue.default({ module_or_path: module });
  }
  isReady = true;
}

async function compile(source: ModuleSource): Promise<WebAssembly.Module> {
  let given = await source;
  if (typeof given === "string" || given instanceof URL) given = await fetched(given);
  if (isCompiled(given)) return given as WebAssembly.Module;
  if (!(typeof Response === "function" && given instanceof Response)) return WebAssembly.compile(given as BufferSource);
  if (!given.ok) throw new Error(`the wasm module cannot be had from ${given.url}: status ${given.status}`);
  return WebAssembly.compile(await given.arrayBuffer());
}

/** By its name: the module may come from another realm, as in test runners. */
function isCompiled(source: unknown): boolean {
  return Object.prototype.toString.call(source) === "[object WebAssembly.Module]";
}

interface FileSystem {
  readFileSync(path: URL): BufferSource;
}

async function fetched(address: string | URL): Promise<Response | BufferSource> {
  if (String(address).startsWith("file:")) {
    // Not an import: bundlers for browsers would stumble over it.
    const { process } = globalThis as { process?: { getBuiltinModule?: (name: "node:fs") => FileSystem | undefined } };
    const files = process?.getBuiltinModule?.("node:fs");
    if (files !== undefined) return files.readFileSync(new URL(address));
  }
  return fetch(address);
}
