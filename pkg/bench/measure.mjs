// The measurement itself, for Node and browsers alike.

/** Long enough that the clock's grain does not count, short enough that the best batches are undisturbed. */
const BATCH_MS = 2;
const BATCHES = 400;

/** An item as applications hold them: 1 KB of JSON, a few fields, one list, one nested object. */
export const ITEM = {
  id: "order-4711",
  state: "open",
  views: 41,
  total: 129.95,
  note: "x".repeat(400),
  customer: { name: "Ada Lovelace", city: "London", vip: true },
  lines: Array.from({ length: 9 }, (_, index) => ({ sku: `sku-${1000 + index}`, quantity: index + 1, price: 9.95 })),
};

/** A counter, a state, one more element. */
export const OPS = [
  { type: "increment", path: "views", by: 1 },
  { type: "merge", path: "customer", value: { city: "Paris" } },
  { type: "append", path: "lines", value: { sku: "sku-2000", quantity: 1, price: 1.5 } },
];

/** How many calls of `run` fill a batch; by then the engine has made its best of them. */
function callsPerBatch(run) {
  for (let from = performance.now(); performance.now() - from < 100 * BATCH_MS; ) run();
  for (let calls = 1; ; calls *= 2) {
    const from = performance.now();
    for (let call = 0; call < calls; call++) run();
    if (performance.now() - from > BATCH_MS) return calls;
  }
}

/**
 * One row per way of doing it: microseconds of one call, the median and the best tenth of many batches. The ways take turns,
 * so that what disturbs one disturbs all. `times_json` is the best tenth beside that of the last row, which is what plain
 * JavaScript pays for parsing and printing the item alone.
 */
export function measure({ applyOps, applyOpsJson }) {
  const itemText = JSON.stringify(ITEM);
  const opsText = JSON.stringify(OPS);
  // As long as the item, with nothing in it to read, and nothing to do.
  const longText = JSON.stringify("x".repeat(itemText.length - 2));
  const ways = {
    applyOps: () => applyOps(ITEM, OPS),
    applyOpsJson: () => applyOpsJson(itemText, opsText),
    "the border alone": () => applyOpsJson(longText, "[]"),
    "JSON.parse + JSON.stringify": () => JSON.stringify(JSON.parse(itemText)),
  };
  const timed = Object.entries(ways).map(([way, run]) => ({ way, run, calls: callsPerBatch(run), batches: [] }));
  for (let batch = 0; batch < BATCHES; batch++) {
    for (const { run, calls, batches } of timed) {
      const from = performance.now();
      for (let call = 0; call < calls; call++) run();
      batches.push(((performance.now() - from) * 1_000) / calls);
    }
  }
  const at = (batches, share) => batches.sort((a, b) => a - b)[Math.floor(share * (BATCHES - 1))];
  const plain = at(timed.at(-1).batches, 0.1);
  return timed.map(({ way, batches }) => ({
    way,
    item_bytes: itemText.length,
    ops: OPS.length,
    median_us: Number(at(batches, 0.5).toFixed(2)),
    best_tenth_us: Number(at(batches, 0.1).toFixed(2)),
    times_json: Number((at(batches, 0.1) / plain).toFixed(2)),
  }));
}
