// Where the client gets its replica from: the core of this package.

import { init } from "../core/module.js";
import { Replica as CoreReplica } from "../core/replica.js";
import type { Replica } from "./replica.js";

export async function loadReplica(): Promise<Replica> {
  await init();
  return new CoreReplica();
}
