// Stands in for default-module.ts where wasm cannot be compiled at run time: in workerd, which compiles what is imported.

// As it is called from dist/workerd.
import module from "../core.wasm";

/** The module, compiled. */
export function defaultModule(): BufferSource | WebAssembly.Module {
  return module;
}
