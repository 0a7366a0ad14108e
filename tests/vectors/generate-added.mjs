// Writes the vectors for what we add to the reference engine's rules: caps on nesting and on the number of ops.
//
//   node tests/vectors/generate-added.mjs
//
// The expected values are put together here, as text, from the rule alone; no part of the core takes part.

import { writeFileSync } from "node:fs";

/** Deepest nesting of a stored value; a path's segments and the array made by `append` count as levels. */
const VALUE_DEPTH_MAX = 125;
const OPS_MAX = 10_000;

/** A value of `levels` arrays inside each other, around `core`. */
const arrays = (levels, core = "1") => "[".repeat(levels) + core + "]".repeat(levels);
/** The same of objects. */
const objects = (levels, core = "1") => '{"k":'.repeat(levels) + core + "}".repeat(levels);
/** `core` under the given keys. */
const under = (keys, core) =>
  keys.reduceRight((inner, key) => `{${JSON.stringify(key)}:${inner}}`, core);

const op = (type, path, value) =>
  `{"type":"${type}","path":${JSON.stringify(path)}${value === undefined ? "" : `,"value":${value}`}}`;
const error = (index, code) => `{"op_index":${index},"code":"${code}"}`;

const applied = [];
function add(name, { old, ops, now, errors = [] }) {
  const stored = old === undefined ? "" : `"old":${old},`;
  applied.push(
    `{"name":"${name}",${stored}"ops":[${ops.join(",")}],"new":${now},"errors":[${errors.join(",")}]}`,
  );
}

for (const [shape, nested] of Object.entries({ arrays, objects })) {
  const at = nested(VALUE_DEPTH_MAX - 1);
  const past = nested(VALUE_DEPTH_MAX);
  add(`depth/set_field_${shape}_at`, { old: '{"z":0}', ops: [op("set", "a", at)], now: `{"z":0,"a":${at}}` });
  add(`depth/set_field_${shape}_past`, {
    old: '{"z":0}',
    ops: [op("set", "a", past), op("set", "b", "1")],
    now: '{"z":0,"b":1}',
    errors: [error(0, "set.value.too_deep")],
  });
  add(`depth/set_root_${shape}_at`, { old: "7", ops: [op("set", "", past)], now: past });
  add(`depth/append_root_${shape}_at`, { old: "[0]", ops: [op("append", "", at)], now: `[0,${at}]` });
  add(`depth/append_root_${shape}_past`, {
    old: "[0]",
    ops: [op("append", "", past), op("append", "", "1")],
    now: "[0,1]",
    errors: [error(0, "append.value.too_deep")],
  });
}

const segments = Array.from({ length: 32 }, (_, index) => `s${index}`);
const room = VALUE_DEPTH_MAX - segments.length - 1;
add("depth/append_long_path_at", {
  old: "{}",
  ops: [op("append", segments, arrays(room))],
  now: under(segments, `[${arrays(room)}]`),
});
add("depth/append_long_path_past", {
  old: '{"s0":1}',
  ops: [op("append", segments, arrays(room + 1))],
  now: '{"s0":1}',
  errors: [error(0, "append.value.too_deep")],
});

// The cap looks at the op alone, so a refused op fails whatever it would have met, but only after its path is checked.
add("depth/append_before_target", {
  old: "1",
  ops: [op("append", ["a", "b"], arrays(VALUE_DEPTH_MAX))],
  now: "1",
  errors: [error(0, "append.value.too_deep")],
});
add("depth/set_after_path", {
  old: '{"a":1}',
  ops: [op("set", "__proto__", arrays(VALUE_DEPTH_MAX))],
  now: '{"a":1}',
  errors: [error(0, "set.path.proto_polluted")],
});
add("depth/missing_default_survives", {
  ops: [op("set", "a", arrays(VALUE_DEPTH_MAX)), '{"type":"increment","path":"","by":4}'],
  now: "4",
  errors: [error(0, "set.value.too_deep")],
});
// Many appends to the same place go sideways, not down.
add("depth/append_twice_at", {
  old: "{}",
  ops: [op("append", "a", arrays(VALUE_DEPTH_MAX - 2)), op("append", "a", arrays(VALUE_DEPTH_MAX - 2))],
  now: `{"a":[${arrays(VALUE_DEPTH_MAX - 2)},${arrays(VALUE_DEPTH_MAX - 2)}]}`,
});

const many = (count) => Array.from({ length: count }, () => '{"type":"remove"}');
add("ops/count_at", { old: '{"a":5}', ops: many(OPS_MAX), now: "null" });

const refused = [];
function refuse(name, ops, code) {
  refused.push(`{"name":"${name}","ops":${ops},"code":"${code}"}`);
}
refuse("ops_one_too_many", `[${many(OPS_MAX + 1).join(",")}]`, "too_many_ops");
refuse("set_root_value_past_depth", `[${op("set", "", arrays(VALUE_DEPTH_MAX + 1))}]`, "deserialization_error");
refuse("set_value_lone_surrogate", `[${op("set", "a", '"\\ud800"')}]`, "deserialization_error");
refuse("set_value_beyond_double", `[${op("set", "a", "1e999")}]`, "deserialization_error");
refuse("decrement_by_under_i64", '[{"type":"decrement","path":"a","by":-9223372036854775809}]', "deserialization_error");
refuse("op_is_array", '[["remove","a"]]', "deserialization_error");

writeFileSync(new URL("update-ops-added.jsonl", import.meta.url), applied.join("\n") + "\n");
writeFileSync(new URL("update-ops-added-rejected.jsonl", import.meta.url), refused.join("\n") + "\n");
