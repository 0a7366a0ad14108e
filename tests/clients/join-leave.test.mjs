// `stream:join` and `stream:leave` triggers: input, refusing a subscription, filters, fail-open (stream-functions.md §9.2).
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { deferred, Record, settled, startServer, unique } from './harness.mjs';

let server;
let sdk;
before(async () => {
  server = await startServer();
  sdk = server.sdk();
});
after(() => server?.stop());

/** Binds a handler to join or leave of one stream; returns what it was called with and a way to unbind. */
async function on(type, stream_name, handler = () => ({}), config = {}) {
  const calls = new Record(server);
  const function_id = unique(`on::${type}`);
  sdk.registerFunction(function_id, async (input) => { calls.push(input); return handler(input); });
  const trigger = sdk.registerTrigger({ type: `stream:${type}`, function_id, config: { stream_name, ...config } });
  await settled(sdk);
  return Object.assign(calls, { trigger });
}

test('join and leave tell subscription, stream, group, id and context', async () => {
  const stream = unique('presence');
  const [joins, leaves] = [await on('join', stream), await on('leave', stream)];
  const subscriber = await server.subscriber();
  const [group, item] = [randomUUID(), randomUUID()];
  await subscriber.join(stream, 'g', undefined, group);
  await subscriber.join(stream, 'g', 'i', item);
  const of = (subscription_id, id) => ({ subscription_id, stream_name: stream, group_id: 'g', id, context: null });
  assert.deepEqual(await joins.count(2), [of(group, null), of(item, 'i')]);
  subscriber.send({ type: 'leave', data: { subscriptionId: item, streamName: stream, groupId: 'g', id: 'i' } });
  assert.deepEqual(await leaves.count(1), [of(item, 'i')]);
  await subscriber.close();
  assert.deepEqual(await leaves.count(2), [of(item, 'i'), of(group, null)], 'the end of the socket is a leave for what is still open');
});

test('the context that the auth function gave reaches join and leave', async () => {
  const guarded = await startServer({ stream: { auth_function: 'my::auth' } });
  try {
    const worker = guarded.sdk();
    worker.registerFunction('my::auth', async ({ headers, query_params }) => ({ context: query_params.none ? null : { agent: headers['x-agent'] } }));
    const seen = new Record(guarded);
    worker.registerFunction('on::both', async ({ context, stream_name }) => { seen.push([stream_name, context]); return {}; });
    for (const type of ['stream:join', 'stream:leave']) worker.registerTrigger({ type, function_id: 'on::both', config: {} });
    await settled(worker);
    for (const [path, context] of [['/', { agent: '007' }], ['/?none', null]]) {
      const known = seen.items.length;
      const subscriber = await guarded.subscriber(path, { headers: { 'X-Agent': '007' } });
      await subscriber.join('auth', 'g');
      await subscriber.close();
      assert.deepEqual((await seen.count(known + 2)).slice(known), [['auth', context], ['auth', context]]);
    }
  } finally {
    await guarded.stop();
  }
});

test('a socket that breaks leaves too', async () => {
  const stream = unique('broken');
  const leaves = await on('leave', stream);
  const subscriber = await server.subscriber();
  await subscriber.join(stream, 'g');
  subscriber.ws.terminate();
  assert.equal((await leaves.count(1))[0].group_id, 'g');
});

test('unauthorized: true refuses: a frame, no events, no leave, the socket stays', async () => {
  const stream = unique('guarded');
  const [joins, leaves] = [await on('join', stream, ({ group_id }) => ({ unauthorized: group_id === 'secret' })), await on('leave', stream)];
  const subscriber = await server.subscriber();
  for (const id of [undefined, 'i']) {
    const { timestamp, ...frame } = await subscriber.join(stream, 'secret', id);
    assert.deepEqual(frame, { type: 'stream', streamName: stream, groupId: 'secret', id: id ?? null, event: { type: 'unauthorized' } });
    assert.ok(Number.isInteger(timestamp));
  }
  assert.equal((await subscriber.join(stream, 'open')).event.type, 'sync', 'the same socket may join elsewhere');
  await sdk.trigger({ function_id: 'stream::set', payload: { stream_name: stream, group_id: 'secret', item_id: 'i', data: 1 } });
  await sdk.trigger({ function_id: 'stream::set', payload: { stream_name: stream, group_id: 'open', item_id: 'i', data: 1 } });
  assert.equal((await subscriber.next()).groupId, 'open', 'nothing of the refused group');
  await subscriber.close();
  assert.deepEqual((await leaves.count(1)).map((l) => l.group_id), ['open']);
  assert.equal(joins.items.length, 3);
});

for (const [what, answer] of [
  ['{}', () => ({})], ['nothing', () => undefined], ['null', () => null], ['a string', () => 'unauthorized'],
  ['unauthorized: false', () => ({ unauthorized: false })], ['unauthorized: "true"', () => ({ unauthorized: 'true' })],
  ['unauthorized: 1', () => ({ unauthorized: 1 })], ['an error', () => { throw new Error('guard broken'); }],
]) {
  test(`a join trigger that gives ${what} lets in`, async () => {
    const stream = unique('open');
    const joins = await on('join', stream, answer);
    const subscriber = await server.subscriber();
    assert.equal((await subscriber.join(stream, 'g')).event.type, 'sync');
    assert.equal(joins.items.length, 1);
  });
}

test('a join trigger without a function lets in', async () => {
  const stream = unique('unserved');
  const peer = await server.peer();
  peer.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream:join', function_id: 'no::such::guard', config: { stream_name: stream } });
  await peer.settled();
  assert.equal((await (await server.subscriber()).join(stream, 'g')).event.type, 'sync');
});

test('several join triggers are all asked; one refusal is enough', async () => {
  const stream = unique('several');
  const first = await on('join', stream, () => ({ unauthorized: true }));
  const second = await on('join', stream);
  const subscriber = await server.subscriber();
  assert.equal((await subscriber.join(stream, 'g')).event.type, 'unauthorized');
  await Promise.all([first.count(1), second.count(1)]);
  first.trigger.unregister();
  await settled(sdk);
  assert.equal((await subscriber.join(stream, 'g')).event.type, 'sync');
});

test('stream_name and condition filter; a skipped trigger refuses nobody', async () => {
  const stream = unique('filtered');
  const elsewhere = await on('join', `${stream}-other`, () => ({ unauthorized: true }));
  const condition = unique('condition');
  sdk.registerFunction(condition, async (input) => input.group_id === 'asked');
  const conditional = await on('join', stream, () => ({ unauthorized: true }), { condition_function_id: condition });
  const subscriber = await server.subscriber();
  assert.equal((await subscriber.join(stream, 'g')).event.type, 'sync');
  assert.equal((await subscriber.join(stream, 'asked')).event.type, 'unauthorized');
  assert.deepEqual(elsewhere.items, []);
  assert.deepEqual(conditional.items.map((j) => j.group_id), ['asked']);
});

test('a join trigger without stream_name, or without config, sees every stream', async () => {
  const peer = await server.peer();
  const fn = unique('on::any');
  const seen = new Record(server);
  peer.serve(fn, (data) => { seen.push(data.stream_name); return { result: {} }; });
  const ids = [randomUUID(), randomUUID()];
  peer.send({ type: 'registertrigger', id: ids[0], trigger_type: 'stream:join', function_id: fn, config: {} });
  peer.send({ type: 'registertrigger', id: ids[1], trigger_type: 'stream:join', function_id: fn });
  await peer.settled();
  const stream = unique('any');
  await (await server.subscriber()).join(stream, 'g');
  assert.deepEqual(await seen.count(2), [stream, stream]);
  for (const id of ids) peer.send({ type: 'unregistertrigger', id });
  await peer.settled();
});

test('a slow join trigger delays neither pings nor other joins of the socket', async () => {
  const stream = unique('slow');
  const release = deferred();
  const joins = await on('join', stream, async ({ group_id }) => { if (group_id === 'slow') await release.promise; return {}; });
  const subscriber = await server.subscriber();
  const slow = subscriber.join(stream, 'slow');
  await joins.count(1);
  assert.equal(await subscriber.ping('meanwhile'), 'meanwhile');
  assert.equal((await subscriber.join(stream, 'quick')).event.type, 'sync');
  release.resolve();
  assert.equal((await slow).event.type, 'sync');
});

test('leave is fired only for subscriptions that exist, with their own data', async () => {
  const stream = unique('spoof');
  const leaves = await on('leave', stream);
  const subscriber = await server.subscriber();
  const subscriptionId = randomUUID();
  await subscriber.join(stream, 'mine', undefined, subscriptionId);
  const leave = (data) => subscriber.send({ type: 'leave', data: { streamName: stream, ...data } });
  leave({ subscriptionId: randomUUID(), groupId: 'somebody-else' });
  leave({ subscriptionId, groupId: 'somebody-else', id: 'x' });
  const [first] = await leaves.count(1);
  assert.deepEqual([first.subscription_id, first.group_id, first.id], [subscriptionId, 'mine', null]);
  leave({ subscriptionId, groupId: 'mine' });
  await subscriber.close();
  const other = await server.subscriber();
  await other.join(stream, 'marker');
  await other.close();
  await leaves.count(2);
  assert.deepEqual(leaves.items.map((l) => l.group_id), ['mine', 'marker']);
});

test('a path subscription joins and leaves like any other', async () => {
  const stream = unique('by-path');
  const [joins, leaves] = [await on('join', stream, ({ group_id }) => ({ unauthorized: group_id === 'secret' })), await on('leave', stream)];
  const subscriber = await server.subscriber(`/stream/${stream}/room`);
  assert.equal((await subscriber.sync(stream, 'room')).event.type, 'sync');
  const [join] = await joins.count(1);
  assert.match(join.subscription_id, /^[0-9a-f-]{36}$/);
  await subscriber.close();
  assert.deepEqual(await leaves.count(1), [join]);
  const refused = await server.subscriber(`/stream/${stream}/secret/`);
  assert.equal((await refused.sync(stream, 'secret')).event.type, 'unauthorized');
});
