// Calls of clients over the subscriber socket (protocol.md, "Calls of clients"): every function, only where granted, in order,
// bounded, answered whatever is sent, and exactly once with mutations.
import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Record, adapter, deferred, keepsGroups, startServer, unique } from './harness.mjs';
import { range } from './raw.mjs';
import { portsOf } from './restart.mjs';

const EVERYTHING = [{ stream: '*', group: '*', can: ['read', 'set', 'update', 'delete', 'send'] }];
const servers = [];
let open;

before(async () => { open = await own({ stream: { default_grants: EVERYTHING } }); });
after(() => Promise.all(servers.map((server) => server.alive && server.stop())));

async function own(config) {
  const server = await startServer(config);
  servers.push(server);
  return server;
}

const tagOf = (client) => createHash('sha256').update(client).digest('hex').slice(0, 32);

/** Sends a call and gives its id. */
function begin(socket, function_id, data, id = randomUUID()) {
  socket.send({ type: 'call', id, function_id, data });
  return id;
}

/** The answer of a call, as its whole frame. */
const answer = (socket, id, ms) => socket.take((frame) => frame.type === 'result' && frame.id === id, `the answer of call ${id}`, ms);

const call = (socket, function_id, data) => answer(socket, begin(socket, function_id, data));

/** The result of a call that succeeds. */
async function result(socket, verb, data) {
  const frame = await call(socket, `stream::${verb}`, data);
  assert.equal(frame.error, undefined, frame.text);
  return frame.result;
}

/** The error of a call that fails. */
async function failure(socket, function_id, data) {
  const frame = await call(socket, function_id, data);
  assert.ok(frame.error && !('result' in frame), frame.text);
  return frame.error;
}

/** A connection of version 1, of version 2, and one that joined by its path: all may call. */
const ways = {
  'that has not joined': () => open.subscriber(),
  'of version 1 by its path': async (at) => {
    const socket = await open.subscriber(`/stream/${at.stream_name}/${at.group_id}`);
    await socket.sync(at.stream_name, at.group_id);
    return socket;
  },
  'of version 2': async (at) => {
    const socket = await open.subscriber('/?v=2');
    await socket.join(at.stream_name, at.group_id);
    return socket;
  },
};

for (const [way, connect] of Object.entries(ways)) {
  test(`a client ${way} calls all eight functions and hears what comes of it`, async () => {
    const at = { stream_name: unique('calls'), group_id: 'g' };
    const socket = await connect(at);
    const i = { ...at, item_id: 'i' };
    assert.deepEqual(await result(socket, 'set', { ...i, data: { n: 1 } }), { old_value: null, new_value: { n: 1 } });
    assert.deepEqual(await result(socket, 'update', { ...i, ops: [{ type: 'increment', path: 'n', by: 2 }] }), { old_value: { n: 1 }, new_value: { n: 3 } });
    assert.deepEqual(await result(socket, 'get', i), { n: 3 });
    assert.deepEqual(await result(socket, 'list', at), [{ n: 3 }]);
    assert.deepEqual(await result(socket, 'list_groups', at), ['g']);
    assert.deepEqual((await result(socket, 'list_all')).stream.find(({ id }) => id === at.stream_name), { id: at.stream_name, groups: ['g'] });
    assert.equal(await result(socket, 'send', { ...at, type: 't', data: 0 }), null);
    assert.deepEqual(await result(socket, 'delete', i), { old_value: { n: 3 } });
    const missing = await call(socket, 'stream::get', i);
    assert.ok(!('result' in missing) && !('error' in missing), missing.text);
    if (way === 'that has not joined') return assert.deepEqual(socket.frames, []);
    const events = [];
    for (const type of ['create', 'update', 'event', 'delete']) events.push((await socket.event(type)).seq);
    assert.deepEqual(events, [1, 2, 3, 4]);
  });
}

test('calls of one connection take effect in the order sent, a join among them', async () => {
  const at = { stream_name: unique('order'), group_id: 'g', item_id: 'i' };
  const socket = await open.subscriber();
  const ids = range(500).map((n) => {
    if (n % 5 === 4) return begin(socket, 'stream::get', at);
    return begin(socket, 'stream::update', { ...at, ops: [{ type: 'increment', by: 1 }], returning: 'new' });
  });
  socket.send({ type: 'join', data: { subscriptionId: 's', streamName: at.stream_name, groupId: 'g', id: 'i' } });
  begin(socket, 'stream::set', { ...at, data: 'after' });
  let expected = 0;
  for (const [n, id] of ids.entries()) {
    const frame = await answer(socket, id);
    if (n % 5 === 4) assert.equal(frame.result, expected, frame.text);
    else assert.equal(frame.result.new_value, expected += 1, frame.text);
  }
  assert.equal((await socket.sync(at.stream_name, 'g', 'i')).event.data, expected);
  assert.equal((await socket.event('update')).event.data, 'after');
});

test('an id is echoed as it is, repeated ones are each answered, a worker sees the same items', async () => {
  const at = { stream_name: unique('ids'), group_id: 'g', item_id: 'i' };
  const [socket, peer] = [await open.subscriber(), await open.peer()];
  await peer.result('stream::set', { ...at, data: 1 });
  for (const id of ['', '7', 'a"b\\c', '🦀\u0000', 'x'.repeat(256)]) {
    begin(socket, 'stream::get', at, id);
    begin(socket, 'stream::get', at, id);
    assert.deepEqual([(await answer(socket, id)).result, (await answer(socket, id)).result], [1, 1]);
  }
  socket.send('{"type":"call","id":"big","function_id":"stream::set","data":{"stream_name":"ids","group_id":"g","item_id":"b","data":18446744073709551615}}');
  assert.match((await answer(socket, 'big')).text, /"new_value":18446744073709551615/);
});

test('without grants a client may read by calls and nothing else', async () => {
  const server = await own();
  const at = { stream_name: 'plain', group_id: 'g', item_id: 'i' };
  const [socket, peer] = [await server.subscriber(), await server.peer()];
  await peer.result('stream::set', { ...at, data: 1 });
  assert.equal(await result(socket, 'get', at), 1);
  assert.deepEqual(await result(socket, 'list', at), [1]);
  const writes = { set: { data: 2 }, update: { ops: [] }, delete: {}, send: { id: 'i', type: 't', data: 2 } };
  for (const [verb, more] of Object.entries(writes)) {
    const error = await failure(socket, `stream::${verb}`, { ...at, ...more });
    assert.equal(error.code, 'forbidden');
    for (const word of [verb, 'plain', '"g"', '"i"']) assert.ok(error.message.includes(word), error.message);
  }
  assert.equal(await peer.result('stream::get', at), 1);
});

test('each ability holds for the items it was granted for, and is looked at before anything is', async () => {
  const server = await own({ stream: { default_grants: [
    { stream: 'chat', group: 'room-*', can: ['read', 'send'] },
    { stream: 'chat', group: 'room-1', item: 'mine-*', can: ['set', 'update', 'delete'] },
    { stream: 'box', group: '*', item: 'in', can: ['set', 'update', 'delete'] },
    { stream: 'part', group: '*', item: 'a*', can: ['read'] },
    { stream: 'keeper', group: '*', can: ['set'] },
  ] } });
  const [socket, peer] = [await server.subscriber(), await server.peer()];
  const asked = new Record(server);
  for (const verb of ['get', 'list', 'delete']) peer.serve(`stream::${verb}(keeper)`, (data) => { asked.push([verb, data]); return { result: null }; });
  const set = (stream_name, group_id, item_id) => peer.result('stream::set', { stream_name, group_id, item_id, data: item_id });
  for (const at of [['chat', 'room-1', 'mine-1'], ['chat', 'room-1', 'yours'], ['chat', 'hall', 'x'], ['box', 'b', 'in'], ['part', 'p', 'a1'], ['part', 'p', 'b1'], ['part', 'q', 'a2'], ['dark', 'd', 'x']]) await set(...at);
  const allowed = [
    ['set', 'chat', 'room-1', 'mine-2', { data: 1 }], ['update', 'chat', 'room-1', 'mine-1', { ops: [] }], ['delete', 'chat', 'room-1', 'mine-1'],
    ['get', 'chat', 'room-1', 'yours'], ['list', 'chat', 'room-9'], ['get', 'part', 'p', 'a1'],
    ['send', 'chat', 'room-1', undefined, { type: 't', data: 0 }], ['send', 'chat', 'room-1', undefined, { id: 'yours', type: 't', data: 0 }],
  ];
  for (const [verb, stream_name, group_id, item_id, more] of allowed) await result(socket, verb, { stream_name, group_id, item_id, ...more });
  const refused = [
    ['set', 'chat', 'room-1', 'yours', { data: 1 }], ['set', 'chat', 'room-2', 'mine-1', { data: 1 }], ['update', 'chat', 'room-1', 'yours', { ops: [] }],
    ['delete', 'chat', 'room-1', 'yours'], ['get', 'chat', 'hall', 'x'], ['list', 'chat', 'hall'], ['get', 'chat', 'hall', 'none'], ['get', 'part', 'p', 'b1'],
    ['send', 'chat', 'hall', undefined, { type: 't', data: 0 }], ['get', 'box', 'b', 'in'], ['list', 'box', 'b'], ['list', 'dark', 'd'],
    ['get', 'keeper', 'g', 'i'], ['list', 'keeper', 'g'], ['delete', 'keeper', 'g', 'i'],
  ];
  for (const [verb, stream_name, group_id, item_id, more] of refused) {
    const { code } = await failure(socket, `stream::${verb}`, { stream_name, group_id, item_id, ...more });
    assert.equal(code, 'forbidden', `${verb} ${stream_name} ${group_id} ${item_id}`);
  }
  assert.deepEqual(await asked.count(0), [], 'the worker that keeps the stream was not asked');

  // Lists show what may be read.
  assert.deepEqual(await result(socket, 'list', { stream_name: 'part', group_id: 'p' }), ['a1']);
  assert.deepEqual((await result(socket, 'list', { stream_name: 'part', group_id: 'p', meta: true })).map(({ id }) => id), ['a1']);
  assert.deepEqual(await result(socket, 'list_groups', { stream_name: 'chat' }), ['room-1']);
  assert.deepEqual(await result(socket, 'list_groups', { stream_name: 'dark' }), []);
  assert.deepEqual(await result(socket, 'list_groups', { stream_name: 'keeper' }), []);
  assert.deepEqual(await result(socket, 'list_all', {}), { stream: [{ id: 'chat', groups: ['room-1'] }, { id: 'part', groups: ['p', 'q'] }], count: 2 });

  // Who may write and not read learns no values.
  const box = { stream_name: 'box', group_id: 'b', item_id: 'in' };
  assert.deepEqual(await result(socket, 'set', { ...box, data: 'new', returning: 'both' }), { seq: 2 });
  assert.deepEqual(await result(socket, 'update', { ...box, ops: [{ type: 'append', value: '!' }] }), { seq: 3 });
  assert.deepEqual(await result(socket, 'delete', box), { seq: 4 });
  assert.equal((await server.metrics())['iii_stream_client_calls_forbidden_total'], refused.length);
});

test('every other name is forbidden in the same words, whether there is such a function or not', async () => {
  const [socket, peer] = [await open.subscriber(), await open.peer()];
  peer.serve('my::function', () => ({ result: 'reached' }));
  await peer.settled();
  const names = ['my::function', 'no::function', 'engine::workers::register', 'state::get', 'stream::set(custom)', 'stream::', 'STREAM::GET', ''];
  const messages = new Set();
  for (const name of names) {
    const { code, message } = await failure(socket, name, {});
    assert.equal(code, 'forbidden');
    messages.add(message.replace(JSON.stringify(name), ''));
  }
  assert.equal(messages.size, 1);
});

test('whatever cannot be understood is answered, as far as it has an id', async () => {
  const at = { stream_name: 's', group_id: 'g', item_id: 'i' };
  const [old, socket] = [await open.subscriber(), await open.subscriber('/?v=2')];
  for (const [function_id, data, code] of [
    ['stream::set', { ...at }, 'deserialization_error'], ['stream::set', { ...at, group_id: '', data: 1 }, 'invalid_name'],
    ['stream::get', undefined, 'deserialization_error'], ['stream::update', { ...at, ops: [{ type: 'boil' }] }, 'deserialization_error'],
    ['stream::set', { ...at, data: 1, mutation: { client: 'c', seq: 1, resent: 'yes' } }, 'deserialization_error'],
    ['stream::update', { ...at, ops: range(10_001).map(() => ({ type: 'remove', path: 'a' })) }, 'too_many_ops'], [7, {}, 'deserialization_error'],
  ]) {
    for (const one of [old, socket]) assert.equal((await failure(one, function_id, data)).code, code);
  }
  for (const one of [old, socket]) {
    one.send('{"type":"call","id":"nan","function_id":"stream::set","data":{"stream_name":"s","group_id":"g","item_id":"i","data":NaN}}');
    assert.equal((await answer(one, 'nan')).error.code, 'deserialization_error');
    one.send(`{"type":"call","id":"deep","function_id":"stream::set","data":{"stream_name":"s","group_id":"g","item_id":"i","data":${'['.repeat(200)}${']'.repeat(200)}}}`);
    assert.equal((await answer(one, 'deep')).error.code, 'deserialization_error');
    one.send(Buffer.from(JSON.stringify({ type: 'call', id: 'bytes', function_id: 'stream::list_all' })), { binary: true });
    assert.ok((await answer(one, 'bytes')).result);
    one.send({ type: 'call', function_id: 'stream::list_all' });
    one.send({ type: 'call', id: 7, function_id: 'stream::list_all' });
    one.send({ type: 'call', id: 'x'.repeat(257), function_id: 'stream::list_all' });
    await call(one, 'stream::list_all');
  }
  assert.deepEqual(socket.frames.map(({ type, code }) => [type, code]), range(3).map(() => ['error', 'message.invalid']));
  assert.deepEqual(old.frames, []);
});

test('open calls are bounded, answers make room, and another connection is not concerned', async () => {
  const server = await own({ stream: { default_grants: EVERYTHING, calls_in_flight_max: 3 } });
  const [owner, busy, other] = [await server.peer(), await server.subscriber(), await server.subscriber()];
  const held = new Record(server);
  owner.serve('stream::get(slow)', (data, frame) => { held.push(frame.invocation_id); });
  await owner.settled();
  const at = { stream_name: 'slow', group_id: 'g', item_id: 'i' };
  const ids = range(3).map(() => begin(busy, 'stream::get', at));
  const error = await failure(busy, 'stream::list_all');
  assert.equal(error.code, 'too_many_calls');
  assert.match(error.message, /3 .*calls_in_flight_max/);
  assert.ok(await result(other, 'list_all'));
  for (const invocation_id of await held.count(3)) owner.send({ type: 'invocationresult', invocation_id, function_id: 'f', result: 'got' });
  for (const id of ids) assert.equal((await answer(busy, id)).result, 'got');
  assert.ok(await result(busy, 'list_all'));
  const metrics = await server.metrics();
  assert.equal(metrics['iii_stream_client_calls_refused_total'], 1);
  assert.equal(metrics['iii_stream_client_calls_total'], 6);
});

test('a client that does not read is answered too_many_calls in the end, misses no event, and is answered each', { timeout: 60_000 }, async () => {
  const server = await own({ stream: { default_grants: EVERYTHING, queue_bytes_max: 100_000 } });
  const [peer, slow] = [await server.peer(), await server.subscriber('/?v=2')];
  const at = { stream_name: 'slow', group_id: 'g', item_id: 'i' };
  await peer.result('stream::set', { ...at, data: 'x'.repeat(300_000), returning: 'none' });
  await slow.join('slow', 'other');
  slow.ws.pause();
  const ids = range(100).map(() => begin(slow, 'stream::get', at));
  const refused = async () => (await server.metrics())['iii_stream_client_calls_refused_total'];
  while ((await refused()) === 0);
  await peer.result('stream::set', { ...at, group_id: 'other', data: 'told' });
  assert.ok((await server.metrics())['iii_stream_subscriber_queue_bytes'] < 2_000_000);
  slow.ws.resume();
  const answers = [];
  for (const id of ids) answers.push(await answer(slow, id));
  const errors = answers.filter(({ error }) => error).map(({ error }) => error.code);
  assert.deepEqual([...new Set(errors)], ['too_many_calls']);
  assert.ok(errors.length < 100, 'some are answered with the value');
  assert.equal((await slow.event('create')).event.data, 'told');
  assert.equal((await result(slow, 'get', at)).length, 300_000);
});

test('more messages than messages_per_second_max close with 4029, calls among them', async () => {
  const server = await own({ stream: { default_grants: EVERYTHING, messages_per_second_max: 20 } });
  const socket = await server.subscriber();
  for (const n of range(60)) begin(socket, 'stream::list_all', {}, `${n}`);
  assert.equal((await server.within(socket.closed, 'the close')).code, 4029);
});

test('streams that workers keep are called as by workers, and lists show what may be read', async () => {
  const server = await own({ stream: { default_grants: [{ stream: 'kept', group: '*', can: ['read', 'set', 'update', 'delete', 'send'] }, { stream: 'part', group: '*', item: 'a', can: ['read', 'set'] }, { stream: 'odd', group: '*', item: 'a', can: ['read'] }, { stream: 'groups', group: 'mine', can: ['read'] }] } });
  const [owner, socket] = [await server.peer(), await server.subscriber()];
  const inputs = [];
  for (const name of ['kept', 'part']) {
    owner.serve(`stream::set(${name})`, (data) => { inputs.push(data); return { result: { old_value: 'secret', new_value: data.data } }; });
    owner.serve(`stream::get(${name})`, () => ({ result: 'one' }));
    owner.serve(`stream::list(${name})`, () => ({ result: ['one', 'two'] }));
    owner.serve(`stream::delete(${name})`, () => ({ error: { code: 'broken', message: 'no' } }));
  }
  owner.serve('stream::list(part)', () => ({ result: [{ id: 'a', n: 1 }, { id: 'b' }, 'none', { id: 7 }] }));
  owner.serve('stream::list(odd)', () => ({ result: { not: 'a list' } }));
  owner.serve('stream::list_groups(groups)', () => ({ result: ['mine', 'yours'] }));
  owner.serve('stream::list_groups(kept)', () => ({ result: { not: 'a list' } }));
  await owner.settled();
  const at = { stream_name: 'kept', group_id: 'g', item_id: 'a' };
  assert.deepEqual((await socket.join('kept', 'g')).event.data, ['one', 'two']);
  assert.deepEqual(await result(socket, 'set', { ...at, data: 1 }), { old_value: 'secret', new_value: 1 });
  assert.deepEqual(inputs, [{ ...at, data: 1 }]);
  assert.equal((await socket.event('update')).event.data, 1);
  assert.deepEqual([await result(socket, 'get', at), await result(socket, 'list', at)], ['one', ['one', 'two']]);
  assert.equal((await failure(socket, 'stream::delete', at)).code, 'STREAM_DELETE_ERROR');
  assert.equal((await failure(socket, 'stream::set', { ...at, data: 1, mutation: { client: 'c', seq: 1 } })).code, 'unsupported_by_storage');
  assert.equal((await failure(socket, 'stream::list_groups', at)).code, 'JSON_ERROR');
  assert.deepEqual(await result(socket, 'list_groups', { stream_name: 'groups' }), ['mine']);
  const part = { ...at, stream_name: 'part' };
  assert.equal(await result(socket, 'get', part), 'one');
  assert.deepEqual(await result(socket, 'list', part), [{ id: 'a', n: 1 }]);
  assert.equal((await failure(socket, 'stream::list', { ...part, stream_name: 'odd' })).code, 'JSON_ERROR');
  assert.equal((await failure(socket, 'stream::set', { ...part, item_id: 'b', data: 1 })).code, 'forbidden');
  assert.deepEqual(inputs.length, 1);
});

test('the auth function grants, for as long as its permission lasts', async () => {
  const server = await own({ stream: { auth_function: 'my::auth' } });
  const peer = await server.peer();
  peer.serve('my::auth', ({ query_params: { user: [user] = [] } }) => ({
    result: { context: { user }, ...(user ? { grants: [{ stream: 'notes', group: user, can: ['read', 'set'] }] } : {}) },
  }));
  await peer.settled();
  const [ada, nobody] = [await server.subscriber('/?user=ada'), await server.subscriber('/')];
  const at = (group_id) => ({ stream_name: 'notes', group_id, item_id: 'i', data: 1 });
  await result(ada, 'set', at('ada'));
  for (const [socket, group] of [[ada, 'bob'], [nobody, 'ada']]) assert.equal((await failure(socket, 'stream::set', at(group))).code, 'forbidden');
  assert.equal(await result(nobody, 'get', at('ada')), 1);
  assert.equal((await failure(ada, 'stream::get', at('bob'))).code, 'forbidden');
});

test('a mutation echoes its tag to its maker and others, and a join tells what was taken', async () => {
  const at = { stream_name: unique('echo'), group_id: 'g', item_id: 'i' };
  const client = randomUUID();
  const [socket, other] = [await open.subscriber('/?v=2'), await open.subscriber()];
  await other.join(at.stream_name, 'g');
  const first = await socket.join(at.stream_name, 'g');
  const mutation = (seq, resent) => ({ client, seq, ...(resent ? { resent } : {}) });
  await result(socket, 'set', { ...at, data: 1, mutation: mutation(1, true) });
  assert.equal((await failure(socket, 'stream::set', { ...at, data: 2, if: { absent: true }, mutation: mutation(2) })).code, 'precondition_failed');
  for (const one of [socket, other]) assert.deepEqual((await one.event('create')).mutation, { tag: tagOf(client), seq: 1 });
  assert.deepEqual(await result(socket, 'set', { ...at, data: 1, mutation: mutation(1, true) }), { duplicate: true, seq: 2, at: 1 });
  await result(other, 'delete', at);
  assert.deepEqual(await result(socket, 'set', { ...at, data: 1, mutation: mutation(1, true) }), { duplicate: true, seq: 2, at: 2 });
  assert.deepEqual(await result(socket, 'set', { ...at, item_id: 'never', data: 1, mutation: mutation(1, true) }), { duplicate: true, seq: 2, at: null });

  const told = [{ tag: tagOf(client), seq: 2 }];
  const join = async (one, more) => {
    one.send({ type: 'join', data: { subscriptionId: randomUUID(), streamName: at.stream_name, groupId: 'g', ...more } });
    return one.sync(at.stream_name, 'g', more?.id ?? null);
  };
  const again = await open.subscriber('/?v=2');
  const since = { epoch: first.epoch, seq: first.seq };
  assert.deepEqual((await join(again, { clients: ['stranger', client] })).mutations, told);
  assert.deepEqual((await join(again, { clients: [client], since })).mutations, told);
  assert.deepEqual((await join(again, { clients: [client], id: 'i' })).mutations, told);
  assert.deepEqual((await join(again, { clients: ['stranger'] })).mutations, []);
  assert.deepEqual((await join(again, { clients: [] })).mutations, []);
  assert.equal((await join(again, {})).mutations, undefined);
  assert.equal((await join(await open.subscriber(), { clients: [client] })).mutations, undefined);
  for (const clients of ['c', [7], [''], ['x'.repeat(257)], range(17).map(String)]) {
    again.send({ type: 'join', data: { subscriptionId: 's', streamName: at.stream_name, groupId: 'g', clients } });
    assert.equal((await again.take((f) => f.type === 'error', 'an error')).code, 'subscription.invalid');
  }
});

test('a snapshot in pages tells mutations with every page, as many as its position knows', async () => {
  const at = { stream_name: unique('pages'), group_id: 'g' };
  const [peer, socket] = [await open.peer(), await open.subscriber('/?v=2')];
  for (const n of range(2_500)) peer.void('stream::set', { ...at, item_id: `i${n}`, data: n });
  await peer.settled();
  const client = randomUUID();
  await result(socket, 'set', { ...at, item_id: 'i0', data: 'mine', mutation: { client, seq: 1 } });
  socket.send({ type: 'join', data: { subscriptionId: 's', streamName: at.stream_name, groupId: 'g', clients: [client] } });
  for (const seq of range(200)) begin(socket, 'stream::set', { ...at, item_id: 'i1', data: seq, returning: 'none', mutation: { client, seq: seq + 2 } });
  const pages = [];
  let events = [];
  do {
    const frame = await socket.take((f) => f.type === 'stream', 'a page or an event');
    if (frame.event.type === 'sync') pages.push(frame);
    else events.push(frame);
  } while (pages.at(-1)?.event.more !== false);
  assert.equal(pages.length, 3);
  // The first change of this client is 2501, each further one the next.
  for (const { seq, mutations } of pages) assert.deepEqual(mutations, [{ tag: tagOf(client), seq: seq - 2_500 }]);
  while (events.length < 200) events.push(await socket.take((f) => f.event?.type === 'update', 'an update'));
  events = events.map(({ mutation }) => mutation.seq);
  assert.deepEqual(events, range(200).map((n) => n + 2));
});

test('a subscription that changes have passed by is told of its clients again', { timeout: 60_000 }, async () => {
  const server = await own({ stream: { default_grants: EVERYTHING, queue_bytes_max: 50_000, history_changes_max: 2 } });
  const [peer, slow] = [await server.peer(), await server.subscriber('/?v=2')];
  const at = { stream_name: 'lag', group_id: 'g', item_id: 'i' };
  const client = randomUUID();
  slow.send({ type: 'join', data: { subscriptionId: 's', streamName: 'lag', groupId: 'g', clients: [client] } });
  assert.deepEqual((await slow.sync('lag', 'g')).mutations, []);
  slow.ws.pause();
  let seq = 0;
  const missed = async () => (await server.metrics())['iii_stream_slow_consumer_missed_events_total'];
  do await peer.result('stream::set', { ...at, data: 'x'.repeat(200_000), returning: 'none', mutation: { client, seq: seq += 1 } });
  while ((await missed()) === 0);
  slow.ws.resume();
  const sync = await slow.take((f) => f.event?.type === 'sync', 'a sync');
  assert.deepEqual(sync.mutations, [{ tag: tagOf(client), seq }]);
});

test('a call that was sent takes effect though its maker goes at once', async () => {
  const at = { stream_name: unique('gone'), group_id: 'g', item_id: 'i' };
  const [socket, peer, viewer] = [await open.subscriber(), await open.peer(), await open.subscriber()];
  await viewer.join(at.stream_name, 'g');
  begin(socket, 'stream::set', { ...at, data: 'last words' });
  await socket.close();
  await viewer.event('create');
  assert.equal(await peer.result('stream::get', at), 'last words');
});

test('exactly once: connections break and the server is killed, mutations are sent again', { timeout: 120_000 }, async () => {
  const config = { stream: { default_grants: EVERYTHING, adapter: adapter({ durability: 'fsync' }) } };
  let server = await own(config);
  const at = { stream_name: 'once', group_id: 'g', item_id: 'n' };
  const client = randomUUID();
  const count = 1_500;
  let acknowledged = 0;
  let highest = 0;
  let resent = 0;
  let duplicates = 0;
  let kills = 0;
  for (let round = 0; acknowledged < count; round += 1) {
    const socket = await server.subscriber();
    const until = Math.min(count, acknowledged + 60 + (round * 37) % 90);
    for (let seq = acknowledged + 1; seq <= until; seq += 1) {
      const again = seq <= highest;
      resent += again ? 1 : 0;
      begin(socket, 'stream::update', { ...at, ops: [{ type: 'increment', by: 1 }], returning: 'new', mutation: { client, seq, ...(again ? { resent: true } : {}) } }, `${seq}`);
    }
    highest = Math.max(highest, until);
    // What is answered before the connection breaks is known; the rest is not.
    const waited = acknowledged + Math.floor((until - acknowledged) / (round % 3 + 1));
    const last = acknowledged;
    for (let seq = last + 1; seq <= waited; seq += 1) {
      const { result: given, error } = await answer(socket, `${seq}`);
      assert.equal(error, undefined, JSON.stringify(error));
      if (given.duplicate) {
        duplicates += 1;
        assert.ok(seq <= given.seq && seq <= given.at, JSON.stringify(given));
      } else {
        assert.equal(given.new_value, seq);
      }
      acknowledged = seq;
    }
    if (keepsGroups && round % 4 === 3 && kills < 4) {
      const ports = portsOf(server);
      await server.kill();
      kills += 1;
      server = await startServer({ stream: { ...config.stream, ...ports.stream }, manager: ports.manager, folder: server.folder });
      servers.push(server);
    } else {
      socket.ws.terminate();
    }
  }
  const socket = await server.subscriber();
  assert.equal(await result(socket, 'get', at), count);
  assert.ok(duplicates > 0 && resent >= duplicates, `${duplicates} of ${resent} that were sent again had been taken`);
  assert.equal(kills, keepsGroups ? 4 : 0);
});

test('who may have been forgotten is told so and nothing is done twice', async () => {
  const server = await own({ stream: { default_grants: EVERYTHING, mutation_clients_max: 2 } });
  const socket = await server.subscriber();
  const at = { stream_name: 's', group_id: 'g', item_id: 'n' };
  const add = (client, resent) => call(socket, 'stream::update', { ...at, ops: [{ type: 'increment', by: 1 }], returning: 'new', mutation: { client, seq: 1, resent } });
  for (const [client, n] of [['a', 1], ['b', 2], ['c', 3]]) assert.equal((await add(client, true)).result.new_value, n);
  assert.equal((await add('a', true)).error.code, 'mutation_unknown');
  assert.equal((await add('d', true)).error.code, 'mutation_unknown');
  assert.equal((await add('d', false)).result.new_value, 4);
});

test('a stop closes callers with 1001 after what they sent before was done', async () => {
  const server = await own({ stream: { default_grants: EVERYTHING } });
  const [socket, ended] = [await server.subscriber(), deferred()];
  socket.ws.on('close', (code) => ended.resolve(code));
  const at = { stream_name: 's', group_id: 'g', item_id: 'i' };
  const ids = range(50).map((n) => begin(socket, 'stream::set', { ...at, data: n }));
  for (const id of ids) assert.ok((await answer(socket, id)).result);
  await server.terminate();
  assert.equal(await ended.promise, 1001);
});
