// `iii-stream/core`: the server's update rules as functions, once the wasm module is loaded.

import initWasm, * as wasm from "./wasm/iii_stream_wasm.js";

/** The loading that is under way or done. */
let loading;
let isReady = false;

/** Where the module lies when nobody brings one. Bundlers know this form and take the file along. */
const moduleUrl = () => new URL("./wasm/iii_stream_wasm_bg.wasm", import.meta.url);

export function init(source) {
  loading ??= load(source).catch((error) => {
    // A failed load may be tried again, with another source perhaps.
    loading = undefined;
    throw error;
  });
  return loading;
}

async function load(source) {
  await initWasm({ module_or_path: source ?? fileBytes(moduleUrl()) ?? moduleUrl() });
  isReady = true;
}

/** The bytes of a module on disk; `undefined` where there is no file system, as in a browser. */
function fileBytes(url) {
  if (url.protocol !== "file:") return undefined;
  // Not an import: bundlers for browsers would stumble over it.
  return globalThis.process?.getBuiltinModule?.("node:fs").readFileSync(url);
}

export function applyOps(current, ops) {
  requireReady();
  return wasm.applyOps(current, ops);
}

export function applyOpsJson(currentText, opsText) {
  requireReady();
  return wasm.applyOpsJson(requireText(currentText, "currentText", true), requireText(opsText, "opsText"));
}

export function limits() {
  requireReady();
  return wasm.limits();
}

export function errorCodes() {
  requireReady();
  return wasm.errorCodes();
}

function requireReady() {
  if (!isReady) throw coded("not_initialized", "call `await init()` of iii-stream/core first");
}

function requireText(value, name, mayBeMissing = false) {
  if (typeof value === "string" || (mayBeMissing && value === undefined)) return value;
  throw coded("deserialization_error", `${name} must be a string, got ${typeof value}`);
}

function coded(code, message) {
  return Object.assign(new Error(message), { code });
}
