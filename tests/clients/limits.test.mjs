// What happens at the configured bounds: silent peers, slow readers, too many of something, tokens and origins (design §5, §6, §8).
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { after, test } from 'node:test';
import { deferred, Record, rejection, settled, startServer, unique, upgrade } from './harness.mjs';
import { until } from './redis.mjs';

const servers = [];
after(async () => { for (const server of servers) await server.stop(); });

/** A server of its own with these bounds, stopped at the end. */
async function bounded(config) {
  const server = await startServer(config);
  servers.push(server);
  return server;
}

/** A WebSocket connection by raw TCP: it reads nothing and answers nothing by itself. */
async function deaf(server, base, ...texts) {
  const { hostname, port } = new URL(base);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {}); // being reset is one way to be dropped
  const opened = deferred();
  socket.once('data', () => { socket.pause(); opened.resolve(); });
  socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n');
  await server.within(opened.promise, 'the upgrade');
  for (const text of texts) {
    assert.ok(Buffer.byteLength(text) < 126 + 65_410);
    const head = Buffer.from([0x81, 0x80 | 126, 0, 0, 0, 0, 0, 0]); // a mask of zeros
    head.writeUInt16BE(Buffer.byteLength(text), 2);
    socket.write(Buffer.concat([head, Buffer.from(text)]));
  }
  return socket;
}

test('a worker that shows no life is dropped, and its callers are told', async () => {
  const server = await bounded({ manager: { ping_interval_ms: 100, idle_timeout_ms: 400 } });
  const id = unique('fn::silent');
  const silent = await deaf(server, server.workers, JSON.stringify({ type: 'registerfunction', id }));
  const caller = await server.peer();
  // Wait until it is registered, by asking; the unanswered call is then the one that must be told.
  let answer;
  do answer = await caller.call(id, {}); while (answer.error.code === 'function_not_found');
  assert.equal(answer.error.code, 'invocation_stopped');
  assert.equal((await caller.call(id, {})).error.code, 'function_not_found', 'its functions are gone');
  assert.equal(await caller.ping('mine'), 'mine', 'one that answers pings stays');
  silent.destroy();
});

test('a subscriber that shows no life is dropped; one that only listens stays', async () => {
  const server = await bounded({ stream: { ping_interval_ms: 100, idle_timeout_ms: 400 } });
  const [silent, listener, peer] = [await deaf(server, server.subscribers), await server.subscriber(), await server.peer()];
  await listener.join('limits', 'idle');
  const gone = deferred();
  silent.on('close', () => gone.resolve());
  silent.resume();
  await server.within(gone.promise, 'the silent subscriber to be dropped');
  await peer.result('stream::set', { stream_name: 'limits', group_id: 'idle', item_id: 'i', data: 1 });
  assert.equal((await listener.next()).event.data, 1);
});

test('too many unanswered calls of one connection are refused, others are not', async () => {
  const server = await bounded({ manager: { calls_in_flight_max: 5 } });
  const [owner, busy, other] = [await server.peer(), await server.peer(), await server.peer()];
  const id = unique('fn::held');
  const held = new Record(server);
  owner.serve(id, (data, frame) => { held.push(frame.invocation_id); });
  await owner.settled();
  const open = [1, 2, 3, 4, 5].map(() => busy.call(id, {}));
  const refused = await busy.call(id, {});
  assert.equal(refused.error.code, 'too_many_calls');
  assert.match(refused.error.message, /5/);
  assert.equal((await busy.call('stream::list_all', {})).error.code, 'too_many_calls');
  assert.ok(await other.result('stream::list_all', {}));
  for (const invocation_id of await held.count(5)) owner.send({ type: 'invocationresult', invocation_id, function_id: id, result: 1 });
  assert.deepEqual((await Promise.all(open)).map((frame) => frame.result), [1, 1, 1, 1, 1]);
  assert.ok(await busy.result('stream::list_all', {}), 'answers make room');
});

test('messages above message_bytes_max close with 1009, those at it pass', async () => {
  const server = await bounded({ manager: { message_bytes_max: 1_000 }, stream: { message_bytes_max: 300 } });
  for (const [base, bytes] of [[server.workers, 1_000], [server.subscribers, 300]]) {
    const [fits, exceeds] = [await server.socket(base, '/'), await server.socket(base, '/')];
    fits.send(' '.repeat(bytes));
    assert.equal(await fits.ping('alive'), 'alive');
    exceeds.send(' '.repeat(bytes + 1));
    assert.equal((await server.within(exceeds.closed, 'the refusal')).code, 1009);
  }
});

test('connections above connections_max are refused until one ends', async () => {
  const server = await bounded({ stream: { connections_max: 2 } });
  const [first] = [await server.subscriber(), await server.subscriber()];
  await rejection(server.subscriber(), 'a third connection');
  await first.close();
  const again = async () => {
    try { return await server.subscriber(); } catch { return again(); }
  };
  // The place is free when the server has let go of the connection, a moment after the client has.
  const third = await server.within(again(), 'a place');
  assert.equal((await third.join('limits', 'g')).event.type, 'sync');
});

test('subscriptions above subscriptions_max are unauthorized until one ends', async () => {
  const server = await bounded({ stream: { subscriptions_max: 2 } });
  const subscriber = await server.subscriber();
  await subscriber.join('limits', 'a', undefined, 'one');
  await subscriber.join('limits', 'b', undefined, 'two');
  assert.equal((await subscriber.join('limits', 'c', undefined, 'three')).event.type, 'unauthorized');
  assert.equal((await subscriber.join('limits', 'd', undefined, 'two')).event.type, 'sync', 'replacing is not adding');
  subscriber.send({ type: 'leave', data: { subscriptionId: 'one', streamName: 'limits', groupId: 'a' } });
  assert.equal((await subscriber.join('limits', 'c', undefined, 'three')).event.type, 'sync');
});

test('a subscriber that does not read delays nobody and is told that it missed something', async () => {
  const server = await bounded({ stream: { queue_bytes_max: 1024 * 1024 } });
  const [slow, quick, peer] = [await server.subscriber(), await server.subscriber(), await server.peer()];
  await slow.join('limits', 'slow');
  await quick.join('limits', 'slow');
  slow.ws.pause();
  // 64 MiB in all: more than the kernel's buffers and the bound together can hold. Half the bound at a time, so that
  // it is only the one that does not read who reaches it.
  const text = 'x'.repeat(64 * 1024);
  const [ROUNDS, AT_ONCE] = [128, 8];
  for (let round = 0; round < ROUNDS; round += 1) {
    for (let n = 0; n < AT_ONCE; n += 1) {
      peer.void('stream::set', { stream_name: 'limits', group_id: 'slow', item_id: 'i', data: { n: round * AT_ONCE + n, text } });
    }
    for (let n = 0; n < AT_ONCE; n += 1) assert.equal((await quick.next()).event.data.n, round * AT_ONCE + n, 'the quick one misses nothing');
  }
  slow.ws.resume();
  // Told it is either by a close, after which a client gets a fresh sync, or by a fresh sync at once. Never by silence.
  const told = await Promise.race([
    slow.closed.then(({ code }) => `closed with ${code}`),
    slow.take((f) => f.event.type === 'sync', 'a fresh sync or a close').then((sync) => `sync of ${sync.event.data[0].n}`),
  ]);
  assert.match(told, new RegExp(`^(closed with 4008|sync of ${ROUNDS * AT_ONCE - 1})$`));
  const before = slow.frames.filter((frame) => frame.event.type !== 'sync');
  before.forEach((frame, n) => assert.equal(frame.event.data.n, n, 'what it got has no gap'));
  assert.ok(before.length < ROUNDS * AT_ONCE, 'it did not read');
});

test('a subscriber that does not read but keeps sending gives its place up', async () => {
  const server = await bounded({ stream: { queue_bytes_max: 256 * 1024, blocked_timeout_ms: 1500 } });
  const peer = await server.peer();
  const socket = await deaf(server, server.subscribers, JSON.stringify({ type: 'join', data: { subscriptionId: 's', streamName: 'limits', groupId: 'deaf' } }));
  const closed = deferred();
  socket.once('close', () => closed.resolve());
  const pings = setInterval(() => socket.write(Buffer.from([0x89, 0x80, 0, 0, 0, 0])), 50);
  try {
    const text = 'x'.repeat(64 * 1024);
    // It joins when the store has let it: nobody sees that.
    await until(async () => (await server.metrics())['iii_stream_subscriptions'] === 1, 'the deaf subscriber to have joined');
    for (let n = 0; n < 400; n += 1) peer.void('stream::set', { stream_name: 'limits', group_id: 'deaf', item_id: 'i', data: { n, text } });
    await peer.settled();
    await server.within(closed.promise, 'the deaf subscriber to be dropped');
  } finally {
    clearInterval(pings);
  }
});

test('a sync larger than the bound arrives, and so do twenty at once', async () => {
  const server = await bounded({ stream: { queue_bytes_max: 64 * 1024 } });
  const [peer, subscriber] = [await server.peer(), await server.subscriber()];
  const text = 'x'.repeat(300 * 1024);
  const groups = Array.from({ length: 20 }, (_, n) => `big-${n}`);
  for (const group_id of groups) await peer.result('stream::set', { stream_name: 'limits', group_id, item_id: 'i', data: { group_id, text } });
  subscriber.ws.pause();
  for (const groupId of groups) subscriber.send({ type: 'join', data: { subscriptionId: groupId, streamName: 'limits', groupId } });
  await peer.settled();
  subscriber.ws.resume();
  for (const group_id of groups) {
    const sync = await subscriber.take((f) => f.groupId === group_id && f.event.type === 'sync', `the sync of ${group_id}`);
    assert.deepEqual(sync.event.data, [{ group_id, text }]);
  }
  // All of them are live.
  for (const group_id of groups) peer.void('stream::set', { stream_name: 'limits', group_id, item_id: 'i', data: { group_id } });
  for (const group_id of groups) await subscriber.take((f) => f.groupId === group_id && f.event.type === 'update', `an event of ${group_id}`);
});

test('workers need the token, in every way they connect', async () => {
  const server = await bounded({ manager: { token: 'open-sesame' } });
  for (const path of ['/', '/otel']) {
    assert.equal((await rejection(server.socket(server.workers, path))).status, 401, path);
    assert.equal((await rejection(server.socket(server.workers, path, { headers: { Authorization: 'Bearer wrong' } }))).status, 401, path);
    assert.equal((await rejection(server.socket(server.workers, path, { headers: { Authorization: 'open-sesame' } }))).status, 401, path);
  }
  const peer = await server.peer('/', { headers: { Authorization: 'Bearer open-sesame' } });
  assert.ok(await peer.result('stream::list_all', {}));
  const sdk = server.sdk({ headers: { Authorization: 'Bearer open-sesame' } });
  assert.deepEqual(await settled(sdk), { stream: [], count: 0 });
});

test('require_context turns {context: null} into a refusal; expires_at ends a connection with 4001', async () => {
  const server = await bounded({ stream: { auth_function: 'my::auth', require_context: true } });
  const sdk = server.sdk();
  sdk.registerFunction('my::auth', async ({ query_params: { who, seconds } }) => ({
    context: who ? { who: who[0] } : null, ...(seconds && { expires_at: Math.floor(Date.now() / 1_000) + Number(seconds[0]) }),
  }));
  await settled(sdk);
  assert.equal((await rejection(server.subscriber('/'))).status, 401);
  const subscriber = await server.subscriber('/?who=me');
  assert.equal((await subscriber.join('limits', 'g')).event.type, 'sync');
  const brief = await server.subscriber('/?who=me&seconds=1');
  assert.equal((await server.within(brief.closed, 'the permission to expire')).code, 4001);
  assert.equal(await subscriber.ping('mine'), 'mine');
});

test('pages of other origins may not connect; programs, which send none, may', async () => {
  const server = await bounded({ stream: { allowed_origins: ['https://app.example'] } });
  const status = async (headers) => (await upgrade(server.subscribers, '/', headers)).status;
  assert.equal(await status({ Origin: 'https://app.example' }), 101);
  assert.equal(await status({ Origin: 'https://evil.example' }), 403);
  assert.equal(await status({ Origin: 'https://app.example.evil.example' }), 403);
  assert.equal(await status({ Origin: 'null' }), 403);
  assert.equal(await status({}), 101);
});

test('handlers that never answer give their places up when their time is over', async () => {
  const server = await bounded({ stream: { handler_timeout_ms: 300 } });
  const peer = await server.peer();
  const calls = new Record(server);
  peer.serve('on::stuck', (data) => { calls.push(data.event.data); });
  peer.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream', function_id: 'on::stuck', config: { stream_name: 'limits' } });
  for (let n = 0; n < 200; n += 1) peer.void('stream::set', { stream_name: 'limits', group_id: 'stuck', item_id: 'i', data: n });
  // 64 may be open at a time, so the later ones come only when the time of the earlier ones is over.
  assert.deepEqual(await calls.count(200), Array.from({ length: 200 }, (_, n) => n));
});

test('a condition that never answers skips its handler when its time is over', async () => {
  const server = await bounded({ stream: { handler_timeout_ms: 300 } });
  const peer = await server.peer();
  const calls = new Record(server);
  peer.serve('condition', (data) => (data.id === 'stuck' ? undefined : { result: true }));
  peer.serve('on::judged', (data) => { calls.push(data.id); return { result: {} }; });
  peer.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream', function_id: 'on::judged', config: { stream_name: 'limits', condition_function_id: 'condition' } });
  for (const item_id of ['stuck', 'after']) await peer.result('stream::set', { stream_name: 'limits', group_id: 'g', item_id, data: 1 });
  assert.deepEqual(await calls.count(1), ['after']);
});
