// The published React hooks in a real browser: states on the page, props that change, token in the URL, refusals, a restarted server.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { keepsGroups, Record, settled, startServer, within } from './harness.mjs';
import { restart } from './restart.mjs';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const skip = existsSync(executablePath) ? false : `no Chromium at ${executablePath}; set $CHROMIUM`;
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];
const AUTH = { stream: { auth_function: 'react::auth' } };

// What an application would write: one provider, the three hooks, the states as text.
const APP = `
  import { createElement as h, useState } from 'react';
  import { createRoot } from 'react-dom/client';
  import { MotiaStreamProvider, useStreamEventHandler, useStreamGroup, useStreamItem } from '@motiadev/stream-client-react';

  function View({ group }) {
    const { data, event } = useStreamGroup({ streamName: 'react', groupId: group, sortKey: 'id' });
    const item = useStreamItem({ streamName: 'react', groupId: group, id: 'counter' });
    const [typing, setTyping] = useState([]);
    useStreamEventHandler({ event, type: 'typing', listener: (who) => setTyping((before) => [...before, who]) }, []);
    if (item.data) (window.counted ??= []).push(item.data.n);
    return h('pre', { id: 'state' }, JSON.stringify({ group: data, item: item.data, typing }));
  }
  const root = createRoot(document.getElementById('app'));
  window.show = (address, group) => root.render(address && h(MotiaStreamProvider, { address }, h(View, { group })));
`;

let server;
let sdk;
let browser;
let site;
let joins;
let leaves;

async function serve(target) {
  const worker = target.sdk({ reconnectionConfig: { initialDelayMs: 50, maxDelayMs: 200, jitterFactor: 0 } });
  worker.registerFunction('react::auth', async ({ query_params }) => {
    // These hooks have neither headers nor sub-protocols: the token is in the address.
    if (query_params.token?.[0] !== 'abc') throw new Error('unknown token');
    return { context: { token: 'abc' } };
  });
  worker.registerFunction('react::join', async (input) => { joins.push(input); return { unauthorized: input.group_id === 'secret' }; });
  worker.registerFunction('react::leave', async (input) => { leaves.push(input); return {}; });
  worker.registerTrigger({ type: 'stream:join', function_id: 'react::join', config: { stream_name: 'react' } });
  worker.registerTrigger({ type: 'stream:leave', function_id: 'react::leave', config: { stream_name: 'react' } });
  await settled(worker);
  return worker;
}

before(async () => {
  if (skip) return;
  const bundle = await build({
    stdin: { contents: APP, resolveDir: fileURLToPath(new URL('.', import.meta.url)) },
    bundle: true, format: 'esm', platform: 'browser', write: false, logLevel: 'error', define: { 'process.env.NODE_ENV': '"production"' },
  });
  site = createServer((request, response) => (request.url === '/app.js'
    ? response.setHeader('content-type', 'text/javascript').end(bundle.outputFiles[0].text)
    : response.setHeader('content-type', 'text/html')
      .end('<!doctype html><link rel="icon" href="data:,"><title>test</title><div id="app"></div><script type="module" src="/app.js"></script>')));
  await new Promise((resolve) => { site.listen(0, '127.0.0.1', resolve); });
  server = await startServer(AUTH);
  [joins, leaves] = [new Record(server), new Record(server)];
  sdk = await serve(server);
  browser = await chromium.launch({ executablePath, args: FLAGS });
});
after(async () => {
  await browser?.close();
  site?.close();
  await sdk?.shutdown();
  await server?.stop();
});

const set = (group_id, item_id, data) => sdk.trigger({ function_id: 'stream::set', payload: { stream_name: 'react', group_id, item_id, data } });

/** A page with the application; script errors fail the test that opened it. */
async function open() {
  const page = await browser.newPage();
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(error.message));
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.waitForFunction(() => 'show' in window);
  const address = `${server.subscribers}/?token=abc`;
  page.show = (group, at = address) => page.evaluate(([url, name]) => window.show(url, name), [at, group]);
  page.until = async (test, what, wanted) => {
    const reached = page.waitForFunction(test, wanted);
    reached.catch(() => {}); // the wait below tells more
    await within(reached, what, { server });
  };
  page.state = () => page.$eval('#state', (element) => JSON.parse(element.textContent));
  return page;
}
const shows = (wanted) => document.getElementById('state')?.textContent.includes(wanted);

test('the hooks show what a worker writes, in order', { skip }, async () => {
  await set('room', 'first', { id: 'first', n: 0 });
  const page = await open();
  await page.show('room');
  await page.until(shows, 'the sync of the group', '"id":"first"');
  await joins.until((items) => items.some(({ id }) => id === 'counter'), 'the item to be joined');
  const numbers = Array.from({ length: 100 }, (_, n) => n + 1);
  for (const n of numbers) await set('room', 'counter', { id: 'counter', n });
  await sdk.trigger({ function_id: 'stream::delete', payload: { stream_name: 'react', group_id: 'room', item_id: 'first' } });
  await sdk.trigger({ function_id: 'stream::send', payload: { stream_name: 'react', group_id: 'room', type: 'typing', data: 'é 🦀' } });
  await page.until(shows, 'the event', 'é 🦀');
  assert.deepEqual(await page.state(), { group: [{ id: 'counter', n: 100 }], item: { id: 'counter', n: 100 }, typing: ['é 🦀'] });
  // React may draw several changes at once, but never an old one after a new one.
  const counted = await page.evaluate(() => window.counted);
  assert.deepEqual(counted, counted.toSorted((a, b) => a - b));
  assert.deepEqual(joins.items[0].context, { token: 'abc' });
  assert.deepEqual(page.errors, []);
  await page.close();
});

test('another group by props leaves the first; an unmounted application leaves too', { skip }, async () => {
  await set('one', 'i', { id: 'i', of: 'one' });
  await set('two', 'i', { id: 'i', of: 'two' });
  const page = await open();
  await page.show('one');
  await page.until(shows, 'the first group', '"of":"one"');
  await page.show('two');
  await page.until(shows, 'the second group', '"of":"two"');
  const left = (group) => leaves.until((items) => items.filter((input) => input.group_id === group).length === 2, `both subscriptions of ${group} to leave`);
  await left('one');
  await set('one', 'j', { id: 'j', of: 'one' });
  await set('two', 'j', { id: 'j', of: 'two again' });
  await page.until(shows, 'the second group, live', 'two again');
  assert.deepEqual((await page.state()).group.map(({ of }) => of), ['two', 'two again']);
  await page.show('two', null);
  await left('two');
  assert.deepEqual(page.errors, []);
  await page.close();
});

test('a refused group and a refused address show nothing', { skip }, async () => {
  await set('secret', 'counter', { id: 'counter', n: 1 });
  const page = await open();
  await page.show('secret');
  await joins.until((items) => items.filter((input) => input.group_id === 'secret').length === 2, 'both joins to be asked about');
  await set('secret', 'counter', { id: 'counter', n: 2 });
  // The same connection, let in elsewhere, shows that what was refused would have come by now.
  await set('allowed', 'i', { id: 'i', allowed: true });
  const before = await page.state();
  await page.show('allowed');
  await page.until(shows, 'the allowed group', '"allowed":true');
  assert.deepEqual(before, { group: [], item: null, typing: [] });
  assert.equal(await page.evaluate(() => window.counted), undefined, 'no state of the refused item was ever drawn');
  const known = joins.items.length;
  const stranger = await open();
  const refused = stranger.waitForEvent('websocket').then((socket) => socket.waitForEvent('socketerror'));
  await stranger.show('allowed', `${server.subscribers}/?token=wrong`);
  assert.match(String(await within(refused, 'the refusal', { server })), /401|HTTP Authentication failed/);
  assert.deepEqual((await stranger.state()).group, []);
  assert.equal(joins.items.length, known);
  await stranger.close();
  await page.close();
});

test('a restarted server is found again and joined again', { skip }, async (t) => {
  t.mock.method(console, 'error', () => {}); // the worker SDK tells each attempt to reconnect there
  const page = await open();
  await page.show('back');
  await set('back', 'before', { id: 'before' });
  await page.until(shows, 'the state before', '"id":"before"');
  server = await restart(server, AUTH);
  joins.server = leaves.server = server;
  await within(settled(sdk), 'the worker to be back', { server });
  await set('back', 'counter', { id: 'counter', n: 7 });
  await page.until(shows, 'the sync of the new server', '"item":{"id":"counter","n":7}');
  const before = keepsGroups ? [{ id: 'before' }] : [];
  assert.deepEqual((await page.state()).group, [...before, { id: 'counter', n: 7 }], 'in memory what was before is gone');
  await set('back', 'counter', { id: 'counter', n: 8 });
  await page.until(shows, 'an event of the new server', '"item":{"id":"counter","n":8}');
  assert.deepEqual(page.errors, []);
  await page.close();
});
