// What a fault of Redis, or of the network to it, does to two instances under load: no acknowledged change is lost, none is done twice,
// the order stays, calls are answered in time, and no subscriber is left behind in silence.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as after } from 'node:timers/promises';
import { AWAY, Scene, SLACK_MS, WAIT_MAX_MS } from './fault-scene.mjs';
import { rejection, startServer } from './harness.mjs';
import { startProxy } from './proxy.mjs';
import { freePort, inStep, slotOf, startCluster, startRedis, startSentinels, until, withoutRedis } from './redis.mjs';

const skip = withoutRedis;
const all = (list, work) => Promise.all(list.map(work));

/** A writer that keeps no book: what a replica never had is lost by Redis itself, and its mutations with it. */
class Careless {
  acknowledged = [];
  errors = new Map();
  #isOver = false;

  constructor(fleet, number, at) {
    Object.assign(this, { fleet, number, at });
  }

  start() {
    this.running = this.#run();
    this.running.catch((error) => { this.fault = error; });
    return this;
  }

  async #run() {
    const peer = await (await this.fleet.pick(this.number)).peer();
    while (!this.#isOver) {
      const { error, result } = await peer.call('stream::update', {
        ...this.at, item_id: `i${this.acknowledged.length % 7}`, ops: [{ type: 'increment', path: 'n', by: 1 }], returning: 'none',
      });
      if (error) this.errors.set(`${error.code} ${error.storage}`, 1);
      else this.acknowledged.push(result.seq);
      await after(error ? 25 : 2);
    }
  }

  async stop() {
    this.#isOver = true;
    await this.running;
  }

  abandon() {
    this.#isOver = true;
  }

  leave() {}
}

for (const signal of ['SIGTERM', 'SIGKILL']) {
  test(`Redis is restarted under load (${signal})`, { skip }, async (t) => {
    const redis = await startRedis();
    t.after(() => redis.stop());
    const scene = await Scene.begin(t, redis);
    for (const round of [1, 2]) {
      await redis.restart({ signal, meanwhile: () => after(round === 1 ? 0 : 800) });
      await scene.goesOn(`restart ${round}`);
    }
    await scene.finish();
    for (const what of scene.errors.keys()) assert.match(what, AWAY);
  });
}

test('Redis stands still for 10 s: calls are answered in time, subscribers stay and heal', { skip }, async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const scene = await Scene.begin(t, redis);
  const [server] = scene.servers;
  const peer = await server.peer();
  redis.pause();
  const begun = performance.now();
  const asked = [];
  const ask = async (id, data, keep = () => {}) => {
    const from = performance.now();
    const { error } = await peer.call(id, data);
    const took = performance.now() - from;
    assert.ok(took < WAIT_MAX_MS + SLACK_MS, `${id} took ${Math.round(took)} ms`);
    assert.match(error?.storage ?? 'none', /^(unavailable|unknown|behind)$/, `${id}: ${JSON.stringify(error)}`);
    keep(error.storage);
  };
  let notReady = false;
  for (let n = 0; performance.now() - begun < 10_000; n += 1) {
    const item_id = `plain-${n}`;
    await Promise.all([
      ask('stream::set', { ...scene.at, item_id, data: n }, (storage) => asked.push({ item_id, storage })),
      ask('stream::get', { ...scene.at, item_id: 'i1' }),
      ask('stream::list', { stream_name: 'elsewhere', group_id: 'g' }),
      after(300),
    ]);
    notReady ||= (await server.page('/ready')).status === 503;
  }
  assert.ok(notReady, 'the instance said that it is not ready');
  redis.resume();
  await scene.goesOn('it is back');
  await until(async () => (await server.page('/ready')).status === 200, 'the instance to be ready again');
  // What surely was not carried out was not, also not later.
  for (const { item_id, storage } of asked) {
    if (storage === 'unavailable') assert.equal(await peer.result('stream::get', { ...scene.at, item_id }), undefined, item_id);
  }
  assert.ok(asked.length >= 3);
  await scene.finish({ resets: false });
  for (const what of scene.errors.keys()) assert.match(what, AWAY);
  for (const { longestMs } of scene.writers) assert.ok(longestMs < WAIT_MAX_MS + SLACK_MS, `a call took ${Math.round(longestMs)} ms`);
});

test('subscription connections that Redis ends are made anew, and nobody notices', { skip }, async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const scene = await Scene.begin(t, redis);
  for (const round of [1, 2, 3, 4, 5]) {
    assert.ok(await redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub') >= 2);
    await scene.goesOn(`round ${round}`);
  }
  assert.deepEqual([...scene.errors], []);
  await scene.finish({ resets: false });
});

test('all connections are ended at once, again and again', { skip }, async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const scene = await Scene.begin(t, redis);
  for (const round of [1, 2, 3]) {
    await redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await scene.goesOn(`round ${round}`);
  }
  await scene.finish({ resets: false });
});

test('a primary that has handed everything on is lost, and Sentinels promote its replica', { skip }, async (t) => {
  const sentinels = await startSentinels();
  t.after(() => sentinels.stop());
  const scene = await Scene.begin(t, sentinels);
  const [old, replica] = [sentinels.pair.primary, sentinels.pair.replica];
  // It takes no writes any more, and the replica has all that it took.
  await old.call('CLIENT', 'PAUSE', 20_000, 'WRITE');
  await until(async () => {
    const [from, to] = await all([old, replica], (redis) => redis.info('replication'));
    return from.master_repl_offset === to.slave_repl_offset;
  }, 'the replica to have everything');
  await old.kill();
  await sentinels.promoted(old);
  await scene.goesOn('the failover');
  await scene.finish();
  for (const what of scene.errors.keys()) assert.match(what, AWAY);
});

for (const [name, start, lose] of [
  ['of a pair that Sentinels watch', startSentinels, async (sentinels) => {
    await sentinels.pair.primary.kill();
    await sentinels.promoted(sentinels.pair.primary);
  }],
  ['of a Cluster', () => startCluster({ replicas: true }), async (cluster, slot) => {
    await (await cluster.nodeOf(slot)).kill();
    await until(async () => (await cluster.nodeOf(slot, cluster.replicas[0])).child.signalCode === null, 'another to serve the slot');
  }],
]) {
  test(`a primary ${name} is lost without warning: what is left is told to all alike`, { skip }, async (t) => {
    const redis = await start();
    t.after(() => redis.stop());
    const scene = await Scene.begin(t, redis, { writer: Careless });
    await lose(redis, slotOf(`{${scene.at.stream_name}:g}`));
    await scene.goesOn('the failover', 45_000);
    await scene.finish();
    for (const what of scene.errors.keys()) assert.match(what, AWAY);
  });
}

test('a replica takes over in a Cluster under load', { skip }, async (t) => {
  const cluster = await startCluster({ replicas: true });
  t.after(() => cluster.stop());
  const scene = await Scene.begin(t, cluster);
  const slot = slotOf(`{${scene.at.stream_name}:g}`);
  for (const round of [1, 2]) {
    const master = await cluster.nodeOf(slot);
    await cluster.failover(master);
    await scene.goesOn(`failover ${round}`);
    await inStep(master);
  }
  await scene.finish();
  for (const what of scene.errors.keys()) assert.match(what, AWAY);
});

test('a slot of a Cluster moves under load', { skip }, async (t) => {
  const cluster = await startCluster();
  t.after(() => cluster.stop());
  const scene = await Scene.begin(t, cluster);
  const slot = slotOf(`{${scene.at.stream_name}:g}`);
  for (const round of [1, 2, 3]) {
    const from = await cluster.nodeOf(slot);
    await cluster.moveSlot(slot, cluster.masters.find((node) => node !== from));
    await scene.goesOn(`move ${round}`);
  }
  await scene.finish();
  for (const what of scene.errors.keys()) assert.match(what, AWAY);
});

test('a slow network loses nothing', { skip }, async (t) => {
  const redis = await startRedis();
  const proxy = await startProxy(redis.port);
  t.after(() => { proxy.close(); return redis.stop(); });
  const scene = await Scene.begin(t, redis, { config: (n) => (n === 0 ? {} : { redis_url: proxy.url }) });
  proxy.delay(60);
  await scene.goesOn('slowly');
  proxy.heal();
  await scene.goesOn('quickly');
  // Whoever is far from Redis may come too late again and again where others write the same item.
  for (const told of scene.errors.keys()) assert.match(told, /^(\S+ contended|mutation_gap)$/);
  await scene.finish({ resets: false });
});

test('a start without a Redis ends with a line that says so', { skip }, async () => {
  const port = await freePort();
  const config = { redis_url: `redis://127.0.0.1:${port}`, connect_timeout_ms: 500 };
  const error = await rejection(startServer({ stream: { adapter: { name: 'redis', config } } }), 'the start');
  assert.match(error.message, new RegExp(`error: .*127\\.0\\.0\\.1:${port}`));
});
