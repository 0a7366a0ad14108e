// `iii-stream/edge`: the core for edge runtimes, ready as soon as it is imported: nobody has to await `init` there.

import { initNow } from "../core/module.js";

initNow();

export * from "../core/index.js";
