// layout: compatible: servers of ours and programs that write as an iii engine does, side by side on one Redis.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { rejection, startServer, unique, within } from './harness.mjs';
import { startRedis, until, withoutRedis } from './redis.mjs';

const skip = withoutRedis;
let redis;
let servers = [];
let peers;
before(async () => {
  if (skip) return;
  redis = await startRedis();
  const adapter = { name: 'redis', config: { redis_url: redis.url, layout: 'compatible', key_prefix: 'ours:' } };
  servers = await Promise.all([0, 1].map(() => startServer({ stream: { adapter } })));
  peers = await Promise.all(servers.map((server) => server.peer()));
});
after(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  await redis?.stop();
});

const at = (stream_name, item_id = 'i') => ({ stream_name, group_id: 'g', item_id });
/** What an engine does for a set: writes, then publishes. */
async function engineSets(stream, item, value, { timestamp = Date.now(), type = 'update' } = {}) {
  await redis.call('HSET', `stream:${stream}:g`, item, JSON.stringify(value));
  const frame = { type: 'stream', timestamp, streamName: stream, groupId: 'g', id: item, event: { type, data: value } };
  await redis.call('PUBLISH', 'stream::events', JSON.stringify(frame));
}
async function joined(server, stream) {
  const subscriber = await server.subscriber();
  return { subscriber, sync: await subscriber.join(stream, 'g') };
}

test('what one server or an engine writes, subscribers of every server see, in order', { skip }, async () => {
  const stream = unique('shared');
  await engineSets(stream, 'old', { id: 'old', by: 'engine' }, { type: 'create' });
  const views = await Promise.all(servers.map((server) => joined(server, stream)));
  for (const { sync } of views) assert.deepEqual(sync.event, { type: 'sync', data: [{ id: 'old', by: 'engine' }] });
  assert.deepEqual(await peers[0].result('stream::set', { ...at(stream), data: { id: 'i', n: 1 } }), { old_value: null, new_value: { id: 'i', n: 1 } });
  await peers[1].result('stream::update', { ...at(stream), ops: [{ type: 'increment', path: 'n', by: 1 }] });
  await engineSets(stream, 'i', { id: 'i', n: 3 }, { timestamp: 1 });
  await peers[0].result('stream::send', { stream_name: stream, group_id: 'g', type: 'typing', data: { u: 1 } });
  await peers[1].result('stream::delete', at(stream));
  for (const { subscriber, sync } of views) {
    const frames = [];
    for (let n = 0; n < 5; n += 1) frames.push(await subscriber.next());
    assert.deepEqual(frames.map(({ event }) => event), [
      { type: 'create', data: { id: 'i', n: 1 } }, { type: 'update', data: { id: 'i', n: 2 } }, { type: 'update', data: { id: 'i', n: 3 } },
      { type: 'event', event: { type: 'typing', data: { u: 1 } } }, { type: 'delete', data: { id: 'i', n: 3 } },
    ]);
    const items = [sync, ...frames.filter(({ id }) => id === 'i')].map(({ timestamp }) => timestamp);
    assert.ok(items.every((timestamp, i) => i === 0 || items[i - 1] < timestamp), `published clients drop what is not later: ${items}`);
    await subscriber.close();
  }
  assert.equal(await redis.call('HGET', `stream:${stream}:g`, 'old'), '{"id":"old","by":"engine"}');
  assert.equal(await redis.call('HEXISTS', `stream:${stream}:g`, 'i'), 0);
  assert.deepEqual(await redis.call('KEYS', `*${stream}*`), [`stream:${stream}:g`], 'nothing but the engine\'s own key');
});

test('a published client follows an engine through our server', { skip }, async () => {
  const stream = unique('published');
  const client = await servers[1].client();
  const group = client.subscribeGroup(stream, 'g');
  const { subscriber } = await joined(servers[1], stream);
  await engineSets(stream, 'a', { id: 'a', n: 1 }, { type: 'create' });
  for (let n = 2; n <= 20; n += 1) await engineSets(stream, 'a', { id: 'a', n }, { timestamp: Date.now() - 60_000 });
  await until(() => group.getState().some(({ n }) => n === 20), 'the client to have the last value');
  assert.deepEqual(group.getState(), [{ id: 'a', n: 20 }]);
  await subscriber.close();
});

test('fifty writers through two servers lose no update', { skip }, async () => {
  const stream = unique('counter');
  const update = (peer) => peer.result('stream::update', { ...at(stream), ops: [{ type: 'increment', path: 'n', by: 1 }] });
  await Promise.all(Array.from({ length: 50 }, async (_, writer) => {
    for (let n = 0; n < 4; n += 1) await update(peers[writer % 2]);
  }));
  assert.equal(await redis.call('HGET', `stream:${stream}:g`, 'i'), '{"n":200}');
});

test('what needs versions is refused, and conditions that need none are kept', { skip }, async () => {
  const stream = unique('unversioned');
  const [peer] = peers;
  const set = (more) => peer.result('stream::set', { ...at(stream), data: 1, ...more });
  for (const more of [{ if: { seq: 1 } }, { mutation: { client: 'c', seq: 1 } }, { ttl_ms: 1_000 }]) {
    assert.equal((await rejection(set(more))).code, 'unsupported_by_storage', JSON.stringify(more));
  }
  assert.equal((await rejection(set({ if: { exists: true } }))).code, 'precondition_failed');
  assert.deepEqual(await set({ if: { absent: true }, returning: 'new' }), { new_value: 1, seq: null });
  const refused = await rejection(set({ if: { absent: true } }));
  assert.deepEqual([refused.code, 'seq' in refused], ['precondition_failed', false]);
  assert.deepEqual(await set({ if: { exists: true } }), { old_value: 1, new_value: 1 });
  for (const [id, input] of [['stream::get', at(stream)], ['stream::list', { stream_name: stream, group_id: 'g' }], ['state::list', { scope: 's' }]]) {
    assert.equal((await rejection(peer.result(id, { ...input, meta: true }))).code, 'unsupported_by_storage', id);
  }
  const state = { scope: unique('scope'), key: 'k', value: 1 };
  assert.equal((await rejection(peer.result('state::set', { ...state, if: { seq: 1 } }))).code, 'unsupported_by_storage');
  await peer.result('state::set', state);
  assert.equal(await redis.call('HGET', `state:${state.scope}`, 'k'), '1');

  const subscriber = await servers[0].subscriber();
  subscriber.send({ type: 'join', data: { subscriptionId: 's', streamName: stream, groupId: 'g', version: 2 } });
  assert.equal((await subscriber.next()).code, 'unsupported_by_storage');
  await subscriber.close();
  const { status } = await servers[0].page(`/stream/${stream}/g`, { base: servers[0].subscribers.replace('ws', 'http') });
  assert.equal(status, 501);
});

test('lists are sorted, and groups are found whatever their names', { skip }, async () => {
  const stream = `${unique('glob')}[x]*?`;
  for (const item of ['b', 'a', 'c']) await peers[0].result('stream::set', { ...at(stream, item), data: item });
  assert.deepEqual(await peers[1].result('stream::list', { stream_name: stream, group_id: 'g' }), ['a', 'b', 'c']);
  assert.deepEqual(await peers[1].result('stream::list_groups', { stream_name: stream }), ['g']);
  const all = await peers[1].result('stream::list_all', {});
  assert.deepEqual(all.stream.find(({ id }) => id === stream)?.groups, ['g']);
});

test('a stream trigger fires where the change was made, and only there', { skip }, async () => {
  const stream = unique('triggered');
  const calls = [[], []];
  for (const [n, peer] of peers.entries()) {
    const id = `on::${stream}::${n}`;
    peer.serve(id, (data) => { calls[n].push(data.id); return { result: null }; });
    peer.send({ type: 'registertrigger', id: `t-${stream}-${n}`, trigger_type: 'stream', function_id: id, config: { stream_name: stream } });
    await peer.settled();
  }
  await engineSets(stream, 'engine', 1, { type: 'create' });
  await peers[0].result('stream::set', { ...at(stream, 'first'), data: 1 });
  await peers[1].result('stream::set', { ...at(stream, 'second'), data: 1 });
  await until(() => calls[0].length === 1 && calls[1].length === 1, 'both handlers to be called');
  assert.deepEqual(calls, [['first'], ['second']]);
});

test('our servers call functions of each other\'s workers, and an equal trigger on both fires once', { skip }, async () => {
  const stream = unique('equal');
  const [id, far] = [unique('on'), unique('far')];
  const calls = [];
  for (const [n, peer] of peers.entries()) {
    peer.serve(id, (data) => { calls.push([n, data.id]); return { result: null }; });
    peer.send({ type: 'registertrigger', id: unique('t'), trigger_type: 'stream', function_id: id, config: { stream_name: stream } });
  }
  peers[1].serve(far, (data) => ({ result: { from: 1, got: data.x } }));
  await Promise.all(peers.map((peer) => peer.settled()));
  await until(async () => (await peers[0].call(far, { x: 2 })).result?.got === 2, 'a function of the other server to be called');
  await peers[0].result('stream::set', { ...at(stream, 'first'), data: 1 });
  await peers[1].result('stream::set', { ...at(stream, 'second'), data: 1 });
  await peers[0].result('stream::set', { ...at(stream, 'last'), data: 1 });
  await until(() => calls.filter(([n]) => n === 0).length === 2 && calls.some(([n]) => n === 1), 'the handlers to be called');
  // Each was answered only after its change was handed over: whoever would be called again would have been called by now.
  await Promise.all(peers.map((peer) => peer.settled()));
  assert.deepEqual(calls.filter(([n]) => n === 0), [[0, 'first'], [0, 'last']]);
  assert.deepEqual(calls.filter(([n]) => n === 1), [[1, 'second']]);
});

test('a lost channel is made good by a fresh sync, and the socket stays', { skip }, async () => {
  const stream = unique('lost');
  const { subscriber } = await joined(servers[0], stream);
  await redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
  const sync = await subscriber.take(({ event }) => event.type === 'sync', 'a fresh sync');
  assert.deepEqual(sync.event.data, []);
  await engineSets(stream, 'a', { id: 'a' }, { type: 'create' });
  const change = await subscriber.take(({ id }) => id === 'a', 'the change after it');
  assert.ok(sync.timestamp < change.timestamp);
  await subscriber.close();
});

test('messages that are no changes are counted and harm nobody', { skip }, async () => {
  const stream = unique('junk');
  const { subscriber } = await joined(servers[0], stream);
  for (const text of ['{oops', '', '{"type":"stream"}', '[1]']) await redis.call('PUBLISH', 'stream::events', text);
  await engineSets(stream, 'a', { id: 'a' }, { type: 'create' });
  assert.deepEqual((await within(subscriber.next(), 'the change', { server: servers[0] })).event, { type: 'create', data: { id: 'a' } });
  assert.equal((await servers[0].metrics()).iii_stream_redis_frames_unreadable_total, 4);
  await subscriber.close();
});
