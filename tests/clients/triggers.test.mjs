// `stream` triggers: filters, conditions, payload, order, registration and its failures (stream-functions.md §9.1).
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Record, settled, startServer, unique } from './harness.mjs';

let server;
let sdk;
const call = (verb, payload) => sdk.trigger({ function_id: `stream::${verb}`, payload });

before(async () => {
  server = await startServer();
  sdk = server.sdk();
});
after(() => server?.stop());

/** A handler that records its calls, bound with `config` on a stream of its own. */
async function bind(config = {}, more = {}) {
  const calls = new Record(server);
  const stream_name = config.stream_name ?? unique('stream');
  const function_id = unique('on::change');
  sdk.registerFunction(function_id, async (input, metadata) => { calls.push({ input, metadata }); return {}; });
  const trigger = sdk.registerTrigger({ type: 'stream', function_id, config: { stream_name, ...config }, ...more });
  await settled(sdk);
  const at = { stream_name, group_id: 'g', item_id: 'i' };
  return { calls, at, stream_name, function_id, trigger, seen: () => calls.items.map(({ input }) => `${input.groupId}/${input.id}`) };
}

test('a handler gets exactly the frame of the spec, for create, update and delete', async () => {
  const { calls, at, stream_name } = await bind();
  const begin = Date.now();
  await call('set', { ...at, data: { id: 'i', n: 1 } });
  await call('update', { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }] });
  await call('set', { ...at, data: null });
  await call('delete', at);
  await call('delete', at);
  await call('set', { ...at, data: 7 });
  const inputs = (await calls.count(5)).map(({ input }) => input);
  const expected = [['create', { id: 'i', n: 1 }], ['update', { id: 'i', n: 2 }], ['update', null], ['delete', null], ['create', 7]];
  inputs.forEach((input, i) => {
    const { timestamp, ...rest } = input;
    assert.deepEqual(rest, { type: 'stream', streamName: stream_name, groupId: 'g', id: 'i', event: { type: expected[i][0], data: expected[i][1] } });
    assert.ok(Number.isInteger(timestamp) && timestamp >= begin && timestamp < begin + 60_000, `${timestamp}`);
    if (i > 0) assert.ok(timestamp > inputs[i - 1].timestamp, 'timestamps of an item rise');
  });
});

test('reads and refused calls fire nothing', async () => {
  const { calls, at } = await bind();
  await call('get', at);
  await call('list', at);
  await call('list_groups', at);
  await call('list_all', {});
  await call('delete', at);
  await assert.rejects(call('set', { ...at, data: undefined }));
  await assert.rejects(call('update', { ...at, ops: [{ type: 'nonsense' }] }));
  await call('set', { ...at, data: 'marker' });
  const [first] = await calls.count(1);
  assert.equal(first.input.event.data, 'marker');
});

test('stream_name, group_id and item_id filter exactly; empty and null filter nothing', async () => {
  const stream_name = unique('filtered');
  const all = await bind({ stream_name });
  const ofGroup = await bind({ stream_name, group_id: 'a' });
  const ofItem = await bind({ stream_name, group_id: 'a', item_id: '1' });
  const ofItemAnywhere = await bind({ stream_name, item_id: '1' });
  const empty = await bind({ stream_name, group_id: '', item_id: null });
  const elsewhere = await bind({ stream_name: `${stream_name}x` });
  for (const [group_id, item_id] of [['a', '1'], ['a', '2'], ['b', '1'], ['b', '2'], ['A', '1'], ['a', '11']]) {
    await call('set', { stream_name, group_id, item_id, data: 1 });
  }
  // A last write that everybody may see marks the end: invocations of one trigger come in group order.
  await call('set', { stream_name, group_id: 'a', item_id: '1', data: 2 });
  await call('set', { stream_name: `${stream_name}x`, group_id: 'a', item_id: '1', data: 2 });
  const sorted = async (binding, n) => { await binding.calls.count(n); return binding.seen().sort(); };
  assert.deepEqual(await sorted(all, 7), ['A/1', 'a/1', 'a/1', 'a/11', 'a/2', 'b/1', 'b/2']);
  assert.deepEqual(await sorted(empty, 7), ['A/1', 'a/1', 'a/1', 'a/11', 'a/2', 'b/1', 'b/2']);
  assert.deepEqual(await sorted(ofGroup, 4), ['a/1', 'a/1', 'a/11', 'a/2']);
  assert.deepEqual(await sorted(ofItem, 2), ['a/1', 'a/1']);
  assert.deepEqual(await sorted(ofItemAnywhere, 4), ['A/1', 'a/1', 'a/1', 'b/1']);
  assert.deepEqual(await sorted(elsewhere, 1), ['a/1']);
});

const OUTCOMES = [
  ['false', () => false, false],
  ['true', () => true, true],
  ['null', () => null, true],
  ['no value', () => undefined, true],
  ['0', () => 0, true],
  ['""', () => '', true],
  ['"false"', () => 'false', true],
  ['{}', () => ({}), true],
  ['{"result":false}', () => ({ result: false }), true],
  ['[]', () => [], true],
  ['an error', () => { throw new Error('cannot say'); }, false],
];

for (const [what, answer, runs] of OUTCOMES) {
  test(`a condition that gives ${what} ${runs ? 'runs' : 'skips'} the handler`, async () => {
    const condition = unique('condition');
    const asked = new Record(server);
    sdk.registerFunction(condition, async (input) => { asked.push(input); return input.id === 'marker' ? true : answer(); });
    const { calls, at, seen } = await bind({ condition_function_id: condition });
    await call('set', { ...at, data: 1 });
    await call('set', { ...at, item_id: 'marker', data: 1 });
    await calls.until((list) => list.some(({ input }) => input.id === 'marker'), 'the marker');
    assert.deepEqual(seen(), runs ? ['g/i', 'g/marker'] : ['g/marker']);
    const { timestamp, ...input } = asked.items[0];
    assert.deepEqual(input, { type: 'stream', streamName: at.stream_name, groupId: 'g', id: 'i', event: { type: 'create', data: 1 } });
  });
}

test('a condition function that is missing, or "", skips; one that appears later is used', async () => {
  const condition = unique('condition::later');
  const missing = await bind({ condition_function_id: condition });
  const blank = await bind({ stream_name: missing.stream_name, condition_function_id: '' });
  const witness = await bind({ stream_name: missing.stream_name });
  for (let n = 1; n <= 5; n += 1) {
    await call('set', { ...missing.at, item_id: `early-${n}`, data: 1 });
    await witness.calls.count(n);
  }
  sdk.registerFunction(condition, async () => true);
  await settled(sdk);
  await call('set', { ...missing.at, item_id: 'marker', data: 1 });
  await missing.calls.until((list) => list.some(({ input }) => input.id === 'marker'), 'the marker');
  // The fifth may just have been judged after the function was there; the others had been handed out long before.
  assert.deepEqual(missing.seen().filter((at) => at !== 'g/early-5'), ['g/marker']);
  assert.deepEqual(blank.seen(), []);
});

test('a handler sees 300 rapid updates in order', async () => {
  const { calls, at } = await bind();
  await call('set', { ...at, data: { n: 0 } });
  await Promise.all(Array.from({ length: 300 }, () => call('update', { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }] })));
  const inputs = (await calls.count(301)).map(({ input }) => input);
  assert.deepEqual(inputs.map((i) => i.event.data.n), Array.from({ length: 301 }, (_, n) => n));
  inputs.slice(1).forEach((input, i) => assert.ok(input.timestamp > inputs[i].timestamp));
});

test('conditions of different speed do not change the order', async () => {
  const condition = unique('condition::slow');
  const held = [];
  // The answers are given back to front, as if the earliest question had taken longest.
  sdk.registerFunction(condition, (input) => new Promise((resolve) => {
    held.push(() => resolve(true));
    if (held.length === 10) held.reverse().forEach((answer) => answer());
    assert.ok(input);
  }));
  const { calls, at } = await bind({ condition_function_id: condition });
  for (let n = 0; n < 10; n += 1) await call('set', { ...at, data: n });
  assert.deepEqual((await calls.count(10)).map(({ input }) => input.event.data), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('a handler that never answers holds up neither its own next events nor other handlers', async () => {
  const stuck = new Record(server);
  const function_id = unique('on::stuck');
  sdk.registerFunction(function_id, (input) => { stuck.push(input); return new Promise(() => {}); });
  const stream_name = unique('stuck');
  sdk.registerTrigger({ type: 'stream', function_id, config: { stream_name } });
  const other = await bind({ stream_name });
  for (let n = 0; n < 20; n += 1) await call('set', { ...other.at, data: n });
  const order = Array.from({ length: 20 }, (_, n) => n);
  assert.deepEqual((await stuck.count(20)).map((input) => input.event.data), order);
  assert.deepEqual((await other.calls.count(20)).map(({ input }) => input.event.data), order);
});

test('a handler may change the stream it listens to', async () => {
  const stream_name = unique('bot');
  const function_id = unique('on::bot');
  sdk.registerFunction(function_id, async ({ event, id }) => {
    if (event.type === 'create' && !id.startsWith('re:')) await call('set', { stream_name, group_id: 'g', item_id: `re:${id}`, data: event.data });
    return {};
  });
  sdk.registerTrigger({ type: 'stream', function_id, config: { stream_name } });
  const { calls } = await bind({ stream_name });
  await call('set', { stream_name, group_id: 'g', item_id: 'q', data: 1 });
  assert.deepEqual((await calls.count(2)).map(({ input }) => input.id), ['q', 're:q']);
});

test('the registration\'s metadata is the call\'s metadata', async () => {
  const { calls, at } = await bind({}, { metadata: { shop: 7 } });
  await call('set', { ...at, data: 1 });
  assert.deepEqual((await calls.count(1))[0].metadata, { shop: 7 });
  const plain = await bind();
  await call('set', { ...plain.at, data: 1 });
  assert.equal((await plain.calls.count(1))[0].metadata ?? null, null);
});

test('unregistering stops the handler', async () => {
  const { calls, at, trigger, stream_name } = await bind();
  const witness = await bind({ stream_name });
  await call('set', { ...at, data: 1 });
  await calls.count(1);
  trigger.unregister();
  await settled(sdk);
  await call('set', { ...at, data: 2 });
  await witness.calls.count(2);
  await settled(sdk);
  assert.equal(calls.items.length, 1);
});

test('a closed connection takes its triggers with it', async () => {
  const { at, stream_name, calls } = await bind();
  const peer = await server.peer();
  const function_id = unique('on::gone');
  const gone = new Record(server);
  const other = await server.peer();
  other.serve(function_id, (data) => { gone.push(data); return { result: {} }; });
  await other.settled();
  peer.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream', function_id, config: { stream_name } });
  await peer.settled();
  await call('set', { ...at, data: 1 });
  await gone.count(1);
  await peer.close();
  await call('set', { ...at, data: 2 });
  await calls.count(2);
  await other.settled();
  assert.equal(gone.items.length, 1);
});

test('the same id twice replaces: it fires once, with the last target and config', async () => {
  const peer = await server.peer();
  const stream_name = unique('twice');
  const [old, current] = [unique('on::old'), unique('on::current')];
  const calls = new Record(server);
  for (const fn of [old, current]) peer.serve(fn, (data) => { calls.push([fn, data.id]); return { result: {} }; });
  const id = randomUUID();
  const register = (function_id, config) => peer.send({ type: 'registertrigger', id, trigger_type: 'stream', function_id, config });
  register(old, { stream_name });
  register(old, { stream_name });
  register(current, { stream_name, item_id: 'y' });
  register(current, { stream_name, item_id: 'y' });
  const at = { stream_name, group_id: 'g' };
  await peer.result('stream::set', { ...at, item_id: 'x', data: 1 });
  await peer.result('stream::set', { ...at, item_id: 'y', data: 1 });
  await peer.result('stream::set', { ...at, item_id: 'y', data: 2 });
  await calls.count(2);
  await peer.settled();
  assert.deepEqual(calls.items, [[current, 'y'], [current, 'y']]);
  peer.send({ type: 'unregistertrigger', id });
  await peer.result('stream::set', { ...at, item_id: 'y', data: 3 });
  await peer.settled();
  assert.equal(calls.items.length, 2, 'one unregister removes it');
});

test('a function missing when its trigger is registered is looked up when it fires', async () => {
  const peer = await server.peer();
  const stream_name = unique('early');
  const fn = unique('on::early');
  peer.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream', function_id: fn, config: { stream_name } });
  await peer.result('stream::set', { stream_name, group_id: 'g', item_id: 'nobody-there', data: 1 });
  const calls = new Record(server);
  peer.serve(fn, (data) => { calls.push(data.id); return { result: {} }; });
  await peer.settled();
  await peer.result('stream::set', { stream_name, group_id: 'g', item_id: 'seen', data: 1 });
  await calls.until((ids) => ids.includes('seen'), 'the event after the registration');
});

test('a config that cannot work is refused with its reason; the connection works on', async () => {
  const peer = await server.peer();
  for (const [what, fields] of [
    ['no stream_name', { config: {} }],
    ['stream_name null', { config: { stream_name: null } }],
    ['stream_name a number', { config: { stream_name: 7 } }],
    ['group_id a number', { config: { stream_name: 's', group_id: 7 } }],
    ['item_id a list', { config: { stream_name: 's', item_id: ['i'] } }],
    ['condition a number', { config: { stream_name: 's', condition_function_id: 7 } }],
    ['config a string', { config: 'chat' }],
    ['config null', { config: null }],
    ['config absent', {}],
  ]) {
    const id = randomUUID();
    peer.send({ type: 'registertrigger', id, trigger_type: 'stream', function_id: 'f', ...fields });
    const answer = await peer.next(`an answer to ${what}`);
    assert.deepEqual([answer.type, answer.id, answer.trigger_type, answer.function_id, answer.error?.code],
      ['triggerregistrationresult', id, 'stream', 'f', 'trigger_registration_failed'], what);
    assert.ok(answer.error.message.length > 5, what);
  }
  peer.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream', function_id: 'f', namespace: ' ', config: { stream_name: 's' } });
  assert.equal((await peer.next()).error?.code, 'INVALID_NAMESPACE');
  peer.send({ type: 'ping' });
  assert.deepEqual(await peer.next(), { type: 'pong' });
});

test('a good registration, also with unknown keys or of an unknown type, is not answered', async () => {
  const peer = await server.peer();
  peer.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream', function_id: 'f', config: { stream_name: unique('s'), colour: 'red' }, message_type: 'registertrigger' });
  peer.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'no:such:type', function_id: 'f', config: {} });
  peer.send({ type: 'ping' });
  assert.deepEqual(await peer.next(), { type: 'pong' });
});

test('stream::send fires only triggers that ask for events', async () => {
  const stream_name = unique('send');
  const plain = await bind({ stream_name });
  const events = await bind({ stream_name, include_events: true });
  const ofItem = await bind({ stream_name, include_events: true, item_id: 'i' });
  const send = { stream_name, group_id: 'g', type: 'typing' };
  await call('send', { ...send, data: { who: 1 } });
  await call('send', { ...send, data: null, id: 'i' });
  await call('set', { ...plain.at, data: 'marker' });
  await Promise.all([plain.calls.count(1), events.calls.count(3), ofItem.calls.count(2)]);
  const shapes = (binding) => binding.calls.items.map(({ input: { timestamp, ...rest } }) => {
    assert.ok(Number.isInteger(timestamp));
    return rest;
  });
  const frame = (id, event) => ({ type: 'stream', streamName: stream_name, groupId: 'g', id, event });
  const marker = frame('i', { type: 'create', data: 'marker' });
  const ofI = frame('i', { type: 'event', event: { type: 'typing', data: null } });
  assert.deepEqual(shapes(plain), [marker]);
  assert.deepEqual(shapes(events), [frame(null, { type: 'event', event: { type: 'typing', data: { who: 1 } } }), ofI, marker]);
  assert.deepEqual(shapes(ofItem), [ofI, marker], 'an event without id does not match an item filter');
});
