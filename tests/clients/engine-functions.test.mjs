// What a worker can ask about the server: functions, workers, trigger types and bindings (worker-protocol.md §10, §11).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Record, settled, startServer, unique } from './harness.mjs';

let server;
let peer;
before(async () => {
  server = await startServer();
  peer = await server.peer();
  await peer.result('engine::workers::register', { name: 'asker', runtime: 'node', version: '9', os: 'test', description: 'asks' });
});
after(() => server?.stop());

test('functions::list is sorted, filtered and hides what is internal', async () => {
  const prefix = unique('listed');
  peer.send({ type: 'registerfunction', id: `${prefix}::b`, description: 'second' });
  peer.send({ type: 'registerfunction', id: `${prefix}::a`, metadata: { k: 1 } });
  peer.send({ type: 'registerfunction', id: `${prefix}::hidden`, metadata: { internal: true } });
  const ids = async (input) => (await peer.result('engine::functions::list', input)).functions.map((f) => f.function_id);
  assert.deepEqual(await ids({ prefix }), [`${prefix}::a`, `${prefix}::b`]);
  assert.deepEqual(await ids({ prefix, include_internal: true }), [`${prefix}::a`, `${prefix}::b`, `${prefix}::hidden`]);
  const all = await ids({});
  assert.deepEqual(all, [...all].sort());
  for (const verb of ['set', 'get', 'delete', 'list', 'list_groups', 'list_all', 'send', 'update']) {
    assert.ok(all.includes(`stream::${verb}`), verb);
  }
  assert.ok(!all.some((id) => id.startsWith('engine::')));
  const [entry] = (await peer.result('engine::functions::list', { prefix: `${prefix}::b` })).functions;
  assert.deepEqual(entry, { function_id: `${prefix}::b`, namespace: 'default', worker_name: 'asker', description: 'second' });
});

test('functions::info tells one function, many, and a miss', async () => {
  const id = unique('info::fn');
  peer.send({ type: 'registerfunction', id, request_format: { type: 'object' } });
  const info = await peer.result('engine::functions::info', { function_id: id });
  assert.deepEqual([info.function_id, info.request_schema, info.registered_triggers], [id, { type: 'object' }, []]);
  const many = await peer.result('engine::functions::info', { function_ids: [id, 'no::such'] });
  assert.deepEqual(many.functions.map((f) => [f.function_id, f.error]), [[id, undefined], ['no::such', 'not_found']]);
  assert.equal((await peer.call('engine::functions::info', { function_id: 'no::such' })).error.code, 'NOT_FOUND');
});

test('workers::list shows a connected worker by name', async () => {
  const { workers } = await peer.result('engine::workers::list', {});
  const me = workers.find((w) => w.id === peer.registered.worker_id);
  assert.deepEqual([me.name, me.namespace, me.version, me.runtime, me.status], ['asker', 'default', '9', 'node', 'connected']);
  assert.ok(Number.isInteger(me.function_count) && Number.isInteger(me.connected_at_ms));
});

test('registered triggers are listed; register_trigger outlives its caller', async () => {
  const function_id = unique('bound::fn');
  const calls = new Record(server);
  peer.serve(function_id, (data) => { calls.push(data); return { result: {} }; });
  const stream_name = unique('bound');
  const other = await server.peer();
  const { id } = await other.result('engine::register_trigger', { trigger_type: 'stream', function_id, config: { stream_name } });
  await other.close();
  const { registered_triggers: [row, ...more] } = await peer.result('engine::registered-triggers::list', { function_id });
  assert.deepEqual([row.id, row.trigger_type, row.function_id, row.config, more], [id, 'stream', function_id, { stream_name }, []]);
  await peer.result('stream::set', { stream_name, group_id: 'g', item_id: 'i', data: 1 });
  await calls.count(1);
  assert.deepEqual(await peer.result('engine::unregister_trigger', { id }), { removed: true });
  assert.deepEqual(await peer.result('engine::unregister_trigger', { id }), { removed: false });
});

test('triggers::list names the built-in trigger types', async () => {
  const ids = (await peer.result('engine::triggers::list', {})).triggers.map((t) => t.id);
  for (const type of ['stream', 'stream:join', 'stream:leave']) assert.ok(ids.includes(type), type);
});

test('workers-available tells of connections coming and going', async () => {
  const function_id = unique('watch::workers');
  const events = new Record(server);
  peer.serve(function_id, (data) => { events.push(data); return { result: {} }; });
  peer.send({ type: 'registertrigger', id: unique('t'), trigger_type: 'engine::workers-available', function_id, config: {} });
  await peer.settled();
  const worker = await server.peer();
  const { worker_id } = worker.registered;
  const about = (event) => (list) => list.some((e) => e.worker_id === worker_id && e.event === event);
  await events.until(about('worker_connected'), 'worker_connected');
  await worker.close();
  await events.until(about('worker_disconnected'), 'worker_disconnected');
});

test('functions-available tells when the set of functions changed', async () => {
  const function_id = unique('watch::functions');
  const events = new Record(server);
  const sdk = server.sdk();
  sdk.registerFunction(function_id, async (event) => { events.push(event); });
  sdk.registerTrigger({ type: 'engine::functions-available', function_id, config: {} });
  await settled(sdk);
  const id = unique('appeared');
  peer.send({ type: 'registerfunction', id });
  await events.until((list) => list.some((e) => e.event === 'functions_changed' && e.functions.some((f) => f.function_id === id)), 'functions_changed');
});

test('a trigger type can be provided by a worker', async () => {
  const type = unique('custom:type');
  const sdk = server.sdk();
  const bindings = new Record(server);
  const removed = new Record(server);
  sdk.registerTriggerType({ id: type, description: 'a test type' }, {
    registerTrigger: async (binding) => { if (binding.config.bad) throw new Error('bad config'); bindings.push(binding); },
    unregisterTrigger: async (binding) => removed.push(binding),
  });
  await settled(sdk);
  const id = unique('binding');
  peer.send({ type: 'registertrigger', id, trigger_type: type, function_id: 'f', config: { k: 1 }, metadata: { m: 1 } });
  const [binding] = await bindings.count(1);
  assert.deepEqual(binding, { id, function_id: 'f', config: { k: 1 }, metadata: { m: 1 } });
  peer.send({ type: 'unregistertrigger', id });
  await removed.count(1);
  assert.equal(removed.items[0].id, id);
  const refused = unique('refused');
  peer.send({ type: 'registertrigger', id: refused, trigger_type: type, function_id: 'f', config: { bad: true } });
  const answer = await peer.take((f) => f.type === 'triggerregistrationresult', 'the refusal');
  assert.deepEqual([answer.id, answer.trigger_type, answer.error.code, answer.error.message], [refused, type, 'trigger_registration_failed', 'bad config']);
});
