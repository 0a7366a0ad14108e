// The optional fields this server adds to the stream functions: if, atomic, mutation, returning, meta, ttl_ms (design §6).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { rejection, startServer, unique } from './harness.mjs';

const STREAM = 'new-fields';
let server;
let peer;
const call = (verb, data) => peer.result(`stream::${verb}`, data);
const refusal = (verb, data) => rejection(call(verb, data), `${verb} of ${JSON.stringify(data)}`);
const item = (group_id = unique('group'), item_id = 'i') => ({ stream_name: STREAM, group_id, item_id });
const seqOf = async (at) => (await call('get', { ...at, meta: true })).seq;
const counter = [{ type: 'increment', path: 'n', by: 1 }];

/** A group subscriber; `nothingSince` proves that no event came by letting a later one through. */
async function watch(group_id) {
  const watcher = await server.subscriber();
  await watcher.join(STREAM, group_id);
  watcher.nothingSince = async () => {
    await call('send', { stream_name: STREAM, group_id, type: 'marker', data: null });
    const next = await watcher.next('the marker event');
    assert.equal(next.event.type, 'event', `an event that should not be: ${next.text}`);
  };
  return watcher;
}

before(async () => {
  server = await startServer();
  peer = await server.peer();
});
after(() => server?.stop());

test('meta: get gives value, seq and timestamp; list also the ids', async () => {
  const at = item();
  const before = Date.now();
  for (let n = 1; n <= 3; n += 1) {
    await call('set', { ...at, data: { n } });
    const { value, seq, timestamp, ...rest } = await call('get', { ...at, meta: true });
    assert.deepEqual([value, seq, rest], [{ n }, n, {}], 'changes of a group are numbered 1, 2, 3');
    assert.ok(Number.isInteger(timestamp) && timestamp >= before && timestamp < before + 60_000, `${timestamp}`);
  }
  await call('set', { ...at, item_id: 'j', data: null });
  const list = await call('list', { stream_name: STREAM, group_id: at.group_id, meta: true });
  assert.deepEqual(list.map(({ timestamp, ...rest }) => rest), [{ id: 'i', value: { n: 3 }, seq: 3 }, { id: 'j', value: null, seq: 4 }]);
  assert.ok(list.every((entry) => Number.isInteger(entry.timestamp)));
  assert.deepEqual(await call('get', { ...at, meta: false }), { n: 3 }, 'false asks for nothing new');
});

test('if seq: applies to the version it names, else precondition_failed with the current one', async () => {
  const at = item();
  await call('set', { ...at, data: 1 });
  const seq = await seqOf(at);
  await call('set', { ...at, data: 2, if: { seq } });
  const watcher = await watch(at.group_id);
  for (const [verb, body] of [['set', { data: 3 }], ['update', { ops: counter }], ['delete', {}]]) {
    const error = await refusal(verb, { ...at, ...body, if: { seq } });
    assert.equal(error.code, 'precondition_failed', verb);
    assert.equal(error.seq, seq + 1, `${verb}: the error body carries the current seq`);
    assert.ok(error.message.includes(`${seq + 1}`), `${verb}: the message names it: ${error.message}`);
  }
  assert.equal(await call('get', at), 2, 'nothing changed');
  await watcher.nothingSince();
  await call('update', { ...at, ops: [{ type: 'set', path: '', value: { n: 1 } }], if: { seq: seq + 1 } });
  const current = await seqOf(at);
  assert.deepEqual(await call('delete', { ...at, if: { seq: current } }), { old_value: { n: 1 } });
});

test('if absent and if exists', async () => {
  const at = item();
  for (const [verb, body] of [['set', { data: 1 }], ['update', { ops: [] }], ['delete', {}]]) {
    assert.equal((await refusal(verb, { ...at, ...body, if: { exists: true } })).code, 'precondition_failed', verb);
  }
  assert.equal(await call('get', at), undefined);
  assert.deepEqual(await call('set', { ...at, data: null, if: { absent: true } }), { old_value: null, new_value: null });
  const error = await refusal('set', { ...at, data: 2, if: { absent: true } });
  assert.deepEqual([error.code, error.seq], ['precondition_failed', await seqOf(at)], 'a stored null exists');
  assert.equal((await refusal('update', { ...at, ops: [], if: { absent: true } })).code, 'precondition_failed');
  await call('update', { ...at, ops: [{ type: 'set', path: '', value: 5 }], if: { exists: true } });
  assert.deepEqual(await call('delete', { ...at, if: { exists: true } }), { old_value: 5 });
});

test('of many writers with the same if seq exactly one wins', async () => {
  const at = item();
  await call('set', { ...at, data: { n: 0 } });
  const seq = await seqOf(at);
  const peers = await Promise.all([1, 2, 3, 4].map(() => server.peer()));
  const outcomes = await Promise.all(peers.flatMap((p, w) => Array.from({ length: 10 }, (_, i) =>
    p.call('stream::set', { ...at, data: { w, i }, if: { seq } }))));
  const winners = outcomes.filter((frame) => frame.result);
  assert.equal(winners.length, 1);
  assert.ok(outcomes.every((frame) => frame.result || frame.error.code === 'precondition_failed'));
  assert.deepEqual(await call('get', at), winners[0].result.new_value);
});

test('atomic: one failed op and nothing is applied, no event', async () => {
  const at = item();
  const watcher = await watch(at.group_id);
  const ops = [...counter, { type: 'append', path: 'n', value: 1 }, { type: 'set', path: 'x', value: 1 }];
  const missing = await call('update', { ...at, ops, atomic: true });
  assert.deepEqual([missing.old_value, missing.new_value], [null, null], 'new_value is old_value');
  assert.deepEqual(missing.errors.map((e) => [e.op_index, e.code]), [[1, 'append.type_mismatch']]);
  assert.equal(await call('get', at), undefined, 'a missing item stays missing');
  await watcher.nothingSince();
  await call('set', { ...at, data: { n: 5 } });
  await watcher.event('create');
  const present = await call('update', { ...at, ops, atomic: true });
  assert.deepEqual([present.old_value, present.new_value, present.errors.length], [{ n: 5 }, { n: 5 }, 1]);
  assert.deepEqual(await call('get', at), { n: 5 });
  await watcher.nothingSince();
  assert.deepEqual(await call('update', { ...at, ops: counter, atomic: true }), { old_value: { n: 5 }, new_value: { n: 6 } });
  await watcher.event('update');
});

test('mutation: applied once; a repetition is answered as a duplicate', async () => {
  const at = item();
  const watcher = await watch(at.group_id);
  const client = unique('client');
  const update = (seq) => call('update', { ...at, ops: counter, mutation: { client, seq } });
  assert.deepEqual((await update(1)).new_value, { n: 1 });
  assert.deepEqual(await update(1), { duplicate: true, seq: 1, at: 1 });
  // Other people's changes move the group's sequence away from the client's.
  await call('set', { ...at, item_id: 'other', data: 1 });
  await call('set', { ...at, item_id: 'other', data: 2 });
  assert.deepEqual((await update(2)).new_value, { n: 2 });
  assert.deepEqual(await update(2), { duplicate: true, seq: 2, at: 4 });
  assert.equal((await update(1)).duplicate, true, 'long past');
  assert.deepEqual(await call('get', at), { n: 2 });
  for (const type of ['create', 'create', 'update', 'update']) assert.equal((await watcher.next()).event.type, type);
  await watcher.nothingSince();
});

test('mutation: a gap names the expected number, an unknown client must start at 1', async () => {
  const at = item();
  const client = unique('client');
  const set = (seq, data, more) => call('set', { ...at, data, mutation: { client, seq }, ...more });
  const unknown = await rejection(set(5, 'x'));
  assert.equal(unknown.code, 'mutation_unknown');
  await set(1, 'one');
  const gap = await rejection(set(3, 'three'));
  assert.deepEqual([gap.code, gap.expected], ['mutation_gap', 2]);
  assert.match(gap.message, /2/, 'the message names the expected number');
  assert.equal(await call('get', at), 'one');
  await set(2, 'two');
  await set(3, 'three');
  assert.equal(await call('get', at), 'three');
  assert.equal((await rejection(set(0, 'zero'))).code, 'deserialization_error', 'numbers start at 1');
});

test('mutation: a refused one advances the record', async () => {
  const at = item();
  const client = unique('client');
  const set = (seq, data, more) => call('set', { ...at, data, mutation: { client, seq }, ...more });
  await set(1, 'one');
  assert.equal((await rejection(set(2, 'two', { if: { absent: true } }))).code, 'precondition_failed');
  assert.equal((await set(2, 'two')).duplicate, true, 'answered before, so not applied now');
  assert.equal(await call('get', at), 'one');
  await set(3, 'three');
  const atomic = await call('update', { ...at, ops: counter, atomic: true, mutation: { client, seq: 4 } });
  assert.equal(atomic.errors.length, 1, 'three is no object');
  assert.deepEqual((await set(5, 'five')).new_value, 'five');
});

test('mutation: one client may work in several groups, and several clients in one', async () => {
  const [a, b] = [item(), item()];
  const [one, two] = [unique('client'), unique('client')];
  await call('set', { ...a, data: 1, mutation: { client: one, seq: 1 } });
  await call('set', { ...b, data: 1, mutation: { client: one, seq: 1 } });
  await call('set', { ...a, data: 2, mutation: { client: two, seq: 1 } });
  await call('delete', { ...a, mutation: { client: one, seq: 2 } });
  assert.equal(await call('get', a), undefined);
  assert.equal(await call('get', b), 1);
});

test('mutation: a delete of nothing and a send count too', async () => {
  const at = item();
  const watcher = await watch(at.group_id);
  const client = unique('client');
  assert.deepEqual(await call('delete', { ...at, mutation: { client, seq: 1 } }), { old_value: null });
  assert.deepEqual(await call('delete', { ...at, mutation: { client, seq: 1 } }), { duplicate: true, seq: 1, at: null });
  const send = { stream_name: STREAM, group_id: at.group_id, type: 'typing', data: 1, mutation: { client, seq: 2 } };
  assert.equal(await call('send', send), null);
  assert.deepEqual(await call('send', send), { duplicate: true, seq: 2, at: null });
  assert.equal((await watcher.next()).event.event.type, 'typing');
  await watcher.nothingSince();
});

test('mutation: the event carries a tag that is not the client, and its number', async () => {
  const at = item();
  const watcher = await watch(at.group_id);
  const [one, two] = [unique('secret'), unique('secret')];
  const tags = [];
  for (const [client, seq] of [[one, 1], [two, 1], [one, 2]]) {
    await call('update', { ...at, ops: counter, mutation: { client, seq } });
    const frame = await watcher.next();
    assert.equal(frame.mutation.seq, seq, frame.text);
    assert.ok(!frame.text.includes(client), 'the secret is not told');
    tags.push(frame.mutation.tag);
  }
  assert.equal(typeof tags[0], 'string');
  assert.equal(tags[0], tags[2], 'the same client has the same tag');
  assert.notEqual(tags[0], tags[1]);
  await call('update', { ...at, ops: counter });
  assert.ok(!('mutation' in await watcher.next()), 'a change without identity has none');
});

test('returning spares values, and adds the seq', async () => {
  const at = item();
  assert.deepEqual(await call('set', { ...at, data: 1, returning: 'both' }), { old_value: null, new_value: 1, seq: 1 });
  assert.deepEqual(await call('set', { ...at, data: 2, returning: 'new' }), { new_value: 2, seq: 2 });
  assert.deepEqual(await call('set', { ...at, data: 3, returning: 'none' }), { seq: 3 });
  const ops = [{ type: 'increment', path: '', by: 1 }];
  assert.deepEqual(await call('update', { ...at, ops, returning: 'both' }), { old_value: 3, new_value: 4, seq: 4 });
  assert.deepEqual(await call('update', { ...at, ops, returning: 'new' }), { new_value: 5, seq: 5 });
  assert.deepEqual(await call('update', { ...at, ops, returning: 'none' }), { seq: 6 });
  assert.equal(await seqOf(at), 6);
  const failing = await call('update', { ...at, ops: [...ops, { type: 'set', path: 'a', value: 1 }], returning: 'none' });
  assert.deepEqual(failing.errors.map((e) => e.code), ['set.target_not_object'], 'errors are never spared');
  assert.deepEqual(await call('delete', { ...at, returning: 'none' }), { seq: 8 });
  await call('set', { ...at, data: 9 });
  assert.deepEqual(await call('delete', { ...at, returning: 'both' }), { old_value: 9, seq: 10 });
});

test('ttl_ms: the item is deleted with an event when its time is over', async () => {
  const at = item();
  const watcher = await watch(at.group_id);
  const begin = Date.now();
  await call('set', { ...at, data: { id: 'i', here: true }, ttl_ms: 400 });
  await call('update', { ...at, item_id: 'u', ops: counter, ttl_ms: 700 });
  await watcher.event('create');
  await watcher.event('create');
  assert.deepEqual(await call('get', at), { id: 'i', here: true }, 'it is there until then');
  const gone = await watcher.event('delete');
  assert.ok(Date.now() - begin >= 395, `not before its time: ${Date.now() - begin} ms`);
  assert.deepEqual([gone.id, gone.event.data], ['i', { id: 'i', here: true }]);
  assert.equal(await call('get', at), undefined);
  const second = await watcher.event('delete');
  assert.deepEqual([second.id, second.event.data], ['u', { n: 1 }]);
});

test('ttl_ms: writing again begins the time anew', async () => {
  const [kept, lost] = [item(), item(undefined, 'lost')];
  const watcher = await watch(lost.group_id);
  await call('set', { ...kept, data: 1, ttl_ms: 300 });
  await call('set', { ...kept, data: 2, ttl_ms: 600_000 });
  await call('set', { ...lost, data: 1, ttl_ms: 600 });
  await watcher.event('delete');
  assert.equal(await call('get', kept), 2);
});

test('ttl_ms: meta tells it, and when the item goes', async () => {
  const at = item();
  const before = Date.now();
  await call('set', { ...at, data: 1, ttl_ms: 600_000 });
  const { ttl_ms, expires_ms } = await call('get', { ...at, meta: true });
  assert.equal(ttl_ms, 600_000);
  assert.ok(before + 600_000 <= expires_ms && expires_ms <= Date.now() + 600_000, `${expires_ms}`);
  await call('set', { ...at, data: 1 });
  assert.deepEqual(Object.keys(await call('get', { ...at, meta: true })).sort(), ['seq', 'timestamp', 'value']);
});

test('new fields of a wrong type are refused by name', async () => {
  const at = item();
  for (const [verb, field, values] of [
    ['set', 'if', ['x', 7, { seq: 'x' }, { seq: -1 }]],
    ['set', 'mutation', ['x', {}, { client: 'c' }, { client: 7, seq: 1 }, { client: 'c', seq: 'x' }, { client: 'c', seq: 1.5 }]],
    ['set', 'returning', ['all', 7]],
    ['set', 'ttl_ms', ['x', -1, 1.5]],
    ['update', 'atomic', ['yes', 1]],
    ['get', 'meta', ['yes', 1]],
  ]) {
    const base = { ...at, ...(verb === 'set' && { data: 1 }), ...(verb === 'update' && { ops: [] }) };
    for (const value of values) {
      const error = await refusal(verb, { ...base, [field]: value });
      assert.equal(error.code, 'deserialization_error', `${verb} ${field} ${JSON.stringify(value)}: ${error.message}`);
      assert.ok(error.message.includes(field), error.message);
    }
  }
  assert.equal(await call('get', at), undefined);
});
