// Three instances on one Redis, and on a Cluster of three masters: what one writes, the subscribers of all hear, once and in one order.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { newPrefix, startServers, unique } from './harness.mjs';
import { slotOf, startCluster, startRedis, until, withoutRedis } from './redis.mjs';
import { assertExact, Churn, Connection, mark, standing, View } from './version-2.mjs';

const range = (n) => Array.from({ length: n }, (_, i) => i);
const all = (list, work) => Promise.all(list.map(work));
const MIB = 1024 * 1024;
const ITEMS = range(9).map((n) => `i${n}`);

for (const [name, start] of [['on one Redis', startRedis], ['on a Cluster of three masters', startCluster]]) {
  describe(name, { skip: withoutRedis }, () => {
    const prefix = newPrefix();
    let redis;
    let servers = [];
    let peers = [];
    before(async () => {
      redis = await start();
      servers = await startServers(3, {
        redis, prefix, stream: { history_changes_max: 1_000_000, history_bytes_max: 512 * MIB, messages_per_second_max: 1_000_000 },
      });
      peers = await all(servers, (server) => server.peer());
    });
    after(async () => {
      await all(servers, (server) => server.stop());
      await redis?.stop();
    });

    const place = () => ({ stream_name: unique('cluster'), group_id: 'g:{1}' });
    const churn = (n, at, more = {}) => new Churn(peers[n], at, { ids: ITEMS, inFlight: 4, seed: n + 1, ...more });
    /** A view on a connection of its own that has begun, on one of the instances. */
    const watch = async (n, at, { item, ...options } = {}) => {
      const connection = await Connection.open(servers[n], options);
      const one = new View(unique('s'), at.stream_name, at.group_id, item);
      connection.join(one);
      await connection.until(() => one.isLive, 'the first sync');
      return { one, connection };
    };
    /** A subscriber of version 1 on one of the instances; its frames are kept. */
    const published = async (n, at) => {
      const connection = await Connection.open(servers[n], { version: 1 });
      connection.send({ type: 'join', data: { subscriptionId: 's', streamName: at.stream_name, groupId: at.group_id } });
      await connection.until(() => connection.frames.length > 0, 'the sync');
      return connection;
    };
    /** Its frames are a `sync`, then every change after it. */
    const assertPublished = ({ frames }, last) => {
      const [sync, ...changes] = frames;
      assert.equal(sync.event.type, 'sync');
      assert.deepEqual(changes.map(({ seq }) => seq), range(last - sync.seq).map((n) => sync.seq + 1 + n));
      let latest = sync.timestamp;
      const byItem = new Map();
      for (const { id, timestamp } of changes) {
        assert.ok(latest <= timestamp && sync.timestamp < timestamp, `${timestamp} after ${latest}`);
        assert.ok(id === null || (byItem.get(id) ?? 0) < timestamp, `of ${id}: ${timestamp} after ${byItem.get(id)}`);
        byItem.set(id, timestamp);
        latest = timestamp;
      }
    };
    /** Ends the churns; the last change of the group, and how the group stands, which all instances say alike. */
    const finish = async (at, churns) => {
      await all(churns, (one) => one.stop());
      const last = await mark(peers[0], at);
      const states = await all(peers, (peer) => standing(peer, at));
      for (const state of states) assert.deepEqual(state, states[0]);
      return { last, state: states[0] };
    };

    test('subscribers of every instance hear what every instance writes', async () => {
      const at = place();
      const views = await all(range(3).flatMap((n) => [[n, {}], [n, { deltas: true }]]), ([n, options]) => watch(n, at, options));
      const ofItem = await watch(1, at, { item: 'i3' });
      const old = await all(range(3), (n) => published(n, at));
      const churns = range(3).map((n) => churn(n, at));
      await views[0].connection.until(() => views[0].one.cursor > 600, '600 changes');
      const { last, state } = await finish(at, churns);
      for (const { one, connection } of views) {
        await connection.until(() => one.cursor === last, 'the end');
        assertExact(one, 1, last, state, 'a subscriber');
        assert.deepEqual([one.snapshots, one.resumes, one.resets], [1, 0, 0]);
      }
      for (const connection of old) {
        await connection.until(() => connection.frames.at(-1).seq === last, 'the end');
        assertPublished(connection, last);
      }
      await ofItem.connection.until(() => ofItem.one.shown().i3 === state.i3, 'the item as it is');
      for (const { connection } of [...views, ofItem]) connection.cut();
      for (const connection of old) connection.cut();
    });

    test('a join while another instance writes has no gap', async () => {
      const at = place();
      // So many that a snapshot takes three pages.
      await all(range(2_200), (n) => peers[0].result('stream::set', { ...at, item_id: `old-${n}`, data: { n }, returning: 'none' }));
      const churns = [churn(0, at), churn(1, at)];
      const views = [];
      const old = [];
      for (const n of range(12)) {
        views.push(await watch(n % 3, at, { deltas: n % 2 === 1 }));
        if (n % 4 === 0) old.push(await published((n + 1) % 3, at));
      }
      const { last, state } = await finish(at, churns);
      for (const { one, connection } of views) {
        await connection.until(() => one.cursor === last, 'the end');
        assert.deepEqual(one.shown(), state);
        assert.deepEqual([one.snapshots, one.resets, one.pages.length], [1, 0, 3]);
        connection.cut();
      }
      for (const connection of old) {
        await connection.until(() => connection.frames.at(-1).seq === last, 'the end');
        assertPublished(connection, last);
        connection.cut();
      }
    });

    test('a subscriber goes on where it was, on another instance', async () => {
      const at = place();
      const churns = [churn(0, at), churn(2, at)];
      const views = await all([{}, { deltas: true }], (options) => watch(0, at, options));
      for (const hop of range(9)) {
        await all(views, async (view, index) => {
          const heard = view.one.cursor + 20;
          await view.connection.until(() => heard <= view.one.cursor, 'some more');
          view.connection.cut();
          view.connection = await Connection.open(servers[(hop + 1) % 3], index === 1 ? { deltas: true } : {});
          view.connection.join(view.one);
          await view.connection.until(() => view.one.resumes === hop + 1, 'it to go on');
        });
      }
      const { last, state } = await finish(at, churns);
      for (const { one, connection } of views) {
        await connection.until(() => one.cursor === last, 'the end');
        assert.deepEqual(one.shown(), state);
        assert.deepEqual([one.snapshots, one.resumes, one.resets], [1, 9, 0]);
        connection.cut();
      }
    });

    test('200 writers on one counter through three instances lose nothing', async () => {
      const at = place();
      const writers = await all(range(200), (n) => servers[n % 3].peer());
      const { one, connection } = await watch(2, at);
      const counted = await all(writers, async (writer) => {
        const seen = [];
        for (const _ of range(20)) {
          const { new_value, seq } = await writer.result('stream::update', {
            ...at, item_id: 'n', ops: [{ type: 'increment', path: 'n', by: 1 }], returning: 'new',
          });
          assert.equal(new_value.n, seq, 'a value of its own, and its sequence');
          seen.push(seq);
        }
        return seen;
      });
      const sorted = counted.flat().sort((a, b) => a - b);
      assert.deepEqual(sorted, range(4_000).map((n) => n + 1));
      for (const seen of counted) assert.ok(seen.every((seq, i) => i === 0 || seen[i - 1] < seq), 'answers in order');
      await connection.until(() => one.cursor === 4_000, 'all changes');
      assertExact(one, 1, 4_000, await standing(peers[1], at), 'a subscriber');
      connection.cut();
      for (const writer of writers) writer.ws.terminate();
    });

    test('conditions and mutations hold across instances', async () => {
      const at = place();
      for (const round of range(10)) {
        const created = await all(range(9), (n) => peers[n % 3].call('stream::set', { ...at, item_id: `r${round}`, data: n, if: { absent: true }, returning: 'none' }));
        const refused = created.filter(({ error }) => error);
        assert.equal(refused.length, 8);
        for (const { error } of refused) assert.equal(error.code, 'precondition_failed');
      }
      const mutation = (seq) => ({ client: 'one-client-0123456789', seq });
      for (const seq of range(10).map((n) => n + 1)) {
        const answers = await all(range(6), (n) => peers[n % 3].result('stream::update', {
          ...at, item_id: 'n', ops: [{ type: 'increment', path: 'n', by: 1 }], returning: 'new', mutation: mutation(seq),
        }));
        assert.equal(answers.filter(({ duplicate }) => duplicate).length, 5);
      }
      assert.deepEqual(await peers[1].result('stream::get', { ...at, item_id: 'n' }), { n: 10 });
    });

    test('an item goes once when its time has come, and everybody hears of it', async () => {
      const at = place();
      const views = await all(range(3), (n) => watch(n, at));
      await peers[0].result('stream::set', { ...at, item_id: 'short', data: 1, ttl_ms: 200, returning: 'none' });
      for (const { one, connection } of views) await connection.until(() => one.cursor === 2, 'the end of the item');
      const last = await mark(peers[1], at);
      assert.equal(last, 3);
      for (const { one, connection } of views) {
        await connection.until(() => one.cursor === last, 'the end');
        assertExact(one, 1, last, await standing(peers[2], at), 'a subscriber');
        connection.cut();
      }
    });

    test('names of streams and groups are those of all instances', async () => {
      const streams = range(3).map(() => unique('listed'));
      await all(streams, (stream_name, n) => peers[n].result('stream::set', { stream_name, group_id: 'g', item_id: 'i', data: 1 }));
      for (const peer of peers) {
        const { stream } = await peer.result('stream::list_all', {});
        const ours = stream.filter(({ id }) => streams.includes(id));
        assert.deepEqual(ours, [...streams].sort().map((id) => ({ id, groups: ['g'] })));
      }
      await peers[2].result('state::set', { scope: 'listed', key: 'k', value: { n: 1 } });
      assert.deepEqual(await peers[0].result('state::get', { scope: 'listed', key: 'k' }), { n: 1 });
    });

    test('an instance subscribes to the groups that it has subscribers of, and to no others', async () => {
      const [a, b] = [place(), place()];
      const enc = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`).replace(/%7E/g, '~');
      const tag = ({ stream_name, group_id }) => `{${enc(stream_name)}:${enc(group_id)}}`;
      const channel = (at) => `${prefix}e:${tag(at)}`;
      /** How many connections listen to a channel. */
      const listeners = async (at) => {
        const node = redis.nodes ? await redis.nodeOf(slotOf(tag(at))) : redis;
        const [, count] = await node.call('PUBSUB', redis.nodes ? 'SHARDNUMSUB' : 'NUMSUB', channel(at));
        return count;
      };
      const reach = (at, count, what) => until(async () => (await listeners(at)) === count, `${count} listeners: ${what}`);
      await all([a, b], (at) => mark(peers[0], at));
      await all(peers, (peer) => standing(peer, a));
      assert.deepEqual([await listeners(a), await listeners(b)], [0, 0], 'who writes or reads does not listen');
      const ofA = [await watch(0, a), await watch(0, a), await watch(1, a)];
      const ofB = [await watch(1, b)];
      await reach(a, 2, 'two instances have subscribers');
      await reach(b, 1, 'one instance has one');
      ofA[0].connection.cut();
      await mark(peers[2], a);
      await ofA[1].connection.until(() => ofA[1].one.cursor === 2, 'the change');
      assert.equal(await listeners(a), 2, 'the other subscriber is there');
      ofA[1].connection.cut();
      await reach(a, 1, 'the last subscriber of an instance has gone');
      ofA[2].connection.cut();
      ofB[0].connection.cut();
      await reach(a, 0, 'nobody is there');
      await reach(b, 0, 'nobody is there');
    });
  });
}
