// Three instances on one Redis under load, restarted one after another: by SIGTERM, as an update does, then by kill -9. Writers go on at
// the next instance, subscribers come back there, workers come back to theirs. Nothing is lost, done twice or out of order.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fleet, Follower1, Follower2 } from './followers.mjs';
import { newPrefix, startServer, startServers, streamClient, unique, within } from './harness.mjs';
import { startRedis, until, withoutRedis } from './redis.mjs';
import { portsOf } from './restart.mjs';
import { mark, standing } from './version-2.mjs';
import { assertBook, Writer } from './writers.mjs';

const INSTANCES = 3;
const ITEMS = Array.from({ length: 12 }, (_, n) => `i${n}`);
const all = (list, work) => Promise.all(list.map(work));

/** A worker that stays at its instance, coming back when that does, with a `stream` trigger on what is written. */
class Hand {
  #isOver = false;

  constructor(fleet, home, at, function_id, seen) {
    Object.assign(this, { fleet, home, at, function_id, seen });
  }

  async come() {
    const server = await this.#home();
    this.peer = await server.peer();
    // What came on one connection came in order, unless the one that hands out was replaced meanwhile.
    this.peer.serve(this.function_id, (input) => { if (input.event.data.n) this.seen.push({ id: input.id, n: input.event.data.n, hand: this }); return { result: null }; });
    this.peer.send({ type: 'registertrigger', id: unique('t'), trigger_type: 'stream', function_id: this.function_id, config: { stream_name: this.at.stream_name } });
    await this.peer.settled();
    this.staying = this.#stay();
    this.staying.catch((error) => { this.fault = error; });
    return this;
  }

  async #home() {
    for (;;) {
      const server = this.fleet.servers[this.home];
      if (server?.alive) return server;
      await within(new Promise((resolve) => { setTimeout(resolve, 20); }), 'its instance');
    }
  }

  async #stay() {
    await this.peer.closed;
    if (this.#isOver) return;
    for (;;) {
      try {
        await this.come();
        return;
      } catch (error) {
        if (!/refused|closed|ECONN|hang up|503/.test(error.message)) throw error;
      }
    }
  }

  abandon() {
    this.#isOver = true;
    this.peer?.ws.terminate();
  }

  leave() {
    this.abandon();
    if (this.fault) throw this.fault;
  }
}

class Scene {
  followers = [];
  writers = [];
  hands = [];

  async begin(t) {
    this.redis = await startRedis();
    t.after(() => this.redis.stop());
    this.prefix = newPrefix();
    const adapter = { name: 'redis', config: { redis_url: this.redis.url, key_prefix: this.prefix, instance_gone_ms: 1_500, heartbeat_ms: 300 } };
    this.stream = { adapter, history_changes_max: 100_000, history_bytes_max: 256 * 1024 * 1024, messages_per_second_max: 1_000_000 };
    const servers = await startServers(INSTANCES, { prefix: this.prefix, stream: this.stream });
    this.fleet = new Fleet(servers);
    t.after(() => this.abandon());
    t.after(() => all(this.fleet.servers, (server) => server.stop()));
    this.at = { stream_name: unique('rolling'), group_id: 'g' };
    this.seen = [];
    const function_id = unique('rolling::seen');
    this.hands = await all(servers, (_, n) => new Hand(this.fleet, n, this.at, function_id, this.seen).come());
    this.followers = await all([
      ...servers.map((_, n) => new Follower2(this.fleet, n, this.at)), new Follower2(this.fleet, 2, this.at, { deltas: true }),
      ...servers.map((_, n) => new Follower1(this.fleet, n, this.at)),
    ], (follower) => follower.follow());
    await this.#published();
    // The published client knows items by the `id` in their values.
    const peer = await servers[0].peer();
    await all(ITEMS, (id) => peer.result('stream::set', { ...this.at, item_id: id, data: { id } }));
    this.writers = Array.from({ length: 6 }, (_, n) => new Writer(this.fleet, n, this.at, { items: ITEMS }).start());
    await this.goesOn('the beginning');
  }

  /** The published client, which comes back by itself to where it was: the first instance. */
  async #published() {
    const { Stream } = await streamClient();
    const first = this.fleet.servers[0];
    this.client = new Stream(first.subscribers);
    this.group = this.client.subscribeGroup(this.at.stream_name, this.at.group_id);
  }

  async goesOn(what) {
    const written = this.writers.map(({ acknowledged }) => acknowledged.length + 20);
    await until(() => this.writers.every(({ acknowledged, fault }, n) => fault || acknowledged.length >= written[n]), `the writers to go on: ${what}`, { ms: 30_000 });
    for (const { fault } of [...this.writers, ...this.followers, ...this.hands]) if (fault) throw fault;
    const heard = this.followers.map((follower) => follower.heard + 20);
    await until(() => this.followers.every((follower, n) => follower.fault || follower.heard >= heard[n]), `the subscribers to go on: ${what}`, { ms: 30_000 });
    const handed = this.seen.length + 20;
    await until(() => this.seen.length >= handed, `the trigger to go on: ${what}`, { ms: 30_000 });
  }

  async restart(n, how) {
    const { servers } = this.fleet;
    const old = servers[n];
    const { stream, manager } = portsOf(old);
    await (how === 'SIGTERM' ? old.terminate() : old.kill());
    servers[n] = await startServer({ stream: { ...this.stream, ...stream }, manager });
    await this.goesOn(`instance ${n} after ${how}`);
  }

  /** Stops the load and compares; each change was handed to a trigger once, or at least once. */
  async finish(isOnce) {
    await all(this.writers, (writer) => writer.stop());
    const peer = await this.fleet.servers[0].peer();
    const items = await peer.result('stream::list', { ...this.at, meta: true });
    assertBook(this.writers, items);
    await this.#assertHanded(items, isOnce);
    const last = await mark(peer, this.at);
    const state = await standing(peer, this.at);
    for (const server of this.fleet.servers) assert.deepEqual(await standing(await server.peer(), this.at), state);
    for (const follower of this.followers) {
      await follower.reach(last);
      if (follower.shown) assert.deepEqual(follower.shown(), state, follower.name);
      if (follower.view) assert.deepEqual([follower.view.snapshots, follower.view.resumes], [1, follower.comings - 1], `${follower.name} went on where it was each time`);
    }
    const byText = (list) => JSON.stringify(list.filter(({ id }) => id).map((value) => JSON.stringify(value)).sort());
    const wanted = byText(await peer.result('stream::list', this.at));
    await until(() => byText(this.group.getState()) === wanted, 'the published client to show the group');
  }

  async #assertHanded(items, isOnce) {
    for (const { id, value } of items.filter((item) => ITEMS.includes(item.id))) {
      const of = () => this.seen.filter((one) => one.id === id);
      await until(() => new Set(of().map(({ n }) => n)).size >= value.n, `all ${value.n} changes of ${id} to be handed over`);
      const numbers = of().map(({ n }) => n);
      const every = Array.from({ length: value.n }, (_, i) => i + 1);
      assert.deepEqual([...new Set(numbers)].sort((a, b) => a - b), every, `${id}: each change`);
      if (isOnce) assert.equal(numbers.length, value.n, `${id}: each change once`);
      const firsts = numbers.filter((n, place) => numbers.indexOf(n) === place);
      assert.deepEqual(firsts, every, `${id}: in order`);
    }
  }

  leave() {
    for (const one of [...this.followers, ...this.writers, ...this.hands]) one.leave();
  }

  /** Whatever is still going on ends; nothing is compared. */
  abandon() {
    for (const one of [...this.followers, ...this.writers, ...this.hands]) one.abandon();
    if (!this.client) return;
    // It comes back even after close(), for ever.
    this.client.createSocket = () => this.client.ws;
    this.client.close();
  }
}

for (const how of ['SIGTERM', 'SIGKILL']) {
  test(`three instances are restarted one after another under load (${how})`, { skip: withoutRedis }, async (t) => {
    const scene = new Scene();
    await scene.begin(t);
    const rounds = how === 'SIGTERM' ? [0, 1, 2] : [1];
    for (const n of rounds) await scene.restart(n, how);
    await scene.finish(how === 'SIGTERM');
    scene.leave();
  });
}
