// Reads and compares JSON without losing 64-bit integers, the difference of 1 and 1.0, or keys such as __proto__.
//
// JSON.parse turns every number into a double and Node 20 has no access to its source text, so the vectors need
// a reader of their own. Objects become Maps, numbers {int: BigInt} or {float: Number}; `slice` gives the exact
// text of a value, so that a test can send what the file says, byte for byte.

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const SPACE = /[ \t\n\r]*/y;
const I64_MIN = -(2n ** 63n);
const U64_MAX = 2n ** 64n - 1n;

export class JsonNumber {
  /** Integers are integers only within the signed or unsigned 64-bit range; `-0` is a double (update-ops.md §5.3). */
  constructor(text) {
    const int = /^-?\d+$/.test(text) && text !== '-0' ? BigInt(text) : null;
    if (int !== null && int >= I64_MIN && int <= U64_MAX) this.int = int;
    else this.float = Number(text);
  }
}

/** Parses `text`; `fields` of the result are the exact texts of the members of an outermost object. */
export function parse(text) {
  let at = 0;
  let depth = 0;
  const fields = new Map();

  const fail = (what) => { throw new SyntaxError(`${what} at ${at}: ${text.slice(at, at + 40)}`); };
  const space = () => { SPACE.lastIndex = at; SPACE.test(text); at = SPACE.lastIndex; };
  const expect = (token) => { if (!text.startsWith(token, at)) fail(`expected ${token}`); at += token.length; };

  function string() {
    const start = at;
    expect('"');
    while (text[at] !== '"') {
      if (at >= text.length) fail('open string');
      at += text[at] === '\\' ? 2 : 1;
    }
    at += 1;
    return JSON.parse(text.slice(start, at));
  }

  function members(open, close, member) {
    expect(open);
    depth += 1;
    space();
    if (text[at] !== close) {
      for (;;) {
        member();
        space();
        if (text[at] === close) break;
        expect(',');
        space();
      }
    }
    at += 1;
    depth -= 1;
  }

  function value() {
    space();
    switch (text[at]) {
      case '{': {
        const map = new Map();
        members('{', '}', () => {
          const key = string();
          space();
          expect(':');
          space();
          const start = at;
          map.set(key, value());
          if (depth === 1) fields.set(key, text.slice(start, at));
        });
        return map;
      }
      case '[': {
        const list = [];
        members('[', ']', () => list.push(value()));
        return list;
      }
      case '"': return string();
      case 't': expect('true'); return true;
      case 'f': expect('false'); return false;
      case 'n': expect('null'); return null;
      default: {
        NUMBER.lastIndex = at;
        const match = NUMBER.exec(text);
        if (!match) fail('no value');
        at = NUMBER.lastIndex;
        return new JsonNumber(match[0]);
      }
    }
  }

  const result = value();
  space();
  if (at !== text.length) fail('trailing text');
  return { value: result, fields };
}

/** The exact text of one member of the object written in `text`, or undefined. */
export const slice = (text, key) => parse(text).fields.get(key);

/** Equal as JSON values: key order is free, integers equal integers, doubles equal doubles (and -0 is not 0). */
export function equal(a, b) {
  if (a instanceof JsonNumber && b instanceof JsonNumber) return a.int === b.int && Object.is(a.float, b.float);
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && [...a].every(([key, value]) => b.has(key) && equal(value, b.get(key)));
  }
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((v, i) => equal(v, b[i]));
  return a === b;
}

/** Equal as JSON values, given as texts. */
export const sameJson = (a, b) => equal(parse(a).value, parse(b).value);
