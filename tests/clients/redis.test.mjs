// What the tests on Redis stand on: servers that restart with what they had, failovers, a Cluster, a proxy that misbehaves.
import assert from 'node:assert/strict';
import test from 'node:test';
import { startProxy } from './proxy.mjs';
import { slotOf, startCluster, startRedis, startSentinels, until, withoutRedis } from './redis.mjs';
import { RedisConnection } from './resp.mjs';

const skip = withoutRedis;

test('a Redis that is killed comes back on its port with what it had', { skip }, async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  await redis.call('SET', 'a', 'b');
  const { port } = redis;
  await redis.restart({ signal: 'SIGKILL' });
  assert.equal(redis.port, port);
  assert.equal(await redis.call('GET', 'a'), 'b');
  await assert.rejects(redis.call('NONSENSE'), /unknown command/);
  redis.pause();
  const asked = redis.call('GET', 'a');
  redis.resume();
  assert.equal(await asked, 'b');
});

test('a proxy holds, delays, cuts and heals', { skip }, async (t) => {
  const redis = await startRedis();
  const proxy = await startProxy(redis.port);
  t.after(() => { proxy.close(); return redis.stop(); });
  const connection = new RedisConnection(proxy.port);
  assert.equal(await connection.call('SET', 'a', 1), 'OK');
  for (const [direction, wasDone] of [['to', false], ['from', true]]) {
    proxy.hold(direction);
    const late = connection.call('INCR', 'a');
    const before = Number(await redis.call('GET', 'a'));
    // What is held on its way back was done; what is held on its way there is done after the network has come back.
    if (wasDone) await until(async () => Number(await redis.call('GET', 'a')) === 3, 'the command to be done');
    else assert.equal(before, 1);
    proxy.heal();
    assert.equal(await late, wasDone ? 3 : 2);
  }
  proxy.delay(50);
  const begun = performance.now();
  await connection.call('PING');
  assert.ok(performance.now() - begun >= 95);
  proxy.heal();
  proxy.cut();
  await assert.rejects(connection.call('PING'));
  await assert.rejects(new RedisConnection(proxy.port).call('PING'));
  proxy.heal();
  assert.equal(await new RedisConnection(proxy.port).call('PING'), 'PONG');
});

test('Sentinels replace a primary that is gone', { skip }, async (t) => {
  const sentinels = await startSentinels();
  t.after(() => sentinels.stop());
  const old = await sentinels.primary();
  await old.call('SET', 'a', 'b');
  await old.call('WAIT', 1, 5_000);
  await old.kill();
  const next = await sentinels.promoted(old);
  assert.equal(await next.call('GET', 'a'), 'b');
});

test('a slot of a Cluster moves with its keys, and a replica takes over', { skip }, async (t) => {
  const cluster = await startCluster({ replicas: true });
  t.after(() => cluster.stop());
  const key = 'x{tag}';
  const slot = slotOf(key);
  assert.equal(await cluster.nodes[0].call('CLUSTER', 'KEYSLOT', key), slot);
  const from = await cluster.nodeOf(slot);
  await from.call('SET', key, 'here');
  const to = cluster.masters.find((node) => node !== from);
  await cluster.moveSlot(slot, to);
  await assert.rejects(from.call('GET', key), new RegExp(`MOVED ${slot} .*:${to.port}`));
  assert.equal(await to.call('GET', key), 'here');
  const next = await cluster.failover(to);
  assert.equal(await next.call('GET', key), 'here');
});
