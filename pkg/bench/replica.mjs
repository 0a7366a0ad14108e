// Measures a replica in Node: mutations, incoming events, appends. Prints one JSON line for each. Run `scripts/wasm.sh` first.

import { readFileSync } from "node:fs";

import initWasm, { Replica, clientTag } from "../src/wasm/glue.js";

await initWasm({ module_or_path: readFileSync(new URL("../src/wasm/core.wasm", import.meta.url)) });

/** Odd, so that there is a median. */
const RUNS = 9;
const PENDING = 100;
const CLIENT = "a secret of this tab";
const TAG = clientTag(CLIENT);

/** An item as applications hold them: about 300 bytes of JSON. */
const item = (id) => ({ id, state: "open", views: 41, note: "x".repeat(150), by: { name: "Ada", city: "London" }, tags: ["a", "b", "c"] });

const head = (id, seq) => `{"type":"stream","timestamp":1760000000000,"streamName":"s","groupId":"g","id":${JSON.stringify(id)},"seq":${seq}`;
const delta = (id, seq, base, ops, mutation) =>
  `${head(id, seq)}${mutation ? `,"mutation":{"tag":"${TAG}","seq":${mutation}}` : ""},"event":{"type":"update","base":${base},"ops":${ops}}}`;
const call = (id, ops) => `{"stream_name":"s","group_id":"g","item_id":"${id}","ops":${ops}}`;

/** A replica of a group with so many items, each at the sequence of its place from 1. */
function replicaOf(count) {
  const replica = new Replica();
  replica.open("s1", "s", "g");
  replica.join("s1");
  const items = Array.from({ length: count }, (_, at) => ({ id: `i${at}`, seq: at + 1, data: item(`i${at}`) }));
  const event = JSON.stringify({ type: "sync", mode: "snapshot", items, more: false });
  replica.receive(`{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":null,"subscriptionId":"s1","epoch":"e","seq":${count},"event":${event}}`);
  replica.changes("s1");
  return replica;
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

/** Microseconds of one of `count` calls of `run`, the median of several runs. */
function time(count, prepare, run) {
  const times = Array.from({ length: RUNS }, () => {
    const subject = prepare();
    const from = performance.now();
    for (let n = 0; n < count; n++) run(subject, n);
    const passed = ((performance.now() - from) * 1_000) / count;
    subject.replica.free();
    return passed;
  });
  return Number(median(times).toFixed(2));
}

const print = (what, row) => console.log(JSON.stringify({ where: `node ${process.versions.node}`, what, ...row }));

const COUNT_UP = '[{"type":"increment","path":"views","by":1}]';

/** Mutations of one item; with each beyond the hundredth the oldest is answered, and its event comes. */
{
  const count = 50_000;
  const prepare = () => ({ replica: replicaOf(1), data: call("i0", COUNT_UP), frames: Array.from({ length: count }, (_, n) => delta("i0", n + 2, n + 1, COUNT_UP, n + 1)) });
  const us = time(count, prepare, ({ replica, data, frames }, n) => {
    replica.mutate(CLIENT, n + 1, "stream::update", data);
    const done = n - PENDING + 1;
    if (done < 1) return;
    replica.acknowledge(CLIENT, done, done + 1);
    replica.receive(frames[done - 1]);
  });
  print("mutate, acknowledge and own event", { us, per_second: Math.round(1e6 / us) });
  const alone = time(PENDING * 50, () => ({ replica: replicaOf(1), data: call("i0", COUNT_UP) }), ({ replica, data }, n) => {
    replica.mutate(CLIENT, n + 1, "stream::update", data);
  });
  print("mutate", { us: alone, per_second: Math.round(1e6 / alone) });
}

/** An event of somebody else, with what must be shown after it. */
for (const [what, itemOf] of [["spread", (n) => `i${n * 97}`], ["all on one item", () => "i0"]]) {
  for (const looks of [false, true]) {
    const count = 2_000;
    const prepare = () => {
      const replica = replicaOf(10_000);
      for (let n = 0; n < PENDING; n++) replica.mutate(CLIENT, n + 1, "stream::update", call(itemOf(n), COUNT_UP));
      replica.changes("s1");
      const seqs = new Map();
      const frames = Array.from({ length: count }, (_, n) => {
        const id = itemOf(n % PENDING);
        const base = seqs.get(id) ?? Number(id.slice(1)) + 1;
        seqs.set(id, 10_001 + n);
        return delta(id, 10_001 + n, base, COUNT_UP);
      });
      return { replica, frames };
    };
    const us = time(count, prepare, ({ replica, frames }, n) => {
      replica.receive(frames[n]);
      if (looks) replica.changes("s1");
    });
    print(`event, 10,000 items, ${PENDING} pending ${what}${looks ? ", and changes" : ""}`, { us });
  }
}

/** An answer that arrives token by token. */
{
  const count = 5_000;
  const ops = '[{"type":"append","path":"text","value":" token"}]';
  const prepare = () => ({ replica: replicaOf(1), frames: Array.from({ length: count }, (_, n) => delta("i0", n + 2, n + 1, ops)) });
  const us = time(count, prepare, ({ replica, frames }, n) => {
    replica.receive(frames[n]);
    if (n % 16 === 15) replica.changes("s1");
  });
  print("append to one text up to 30 KB, changes every 16", { us, total_ms: Number(((us * count) / 1_000).toFixed(1)) });
}
