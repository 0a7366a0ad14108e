// Plays every example of docs/protocol.md against the real server, and holds its tables against the sources.
//
// Each heading of the document is a conversation with a fresh server. Its fenced blocks are the steps; what the
// blocks and the mark `…` mean is said in the document itself, in "How to read the examples".
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { Record, startServer } from './harness.mjs';
import { equal, JsonNumber, parse } from './lossless.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const ENTRIES = { 'iii-stream': 'stream', 'iii-worker-manager': 'manager' };

/** The headings of the document, each with its text and its fenced blocks. */
function readSections() {
  const sections = [{ title: '(before the first heading)', blocks: [], text: '' }];
  let open;
  readFileSync(`${root}docs/protocol.md`, 'utf8').split('\n').forEach((line, index) => {
    const fence = /^```(\S*) ?(.*)$/.exec(line);
    if (open && line === '```') {
      open = undefined;
    } else if (open) {
      open.lines.push(line);
    } else if (fence) {
      open = { kind: fence[1], info: fence[2], lines: [], at: `docs/protocol.md:${index + 1}` };
      sections.at(-1).blocks.push(open);
    } else if (/^##+ /.test(line)) {
      sections.push({ title: line.replace(/^#+ /, ''), blocks: [], text: '' });
    } else {
      sections.at(-1).text += `${line}\n`;
    }
  });
  assert.equal(open, undefined, 'every block is closed');
  return sections;
}

/** What `yaml` blocks show: one key on each line, under the entry that the info names. */
function readConfig(blocks) {
  const config = { stream: {}, manager: {} };
  for (const { info, lines } of blocks.filter(({ kind }) => kind === 'yaml')) {
    for (const line of lines) {
      const [, key, value] = /^(\w+): (.*)$/.exec(line);
      config[ENTRIES[info]][key] = JSON.parse(value);
    }
  }
  return config;
}

/** `GET /path` or a status, then headers, then, after an empty line, a body. */
function readHttp(lines) {
  const end = lines.includes('') ? lines.indexOf('') : lines.length;
  const [first, ...rest] = lines.slice(0, end);
  const headers = rest.map((line) => /^([^:]+): *(.*)$/.exec(line).slice(1));
  return { first, headers: new Map(headers.map(([name, value]) => [name.toLowerCase(), value])), body: lines.slice(end + 1).join('\n') };
}

/** The messages of a block: each begins with a line that is not indented. */
const messages = (lines) => lines.join('\n').split(/\n(?=\S)/);

/** An answer that goes on and on; its events are kept until somebody takes them. */
class EventStream {
  #rest = '';
  #events = new Record();
  #taken = 0;
  #abort;

  constructor(body, abort) {
    this.#abort = abort;
    this.ended = this.#read(body).catch(() => {}); // ended by us, or by a server that stops
  }

  async #read(body) {
    for await (const text of body.pipeThrough(new TextDecoderStream())) {
      const events = (this.#rest + text).split('\n\n');
      this.#rest = events.pop();
      // Lines that begin with a colon are comments.
      events.filter((event) => !event.startsWith(':')).forEach((event) => this.#events.push(event));
    }
  }

  async next(what) {
    const events = await this.#events.until(({ length }) => this.#taken < length, what);
    this.#taken += 1;
    return events[this.#taken - 1];
  }

  /** What nobody has taken, once the fence has come. */
  async left() {
    const events = await this.#events.until((all) => all.some((event) => event.includes('"type":"fence"')), 'the fence');
    return events.slice(this.#taken).filter((event) => !event.includes('"type":"fence"'));
  }

  end() {
    this.#abort.abort();
    return this.ended;
  }
}

/** One heading, played. Steps are named by who acts: `says_…` the peer, `hears_…` the server to the peer. */
class Conversation {
  #peers = new Map();
  #streams = new Map();
  #requests = new Map();
  #names = new Map();
  #groups = [];
  #isStopped = false;

  constructor(server, config) {
    this.server = server;
    this.config = config;
  }

  /** `worker…` connects to the worker port, `client…` to the subscriber port, unless an http block did so before; a `channel…` always has one. */
  async #peer(name) {
    if (!this.#peers.has(name)) {
      this.#peers.set(name, await (name.startsWith('worker') ? this.server.peer() : this.server.subscriber()));
    }
    return this.#peers.get(name);
  }

  async step({ kind, info, lines }) {
    if (kind === 'yaml') return; // read before the server was started
    if (kind === 'order') return this.#checkOrder(lines[0]);
    if (kind === 'signal') return this.#stopServer(lines[0]);
    const [, from, to, times = 1, isAfterFrames] = /^(.+?)→(.+?)(?: ×(\d+))?(, after frames)?$/.exec(info) ?? assert.fail(`who says this to whom? ${info}`);
    const peer = from === 'server' ? to : from;
    assert.match(peer, /^(worker|client|channel)( \w+)?$/);
    const act = this[`${from === 'server' ? 'hears' : 'says'}_${kind}`] ?? assert.fail(`a block of kind "${kind}" is not played`);
    for (let n = 1; n <= times; n += 1) await act.call(this, peer, lines.map((line) => line.replaceAll('{n}', n)), Boolean(isAfterFrames));
  }

  async says_json(name, lines) {
    const peer = await this.#peer(name);
    for (const text of messages(lines).map((message) => this.#fill(message))) {
      parse(text); // what is shown as JSON is JSON
      const { type, data } = JSON.parse(text);
      if (type === 'join' && data?.groupId) this.#groups.push([data.streamName, data.groupId]);
      peer.send(text);
    }
  }

  async hears_json(name, lines) {
    const peer = await this.#peer(name);
    for (const text of messages(lines)) {
      // Answers of calls come when they are ready, and so do calls of a worker's own functions.
      const wanted = JSON.parse(text);
      const id = wanted.type === 'invocationresult' ? this.#names.get(String(wanted.invocation_id).slice(1)) : undefined;
      const isFree = ({ type }) => ['invokefunction', 'invocationresult', 'result'].includes(type);
      const isWanted = (frame) => (isFree(wanted)
        ? frame.type === wanted.type && frame.id === wanted.id && (id === undefined || frame.invocation_id === id)
        : !isFree(frame));
      const frame = await peer.take(isWanted, `${name} to hear ${text}`);
      assert.equal(frame.binary, false);
      this.#hears(name, text, frame.text);
    }
  }

  /** Text that is no JSON. */
  async says_text(name, lines) {
    (await this.#peer(name)).send(this.#fill(lines.join('\n')));
  }

  /** Bytes past the WebSocket library, which would not send them. */
  async says_hex(name, lines) {
    const digits = lines.map((line) => line.replace(/#.*/, '')).join('').replace(/\s/g, '');
    (await this.#peer(name)).ws._socket.write(Buffer.from(digits, 'hex'));
  }

  /** Not awaited: before it is answered an auth function may have to speak. */
  says_http(name, lines) {
    const { first, headers } = readHttp(lines.map((line) => this.#known(line)));
    const base = name.startsWith('client') ? this.server.subscribers : this.server.workers;
    const [, method, path] = /^(GET|HEAD|OPTIONS|POST) (\S+)$/.exec(first);
    const [, stream, group] = /^\/stream\/([^/?]+)\/([^/?]+)/.exec(path)?.map(decodeURIComponent) ?? [];
    if (group) this.#groups.push([stream, group]);
    const isUpgrade = headers.delete('upgrade');
    const protocols = headers.get('sec-websocket-protocol')?.split(/, */) ?? [];
    headers.delete('sec-websocket-protocol');
    const options = { protocols, headers: Object.fromEntries(headers) };
    this.#requests.set(name, isUpgrade
      ? this.server.socket(base, path, options).then((socket) => ({ socket, status: 101, headers: socket.headers }), (error) => error)
      : this.#fetch(base.replace(/^ws/, 'http') + path, { method, ...options }));
  }

  async #fetch(url, options) {
    const abort = new AbortController();
    const response = await fetch(url, { ...options, signal: abort.signal });
    const { status } = response;
    const headers = Object.fromEntries(response.headers);
    if (headers['content-type'] === 'text/event-stream') return { status, headers, stream: new EventStream(response.body, abort) };
    return { status, headers, body: await response.text() };
  }

  async hears_http(name, lines) {
    const { first, headers, body } = readHttp(lines);
    const answer = await this.#requests.get(name);
    this.#requests.delete(name);
    assert.equal(answer.status, Number(first), answer.message ?? answer.body);
    if (body) this.#hears(name, body, answer.body);
    for (const [header, value] of headers) assert.equal(answer.headers[header], this.#known(value), header);
    if (answer.socket) this.#peers.set(name, answer.socket);
    if (answer.stream) this.#streams.set(name, answer.stream);
  }

  /** Events of an event stream, each with the lines that it has. */
  async hears_events(name, lines) {
    for (const text of lines.join('\n').split('\n\n')) {
      const heard = await this.#streams.get(name).next(`${name} to hear ${text}`);
      const [expected, actual] = [text, heard].map((event) => ({ data: /^data: (.*)$/m.exec(event)[1], rest: event.replace(/^data: .*$/m, 'data') }));
      this.#hears(name, expected.data, actual.data);
      assert.equal(actual.rest, this.#known(expected.rest));
    }
  }

  #hears(name, expected, actual) {
    assert.ok(this.#matches(parse(expected).value, parse(actual).value), `${name} heard\n${actual}\ninstead of\n${expected}\nwhere ${inspect(this.#names)}`);
  }

  async says_close(name, [line]) {
    const [, code, reason] = /^(\d+) ?(.*)$/.exec(line);
    (await this.#peer(name)).ws.close(Number(code), reason);
  }

  async hears_close(name, [line], isAfterFrames) {
    const peer = await this.#peer(name);
    const { code, reason } = await this.server.within(peer.closed, `${name} to be closed with ${line}`);
    assert.equal(`${code} ${reason}`.trim(), line);
    if (!isAfterFrames) assert.deepEqual(peer.frames.map((frame) => frame.text), []);
    this.#peers.delete(name);
  }

  async #stopServer(signal) {
    assert.equal(signal, 'SIGTERM');
    this.#isStopped = true;
    await this.server.terminate();
  }

  #checkOrder(line) {
    const words = line.split(' ');
    for (let n = 0; n + 2 < words.length; n += 2) {
      const [left, right] = [words[n], words[n + 2]].map((name) => this.#names.get(name).int);
      assert.ok({ '<': left < right, '<=': left <= right }[words[n + 1]], `${line}: ${left} ${words[n + 1]} ${right}`);
    }
  }

  /** Puts values in the place of `{…name}`. */
  #known(text) {
    return text.replace(/\{…(\w+)\}/g, (_, name) => {
      const value = this.#names.get(name) ?? assert.fail(`nothing is known as ${name}`);
      return value instanceof JsonNumber ? value.int : value;
    });
  }

  /** Puts values in the place of their names; a name that is new stands for a new UUID. */
  #fill(text) {
    assert.ok(!text.includes('"…"'), `what is sent has names for its marks: ${text}`);
    return text.replace(/"…(\w+)"/g, (_, name) => {
      if (!this.#names.has(name)) this.#names.set(name, randomUUID());
      return JSON.stringify(this.#names.get(name));
    });
  }

  #matches(expected, actual) {
    if (typeof expected === 'string' && expected.startsWith('…')) {
      const name = expected.slice(1);
      if (this.#names.has(name)) return equal(this.#names.get(name), actual);
      if (name !== '') this.#names.set(name, actual);
      return (typeof actual === 'string' && actual !== '') || actual instanceof JsonNumber;
    }
    if (expected instanceof Map && actual instanceof Map) {
      const isWhole = expected.has('…') || expected.size === actual.size;
      return isWhole && [...expected].every(([key, value]) => key === '…' || (actual.has(key)
        && this.#matches(value, actual.get(key)) && (key !== 'timestamp' || actual.get(key).int !== undefined)));
    }
    if (Array.isArray(expected) && Array.isArray(actual)) {
      if (expected.includes('…')) return this.#areAmong(expected.filter((value) => value !== '…'), actual);
      return expected.length === actual.length && expected.every((value, n) => this.#matches(value, actual[n]));
    }
    return equal(expected, actual);
  }

  /** Whether a list has all that is expected, in this order, and perhaps more. */
  #areAmong(expected, actual) {
    let at = 0;
    return expected.every((value) => {
      while (at < actual.length && !this.#matches(value, actual[at])) at += 1;
      at += 1;
      return at <= actual.length;
    });
  }

  /** Nothing was said that the document does not show. */
  async end() {
    assert.deepEqual([...this.#requests.keys()], [], 'every request has its answer');
    if (this.#isStopped) return assert.deepEqual([...this.#peers.keys()], [], 'every connection has its close');
    const peers = [...this.#peers];
    const settle = () => Promise.all(peers.map(([name, peer]) => (name.startsWith('worker') ? peer.settled() : peer.ping())));
    await settle();
    // Where an auth function decides there is nobody to answer for one more client, and not everybody may read everything.
    const { auth_function, default_grants } = this.config.stream;
    if (!auth_function && !default_grants) for (const group of this.#groups) await this.#fence(group);
    await settle();
    for (const [name, stream] of this.#streams) assert.deepEqual(await stream.left(), [], `${name} heard nothing else`);
    for (const [name, peer] of peers) {
      const left = peer.frames.filter((frame) => frame.event?.event?.type !== 'fence');
      assert.deepEqual(left.map((frame) => frame.text), [], `${name} heard nothing else`);
    }
  }

  /** The changes of a group are delivered in order: when this one arrives, all that came before it have been. */
  async #fence([stream_name, group_id]) {
    const [worker, watcher] = [await this.server.peer(), await this.server.subscriber()];
    await watcher.join(stream_name, group_id);
    await worker.result('stream::send', { stream_name, group_id, type: 'fence', data: null });
    await watcher.take((frame) => frame.event.event?.type === 'fence', 'the fence');
  }

  async stop() {
    for (const stream of this.#streams.values()) await stream.end();
    return this.#isStopped ? undefined : this.server.stop();
  }
}

const sections = readSections();
for (const { title, blocks } of sections.filter((section) => section.blocks.length > 0)) {
  test(`protocol: ${title}`, async () => {
    const config = readConfig(blocks);
    const conversation = new Conversation(await startServer(config), config);
    try {
      for (const block of blocks) {
        await conversation.step(block).catch((error) => { throw Object.assign(error, { message: `${block.at}: ${error.message}` }); });
      }
      await conversation.end();
    } finally {
      await conversation.stop();
    }
  });
}

const sources = ['core/src/', 'host-native/src/']
  .flatMap((folder) => readdirSync(root + folder, { recursive: true }).map((file) => root + folder + file))
  // What a replica says to its holder is not said on the wire.
  .filter((file) => file.endsWith('.rs') && !file.includes('core/src/replica'))
  .map((file) => readFileSync(file, 'utf8').split('#[cfg(test)]')[0])
  .join('\n');
const all = (text, pattern) => [...text.matchAll(pattern)].map((match) => match[1]);
const sorted = (list) => [...new Set(list)].sort();
const textOf = (title) => sections.find((section) => section.title === title).text;
/** What stands in code marks in the first column of the tables under a heading. */
const firstColumn = (title) => sorted(all(textOf(title), /^\| (.+?) \|/gm).flatMap((cell) => all(cell, /`([^`]+)`/g)));

test('protocol: the codes of failed operations are those of the sources', () => {
  const [, list] = /OP_ERROR_CODES: &\[&str\] = &\[([^\]]+)\]/.exec(sources);
  assert.deepEqual(firstColumn('Error codes of operations'), sorted(all(list, /"([^"]+)"/g)));
});

test('protocol: the codes of failed calls are those of the sources', () => {
  const told = all(sources, /fn \w*code\([^)]*\) -> &'static str \{([\s\S]*?)\n    \}/g).flatMap((body) => all(body, /"([^"]+)"/g));
  const made = all(sources, /(?:Failure::new|Self::new|\bfail|\brefuse)\(\s*"(\w+)",/g);
  assert.deepEqual(firstColumn('Error codes of calls'), sorted([...told, ...made].filter((code) => !code.includes('.'))));
});

test('protocol: the codes of error frames are those of the sources', () => {
  const used = all(sources, /"((?:message|subscription)\.\w+|unsupported_by_storage)"/g);
  assert.deepEqual(firstColumn('Error frames'), sorted(used));
});

test('protocol: the close codes are those of the sources', () => {
  const used = [...sources.matchAll(/=> \((\d{4}), "([^"]+)"\)/g)].map(([, code, reason]) => `${code} | ${reason}`);
  assert.deepEqual(sorted(all(textOf('Close codes'), /^\| (\d{4} \| [^|]+) \|/gm)), sorted(used));
});

test('protocol: every limit that the core names stands among the limits', () => {
  const limits = textOf('Limits').replaceAll(/(\d),(?=\d{3})/g, '$1');
  for (const [, name, value] of sources.matchAll(/pub const (\w+_MAX): (?:usize|u64) = ([\d_]+);/g)) {
    assert.match(limits, new RegExp(`\\b${value.replaceAll('_', '')}\\b`), name);
  }
});

test('protocol: the keys among the limits are keys of the configuration', () => {
  const known = all(readFileSync(`${root}docs/configuration.md`, 'utf8'), /^\| `(\w+)` \|/gm);
  const keys = all(textOf('Limits'), /^\|[^|]+\|[^|]+\| ([^|]+) \|/gm).flatMap((cell) => all(cell, /`(\w+)`/g));
  assert.ok(keys.length > 20, `${keys.length} keys are named`);
  assert.deepEqual(keys.filter((key) => !known.includes(key)), []);
});
