// Two servers on one Redis, or on one Redis Cluster, are one for workers and clients: functions, auth, join guards and storage of a worker of one are the other's too.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { deferred, Record, rejection, settled, startServers, unique } from './harness.mjs';
import { startCluster, startRedis, until, withoutRedis } from './redis.mjs';

const AUTH = 'cluster::auth';
const skip = withoutRedis;

/** Waits until a worker's server knows a function, wherever that is. */
const known = (worker, id) => until(async () => {
  const { functions } = await worker.trigger({ function_id: 'engine::functions::list', payload: { search: id } });
  return functions.some(({ function_id }) => function_id === id);
}, `${id} to be known`);

for (const [where, start] of [['one Redis', startRedis], ['a Redis Cluster of three masters', startCluster]]) {
  describe(where, () => {
    let redis;
    let servers = [];
    let a;
    let b;
    before(async () => {
      if (skip) return;
      redis = await start();
      servers = await startServers(2, { redis, config: { instance_gone_ms: 1_500, heartbeat_ms: 300 }, stream: { auth_function: AUTH } });
      [a, b] = servers.map((server) => server.sdk());
      a.registerFunction(AUTH, async ({ query_params }) => {
        if (query_params.no) throw new Error('not you');
        return { context: { who: 'one' } };
      });
      await known(b, AUTH);
    });
    after(async () => {
      // The last test has killed the first one.
      await Promise.all(servers.map((server, n) => server.stop().catch((error) => { if (n !== 0) throw error; })));
      await redis?.stop();
    });

    test('a worker calls a function of a worker of another server: result, no result, error, caller', { skip }, async () => {
      const [ask, nothing, fail] = ['ask', 'nothing', 'fail'].map((name) => unique(`a::${name}`));
      const seen = [];
      a.registerFunction(ask, async (input) => { seen.push(input); return { got: input.x, text: 'ä€😀' }; });
      a.registerFunction(nothing, async () => undefined);
      a.registerFunction(fail, async () => { throw new Error('no such thing'); });
      await known(b, fail);
      assert.deepEqual(await b.trigger({ function_id: ask, payload: { x: [1, 2.5] } }), { got: [1, 2.5], text: 'ä€😀' });
      assert.equal(typeof seen[0]._caller_worker_id, 'string', 'who called is passed on');
      const peer = await servers[1].peer();
      assert.notEqual(seen[0]._caller_worker_id, peer.registered.worker_id);
      await peer.result(ask, { x: 1 });
      assert.equal(seen[1]._caller_worker_id, peer.registered.worker_id);
      const here = await servers[0].peer();
      for (const id of [nothing, fail]) {
        const strip = ({ result, error }) => ({ result, error });
        const [near, far] = [strip(await here.call(id, {})), strip(await peer.call(id, {}))];
        if (far.error) [near, far].forEach((it) => delete it.error.stacktrace);
        assert.deepEqual(far, near, `${id} is answered the same from near and far`);
      }
      assert.equal((await peer.call('no::such', {})).error.code, 'function_not_found');
    });

    test('the auth function of one server decides at the other, and so does its join guard', { skip }, async () => {
      const stream = unique('guarded');
      const error = await rejection(servers[1].subscriber('/?no=1'));
      assert.equal(error.status, 401);
      const guard = unique('a::guard');
      const asked = new Record(servers[0]);
      a.registerFunction(guard, async (input) => { asked.push(input); return { unauthorized: input.group_id === 'closed' }; });
      const trigger = a.registerTrigger({ type: 'stream:join', function_id: guard, config: { stream_name: stream } });
      await settled(a);
      // The binding has come when the other server lists it.
      await until(async () => {
        const { registered_triggers } = await b.trigger({ function_id: 'engine::registered-triggers::list', payload: { trigger_type: 'stream:join' } });
        return registered_triggers.some(({ function_id }) => function_id === guard);
      }, 'the guard to be known');
      const subscriber = await servers[1].subscriber();
      const group = (id) => ({ type: 'join', data: { subscriptionId: unique('s'), streamName: stream, groupId: id } });
      subscriber.send(group('closed'));
      const refused = await subscriber.take((frame) => frame.event?.type === 'unauthorized', 'the refusal');
      assert.equal(refused.groupId, 'closed');
      await subscriber.join(stream, 'open');
      const inputs = await asked.count(2);
      assert.deepEqual(inputs.map(({ group_id, context }) => [group_id, context]), [['closed', { who: 'one' }], ['open', { who: 'one' }]]);
      trigger.unregister();
      await settled(a);
      await subscriber.close();
    });

    test('a stream that a worker of one server keeps is kept there for calls at the other', { skip }, async () => {
      const stream = unique('kept');
      const items = new Map();
      a.registerFunction(`stream::set(${stream})`, async ({ item_id, data }) => {
        const old_value = items.get(item_id) ?? null;
        items.set(item_id, data);
        return { old_value, new_value: data };
      });
      a.registerFunction(`stream::get(${stream})`, async ({ item_id }) => items.get(item_id) ?? null);
      a.registerFunction(`stream::list(${stream})`, async () => [...items.values()]);
      await known(b, `stream::list(${stream})`);
      await b.trigger({ function_id: 'stream::set', payload: { stream_name: stream, group_id: 'g', item_id: 'i', data: { n: 1 } } });
      assert.deepEqual([...items], [['i', { n: 1 }]]);
      const got = await b.trigger({ function_id: 'stream::get', payload: { stream_name: stream, group_id: 'g', item_id: 'i' } });
      assert.deepEqual(got, { n: 1 });
    });

    test('a condition function and a handler of workers of one server are called for a trigger bound at the other', { skip }, async () => {
      const stream = unique('conditional');
      const [condition, handler] = [unique('a::condition'), unique('a::handler')];
      const [asked, called] = [new Record(servers[0]), new Record(servers[0])];
      a.registerFunction(condition, async ({ event }) => { asked.push(event.data); return event.data !== 1; });
      a.registerFunction(handler, async ({ event }) => { called.push(event.data); return null; });
      await known(b, handler);
      const trigger = b.registerTrigger({ type: 'stream', function_id: handler, config: { stream_name: stream, condition_function_id: condition } });
      await settled(b);
      const set = (worker, data) => worker.trigger({ function_id: 'stream::set', payload: { stream_name: stream, group_id: 'g', item_id: 'i', data } });
      await set(b, 0);
      await set(b, 1);
      // The other server hears of the trigger soon; what it commits is called in any case.
      await set(a, 2);
      assert.deepEqual(await asked.count(3), [0, 1, 2]);
      assert.deepEqual(await called.count(2), [0, 2]);
      trigger.unregister();
      await settled(b);
    });

    test('functions, workers and notices tell of all servers', { skip }, async () => {
      const told = new Record(servers[1]);
      const handler = unique('b::told');
      b.registerFunction(handler, async ({ functions }) => { told.push(functions.map(({ function_id }) => function_id)); return null; });
      b.registerTrigger({ type: 'engine::functions-available', function_id: handler, config: {} });
      await settled(b);
      const peer = await servers[0].peer();
      const name = unique('far-worker');
      await peer.result('engine::workers::register', { name, runtime: 'test', version: '1', os: 'none' });
      const id = unique('a::new');
      peer.send({ type: 'registerfunction', id, description: 'new there' });
      await until(() => told.items.some((ids) => ids.includes(id)), 'the notice of a function of the other server');
      const [info] = (await b.trigger({ function_id: 'engine::functions::list', payload: { prefix: id } })).functions;
      assert.deepEqual([info.worker_name, info.description], [name, 'new there']);
      const { workers } = await b.trigger({ function_id: 'engine::workers::list', payload: { search: name } });
      assert.deepEqual(workers.map((worker) => [worker.id, worker.status]), [[peer.registered.worker_id, 'connected']]);
      const one = await b.trigger({ function_id: 'engine::workers::info', payload: { name } });
      assert.deepEqual(one.functions.map(({ function_id }) => function_id), [id]);
      const metrics = await servers[1].metrics();
      assert.equal(metrics.iii_stream_cluster_instances, 2);
      assert.ok(metrics['iii_stream_cluster_calls_total{outcome="ok"}'] > 0);
      await peer.close();
      await until(async () => {
        const left = await b.trigger({ function_id: 'engine::functions::list', payload: { prefix: id } });
        return left.functions.length === 0;
      }, 'the function to be gone with its worker');
    });

    test('a call ends when the worker that runs it goes, and when its server does', { skip }, async () => {
      const begun = [deferred(), deferred()];
      const ids = [unique('a::worker-goes'), unique('a::server-dies')];
      const peer = await servers[0].peer();
      peer.send({ type: 'registerfunction', id: ids[0] });
      a.registerFunction(ids[1], () => { begun[1].resolve(); return new Promise(() => {}); });
      await Promise.all(ids.map((id) => known(b, id)));
      const far = await servers[1].peer();
      const first = far.call(ids[0], {});
      await peer.take((frame) => frame.type === 'invokefunction', 'the call');
      await peer.close();
      assert.equal((await first).error.code, 'invocation_stopped');
      const second = far.call(ids[1], {});
      await begun[1].promise;
      const at = performance.now();
      await servers[0].kill();
      assert.equal((await second).error.code, 'invocation_stopped');
      const took = performance.now() - at;
      assert.ok(took < 1_500 + 1_000, `${took} ms`);
      const error = await rejection(servers[1].subscriber('/'));
      assert.equal(error.status, 503, 'nobody answers for the auth function any more');
    });
  });
}
