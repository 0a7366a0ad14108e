// The hooks: what is rendered, how often, and on a server.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import React, { act, createElement, memo } from 'react';
import { renderToString } from 'react-dom/server';
import TestRenderer from 'react-test-renderer';
import { StreamProvider, useGroup, useItem, useMutation, usePending, useStatus } from '../../dist/esm/react/index.js';
import { FakeServer, event, snapshot } from './fake_server.mjs';
import { newClient } from './kit.mjs';
import { until, within } from './waiting.mjs';

const noise = console.error;
console.error = (...args) => { if (!String(args[0]).includes('react-test-renderer is deprecated')) noise(...args); };

async function serve(t, answer = (call) => ({ result: { seq: call.data.mutation.seq } })) {
  const server = await FakeServer.start({ on: (connection, message) => {
    if (message.type === 'join') connection.send(snapshot(message, [{ id: 'a', seq: 1, data: 'A' }, { id: 'b', seq: 2, data: 'B' }], { seq: 2 }));
    if (message.type === 'call') connection.send({ type: 'result', id: message.id, ...answer(message) });
  } });
  globalThis.IS_REACT_ACT_ENVIRONMENT = true;
  // What the client tells while it is closed belongs to no act.
  t.after(() => { globalThis.IS_REACT_ACT_ENVIRONMENT = false; });
  t.after(() => server.stop());
  return server;
}

/** Renders below a provider; `update()` waits until `condition()` holds, within act. */
async function render(t, client, element) {
  let root;
  await act(async () => { root = TestRenderer.create(createElement(StreamProvider, { client }, element)); });
  t.after(() => root.unmount());
  return {
    root,
    text: () => JSON.stringify(root.toJSON()),
    until: (source, condition, what) => act(() => until(source, condition, what)),
  };
}

test('useGroup renders a list; only rows that changed render again', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const renders = {};
  const Row = memo(({ item }) => {
    renders[item.id] = (renders[item.id] ?? 0) + 1;
    return createElement('li', null, `${item.value}${item.pending ? '…' : ''}`);
  });
  let result;
  const List = () => {
    result = useGroup('s', 'g');
    return createElement('ul', null, result.status, result.items.map((item) => createElement(Row, { key: item.id, item })));
  };
  const { root, text, until: wait } = await render(t, client, createElement(List));
  assert.match(text(), /loading/);
  const group = client.group('s', 'g');
  await wait(group, () => group.status === 'live', 'live');
  assert.match(text(), /live.*"A".*"B"/);
  await act(async () => { result.group.set('b', 'B2'); });
  assert.match(text(), /"A".*"B2…"/);
  assert.equal(renders.a, 1);
  server.last.send(event('s', 'g', 'c', 9, { type: 'create', data: 'C' }));
  await wait(group, () => group.items.length === 3, 'c');
  assert.deepEqual([renders.a, renders.c], [1, 1]);
  assert.equal(root.root.findAllByType('li').length, 3);
});

test('useItem renders for its item only; unmounting ends the subscription, and strict mode does not begin it twice', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url, { lingerMs: 20 });
  let renders = 0;
  const One = () => {
    renders += 1;
    const { value = 'none', status } = useItem('s', 'g', 'a');
    return createElement('p', null, `${status} ${value}`);
  };
  const { root, text, until: wait } = await render(t, client, createElement(React.StrictMode, null, createElement(One)));
  const item = client.item('s', 'g', 'a');
  await wait(item, () => item.status === 'live', 'live');
  assert.match(text(), /live A/);
  const before = renders;
  await act(async () => { client.item('s', 'g', 'b').set('mine'); });
  assert.equal(renders, before);
  assert.equal(server.last.of('join').length, 1);
  await act(async () => { root.update(createElement('p')); });
  await server.until(() => server.last.of('leave').length === 1, 'leave');
});

test('useMutation counts what is pending and keeps why the last one was rolled back', async (t) => {
  const server = await serve(t, ({ data, id }) => (data.item_id === 'bad' ? { error: { code: 'forbidden', message: 'no' } } : { id, result: { seq: 3 } }));
  const client = newClient(t, server.url);
  let rename;
  let pending;
  const Form = () => {
    rename = useMutation('s', 'g', (group, id, value) => group.set(id, value));
    pending = usePending();
    return null;
  };
  await render(t, client, createElement(Form));
  const first = rename.mutate;
  let mutation;
  await act(async () => { mutation = rename.mutate('good', 1); });
  assert.equal(rename.mutate, first);
  await act(() => within(mutation.settled, 'good'));
  assert.deepEqual([rename.pending, rename.error], [0, null]);
  await act(async () => { mutation = rename.mutate('bad', 1); });
  await act(() => within(mutation.settled.catch(() => {}), 'bad'));
  assert.deepEqual([rename.pending, rename.error.code], [0, 'forbidden']);
  await act(async () => { rename.reset(); });
  assert.equal(rename.error, null);
  assert.equal(pending, 0);
});

test('useStatus renders what the connection does', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const seen = [];
  const Light = () => {
    const { state } = useStatus();
    if (seen.at(-1) !== state) seen.push(state);
    return null;
  };
  const { until: wait } = await render(t, client, createElement(Light));
  client.group('s', 'g').subscribe(() => {});
  await wait(client, () => client.status.state === 'open', 'open');
  assert.equal(seen[0], 'idle');
  assert.equal(seen.at(-1), 'open');
});

test('on a server everything is loading, and nothing connects', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const Page = () => createElement('p', null, useGroup('s', 'g').status, useItem('s', 'g', 'a').status, useStatus().state);
  assert.match(renderToString(createElement(StreamProvider, { client }, createElement(Page))), /loading.*loading.*idle/);
  assert.equal(server.connections.length, 0);
});

test('without a provider the hooks say so', async () => {
  const Lost = () => useGroup('s', 'g').status;
  const quiet = console.error;
  console.error = () => {};
  await assert.rejects(async () => act(async () => { TestRenderer.create(createElement(Lost)); }), /StreamProvider/);
  console.error = quiet;
});
