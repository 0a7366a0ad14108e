// Two instances on one Redis under load, for tests of faults: writers and subscribers on both, and a comparison of everything at the end.
import assert from 'node:assert/strict';
import { Fleet, Follower1, Follower2 } from './followers.mjs';
import { startServers, unique } from './harness.mjs';
import { until } from './redis.mjs';
import { mark, standing } from './version-2.mjs';
import { assertBook, Writer } from './writers.mjs';

const all = (list, work) => Promise.all(list.map(work));
/** How long a call waits for Redis, and what it may take beyond that on a loaded machine, in milliseconds. */
export const [WAIT_MAX_MS, SLACK_MS] = [2_000, 4_000];
/** What may be told while Redis is away; a mutation that comes after one that failed is a gap. */
export const AWAY = /^(\S+ (unavailable|unknown|behind)|mutation_gap)$/;

/** Two instances with writers and subscribers on both. */
export class Scene {
  writers = [];
  followers = [];

  static async begin(t, redis, { config = {}, writer: Kind = Writer } = {}) {
    const scene = new Scene();
    const servers = await startServers(2, {
      redis, config: (n) => ({ wait_max_ms: WAIT_MAX_MS, ...(typeof config === 'function' ? config(n) : config) }),
      stream: { history_changes_max: 100_000, history_bytes_max: 256 * 1024 * 1024, messages_per_second_max: 1_000_000 },
    });
    t.after(() => all(servers, (server) => server.stop()));
    t.after(() => scene.abandon());
    scene.servers = servers;
    scene.at = { stream_name: unique('faults'), group_id: 'g' };
    scene.fleet = new Fleet(servers);
    scene.writers = [0, 1, 2, 3].map((n) => new Kind(scene.fleet, n, scene.at).start());
    scene.followers = await all([
      new Follower2(scene.fleet, 0, scene.at), new Follower2(scene.fleet, 1, scene.at), new Follower2(scene.fleet, 1, scene.at, { deltas: true }),
      new Follower1(scene.fleet, 0, scene.at), new Follower1(scene.fleet, 1, scene.at),
    ], (follower) => follower.follow());
    await scene.goesOn('the beginning');
    return scene;
  }

  /** Waits until each writer has had more acknowledged, and each subscriber has heard more. */
  async goesOn(what, ms = 30_000) {
    const written = this.writers.map(({ acknowledged }) => acknowledged.length + 20);
    await until(() => this.writers.every(({ acknowledged, fault }, n) => fault || acknowledged.length >= written[n]), `the writers to go on: ${what}`, { ms });
    for (const { fault } of [...this.writers, ...this.followers]) if (fault) throw fault;
    const heard = this.followers.map(({ heard: before }) => before + 20);
    await until(() => this.followers.every((follower, n) => follower.fault || follower.heard >= heard[n]), `the subscribers to go on: ${what}`, { ms });
  }

  /** Ends the load and compares everything with everything. */
  async finish({ resets = true, closes = resets } = {}) {
    await all(this.writers, (writer) => writer.stop());
    const peer = await this.servers[0].peer();
    const last = await mark(peer, this.at);
    const items = await peer.result('stream::list', { ...this.at, meta: true });
    if (this.writers[0] instanceof Writer) assertBook(this.writers, items);
    const state = await standing(peer, this.at);
    assert.deepEqual(await standing(await this.servers[1].peer(), this.at), state);
    for (const follower of this.followers) {
      await follower.reach(last);
      if (follower.shown) assert.deepEqual(follower.shown(), state, follower.name);
      // Where a history ends, nobody knows which events version 1 has missed: it is closed, and comes back.
      const closed = follower.closes.filter((code) => !(closes && !follower.view && code === 4008));
      assert.deepEqual(closed, [], `${follower.name} stayed connected`);
      // Version 1 has no other way than a fresh `sync` to be told what it missed.
      if (!resets && follower.view) assert.equal(follower.view.snapshots, 1, `${follower.name} was told every single change`);
      follower.leave();
    }
    for (const writer of this.writers) writer.leave();
  }

  /** Whatever is still going on ends; nothing is compared. */
  abandon() {
    for (const one of [...this.writers, ...this.followers]) one.abandon();
  }

  /** What went wrong for the writers, by what they were told. */
  get errors() {
    const told = new Map();
    for (const { errors } of this.writers) for (const [what, count] of errors) told.set(what, (told.get(what) ?? 0) + count);
    return told;
  }
}
