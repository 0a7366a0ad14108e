// Reads JSON without losing anything of its numbers: `1` and `1.0` differ, and 64-bit integers stay exact.

/** A number by its text: integers by all their digits, others as the double they are, marked as such. */
export class Exact {
  constructor(source) {
    this.source = source;
    // What is compared. `-0` is a float, as on the server.
    this.number = /^(-?[1-9]\d*|0)$/.test(source) && fits(BigInt(source)) ? source : `float ${Number(source)}`;
    Object.defineProperty(this, "source", { enumerable: false });
  }

  /** JSON text with every number as it was read. */
  static stringify(value) {
    if (value instanceof Exact) return value.source;
    if (Array.isArray(value)) return `[${value.map(Exact.stringify).join(",")}]`;
    if (value === null || typeof value !== "object") return JSON.stringify(value);
    const members = Object.entries(value).map(([key, member]) => `${JSON.stringify(key)}:${Exact.stringify(member)}`);
    return `{${members.join(",")}}`;
  }

  /** Whether JavaScript's own JSON would keep each number's value and kind. */
  static isPlain(value) {
    if (value instanceof Exact) return JSON.stringify(Number(value.source)) === value.source && safe(Number(value.source));
    if (value === null || typeof value !== "object") return true;
    return Object.values(value).every(Exact.isPlain);
  }
}

const fits = (integer) => integer >= -(2n ** 63n) && integer < 2n ** 64n;
const safe = (number) => !Number.isInteger(number) || Number.isSafeInteger(number);

/** Makes {@link Exact} numbers ordinary ones. */
export function plain(value) {
  if (value instanceof Exact) return Number(value.source);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, plain(member)]));
}

/** Like JSON.parse, with {@link Exact} numbers. */
export function parseExact(text) {
  // Each number becomes a marked string, which no string of the text can be mistaken for: NUL is escaped in JSON text.
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (token) =>
    token.startsWith('"') ? token : `"\\u0000number ${token}"`,
  );
  return revive(JSON.parse(marked));
}

function revive(value) {
  if (typeof value === "string") return value.startsWith("\0number ") ? new Exact(value.slice(8)) : value;
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(revive);
  // Entries, not assignment: `__proto__` is a key like any other here.
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, revive(member)]));
}
