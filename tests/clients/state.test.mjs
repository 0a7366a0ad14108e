// `state::` functions and the `state` trigger: keys in scopes, with the core and the rules of streams (stream-functions.md, appendix).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Record, rejection, settled, startServer, unique } from './harness.mjs';

let server;
let sdk;
const call = (verb, payload) => sdk.trigger({ function_id: `state::${verb}`, payload });
before(async () => {
  server = await startServer();
  sdk = server.sdk();
});
after(() => server?.stop());

test('set, get, update and delete answer with the documented shapes', async () => {
  const at = { scope: unique('users'), key: 'u1' };
  assert.deepEqual(await call('set', { ...at, value: { n: 1 } }), { old_value: null, new_value: { n: 1 } });
  assert.deepEqual(await call('set', { ...at, data: { n: 2 } }), { old_value: { n: 1 }, new_value: { n: 2 } }, '`data` is another name');
  assert.deepEqual(await call('get', at), { n: 2 });
  const updated = await call('update', { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }, { type: 'append', path: 'n', value: 1 }] });
  assert.deepEqual([updated.old_value, updated.new_value, updated.errors.map((e) => e.code)], [{ n: 2 }, { n: 3 }, ['append.type_mismatch']]);
  assert.deepEqual(await call('delete', at), { n: 3 }, 'the bare old value');
  assert.equal(await call('delete', at), undefined);
  assert.equal(await call('get', at), undefined);
  await call('set', { ...at, value: null });
  assert.equal(await call('get', at), null, 'a stored null is a value');
});

test('list gives values, list_groups the scopes that hold any, and streams stay apart', async () => {
  const scope = unique('scope');
  assert.deepEqual(await call('list', { scope }), []);
  for (const key of ['b', 'a']) await call('set', { scope, key, value: key });
  assert.deepEqual(await call('list', { scope }), ['b', 'a']);
  const { groups } = await call('list_groups', {});
  assert.ok(groups.includes(scope));
  assert.deepEqual(groups, [...groups].sort());
  for (const key of ['b', 'a']) await call('delete', { scope, key });
  assert.ok(!(await call('list_groups', {})).groups.includes(scope));
  assert.deepEqual(await sdk.trigger({ function_id: 'stream::list_all', payload: {} }), { stream: [], count: 0 });
});

test('list with meta tells keys and versions', async () => {
  const scope = unique('scope');
  for (const key of ['b', 'a']) await call('set', { scope, key, value: key });
  const listed = await call('list', { scope, meta: true });
  assert.deepEqual(listed.map(({ key, value, seq, ...rest }) => [key, value, seq, Object.keys(rest)]), [['b', 'b', 1, ['timestamp']], ['a', 'a', 2, ['timestamp']]]);
  assert.equal((await rejection(call('list', { scope, meta: 1 }))).code, 'deserialization_error');
});

test('bad input is refused by name', async () => {
  for (const [verb, payload, field] of [
    ['set', { key: 'k', value: 1 }, 'scope'], ['set', { scope: 's', value: 1 }, 'key'], ['set', { scope: 's', key: 'k' }, 'value'],
    ['get', { scope: 7, key: 'k' }, 'scope'], ['delete', {}, 'scope'], ['update', { scope: 's', key: 'k' }, 'ops'], ['list', {}, 'scope'],
  ]) {
    const error = await rejection(call(verb, payload), verb);
    assert.equal(error.code, 'deserialization_error');
    assert.ok(error.message.includes(field) && error.message.includes(`state::${verb}`), error.message);
  }
  assert.equal((await rejection(call('set', { scope: '', key: 'k', value: 1 }))).code, 'invalid_name');
});

test('state triggers tell old and new value, in order, filtered by scope and key', async () => {
  const [scope, other] = [unique('scope'), unique('other')];
  const bound = async (config) => {
    const calls = new Record(server);
    const id = unique('on::state');
    sdk.registerFunction(id, async (input) => { calls.push(input); return {}; });
    sdk.registerTrigger({ type: 'state', function_id: id, config });
    await settled(sdk);
    return calls;
  };
  const [all, one] = [await bound({ scope }), await bound({ scope, key: 'b' })];
  await call('set', { scope: other, key: 'a', value: 0 });
  await call('set', { scope, key: 'a', value: 1 });
  await call('update', { scope, key: 'a', ops: [{ type: 'increment', path: '', by: 1 }] });
  await call('delete', { scope, key: 'a' });
  await call('delete', { scope, key: 'a' });
  await call('set', { scope, key: 'b', value: 2 });
  const row = (event_type, key, old_value, new_value) => ({ type: 'state', event_type, scope, key, old_value, new_value });
  assert.deepEqual(await all.count(5), [
    row('state:created', 'a', null, 1), row('state:updated', 'a', 1, 2), row('state:deleted', 'a', 2, null),
    row('state:deleted', 'a', null, null), row('state:created', 'b', null, 2),
  ]);
  assert.deepEqual(await one.count(1), [row('state:created', 'b', null, 2)]);
});

test('a condition that says false skips the handler', async () => {
  const scope = unique('scope');
  const calls = new Record(server);
  const [handler, condition] = [unique('on::state'), unique('if::state')];
  sdk.registerFunction(handler, async (input) => { calls.push(input.new_value); return {}; });
  sdk.registerFunction(condition, async (input) => input.new_value > 1);
  sdk.registerTrigger({ type: 'state', function_id: handler, config: { scope, condition_function_id: condition } });
  await settled(sdk);
  for (const value of [1, 2, 3]) await call('set', { scope, key: 'k', value });
  assert.deepEqual(await calls.count(2), [2, 3]);
});
