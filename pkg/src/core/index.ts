// `iii-stream/core`: the server's update rules, once the wasm module is loaded.

export { applyOps, applyOpsJson, errorCodes, limits } from "./apply.js";
export { type Ability, type Grant, Grants } from "./grants.js";
export { init } from "./module.js";
export { Replica } from "./replica.js";
export type { Applied, CoreError, JsonValue, Limits, ModuleSource, OpError, UpdateOp } from "./types.js";
