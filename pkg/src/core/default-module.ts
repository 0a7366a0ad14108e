// Where the wasm module comes from when nobody brings one: out of this package's own text, so that it needs no file, no
// fetch and no bundler's help.

import { base64 } from "../wasm/inlined.js";

/** The bytes of the module. */
export function defaultModule(): BufferSource | WebAssembly.Module {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}
