// Measures one typical update, three ops on an item of 1 KB, here in Node. Prints one JSON line for each way of doing it.

import { init, applyOps, applyOpsJson } from "../dist/esm/core/index.js";
import { measure } from "./measure.mjs";

await init();
for (const row of measure({ applyOps, applyOpsJson })) {
  console.log(JSON.stringify({ where: `node ${process.versions.node}`, ...row }));
}
