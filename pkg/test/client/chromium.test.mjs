// The client and its hooks in Chromium, against the real server: what renders, what outlives a tab, what a broken storage does.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { serverBinary, startServer, unique } from '../../../tests/clients/harness.mjs';
import { realClient } from './kit.mjs';
import { skip as noBrowser, startSite } from './page.mjs';
import { until, within } from './waiting.mjs';

const skip = noBrowser || (existsSync(serverBinary()) ? false : `there is no ${serverBinary()}: cargo build -p iii-stream, or set III_STREAM_BIN`);

const PROGRAM = `
import { StrictMode, createElement, memo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { StreamClient, indexedDbStore } from './package.mjs';
import { StreamProvider, useGroup } from '../../dist/esm/react/index.js';

globalThis.renders = new Map();
const Row = memo(({ item }) => {
  renders.set(item.id, (renders.get(item.id) ?? 0) + 1);
  return createElement('li', null, item.id, ' ', item.value.n);
});
const List = ({ stream, name }) => {
  const { items, status } = useGroup(stream, name);
  return createElement('ul', { 'data-status': status, 'data-group': name }, items.map((item) => createElement(Row, { key: item.id, item })));
};
const App = ({ stream, first }) => {
  const [name, show] = useState(first);
  globalThis.show = show;
  return name && createElement(List, { stream, name });
};

/** Shows a list; \`isStrict\` doubles effects and renders. */
globalThis.render = (url, stream, first, isStrict) => {
  globalThis.client = new StreamClient(url, { lingerMs: 50 });
  const app = createElement(StreamProvider, { client }, createElement(App, { stream, first }));
  globalThis.root = createRoot(document.getElementById('root'));
  root.render(isStrict ? createElement(StrictMode, null, app) : app);
};

/** A client with storage; \`url\` may be an address where nobody is. */
globalThis.connect = (url, name, options = {}) => {
  globalThis.told = [];
  globalThis.client = new StreamClient(url, { storage: indexedDbStore(name), adoptIntervalMs: 500, ...options });
  client.onError(({ code }) => told.push(code));
  client.onRejected(({ error }) => told.push(error.code));
};
globalThis.queues = (name) => indexedDbStore(name).queues();
globalThis.isReady = true;
`;

let server;
let site;
before(async () => {
  if (skip) return;
  server = await startServer({ stream: { default_grants: [{ stream: '*', group: '*', can: ['read', 'set', 'update', 'delete', 'send'] }] } });
  site = await startSite(PROGRAM);
});
after(async () => {
  await site?.close();
  await server?.stop();
});

/** A list of so many rows, by another client. */
async function fill(t, stream, group, rows) {
  const other = realClient(t, server.subscribers);
  const view = other.group(stream, group);
  for (let n = 0; n < rows; n += 1) view.set(`i${n}`, { n });
  await until(other, () => other.pending === 0, 'all rows', 30_000);
  return view;
}

for (const isStrict of [false, true]) {
  test(`1,000 rows${isStrict ? ' in strict mode' : ''}: one item that another client changes renders one row`, { skip, timeout: 60_000 }, async (t) => {
    const stream = unique('s');
    const other = await fill(t, stream, 'g', 1_000);
    const tab = await site.open();
    await tab.evaluate(([...args]) => render(...args), [server.subscribers, stream, 'g', isStrict]);
    await tab.waitForFunction(() => document.querySelectorAll('ul[data-status=live] li').length === 1_000);
    await tab.evaluate(() => renders.clear());
    await within(other.update('i500', [{ type: 'increment', path: 'n', by: 1_000 }]).settled, 'the change');
    await tab.waitForFunction(() => document.querySelectorAll('li')[500].textContent === 'i500 1500');
    assert.deepEqual(await tab.evaluate(() => [...renders]), [['i500', isStrict ? 2 : 1]]);
    assert.deepEqual(tab.noise, []);
    await tab.close();
  });
}

test('groups that are switched and unmounted quickly: the last one is shown, nothing is left over', { skip, timeout: 60_000 }, async (t) => {
  const stream = unique('s');
  for (const n of [1, 2, 3]) await fill(t, stream, `g${n}`, n);
  const tab = await site.open();
  await tab.evaluate(([...args]) => render(...args), [server.subscribers, stream, 'g1', true]);
  await tab.waitForFunction(() => document.querySelectorAll('ul[data-status=live] li').length === 1);
  await tab.evaluate(async () => {
    for (let n = 0; n < 60; n += 1) {
      show([`g${(n % 3) + 1}`, null][n % 2]);
      if (n % 7 === 0) await new Promise(requestAnimationFrame);
    }
    show('g3');
  });
  await tab.waitForFunction(() => document.querySelectorAll('ul[data-status=live][data-group=g3] li').length === 3);
  await tab.evaluate(() => root.unmount());
  await tab.waitForFunction((name) => [1, 2, 3].every((n) => client.group(name, `g${n}`).status === 'idle'), stream);
  assert.deepEqual(tab.noise, []);
  await tab.close();
});

test('two tabs on one database: when one dies the other sends its edits within seconds, once', { skip, timeout: 60_000 }, async (t) => {
  const [stream, name] = [unique('s'), unique('db')];
  const [dying, living] = [await site.open(), await site.open()];
  await living.evaluate(([url, db]) => connect(url, db), [server.subscribers, name]);
  await dying.evaluate(([db, of]) => {
    connect('ws://127.0.0.1:1', db);
    const group = client.group(of, 'g');
    for (let n = 0; n < 100; n += 1) group.update('i', [{ type: 'increment', path: 'n', by: 1 }]);
  }, [name, stream]);
  await dying.waitForFunction((db) => queues(db).then((all) => all.length === 1), name);
  // While it lives nobody takes its edits.
  await living.evaluate(() => new Promise((resolve) => { setTimeout(resolve, 1_200); }));
  const [queue] = await living.evaluate((db) => queues(db), name);
  assert.equal(await living.evaluate(() => client.pending), 0);
  const began = performance.now();
  await dying.close();
  const watcher = realClient(t, server.subscribers).group(stream, 'g');
  watcher.subscribe(() => {});
  await until(watcher, () => watcher.get('i')?.value.n === 100, 'the edits of the tab that is gone', 15_000);
  t.diagnostic(`adopted and sent ${(performance.now() - began).toFixed()} ms after the tab had gone`);
  await living.waitForFunction((db) => client.pending === 0 && queues(db).then((all) => all.length === 0), name);
  assert.equal(watcher.get('i').seq, 100);
  assert.ok(queue.client.length > 0);
  assert.deepEqual(await living.evaluate(() => told), []);
  await living.close();
});

test('10,000 edits made offline and kept: the page stays usable, and the next page sends them, once', { skip, timeout: 110_000 }, async (t) => {
  const [stream, name] = [unique('s'), unique('db')];
  const first = await site.open();
  const madeMs = await first.evaluate(([db, of]) => {
    connect('ws://127.0.0.1:1', db);
    const group = client.group(of, 'g');
    const began = performance.now();
    for (let n = 0; n < 10_000; n += 1) group.update(`i${n % 100}`, [{ type: 'increment', path: 'n', by: 1 }]);
    return performance.now() - began;
  }, [name, stream]);
  await first.waitForFunction((db) => queues(db).then((all) => all.length === 1), name);
  assert.deepEqual(await first.evaluate(() => told), []);
  await first.close();
  const second = await site.open();
  const [sentMs, pauseMs] = await second.evaluate(async ([url, db]) => {
    let [last, pause] = [performance.now(), 0];
    const watch = setInterval(() => { pause = Math.max(pause, performance.now() - last); last = performance.now(); }, 5);
    const began = performance.now();
    connect(url, db);
    await new Promise((resolve) => {
      let hasSome = false;
      client.subscribe(() => { hasSome ||= client.pending > 0; if (hasSome && client.pending === 0) resolve(); });
    });
    clearInterval(watch);
    return [performance.now() - began, pause];
  }, [server.subscribers, name]);
  t.diagnostic(`made in ${madeMs.toFixed()} ms, sent in ${sentMs.toFixed()} ms, longest pause ${pauseMs.toFixed()} ms`);
  const watcher = realClient(t, server.subscribers).group(stream, 'g');
  watcher.subscribe(() => {});
  await until(watcher, () => watcher.status === 'live', 'live');
  assert.equal(watcher.items.reduce((sum, { value }) => sum + value.n, 0), 10_000);
  assert.deepEqual(await second.evaluate(() => told), []);
  await second.close();
});

/** What breaks the storage of a page, before its program runs. */
const BROKEN = {
  'is denied': () => { IDBFactory.prototype.open = () => { throw new DOMException('denied', 'SecurityError'); }; },
  'is not there': () => { Object.defineProperty(globalThis, 'indexedDB', { value: undefined }); },
  'is full from the third write on': () => {
    const { put } = IDBObjectStore.prototype;
    let writes = 0;
    IDBObjectStore.prototype.put = function full(...args) {
      writes += 1;
      if (writes > 3) throw new DOMException('full', 'QuotaExceededError');
      return put.apply(this, args);
    };
  },
  'aborts its transactions half-way': () => {
    const { put } = IDBObjectStore.prototype;
    IDBObjectStore.prototype.put = function aborting(...args) {
      const request = put.apply(this, args);
      this.transaction.abort();
      return request;
    };
  },
  'never answers': () => { IDBFactory.prototype.open = () => new EventTarget(); },
};
for (const [how, breakIt] of Object.entries(BROKEN)) {
  test(`storage that ${how}: edits are shown and sent, and it is told once`, { skip, timeout: 60_000 }, async (t) => {
    const stream = unique('s');
    const tab = await site.open(undefined, breakIt);
    await tab.evaluate(([url, db, of]) => {
      connect(url, db);
      const group = client.group(of, 'g');
      for (let n = 0; n < 50; n += 1) group.update('i', [{ type: 'increment', path: 'n', by: 1 }]);
    }, [server.subscribers, unique('db'), stream]);
    const watcher = realClient(t, server.subscribers).group(stream, 'g');
    watcher.subscribe(() => {});
    await until(watcher, () => watcher.get('i')?.value.n === 50, 'all edits', 20_000);
    await tab.waitForFunction(() => client.pending === 0);
    assert.deepEqual(await tab.evaluate(() => told), ['storage_failed']);
    assert.deepEqual(tab.noise, []);
    await tab.close();
  });
}
