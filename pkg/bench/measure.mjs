// The measurement itself, for Node and browsers alike.

/** Long enough that the clock's grain does not count, short enough that the best batches are undisturbed. */
const BATCH_MS = 20;
const BATCHES = 60;

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

/** Microseconds of one call: the median and the best tenth of many batches. */
function time(run) {
  let calls = 1;
  for (;;) {
    const from = performance.now();
    for (let call = 0; call < calls; call++) run();
    if (performance.now() - from > BATCH_MS) break;
    calls *= 2;
  }
  const batches = Array.from({ length: BATCHES }, () => {
    const from = performance.now();
    for (let call = 0; call < calls; call++) run();
    return ((performance.now() - from) * 1_000) / calls;
  }).sort((a, b) => a - b);
  const at = (share) => Number(batches[Math.floor(share * (BATCHES - 1))].toFixed(2));
  return { median_us: at(0.5), best_tenth_us: at(0.1) };
}

/** One row per way of doing it; the last is what plain JavaScript pays for parsing and printing alone. */
export function measure({ applyOps, applyOpsJson }) {
  const itemText = JSON.stringify(ITEM);
  const opsText = JSON.stringify(OPS);
  const ways = {
    applyOps: () => applyOps(ITEM, OPS),
    applyOpsJson: () => applyOpsJson(itemText, opsText),
    "JSON.parse + JSON.stringify": () => JSON.stringify([JSON.parse(itemText), JSON.parse(opsText)]),
  };
  return Object.entries(ways).map(([way, run]) => ({
    way,
    item_bytes: itemText.length,
    ops: OPS.length,
    ...time(run),
  }));
}
