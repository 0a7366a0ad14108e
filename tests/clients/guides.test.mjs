// The guides and the migration page: their blocks run as printed, and what they claim is tried; what nobody runs or tries fails.
//
// What follows the language of a block says what happens to it, from top to bottom of a page, in one folder:
//   file=NAME    is written; a later block has to use it
//   install      names packages in exactly the versions that these tests have installed
//   run          is run by a shell and must succeed; `run fails` must fail
//   start=NAME   is started by a shell and stays; the same name again ends the first (SIGTERM)
//   expect       is what the last of these two wrote: all of it for run, these lines in this order for start;
//                `…` stands for anything. `expect=NAME` is what that program wrote since the last look
//   page=URL     is all that a browser which opened URL (once per guide) shows by and by
// `<!-- test: kill NAME -->` kills a program with SIGKILL, `<!-- test: close URL -->` closes a page.
// The ports 3112, 49134, 8080 and 6379 are replaced by free ones wherever they are printed.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { WebSocket } from 'ws';
import { Record, rejection, serverBinary, startServer, unique, within } from './harness.mjs';
import { withoutRedis } from './redis.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const noBrowser = existsSync(executablePath) ? false : `no Chromium at ${executablePath}; set $CHROMIUM`;
let browser;
before(async () => {
  if (!noBrowser) browser = await chromium.launch({ executablePath, args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run'] });
});
after(() => browser?.close());

/** A port outside the range from which the system gives ports to those who ask for any. */
async function freePort() {
  for (;;) {
    const server = createServer();
    const port = randomInt(20_000, 32_000);
    try {
      await once(server.listen(port, '127.0.0.1'), 'listening');
      await once(server.close(), 'close');
      return port;
    } catch { /* somebody has it: the next one */ }
  }
}

/** All blocks and test comments of a page, in order. */
function steps(text) {
  return [...text.matchAll(/^```(.*)\n([\s\S]*?)^```$|^<!-- test: (.*) -->$/gm)].map(([, info, body, comment]) => {
    if (comment) return { verb: comment.split(' ')[0], argument: comment.split(' ')[1], info: comment };
    const [, verb, argument] = info.split(' ')[1]?.match(/^([a-z]+)(?:=(.+))?$/) ?? [];
    return { verb, argument, body, info, fails: info.endsWith(' fails') };
  }).map((step, i, { length }) => ({ ...step, where: `block ${i + 1} of ${length} (${step.info})` }));
}

const pattern = (line) => new RegExp(`^${line.trimEnd().split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`);
const lines = (text) => text.trimEnd().split('\n');

/** Whether `expected` are found among `said`, in this order. */
function contains(said, expected) {
  const left = expected.map(pattern);
  for (const line of said) if (left[0]?.test(line.trimEnd())) left.shift();
  return left.length === 0;
}

class Guide {
  #programs = new Map();
  #pages = new Map();
  #files = new Map();
  #run = [];
  #last;

  static async open() {
    const guide = new Guide();
    guide.ports = new Map([['3112', await freePort()], ['49134', await freePort()], ['8080', await freePort()], ['6379', await freePort()]]);
    guide.folder = await mkdtemp(join(tmpdir(), 'iii-stream-guide-'));
    await symlink(here('node_modules'), join(guide.folder, 'node_modules'));
    const bin = join(guide.folder, '.bin');
    await mkdir(bin);
    // The commands of a page go to the default ports, which are other ones here.
    await writeFile(join(bin, 'iii-stream'), guide.place(`#!/bin/sh
case "$1" in
  call|export|import) set -- "$@" --worker-url ws://127.0.0.1:49134 ;;
  watch) set -- "$@" --url ws://127.0.0.1:3112 ;;
esac
exec '${serverBinary()}' "$@"
`), { mode: 0o755 });
    guide.env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, RUST_LOG: 'warn', III_TOKEN: '' };
    return guide;
  }

  place(text) {
    return text.replace(/(?<!\d)(3112|49134|8080|6379)(?!\d)/g, (port) => this.ports.get(port));
  }

  async step({ verb, argument, body, fails }) {
    const text = body && this.place(body);
    switch (verb) {
      case 'file':
        this.#files.set(argument, text);
        return writeFile(join(this.folder, argument), text);
      case 'install':
        for (const [, name, version] of text.matchAll(/ (\S+)@([\d.]+)/g)) {
          assert.equal(JSON.parse(readFileSync(here(`node_modules/${name}/package.json`))).version, version, name);
        }
        return assert.match(text, /^npm install( \S+@[\d.]+)+\n$/);
      case 'run': {
        this.#run.push(text);
        const program = this.#spawn(text);
        const code = await within(program.ended, `the end of: ${text}`, { server: program });
        assert.equal(code !== 0, fails, `it ended with ${code}${program.report()}`);
        this.#last = { ...program, whole: fails ? program.all : program.out };
        return undefined;
      }
      case 'start':
        this.#run.push(text);
        await this.#end(argument, 'SIGTERM');
        this.#last = this.#spawn(`exec env ${text}`); // in the place of the shell, so that a signal reaches it
        return void this.#programs.set(argument, this.#last);
      case 'expect': {
        const program = argument ? this.#programs.get(argument) : this.#last;
        assert.ok(program, `nothing has run that is called ${argument}`);
        const expected = lines(text);
        if (program.whole) {
          const matches = expected.length === program.whole.items.length && expected.every((line, i) => pattern(line).test(program.whole.items[i]));
          if (!matches) assert.deepEqual(program.whole.items, expected);
          return undefined;
        }
        const said = program.all;
        await said.until((items) => contains(items.slice(program.seen), expected), `${argument ?? 'it'} to write ${JSON.stringify(expected)}`);
        program.seen = said.items.length;
        return undefined;
      }
      case 'page':
        this.#run.push(argument);
        return this.#page(this.place(argument), lines(text));
      case 'kill':
        assert.ok(this.#programs.has(argument), `nothing runs that is called ${argument}`);
        return this.#end(argument, 'SIGKILL');
      case 'close':
        return this.#pages.get(this.place(argument)).close();
      default:
        throw new Error('nobody runs this block');
    }
  }

  #spawn(text) {
    const child = spawn('bash', ['-ec', text], { cwd: this.folder, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    process.on('exit', () => child.kill('SIGKILL'));
    const program = { child, out: new Record(), all: new Record(), seen: 0, died: new Promise(() => {}) };
    program.report = () => `\n--- it wrote ---\n${program.all.items.slice(-30).join('\n')}\n---`;
    for (const stream of [child.stdout, child.stderr]) {
      let rest = '';
      stream.setEncoding('utf8').on('data', (chunk) => {
        const parts = (rest + chunk).split('\n');
        rest = parts.pop();
        for (const line of parts) {
          if (/^\[(OTel|iii)\] /.test(line)) continue; // what the SDK says of itself
          if (stream === child.stdout) program.out.push(line);
          program.all.push(line);
        }
      });
    }
    program.ended = once(child, 'close').then(([code]) => code);
    return program;
  }

  async #end(name, signal) {
    const program = this.#programs.get(name);
    if (!program) return;
    program.child.kill(signal);
    await within(program.ended, `${name} to end`, { server: program });
  }

  async #page(url, expected) {
    if (!this.#pages.has(url)) {
      const page = await browser.newPage();
      this.#pages.set(url, page);
      page.errors = [];
      page.on('pageerror', (error) => page.errors.push(error.message));
      await page.goto(url);
    }
    const page = this.#pages.get(url);
    const shown = async () => lines(await page.evaluate(() => document.body.innerText)).map((line) => line.trim()).filter(Boolean);
    try {
      await page.waitForFunction((wanted) => {
        const seen = document.body.innerText.split('\n').map((line) => line.trim()).filter(Boolean);
        return seen.length === wanted.length && wanted.every((source, i) => new RegExp(source).test(seen[i]));
      }, expected.map((line) => pattern(line.trim()).source), { timeout: 15_000 });
    } catch (error) {
      throw new Error(`${error.message}\nexpected ${JSON.stringify(expected)}\nit shows ${JSON.stringify(await shown())}`);
    }
    assert.deepEqual(page.errors, []);
  }

  /** Files that no command, no address and no other file names. */
  unused() {
    const texts = (name) => [...this.#run, ...[...this.#files].filter(([other]) => other !== name).map(([, text]) => text)];
    return [...this.#files.keys()].filter((name) => !texts(name).some((text) => text.includes(name)));
  }

  async close() {
    for (const page of this.#pages.values()) await page.close();
    for (const name of [...this.#programs.keys()].reverse()) await this.#end(name, 'SIGKILL');
    await rm(this.folder, { recursive: true, force: true });
  }
}

const pages = [...readdirSync(here('../../docs/guides')).filter((name) => name.endsWith('.md')).sort().map((name) => `guides/${name}`), 'migration.md'];

for (const name of pages) {
  const text = readFileSync(here(`../../docs/${name}`), 'utf8');
  const all = steps(text);
  test(`docs/${name} works as printed`, { skip: (all.some(({ verb }) => verb === 'page') && noBrowser) || (text.includes('redis-server') && withoutRedis) }, async (t) => {
    const guide = await Guide.open();
    t.after(() => guide.close());
    assert.equal(all.filter(({ body }) => body !== undefined).length, text.match(/^ *(```|~~~)/gm).length / 2, 'blocks that are not written as these tests read them');
    assert.ok(all.some(({ verb }) => verb === 'expect'), 'a page that expects nothing proves nothing');
    for (const step of all) {
      try {
        await guide.step(step);
      } catch (error) {
        error.message = `docs/${name}, ${step.where}: ${error.message}`;
        throw error;
      }
    }
    assert.deepEqual(guide.unused(), [], 'files that no block uses');
  });
}

// --- What docs/migration.md says in bold, each tried ----------------------------------------------------------------

let server;
before(async () => { server = await startServer(); });
after(() => server?.stop());

/** A server of its own for one claim. */
async function serverWith(t, stream = {}, manager = {}) {
  const own = await startServer({ stream, manager });
  t.after(() => own.stop());
  return own;
}

/** A place that no other claim uses, and a worker that writes there. */
async function room(on = server) {
  const at = { stream_name: unique('s'), group_id: 'g' };
  const worker = await on.peer();
  return {
    ...at, at, worker,
    set: (item_id, data, more) => worker.result('stream::set', { ...at, item_id, data, ...more }),
    get: (item_id) => worker.result('stream::get', { ...at, item_id }),
    update: (item_id, ops, more) => worker.result('stream::update', { ...at, item_id, ops, ...more }),
    list: () => worker.result('stream::list', at),
    watch: async () => { const viewer = await on.subscriber(); await viewer.join(at.stream_name, at.group_id); return viewer; },
    bind: (type, function_id, config = { stream_name: at.stream_name }, id = randomUUID()) => {
      worker.send({ type: 'registertrigger', id, trigger_type: type, function_id, config });
      return worker.settled();
    },
  };
}

const code = async (promise) => (await rejection(promise)).code;
const status = async (promise) => (await rejection(promise)).status;
/** A function that never answers; what it was called with ends up in the record. */
const hanging = (on, worker, id) => { const calls = new Record(on); worker.serve(id, (data, frame) => { calls.push(frame); }); return calls; };
/** A WebSocket of a peer that is there and says nothing, not even pongs. */
const silent = (on, base, path = '/') => on.socket(base, path, { autoPong: false });

const CLAIMS = {
  'Published clients connect as they are': async () => {
    const { registerWorker } = await import('iii-sdk-0-11');
    const old = registerWorker(server.workers, { otel: { enabled: false }, enableMetricsReporting: false });
    const client = await server.client();
    try {
      const seen = new Record(server);
      client.subscribeGroup('published', 'g').addChangeListener((items) => seen.push(items.map(({ id }) => id).join()));
      await seen.until((items) => items.includes(''), 'the sync');
      for (const [worker, id] of [[old, 'a'], [server.sdk(), 'b']]) {
        await worker.trigger({ function_id: 'stream::set', payload: { stream_name: 'published', group_id: 'g', item_id: id, data: { id } } });
      }
      await seen.until((items) => items.includes('a,b'), 'both items');
    } finally {
      client.createSocket = () => client.ws;
      client.close();
      await old.shutdown();
    }
  },
  'The eight `stream::` functions take and give what they did': async () => {
    const { at, stream_name, worker } = await room();
    const item = { ...at, item_id: 'i' };
    const call = (verb, input) => worker.result(`stream::${verb}`, input);
    assert.deepEqual(await call('set', { ...item, data: 1 }), { old_value: null, new_value: 1 });
    assert.equal(await call('get', item), 1);
    assert.deepEqual(await call('update', { ...item, ops: [{ type: 'increment', path: '', by: 2 }] }), { old_value: 1, new_value: 3 });
    assert.deepEqual(await call('list', at), [3]);
    assert.deepEqual(await call('list_groups', { stream_name }), ['g']);
    assert.deepEqual((await call('list_all', {})).stream.find(({ id }) => id === stream_name), { id: stream_name, groups: ['g'] });
    assert.equal(await call('send', { ...at, type: 't', data: null }), null);
    assert.deepEqual(await call('delete', item), { old_value: 3 });
  },
  'Your configuration file is read': 'the blocks of the page',
  'A refused join leaves the connection open': async () => {
    const { stream_name, worker, bind } = await room();
    worker.serve(stream_name, ({ group_id }) => (group_id === 'no' ? { result: { unauthorized: true } } : { error: { code: 'x', message: 'broken' } }));
    await bind('stream:join', stream_name);
    const viewer = await server.subscriber();
    assert.equal((await viewer.join(stream_name, 'no')).event.type, 'unauthorized');
    assert.equal((await viewer.join(stream_name, 'broken')).event.type, 'sync');
  },
  'A reconnect means a full `sync`.': async () => {
    const { stream_name, set, worker, at, watch } = await room();
    const first = await watch();
    await first.close();
    await set('i', 1);
    await worker.result('stream::send', { ...at, type: 'missed', data: 0 });
    const again = await server.subscriber(`/stream/${stream_name}/g`);
    assert.deepEqual((await again.next()).event, { type: 'sync', data: [1] });
    await set('i', 2);
    assert.equal((await again.next()).event.type, 'update');
  },
  'The last event of an item is what is stored': async () => {
    const { at, get, watch } = await room();
    const viewer = await watch();
    const writers = await Promise.all([1, 2, 3, 4].map(() => server.peer()));
    await Promise.all(writers.flatMap((writer, w) => Array.from({ length: 50 }, (_, n) => writer.result('stream::set', { ...at, item_id: 'i', data: [w, n] }))));
    let last;
    for (let n = 0; n < 200; n += 1) last = await viewer.next();
    assert.deepEqual(last.event.data, await get('i'));
  },
  'No two events of an item share a timestamp': async () => {
    const { at, worker, watch } = await room();
    const viewer = await watch();
    for (let n = 0; n < 200; n += 1) worker.void('stream::set', { ...at, item_id: 'i', data: n });
    let last = 0;
    for (let n = 0; n < 200; n += 1) {
      const { timestamp } = await viewer.next();
      assert.ok(timestamp > last);
      last = timestamp;
    }
  },
  'A `sync` and the events after it fit': async () => {
    const { at, worker, get } = await room();
    for (let n = 1; n <= 500; n += 1) worker.void('stream::update', { ...at, item_id: 'i', ops: [{ type: 'increment', path: '', by: 1 }] });
    const viewer = await server.subscriber();
    const { event } = await viewer.join(at.stream_name, 'g');
    let n = event.data[0] ?? 0;
    while (n < 500) {
      n += 1;
      assert.equal((await viewer.next()).event.data, n);
    }
    assert.equal(await get('i'), 500);
  },
  'One frame per event and connection': async () => {
    const { at, stream_name, worker, watch } = await room();
    const viewer = await watch();
    await viewer.join(stream_name, 'g', 'i');
    for (const type of ['one', 'two']) await worker.result('stream::send', { ...at, id: 'i', type, data: 0 });
    assert.deepEqual([(await viewer.next()).event.event.type, (await viewer.next()).event.event.type], ['one', 'two']);
  },
  'A viewer that stops reading gets a fresh `sync`': async (t) => {
    const own = await serverWith(t, { queue_bytes_max: 100_000 });
    const { at, worker, watch } = await room(own);
    const [stuck, healthy] = [await watch(), await watch()];
    stuck.ws._socket.pause();
    const data = 'x'.repeat(60_000);
    for (let n = 0; n < 300; n += 1) {
      await worker.result('stream::set', { ...at, item_id: 'i', data, returning: 'none' });
      assert.equal((await healthy.next()).seq, n + 1);
    }
    stuck.ws._socket.resume();
    const sync = await stuck.take((frame) => frame.event.type === 'sync' && 0 < frame.seq, 'the fresh sync');
    assert.deepEqual([sync.seq, sync.event.data], [300, [data]]);
  },
  'Triggers are called in the order of the changes': async () => {
    const { at, stream_name, worker, bind } = await room();
    const stuck = hanging(server, worker, `${stream_name}::stuck`);
    const seen = new Record(server);
    worker.serve(stream_name, ({ event }) => { seen.push(event.data); return { result: {} }; });
    await bind('stream', `${stream_name}::stuck`);
    await bind('stream', stream_name);
    const numbers = Array.from({ length: 300 }, (_, n) => n);
    for (const n of numbers) worker.void('stream::set', { ...at, item_id: 'i', data: n });
    assert.deepEqual(await seen.count(300), numbers);
    assert.ok(stuck.items.length > 0);
  },
  'A token as sub-protocol works': async () => {
    const viewer = await server.subscriber('/', { protocols: ['Authorization', 'a.b-c'] });
    assert.equal(viewer.ws.protocol, 'Authorization');
  },
  'The documented address `/stream/{stream}/{group}` subscribes': async () => {
    const { stream_name, set } = await room();
    await set('i', 1);
    for (const slash of ['', '/']) assert.deepEqual((await (await server.subscriber(`/stream/${stream_name}/g${slash}`)).next()).event.data, [1]);
  },
  'Who vanishes is noticed': async (t) => {
    const bounds = { ping_interval_ms: 100, idle_timeout_ms: 400 };
    const own = await serverWith(t, bounds, bounds);
    const { stream_name, worker, bind } = await room(own);
    const leaves = new Record(own);
    worker.serve(stream_name, (data) => { leaves.push(data); return { result: {} }; });
    await bind('stream:leave', stream_name);
    const [viewer, other] = [await silent(own, own.subscribers, `/stream/${stream_name}/g`), await silent(own, own.workers)];
    await leaves.count(1);
    await within(Promise.all([viewer.closed, other.closed]), 'both silent peers to be dropped', { server: own });
  },
  'A slow join guard holds up only its own join': async () => {
    const { stream_name, worker, bind } = await room();
    const asked = hanging(server, worker, stream_name);
    await bind('stream:join', stream_name);
    const viewer = await server.subscriber(`/stream/${stream_name}/g`);
    await asked.count(1);
    assert.equal(await viewer.ping(), 'still there?');
    assert.equal((await viewer.join(unique('s'), 'g')).event.type, 'sync');
  },
  'A leave is told only of a subscription that there was': async () => {
    const { stream_name, worker, bind } = await room();
    const leaves = new Record(server);
    worker.serve(stream_name, (data) => { leaves.push(data.group_id); return { result: {} }; });
    await bind('stream:leave', stream_name);
    const viewer = await server.subscriber();
    viewer.send({ type: 'leave', data: { subscriptionId: 'made-up', streamName: stream_name, groupId: 'forged' } });
    await viewer.join(stream_name, 'real');
    await viewer.close();
    assert.deepEqual(await leaves.count(1), ['real']);
  },
  '`stream_name` and `condition_function_id` filter join and leave triggers': async () => {
    const { stream_name, worker, bind } = await room();
    worker.serve(`${stream_name}::deny`, () => ({ result: { unauthorized: true } }));
    worker.serve(`${stream_name}::never`, () => ({ result: false }));
    await bind('stream:join', `${stream_name}::deny`, { stream_name: `${stream_name}-other` });
    await bind('stream:join', `${stream_name}::deny`, { stream_name, condition_function_id: `${stream_name}::never` });
    const viewer = await server.subscriber();
    assert.equal((await viewer.join(stream_name, 'g')).event.type, 'sync');
    assert.equal((await viewer.join(`${stream_name}-other`, 'g')).event.type, 'unauthorized');
  },
  'A close is answered with its code': async () => {
    assert.equal((await (await server.subscriber()).close(1000)).code, 1000);
    const own = await startServer();
    const { stream_name, worker, bind } = await room(own);
    const seen = [];
    worker.serve(stream_name, () => { seen.push('leave'); return { result: {} }; });
    worker.ws.on('close', (closed) => seen.push(closed));
    await bind('stream:leave', stream_name);
    const viewer = await own.subscriber();
    await viewer.join(stream_name, 'g');
    await own.terminate();
    assert.equal((await viewer.closed).code, 1001);
    await worker.closed;
    assert.deepEqual(seen, ['leave', 1012]);
  },
  'Calls of one worker take effect in the order they were sent': async () => {
    const { at, worker, get } = await room();
    for (let n = 0; n < 200; n += 1) {
      worker.void('stream::set', { ...at, item_id: 'i', data: n });
      assert.equal(await get('i'), n);
    }
  },
  'Functions are there as soon as they are registered': async () => {
    const [owner, caller] = [await server.peer(), await server.peer()];
    const id = unique('f');
    owner.serve(id, () => ({ result: 1 }));
    await owner.ping(); // read in order: the registration has been taken; nothing has introduced this worker
    assert.equal(await caller.result(id, {}), 1);
  },
  'A call that cannot be understood is answered': async () => {
    const worker = await server.peer();
    assert.equal((await worker.callText('stream::set', '{"n":NaN}')).error.code, 'deserialization_error');
    assert.match((await worker.call('stream::set')).error.message, /stream::set/);
    assert.equal((await worker.call('stream::list_all', {}, { action: { type: 'later' } })).error.code, 'deserialization_error');
  },
  'A trigger that cannot be bound is answered too': async () => {
    const { worker, bind } = await room();
    await bind('stream', 'f', {});
    assert.equal((await worker.take((frame) => frame.type === 'triggerregistrationresult', 'the refusal')).error.code, 'trigger_registration_failed');
    assert.ok(await worker.result('stream::list_all', {}));
  },
  'A trigger id that is bound twice fires once.': async () => {
    const { stream_name, worker, bind, set } = await room();
    const seen = new Record(server);
    worker.serve(stream_name, ({ event }) => { seen.push(event.data); return { result: {} }; });
    for (let n = 0; n < 2; n += 1) await bind('stream', stream_name, { stream_name }, stream_name);
    for (const n of [1, 2]) await set('i', n);
    assert.deepEqual(await seen.count(2), [1, 2]);
  },
  'Two workers may have the same name': async () => {
    const workers = [await server.peer(), await server.peer()];
    for (const worker of workers) assert.deepEqual(await worker.result('engine::workers::register', { name: 'twin' }), { success: true });
    for (const worker of workers) await worker.ping();
  },
  'A worker that is gone without a word gives up its functions': async () => {
    const id = unique('f');
    const gone = await silent(server, server.workers);
    gone.send({ type: 'registerfunction', id });
    await gone.take((frame) => frame.type === 'workerregistered', 'workerregistered');
    await gone.ping();
    const heir = await server.peer();
    heir.serve(id, () => ({ result: 'mine' }));
    const caller = await server.peer();
    // Until the old owner is found dead a call may still go to it, and is told so when it is.
    let answer;
    do answer = await caller.call(id, {}); while (['invocation_stopped', 'function_not_found'].includes(answer.error?.code));
    assert.equal(answer.result, 'mine');
  },
  'A call that no worker answers ends': async (t) => {
    const own = await serverWith(t, {}, { invocation_timeout_ms: 300 });
    const worker = await own.peer();
    hanging(own, worker, 'hangs');
    await worker.settled();
    assert.equal(await code((await own.peer()).result('hangs', {})), 'invocation_timeout');
  },
  'Messages of 64 MiB may come in one frame': async (t) => {
    const { set, worker } = await room();
    await set('big', 'x'.repeat(17 * 1024 * 1024), { returning: 'none' });
    assert.ok(worker.ws.readyState === WebSocket.OPEN);
    const own = await serverWith(t, {}, { message_bytes_max: 1000 });
    const small = await own.peer();
    small.send('x'.repeat(1001));
    assert.equal((await small.closed).code, 1009);
  },
  'A client that comes back can go on where it was': async () => {
    const { stream_name, set, worker, at } = await room();
    const path = `/stream/${stream_name}/g?v=2`;
    const first = await server.subscriber(path);
    const { epoch, seq } = await first.next();
    await first.close();
    await set('i', 1);
    await worker.result('stream::send', { ...at, type: 'missed', data: 0 });
    const again = await server.subscriber(`${path}&since=${epoch}:${seq}`);
    const frames = [await again.next(), await again.next(), await again.next()];
    assert.deepEqual(frames.map(({ event }) => event.mode ?? event.type), ['resume', 'create', 'event']);
  },
  'Large groups come in pages, and updates as operations': async () => {
    const { stream_name, set, update } = await room();
    for (const id of ['a', 'b']) await set(id, 'x'.repeat(2 ** 20));
    const viewer = await server.subscriber(`/stream/${stream_name}/g?v=2&deltas=1`);
    assert.deepEqual([(await viewer.next()).event.more, (await viewer.next()).event.more], [true, false]);
    const ops = [{ type: 'append', path: '', value: 'y' }];
    await update('a', ops, { returning: 'none' });
    assert.deepEqual((await viewer.next()).event, { type: 'update', base: 1, ops });
  },
  'A group can be read over plain HTTP': async () => {
    const { stream_name, set } = await room();
    await set('i', 1);
    const url = `${server.subscribers.replace('ws', 'http')}/stream/${stream_name}/g`;
    assert.deepEqual((await (await fetch(url)).json()).items, [{ id: 'i', seq: 1, data: 1 }]);
    const { headers, body } = await fetch(url, { headers: { accept: 'text/event-stream' } });
    assert.equal(headers.get('content-type'), 'text/event-stream');
    await body.cancel();
  },
  'Health and metrics': async () => {
    assert.equal((await server.page('/health')).status, 200);
    assert.equal(typeof (await server.metrics()).iii_stream_uptime_seconds, 'number');
  },
  'Colons in names mean nothing': async () => {
    const worker = await server.peer();
    const place = unique('colon');
    await worker.result('stream::set', { stream_name: `${place}:b`, group_id: 'c', item_id: 'i', data: 1 });
    assert.deepEqual(await worker.result('stream::list', { stream_name: place, group_id: 'b:c' }), []);
  },
  'An emptied group is no longer listed.': async () => {
    const { at, stream_name, set, worker } = await room();
    await set('i', 1);
    await worker.result('stream::delete', { ...at, item_id: 'i' });
    assert.deepEqual(await worker.result('stream::list_groups', { stream_name }), []);
  },
  'Lists are in the order of creation': 'the order of creation',
  'Members of an object keep their order': 'as they were set',
  '1 to 1,024 bytes': async () => {
    const { worker, at } = await room();
    const set = (item_id) => worker.result('stream::set', { ...at, item_id, data: 1 });
    for (const name of ['', 'é'.repeat(513)]) assert.equal(await code(set(name)), 'invalid_name');
    for (const name of ['é'.repeat(512), '..', 'a/b:c']) await set(name);
  },
  'lets nobody in: 401 when it throws, else 503': async (t) => {
    const own = await serverWith(t, { auth_function: 'auth', auth_timeout_ms: 300 });
    assert.equal(await status(own.subscriber()), 503);
    const worker = await own.peer();
    const answers = { throws: { error: { code: 'x', message: 'no' } }, hangs: undefined, text: { result: 'come in' } };
    worker.serve('auth', ({ query_params }) => answers[query_params.how[0]]);
    await worker.settled();
    for (const [how, expected] of [['throws', 401], ['hangs', 503], ['text', 503]]) assert.equal(await status(own.subscriber(`/?how=${how}`)), expected, how);
  },
  'say what the client may read': async (t) => {
    const own = await serverWith(t, { auth_function: 'auth' });
    const worker = await own.peer();
    worker.serve('auth', () => ({ result: { grants: [{ stream: 's', group: '*', can: ['read'] }] } }));
    await worker.settled();
    const viewer = await own.subscriber();
    const answers = [await viewer.join('s', 'g'), await viewer.join('other', 'g')];
    assert.deepEqual(answers.map(({ event }) => event.type), ['sync', 'unauthorized']);
  },
  'the address only': 'decoded',
  decoded: async (t) => {
    const own = await serverWith(t, { auth_function: 'auth' });
    const worker = await own.peer();
    const asked = new Record(own);
    worker.serve('auth', (input) => { asked.push(input); return { result: {} }; });
    await worker.settled();
    await own.subscriber('/?q=a%20b+c');
    const [{ addr, query_params }] = await asked.count(1);
    assert.deepEqual([addr, query_params], ['127.0.0.1', { q: ['a b c'] }]);
  },
  'the whole value': async () => {
    const { update, get } = await room();
    await update('i', [{ type: 'set', value: 1 }, { type: 'increment', by: 1 }, { type: 'decrement', by: 5, path: null }]);
    assert.equal(await get('i'), -3);
    await update('i', [{ type: 'remove' }]);
    assert.equal(await get('i'), null);
  },
  'the order of creation': async () => {
    const { set, list, worker, at } = await room();
    for (const id of ['z', 'a', 'm', 'b']) await set(id, id);
    await set('z', 'Z');
    await worker.result('stream::delete', { ...at, item_id: 'a' });
    await set('a', 'a');
    assert.deepEqual(await list(), ['Z', 'm', 'b', 'a']);
  },
  'as they were set': async () => {
    const { at, worker } = await room();
    const { text } = await worker.callText('stream::set', JSON.stringify({ ...at, item_id: 'i', data: 0 }).replace('0}', '{"z":18446744073709551615,"a":-9223372036854775808}}'));
    assert.match(text, /"new_value":\{"z":18446744073709551615,"a":-9223372036854775808\}/);
  },
  'fire only with `include_events: true`': async () => {
    const { at, stream_name, worker, bind } = await room();
    const seen = new Record(server);
    for (const name of ['plain', 'all']) worker.serve(`${stream_name}::${name}`, ({ event }) => { seen.push(`${name} ${event.type}`); return { result: {} }; });
    await bind('stream', `${stream_name}::plain`);
    await bind('stream', `${stream_name}::all`, { stream_name, include_events: true });
    await worker.result('stream::send', { ...at, type: 't', data: 0 });
    await worker.result('stream::set', { ...at, item_id: 'i', data: 0 });
    assert.deepEqual((await seen.count(3)).sort(), ['all create', 'all event', 'plain create']);
  },
  'an error with file, line, column and the nearest key': 'the blocks of the page',
  'an update always stores and always sends an event': async () => {
    const { update, watch, get } = await room();
    const viewer = await watch();
    await update('i', []);
    assert.deepEqual((await viewer.next()).event, { type: 'create', data: {} });
    await update('i', [{ type: 'increment', path: '__proto__', by: 1 }]);
    assert.deepEqual((await viewer.next()).event, { type: 'update', data: {} });
    await update('j', [{ type: 'increment', path: '__proto__', by: 1 }], { atomic: true });
    assert.equal(await get('j'), undefined);
  },
  "Ids of the server's own functions cannot be taken": async () => {
    const worker = await server.peer();
    worker.send({ type: 'registerfunction', id: 'stream::set' });
    assert.equal((await worker.take((frame) => frame.type === 'registrationrejected', 'the refusal')).function_id, 'stream::set');
  },
  'Functions called over HTTP': async () => {
    const worker = await server.peer();
    const id = unique('f');
    worker.send({ type: 'registerfunction', id, invocation: { url: 'http://127.0.0.1:1/' } });
    assert.equal(await code(worker.result(id, {})), 'http_invocation_unsupported');
  },
  '`enqueue`': async () => {
    const worker = await server.peer();
    assert.equal((await worker.call('stream::list_all', {}, { action: { type: 'enqueue', queue: 'q' } })).error.code, 'enqueue_error');
  },
  'Namespaces are labels': async () => {
    const { at, worker } = await room();
    assert.equal((await worker.call('stream::set', { ...at, item_id: 'i', data: 1 }, { namespace: 'shop' })).result.new_value, 1);
  },
  '`save_interval_ms` and `channel_size`': 'the blocks of the page',
  'The worker port listens on 127.0.0.1': 'the blocks of the page',
  'the folder of an engine is refused': async (t) => {
    const guide = await Guide.open();
    t.after(() => guide.close());
    await mkdir(join(guide.folder, 'kv_store_data.db'));
    await writeFile(join(guide.folder, 'kv_store_data.db', 'stream%3A%3Achat.bin'), 'whatever');
    await guide.step({ verb: 'file', argument: 'a.yaml', body: '- name: iii-stream\n  config: { host: 127.0.0.1, port: 3112, admin_port: 0, adapter: { name: kv, config: { store_method: file_based, file_path: kv_store_data.db } } }\n' });
    await guide.step({ verb: 'run', body: 'iii-stream --config a.yaml', fails: true });
    await guide.step({ verb: 'expect', body: 'error: the data directory kv_store_data.db …iii-stream import --from …\n' });
    assert.deepEqual(readdirSync(join(guide.folder, 'kv_store_data.db')), ['stream%3A%3Achat.bin'], 'nothing is left in it');
  },
  '`bridge` is refused at the start': async (t) => {
    const guide = await Guide.open();
    t.after(() => guide.close());
    await guide.step({ verb: 'file', argument: 'a.yaml', body: '- name: iii-stream\n  config: { host: 127.0.0.1, port: 3112, adapter: { name: bridge } }\n' });
    await guide.step({ verb: 'run', body: 'iii-stream --config a.yaml', fails: true });
    await guide.step({ verb: 'expect', body: 'error: the adapter `bridge` is not built in…\n' });
  },
};

const migration = readFileSync(here('../../docs/migration.md'), 'utf8').replace(/^```[\s\S]*?^```$/gm, '');
const bold = [...migration.matchAll(/\*\*([\s\S]+?)\*\*/g)].map(([, text]) => text.replace(/\s+/g, ' ')).filter((text) => text !== 'change the address.');

test('docs/migration.md says nothing in bold that is not tried, and all that is tried', () => {
  assert.deepEqual(bold.sort(), Object.keys(CLAIMS).sort());
  for (const other of Object.values(CLAIMS)) assert.ok(typeof other === 'function' || other in CLAIMS || other === 'the blocks of the page', other);
});
for (const [claim, tried] of Object.entries(CLAIMS)) {
  if (typeof tried === 'function') test(`migration: ${claim}`, tried);
}

// --- What docs/guides/auth.md says in its table of failures, each tried ----------------------------------------------

const CLOSED = {
  'the auth function throws, or answers with an error': [401, 'throws'],
  '`require_context` is on and there is no context': [401, 'nobody'],
  'nobody has registered the function; its worker is gone': [503, 'gone'],
  'it takes longer than 5 s (`auth_timeout_ms`)': [503, 'hangs'],
  'it answers something other than an object': [503, 'text'],
  'it gives grants that cannot be read': [503, 'misspelled'],
  'nothing of what is asked for is granted': ['unauthorized', 'stranger'],
  "the page's `Origin` is not in `allowed_origins`": [403, 'ada', { origin: 'https://elsewhere.example' }],
  '`expires_at` comes': [4001, 'old'],
  'a join guard answers `{"unauthorized": true}`': ['unauthorized', 'ada', {}, { result: { unauthorized: true } }],
  'a join guard throws, hangs or is gone': ['unauthorized', 'ada', {}, { error: { code: 'x', message: 'broken' } }],
  'no guard is bound, for instance since its worker is gone': ['sync', 'ada'],
};

const authGuide = readFileSync(here('../../docs/guides/auth.md'), 'utf8').split('## It fails closed')[1].split('\n## ')[0];
const rows = [...authGuide.matchAll(/^\| (.+?) \| (.+?) \|$/gm)].map(([, what, gets]) => [what, gets]).slice(1);

test('the table of docs/guides/auth.md has a trial for each row', () => {
  assert.deepEqual(rows.map(([what]) => what), Object.keys(CLOSED));
});
for (const [what, gets] of rows) {
  test(`auth: ${what}`, async (t) => {
    const [expected, who, options = {}, guard] = CLOSED[what];
    assert.ok(gets.includes(String(expected)) || (expected === 'sync' && gets.includes('let in')), gets);
    const own = await serverWith(t, {
      auth_function: 'auth', require_context: true, auth_timeout_ms: 300, join_guard: 'deny_on_error', allowed_origins: ['http://127.0.0.1'],
    });
    const worker = await own.peer();
    const ANSWERS = {
      throws: { error: { code: 'x', message: 'no' } }, nobody: { result: { context: null } }, hangs: undefined, text: { result: 'come in' },
      misspelled: { result: { context: 'ada', grants: [{ streams: 's', can: ['read'] }] } },
      stranger: { result: { context: 'ada', grants: [{ stream: 'other', group: '*', can: ['read'] }] } },
      ada: { result: { context: 'ada' } }, old: { result: { context: 'ada', expires_at: 1 } },
    };
    if (who !== 'gone') worker.serve('auth', () => ANSWERS[who]);
    if (guard) {
      worker.serve('guard', () => guard);
      worker.send({ type: 'registertrigger', id: 'g', trigger_type: 'stream:join', function_id: 'guard' });
    }
    await worker.settled();
    const opening = own.subscriber('/', options);
    if (expected >= 400 && expected < 600) {
      assert.equal(await status(opening), expected);
      assert.equal(gets.includes('try again'), expected === 503);
      return;
    }
    const viewer = await opening;
    if (expected === 4001) assert.equal((await viewer.closed).code, 4001);
    else assert.equal((await viewer.join('s', 'g')).event.type, expected);
  });
}
