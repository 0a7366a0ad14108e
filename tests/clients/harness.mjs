// Starts the real server for a suite and talks to it: by plain WebSocket, by iii-sdk and by the stream client.
//
// Everything waits for an event with a time limit, never for a fixed time; a wait that fails says what it waited
// for and shows the server's log, because a bare "timed out" tells nobody whose fault it was.

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { get, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { registerWorker } from 'iii-sdk';
import { WebSocket } from 'ws';

/** Long enough for a loaded two-core machine, short enough that a hanging suite ends. */
const WAIT_MS = 15_000;
const LOG_BYTES_SHOWN = 6_000;
const LOG_BYTES_KEPT = 200_000;

// iii-sdk tells every connect on console.debug; test reports are easier to read without it.
console.debug = () => {};

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
export const serverBinary = () => process.env.III_STREAM_BIN ?? here('../../target/debug/iii-stream');

/** Resolves as `promise` does, or fails after `ms` naming `what` was waited for and showing the log of `server`. */
export async function within(promise, what, { ms = WAIT_MS, server } = {}) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}${server?.report() ?? ''}`)), ms);
    timer.unref(); // an answer nobody needs any more must not keep the process alive
  });
  try {
    return await Promise.race(server ? [promise, late, server.died] : [promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A promise with its handles outside. */
export function deferred() {
  const d = {};
  d.promise = new Promise((resolve, reject) => Object.assign(d, { resolve, reject }));
  return d;
}

/** Writes plain data as block YAML; scalars are JSON, which YAML reads as they are. */
function yaml(value, indent = '') {
  return Object.entries(value)
    .filter(([, v]) => v !== undefined)
    .map(([key, v]) => (v !== null && typeof v === 'object' && !Array.isArray(v)
      ? `${indent}${key}:\n${yaml(v, `${indent}  `)}`
      : `${indent}${key}: ${JSON.stringify(v)}\n`))
    .join('');
}

/** Where the servers of these tests keep groups: `files`, as a bare start does, or what III_STREAM_STORE says: `memory`, `redis`. */
export const keeps = process.env.III_STREAM_STORE ?? 'files';
if (!['files', 'memory', 'redis'].includes(keeps)) throw new Error(`III_STREAM_STORE is files, memory or redis, not ${keeps}`);
export const keepsFiles = keeps === 'files';
/** Whether groups outlive their server. */
export const keepsGroups = keeps !== 'memory';

/** The adapter of a server; `more` are keys of files. A server on Redis gets the address of this process's Redis when it starts. */
export const adapter = (more = {}) => ({
  files: { name: 'kv', config: { store_method: 'file_based', file_path: 'stream_store', ...more } },
  memory: { name: 'kv', config: { store_method: 'in_memory' } },
  redis: { name: 'redis', config: {} },
})[keeps];

/** Servers of one process on one Redis do not see each other, unless they share a folder (one follows the other) or a prefix. */
const prefixes = new Map();
let prefixCount = 0;
export const newPrefix = () => `t${prefixCount += 1}:`;

/** The adapter as a server in `folder` is to be configured with it. */
async function placed(given, folder) {
  if (given.name !== 'redis') return given;
  const { processRedis } = await import('./redis.mjs');
  if (!prefixes.has(folder)) prefixes.set(folder, newPrefix());
  const config = { key_prefix: prefixes.get(folder), ...given.config };
  config.redis_url ??= (await processRedis()).url;
  return { ...given, config };
}

// A test process that is ended from outside (a time limit, Ctrl-C) must not leave its servers behind.
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));

/** A folder for servers that follow one another; whoever asks for it removes it. */
export const newFolder = () => mkdtemp(joinPath(tmpdir(), 'iii-stream-clients-'));

/**
 * Runs the server on free ports; `stream` adds keys to the iii-stream configuration. Its folder, in which its data is, is removed
 * with it, unless `folder` names one to stay. `binary` is what is run instead of the server's own, `args` are more arguments.
 */
export async function startServer({ stream = {}, manager = {}, folder: given, binary = serverBinary(), args = [] } = {}) {
  const folder = given ?? await newFolder();
  const config = joinPath(folder, 'config.yaml');
  const entry = (name, body) => `- name: ${name}\n  config:\n${yaml(body, '    ')}`;
  const store = await placed(stream.adapter ?? adapter(), folder);
  await writeFile(config, entry('iii-stream', { port: 0, host: '127.0.0.1', admin_port: 0, ...stream, adapter: store })
    + entry('iii-worker-manager', { port: 0, host: '127.0.0.1', ...manager }));

  const child = spawn(binary, ['--config', config, ...args], {
    cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, RUST_LOG: process.env.RUST_LOG ?? 'info' },
  });
  const server = new Server(child, folder, given !== undefined);
  try {
    await within(server.listening, 'the server to print its addresses', { server });
  } catch (error) {
    await server.stop().catch(() => {});
    throw error;
  }
  return server;
}

/**
 * `count` servers on one Redis: `redis` is a server or a Cluster or Sentinels of redis.mjs, else that of this process. `config` adds keys
 * to the adapter, `stream` and `manager` to the rest, as functions of the number where they differ.
 */
export async function startServers(count, { redis, config = {}, stream = {}, manager = {}, prefix = newPrefix() } = {}) {
  const at = (given, n) => (typeof given === 'function' ? given(n) : given);
  const adapterOf = (n) => ({
    name: 'redis', config: { ...(redis ? { redis_url: redis.urls?.join(',') ?? redis.url } : {}), ...redis?.config, key_prefix: prefix, ...at(config, n) },
  });
  const starting = Array.from({ length: count }, (_, n) => startServer({ stream: { adapter: adapterOf(n), ...at(stream, n) }, manager: at(manager, n) }));
  const settledOnes = await Promise.allSettled(starting);
  const failed = settledOnes.find(({ reason }) => reason);
  if (!failed) return settledOnes.map(({ value }) => value);
  await Promise.all(settledOnes.map(({ value }) => value?.stop().catch(() => {})));
  throw failed.reason;
}

class Server {
  #child;
  #log = '';
  #output = '';
  #stopping = false;
  #open = new Set();
  #exited = deferred();

  constructor(child, folder, keepsFolder) {
    this.#child = child;
    /** Whether it leaves its folder behind. */
    this.keepsFolder = keepsFolder;
    this.folder = folder;
    this.pid = child.pid;
    running.add(child);
    const listening = deferred();
    const died = deferred();
    this.listening = listening.promise;
    /** Rejects when the process ends without having been asked to. */
    this.died = died.promise;
    // Nobody may be waiting when it happens; the next wait, or stop(), reports it.
    this.died.catch(() => {});
    child.stdout.setEncoding('utf8').on('data', (text) => {
      this.#output += text;
      this.workers ??= /^\s*workers\s+(ws:\/\/\S+)/m.exec(this.#output)?.[1];
      this.subscribers ??= /^\s*subscribers\s+(ws:\/\/\S+)/m.exec(this.#output)?.[1];
      this.admin ??= /^\s*admin\s+(http:\/\/\S+)/m.exec(this.#output)?.[1];
      // An empty line follows the addresses; there may be no admin listener.
      if (this.workers && this.subscribers && /\n\n/.test(this.#output)) listening.resolve();
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#log = (this.#log + text).slice(-LOG_BYTES_KEPT);
    });
    child.on('error', (error) => {
      died.reject(new Error(`cannot run ${serverBinary()}: ${error.message}`));
      this.#exited.resolve({ code: null });
    });
    child.on('exit', (code, signal) => {
      running.delete(child);
      this.#exited.resolve({ code, signal });
      if (!this.#stopping) died.reject(new Error(`the server ended by itself: ${signal ?? `exit ${code}`}${this.report()}`));
    });
  }

  report() {
    return `\n--- server (pid ${this.pid}) said ---\n${this.#output}${this.#log.slice(-LOG_BYTES_SHOWN)}\n---`;
  }

  get alive() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  within(promise, what, ms = WAIT_MS) {
    return within(promise, what, { ms, server: this });
  }

  /** An unmodified iii-sdk worker. Telemetry is off unless asked for: its global state outlives a server. */
  sdk(options = {}) {
    const worker = registerWorker(this.workers, { otel: { enabled: false }, enableMetricsReporting: false, ...options });
    this.#open.add(() => worker.shutdown());
    return worker;
  }

  /** A worker connection by plain WebSocket, after its `workerregistered`. */
  async peer(path = '/', options = {}) {
    const peer = await this.socket(this.workers, path, options);
    peer.registered = await peer.take((f) => f.type === 'workerregistered', 'workerregistered');
    return peer;
  }

  /** A subscriber connection by plain WebSocket; nothing is joined yet. */
  subscriber(path = '/', options = {}) {
    return this.socket(this.subscribers, path, options);
  }

  async socket(base, path, { protocols = [], ...options } = {}) {
    const socket = new Socket(this, new WebSocket(base + path, protocols, { perMessageDeflate: false, ...options }));
    this.#open.add(() => socket.ws.terminate());
    await socket.opened;
    return socket;
  }

  /** A published stream client; its class is the unmodified bundle, only its endless reconnecting is stopped. */
  async client(path = '/') {
    const { Stream } = await streamClient();
    const client = new Stream(this.subscribers + path);
    this.#open.add(() => {
      // 0.2.2 reconnects even after close(), for ever, which would keep the test process alive.
      client.createSocket = () => client.ws;
      client.close();
    });
    return client;
  }

  /** A request to the admin listener: `{ status, headers, body }`. */
  page(path, { method = 'GET', base = this.admin } = {}) {
    const answer = deferred();
    const asking = request(base + path, { method, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text) => { body += text; }).on('end', () => {
        answer.resolve({ status: response.statusCode, headers: response.headers, body });
      });
    });
    asking.on('error', answer.reject).end();
    return this.within(answer.promise, `${method} ${path}`);
  }

  /** The samples of `/metrics`, as numbers by name and labels: `iii_stream_connections{port="workers"}`. */
  async metrics() {
    const { body } = await this.page('/metrics');
    const samples = body.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => {
      const [, name, value] = /^(.*) (\S+)$/.exec(line);
      return [name, Number(value)];
    });
    return Object.fromEntries(samples);
  }

  /** Sends the process a signal that it is expected to end by; `terminate` does that and waits. */
  signal(name) {
    this.#stopping = true;
    this.#child.kill(name);
  }

  /** Resolves with `{ code, signal }` when the process has ended. */
  ended() {
    return within(this.#exited.promise, 'the server to end', { server: this });
  }

  /** Everything that the server has logged of late. */
  get log() {
    return this.#log;
  }

  /** Ends the server by SIGTERM while its clients are connected; it must end with 0. `keepsFolder`: another will use its data. */
  async terminate({ keepsFolder = this.keepsFolder } = {}) {
    if (!this.alive && !this.#stopping) return this.died;
    this.#stopping = true;
    this.#child.kill('SIGTERM');
    try {
      const { code, signal } = await within(this.#exited.promise, 'the server to end after SIGTERM', { server: this });
      if (code !== 0) throw new Error(`the server ended with ${signal ?? code} after SIGTERM${this.report()}`);
    } finally {
      this.#child.kill('SIGKILL');
      if (!keepsFolder) await rm(this.folder, { recursive: true, force: true });
    }
  }

  /** Ends the server at once, as a crash of it does. Its folder stays. */
  async kill() {
    this.#stopping = true;
    this.#child.kill('SIGKILL');
    await this.ended();
  }

  /** Ends all clients, then the server; fails if the server had ended before or does not end well. */
  async stop() {
    await Promise.all([...this.#open].map(async (close) => close()));
    await this.terminate();
  }
}

/** A plain WebSocket whose frames are kept until somebody takes them. */
class Socket {
  frames = [];
  #waiters = new Set();
  #calls = new Map();
  #handlers = new Map();
  #ended;

  constructor(server, ws) {
    this.server = server;
    this.ws = ws;
    const opened = deferred();
    const closed = deferred();
    /** Resolves with the handshake response's headers; a refusal rejects with `status`, `headers` and `body`. */
    this.opened = within(opened.promise, `a WebSocket to ${ws.url}`, { server });
    this.opened.catch(() => {});
    /** Resolves with `{ code, reason }`. */
    this.closed = closed.promise;
    ws.on('upgrade', (response) => { this.headers = response.headers; });
    ws.on('open', () => opened.resolve());
    ws.on('unexpected-response', (request, response) => {
      const { statusCode: status, headers } = response;
      let body = '';
      response.setEncoding('utf8').on('data', (text) => { body += text; }).on('end', () => {
        opened.reject(Object.assign(new Error(`upgrade refused with ${status}`), { status, headers, body }));
        request.destroy();
      });
    });
    ws.on('error', (error) => opened.reject(error));
    ws.on('close', (code, reason) => {
      closed.resolve({ code, reason: reason.toString() });
      // Nothing comes after a close: whoever still waits is told at once.
      this.#ended = new Error(`the connection was closed with ${code}`);
      for (const waiting of [...this.#waiters, ...this.#calls.values()]) waiting.reject(this.#ended);
    });
    ws.on('message', (data, binary) => this.#receive(data.toString(), binary));
  }

  #receive(text, binary) {
    const frame = JSON.parse(text);
    Object.defineProperties(frame, { text: { value: text }, binary: { value: binary } });
    const call = frame.type === 'invocationresult' && this.#calls.get(frame.invocation_id);
    if (call) {
      this.#calls.delete(frame.invocation_id);
      call.resolve(frame);
      return;
    }
    const handler = frame.type === 'invokefunction' && this.#handlers.get(frame.function_id);
    if (handler) {
      const { invocation_id, function_id } = frame;
      const answer = handler(frame.data, frame);
      if (answer) this.send({ type: 'invocationresult', invocation_id, function_id, ...answer });
      return;
    }
    for (const waiter of this.#waiters) {
      if (waiter.matches(frame)) {
        this.#waiters.delete(waiter);
        waiter.resolve(frame);
        return;
      }
    }
    this.frames.push(frame);
  }

  /** Sends text or bytes as they are, anything else as JSON. */
  send(message, options) {
    const raw = typeof message === 'string' || Buffer.isBuffer(message);
    this.ws.send(raw ? message : JSON.stringify(message), options);
  }

  /** Removes and returns the first frame that matches, waiting for it if need be. */
  async take(matches, what, ms = WAIT_MS) {
    const at = this.frames.findIndex(matches);
    if (at >= 0) return this.frames.splice(at, 1)[0];
    if (this.#ended) throw this.#ended;
    const waiter = { matches, ...deferred() };
    this.#waiters.add(waiter);
    try {
      return await within(waiter.promise, what, { ms, server: this.server });
    } catch (error) {
      const seen = this.frames.slice(-5).map((frame) => frame.text.slice(0, 300)).join('\n');
      error.message += `\nfirst frames not taken (${this.frames.length}):\n${seen}`;
      throw error;
    } finally {
      this.#waiters.delete(waiter);
    }
  }

  /** The next frame, whatever it is: for tests that pin down an order. */
  next(what = 'the next frame', ms = WAIT_MS) {
    return this.take(() => true, what, ms);
  }

  /** Calls a function and returns the whole `invocationresult` frame. */
  call(functionId, data, extra = {}) {
    return this.callText(functionId, data === undefined ? undefined : JSON.stringify(data), extra);
  }

  /** As `call`, with `data` as exact JSON text. */
  async callText(functionId, text, extra = {}) {
    const id = extra.invocation_id ?? randomUUID();
    const answer = deferred();
    this.#calls.set(id, answer);
    const head = JSON.stringify({ type: 'invokefunction', invocation_id: id, function_id: functionId, ...extra });
    this.send(text === undefined ? head : `${head.slice(0, -1)},"data":${text}}`);
    return within(answer.promise, `the answer of ${functionId}`, { server: this.server });
  }

  /** Calls a function and returns its result; an error answer is thrown as an Error carrying the body's fields. */
  async result(functionId, data, extra) {
    const frame = await this.call(functionId, data, extra);
    if (frame.error) throw Object.assign(new Error(`${functionId}: ${frame.error.message}`), frame.error);
    return frame.result;
  }

  /** Calls a function without wanting an answer. */
  void(functionId, data) {
    this.send({ type: 'invokefunction', function_id: functionId, data, action: { type: 'void' } });
  }

  /** Registers a function on this connection; `handler(data, frame)` returns the fields of the answer, or nothing. */
  serve(id, handler) {
    this.#handlers.set(id, handler);
    this.send({ type: 'registerfunction', id });
  }

  /** Resolves when the server has read everything sent before on this worker connection. */
  async settled() {
    await this.call('engine::workers::register', {});
  }

  /** Sends `join` and returns the `sync` (or `unauthorized`) frame that answers it. */
  async join(streamName, groupId, id, subscriptionId = randomUUID()) {
    this.send({ type: 'join', data: { subscriptionId, streamName, groupId, ...(id === undefined ? {} : { id }) } });
    return this.sync(streamName, groupId, id);
  }

  /** The `sync` (or `unauthorized`) frame of a subscription. */
  sync(streamName, groupId, id = null) {
    return this.take((f) => f.streamName === streamName && f.groupId === groupId && f.id === id
      && (f.event.type === 'sync' || f.event.type === 'unauthorized'), `sync of ${streamName}/${groupId}/${id}`);
  }

  /** The next frame that carries an event of `type`. */
  event(type) {
    return this.take((f) => f.event?.type === type, `a ${type} event`);
  }

  /** A WebSocket ping and its answer. */
  async ping(payload = 'still there?') {
    const pong = deferred();
    this.ws.once('pong', (data) => pong.resolve(data.toString()));
    this.ws.ping(payload);
    return within(pong.promise, 'pong', { server: this.server });
  }

  /** Closes with `code` and returns what the server answered. */
  async close(code = 1000) {
    this.ws.close(code);
    return within(this.closed, 'the close handshake', { server: this.server });
  }
}

/** An upgrade request with exactly these headers, for what the ws library would not send or accept. */
export function upgrade(base, path, headers = {}) {
  const answer = deferred();
  const request = get({
    host: new URL(base).hostname, port: new URL(base).port, path, agent: false,
    headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'MDEyMzQ1Njc4OWFiY2RlZg==', ...headers },
  }, (response) => { answer.resolve({ status: response.statusCode, headers: response.headers }); response.destroy(); });
  request.on('upgrade', (response, socket) => { answer.resolve({ status: response.statusCode, headers: response.headers }); socket.destroy(); });
  request.on('error', answer.reject);
  return within(answer.promise, `the answer to an upgrade of ${path}`);
}

let bundled;

/** The published client as source text for a browser: its package is ESM without extensions, which Node cannot load. */
export async function streamClientSource() {
  const result = await build({
    stdin: { contents: "export * from '@motiadev/stream-client-browser'", resolveDir: here('.') },
    bundle: true, format: 'esm', platform: 'browser', write: false, logLevel: 'error',
  });
  return result.outputFiles[0].text;
}

/** The published client loaded into this process; it expects a browser's global WebSocket. */
export function streamClient() {
  globalThis.WebSocket ??= WebSocket;
  bundled ??= streamClientSource()
    .then((source) => import(`data:text/javascript;base64,${Buffer.from(source).toString('base64')}`));
  return bundled;
}

/** Resolves when the server has read everything an iii-sdk worker sent before: one connection is read in order. */
export const settled = (worker) => worker.trigger({ function_id: 'stream::list_all', payload: {} });

/** Calls that end up in an array, and a way to wait until there are `count` of them. */
export class Record {
  items = [];
  #waiters = new Set();

  constructor(server) {
    this.server = server;
  }

  push(item) {
    this.items.push(item);
    for (const waiter of this.#waiters) waiter();
  }

  /** Waits until `done(items)` holds and returns the items. */
  async until(done, what) {
    if (done(this.items)) return this.items;
    const reached = deferred();
    const check = () => { if (done(this.items)) reached.resolve(); };
    this.#waiters.add(check);
    try {
      await within(reached.promise, what, { server: this.server });
    } catch (error) {
      error.message += `\nhave ${this.items.length}: ${JSON.stringify(this.items.slice(-5)).slice(0, 1500)}`;
      throw error;
    } finally {
      this.#waiters.delete(check);
    }
    return this.items;
  }

  count(n) {
    return this.until((items) => items.length >= n, `${n} calls`);
  }
}

/** The rejection of a promise that must not resolve. */
export async function rejection(promise, what = 'the call') {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`${what} should have failed, but gave ${JSON.stringify(value)}`);
}

let uniques = 0;
/** A name no other test uses. */
export const unique = (prefix) => `${prefix}-${process.pid}-${uniques += 1}`;
