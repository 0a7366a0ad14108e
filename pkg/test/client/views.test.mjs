// What a component sees: identity, order, status, when listeners are told, and one socket for everything.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeServer, event, snapshot } from './fake_server.mjs';
import { newClient } from './kit.mjs';
import { until, within } from './waiting.mjs';

const items = [{ id: 'a', seq: 1, data: { text: 'A', deep: { n: 1 } } }, { id: 'b', seq: 2, data: { text: 'B' } }];

async function serve(t, on = (connection, message) => { if (message.type === 'join') connection.send(snapshot(message, items, { seq: 2 })); }) {
  const server = await FakeServer.start({ on });
  t.after(() => server.stop());
  return server;
}

test('a group is loading, then live, and idle a while after its last listener has gone', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url, { lingerMs: 30 });
  const group = client.group('todos', 'l1');
  assert.equal(group.status, 'idle');
  const end = group.subscribe(() => {});
  assert.equal(group.status, 'loading');
  await until(group, () => group.status === 'live', 'live');
  assert.deepEqual(group.items.map(({ id, value, seq, pending }) => [id, value.text, seq, pending]), [['a', 'A', 1, false], ['b', 'B', 2, false]]);
  assert.equal(group.get('b'), group.items[1]);
  end();
  end();
  assert.equal(group.status, 'live');
  await server.until(() => server.last.of('leave').length === 1, 'leave');
  assert.equal(group.status, 'idle');
  assert.deepEqual(group.items, []);
});

test('the same names give the same object, and one socket serves all', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  assert.equal(client.group('s', 'g'), client.group('s', 'g'));
  assert.equal(client.item('s', 'g', 'a'), client.item('s', 'g', 'a'));
  assert.notEqual(client.group('s', 'g'), client.group('s', 'h'));
  for (let n = 0; n < 50; n += 1) client.group('s', `g${n}`).subscribe(() => {});
  client.item('s', 'g', 'a').subscribe(() => {});
  await server.until(() => server.last?.of('join').length === 51, '51 joins');
  assert.equal(server.connections.length, 1);
});

test('what did not change keeps its identity, down to parts of values', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const group = client.group('todos', 'l1');
  await until(group, () => group.status === 'live', 'live');
  const [a, b] = group.items;
  const snapshotBefore = group.snapshot;
  assert.equal(group.snapshot, snapshotBefore);
  server.last.send(event('todos', 'l1', 'a', 3, { type: 'update', data: { text: 'A2', deep: { n: 1 } } }));
  await until(group, () => group.items[0].seq === 3, 'the update');
  assert.notEqual(group.items[0], a);
  assert.equal(group.items[0].value.deep, a.value.deep);
  assert.equal(group.items[1], b);
  const told = group.snapshot;
  let calls = 0;
  group.subscribe(() => { calls += 1; });
  server.last.send(event('todos', 'other', 'a', 3, { type: 'update', data: 1 }));
  server.last.send(event('todos', 'l1', 'c', 4, { type: 'create', data: { text: 'C' } }));
  await until(group, () => group.items.length === 3, 'the new item');
  assert.notEqual(group.snapshot, told);
  assert.equal(group.items[1], b);
  assert.equal(calls, 1);
});

test('items stand in their order when some go and come', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const group = client.group('todos', 'l1');
  await until(group, () => group.status === 'live', 'live');
  group.set('z', { text: 'pending' });
  assert.deepEqual(group.items.map(({ id }) => id), ['a', 'b', 'z']);
  server.last.send(event('todos', 'l1', 'a', 3, { type: 'delete', data: null }));
  server.last.send(event('todos', 'l1', 'c', 4, { type: 'create', data: { text: 'C' } }));
  await until(group, () => group.get('c') !== undefined, 'c');
  assert.deepEqual(group.items.map(({ id }) => id), ['b', 'c', 'z']);
  assert.equal(group.get('a'), undefined);
  assert.equal(group.get('z').pending, true);
});

test('an own edit is told before the call returns; changes of others once per schedule', async (t) => {
  const server = await serve(t);
  let run;
  let scheduled = 0;
  const client = newClient(t, server.url, { schedule: (task) => { scheduled += 1; run = task; } });
  const group = client.group('todos', 'l1');
  let calls = 0;
  group.subscribe(() => { calls += 1; });
  await server.until(() => server.last?.of('join').length === 1, 'join');
  group.set('x', { text: 'X' });
  const after = calls;
  assert.ok(after >= 1);
  assert.equal(group.get('x').value.text, 'X');
  run();
  const before = calls;
  const [base] = [scheduled];
  for (let seq = 3; seq < 103; seq += 1) server.last.send(event('todos', 'l1', 'n', seq, { type: 'update', data: { n: seq } }));
  const done = new Promise((resolve) => { client.group('todos', 'l1').onEvent(resolve); });
  server.last.send(event('todos', 'l1', null, 103, { type: 'event', event: { type: 'end', data: 1 } }));
  const { type, data, seq } = await within(done, 'the event');
  assert.deepEqual([type, data, seq], ['end', 1, 103]);
  assert.equal(calls, before);
  assert.equal(scheduled, base + 1);
  run();
  assert.equal(calls, before + 1);
  assert.equal(group.get('n').value.n, 102);
});

test('a listener that throws is reported and stops nobody', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const group = client.group('todos', 'l1');
  let told = 0;
  group.subscribe(() => { throw new Error('mine'); });
  group.subscribe(() => { told += 1; });
  await until(group, () => group.status === 'live', 'live');
  assert.ok(told > 0);
  assert.equal(client.errors[0].code, 'listener_failed');
  assert.equal(client.errors[0].cause.message, 'mine');
});

test('a listener may edit, subscribe and end within', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const group = client.group('todos', 'l1');
  let hasEdited = false;
  const seen = [];
  const end = group.subscribe(() => {
    seen.push(group.items.length);
    if (group.status === 'live' && !hasEdited) {
      hasEdited = true;
      group.set('more', { text: 'more' });
      group.subscribe(() => {});
    }
    if (seen.at(-1) === 3) end();
  });
  await until(group, () => seen.at(-1) === 3, 'the listener to hear of its own edit');
  assert.equal(hasEdited, true);
});

test('denied and failed views say why', async (t) => {
  const server = await serve(t, (connection, message) => {
    if (message.type !== 'join') return;
    const { subscriptionId, streamName, groupId } = message.data;
    if (groupId === 'secret') connection.send({ type: 'stream', timestamp: 1, streamName, groupId, id: null, subscriptionId, event: { type: 'unauthorized' } });
    else connection.send({ type: 'error', subscriptionId, code: 'unsupported_by_storage', message: 'a worker keeps it' });
  });
  const client = newClient(t, server.url);
  const [secret, orders] = [client.group('s', 'secret'), client.item('s', 'orders', 'o1')];
  await until(secret, () => secret.status === 'denied', 'denied');
  assert.equal(secret.error.code, 'unauthorized');
  await until(orders, () => orders.status === 'failed', 'failed');
  assert.equal(orders.error.code, 'unsupported_by_storage');
  const nameless = client.group('', 'g');
  await until(nameless, () => nameless.status === 'failed', 'an empty name');
  assert.equal(nameless.error.code, 'invalid_name');
});

test('an item view shows one item and its edits', async (t) => {
  const server = await serve(t, (connection, message) => {
    if (message.type === 'join') connection.send(snapshot(message, items.filter(({ id }) => id === message.data.id), { seq: 2 }));
  });
  const client = newClient(t, server.url);
  const item = client.item('todos', 'l1', 'a');
  await until(item, () => item.status === 'live', 'live');
  assert.equal(item.value.text, 'A');
  item.update([{ type: 'set', path: 'text', value: 'mine' }]);
  assert.deepEqual([item.value.text, item.item.pending], ['mine', true]);
  item.delete();
  assert.equal(item.value, undefined);
  assert.equal(item.snapshot, item.snapshot);
});
