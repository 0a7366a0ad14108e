// The checklist of a Node worker SDK: what every version must be able to do with the server, as tests over one `registerWorker`.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { deferred, Record, rejection, startServer, unique } from './harness.mjs';
import { restart } from './restart.mjs';

/** Names that a file system, a URL or a Redis key would read as something else. */
export const ODD_NAMES = ['a:b', 'a', 'b:c', 'a/b', '..', '.', '../../etc/passwd', ' ', 'a b', '🦀', 'é', 'e\u0301', 'stream::set(x)', '%2F', '"', '\\', '{}', '\u0000'];

const OUTCOMES = [
  ['false', () => false, false],
  ['true', () => true, true],
  ['null', () => null, true],
  ['no value', () => undefined, true],
  ['0', () => 0, true],
  ['""', () => '', true],
  ['"false"', () => 'false', true],
  ['an object', () => ({ allowed: false }), true],
  ['an error', () => { throw new Error('cannot say'); }, false],
];

/** Declares the tests; `version` is the SDK's, `features` what only some versions have. */
export function checklist(version, { registerWorker, TriggerAction, features = {} }) {
  const name = (what) => `iii-sdk ${version}: ${what}`;
  const workers = [];
  let server;
  let sdk;

  /** A worker of this SDK version. Telemetry is off: its global state outlives a server. */
  const connect = (to = server, options = {}) => {
    const worker = registerWorker(to.workers, { otel: { enabled: false }, enableMetricsReporting: false, ...options });
    workers.push(worker);
    return worker;
  };
  const call = (verb, payload, worker = sdk) => worker.trigger({ function_id: `stream::${verb}`, payload });
  /** One connection is read in order, so an answer says that all before it was read. */
  const settled = (worker = sdk) => worker.trigger({ function_id: 'stream::list_all', payload: {} });

  before(async () => {
    server = await startServer();
    sdk = connect();
    await server.within(settled(), 'the worker to be connected');
  });
  after(async () => {
    await Promise.all(workers.map((worker) => worker.shutdown()));
    await server?.stop();
  });

  /** A recording handler, bound by a trigger. */
  async function bind(type, config, { handler = () => ({}), worker = sdk } = {}) {
    const calls = new Record(server);
    const function_id = unique(`on::${type}`);
    worker.registerFunction(function_id, async (input, metadata) => { calls.push(metadata === undefined ? input : { ...input, metadata }); return handler(input); });
    const trigger = worker.registerTrigger({ type, function_id, config });
    await settled(worker);
    return Object.assign(calls, { function_id, trigger });
  }
  const places = (calls) => calls.items.map((input) => `${input.groupId}/${input.id}`).sort();

  test(name('all eight functions'), async () => {
    const stream_name = unique('eight');
    const at = { stream_name, group_id: 'g', item_id: 'i' };
    const subscriber = await server.subscriber();
    assert.deepEqual((await subscriber.join(stream_name, 'g')).event, { type: 'sync', data: [] });

    assert.equal(await call('get', at), undefined, 'missing is undefined');
    assert.deepEqual(await call('set', { ...at, data: { id: 'i', n: 1 } }), { old_value: null, new_value: { id: 'i', n: 1 } });
    assert.deepEqual(await call('set', { ...at, data: { id: 'i', n: 2 } }), { old_value: { id: 'i', n: 1 }, new_value: { id: 'i', n: 2 } });
    assert.deepEqual(await call('update', { ...at, ops: [{ type: 'increment', path: 'n', by: 5 }, { type: 'set', path: 'new', value: [1] }] }),
      { old_value: { id: 'i', n: 2 }, new_value: { id: 'i', n: 7, new: [1] } });
    assert.deepEqual(await call('get', at), { id: 'i', n: 7, new: [1] });
    assert.deepEqual(await call('set', { ...at, item_id: 'j', data: null }), { old_value: null, new_value: null });
    assert.equal(await call('get', { ...at, item_id: 'j' }), null, 'a stored null is null');
    assert.deepEqual(await call('list', { stream_name, group_id: 'g' }), [{ id: 'i', n: 7, new: [1] }, null]);
    assert.deepEqual(await call('list', { stream_name, group_id: 'none' }), []);
    await call('set', { stream_name, group_id: 'h', item_id: 'k', data: 1 });
    assert.deepEqual((await call('list_groups', { stream_name })).sort(), ['g', 'h']);
    const all = await call('list_all', {});
    assert.deepEqual(all.stream.find((s) => s.id === stream_name), { id: stream_name, groups: ['g', 'h'] });
    assert.equal(all.count, all.stream.length);
    assert.equal(await call('send', { stream_name, group_id: 'g', type: 'typing', data: { u: 1 } }), null);
    assert.equal(await call('send', { stream_name, group_id: 'g', id: 'i', type: 'typing', data: { u: 2 } }), null);
    assert.deepEqual(await call('delete', at), { old_value: { id: 'i', n: 7, new: [1] } });
    assert.deepEqual(await call('delete', at), { old_value: null });

    const seen = [];
    while (seen.at(-1)?.event.type !== 'delete') seen.push(await subscriber.next());
    assert.deepEqual(seen.map(({ id, event }) => [id, event]), [
      ['i', { type: 'create', data: { id: 'i', n: 1 } }],
      ['i', { type: 'update', data: { id: 'i', n: 2 } }],
      ['i', { type: 'update', data: { id: 'i', n: 7, new: [1] } }],
      ['j', { type: 'create', data: null }],
      [null, { type: 'event', event: { type: 'typing', data: { u: 1 } } }],
      ['i', { type: 'event', event: { type: 'typing', data: { u: 2 } } }],
      ['i', { type: 'delete', data: { id: 'i', n: 7, new: [1] } }],
    ]);
  });

  test(name('what a built-in function refuses is an error with its code'), async () => {
    const at = { stream_name: unique('refused'), group_id: 'g', item_id: 'i' };
    for (const [verb, payload] of [['set', at], ['get', { stream_name: 'x' }], ['get', 7], ['get', undefined], ['update', { ...at, ops: [{ type: 'nonsense' }] }]]) {
      const error = await rejection(call(verb, payload), verb);
      assert.equal(error.code, 'deserialization_error', `${verb}: ${error.message}`);
    }
    assert.equal(await call('get', at), undefined, 'nothing was changed');
    const { errors } = await call('update', { ...at, ops: [{ type: 'set', path: 'n', value: 1 }, { type: 'append', path: 'n', value: 1 }] });
    assert.deepEqual(errors.map(({ op_index, code }) => [op_index, code]), [[1, 'append.type_mismatch']]);
  });

  test(name('stream triggers filter by stream, group and item; "" and null filter nothing'), async () => {
    const stream_name = unique('filtered');
    const bound = await Promise.all([{}, { group_id: 'a' }, { group_id: 'a', item_id: '1' }, { item_id: '1' }, { group_id: '', item_id: null }]
      .map((config) => bind('stream', { stream_name, ...config })));
    const elsewhere = await bind('stream', { stream_name: `${stream_name}x` });
    for (const [group_id, item_id] of [['a', '1'], ['a', '2'], ['b', '1'], ['A', '1'], ['a', '11']]) {
      await call('set', { stream_name, group_id, item_id, data: { id: item_id } });
    }
    // The last write, which all of them see, comes after what they must not see: one trigger's calls keep their order.
    await call('set', { stream_name, group_id: 'a', item_id: '1', data: { id: '1', last: true } });
    await call('set', { stream_name: `${stream_name}x`, group_id: 'a', item_id: '1', data: 1 });
    const every = ['A/1', 'a/1', 'a/1', 'a/11', 'a/2', 'b/1'];
    const expected = [every, ['a/1', 'a/1', 'a/11', 'a/2'], ['a/1', 'a/1'], ['A/1', 'a/1', 'a/1', 'b/1'], every];
    for (const [at, calls] of bound.entries()) {
      await calls.until((items) => items.some((input) => input.event.data.last), `the last write at binding ${at}`);
      assert.deepEqual(places(calls), expected[at], `binding ${at}`);
    }
    await elsewhere.count(1);
    assert.deepEqual(places(elsewhere), ['a/1']);
    const { timestamp, ...first } = bound[0].items[0];
    assert.deepEqual(first, { type: 'stream', streamName: stream_name, groupId: 'a', id: '1', event: { type: 'create', data: { id: '1' } } });
    assert.ok(Number.isInteger(timestamp));
  });

  test(name('create, update and delete reach a handler, until it is unregistered'), async () => {
    const stream_name = unique('events');
    const at = { stream_name, group_id: 'g', item_id: 'i' };
    const [calls, witness] = [await bind('stream', { stream_name }), await bind('stream', { stream_name })];
    await call('set', { ...at, data: 1 });
    await call('set', { ...at, data: 2 });
    await call('delete', at);
    assert.deepEqual((await calls.count(3)).map(({ event }) => event), [{ type: 'create', data: 1 }, { type: 'update', data: 2 }, { type: 'delete', data: 2 }]);
    calls.trigger.unregister();
    await settled();
    await call('set', { ...at, data: 3 });
    await witness.count(4);
    await settled();
    assert.equal(calls.items.length, 3);
  });

  for (const [what, answer, runs] of OUTCOMES) {
    test(name(`a condition that gives ${what} ${runs ? 'runs' : 'skips'} the handler`), async () => {
      const condition = unique('condition');
      sdk.registerFunction(condition, async (input) => (input.id === 'marker' ? true : answer()));
      const stream_name = unique('conditional');
      const calls = await bind('stream', { stream_name, condition_function_id: condition });
      await call('set', { stream_name, group_id: 'g', item_id: 'i', data: 1 });
      await call('set', { stream_name, group_id: 'g', item_id: 'marker', data: 1 });
      await calls.until((items) => items.some(({ id }) => id === 'marker'), 'the marker');
      assert.deepEqual(places(calls), runs ? ['g/i', 'g/marker'] : ['g/marker']);
    });
  }

  test(name('a condition that is missing or "" skips the handler'), async () => {
    const stream_name = unique('unconditional');
    const skipped = [await bind('stream', { stream_name, condition_function_id: unique('no::such') }), await bind('stream', { stream_name, condition_function_id: '' })];
    const witness = await bind('stream', { stream_name });
    for (const item_id of ['a', 'b', 'c']) await call('set', { stream_name, group_id: 'g', item_id, data: 1 });
    await witness.count(3);
    await settled();
    assert.deepEqual(skipped.map((calls) => calls.items), [[], []]);
  });

  if (features.metadata) {
    test(name('metadata of a registration and of a call reaches the handler'), async () => {
      const stream_name = unique('metadata');
      const calls = new Record(server);
      const function_id = unique('on::metadata');
      sdk.registerFunction(function_id, async (input, metadata) => { calls.push(metadata); return {}; });
      sdk.registerTrigger({ type: 'stream', function_id, config: { stream_name }, metadata: { shop: 7 } });
      await settled();
      await call('set', { stream_name, group_id: 'g', item_id: 'i', data: 1 });
      assert.deepEqual(await calls.count(1), [{ shop: 7 }]);
      await sdk.trigger({ function_id, payload: {}, metadata: { shop: 8 } });
      assert.deepEqual(calls.items[1], { shop: 8 });
    });
  }

  test(name('join and leave triggers see a subscription; unauthorized: true refuses it'), async () => {
    const stream_name = unique('guarded');
    const joins = await bind('stream:join', { stream_name }, { handler: ({ group_id }) => ({ unauthorized: group_id === 'secret' }) });
    const leaves = await bind('stream:leave', { stream_name });
    const subscriber = await server.subscriber();
    const subscriptionId = randomUUID();
    assert.equal((await subscriber.join(stream_name, 'open', undefined, subscriptionId)).event.type, 'sync');
    assert.equal((await subscriber.join(stream_name, 'secret', 'i')).event.type, 'unauthorized');
    await call('set', { stream_name, group_id: 'secret', item_id: 'i', data: 1 });
    await call('set', { stream_name, group_id: 'open', item_id: 'i', data: { id: 'i' } });
    assert.equal((await subscriber.next()).groupId, 'open', 'nothing of the refused group');
    await subscriber.close();
    const input = { subscription_id: subscriptionId, stream_name, group_id: 'open', id: null, context: null };
    assert.deepEqual(await leaves.count(1), [input]);
    assert.deepEqual(joins.items[0], input);
    assert.deepEqual([joins.items.length, joins.items[1].group_id, joins.items[1].id], [2, 'secret', 'i']);
  });

  test(name('join triggers filter by stream and condition; a skipped one refuses nobody'), async () => {
    const stream_name = unique('guarded');
    const deny = { handler: () => ({ unauthorized: true }) };
    const elsewhere = await bind('stream:join', { stream_name: `${stream_name}-other` }, deny);
    const condition = unique('condition');
    sdk.registerFunction(condition, async ({ group_id }) => group_id === 'asked');
    const conditional = await bind('stream:join', { stream_name, condition_function_id: condition }, deny);
    const left = await bind('stream:leave', { stream_name, condition_function_id: condition });
    const witness = await bind('stream:leave', { stream_name });
    const subscriber = await server.subscriber();
    assert.equal((await subscriber.join(stream_name, 'free')).event.type, 'sync');
    assert.equal((await subscriber.join(stream_name, 'asked')).event.type, 'unauthorized');
    assert.deepEqual(elsewhere.items, []);
    assert.deepEqual(conditional.items.map(({ group_id }) => group_id), ['asked']);
    conditional.trigger.unregister();
    await settled();
    assert.equal((await subscriber.join(stream_name, 'asked')).event.type, 'sync', 'an unregistered guard guards nothing');
    await subscriber.close();
    await left.count(1);
    await witness.count(2);
    assert.deepEqual(left.items.map(({ group_id }) => group_id), ['asked']);
  });

  test(name('two workers call each other'), async () => {
    const other = connect();
    const [ping, pong] = [unique('ping'), unique('pong')];
    sdk.registerFunction(ping, async ({ n }) => (n === 0 ? { path: [ping] } : { path: [ping, ...(await sdk.trigger({ function_id: pong, payload: { n: n - 1 } })).path] }));
    other.registerFunction(pong, async ({ n }) => ({ path: [pong, ...(await other.trigger({ function_id: ping, payload: { n } })).path] }));
    await Promise.all([settled(), settled(other)]);
    assert.deepEqual((await other.trigger({ function_id: ping, payload: { n: 2 } })).path, [ping, pong, ping, pong, ping]);
  });

  test(name('a thrown error arrives as invocation_failed with its message'), async () => {
    const id = unique('fn::throws');
    sdk.registerFunction(id, async () => { throw new TypeError('no é 🦀'); });
    await settled();
    const error = await rejection(connect().trigger({ function_id: id, payload: {} }));
    assert.equal(error.code, 'invocation_failed');
    assert.match(error.message, /no é 🦀/);
  });

  test(name('a worker that goes while it is called: invocation_stopped, then function_not_found'), async () => {
    const id = unique('fn::gone');
    const worker = connect();
    const called = deferred();
    worker.registerFunction(id, () => { called.resolve(); return new Promise(() => {}); });
    await settled(worker);
    const answer = rejection(sdk.trigger({ function_id: id, payload: {} }));
    await server.within(called.promise, 'the call to arrive');
    await worker.shutdown();
    assert.equal((await server.within(answer, 'the caller to be told')).code, 'invocation_stopped');
    const error = await rejection(sdk.trigger({ function_id: id, payload: {} }));
    assert.equal(error.code, 'function_not_found');
    assert.match(error.message, new RegExp(id));
  });

  test(name('void calls take effect in order, are not answered and may fail'), async () => {
    const at = { stream_name: unique('void'), group_id: 'g', item_id: 'i' };
    const action = TriggerAction.Void();
    for (let n = 0; n < 200; n += 1) {
      assert.equal(await sdk.trigger({ function_id: 'stream::set', payload: { ...at, data: n }, action }), undefined);
      if (n % 50 === 0) assert.equal(await call('get', at), n, 'a call after a void call sees it');
    }
    await sdk.trigger({ function_id: unique('no::such'), payload: {}, action });
    await sdk.trigger({ function_id: 'stream::set', payload: 'nonsense', action });
    const calls = new Record(server);
    const id = unique('fn::void');
    connect().registerFunction(id, async (data) => { calls.push(data.n); });
    for (let n = 0; calls.items.length === 0; n += 1) {
      await sdk.trigger({ function_id: id, payload: { n }, action });
      await settled();
      assert.ok(n < 2000, 'the other worker never registered');
    }
    assert.equal(await call('get', at), 199);
  });

  for (const [what, size] of [['1 MB', 1_000_000], ['20 MB', 20_000_000]]) {
    test(name(`an item of ${what} goes in, through a trigger and out whole`), async () => {
      const stream_name = unique('large');
      const at = { stream_name, group_id: 'g', item_id: 'i' };
      const calls = await bind('stream', { stream_name });
      const data = { id: 'i', text: '0123456789é🦀"\\'.repeat(size / 20) }; // 20 bytes of JSON each
      assert.ok(Buffer.byteLength(JSON.stringify(data)) >= size);
      const { new_value } = await call('set', { ...at, data });
      assert.ok(new_value.text === data.text, 'in the answer of set');
      assert.ok((await call('get', at)).text === data.text, 'in get');
      assert.ok((await calls.count(1))[0].event.data.text === data.text, 'in the trigger');
      await call('delete', at);
    });
  }

  test(name('odd names of streams, groups, items and functions are ordinary and all different'), async () => {
    const stream = unique('odd');
    await Promise.all(ODD_NAMES.map((odd, n) => call('set', { stream_name: stream + odd, group_id: odd, item_id: odd, data: n })));
    for (const [n, odd] of ODD_NAMES.entries()) {
      assert.equal(await call('get', { stream_name: stream + odd, group_id: odd, item_id: odd }), n, JSON.stringify(odd));
      assert.deepEqual(await call('list_groups', { stream_name: stream + odd }), [odd]);
    }
    const odd = unique('fn::é/..:🦀 "x"');
    sdk.registerFunction(odd, async (data) => data.text);
    await settled();
    assert.equal(await sdk.trigger({ function_id: odd, payload: { text: 'e\u0301 é 🦀 \u0000 \u2028' } }), 'e\u0301 é 🦀 \u0000 \u2028');
    await call('set', { stream_name: 'a:b', group_id: 'c', item_id: stream, data: 1 });
    assert.equal(await call('get', { stream_name: 'a', group_id: 'b:c', item_id: stream }), undefined, 'a colon joins nothing');
  });

  test(name('a restarted server gets everything back: functions, triggers and calls'), async (t) => {
    t.mock.method(console, 'error', () => {}); // the SDK tells each attempt to reconnect there
    let restarted = await startServer();
    const reconnectionConfig = { initialDelayMs: 50, maxDelayMs: 200, jitterFactor: 0 };
    const [worker, caller] = [connect(restarted, { reconnectionConfig }), connect(restarted, { reconnectionConfig })];
    try {
      const [id, onChange, onJoin, stream_name] = [unique('fn::back'), unique('on::back'), unique('on::join-back'), unique('back')];
      const [changes, joins] = [new Record(restarted), new Record(restarted)];
      worker.registerFunction(id, async ({ n }) => n + 1);
      worker.registerFunction(onChange, async (input) => { changes.push(input.event.data); return {}; });
      worker.registerFunction(onJoin, async (input) => { joins.push(input.group_id); return { unauthorized: true }; });
      worker.registerTrigger({ type: 'stream', function_id: onChange, config: { stream_name } });
      worker.registerTrigger({ type: 'stream:join', function_id: onJoin, config: { stream_name } });
      await settled(worker);
      const at = { stream_name, group_id: 'g', item_id: 'i' };
      await call('set', { ...at, data: 'before' }, caller);
      assert.deepEqual(await changes.count(1), ['before']);

      restarted = await restart(restarted);
      const first = call('set', { ...at, item_id: 'first', data: 1 }, caller);
      assert.deepEqual(await restarted.within(first, 'a call of the worker that only calls'), { old_value: null, new_value: 1 });
      await restarted.within(settled(worker), 'the other worker to be back');
      assert.equal(await restarted.within(caller.trigger({ function_id: id, payload: { n: 1 } }), 'a call between workers'), 2);
      changes.server = joins.server = restarted;
      await call('set', { ...at, data: 'after' }, caller);
      await changes.until((items) => items.includes('after'), 'the trigger to be back');
      assert.equal(changes.items.filter((value) => value === 'after').length, 1, 'and only once');
      const subscriber = await restarted.subscriber();
      assert.equal((await subscriber.join(stream_name, 'g')).event.type, 'unauthorized', 'and the guard');
      assert.deepEqual(joins.items, ['g']);
    } finally {
      await Promise.all([worker.shutdown(), caller.shutdown()]);
      await restarted.stop();
    }
  });
}
