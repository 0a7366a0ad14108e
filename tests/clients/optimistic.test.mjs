// Two pages in a real browser edit one group with the npm package: at once, off line, refused, killed in the middle.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { startServer, unique } from './harness.mjs';
import { startSite } from './site.mjs';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const skip = existsSync(executablePath) ? false : `no Chromium at ${executablePath}; set $CHROMIUM`;
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];
const EVERYTHING = [{ stream: '*', group: '*', item: '*', can: ['read', 'set', 'update', 'delete', 'send'] }];

let site;
let server;
let folder;
let context;
let elsewhere;

before(async () => {
  if (skip) return;
  site = await startSite();
  server = await startServer({ stream: { default_grants: EVERYTHING } });
  folder = await mkdtemp(join(tmpdir(), 'iii-stream-browser-'));
  // A profile on disk: what a page has stored outlives it, and the browser.
  context = await chromium.launchPersistentContext(folder, { executablePath, args: FLAGS });
  // Another person's browser: it stays on line when the first one does not.
  elsewhere = await chromium.launch({ executablePath, args: FLAGS });
});

after(async () => {
  await context?.close();
  await elsewhere?.close();
  await site?.stop();
  await server?.stop();
  if (folder) await rm(folder, { recursive: true, force: true });
});

/** A page with a client of its own that follows `group`, and notes what it shows on every frame. */
async function open(group, { store, where = context } = {}) {
  const page = await where.newPage();
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(error.message));
  await page.goto(site.url);
  await page.evaluate(async ([url, name, storeName]) => {
    const { StreamClient, indexedDbStore } = await import('/iii-stream/index.js');
    // A socket with a plug: Chromium cuts no open WebSocket when it goes off line.
    const sockets = new Set();
    class PluggedSocket extends WebSocket {
      constructor(...args) {
        super(window.isPlugged ? args[0] : 'ws://127.0.0.1:9', args[1]);
        sockets.add(this);
        this.addEventListener('close', () => sockets.delete(this));
      }
    }
    window.isPlugged = true;
    window.unplug = () => sockets.forEach((socket) => socket.close());
    window.client = new StreamClient(url, {
      WebSocket: PluggedSocket, backoff: { firstMs: 50, maxMs: 200 }, ...(storeName ? { storage: indexedDbStore(storeName) } : {}),
    });
    window.problems = [];
    window.client.onError((error) => window.problems.push(`${error.code}: ${error.message}`));
    window.group = window.client.group('docs', name);
    window.item = (id) => window.group.items.find((item) => item.id === id);
    window.frames = [];
    const look = () => {
      window.frames.push(Object.fromEntries(window.group.items.map(({ id, value }) => [id, value])));
      requestAnimationFrame(look);
    };
    window.group.subscribe(() => {});
    requestAnimationFrame(look);
  }, [server.subscribers, group, store]);
  await page.waitForFunction(() => window.group.status === 'live');
  return page;
}

const value = (page, id) => page.evaluate((name) => window.item(name)?.value, id);
const confirmed = (page, id, check) => page.waitForFunction(
  ([name, source]) => { const item = window.item(name); return item && !item.pending && new Function('value', `return ${source}`)(item.value); }, [id, check],
);
async function clean(...pages) {
  for (const page of pages) {
    assert.deepEqual(page.errors, []);
    await page.close();
  }
}

test('100 rapid increments from each of two pages sum up, and no frame shows a value going back', { skip }, async () => {
  const group = unique('rapid');
  const pages = [await open(group), await open(group)];
  await Promise.all(pages.map((page) => page.evaluate(async () => {
    for (let n = 0; n < 100; n += 1) {
      window.group.update('counter', [{ type: 'increment', path: 'n', by: 1 }]);
      if (n % 10 === 9) await new Promise((resolve) => { setTimeout(resolve, 5); });
    }
  })));
  for (const page of pages) await confirmed(page, 'counter', 'value.n === 200');
  for (const page of pages) {
    const seen = (await page.evaluate(() => window.frames)).map((frame) => frame.counter?.n ?? 0);
    for (let frame = 1; frame < seen.length; frame += 1) {
      assert.ok(seen[frame - 1] <= seen[frame], `frame ${frame} shows ${seen[frame]} after ${seen[frame - 1]}`);
    }
    assert.equal(seen.at(-1), 200);
  }
  await clean(...pages);
});

test('a page that goes off line edits on, and what it did is there when it comes back', { skip }, async () => {
  const group = unique('offline');
  const [here, there] = [await open(group), await open(group, { where: elsewhere })];
  await there.evaluate(() => window.group.set('note', { text: 'one', likes: 0 }).settled);
  await confirmed(here, 'note', 'value.text === "one"');
  await context.setOffline(true);
  await here.evaluate(() => window.unplug());
  await here.waitForFunction(() => window.client.status.state !== 'open');
  await here.evaluate(() => {
    window.group.update('note', [{ type: 'append', path: 'text', value: ' two' }, { type: 'increment', path: 'likes', by: 1 }]);
    window.group.set('draft', { text: 'written off line' });
  });
  await here.waitForFunction(() => window.item('note').value.text === 'one two' && window.item('draft')?.pending === true);
  await there.evaluate(() => window.group.update('note', [{ type: 'increment', path: 'likes', by: 10 }]).settled);
  await context.setOffline(false);
  await confirmed(here, 'note', 'value.likes === 11');
  for (const page of [here, there]) {
    await confirmed(page, 'draft', 'true');
    assert.deepEqual(await value(page, 'note'), { text: 'one two', likes: 11 });
  }
  await clean(here, there);
});

test('a refused edit is taken back, with its reason', { skip }, async () => {
  const group = unique('refused');
  const [here, there] = [await open(group), await open(group)];
  await there.evaluate(() => window.group.set('seat', { by: 'nobody' }).settled);
  await confirmed(here, 'seat', 'true');
  const { seq } = await here.evaluate(() => ({ seq: window.item('seat').seq }));
  await there.evaluate(() => window.group.set('seat', { by: 'Bob' }).settled);
  // Predicted by what this page knew when it looked; the server knows better.
  const outcome = await here.evaluate(async (looked) => {
    const edit = window.group.set('seat', { by: 'Ada' }, { if: { seq: looked } });
    return edit.settled.then(() => 'taken', (error) => ({ code: error.code, message: error.message }));
  }, seq);
  assert.equal(outcome.code, 'precondition_failed');
  assert.match(outcome.message, /seq/);
  await confirmed(here, 'seat', 'value.by === "Bob"');
  await clean(here, there);
});

test('a page that is killed in the middle of editing sends what was left when it is opened again, once', { skip }, async () => {
  const group = unique('killed');
  const page = await open(group, { store: group });
  const watcher = await open(group);
  await page.evaluate(() => window.group.set('list', { entries: [] }).settled);
  await page.evaluate(async () => {
    for (let n = 0; n < 20; n += 1) window.group.update('list', [{ type: 'append', path: 'entries', value: `on line ${n}` }]);
    window.isPlugged = false;
    window.unplug();
    for (let n = 0; n < 20; n += 1) window.group.update('list', [{ type: 'append', path: 'entries', value: `off line ${n}` }]);
  });
  // An edit outlives the page once it is stored, which takes some milliseconds.
  await page.waitForFunction((name) => new Promise((resolve) => {
    const opening = indexedDB.open(name);
    opening.onsuccess = () => {
      const all = opening.result.transaction('mutations').objectStore('mutations').getAll();
      all.onsuccess = () => { opening.result.close(); resolve(all.result.filter(({ data }) => data.includes('off line 19')).length === 1); };
    };
  }), group);
  // As when the browser is killed: nothing of the page gets to run any more.
  const crashed = page.waitForEvent('crash');
  const session = await context.newCDPSession(page);
  // It never gets to answer.
  session.send('Page.crash').catch(() => {});
  await crashed;
  const again = await open(group, { store: group });
  const wanted = [...Array.from({ length: 20 }, (_, n) => `on line ${n}`), ...Array.from({ length: 20 }, (_, n) => `off line ${n}`)];
  for (const shown of [again, watcher]) {
    await confirmed(shown, 'list', 'value.entries.length >= 40');
    assert.deepEqual((await value(shown, 'list')).entries, wanted);
  }
  await clean(again, watcher);
});
