// Runs the golden vectors through `applyOpsJson`, in any runtime: no import of this file needs one.

import { Exact, parseExact, plain } from "./exact-json.mjs";

const REFUSED_ITEM = '{"a":5}';
const ITEM_OF = (vector) => ("old" in vector ? Exact.stringify(vector.old) : undefined);

/**
 * How many vectors ran, and what each that differed says. `applied` and `refused` are the lines of the vector files.
 */
export function runVectors(applyOpsJson, { applied, refused }) {
  const differences = [];
  let ran = 0;
  const run = (line, check) => {
    const vector = parseExact(line);
    const fault = check(vector);
    if (fault !== undefined) differences.push(`${vector.name}: ${fault}`);
    ran += 1;
  };
  for (const line of applied) run(line, (vector) => appliedFault(applyOpsJson, vector));
  for (const line of refused) run(line, (vector) => refusedFault(applyOpsJson, vector));
  return { ran, differences };
}

function appliedFault(applyOpsJson, vector) {
  const { value, errors } = applyOpsJson(ITEM_OF(vector), Exact.stringify(vector.ops));
  const codes = errors.map(({ opIndex, code }) => ({ op_index: opIndex, code }));
  if (comparable(parseExact(value)) !== comparable(vector.new)) return `gives ${value}`;
  if (comparable(codes) !== comparable(plain(vector.errors))) return `fails with ${JSON.stringify(codes)}`;
  return errors.every(({ message }) => message.length > 0) ? undefined : "an error says nothing";
}

function refusedFault(applyOpsJson, vector) {
  const expected = vector.document_accepts ? undefined : vector.code;
  let code;
  try {
    applyOpsJson(REFUSED_ITEM, Exact.stringify(vector.ops));
  } catch (error) {
    code = error instanceof Error ? error.code : `${error} is no Error`;
  }
  return code === expected ? undefined : `is refused with ${code}`;
}

/** Text that is the same for equal values: members sorted, numbers by value and kind. */
function comparable(value) {
  if (value instanceof Exact) return value.number;
  if (Array.isArray(value)) return `[${value.map(comparable).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${comparable(value[key])}`);
  return `{${members.join(",")}}`;
}
