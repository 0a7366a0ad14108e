// Stream triggers of several servers on one Redis: equal bindings on three servers call once per change, in the order of the group;
// exactly once over a stop of the server that leads and over an absence of Redis, at least once when the server is killed or stands still.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as after } from 'node:timers/promises';
import { startCluster, until, withoutRedis } from './redis.mjs';
import { CONFIG, GROUPS, TriggerScene } from './trigger-scene.mjs';

const skip = withoutRedis;
/** Longer than the lease of a trigger in these tests. */
const LONG_MS = CONFIG.instance_gone_ms * 2;

test('three equal workers are called once per change, in the order of each group', { skip }, async (t) => {
  const scene = await TriggerScene.begin(t);
  await scene.write(0, 60);
  await scene.all(60);
  scene.assertOnce(60);
});

test('a stop of the server that leads, under load, loses, doubles and misorders nothing', { skip }, async (t) => {
  const scene = await TriggerScene.begin(t);
  await scene.write(0, 10);
  await scene.all(10);
  const leads = scene.leader;
  await Promise.all([scene.stopOne(leads), scene.write(10, 120, scene.others(leads))]);
  await scene.all(120);
  scene.assertOnce(120);
});

test('a server that leads and is killed: each change is called at least once, in order but for what is repeated', { skip }, async (t) => {
  const scene = await TriggerScene.begin(t);
  await scene.write(0, 10);
  await scene.all(10);
  const leads = scene.leader;
  // The one that commits is the one that dies, right after its answer.
  await Promise.all(GROUPS.map((group) => scene.set(leads, group, 10)));
  await scene.kill(leads);
  await scene.write(11, 40, scene.others(leads));
  await scene.all(40);
  scene.assertEach(40);
});

test('a server that leads and stands still under load: another one goes on, each change is called, in order but for what is repeated', { skip }, async (t) => {
  const scene = await TriggerScene.begin(t);
  await scene.write(0, 10);
  await scene.all(10);
  const leads = scene.leader;
  const { pid } = scene.servers[leads];
  let calledBefore;
  const next = await scene.writeDuring(10, async () => {
    process.kill(pid, 'SIGSTOP');
    try {
      await until(() => scene.leader !== leads, 'another server to lead');
      calledBefore = scene.calls.length;
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await until(async () => (await scene.servers[leads].page('/ready')).status === 200, 'the one that stood still to go on');
  }, scene.others(leads));
  await scene.write(next, next + 20);
  await scene.all(next + 20);
  scene.assertEach(next + 20);
  for (const group of GROUPS) {
    const repeated = scene.numbers(group).length - (next + 20);
    // What was on its way when it was stopped, and what it had done since its cursor was written last.
    assert.ok(repeated <= 20, `${group}: ${repeated} of ${next + 20} were repeated`);
  }
  // What it had queued is dropped when it wakes: only what had passed its look at the lease may still leave, a change of each group.
  const late = scene.calls.slice(calledBefore).filter(({ at }) => at === leads);
  assert.ok(late.length <= GROUPS.length, `the one that stood still made ${late.length} calls when it woke: ${JSON.stringify(late)}`);
});

for (const [what, away] of [
  ['a restart of Redis', (redis) => redis.restart({ signal: 'SIGTERM', meanwhile: () => after(LONG_MS) })],
  ['a crash of Redis', (redis) => redis.restart({ signal: 'SIGKILL', meanwhile: () => after(LONG_MS) })],
  ['a Redis that stands still for 6 s', async (redis) => { redis.pause(); await after(6_000); redis.resume(); }],
]) {
  test(`${what} under load: what was acknowledged before and after is called once, in order`, { skip }, async (t) => {
    const scene = await TriggerScene.begin(t);
    const { redis } = scene;
    const epoch = async () => (await redis.call('HGET', (await redis.call('KEYS', '*g:{shared*'))[0], 'm')).match(/(\S+) \S+$/)[1];
    await scene.write(0, 10);
    await scene.all(10);
    const before = await epoch();
    const next = await scene.writeDuring(10, () => away(redis));
    await scene.write(next, next + 20);
    await scene.all(next + 20, { ms: 30_000 });
    scene.assertEach(next + 20);
    if (!what.includes('still')) assert.notEqual(await epoch(), before, 'the history begins anew');
    // A call whose answer came while Redis was away, right when the lease was lost, may be made again.
    for (const group of GROUPS) assert.ok(scene.numbers(group).length <= next + 21, `${group}: ${scene.numbers(group).length} calls of ${next + 20} changes`);
  });
}

test('a Redis Cluster of three masters: once per change, also while a slot moves and over a stop of the server that leads', { skip }, async (t) => {
  const redis = await startCluster();
  const scene = await TriggerScene.begin(t, { redis, prefix: 'c:' });
  await scene.write(0, 20);
  await scene.all(20);
  const slot = Number(await redis.masters[0].call('CLUSTER', 'KEYSLOT', `c:g:{${scene.stream_name}:g1}`));
  const from = await redis.nodeOf(slot);
  const next = await scene.writeDuring(20, () => redis.moveSlot(slot, redis.masters.find((node) => node !== from)));
  await scene.all(next);
  const leads = scene.leader;
  await Promise.all([scene.stopOne(leads), scene.write(next, next + 40, scene.others(leads))]);
  await scene.all(next + 40);
  scene.assertOnce(next + 40);
});
