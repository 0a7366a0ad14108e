// Where the client gets its replica from: the core of this package.

import type { Replica } from "./replica.js";

export async function loadReplica(): Promise<Replica> {
  throw new Error("not there yet");
}
