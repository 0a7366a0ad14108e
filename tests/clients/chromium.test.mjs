// A real browser: the published client, a token by sub-protocol, and the chat example.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdtemp, rm, symlink } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { deferred, settled, startServer, streamClientSource, within } from './harness.mjs';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const skip = existsSync(executablePath) ? false : `no Chromium at ${executablePath}; set $CHROMIUM`;
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

let server;
let sdk;
let browser;
let site;
const cleanup = [];

before(async () => {
  if (skip) return;
  const client = await streamClientSource();
  // Any page will do; it must come by http, because a module cannot be imported into about:blank.
  site = createServer((request, response) => (request.url === '/client.js'
    ? response.setHeader('content-type', 'text/javascript').end(client)
    : response.setHeader('content-type', 'text/html').end('<!doctype html><link rel="icon" href="data:,"><title>test</title>')));
  await new Promise((resolve) => { site.listen(0, '127.0.0.1', resolve); });
  server = await startServer();
  sdk = server.sdk();
  await settled(sdk);
  browser = await chromium.launch({ executablePath, args: FLAGS });
});

after(async () => {
  await browser?.close();
  for (const step of cleanup) await step();
  site?.close();
  await server?.stop();
});

const set = (group_id, item_id, data) => sdk.trigger({ function_id: 'stream::set', payload: { stream_name: 'browser', group_id, item_id, data } });
const remove = (group_id, item_id) => sdk.trigger({ function_id: 'stream::delete', payload: { stream_name: 'browser', group_id, item_id } });

/** A page whose script errors fail the test that opened it. */
async function open(url = `http://127.0.0.1:${site.address().port}/`) {
  const page = await browser.newPage({ viewport: { width: 900, height: 680 } });
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(error.message));
  await page.goto(url);
  return page;
}

test('the published client shows what a worker writes, in order', { skip }, async () => {
  const page = await open();
  await set('room', 'first', { id: 'first', n: 0 });
  await page.evaluate(async (url) => {
    const { Stream } = await import('/client.js');
    const stream = new Stream(url);
    window.group = stream.subscribeGroup('browser', 'room');
    window.item = stream.subscribeItem('browser', 'room', 'counter');
    window.seen = { group: [], item: [], typing: [] };
    window.group.addChangeListener((state) => window.seen.group.push(structuredClone(state)));
    window.item.addChangeListener((state) => window.seen.item.push(structuredClone(state)));
    window.group.onEvent('typing', (data) => window.seen.typing.push(data));
  }, server.subscribers);
  await page.waitForFunction(() => window.seen.group.length >= 1 && window.seen.item.length >= 1);
  for (let n = 1; n <= 200; n += 1) {
    // Not awaited one by one: the calls of one worker keep their order.
    const last = set('room', 'counter', { id: 'counter', n });
    if (n === 200) await last;
  }
  await set('room', 'second', { id: 'second', n: 0 });
  await remove('room', 'first');
  await sdk.trigger({ function_id: 'stream::send', payload: { stream_name: 'browser', group_id: 'room', type: 'typing', data: { who: 'worker' } } });
  await page.waitForFunction(() => window.seen.typing.length > 0);
  const seen = await page.evaluate(() => ({ ...window.seen, now: window.group.getState() }));
  assert.deepEqual(seen.group[0], [{ id: 'first', n: 0 }], 'the sync of the group');
  assert.deepEqual(seen.item[0], null, 'the sync of an item that does not exist yet');
  const numbers = Array.from({ length: 200 }, (_, i) => i + 1);
  assert.deepEqual(seen.item.slice(1).map((state) => state.n), numbers);
  const counted = seen.group.map((state) => state.find((entry) => entry.id === 'counter')?.n).filter((n) => n !== undefined);
  assert.deepEqual([...new Set(counted)], numbers);
  assert.deepEqual(seen.now, [{ id: 'counter', n: 200 }, { id: 'second', n: 0 }]);
  assert.deepEqual(seen.typing, [{ who: 'worker' }], 'once');
  assert.deepEqual(page.errors, []);
  await page.close();
});

test('a native WebSocket takes a token as sub-protocol and a subscription as path', { skip }, async () => {
  const guarded = await startServer({ stream: { auth_function: 'browser::auth' } });
  cleanup.push(() => guarded.stop());
  const worker = guarded.sdk();
  worker.registerFunction('browser::auth', async ({ headers }) => {
    const token = headers['sec-websocket-protocol']?.split(',')[1]?.trim();
    if (token !== 'header.payload-signature') throw new Error('no');
    return { context: { token } };
  });
  await settled(worker);
  await worker.trigger({ function_id: 'stream::set', payload: { stream_name: 'browser', group_id: 'tokens', item_id: 'i', data: 1 } });
  const page = await open();
  const connect = (protocols) => page.evaluate(([url, wanted]) => new Promise((resolve) => {
    const socket = new WebSocket(`${url}/stream/browser/tokens`, wanted);
    socket.onmessage = ({ data }) => { resolve([socket.protocol, typeof data, JSON.parse(data).event]); socket.close(1000); };
    socket.onclose = ({ code }) => resolve(['closed', code]);
  }), [guarded.subscribers, protocols]);
  assert.deepEqual(await connect(['Authorization', 'header.payload-signature']), ['Authorization', 'string', { type: 'sync', data: [1] }]);
  assert.deepEqual(await connect(['Authorization', 'wrong']), ['closed', 1006]);
  await page.close();
});

test('a browser\'s close is completed with its code', { skip }, async () => {
  const page = await open();
  const closed = await page.evaluate((url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => socket.close(1000, 'done');
    socket.onclose = ({ code, wasClean }) => resolve([code, wasClean]);
  }), server.subscribers);
  assert.deepEqual(closed, [1000, true]);
  await page.close();
});

/** The chat example as it is, in a folder of its own with this folder's modules (both pin the same iii-sdk). */
async function startChat() {
  const folder = await mkdtemp(join(tmpdir(), 'iii-stream-chat-'));
  for (const file of ['worker.mjs', 'index.html', 'package.json']) await copyFile(here(`../../examples/chat/${file}`), join(folder, file));
  await symlink(here('node_modules'), join(folder, 'node_modules'));
  const child = spawn(process.execPath, ['worker.mjs'], {
    cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, III_URL: server.workers, STREAM_URL: server.subscribers, PORT: '0' },
  });
  cleanup.push(async () => { child.kill('SIGTERM'); await rm(folder, { recursive: true, force: true }); });
  const listening = deferred();
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      said += text;
      const url = /^chat\s+(http:\S+)/m.exec(said)?.[1];
      if (url) listening.resolve(url);
    });
  }
  child.on('exit', (code) => listening.reject(new Error(`the chat worker ended (${code}):\n${said}`)));
  return within(listening.promise, 'the chat to print its address', { server });
}

test('the chat example: two people and the bot', { skip }, async (t) => {
  const url = await startChat();
  const [ada, bob] = [await open(`${url}/?name=Ada`), await open(`${url}/?name=Bob`)];
  for (const page of [ada, bob]) await page.waitForSelector('#state.live');
  const messages = (page) => page.$$eval('#messages li p', (lines) => lines.map((line) => line.textContent));
  const say = async (page, text) => {
    const before = (await messages(ada)).length;
    await page.fill('#text', text);
    await page.click('button');
    for (const reader of [ada, bob]) {
      await reader.waitForFunction((n) => document.querySelectorAll('#messages li').length > n, before);
    }
  };
  const LINES = [[ada, 'Hello! Is this thing on?'], [bob, 'Loud and clear. Every message is an item of one stream group.'],
    [ada, 'And <b>nobody</b> polls?'], [bob, 'Nobody. Ask the bot what time it is:'], [bob, '/time']];
  for (const [speaker, text] of LINES) await say(speaker, text);
  for (const reader of [ada, bob]) await reader.waitForSelector('#messages li.bot');
  const seen = await messages(ada);
  assert.deepEqual(await messages(bob), seen);
  assert.deepEqual(seen.slice(0, -1), LINES.map(([, text]) => text), 'in order, and markup stays text');
  assert.match(seen.at(-1), /^It is .*\d/);
  await bob.type('#text', 'and');
  await ada.waitForFunction(() => document.getElementById('typing').textContent.includes('Bob'));
  const file = process.env.CHAT_SCREENSHOT ?? join(tmpdir(), `iii-stream-chat-${process.pid}.png`);
  const picture = await ada.screenshot({ path: file });
  assert.ok(picture.length > 10_000, 'something is drawn');
  t.diagnostic(`screenshot: ${file}`);
  if (!process.env.CHAT_SCREENSHOT) cleanup.push(() => rm(file, { force: true }));
  const late = await open(`${url}/?name=Cleo`);
  await late.waitForSelector('#state.live');
  assert.deepEqual(await messages(late), seen, 'who comes later sees the same');
  for (const page of [ada, bob, late]) {
    assert.deepEqual(page.errors, []);
    await page.close();
  }
});
