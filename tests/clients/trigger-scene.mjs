// Equal `stream` triggers at several servers on one Redis, and who was called with what: for tests of what befalls the servers or Redis.
import assert from 'node:assert/strict';
import { setTimeout as after } from 'node:timers/promises';
import { startServers, unique } from './harness.mjs';
import { startRedis, until } from './redis.mjs';

export const GROUPS = ['g1', 'g2', 'g3'];
/** Short times, so that tests are short. */
export const CONFIG = { heartbeat_ms: 200, instance_gone_ms: 1_200 };
/** Whether a writer is told of a fault, of the store or of what went before: it sends the same mutation again. */
const isFault = ({ code, storage }) => storage !== undefined || code === 'mutation_gap';
const [PAUSE_MS, ATTEMPTS_MAX] = [20, 2_000];

export const inOrder = (to) => Array.from({ length: to }, (_, n) => n);
/** The first time that each came. */
export const first = (numbers) => [...new Set(numbers)];

/** Servers with a worker each, which binds the same function to the same stream. */
export class TriggerScene {
  calls = [];
  #stopped = new Set();

  static async begin(t, { redis, count = 3, config = {}, prefix } = {}) {
    const scene = new TriggerScene();
    scene.redis = redis ?? await startRedis();
    scene.servers = await startServers(count, { redis: scene.redis, config: { ...CONFIG, ...config }, ...(prefix ? { prefix } : {}) });
    t.after(() => scene.#end());
    scene.stream_name = unique('shared');
    scene.workers = scene.servers.map((server) => server.sdk());
    scene.workers.forEach((worker, at) => {
      worker.registerFunction('on::change', async ({ groupId, event }) => { scene.calls.push({ group: groupId, n: event.data, at }); return {}; });
      worker.registerTrigger({ type: 'stream', function_id: 'on::change', config: { stream_name: scene.stream_name } });
    });
    scene.peers = await Promise.all(scene.servers.map((server) => server.peer()));
    // Each server knows of its own binding at once, and of the others soon.
    await Promise.all(scene.workers.map((worker) => worker.trigger({ function_id: 'stream::list_all', payload: {} })));
    return scene;
  }

  /** Writes a number into a group through a server, again and again until it is acknowledged, and once. */
  async set(at, group_id, n) {
    const payload = { stream_name: this.stream_name, group_id, item_id: 'i', data: n, mutation: { client: `writer-of-${group_id}-0123456789`, seq: n + 1 } };
    for (let attempts = 0; ; attempts += 1) {
      try {
        return await this.peers[at].result('stream::set', payload);
      } catch (error) {
        if (!isFault(error) || attempts === ATTEMPTS_MAX) throw error;
        await after(PAUSE_MS);
      }
    }
  }

  /** Writes numbers into all groups, through one server after another. */
  async write(from, to, at = this.servers.map((_, n) => n)) {
    await Promise.all(GROUPS.map(async (group) => {
      for (let n = from; n < to; n += 1) await this.set(at[n % at.length], group, n);
    }));
  }

  /** Writes until `work` is done; the number that would be next. */
  async writeDuring(from, work, at) {
    let isOver = false;
    const working = work().finally(() => { isOver = true; });
    let next = from;
    while (!isOver) {
      await this.write(next, next + 5, at);
      next += 5;
    }
    await working;
    return next;
  }

  numbers(group) {
    return this.calls.filter((it) => it.group === group).map(({ n }) => n);
  }

  /** Waits until each number below `to` was called of each group. */
  all(to, options) {
    return until(() => GROUPS.every((group) => new Set(this.numbers(group)).size === to), `all ${to} changes of each group to be called`, options);
  }

  /** Each once, and in order. */
  assertOnce(to) {
    for (const group of GROUPS) assert.deepEqual(this.numbers(group), inOrder(to), group);
  }

  /** Each, in order but for what is repeated. */
  assertEach(to) {
    for (const group of GROUPS) assert.deepEqual(first(this.numbers(group)), inOrder(to), group);
  }

  get leader() {
    return this.calls.at(-1).at;
  }

  others(leads) {
    return this.servers.map((_, at) => at).filter((at) => at !== leads);
  }

  stopOne(at) {
    this.#stopped.add(at);
    return this.servers[at].stop();
  }

  kill(at) {
    this.#stopped.add(at);
    return this.servers[at].kill();
  }

  async #end() {
    await Promise.all(this.servers.map((server, at) => server.stop().catch((error) => { if (!this.#stopped.has(at)) throw error; })));
    await this.redis.stop();
  }
}
