// What becomes of mutations: in order, once, with every answer that a server may give.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { StreamError, rejected } from './package.mjs';
import { FakeServer, event, snapshot } from './fake_server.mjs';
import { newClient } from './kit.mjs';
import { rejection, until, within } from './waiting.mjs';

/** A server whose `answer(call, connection)` gives a result or throws `{ code }`; `undefined`: no answer. Joins are answered. */
async function serve(t, answer) {
  const server = await FakeServer.start({ on: (connection, message) => {
    if (message.type === 'join') connection.send(snapshot(message));
    if (message.type !== 'call') return;
    try {
      const result = answer(message, connection);
      if (result !== undefined) connection.send({ type: 'result', id: message.id, result });
    } catch (error) {
      if (!error.code) throw error;
      connection.send({ type: 'result', id: message.id, error });
    }
  } });
  t.after(() => server.stop());
  return server;
}

const fail = (code, more = {}) => { throw Object.assign(Object.create(null), { code, message: code, ...more }); };
const seqsOf = (calls) => calls.map(({ data }) => data.mutation.seq);

/** A server of one group that counts mutations by the rules; `refuse(data)` may throw. */
function counting({ refuse = () => {}, known = new Map() } = {}) {
  let seq = 0;
  const applied = [];
  return {
    applied,
    known,
    answer({ data, function_id }) {
      const { client, seq: number, resent } = data.mutation;
      const last = known.get(client);
      if (last === undefined && number !== 1) return fail('mutation_unknown');
      if (number > (last ?? 0) + 1) return fail('mutation_gap', { expected: (last ?? 0) + 1 });
      if (number <= (last ?? 0)) return { duplicate: true, seq: last, at: seq };
      refuse(data, function_id);
      known.set(client, number);
      seq += 1;
      applied.push({ ...data, resent });
      return { seq };
    },
  };
}

test('edits are sent in order, many at a time, and settle with the seq of their change', async (t) => {
  let open = 0;
  let openMax = 0;
  const held = [];
  const server = await serve(t, (call, connection) => {
    open += 1;
    openMax = Math.max(openMax, open);
    held.push(() => { open -= 1; connection.send({ type: 'result', id: call.id, result: { seq: call.data.mutation.seq } }); });
    setImmediate(() => held.splice(0).forEach((answer) => answer()));
  });
  const client = newClient(t, server.url, { inFlightMax: 8 });
  const group = client.group('s', 'g');
  const mutations = Array.from({ length: 200 }, (_, n) => group.set(`i${n}`, n));
  assert.equal(client.pending, 200);
  const settled = await within(Promise.all(mutations.map((one) => one.settled)), 'all');
  assert.deepEqual(settled.map(({ seq }) => seq), mutations.map((_, n) => n + 1));
  assert.deepEqual(settled[0], { seq: 1, errors: [], answered: true });
  assert.deepEqual(seqsOf(server.last.calls), mutations.map((_, n) => n + 1));
  assert.ok(openMax > 1 && openMax <= 8, `${openMax} open at a time`);
  assert.equal(new Set(server.last.calls.map(({ data }) => data.mutation.client)).size, 1);
  assert.match(server.last.calls[0].data.mutation.client, /^[0-9a-f]{32}$/);
  assert.equal(server.last.calls[0].data.returning, 'none');
  assert.equal(client.pending, 0);
  assert.equal(mutations[0].state, 'settled');
});

test('every function with its options', async (t) => {
  const counter = counting();
  const server = await serve(t, counter.answer);
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  const item = client.item('s', 'g', 'i');
  const all = [
    group.set('a', { n: 1 }, { ttlMs: 5, if: { absent: true } }), group.update('a', [{ type: 'increment', path: 'n', by: 1 }], { atomic: true, if: { seq: 3 } }),
    group.delete('a', { if: { exists: true } }), group.send('typing', { by: 'me' }), group.send('read', null, 'a'),
    item.set(1), item.update([], { ttlMs: 9 }), item.delete(), item.send('seen', 2),
  ];
  await within(Promise.all(all.map((one) => one.settled)), 'all');
  assert.deepEqual(server.last.calls.map(({ function_id, data: { mutation, returning, stream_name, group_id, ...data } }) => [function_id.slice(8), data]), [
    ['set', { item_id: 'a', data: { n: 1 }, if: { absent: true }, ttl_ms: 5 }],
    ['update', { item_id: 'a', ops: [{ type: 'increment', path: 'n', by: 1 }], if: { seq: 3 }, atomic: true }],
    ['delete', { item_id: 'a', if: { exists: true } }],
    ['send', { type: 'typing', data: { by: 'me' } }],
    ['send', { id: 'a', type: 'read', data: null }],
    ['set', { item_id: 'i', data: 1 }],
    ['update', { item_id: 'i', ops: [], ttl_ms: 9 }],
    ['delete', { item_id: 'i' }],
    ['send', { id: 'i', type: 'seen', data: 2 }],
  ]);
  assert.deepEqual(all.map(({ itemId }) => itemId), ['a', 'a', 'a', null, 'a', 'i', 'i', 'i', 'i']);
});

for (const code of ['precondition_failed', 'forbidden', 'invalid_name', 'group_full', 'deserialization_error', 'too_many_ops', 'unsupported_by_storage', 'anything_else']) {
  test(`${code} rolls back and rejects with the reason; later edits go on`, async (t) => {
    // Whether a refused mutation counts differs by code: here it does for one of them only.
    const counter = counting({ refuse: ({ item_id: id, mutation }) => {
      if (id !== 'bad') return;
      if (code === 'precondition_failed') counter.known.set(mutation.client, mutation.seq);
      fail(code, { seq: 7 });
    } });
    const server = await serve(t, counter.answer);
    const client = newClient(t, server.url);
    const group = client.group('s', 'g');
    group.subscribe(() => {});
    await until(group, () => group.status === 'live', 'live');
    const [first, bad, ...rest] = ['one', 'bad', 'two', 'three'].map((id) => group.set(id, id));
    assert.equal(group.get('bad').value, 'bad');
    const error = await rejection(bad.settled);
    assert.deepEqual([error.code, error.details.seq, bad.state], [code, 7, 'rejected']);
    assert.equal(group.get('bad'), undefined);
    await within(Promise.all([first, ...rest].map((one) => one.settled)), 'the others');
    assert.deepEqual(counter.applied.map(({ item_id }) => item_id), ['one', 'two', 'three']);
    assert.deepEqual(client.rejections.map(({ mutation, error: { code: told } }) => [mutation, told]), [[bad, code]]);
    assert.equal(client.pending, 0);
  });
}

test('an atomic update that fails is rolled back; failed operations of others are told', async (t) => {
  const errors = [{ op_index: 1, code: 'append.type_mismatch', message: 'no' }];
  const server = await serve(t, ({ data }) => ({ seq: data.atomic ? null : 4, errors }));
  const group = newClient(t, server.url).group('s', 'g');
  const error = await rejection(group.update('i', [], { atomic: true }).settled);
  assert.equal(error.code, 'atomic_failed');
  assert.deepEqual(error.details.errors, [{ opIndex: 1, code: 'append.type_mismatch', message: 'no' }]);
  assert.deepEqual(await group.update('i', []).settled, { seq: 4, errors: [{ opIndex: 1, code: 'append.type_mismatch', message: 'no' }], answered: true });
});

for (const error of [{ code: 'too_many_calls' }, { code: 'STREAM_SET_ERROR', storage: 'behind' }, { code: 'STREAM_SET_ERROR', storage: 'full' }, { code: 'STREAM_SET_ERROR', storage: 'read_only' }]) {
  test(`${error.storage ?? error.code} is tried again later, in order`, async (t) => {
    let refusals = 3;
    const counter = counting({ refuse: ({ item_id: id }) => { if (id === 'i1' && (refusals -= 1) >= 0) fail(error.code, error); } });
    const server = await serve(t, counter.answer);
    const client = newClient(t, server.url);
    const group = client.group('s', 'g');
    await within(Promise.all([0, 1, 2, 3].map((n) => group.set(`i${n}`, n).settled)), 'all');
    assert.deepEqual(counter.applied.map(({ item_id }) => item_id), ['i0', 'i1', 'i2', 'i3']);
    assert.equal(counter.applied[1].mutation.resent, error.storage === 'read_only' ? true : undefined);
    assert.equal(client.rejections.length, 0);
    assert.equal(counter.known.size, 1);
  });
}

test('storage that is damaged is final', async (t) => {
  const server = await serve(t, () => fail('STREAM_SET_ERROR', { storage: 'damaged' }));
  const error = await rejection(newClient(t, server.url).group('s', 'g').set('i', 1).settled);
  assert.deepEqual([error.code, error.details.storage], ['STREAM_SET_ERROR', 'damaged']);
});

test('what was not answered before the connection broke is sent again as resent, after the sync', async (t) => {
  const counter = counting();
  const server = await serve(t, (call, connection) => {
    const result = counter.answer(call);
    // The third is applied, but its answer and all after it are lost.
    if (server.connections.length === 1 && call.data.mutation.seq >= 3) {
      connection.ws.terminate();
      return undefined;
    }
    return result;
  });
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  const mutations = [0, 1, 2, 3, 4].map((n) => group.set(`i${n}`, n));
  const settled = await within(Promise.all(mutations.map((one) => one.settled)), 'all');
  assert.deepEqual(counter.applied.map(({ item_id }) => item_id), ['i0', 'i1', 'i2', 'i3', 'i4']);
  const second = server.last.messages;
  assert.equal(second[0].type, 'join');
  assert.equal(second[1].data.mutation.seq, 3);
  assert.equal(second[1].data.mutation.resent, true);
  assert.deepEqual(settled[2].answered, false);
});

test('a sync that names mutations settles them without sending them again', async (t) => {
  let sent;
  const server = await FakeServer.start({ on: (connection, message) => {
    if (message.type === 'call') { sent = message.data.mutation; connection.ws.terminate(); }
    if (message.type !== 'join') return;
    const tags = (message.data.clients ?? []).map((secret) => createHash('sha256').update(secret).digest('hex').slice(0, 32));
    connection.send(snapshot(message, [], { seq: 9, mutations: sent ? tags.map((tag) => ({ tag, seq: sent.seq })) : [] }));
  } });
  t.after(() => server.stop());
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  const settled = await within(group.set('i', 1).settled, 'the mutation');
  assert.deepEqual(settled, { seq: null, errors: [], answered: false });
  assert.equal(server.last.calls.length, 0);
});

test('the echo of a mutation settles nothing before its answer, but counts when that is lost', async (t) => {
  const server = await serve(t, (call, connection) => {
    const { client, seq } = call.data.mutation;
    const tag = createHash('sha256').update(client).digest('hex').slice(0, 32);
    connection.send(event('s', 'g', call.data.item_id, 5, { type: 'create', data: call.data.data }, { mutation: { tag, seq } }));
    if (call.data.item_id === 'lost') { setImmediate(() => connection.ws.close(1001)); return undefined; }
    return { seq: 5, errors: [] };
  });
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  assert.deepEqual(await within(group.set('i', 1).settled, 'answered'), { seq: 5, errors: [], answered: true });
  assert.deepEqual(await within(group.set('lost', 1).settled, 'lost'), { seq: 5, errors: [], answered: false });
  assert.equal(server.connections.flatMap(({ calls }) => calls).length, 2);
});

test('mutation_gap: it goes on from what is expected, if it holds that', async (t) => {
  const counter = counting();
  let first = true;
  const server = await serve(t, (call) => {
    // The first answer is a lie that makes the client go back.
    if (first && call.data.mutation.seq === 2) { first = false; fail('mutation_gap', { expected: 2 }); }
    return counter.answer(call);
  });
  const group = newClient(t, server.url).group('s', 'g');
  await within(Promise.all([0, 1, 2, 3].map((n) => group.set(`i${n}`, n).settled)), 'all');
  assert.deepEqual(counter.applied.map(({ item_id }) => item_id), ['i0', 'i1', 'i2', 'i3']);
  assert.equal(counter.known.size, 1);
});

test('mutation_unknown: what was sent once gets a new identity, in order, and stays shown', async (t) => {
  const counter = counting();
  const server = await serve(t, counter.answer);
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await within(group.set('i0', 0).settled, 'the first');
  const [former] = counter.known.keys();
  counter.known.clear();
  const mutations = [1, 2, 3].map((n) => group.set(`i${n}`, n));
  await within(Promise.all(mutations.map((one) => one.settled)), 'the rest');
  assert.deepEqual(counter.applied.map(({ item_id, mutation }) => [item_id, mutation.seq]), [['i0', 1], ['i1', 1], ['i2', 2], ['i3', 3]]);
  assert.equal(counter.known.has(former), false);
  assert.equal(client.rejections.length, 0);
});

test('mutation_unknown: what may have arrived is not sent again, and its outcome is unknown', async (t) => {
  const counter = counting();
  const server = await serve(t, (call, connection) => {
    if (server.connections.length === 1 && call.data.mutation.seq >= 2) { connection.ws.terminate(); return undefined; }
    // The new server has a full table of clients and knows none of ours.
    if (call.data.mutation.resent) fail('mutation_unknown');
    return counter.answer(call);
  });
  const client = newClient(t, server.url, { inFlightMax: 2 });
  const group = client.group('s', 'g');
  await within(group.set('i0', 0).settled, 'the first');
  counter.known.clear();
  const mutations = [1, 2, 3, 4].map((n) => group.set(`i${n}`, n));
  const outcomes = await within(Promise.allSettled(mutations.map((one) => one.settled)), 'all');
  assert.deepEqual(outcomes.map(({ status, reason }) => reason?.code ?? status), ['outcome_unknown', 'outcome_unknown', 'fulfilled', 'fulfilled']);
  assert.deepEqual(counter.applied.map(({ item_id, mutation }) => [item_id, mutation.seq]), [['i0', 1], ['i3', 1], ['i4', 2]]);
  assert.deepEqual(client.rejections.map(({ error }) => error.code), ['outcome_unknown', 'outcome_unknown']);
});

test('a server that only ever says gap or unknown is not asked without pause', async (t) => {
  let calls = 0;
  const server = await serve(t, () => { calls += 1; fail(calls % 2 ? 'mutation_unknown' : 'mutation_gap', { expected: 9 }); });
  const client = newClient(t, server.url, { backoff: { firstMs: 40, maxMs: 40 } });
  client.group('s', 'g').set('i', 1);
  await server.until(() => calls >= 5, 'five calls');
  assert.equal(client.pending, 1);
  const error = await rejection(client.close().then(() => { throw client.rejections[0].error; }));
  assert.deepEqual([error.code, error.details.stored], ['closed', false]);
});

test('bad input is refused at once, and takes no number', async (t) => {
  const counter = counting();
  const server = await serve(t, counter.answer);
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  const circular = {};
  circular.self = circular;
  for (const value of [undefined, circular, 1n, () => {}]) assert.equal((await rejection(group.set('i', value).settled)).code, 'deserialization_error');
  await within(group.set('i', 1).settled, 'a good one');
  assert.deepEqual(counter.applied.map(({ mutation }) => mutation.seq), [1]);
  assert.equal(client.rejections.length, 4);
});

test('more than pendingMax is refused, and nobody has to look at that', async (t) => {
  const client = newClient(t, 'ws://127.0.0.1:1', { pendingMax: 3 });
  const group = client.group('s', 'g');
  const mutations = [1, 2, 3, 4].map((n) => group.set(`i${n}`, n));
  assert.equal((await rejection(mutations[3].settled)).code, 'too_many_pending');
  assert.equal(client.pending, 3);
  assert.equal(client.group('s', 'other').set('i', 1).state, 'pending');
});

test('a message beyond the limit is refused here, and one that the server finds too large is found out', async (t) => {
  const counter = counting();
  const server = await serve(t, (call, connection) => {
    if (call.data.data?.length > 5_000) { connection.ws.close(1009, 'message too large'); return undefined; }
    return connection.ws.readyState === 1 ? counter.answer(call) : undefined;
  });
  const client = newClient(t, server.url, { messageBytesMax: 100_000 });
  const group = client.group('s', 'g');
  const mutations = ['a', 'ä'.repeat(60_000), 'b', 'x'.repeat(6_000), 'c'].map((text, n) => group.set(`i${n}`, text));
  const outcomes = await within(Promise.allSettled(mutations.map((one) => one.settled)), 'all');
  assert.deepEqual(outcomes.map(({ status, reason }) => reason?.code ?? status), ['fulfilled', 'message_too_large', 'fulfilled', 'message_too_large', 'fulfilled']);
  assert.deepEqual(counter.applied.map(({ item_id }) => item_id), ['i0', 'i2', 'i4']);
});

test('calls keep below the rate, and a silent server is given up', async (t) => {
  let isSilent = false;
  const server = await serve(t, ({ data }) => (isSilent && server.connections.length === 1 ? undefined : { seq: data.mutation.seq }));
  const client = newClient(t, server.url, { callsPerSecondMax: 20, answerTimeoutMs: 50 });
  const group = client.group('s', 'g');
  const began = performance.now();
  await within(Promise.all(Array.from({ length: 50 }, (_, n) => group.set('i', n).settled)), 'fifty');
  // A second may just end as they begin; then one is full, and the rest come in a third.
  assert.ok(performance.now() - began > 900);
  isSilent = true;
  await within(group.set('i', 1).settled, 'the answer of another connection');
  assert.equal(server.connections.length, 2);
});

test('version 1 server: views live, edits refused without `send`', async (t) => {
  const server = await FakeServer.start({ on: (connection, message) => {
    if (message.type !== 'join') return;
    const { streamName, groupId, id = null } = message.data;
    connection.send({ timestamp: 1, type: 'stream', streamName, groupId, id, event: { type: 'sync', data: id === null ? [{ id: 'a', n: 1 }] : null } });
  } });
  t.after(() => server.stop());
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  assert.deepEqual(group.items.map(({ id, value, seq }) => [id, value.n, seq]), [['a', 1, null]]);
  assert.equal((await rejection(group.set('b', { id: 'b' }).settled)).code, 'unsupported_by_server');
  assert.equal(group.get('b'), undefined);
  assert.equal((await rejection(client.call('stream::get'))).code, 'unsupported_by_server');
  const blind = newClient(t, server.url);
  assert.equal((await rejection(blind.group('s', 'unseen').set('b', 1).settled)).code, 'unsupported_by_server');
  const sender = newClient(t, server.url, { send: async () => ({ seq: 1 }) });
  await within(sender.group('s', 'g').set('b', { id: 'b' }).settled, 'the route');
});

test('`send`: one at a time, in order, with the very input; refusals roll back, other failures are tried again', async (t) => {
  const server = await serve(t, () => assert.fail('nothing goes over the socket'));
  let open = 0;
  let failures = 2;
  const counter = counting();
  const seen = [];
  const send = async ({ functionId, data, resent }) => {
    open += 1;
    assert.equal(open, 1);
    await new Promise(setImmediate);
    open -= 1;
    seen.push([data.item_id, resent]);
    if (data.item_id === 'i1' && (failures -= 1) >= 0) throw new TypeError('fetch failed');
    if (data.item_id === 'i2') throw rejected('not_yours', 'only the owner');
    if (data.item_id === 'i3') throw new StreamError('precondition_failed');
    try {
      return counter.answer({ function_id: functionId, data });
    } catch ({ code, message, ...details }) {
      throw new StreamError(code, message, details);
    }
  };
  const client = newClient(t, server.url, { send });
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  const mutations = [0, 1, 2, 3, 4, 5].map((n) => group.set(`i${n}`, n));
  const outcomes = await within(Promise.allSettled(mutations.map((one) => one.settled)), 'all');
  assert.deepEqual(outcomes.map(({ status, reason }) => reason?.code ?? status), ['fulfilled', 'fulfilled', 'not_yours', 'precondition_failed', 'fulfilled', 'fulfilled']);
  assert.deepEqual(seen, [['i0', false], ['i1', false], ['i1', true], ['i1', true], ['i2', false], ['i3', false], ['i4', false], ['i5', false]]);
  assert.deepEqual(counter.applied.map(({ item_id, mutation }) => [item_id, mutation.seq]), [['i0', 1], ['i1', 2], ['i4', 1], ['i5', 2]]);
  assert.equal(group.get('i2'), undefined);
});

test('`send` that gives nothing of use counts as taken; one that hangs has a limit', async (t) => {
  const server = await serve(t, () => assert.fail('nothing goes over the socket'));
  let hangs = true;
  const given = ['ok', undefined, { old_value: null, new_value: 1 }, { duplicate: true, seq: 4, at: 2 }];
  const client = newClient(t, server.url, { sendTimeoutMs: 20, send: () => {
    if (hangs) { hangs = false; return new Promise(() => {}); }
    return given.shift();
  } });
  const group = client.group('s', 'g');
  const settled = await within(Promise.all([1, 2, 3, 4].map((n) => group.set('i', n).settled)), 'all');
  assert.deepEqual(settled.map(({ seq, answered }) => [seq, answered]), [[null, true], [null, true], [null, true], [2, false]]);
});
