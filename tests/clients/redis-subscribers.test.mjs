// What subscribers see of a Redis that stands still or is away: they stay, what they show comes true again, and how they join and leave
// meanwhile is no reason to close them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startServers, unique } from './harness.mjs';
import { range } from './raw.mjs';
import { startRedis, until, withoutRedis } from './redis.mjs';
import { Connection, mark, View } from './version-2.mjs';

const skip = withoutRedis;
const WAIT_MAX_MS = 400;

/** A server on a Redis of its own. */
async function begin(t, { config, ...more } = {}) {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const [server] = await startServers(1, { redis, config: { wait_max_ms: WAIT_MAX_MS, ...config }, ...more });
  t.after(() => server.stop());
  return { redis, server, at: { stream_name: unique('s'), group_id: 'g' } };
}

test('a client that joins and leaves again and again while Redis stands still is not closed', { skip }, async (t) => {
  const { redis, server, at } = await begin(t, { config: { wait_max_ms: 10_000 } });
  const connection = await Connection.open(server);
  const view = new View(unique('f'), at.stream_name, at.group_id);
  await mark(await server.peer(), at);
  redis.pause();
  for (const _ of range(500)) {
    connection.join(view);
    connection.leave(view);
  }
  connection.join(view);
  // An answer: all of them have been read.
  connection.send('?');
  assert.equal((await connection.next()).type, 'error');
  redis.resume();
  const last = await mark(await server.peer(), at);
  await connection.until(() => view.isLive && view.cursor === last, 'the last join to be live');
  assert.equal(connection.code, undefined);
  connection.cut();
});

test('a subscriber that has to begin anew while Redis is away stays, and begins anew once it is back', { skip }, async (t) => {
  const { redis, server, at } = await begin(t, { stream: { queue_bytes_max: 50_000 } });
  const [one, two] = [await Connection.open(server), await Connection.open(server, { version: 1 })];
  const view = one.join(new View(unique('f'), at.stream_name, at.group_id));
  const syncs = () => two.frames.filter(({ event }) => event?.type === 'sync').length;
  two.send({ type: 'join', data: { subscriptionId: 's', streamName: at.stream_name, groupId: at.group_id } });
  await one.until(() => view.isLive, 'version 2 to be live');
  await two.until(() => syncs() === 1, 'version 1 to be there');
  for (const { ws } of [one, two]) ws.pause();
  const peer = await server.peer();
  const missed = async () => Number((await server.metrics()).iii_stream_slow_consumer_missed_events_total);
  do await peer.result('stream::set', { ...at, item_id: 'i', data: 'x'.repeat(200_000), returning: 'none' });
  while ((await missed()) < 2);
  await redis.kill();
  const failed = async () => Number((await server.metrics())['iii_stream_redis_calls_total{outcome="unavailable"}']);
  const before = await failed();
  for (const { ws } of [one, two]) ws.resume();
  // Both have tried more than once.
  await until(async () => await failed() >= before + 6, 'reads to fail');
  assert.deepEqual([one.code, two.code], [undefined, undefined]);
  await redis.start();
  const last = await until(() => mark(peer, at), 'Redis to take a change');
  await one.until(() => view.isLive && view.cursor === last, 'version 2 to be told of everything');
  await two.until(() => syncs() > 1, 'version 1 to be told how things stand');
  for (const connection of [one, two]) connection.cut();
});

test('a first join while Redis is away waits for it, then the connection is closed with 1013', { skip }, async (t) => {
  const { redis, server, at } = await begin(t);
  await redis.kill();
  const [one, two] = [await Connection.open(server), await Connection.open(server, { version: 1 })];
  one.join(new View(unique('f'), at.stream_name, at.group_id));
  two.send({ type: 'join', data: { subscriptionId: 's', streamName: at.stream_name, groupId: at.group_id } });
  assert.deepEqual(await Promise.all([one.closed, two.closed]), [1013, 1013]);
});
