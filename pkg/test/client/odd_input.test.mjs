// Names and values that are odd but allowed, or not allowed but given; and clocks that somebody sets.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { serverBinary, startServer, unique } from '../../../tests/clients/harness.mjs';
import { FakeServer, event, snapshot } from './fake_server.mjs';
import { newClient, realClient } from './kit.mjs';
import { rejection, until, within } from './waiting.mjs';

const skip = existsSync(serverBinary()) ? false : `there is no ${serverBinary()}: cargo build -p iii-stream, or set III_STREAM_BIN`;
let server;
before(async () => { if (!skip) server = await startServer({ stream: { default_grants: [{ stream: '*', group: '*', can: ['read', 'set', 'update', 'delete', 'send'] }] } }); });
after(() => server?.stop());

const live = async (view) => {
  view.subscribe(() => {});
  await until(view, () => view.status === 'live', `${view.group} to be live`);
};
const ODD = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'then', 'length', '0', '-1', ' ', '\u0000', '\n', '"', '\\', '\\u0000', 'é', 'e\u0301', '\u202e', '\ufffd', '\ufeff', '😀', '👩‍👩‍👧', '\u2028', '*', '/', '𝒳'.repeat(50)];

test('odd names of streams, groups, items and members travel there and back, and are told apart', { skip }, async (t) => {
  const [a, b] = [1, 2].map(() => realClient(t, server.subscribers));
  const stream = unique('s');
  const [from, to] = [a, b].map((client) => client.group(stream, 'odd'));
  await Promise.all([from, to].map(live));
  for (const id of ODD) from.set(id, JSON.parse(`{${JSON.stringify(id)}:{"x":${JSON.stringify(id)}}}`));
  assert.deepEqual(from.items.map(({ id }) => id), ODD);
  await until(to, () => to.items.length === ODD.length, 'all');
  for (const view of [from, to]) {
    await until(view, () => view.items.every(({ pending }) => !pending), 'confirmed');
    assert.deepEqual(view.items.map(({ id }) => id), ODD);
    for (const id of ODD) {
      assert.ok(Object.hasOwn(view.get(id).value, id), id);
      assert.deepEqual(JSON.stringify(view.get(id).value), `{${JSON.stringify(id)}:{"x":${JSON.stringify(id)}}}`);
    }
  }
  assert.equal({}.x, undefined);
  // A changed member `__proto__` is a change; what stands beside it keeps its identity.
  const before = to.get('constructor');
  from.update('__proto__', [{ type: 'merge', value: { beside: 1 } }]);
  await until(to, () => to.get('__proto__').value.beside === 1, 'the update');
  assert.equal(to.get('constructor'), before);
  for (const name of ODD) {
    const [left, right] = [a, b].map((client) => client.item(`${stream}${name}`, name, name));
    await live(right);
    left.set(name);
    await until(right, () => right.value === name, JSON.stringify(name));
  }
  assert.deepEqual([a.errors, b.errors, a.rejections], [[], [], []]);
});

test('half a surrogate pair: names are refused rather than taken for another, and so are values', { skip }, async (t) => {
  const client = realClient(t, server.subscribers);
  const stream = unique('s');
  for (const half of ['\ud800', 'a\udc00', '\udc00\ud800', '😀\ud83d']) {
    for (const view of [client.group(half, 'g'), client.group(stream, half), client.item(stream, 'g', half)]) {
      view.subscribe(() => {});
      await until(view, () => view.status === 'failed', 'failed');
      assert.equal(view.error.code, 'invalid_name');
      assert.equal((await rejection(view.id === null ? view.set('i', 1).settled : view.set(1).settled)).code, 'deserialization_error');
    }
    const group = client.group(stream, 'g');
    for (const edit of [group.set('i', half), group.set(half, 1), group.set('i', { [half]: 1 }), group.update('i', [{ type: 'set', path: half, value: 1 }])]) {
      assert.equal((await rejection(edit.settled)).code, 'deserialization_error');
    }
    assert.equal((await rejection(client.call('stream::get', { stream_name: stream, group_id: 'g', item_id: half }))).code, 'deserialization_error');
  }
  // Two halves of one character in two names are not one.
  const split = client.group('s\ud83d', '\ude00g');
  split.subscribe(() => {});
  await until(split, () => split.status === 'failed', 'failed');
  await within(client.group(stream, 'g').set('i', '\ufffd').settled, 'what is whole');
});

test('a clock that jumps by days, to and fro: nothing is lost, nobody is robbed, nothing hurries', async (t) => {
  const fake = await FakeServer.start({ on: (connection, message) => {
    if (message.type === 'join') connection.send(snapshot(message));
    if (message.type === 'call') setImmediate(() => connection.send({ type: 'result', id: message.id, result: { seq: message.data.mutation.seq } }));
  } });
  t.after(() => fake.stop());
  let now = Date.now();
  t.mock.method(Date, 'now', () => now);
  const client = newClient(t, fake.url, { lingerMs: 60_000 });
  const group = client.group('s', 'g');
  await live(group);
  for (const days of [3, -10, 400, -400]) {
    now += days * 86_400_000;
    await within(group.set('i', days).settled, 'an edit');
    fake.last.send(event('s', 'g', 'other', 1_000 + fake.connections.length + days, { type: 'create', data: days }));
    fake.last.ws.terminate();
    await until(group, () => group.status === 'stale', 'stale');
    await until(group, () => group.status === 'live', 'live again');
  }
  assert.equal(fake.connections.length, 5);
  assert.deepEqual(client.rejections, []);
});
