// Connecting, tokens, coming back, and what a client does with a server that talks nonsense.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { FakeServer, event, snapshot } from './fake_server.mjs';
import { newClient } from './kit.mjs';
import { rejection, until, within } from './waiting.mjs';

const answerJoins = (connection, message) => { if (message.type === 'join') connection.send(snapshot(message)); };

async function serve(t, options = {}) {
  const server = await FakeServer.start({ on: answerJoins, ...options });
  t.after(() => server.stop());
  return server;
}

const live = (group) => until(group, () => group.status === 'live', 'live');

test('nothing connects until something is needed, and then once', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  assert.deepEqual(client.status, { state: 'idle', reason: null, attempt: 0, nextAttemptAt: null });
  const seen = [];
  client.subscribe(() => { if (seen.at(-1) !== client.status.state) seen.push(client.status.state); });
  await live(client.group('s', 'g'));
  assert.deepEqual(seen, ['connecting', 'open']);
  assert.equal(client.status, client.status);
});

test('a lost connection makes views stale, and comes back with since', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  const end = group.subscribe(() => {});
  await live(group);
  server.last.send(event('s', 'g', 'a', 7, { type: 'create', data: 1 }));
  await until(group, () => group.items.length === 1, 'the item');
  const seen = new Set();
  group.subscribe(() => seen.add(group.status));
  server.last.ws.terminate();
  await server.until(() => server.connections.length === 2 && server.last.of('join').length === 1, 'a second join');
  assert.deepEqual(server.last.of('join')[0].data.since, { epoch: 'e1', seq: 7 });
  await live(group);
  assert.ok(seen.has('stale'));
  end();
});

test('pauses have a reason and a time, and grow', async (t) => {
  const client = newClient(t, 'ws://127.0.0.1:1', { backoff: { firstMs: 4, maxMs: 1_000 } });
  client.group('s', 'g').subscribe(() => {});
  await until(client, () => client.status.state === 'waiting' && client.status.attempt >= 4, 'four attempts');
  const { reason, nextAttemptAt } = client.status;
  assert.equal(reason.code, 'connection_refused');
  assert.ok(Math.abs(nextAttemptAt - Date.now()) < 5_000);
});

for (const [code, codeOfReason] of [[1002, 'protocol_error'], [1007, 'protocol_error'], [1008, 'forbidden'], [4003, 'forbidden']]) {
  test(`closed with ${code} it does not come back, until it is told to`, async (t) => {
    const server = await serve(t);
    const client = newClient(t, server.url);
    await live(client.group('s', 'g'));
    server.last.ws.close(code, 'because');
    await until(client, () => client.status.state === 'closed', 'closed');
    assert.deepEqual([client.status.reason.code, client.status.reason.details.closeCode], [codeOfReason, code]);
    client.group('s', 'g').subscribe(() => {});
    assert.equal(server.connections.length, 1);
    client.reconnect();
    await server.until(() => server.connections.length === 2, 'a new connection');
  });
}

for (const code of [1000, 1001, 1009, 1013, 4001, 4008, 4029]) {
  test(`closed with ${code} it comes back`, async (t) => {
    const server = await serve(t);
    const client = newClient(t, server.url);
    await live(client.group('s', 'g'));
    server.last.ws.close(code);
    await server.until(() => server.connections.length === 2, 'a new connection');
  });
}

test('the token is asked for every connection, and told when the last one ran out', async (t) => {
  const server = await serve(t);
  const asked = [];
  const token = async ({ reason }) => { asked.push(reason); return `t${asked.length}`; };
  const client = newClient(t, server.url, { token });
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await live(group);
  assert.equal(server.last.request.headers['sec-websocket-protocol'], 'Authorization,t1');
  server.last.ws.close(4001);
  await server.until(() => server.connections.length === 2, 'another');
  assert.equal(server.last.request.headers['sec-websocket-protocol'], 'Authorization,t2');
  await live(group);
  server.last.ws.close(1001);
  await server.until(() => server.connections.length === 3, 'a third');
  assert.deepEqual(asked, ['connect', 'expired', 'connect']);
});

test('a token by query parameter', async (t) => {
  const server = await serve(t);
  const client = newClient(t, `${server.url}/?a=b`, { token: 'x y&z', tokenVia: { query: 'access_token' } });
  await live(client.group('s', 'g'));
  assert.equal(server.last.request.url, '/?a=b&access_token=x%20y%26z');
  assert.equal(server.last.request.headers['sec-websocket-protocol'], undefined);
});

test('after refused handshakes the token function hears of it', async (t) => {
  let good = false;
  const server = await serve(t, { accept: () => good });
  const asked = [];
  const client = newClient(t, server.url, { token: ({ reason }) => { asked.push(reason); good = reason === 'refused'; return 't'; } });
  await live(client.group('s', 'g'));
  assert.deepEqual(asked, ['connect', 'connect', 'refused']);
});

test('a token function that fails, or gives no string, is told of once and tried again', async (t) => {
  const server = await serve(t);
  const given = [() => { throw new Error('no session'); }, () => 42, () => Promise.reject(new Error('offline')), () => 'bad token', () => 'good'];
  const client = newClient(t, server.url, { token: () => given.shift()() });
  await live(client.group('s', 'g'));
  assert.deepEqual(client.errors.map(({ code }) => code), ['invalid_token', 'invalid_token']);
  assert.match(client.errors[0].message, /no session/);
  assert.match(client.errors[1].message, /protocol/, 'the token that is none for a socket');
});

test('a token function that never answers, and a handshake that never ends, have a limit', async (t) => {
  const hanging = newClient(t, 'ws://127.0.0.1:1', { token: () => new Promise(() => {}), connectTimeoutMs: 20 });
  hanging.group('s', 'g').subscribe(() => {});
  await until(hanging, () => hanging.status.state === 'waiting', 'waiting');
  assert.ok(['invalid_token', 'connection_refused'].includes(hanging.status.reason.code));
});

test('without any WebSocket it says so', async (t) => {
  const original = globalThis.WebSocket;
  delete globalThis.WebSocket;
  t.after(() => { if (original) globalThis.WebSocket = original; });
  const client = newClient(t, 'ws://127.0.0.1:1', { WebSocket: undefined });
  client.group('s', 'g').subscribe(() => {});
  await until(client, () => client.status.state === 'closed', 'closed');
  assert.match(client.status.reason.message, /WebSocket/);
});

test('closed for good: calls reject with the reason, views fail and keep what they show, edits wait; reconnect takes all up', async (t) => {
  let isSilent = true;
  const applied = [];
  const server = await serve(t, { on: (connection, message) => {
    if (message.data?.groupId === 'late' && isSilent) return;
    if (message.type === 'join') connection.send(snapshot(message, [{ id: 'a', seq: 1, data: 1 }], { seq: 1 }));
    if (message.type !== 'call' || isSilent) return;
    if (message.data.mutation) applied.push(message.data.item_id);
    connection.send({ type: 'result', id: message.id, result: message.data.mutation ? { seq: 2 } : 'read' });
  } });
  const client = newClient(t, server.url, { callTimeoutMs: 60_000 });
  const [group, late] = [client.group('s', 'g'), client.group('s', 'late')];
  late.subscribe(() => {});
  group.subscribe(() => {});
  await live(group);
  const [read, write] = [client.call('stream::get'), client.call('stream::set')].map(rejection);
  await server.until(() => server.last.calls.length === 2, 'both calls');
  server.last.ws.close(4003, 'out');
  assert.deepEqual([(await read).code, (await write).code], ['forbidden', 'connection_lost']);
  assert.equal((await rejection(client.call('stream::get'))), client.status.reason);
  const added = client.item('s', 'g', 'a');
  added.subscribe(() => {});
  for (const view of [group, late, added]) assert.deepEqual([view.status, view.error], ['failed', client.status.reason]);
  assert.deepEqual(group.items.map(({ id }) => id), ['a']);
  const edit = group.set('b', 2);
  assert.deepEqual([edit.state, group.get('b').pending, client.pending], ['pending', true, 1]);
  assert.equal(server.connections.length, 1);
  isSilent = false;
  client.reconnect();
  assert.deepEqual([group.status, late.status, added.status, group.error], ['stale', 'loading', 'loading', null]);
  await Promise.all([group, late].map(live));
  await within(edit.settled, 'the edit');
  assert.deepEqual(applied, ['b']);
  assert.equal(await client.call('stream::get'), 'read');
});

for (const [why, options] of Object.entries({
  'there is no WebSocket': { WebSocket: undefined },
  'the core cannot be loaded': { loadReplica: () => { throw new Error('no wasm'); } },
})) {
  test(`a call that waits rejects when ${why}`, async (t) => {
    const original = globalThis.WebSocket;
    delete globalThis.WebSocket;
    t.after(() => { if (original) globalThis.WebSocket = original; });
    const client = newClient(t, 'ws://127.0.0.1:1', { callTimeoutMs: 60_000, ...options });
    const first = await rejection(client.call('stream::get'));
    assert.equal(first, client.status.reason);
    assert.equal(first.code, options.loadReplica ? 'core_unavailable' : 'connection_refused');
    assert.equal(await rejection(client.call('stream::get')), first);
    const group = client.group('s', 'g');
    group.subscribe(() => {});
    assert.deepEqual([group.status, group.error], ['failed', first]);
    assert.equal(client.group('', 'g').status, 'idle');
  });
}

test('nonsense is told and ends nothing', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await live(group);
  const nonsense = ['', '{', '[]', 'null', '7', '"x"', '{"type":"surprise"}', '{}', '{"type":"result"}', '{"type":"result","id":7}'];
  for (const text of nonsense) server.last.send(text);
  server.last.ws.send(Buffer.from([1, 2, 3]));
  server.last.send({ type: 'result', id: 'nobody', result: 1 });
  server.last.send({ type: 'result', id: 'nobody', error: null });
  server.last.send('x'.repeat(5_000_000));
  server.last.send(event('s', 'g', 'a', 1, { type: 'create', data: 'still here' }));
  await until(group, () => group.items.length === 1, 'the item');
  assert.deepEqual(new Set(client.errors.map(({ code }) => code)), new Set(['protocol_error']));
  assert.equal(client.errors.length, nonsense.length + 2);
  assert.ok(client.errors.at(-1).message.length < 400);
  assert.equal(server.connections.length, 1);
});

test('a stream frame that cannot be read is asked for again by a new connection', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await live(group);
  server.last.send('{"type":"stream","broken');
  await server.until(() => server.connections.length === 2 && server.last.of('join').length === 1, 'another join');
  assert.equal(client.errors[0].code, 'protocol_error');
});

test('calls wait for the connection, are answered in any order, and reads survive a lost one', async (t) => {
  const held = [];
  const server = await serve(t, { on: (connection, message) => {
    if (message.type !== 'call') return;
    if (message.data.n === 'drop' && server.connections.length === 1) connection.ws.terminate();
    else if (message.data.n === 1) held.push(() => connection.send({ type: 'result', id: message.id, result: 'one' }));
    else {
      connection.send({ type: 'result', id: message.id, result: message.data.n });
      held.splice(0).forEach((answer) => answer());
    }
  } });
  const client = newClient(t, server.url);
  assert.deepEqual(await within(Promise.all([client.call('stream::get', { n: 1 }), client.call('stream::get', { n: 2 })]), 'both'), ['one', 2]);
  assert.equal(await within(client.call('stream::list', { n: 'drop' }), 'the read'), 'drop');
  assert.equal(server.connections.length, 2);
});

test('a call that writes is not sent twice, errors come with their fields, and time limits hold', async (t) => {
  const server = await serve(t, { on: (connection, message) => {
    if (message.type !== 'call') return;
    if (message.function_id === 'stream::set') connection.ws.terminate();
    if (message.data.bad) connection.send({ type: 'result', id: message.id, error: { code: 'precondition_failed', message: 'no', seq: 4 } });
  } });
  const client = newClient(t, server.url, { callTimeoutMs: 60, callsMax: 2 });
  const refused = await rejection(client.call('stream::delete', { bad: true }));
  assert.deepEqual([refused.code, refused.details.seq, refused.name], ['precondition_failed', 4, 'StreamError']);
  assert.equal((await rejection(client.call('stream::set', {}))).code, 'connection_lost');
  const silent = [client.call('stream::get', {}), client.call('stream::get', {})].map(rejection);
  assert.equal((await rejection(client.call('stream::get', {}))).code, 'too_many_calls');
  assert.deepEqual((await Promise.all(silent)).map(({ code }) => code), ['call_timeout', 'call_timeout']);
  const circular = {};
  circular.self = circular;
  assert.equal((await rejection(client.call('stream::get', circular))).code, 'deserialization_error');
});

test('an `online` event tries at once, and finds out a dead connection', async (t) => {
  const listeners = new Map();
  globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
  globalThis.removeEventListener = (name) => listeners.delete(name);
  t.after(() => { delete globalThis.addEventListener; delete globalThis.removeEventListener; });
  let isMute = false;
  const server = await serve(t, { on: (connection, message) => {
    if (isMute) return;
    answerJoins(connection, message);
    if (message.type === 'call') connection.send({ type: 'result', id: message.id, error: { code: 'function_not_found', message: '' } });
  } });
  const client = newClient(t, server.url, { probeTimeoutMs: 30, backoff: { firstMs: 60_000, maxMs: 60_000 } });
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await live(group);
  await client.call('stream::get', {}).catch(() => {});
  let now = 1e9;
  t.mock.method(performance, 'now', () => now);
  listeners.get('online')();
  await server.until(() => server.last.calls.some(({ id }) => id === 'probe'), 'a probe');
  // Its answer came, as that of a later call shows: the connection stays.
  await client.call('stream::get', {}).catch(() => {});
  isMute = true;
  now = 2e9;
  assert.equal(server.connections.length, 1);
  listeners.get('online')();
  await until(client, () => client.status.state === 'waiting', 'the connection to be given up');
  isMute = false;
  listeners.get('online')();
  await server.until(() => server.connections.length === 2, 'another');
  await client.close();
  assert.equal(listeners.size, 0, 'nobody listens to the page any more');
});

test('the core that cannot be loaded is told, and tried again on request', async (t) => {
  const { FakeReplica } = await import('./fake_replica.mjs');
  const server = await serve(t);
  let isBroken = true;
  const client = newClient(t, server.url, { WebSocket, loadReplica: () => { if (isBroken) throw new Error('no wasm'); return new FakeReplica(); } });
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(client, () => client.status.state === 'closed', 'closed');
  assert.equal(client.errors[0].code, 'core_unavailable');
  isBroken = false;
  client.reconnect();
  await live(group);
});
