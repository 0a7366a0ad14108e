// A stream whose storage is a worker's own functions, made by iii-sdk's createStream (stream-functions.md §10).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createStream } from 'iii-sdk/helpers';
import { Record, rejection, settled, startServer, unique } from './harness.mjs';

let server;
let owner;
let caller;
const call = (verb, payload) => caller.trigger({ function_id: `stream::${verb}`, payload });

before(async () => {
  server = await startServer();
  [owner, caller] = [server.sdk(), server.sdk()];
});
after(() => server?.stop());

/** A stream kept in a Map of this process; `inputs` tells what the functions were called with. */
async function custom(overrides = {}) {
  const name = unique('custom');
  const stored = new Map();
  const inputs = [];
  const remember = (verb, run) => async (input) => { inputs.push([verb, input]); return run(input); };
  const key = ({ group_id, item_id }) => `${group_id}/${item_id}`;
  createStream(owner, name, {
    get: remember('get', (input) => stored.get(key(input)) ?? null),
    set: remember('set', (input) => {
      const old_value = stored.get(key(input));
      stored.set(key(input), input.data);
      return { old_value, new_value: input.data };
    }),
    delete: remember('delete', (input) => {
      const old_value = stored.get(key(input));
      stored.delete(key(input));
      return { old_value };
    }),
    list: remember('list', ({ group_id }) => [...stored].filter(([k]) => k.startsWith(`${group_id}/`)).map(([, v]) => v)),
    listGroups: remember('list_groups', () => [...new Set([...stored.keys()].map((k) => k.split('/')[0]))]),
    ...overrides,
  });
  await settled(owner);
  return { name, stored, inputs, at: { stream_name: name, group_id: 'g', item_id: 'i' } };
}

test('the built-in functions call the stream\'s own, with exactly the known fields', async () => {
  const { at, stored, inputs } = await custom();
  assert.deepEqual(await call('set', { ...at, data: { id: 'i', n: 1 }, extra: 1 }), { old_value: null, new_value: { id: 'i', n: 1 } });
  assert.deepEqual(stored.get('g/i'), { id: 'i', n: 1 });
  assert.deepEqual(await call('get', at), { id: 'i', n: 1 });
  assert.deepEqual(await call('list', { stream_name: at.stream_name, group_id: 'g' }), [{ id: 'i', n: 1 }]);
  assert.deepEqual(await call('list_groups', { stream_name: at.stream_name }), ['g']);
  assert.deepEqual(await call('delete', at), { old_value: { id: 'i', n: 1 } });
  assert.deepEqual(inputs, [
    ['set', { ...at, data: { id: 'i', n: 1 } }], ['get', at], ['list', { stream_name: at.stream_name, group_id: 'g' }],
    ['list_groups', { stream_name: at.stream_name }], ['delete', at],
  ]);
});

test('subscribers and triggers get events made from the returned values, and a sync from the stream\'s own list', async () => {
  const { name, at } = await custom();
  const calls = new Record(server);
  const fn = unique('on::custom');
  caller.registerFunction(fn, async (input) => { calls.push(input.event); return {}; });
  caller.registerTrigger({ type: 'stream', function_id: fn, config: { stream_name: name } });
  await settled(caller);
  await call('set', { ...at, data: { id: 'i', n: 1 } });
  const subscriber = await server.subscriber();
  assert.deepEqual((await subscriber.join(name, 'g')).event, { type: 'sync', data: [{ id: 'i', n: 1 }] });
  assert.deepEqual((await subscriber.join(name, 'g', 'i')).event, { type: 'sync', data: { id: 'i', n: 1 } });
  await call('set', { ...at, data: { id: 'i', n: 2 } });
  await call('delete', at);
  assert.deepEqual((await subscriber.next()).event, { type: 'update', data: { id: 'i', n: 2 } });
  assert.deepEqual((await subscriber.next()).event, { type: 'delete', data: { id: 'i', n: 2 } });
  assert.deepEqual((await calls.count(3)).map((event) => [event.type, event.data.n]), [['create', 1], ['update', 2], ['delete', 2]]);
});

test('what the stream\'s own functions do wrong is told to the caller', async () => {
  const broken = (error) => async () => { throw new Error(error); };
  const throwing = await custom({ get: broken('get broke'), set: broken('set broke'), delete: broken('delete broke'), list: broken('list broke') });
  for (const [verb, code, payload] of [['set', 'STREAM_SET_ERROR', { data: 1 }], ['delete', 'STREAM_DELETE_ERROR', {}], ['get', 'invocation_failed', {}], ['list', 'invocation_failed', {}]]) {
    const error = await rejection(call(verb, { ...throwing.at, ...payload }), verb);
    assert.equal(error.code, code, verb);
    assert.match(error.message, new RegExp(`${verb} broke`));
  }
  const mute = await custom({ set: async () => undefined, delete: async () => undefined });
  assert.equal((await rejection(call('set', { ...mute.at, data: 1 }))).code, 'STREAM_SET_ERROR');
  assert.equal((await rejection(call('delete', mute.at))).code, 'STREAM_DELETE_ERROR');
  const odd = await custom({ set: async () => 'done', delete: async () => 7 });
  assert.equal((await rejection(call('set', { ...odd.at, data: 1 }))).code, 'JSON_ERROR');
  assert.equal((await rejection(call('delete', odd.at))).code, 'JSON_ERROR');
});

test('a worker may write, from its own storage function, to another stream and to the same', async () => {
  const log = unique('log');
  const name = unique('logged');
  owner.registerFunction(`stream::set(${name})`, async (input) => {
    await owner.trigger({ function_id: 'stream::set', payload: { stream_name: log, group_id: 'g', item_id: input.item_id, data: input.data } });
    if (input.item_id === 'outer') await owner.trigger({ function_id: 'stream::set', payload: { ...input, item_id: 'inner' } });
    return { new_value: input.data };
  });
  await settled(owner);
  // Called by the owner itself: the call leaves its lane, or it would wait for itself for ever.
  await owner.trigger({ function_id: 'stream::set', payload: { stream_name: name, group_id: 'g', item_id: 'outer', data: 1 } });
  assert.deepEqual(await call('list', { stream_name: log, group_id: 'g' }), [1, 1]);
});

test('what needs versions is refused by a storage that has none', async () => {
  const { at } = await custom();
  await call('set', { ...at, data: 1 });
  for (const more of [{ if: { seq: 1 } }, { mutation: { client: 'c', seq: 1 } }]) {
    assert.equal((await rejection(call('set', { ...at, data: 2, ...more }))).code, 'unsupported_by_storage', JSON.stringify(more));
  }
  assert.equal((await rejection(call('get', { ...at, meta: true }))).code, 'unsupported_by_storage');
});

test('a snapshot that never comes delays nothing else on the connection', async () => {
  const { name } = await custom({ list: () => new Promise(() => {}) });
  const subscriber = await server.subscriber();
  subscriber.send({ type: 'join', data: { subscriptionId: 'stuck', streamName: name, groupId: 'g' } });
  const other = unique('other');
  assert.deepEqual((await subscriber.join(other, 'g')).event, { type: 'sync', data: [] });
  await call('set', { stream_name: other, group_id: 'g', item_id: 'i', data: 1 });
  assert.deepEqual((await subscriber.next()).event, { type: 'create', data: 1 });
  assert.equal(await subscriber.ping('alive'), 'alive');
  await subscriber.close();
});

test('an adapter of a worker keeps every stream; without an update of its own, updates are atomic all the same', async (t) => {
  const one = await startServer({ stream: { adapter: { name: 'my::store' } } });
  t.after(() => one.stop());
  const [keeper, user] = [one.sdk(), one.sdk()];
  const stored = new Map();
  const key = ({ stream_name, group_id, item_id }) => JSON.stringify([stream_name, group_id, item_id]);
  const at = { stream_name: 'any', group_id: 'g', item_id: 'i' };
  const use = (verb, payload) => user.trigger({ function_id: `stream::${verb}`, payload });
  assert.equal((await rejection(use('set', { ...at, data: 1 }))).code, 'STREAM_SET_ERROR', 'nobody keeps it yet');
  keeper.registerFunction('my::store::get', async (input) => stored.get(key(input)) ?? null);
  keeper.registerFunction('my::store::set', async (input) => {
    const old_value = stored.get(key(input)) ?? null;
    await new Promise((resolve) => setImmediate(resolve)); // others may come in between, if they are let
    stored.set(key(input), input.data);
    return { old_value, new_value: input.data };
  });
  keeper.registerFunction('my::store::delete', async (input) => {
    const old_value = stored.get(key(input)) ?? null;
    stored.delete(key(input));
    return { old_value };
  });
  keeper.registerFunction('my::store::list', async ({ stream_name, group_id }) =>
    [...stored].filter(([k]) => k.startsWith(JSON.stringify([stream_name, group_id]).slice(0, -1))).map(([, v]) => v));
  keeper.registerFunction('my::store::list_groups', async () => ['g']);
  keeper.registerFunction('my::store::list_all', async () => ({ stream: [{ id: 'any', groups: ['g'] }], count: 1 }));
  await settled(keeper);
  const subscriber = await one.subscriber();
  assert.deepEqual((await subscriber.join('any', 'g')).event.data, []);
  assert.deepEqual(await use('set', { ...at, data: { n: 0 } }), { old_value: null, new_value: { n: 0 } });
  const ops = [{ type: 'increment', path: 'n', by: 1 }];
  await Promise.all(Array.from({ length: 100 }, () => use('update', { ...at, ops })));
  assert.deepEqual(await use('get', at), { n: 100 });
  const failed = await use('update', { ...at, ops: [{ type: 'append', path: 'n', value: 1 }] });
  assert.deepEqual([failed.new_value, failed.errors[0].code], [{ n: 100 }, 'append.type_mismatch']);
  assert.deepEqual(await use('list', { stream_name: 'any', group_id: 'g' }), [{ n: 100 }]);
  assert.deepEqual(await use('list_groups', { stream_name: 'any' }), ['g']);
  assert.deepEqual(await use('list_all', {}), { stream: [{ id: 'any', groups: ['g'] }], count: 1 });
  assert.deepEqual(await use('delete', at), { old_value: { n: 100 } });
  const kinds = [];
  for (let n = 0; n < 103; n += 1) kinds.push((await subscriber.next()).event);
  assert.deepEqual([kinds[0].type, kinds[101].type, kinds[102].type], ['create', 'update', 'delete']);
  assert.deepEqual(kinds.slice(1, 101).map((event) => event.data.n), Array.from({ length: 100 }, (_, n) => n + 1));
});
