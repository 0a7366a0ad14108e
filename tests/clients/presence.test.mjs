// Presence: every kind of end of a subscriber fires its leave, ttl_ms heals what a crash left, and the presence example proves both.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { copyFile, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, afterEach, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { WebSocket } from 'ws';
import { deferred, Record, rejection, serverBinary, startServer, within } from './harness.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const EXAMPLE = here('../../examples/presence');

describe('a leave fires when a subscriber', () => {
  const PING_MS = 100;
  const IDLE_MS = 500;
  let server;
  let leaves;
  before(async () => {
    server = await startServer({ stream: { auth_function: 'p::auth', ping_interval_ms: PING_MS, idle_timeout_ms: IDLE_MS, message_bytes_max: 1000 } });
    const worker = await server.peer();
    leaves = new Record(server);
    worker.serve('p::auth', ({ query_params }) => {
      const seconds = Number(query_params.seconds?.[0]);
      return { result: { context: query_params.who[0], ...(seconds && { expires_at: Math.ceil(Date.now() / 1000) + seconds }) } };
    });
    worker.serve('p::left', (data) => { leaves.push(data); return { result: {} }; });
    worker.send({ type: 'registertrigger', id: 'leaves', trigger_type: 'stream:leave', function_id: 'p::left' });
    await worker.settled();
  });
  after(() => server?.stop());

  const ENDS = {
    'closes with a handshake': (subscriber) => subscriber.close(1000),
    'ends its TCP connection without a word': (subscriber) => subscriber.ws.terminate(),
    'resets its TCP connection': (subscriber) => subscriber.ws._socket.resetAndDestroy(),
    'falls silent': [() => {}, { autoPong: false }],
    'breaks the protocol': (subscriber) => subscriber.ws._socket.write(Buffer.from('838000000000', 'hex')), // an opcode that there is not
    'says too much': (subscriber) => subscriber.send('x'.repeat(1001)),
    'has a token that expires': [() => {}, { query: '&seconds=1' }],
  };
  for (const [how, value] of Object.entries(ENDS)) {
    const [end, { query = '', ...options } = {}] = [value].flat();
    test(how, async () => {
      const subscriber = await server.subscriber(`/stream/presence/room-1?who=${encodeURIComponent(how)}${query}`, options);
      await subscriber.sync('presence', 'room-1');
      await end(subscriber);
      const mine = ({ context }) => context === how;
      const all = await leaves.until((items) => items.some(mine), `the leave of who ${how}`);
      const { subscription_id, ...leave } = all.find(mine);
      assert.match(subscription_id, /^[0-9a-f-]{36}$/);
      assert.deepEqual(leave, { stream_name: 'presence', group_id: 'room-1', id: null, context: how });
      // A second leave of it would be before that of somebody who leaves later.
      const marker = await server.subscriber('/stream/presence/room-1?who=marker');
      await marker.sync('presence', 'room-1');
      const markers = leaves.items.filter(({ context }) => context === 'marker').length;
      await marker.close();
      await leaves.until((items) => items.filter(({ context }) => context === 'marker').length > markers, 'the leave of the marker');
      assert.equal(leaves.items.filter(mine).length, 1);
    });
  }

  test('has said nothing but answers pings: no leave', async () => {
    const quiet = await server.subscriber('/stream/presence/room-1?who=quiet');
    await quiet.sync('presence', 'room-1');
    const silent = await server.subscriber('/stream/presence/room-1?who=silent', { autoPong: false });
    await silent.sync('presence', 'room-1');
    // The silent one came later and is dropped: the quiet one has been given more than that time.
    await leaves.until((items) => items.some(({ context }) => context === 'silent'), 'the leave of the silent one');
    assert.ok(!leaves.items.some(({ context }) => context === 'quiet'));
    assert.equal(await quiet.ping(), 'still there?');
  });
});

test('a server that stops tells workers of all leaves before it closes them', async () => {
  const server = await startServer();
  const worker = await server.peer();
  const seen = [];
  worker.serve('p::left', ({ subscription_id }) => { seen.push(subscription_id); return { result: {} }; });
  worker.ws.on('close', (code) => seen.push(code));
  worker.send({ type: 'registertrigger', id: 'leaves', trigger_type: 'stream:leave', function_id: 'p::left' });
  await worker.settled();
  const ids = Array.from({ length: 20 }, (_, i) => `s${i}`);
  const subscribers = await Promise.all(ids.map(async (id) => {
    const subscriber = await server.subscriber();
    await subscriber.join('presence', 'room-1', undefined, id);
    return subscriber;
  }));
  await server.terminate();
  const closed = await within(Promise.all([...subscribers, worker].map((socket) => socket.closed)), 'all connections to be closed');
  assert.deepEqual(closed.map(({ code }) => code), [...Array(ids.length).fill(1001), 1012]);
  assert.deepEqual(seen.slice(0, -1).sort(), [...ids].sort(), 'leaves that the worker was told of before its close');
  assert.equal(seen.at(-1), 1012);
});

test('a guard that let in somebody who had gone meanwhile is told of the leave', async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const worker = await server.peer();
  const joins = new Record(server);
  const leaves = new Record(server);
  worker.serve('p::join', (data, frame) => {
    if (data.subscription_id !== 'hasty') return { result: {} };
    joins.push(frame);
  });
  worker.serve('p::left', (data) => { leaves.push(data.subscription_id); return { result: {} }; });
  for (const [id, trigger_type, function_id] of [['t1', 'stream:join', 'p::join'], ['t2', 'stream:leave', 'p::left']]) {
    worker.send({ type: 'registertrigger', id, trigger_type, function_id });
  }
  await worker.settled();
  const subscriber = await server.subscriber();
  subscriber.send({ type: 'join', data: { subscriptionId: 'hasty', streamName: 'presence', groupId: 'room-1' } });
  const [asked] = await joins.count(1);
  await subscriber.close();
  worker.send({ type: 'invocationresult', invocation_id: asked.invocation_id, function_id: asked.function_id, result: {} });
  const marker = await server.subscriber();
  await marker.join('presence', 'room-1', undefined, 'marker');
  await marker.close();
  // Without it whoever counted "hasty" in at the join counts it for ever.
  await leaves.until((items) => items.includes('marker'), 'the leave of the marker');
  assert.deepEqual([...leaves.items].sort(), ['hasty', 'marker']);
});

test('an item that is renewed stays, one that is not goes with a delete', async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const worker = await server.peer();
  const subscriber = await server.subscriber('/stream/presence/room-1');
  await subscriber.sync('presence', 'room-1');
  const set = (item_id) => worker.result('stream::set', { stream_name: 'presence', group_id: 'room-1', item_id, data: { id: item_id }, ttl_ms: 600 });
  await set('bob');
  const renewing = setInterval(() => set('ada').catch(() => {}), 100);
  t.after(() => clearInterval(renewing));
  const gone = await subscriber.event('delete');
  assert.deepEqual([gone.id, gone.event.data], ['bob', { id: 'bob' }]);
  assert.deepEqual(await worker.result('stream::list', { stream_name: 'presence', group_id: 'room-1' }), [{ id: 'ada' }]);
  clearInterval(renewing);
  assert.equal((await subscriber.event('delete')).id, 'ada');
});

/** Starts a program and waits for a line of its output; its life is the test's own business. */
async function start(what, command, args, { line, ...options }) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  process.on('exit', () => child.kill('SIGKILL'));
  const found = deferred();
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      said += text;
      const match = line.exec(said);
      if (match) found.resolve(match);
    });
  }
  child.on('exit', (code, signal) => found.reject(new Error(`${what} ended (${signal ?? code}):\n${said}`)));
  child.report = () => `\n--- ${what} said ---\n${said.slice(-3000)}\n---`;
  child.died = new Promise(() => {});
  child.kill9 = async () => {
    const gone = once(child, 'exit');
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    else return;
    await within(gone, `${what} to end`);
  };
  return Object.assign(child, { match: await within(found.promise, `${what} to say ${line}`, { server: child }) });
}

describe('the presence example', () => {
  const TTL_MS = 1500;
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  const noBrowser = existsSync(executablePath) ? false : `no Chromium at ${executablePath}; set $CHROMIUM`;
  let folder;
  let server;
  let worker;
  let browser;
  const pages = [];

  /** The server with the example's own configuration; after the first start on the ports it had. */
  async function startExampleServer({ workers = 0, subscribers = 0 } = {}) {
    const env = { ...process.env, STREAM_PORT: subscribers, WORKER_PORT: workers, PING_MS: 200, IDLE_MS: 1000, RUST_LOG: 'info' };
    server = await start('the server', serverBinary(), ['--config', join(EXAMPLE, 'iii-stream.yaml')],
      { cwd: folder, env, line: /workers +(\S+:(\d+))[\s\S]*subscribers +(\S+:(\d+))/ });
    const [, workersUrl, workersPort, subscribersUrl, subscribersPort] = server.match;
    Object.assign(server, { workersUrl, subscribersUrl, ports: { workers: workersPort, subscribers: subscribersPort } });
  }

  /** The example's worker, in a folder of its own with this folder's modules (both pin the same iii-sdk). */
  async function startWorker() {
    const env = { ...process.env, III_URL: server.workersUrl, STREAM_URL: server.subscribersUrl, PORT: '0', TTL_MS: String(TTL_MS) };
    worker = await start('the worker', process.execPath, ['worker.mjs'], { cwd: folder, env, line: /^presence +(http:\S+)/m });
    worker.url = worker.match[1];
  }

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'iii-stream-presence-'));
    for (const file of ['worker.mjs', 'index.html', 'package.json']) await copyFile(join(EXAMPLE, file), join(folder, file));
    await symlink(here('node_modules'), join(folder, 'node_modules'));
    await startExampleServer();
    await startWorker();
    if (!noBrowser) browser = await chromium.launch({ executablePath, args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run'] });
  });
  afterEach(() => pages.splice(0).forEach((page) => page.close()));
  after(async () => {
    await browser?.close();
    await worker?.kill9();
    await server?.kill9();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  /** A page as the example's script is one: keeps the group, connects again until it is closed; counts what it saw. */
  class Page {
    people = new Map();
    seen = new Record();
    #open = true;

    constructor(name) {
      this.name = name;
      pages.push(this);
      this.#connect();
    }

    #connect() {
      this.live = false;
      this.ws = new WebSocket(`${server.subscribersUrl}/stream/presence/room-1?name=${encodeURIComponent(this.name)}`);
      this.ws.on('error', () => {}); // the close says it all
      this.ws.on('close', () => { this.live = false; if (this.#open) setTimeout(() => this.#connect(), 100); });
      this.ws.on('message', (text) => {
        const { id, event } = JSON.parse(text);
        if (event.type === 'sync') this.people = new Map(event.data.map((person) => [person.id, person]));
        else if (event.type === 'delete') this.people.delete(id);
        else this.people.set(id, event.data);
        this.live = true;
        if (event.type === 'delete' && id === this.name) this.ws.close();
        this.seen.push(`${event.type} ${id}`);
      });
    }

    /** Waits until this page shows exactly these people, as `name` or `name×tabs`. */
    async shows(...expected) {
      const now = () => [...this.people.values()].map(({ id, tabs }) => (tabs > 1 ? `${id}×${tabs}` : id)).sort();
      try {
        await this.seen.until(() => this.live && String(now()) === String(expected), `${this.name}'s page to show ${expected}`);
      } catch (error) {
        error.message += `\nit shows ${now()}, ${this.live ? 'live' : 'reconnecting'}${server.report()}${worker.report()}`;
        throw error;
      }
    }

    /** Waits for so many renewals of a person from now on. */
    renewals(name, count) {
      const from = this.seen.items.length;
      return this.seen.until((items) => items.slice(from).filter((item) => item === `update ${name}`).length >= count, `${count} renewals of ${name}`);
    }

    close() {
      this.#open = false;
      this.ws.terminate();
    }
  }

  test('people come with their first tab and go with their last', async () => {
    const ada = new Page('Ada');
    await ada.shows('Ada');
    assert.equal(ada.seen.items.find((item) => item.startsWith('sync')), 'sync null');
    const bobs = [new Page('Bob'), new Page('Bob')];
    for (const page of [ada, ...bobs]) await page.shows('Ada', 'Bob×2');
    bobs[0].close();
    await ada.shows('Ada', 'Bob');
    assert.ok(!ada.seen.items.includes('delete Bob'));
    bobs[1].close();
    await ada.shows('Ada');
    assert.equal(ada.seen.items.filter((item) => item === 'delete Bob').length, 1);
  });

  test('nobody comes in without a name', async () => {
    for (const query of ['', '?name=', '?name=%20']) {
      const refused = new WebSocket(`${server.subscribersUrl}/stream/presence/room-1${query}`);
      const { message } = await rejection(within(once(refused, 'open'), 'a refusal'), `the upgrade with ${query || 'no query'}`);
      assert.match(message, /401/);
    }
  });

  test('after kill -9 of the server everybody is back, and only who is still there', async () => {
    const [ada, bob, cleo] = ['Ada', 'Bob', 'Cleo'].map((name) => new Page(name));
    const adaToo = new Page('Ada');
    for (const page of [ada, adaToo, bob, cleo]) await page.shows('Ada×2', 'Bob', 'Cleo');
    const { ports } = server;
    await server.kill9();
    bob.close();
    adaToo.close();
    await startExampleServer(ports);
    for (const page of [ada, cleo]) await page.shows('Ada', 'Cleo');
    // Longer than ttl_ms: the server still had Bob, but nobody renews him; had the worker kept its memory of him, it would have.
    await ada.renewals('Ada', 5);
    await ada.shows('Ada', 'Cleo');
    ada.close();
    await cleo.shows('Cleo');
  });

  test('after kill -9 of the worker people go by ttl_ms, and come back with the next worker', async () => {
    const [ada, bob] = ['Ada', 'Bob'].map((name) => new Page(name));
    await ada.shows('Ada', 'Bob');
    await bob.shows('Ada', 'Bob');
    await worker.kill9();
    for (const page of [ada, bob]) await page.seen.until((items) => items.includes(`delete ${page.name}`), `the delete of ${page.name}`);
    await startWorker();
    for (const page of [ada, bob]) await page.shows('Ada', 'Bob');
  });

  test('three people in a browser, through a crash of both', { skip: noBrowser }, async (t) => {
    const open = async (name) => {
      const page = await browser.newPage({ viewport: { width: 900, height: 400 } });
      page.errors = [];
      page.on('pageerror', (error) => page.errors.push(error.message));
      await page.goto(`${worker.url}/?name=${name}`);
      await page.waitForSelector('#state.live');
      return page;
    };
    const shows = (page, ...expected) => page.waitForFunction((wanted) => document.querySelector('#state.live')
      && String([...document.querySelectorAll('#people li')].map((card) => card.dataset.name).sort()) === wanted, String(expected));
    const [bob, ada, cleo] = [await open('Bob'), await open('Ada'), await open('Cleo')];
    const bobToo = await open('Bob');
    for (const page of [ada, bob, cleo]) await shows(page, 'Ada', 'Bob', 'Cleo');
    await ada.waitForFunction(() => document.querySelector('[data-name=Bob]').textContent.includes('2 tabs'));
    const dan = await open('Dan');
    await shows(ada, 'Ada', 'Bob', 'Cleo', 'Dan');
    await dan.close();
    await shows(ada, 'Ada', 'Bob', 'Cleo');
    await ada.waitForFunction(() => document.getAnimations().length === 0);
    const file = process.env.PRESENCE_SCREENSHOT ?? join(folder, 'presence.png');
    assert.ok((await ada.screenshot({ path: file })).length > 10_000, 'something is drawn');
    t.diagnostic(`screenshot: ${file}`);
    await bob.close();
    await bobToo.close();
    await shows(ada, 'Ada', 'Cleo');
    const { ports } = server;
    await Promise.all([server.kill9(), worker.kill9()]);
    await ada.waitForSelector('#state.reconnecting');
    await startExampleServer(ports);
    await startWorker();
    for (const page of [ada, cleo]) await shows(page, 'Ada', 'Cleo');
    for (const page of [ada, cleo]) {
      assert.deepEqual(page.errors, []);
      await page.close();
    }
  });
});
