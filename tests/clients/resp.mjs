// A connection to a Redis for tests: sends a command, gives its answer; no library stands between a test and what Redis says.
import { connect } from 'node:net';
import { deferred } from './harness.mjs';

/** The text of a command as Redis reads it. */
function encode(parts) {
  const pieces = [Buffer.from(`*${parts.length}\r\n`)];
  for (const part of parts) {
    const bytes = Buffer.isBuffer(part) ? part : Buffer.from(String(part));
    pieces.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n'));
  }
  return Buffer.concat(pieces);
}

/** Reads one answer at `at`: `[answer, end]`, or `undefined` where it is not all there. Errors are answers of class Error. */
function decode(bytes, at) {
  const end = bytes.indexOf('\r\n', at);
  if (end < 0) return undefined;
  const rest = bytes.toString('utf8', at + 1, end);
  const next = end + 2;
  switch (String.fromCharCode(bytes[at])) {
    case '+': return [rest, next];
    case '-': return [new Error(rest), next];
    case ':': return [Number(rest), next];
    case '$': {
      const length = Number(rest);
      if (length < 0) return [null, next];
      if (bytes.length < next + length + 2) return undefined;
      return [bytes.toString('utf8', next, next + length), next + length + 2];
    }
    case '*': {
      const list = [];
      let from = next;
      for (let n = Number(rest); n > 0; n -= 1) {
        const one = decode(bytes, from);
        if (!one) return undefined;
        list.push(one[0]);
        from = one[1];
      }
      return [Number(rest) < 0 ? null : list, from];
    }
    default: throw new Error(`no answer of Redis: ${bytes.toString('utf8', at, at + 80)}`);
  }
}

/** One connection; answers come in the order of commands. */
export class RedisConnection {
  #waiting = [];
  #rest = Buffer.alloc(0);

  constructor(port) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.setNoDelay();
    // A test process ends when its tests have, whatever connections there are.
    this.socket.unref();
    this.socket.on('data', (chunk) => this.#read(chunk));
    this.socket.on('error', (error) => this.#end(error));
    this.socket.on('close', () => this.#end(new Error('Redis closed the connection')));
  }

  #read(chunk) {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    let at = 0;
    for (let one; (one = at < this.#rest.length ? decode(this.#rest, at) : undefined) !== undefined; [, at] = one) {
      const { resolve, reject } = this.#waiting.shift();
      if (one[0] instanceof Error) reject(one[0]);
      else resolve(one[0]);
    }
    this.#rest = this.#rest.subarray(at);
    if (this.#waiting.length === 0) this.socket.unref();
  }

  #end(error) {
    this.ended ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.ended);
  }

  /** The answer to a command; an error that Redis answers is thrown. */
  call(...parts) {
    if (this.ended) return Promise.reject(this.ended);
    const answer = deferred();
    this.#waiting.push(answer);
    this.socket.ref();
    this.socket.write(encode(parts));
    return answer.promise;
  }

  close() {
    this.socket.destroy();
  }
}
