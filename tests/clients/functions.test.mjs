// The eight stream functions, called by iii-sdk: what they return and what they refuse (stream-functions.md §1-§8).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { rejection, startServer, unique } from './harness.mjs';
import { sameJson, slice } from './lossless.mjs';

let server;
let sdk;
let peer;
const call = (verb, payload) => sdk.trigger({ function_id: `stream::${verb}`, payload });
const item = (group = unique('group'), id = 'i') => ({ stream_name: 'functions', group_id: group, item_id: id });
const group = ({ stream_name, group_id }) => ({ stream_name, group_id });

before(async () => {
  server = await startServer();
  sdk = server.sdk();
  peer = await server.peer();
});
after(() => server?.stop());

test('list_all of an empty server is an empty list and a zero, also without input', async () => {
  for (const payload of [{}, null, undefined]) {
    assert.deepEqual(await call('list_all', payload), { stream: [], count: 0 }, String(payload));
  }
});

test('set answers both values; old_value is null when there was none', async () => {
  const at = item();
  assert.deepEqual(await call('set', { ...at, data: { id: 'i', text: 'hi' } }),
    { old_value: null, new_value: { id: 'i', text: 'hi' } });
  assert.deepEqual(await call('set', { ...at, data: [1] }), { old_value: { id: 'i', text: 'hi' }, new_value: [1] });
  assert.deepEqual(await call('set', { ...at, data: null }), { old_value: [1], new_value: null });
  assert.deepEqual(await call('set', { ...at, data: false }), { old_value: null, new_value: false });
});

test('get gives the bare value; undefined when missing, null when null is stored', async () => {
  const at = item();
  assert.equal(await call('get', at), undefined);
  await call('set', { ...at, data: null });
  assert.equal(await call('get', at), null);
  for (const data of [0, '', false, 'text', [], {}, { deep: [{ er: 1.5 }] }]) {
    await call('set', { ...at, data });
    assert.deepEqual(await call('get', at), data);
  }
});

test('on the wire a missing item has no result field, a stored null has one', async () => {
  const at = item();
  const missing = await peer.call('stream::get', at);
  assert.ok(!('result' in missing) && !('error' in missing), missing.text);
  await peer.call('stream::set', { ...at, data: null });
  const stored = await peer.call('stream::get', at);
  assert.ok('result' in stored && stored.result === null, stored.text);
});

test('delete answers the removed value, and null when there was nothing', async () => {
  const at = item();
  assert.deepEqual(await call('delete', at), { old_value: null });
  await call('set', { ...at, data: { id: 'i' } });
  assert.deepEqual(await call('delete', at), { old_value: { id: 'i' } });
  assert.equal(await call('get', at), undefined);
  assert.deepEqual(await call('delete', at), { old_value: null });
});

test('list gives values in the order of creation; overwriting keeps the place, re-creation moves to the end', async () => {
  const of = group(item());
  const set = (id, n) => call('set', { ...of, item_id: id, data: { id, n } });
  assert.deepEqual(await call('list', of), []);
  // Descending ids, so that sorting by id would be seen.
  for (const id of ['d', 'c', 'b', 'a']) await set(id, 1);
  assert.deepEqual((await call('list', of)).map((v) => v.id), ['d', 'c', 'b', 'a']);
  await set('c', 2);
  await call('update', { ...of, item_id: 'd', ops: [{ type: 'increment', path: 'n', by: 1 }] });
  assert.deepEqual(await call('list', of), [{ id: 'd', n: 2 }, { id: 'c', n: 2 }, { id: 'b', n: 1 }, { id: 'a', n: 1 }]);
  await call('delete', { ...of, item_id: 'c' });
  await set('c', 3);
  assert.deepEqual((await call('list', of)).map((v) => v.id), ['d', 'b', 'a', 'c']);
});

test('list contains stored nulls and scalars as they are', async () => {
  const of = group(item());
  for (const [i, data] of [null, 0, 'x', [null]].entries()) await call('set', { ...of, item_id: `${i}`, data });
  assert.deepEqual(await call('list', of), [null, 0, 'x', [null]]);
});

test('list_groups names the groups that hold items, in a stable order', async () => {
  const stream_name = unique('groups');
  const names = async () => call('list_groups', { stream_name });
  assert.deepEqual(await names(), []);
  for (const group_id of ['b', 'a', 'c']) await call('set', { stream_name, group_id, item_id: 'i', data: 1 });
  const first = await names();
  assert.deepEqual([...first].sort(), ['a', 'b', 'c']);
  assert.deepEqual(await names(), first);
  await call('delete', { stream_name, group_id: 'b', item_id: 'i' });
  assert.deepEqual([...await names()].sort(), ['a', 'c'], 'an emptied group is not listed');
});

test('list_all gives sorted streams with sorted groups and their count', async () => {
  const [s1, s2] = [unique('all-b'), unique('all-a')];
  for (const [stream_name, group_id] of [[s1, 'y'], [s1, 'x'], [s2, 'z']]) {
    await call('set', { stream_name, group_id, item_id: 'i', data: 1 });
  }
  const all = await call('list_all', {});
  assert.deepEqual(Object.keys(all).sort(), ['count', 'stream']);
  assert.equal(all.count, all.stream.length);
  const ids = all.stream.map((s) => s.id);
  assert.deepEqual(ids, [...ids].sort());
  assert.deepEqual(all.stream.find((s) => s.id === s1), { id: s1, groups: ['x', 'y'] });
  assert.deepEqual(all.stream.find((s) => s.id === s2), { id: s2, groups: ['z'] });
  assert.deepEqual(await call('list_all', null), all, 'null input is {}');
  assert.deepEqual(await call('list_all', undefined), all, 'absent input is {}');
  await call('delete', { stream_name: s2, group_id: 'z', item_id: 'i' });
  assert.ok(!(await call('list_all', {})).stream.some((s) => s.id === s2), 'an emptied stream is not listed');
});

test('send answers null and stores nothing', async () => {
  const at = item();
  assert.equal(await call('send', { ...group(at), type: 'typing', data: { who: 1 } }), null);
  assert.equal(await call('send', { ...group(at), type: 'typing', data: null, id: 'i' }), null);
  assert.equal(await call('send', { ...group(at), type: 'typing', data: 0, id: null }), null);
  assert.equal(await call('get', at), undefined);
  assert.deepEqual(await call('list', group(at)), []);
});

test('update applies the ops and leaves out errors when there are none', async () => {
  const at = item();
  const done = await call('update', { ...at, ops: [{ type: 'increment', path: 'n', by: 2 }, { type: 'set', path: 'k', value: 'v' }] });
  assert.deepEqual(done, { old_value: null, new_value: { n: 2, k: 'v' } });
  assert.ok(!('errors' in done));
  assert.deepEqual(await call('update', { ...at, ops: [{ type: 'remove', path: 'k' }] }),
    { old_value: { n: 2, k: 'v' }, new_value: { n: 2 } });
});

test('update reports a failed op with index, code and message, and applies the others', async () => {
  const at = item();
  await call('set', { ...at, data: { n: 0 } });
  const done = await call('update', { ...at, ops: [
    { type: 'increment', path: 'n', by: 1 },
    { type: 'append', path: 'n', value: 1 },
    { type: 'set', path: '__proto__', value: 1 },
    { type: 'set', path: 'ok', value: true },
  ] });
  assert.deepEqual([done.old_value, done.new_value], [{ n: 0 }, { n: 1, ok: true }]);
  assert.deepEqual(done.errors.map(({ op_index, code }) => [op_index, code]),
    [[1, 'append.type_mismatch'], [2, 'set.path.proto_polluted']]);
  for (const error of done.errors) assert.ok(error.message.length > 10, JSON.stringify(error));
  assert.match(done.errors[0].message, /'?n'?.*number/, 'the message tells path and type');
});

test('update without ops, or with failing ones only, creates an empty object', async () => {
  const empty = item();
  assert.deepEqual(await call('update', { ...empty, ops: [] }), { old_value: null, new_value: {} });
  assert.deepEqual(await call('get', empty), {});
  const failing = item();
  const done = await call('update', { ...failing, ops: [{ type: 'set', path: 'constructor', value: 1 }] });
  assert.deepEqual([done.new_value, done.errors.length], [{}, 1]);
  assert.deepEqual(await call('get', failing), {});
});

test('a root remove leaves the item, holding null', async () => {
  const at = item();
  await call('set', { ...at, data: { a: 1 } });
  assert.deepEqual(await call('update', { ...at, ops: [{ type: 'remove', path: '' }] }), { old_value: { a: 1 }, new_value: null });
  assert.equal(await call('get', at), null);
});

const FIELDS = {
  set: { stream_name: 's', group_id: 'g', item_id: 'i', data: 1 },
  get: { stream_name: 's', group_id: 'g', item_id: 'i' },
  delete: { stream_name: 's', group_id: 'g', item_id: 'i' },
  list: { stream_name: 's', group_id: 'g' },
  list_groups: { stream_name: 's' },
  send: { stream_name: 's', group_id: 'g', type: 't', data: 1 },
  update: { stream_name: 's', group_id: 'g', item_id: 'i', ops: [] },
};

for (const [verb, complete] of Object.entries(FIELDS)) {
  test(`${verb} refuses a missing or wrong field by name`, async () => {
    const refused = async (payload, field) => {
      const error = await rejection(call(verb, payload), `${verb} of ${JSON.stringify(payload)}`);
      assert.equal(error.code, 'deserialization_error', `${verb} of ${JSON.stringify(payload)}: ${error.message}`);
      assert.ok(error.message.includes(`stream::${verb}`), `names the function: ${error.message}`);
      if (field) assert.ok(error.message.includes(field), `names ${field}: ${error.message}`);
    };
    for (const field of Object.keys(complete)) {
      const { [field]: _, ...rest } = complete;
      await refused(rest, field);
      if (field === 'data') continue; // any JSON is data
      for (const wrong of [1, null, {}, field === 'ops' ? 'x' : ['x']]) await refused({ ...complete, [field]: wrong }, field);
    }
    if (verb === 'send') await refused({ ...complete, id: 7 }, 'id');
    for (const payload of ['text', 7, [], true, null, undefined]) await refused(payload);
  });
}

test('a malformed op refuses the whole request and changes nothing', async () => {
  const at = item();
  await call('set', { ...at, data: { n: 1 } });
  for (const bad of [{ type: 'add', path: 'n' }, { type: 'increment', path: 'n' }, { type: 'increment', path: 'n', by: 1.5 }, 'x', null]) {
    const error = await rejection(call('update', { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }, bad] }), JSON.stringify(bad));
    assert.equal(error.code, 'deserialization_error');
    assert.match(error.message, /ops/);
  }
  assert.deepEqual(await call('get', at), { n: 1 });
});

test('an unknown function is told by name', async () => {
  const error = await rejection(sdk.trigger({ function_id: 'no::such', payload: {} }));
  assert.equal(error.code, 'function_not_found');
  assert.match(error.message, /no::such/);
  assert.match(error.message, /default/, 'names the namespace');
  assert.equal((await rejection(call('lists', {}))).code, 'function_not_found');
});

test('unknown fields are ignored', async () => {
  const at = item();
  assert.deepEqual(await call('set', { ...at, data: 1, colour: 'red', _caller_worker_id: 7 }), { old_value: null, new_value: 1 });
  assert.equal(await call('get', { ...at, extra: {} }), 1);
});

test('empty names and names above 1,024 bytes are invalid_name', async () => {
  const long = 'x'.repeat(1025);
  const wide = 'é'.repeat(513); // 1,026 bytes in 513 characters: bytes count
  for (const [verb, complete] of Object.entries(FIELDS)) {
    for (const field of ['stream_name', 'group_id', 'item_id']) {
      if (!(field in complete)) continue;
      for (const name of ['', long, wide]) {
        const error = await rejection(call(verb, { ...complete, [field]: name }), `${verb} with ${field} of ${name.length}`);
        assert.equal(error.code, 'invalid_name', `${verb} ${field}: ${error.message}`);
        assert.ok(error.message.includes(field), `names ${field}: ${error.message}`);
        assert.ok(error.message.length < 800, 'does not repeat the whole name');
      }
    }
  }
});

test('names of exactly 1,024 bytes are ordinary', async () => {
  for (const name of ['x'.repeat(1024), 'é'.repeat(512)]) {
    const at = { stream_name: name, group_id: name, item_id: name };
    await call('set', { ...at, data: 1 });
    assert.equal(await call('get', at), 1);
    assert.deepEqual(await call('list_groups', { stream_name: name }), [name]);
    await call('delete', at);
  }
});

const ODD = [':', 'a:b', '/', '..', '../../etc/passwd', '.', ' ', '%2F', '%', '\0', 'a\0b', '🦀', 'é', 'e\u0301', '"', '\\', '\n', '*', '__proto__', 'CON', 'a,b', '{}'];

test('odd names are ordinary names and all different', async () => {
  const stream_name = unique('odd');
  for (const [i, odd] of ODD.entries()) await call('set', { stream_name, group_id: odd, item_id: odd, data: i });
  for (const [i, odd] of ODD.entries()) {
    assert.equal(await call('get', { stream_name, group_id: odd, item_id: odd }), i, JSON.stringify(odd));
    assert.deepEqual(await call('list', { stream_name, group_id: odd }), [i]);
  }
  assert.deepEqual([...await call('list_groups', { stream_name })].sort(), [...ODD].sort());
  for (const [i, odd] of ODD.entries()) {
    await call('set', { stream_name: `odd ${odd}`, group_id: 'g', item_id: 'i', data: i });
  }
  const listed = (await call('list_all', {})).stream.map((s) => s.id);
  for (const odd of ODD) assert.ok(listed.includes(`odd ${odd}`), JSON.stringify(odd));
});

test('a colon does not merge two groups', async () => {
  const [a, b] = [{ stream_name: 'co:lon', group_id: 'x', item_id: 'i' }, { stream_name: 'co', group_id: 'lon:x', item_id: 'i' }];
  await call('set', { ...a, data: 'a' });
  await call('set', { ...b, data: 'b' });
  assert.deepEqual([await call('get', a), await call('get', b)], ['a', 'b']);
  const { stream } = await call('list_all', {});
  assert.deepEqual(stream.find((s) => s.id === 'co:lon'), { id: 'co:lon', groups: ['x'] });
  assert.deepEqual(stream.find((s) => s.id === 'co'), { id: 'co', groups: ['lon:x'] });
});

test('64-bit integers stay exact and doubles stay doubles', async () => {
  const at = item();
  const data = '{"max":9223372036854775807,"min":-9223372036854775808,"u":18446744073709551615,"odd":9007199254740993,"one":1.0,"list":[-9007199254740993]}';
  const set = await peer.callText('stream::set', `${JSON.stringify(at).slice(0, -1)},"data":${data}}`);
  const same = (text, what) => assert.ok(sameJson(text, data), `${what}: ${text}`);
  same(slice(slice(set.text, 'result'), 'new_value'), 'set');
  same(slice((await peer.call('stream::get', at)).text, 'result'), 'get');
  same(slice((await peer.call('stream::list', group(at))).text, 'result').slice(1, -1), 'list');
  same(slice(slice((await peer.call('stream::update', { ...at, ops: [] })).text, 'result'), 'old_value'), 'update');
  const counted = await peer.callText('stream::update',
    `${JSON.stringify(at).slice(0, -1)},"ops":[{"type":"increment","path":"max","by":1},{"type":"decrement","path":"odd","by":9007199254740992}]}`);
  const value = slice(slice(counted.text, 'result'), 'new_value');
  assert.equal(slice(value, 'max'), '9223372036854775808');
  assert.equal(slice(value, 'odd'), '1');
});

test('the order of keys is kept', async () => {
  const at = item();
  const data = '{"z":1,"a":{"y":1,"b":2},"10":3,"__proto__":{"x":1},"2":4}';
  const set = await peer.callText('stream::set', `${JSON.stringify(at).slice(0, -1)},"data":${data}}`);
  assert.equal(slice(slice(set.text, 'result'), 'new_value'), data);
  assert.equal(slice((await peer.call('stream::get', at)).text, 'result'), data);
  assert.equal(slice((await peer.call('stream::list', group(at))).text, 'result'), `[${data}]`);
  const updated = await peer.call('stream::update', { ...at, ops: [{ type: 'set', path: 'a', value: 0 }, { type: 'set', path: 'new', value: 1 }] });
  assert.equal(slice(slice(updated.text, 'result'), 'new_value'), '{"z":1,"a":0,"10":3,"__proto__":{"x":1},"2":4,"new":1}');
});

test('what goes in as text comes out as text: escapes, emoji, NUL, a megabyte', async () => {
  const at = item();
  for (const data of ['\u0000\u001f"\\/\b\f\n\r\t', '🦀👩‍👩‍👧‍👦', '\u2028\u2029', 'x'.repeat(1_000_000), { '': '', '\u0000': '🦀' }]) {
    await call('set', { ...at, data });
    assert.deepEqual(await call('get', at), data);
  }
});
