// Peers below WebSocket and HTTP libraries: raw TCP, frames byte by byte, server-sent events as they come, and whether a server
// is at rest. For tests of what no library would send, and of what a library would hide.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { deferred, within } from './harness.mjs';

export const range = (n) => Array.from({ length: n }, (_, i) => i);
export const http = (server) => server.subscribers.replace('ws:', 'http:');

/** A TCP connection whose bytes are kept until somebody takes them. */
export class Tcp {
  #server;
  #bytes = [];
  #length = 0;
  #changed = new Set();
  received = 0;

  static async connect(server, base, first) {
    const tcp = new Tcp();
    tcp.#server = server;
    const { hostname, port } = new URL(base);
    tcp.socket = connect(Number(port), hostname);
    const [connected, closed] = [deferred(), deferred()];
    /** Resolves when the connection has ended, by whatever way. */
    tcp.closed = closed.promise;
    tcp.socket.on('connect', connected.resolve);
    tcp.socket.on('error', (error) => { tcp.error = error; connected.reject(error); });
    tcp.socket.on('end', () => { tcp.ended = true; });
    tcp.socket.on('close', () => { tcp.isClosed = true; closed.resolve(tcp); tcp.#tell(); });
    tcp.socket.on('data', (chunk) => {
      tcp.#bytes.push(chunk);
      tcp.#length += chunk.length;
      tcp.received += chunk.length;
      tcp.#tell();
    });
    connected.promise.catch(() => {});
    await server.within(connected.promise, 'a TCP connection');
    if (first !== undefined) tcp.write(first);
    return tcp;
  }

  #tell() {
    for (const changed of this.#changed) changed();
  }

  write(bytes) {
    this.socket.write(bytes);
    return this;
  }

  /** Everything that has not been taken yet. */
  get bytes() {
    if (this.#bytes.length > 1) this.#bytes = [Buffer.concat(this.#bytes)];
    return this.#bytes[0] ?? Buffer.alloc(0);
  }

  get text() {
    return this.bytes.toString();
  }

  get waiting() {
    return this.#length;
  }

  take(count) {
    const all = this.bytes;
    this.#bytes = [all.subarray(count)];
    this.#length -= count;
    return all.subarray(0, count);
  }

  /** Waits until `done()` holds; fails when the connection ends before. */
  async until(done, what, ms) {
    if (done()) return;
    const reached = deferred();
    const check = () => {
      if (done()) reached.resolve();
      else if (this.isClosed) reached.reject(new Error(`the connection ended before ${what}: ${this.text.slice(0, 500)}`));
    };
    this.#changed.add(check);
    try {
      check();
      await this.#server.within(reached.promise, what, ms);
    } finally {
      this.#changed.delete(check);
    }
  }

  /** Takes what comes up to and with `mark`. */
  async through(mark, what = `the end of ${JSON.stringify(mark)}`) {
    await this.until(() => this.bytes.includes(mark), what);
    return this.take(this.bytes.indexOf(mark) + Buffer.byteLength(mark)).toString();
  }

  /** Takes a whole HTTP answer that says how long it is. */
  async answer({ isHead = false } = {}) {
    const head = await this.through('\r\n\r\n', 'the head of an answer');
    const [, status] = /^HTTP\/1\.[01] (\d+)/.exec(head);
    const headers = Object.fromEntries(head.split('\r\n').slice(1).filter(Boolean).map((line) => {
      const [, name, value] = /^([^:]+): ?(.*)$/.exec(line);
      return [name.toLowerCase(), value];
    }));
    const length = isHead || status === '304' || status === '204' ? 0 : Number(headers['content-length'] ?? 0);
    await this.until(() => this.waiting >= length, 'the body of an answer');
    return { status: Number(status), headers, body: this.take(length).toString() };
  }

  destroy() {
    this.socket.destroy();
  }

  reset() {
    this.socket.resetAndDestroy();
  }
}

const KEY = 'MDEyMzQ1Njc4OWFiY2RlZg==';
export const UPGRADE = (path = '/') => `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n\r\n`;
export const GET = (path, headers = '') => `GET ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;

export const [TEXT, CLOSE, PING, PONG] = [1, 8, 9, 10];

/** A client's frame with the shortest header, masked. */
export function frame(opcode, payload = '', { fin = true, mask = [7, 99, 0, 255] } = {}) {
  const body = Buffer.from(payload);
  for (let i = 0; i < body.length; i += 1) body[i] ^= mask[i & 3];
  const first = (fin ? 0x80 : 0) | opcode;
  let head;
  if (body.length < 126) head = Buffer.from([first, 0x80 | body.length]);
  else if (body.length < 65_536) {
    head = Buffer.from([first, 0x80 | 126, 0, 0]);
    head.writeUInt16BE(body.length, 2);
  } else {
    head = Buffer.concat([Buffer.from([first, 0x80 | 127]), Buffer.alloc(8)]);
    head.writeBigUInt64BE(BigInt(body.length), 2);
  }
  return Buffer.concat([head, Buffer.from(mask), body]);
}

export const closing = (code, reason = '') => {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  return frame(CLOSE, payload);
};

/** A WebSocket by hand: it answers nothing by itself. */
export class RawSocket {
  static async connect(server, base, path) {
    const raw = new RawSocket();
    raw.tcp = await Tcp.connect(server, base, UPGRADE(path));
    const head = await raw.tcp.through('\r\n\r\n', 'the upgrade');
    assert.match(head, /^HTTP\/1\.1 101 /);
    return raw;
  }

  send(message) {
    return this.write(frame(TEXT, typeof message === 'string' ? message : JSON.stringify(message)));
  }

  write(bytes) {
    this.tcp.write(bytes);
    return this;
  }

  #whole() {
    const { bytes } = this.tcp;
    if (bytes.length < 2) return undefined;
    const short = bytes[1] & 0x7f;
    const header = { 126: 4, 127: 10 }[short] ?? 2;
    if (bytes.length < header) return undefined;
    const length = short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
    return bytes.length < header + length ? undefined : { header, length };
  }

  /** The next frame: `{ opcode, fin, header, payload }`; `header` is how long its header was. */
  async next(what = 'a frame', ms) {
    await this.tcp.until(() => this.#whole(), what, ms);
    const { header, length } = this.#whole();
    const bytes = this.tcp.take(header + length);
    assert.equal(bytes[0] & 0x70, 0, 'no reserved bits');
    assert.equal(bytes[1] & 0x80, 0, 'a server does not mask');
    return { opcode: bytes[0] & 0x0f, fin: (bytes[0] & 0x80) !== 0, header, payload: bytes.subarray(header) };
  }

  /** The next text message as JSON; its pieces are put together, pings are passed over. */
  async message(what = 'a message', ms) {
    const pieces = [];
    for (;;) {
      const { opcode, fin, payload } = await this.next(what, ms);
      if (opcode === PING) continue;
      assert.equal(opcode, pieces.length === 0 ? TEXT : 0, `${what}: opcode ${opcode} ${payload}`);
      pieces.push(payload);
      if (fin) return JSON.parse(Buffer.concat(pieces).toString());
    }
  }

  /** The code and reason of the close frame, passing over what comes before it. */
  async close(what = 'a close frame') {
    for (;;) {
      const { opcode, payload } = await this.next(what);
      if (opcode === CLOSE) return payload.length === 0 ? {} : { code: payload.readUInt16BE(), reason: payload.subarray(2).toString() };
    }
  }

  pause() { this.tcp.socket.pause(); }
  resume() { this.tcp.socket.resume(); }
}

/** A reader of server-sent events by the rules of the HTML standard: `{ id, data }`, comments as `{ comment }`. */
export class EventStream {
  events = [];
  lastEventId = '';
  #rest = '';
  #waiters = new Set();

  constructor(server) {
    this.server = server;
    const ended = deferred();
    /** Resolves with `undefined` when the stream has ended whole, with the error when it broke off. */
    this.ended = ended.promise;
    this.controller = new AbortController();
    this.end = (error) => { this.isOver = true; ended.resolve(error); for (const waiter of this.#waiters) waiter(); };
  }

  static async open(server, path, { headers = {}, since } = {}) {
    const stream = new EventStream(server);
    const given = { Accept: 'text/event-stream', ...(since === undefined ? {} : { 'Last-Event-ID': since }), ...headers };
    stream.lastEventId = since ?? '';
    const response = await server.within(fetch(http(server) + path, { headers: given, signal: stream.controller.signal }), `the head of ${path}`);
    stream.status = response.status;
    stream.headers = response.headers;
    if (response.status !== 200) {
      stream.body = await response.text();
      stream.end();
      return stream;
    }
    stream.#read(response.body.getReader());
    return stream;
  }

  async #read(reader) {
    const decoder = new TextDecoder();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.feed(decoder.decode(value, { stream: true }));
      }
      this.end();
    } catch (error) {
      this.end(error);
    }
  }

  feed(text) {
    this.#rest += text;
    const blocks = this.#rest.split('\n\n');
    this.#rest = blocks.pop();
    for (const block of blocks) this.#take(block.split('\n'));
    if (blocks.length > 0) for (const waiter of this.#waiters) waiter();
  }

  #take(lines) {
    const event = { data: [] };
    for (const line of lines) {
      const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (name === '') event.comment = value;
      else if (name === 'id') this.lastEventId = event.id = value;
      else if (name === 'data') event.data.push(value);
      else event[name] = value;
    }
    const data = event.data.join('\n');
    if (data === '') delete event.data;
    else Object.assign(event, { data, json: JSON.parse(data) });
    this.events.push(event);
  }

  /** Removes and returns the first event that matches. */
  async take(matches = () => true, what = 'an event', ms) {
    const found = () => this.events.findIndex(matches);
    if (found() < 0) {
      const reached = deferred();
      const check = () => {
        if (found() >= 0) reached.resolve();
        else if (this.isOver) reached.reject(new Error(`the stream ended before ${what}`));
      };
      this.#waiters.add(check);
      try {
        check();
        await this.server.within(reached.promise, what, ms);
      } finally {
        this.#waiters.delete(check);
      }
    }
    return this.events.splice(found(), 1)[0];
  }

  /** The next event that is no comment, as JSON. */
  async json(what) {
    return (await this.take((event) => event.data !== undefined, what)).json;
  }

  close() {
    this.controller.abort();
  }
}

/** Asks until `done` of the samples of `/metrics` holds: each answer is an event. */
export async function metricsWhen(server, done, what, ms = 15_000) {
  let last;
  const asking = async () => {
    for (;;) {
      last = await server.metrics();
      if (done(last)) return last;
    }
  };
  try {
    return await within(asking(), what, { ms, server });
  } catch (error) {
    const told = Object.entries(last ?? {}).filter(([name]) => /connections\{|subscri|queue|event_stream|workers/.test(name));
    error.message += `\n${told.map(([name, value]) => `${name} ${value}`).join('\n')}`;
    throw error;
  }
}

const TICKS_PER_S = Number(execFileSync('getconf', ['CLK_TCK']).toString());

/** Processor time that a process has used, in milliseconds. */
export function cpuMs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1_000) / TICKS_PER_S;
}

/**
 * Nothing is left of whoever was here, apart from `subscribers` and `workers` connections and their `subscriptions`: no connections,
 * no groups, no waiting bytes; and the server is idle.
 */
export async function atRest(server, { subscribers = 0, workers = 0, subscriptions = 0, ms } = {}) {
  const metrics = await metricsWhen(server, (m) => m['iii_stream_connections{port="subscribers"}'] === subscribers
    && m['iii_stream_connections{port="workers"}'] === workers && m.iii_stream_subscriptions === subscriptions
    && (m.iii_stream_subscribed_groups > 0) === (subscriptions > 0) && m.iii_stream_subscriber_queue_bytes === 0 && m.iii_stream_event_streams === 0 && m.iii_stream_invocations === 0, 'the server to be at rest', ms);
  await idle(server);
  return metrics;
}

/** The server uses no processor time for half a second in which nobody says anything to it. */
export async function idle(server) {
  const { hostname, port } = new URL(server.admin);
  // Such a while must end by an event: the silence of a connection on which nothing is asked.
  const begun = [performance.now(), cpuMs(server.pid)];
  const witness = connect(Number(port), hostname);
  const waited = deferred();
  witness.on('error', waited.reject);
  witness.setTimeout(500, waited.resolve);
  await server.within(waited.promise, 'half a second of silence');
  witness.destroy();
  const [wall, cpu] = [performance.now() - begun[0], cpuMs(server.pid) - begun[1]];
  assert.ok(cpu <= wall * 0.15 + 10, `${cpu} ms of processor time in ${Math.round(wall)} ms of rest`);
}
