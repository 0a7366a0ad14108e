// The worker port, frame by frame: lifecycle, calls, errors, registration, telemetry (worker-protocol.md §1-§9, §12).
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { deferred, Record, rejection, settled, startServer, unique } from './harness.mjs';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
let server;
before(async () => { server = await startServer(); });
after(() => server?.stop());

const item = (item_id = 'i') => ({ stream_name: 'worker-protocol', group_id: unique('group'), item_id });

/** Proves that nothing is waiting unread on `peer`: a JSON ping comes after everything the server had to say. */
async function silence(peer, what) {
  peer.send({ type: 'ping' });
  const next = await peer.next('the pong');
  assert.deepEqual(next, { type: 'pong' }, `${what}: ${next.text}`);
}

test('workerregistered comes first, with a UUID and without features', async () => {
  const peer = await server.socket(server.workers, '/');
  peer.void('stream::get', item());
  const first = await peer.next();
  assert.equal(first.type, 'workerregistered');
  assert.match(first.worker_id, UUID);
  assert.equal(typeof first.reattach_token, 'string');
  assert.ok(!('features' in first));
  assert.equal(first.binary, false);
  const other = await server.peer();
  assert.notEqual(other.registered.worker_id, first.worker_id);
  assert.notEqual(other.registered.reattach_token, first.reattach_token);
});

test('a URL may carry a query string', async () => {
  await server.peer('/?token=x&y');
});

test('a void call takes effect and is never answered, not even a failing one with an id', async () => {
  const peer = await server.peer();
  const at = item();
  peer.void('stream::set', { ...at, data: 1 });
  peer.void('no::such', {});
  peer.void('stream::set', 'nonsense');
  peer.send({ type: 'invokefunction', invocation_id: randomUUID(), function_id: 'no::such', data: {}, action: { type: 'void' } });
  assert.equal(await peer.result('stream::get', at), 1);
  await silence(peer, 'void calls');
});

test('every call with an id is answered with that id and its function', async () => {
  const peer = await server.peer();
  for (const [fn, data] of [['stream::get', item()], ['stream::get', 7], ['no::such', {}], ['stream::send', { ...item(), type: 't', data: 1 }]]) {
    const id = randomUUID();
    const frame = await peer.call(fn, data, { invocation_id: id });
    assert.equal(frame.invocation_id, id);
    assert.equal(frame.function_id, fn);
    assert.ok(!('result' in frame && 'error' in frame), frame.text);
    assert.equal(frame.binary, false);
  }
});

test('a call that cannot be decoded is answered deserialization_error, not with silence', async () => {
  const peer = await server.peer();
  for (const [what, fields] of [
    ['unknown action', { function_id: 'stream::get', data: {}, action: { type: 'later' } }],
    ['action of a wrong type', { function_id: 'stream::get', data: {}, action: 7 }],
    ['no function_id', { data: {} }],
    ['function_id of a wrong type', { function_id: 7, data: {} }],
    ['namespace of a wrong type', { function_id: 'stream::get', data: {}, namespace: 7 }],
  ]) {
    const id = randomUUID();
    peer.send({ type: 'invokefunction', invocation_id: id, ...fields });
    const answer = await peer.take((f) => f.invocation_id === id, `an answer to ${what}`);
    assert.equal(answer.error?.code, 'deserialization_error', `${what}: ${answer.text}`);
  }
});

test('absent data is null', async () => {
  const peer = await server.peer();
  const refused = await peer.call('stream::get', undefined);
  assert.equal(refused.error.code, 'deserialization_error');
  const owner = await server.peer();
  const id = unique('fn::absent');
  const got = deferred();
  owner.serve(id, (data, frame) => { got.resolve(frame); return { result: 'ok' }; });
  await owner.settled();
  assert.equal(await peer.result(id, undefined), 'ok');
  assert.equal((await got.promise).data ?? null, null);
});

test('null optional fields count as absent', async () => {
  const peer = await server.peer();
  const at = item();
  assert.deepEqual(await peer.result('stream::set', { ...at, data: 1 }, { action: null, namespace: null, metadata: null, traceparent: null }),
    { old_value: null, new_value: 1 });
  peer.send({ type: 'invokefunction', invocation_id: null, function_id: 'stream::set', data: { ...at, data: 2 } });
  assert.equal(await peer.result('stream::get', at), 2);
  await silence(peer, 'a null invocation_id wants no answer');
});

test('JSON ping is answered pong, a WebSocket ping with its payload', async () => {
  const peer = await server.peer();
  peer.send({ type: 'ping' });
  assert.deepEqual(await peer.next(), { type: 'pong' });
  assert.equal(await peer.ping('payload 🦀'), 'payload 🦀');
  assert.equal(await peer.ping(''), '');
});

test('a binary frame is a message too; the answer is text', async () => {
  const peer = await server.peer();
  const id = randomUUID();
  peer.send(Buffer.from(JSON.stringify({ type: 'invokefunction', invocation_id: id, function_id: 'stream::list_all', data: {} })));
  const answer = await peer.take((f) => f.invocation_id === id, 'the answer');
  assert.ok(answer.result, answer.text);
  assert.equal(answer.binary, false);
});

test('telemetry frames are swallowed on the worker connection', async () => {
  const peer = await server.peer();
  for (const kind of ['OTLP', 'MTRC', 'LOGS']) {
    peer.send(Buffer.from(`${kind}{"resourceSpans":[]}`));
    peer.send(Buffer.from(`${kind}\xff\xfe not JSON`, 'latin1'));
  }
  await silence(peer, 'telemetry');
});

test('/otel takes anything, says nothing and answers pings', async () => {
  const otel = await server.socket(server.workers, '/otel');
  otel.send(Buffer.from('OTLP{"resourceSpans":[]}'));
  otel.send('{"type":"ping"}');
  assert.equal(await otel.ping('otel'), 'otel');
  assert.deepEqual(otel.frames, []);
  assert.equal((await otel.close()).code, 1000);
});

test('other paths are 404', async () => {
  for (const path of ['/other', '/otelx', '/otel/more', '/stream/a/b']) {
    const error = await rejection(server.socket(server.workers, path), path);
    assert.equal(error.status, 404, `${path}: ${error.message}`);
  }
  const plain = await fetch(`${server.workers.replace('ws:', 'http:')}/other`);
  assert.equal(plain.status, 404);
});

test('an iii-sdk worker with telemetry on works and connects both sockets', async () => {
  const worker = server.sdk({ otel: { enabled: true }, enableMetricsReporting: true, workerName: 'with-telemetry' });
  const at = item();
  await worker.trigger({ function_id: 'stream::set', payload: { ...at, data: 1 } });
  assert.equal(await worker.trigger({ function_id: 'stream::get', payload: at }), 1);
  await worker.shutdown();
});

test('frames that are no message are dropped without an answer', async () => {
  const peer = await server.peer();
  for (const junk of ['', '  \n ', 'not json', '{', '[]', 'null', '7', '"x"', '{}', '{"type":7}', '{"type":"nonsense"}',
    '{"type":"registerfunction"}', '{"type":"registerfunction","id":7}', '{"type":"invocationresult"}',
    '{"type":"unregistertriggertype","id":"x"}', '{"type":"registerservice","id":"x","name":"y"}', '{"type":"pong"}',
    '{"type":"invocationresult","invocation_id":"x","function_id":"y","result":1}', '{"type":"unregistertrigger","id":"unknown"}',
    '{"type":"unregisterfunction","id":"unknown"}', '{"type":"reattach"}', '{"type":"reattach","previous_worker_id":7}']) {
    peer.send(junk);
  }
  peer.send(Buffer.from([0xff, 0x00]));
  await silence(peer, 'junk');
});

test('unknown fields and any field order are accepted', async () => {
  const peer = await server.peer();
  const id = randomUUID();
  peer.send(`{"data":{"extra":[{"x":1}]},"caller":{"a":1},"observe_depth":3,"function_id":"stream::list_all","activation":null,"invocation_id":"${id}","type":"invokefunction"}`);
  const answer = await peer.take((f) => f.invocation_id === id, 'the answer');
  assert.ok(answer.result, answer.text);
});

test('an upper-case invocation id comes back in lower case or as it was, and is answered', async () => {
  const peer = await server.peer();
  const id = randomUUID().toUpperCase();
  peer.send({ type: 'invokefunction', invocation_id: id, function_id: 'stream::list_all', data: {} });
  const answer = await peer.take((f) => f.invocation_id?.toUpperCase() === id, 'the answer');
  assert.ok(answer.result, answer.text);
});

test('fragmented messages are put together, also when split inside a UTF-8 sequence', async () => {
  const peer = await server.peer();
  const at = item();
  const id = randomUUID();
  const data = { ...at, data: '🦀é'.repeat(20) };
  const bytes = Buffer.from(JSON.stringify({ type: 'invokefunction', invocation_id: id, function_id: 'stream::set', data }));
  for (let i = 0; i < bytes.length; i += 1) peer.send(bytes.subarray(i, i + 1), { binary: false, fin: i === bytes.length - 1 });
  await peer.take((f) => f.invocation_id === id, 'the answer');
  assert.equal(await peer.result('stream::get', at), data.data);
});

test('a ping between fragments is answered and does not disturb', async () => {
  const peer = await server.peer();
  const id = randomUUID();
  const text = JSON.stringify({ type: 'invokefunction', invocation_id: id, function_id: 'stream::list_all', data: {} });
  peer.send(text.slice(0, 20), { fin: false });
  assert.equal(await peer.ping('between'), 'between');
  peer.send('', { fin: false });
  peer.send(text.slice(20), { fin: true });
  assert.ok((await peer.take((f) => f.invocation_id === id, 'the answer')).result);
});

test('calls of one connection keep their order: 3,000 void set + get pairs read the new value', async () => {
  const peer = await server.peer();
  const at = item();
  const reads = [];
  for (let n = 0; n < 3_000; n += 1) {
    peer.void('stream::set', { ...at, data: n });
    reads.push(peer.result('stream::get', at));
  }
  assert.deepEqual(await Promise.all(reads), Array.from({ length: 3_000 }, (_, n) => n));
});

test('1,000 pipelined calls are each answered once, in effect in order', async () => {
  const peer = await server.peer();
  const at = item();
  const answers = await Promise.all(Array.from({ length: 1_000 }, (_, n) => peer.result('stream::set', { ...at, data: n })));
  answers.forEach((answer, n) => assert.deepEqual(answer, { old_value: n === 0 ? null : n - 1, new_value: n }));
  await silence(peer, 'second answers');
});

test('iii-sdk: a call made before the connection is open reaches an own function', async () => {
  const worker = server.sdk();
  const id = unique('fn::early');
  worker.registerFunction(id, async (input) => ({ got: input.n }));
  assert.deepEqual(await worker.trigger({ function_id: id, payload: { n: 1 } }), { got: 1 });
});

test('iii-sdk: workers call each other, with metadata, and see _caller_worker_id', async () => {
  const [a, b] = [server.sdk({ workerName: 'a' }), server.sdk({ workerName: 'b' })];
  const [ping, pong] = [unique('a::ping'), unique('b::pong')];
  a.registerFunction(ping, async (input, metadata) => ({
    from: 'a', metadata, answer: await a.trigger({ function_id: pong, payload: input, metadata: { hop: 2 } }),
  }));
  b.registerFunction(pong, async (input, metadata) => ({ from: 'b', input, metadata }));
  await Promise.all([settled(a), settled(b)]);
  const outcome = await b.trigger({ function_id: ping, payload: { n: 1 }, metadata: { hop: [1] } });
  const { _caller_worker_id: caller, ...input } = outcome.answer.input;
  assert.match(caller, UUID);
  assert.deepEqual({ ...outcome, answer: { ...outcome.answer, input } },
    { from: 'a', metadata: { hop: [1] }, answer: { from: 'b', input: { n: 1 }, metadata: { hop: 2 } } });
});

test('iii-sdk: values of every kind pass between workers; nothing stays nothing', async () => {
  const [a, b] = [server.sdk(), server.sdk()];
  const echo = unique('echo');
  a.registerFunction(echo, async (input) => input);
  await settled(a);
  for (const payload of [0, '', false, 'text', [1, [2]], 1.5]) {
    assert.deepEqual(await b.trigger({ function_id: echo, payload }), payload);
  }
  for (const payload of [null, undefined]) {
    assert.equal(await b.trigger({ function_id: echo, payload }) ?? null, null);
  }
});

test('iii-sdk: a thrown error arrives as invocation_failed with its message and stack', async () => {
  const [a, b] = [server.sdk(), server.sdk()];
  const id = unique('fn::throws');
  a.registerFunction(id, async () => { throw new Error('no bananas today'); });
  await settled(a);
  const error = await rejection(b.trigger({ function_id: id, payload: {} }));
  assert.equal(error.code, 'invocation_failed');
  assert.match(error.message, /no bananas today/);
  assert.match(error.stacktrace, /no bananas today\n\s+at /);
});

test('a forwarded call carries what it must and nothing else', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('fn::frame');
  const seen = new Record(server);
  owner.serve(id, (data, frame) => { seen.push(frame); return { result: 1 }; });
  await owner.settled();
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const answer = await caller.call(id, { k: 'v' }, { metadata: { m: 1 }, namespace: 'default', traceparent, baggage: 'a=b' });
  caller.void(id, [1]);
  const [full, bare] = await seen.count(2);
  assert.match(full.invocation_id, UUID);
  assert.deepEqual(full, { type: 'invokefunction', invocation_id: full.invocation_id, function_id: id, traceparent, baggage: 'a=b',
    metadata: { m: 1 }, data: { k: 'v', _caller_worker_id: caller.registered.worker_id } });
  assert.equal(answer.result, 1);
  assert.deepEqual([answer.traceparent, answer.baggage], [traceparent, 'a=b'], 'trace context comes back');
  assert.match(bare.invocation_id, UUID, 'an id is there even when nobody waits');
  assert.deepEqual(bare, { type: 'invokefunction', invocation_id: bare.invocation_id, function_id: id, data: [1] }, 'only objects get the extra key');
});

test('a worker\'s error is passed on unchanged', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('fn::error');
  const error = { code: 'shop::out_of_stock', message: 'nothing left 🦀', stacktrace: 'at shelf\nat shop' };
  owner.serve(id, () => ({ error }));
  await owner.settled();
  assert.deepEqual((await caller.call(id, {})).error, error);
});

test('"error": null is success', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('fn::null-error');
  owner.serve(id, () => ({ result: { ok: true }, error: null }));
  await owner.settled();
  const frame = await caller.call(id, {});
  assert.deepEqual([frame.result, frame.error ?? null], [{ ok: true }, null]);
});

test('numbers and key order pass through a worker untouched', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('fn::exact');
  const text = '{"z":18446744073709551615,"a":-9223372036854775808,"f":1.0}';
  const seen = deferred();
  owner.serve(id, (data, frame) => {
    seen.resolve(frame.text);
    owner.send(`{"type":"invocationresult","invocation_id":"${frame.invocation_id}","function_id":"${id}","result":${text}}`);
  });
  await owner.settled();
  const answer = await caller.callText(id, `[${text}]`);
  assert.ok((await seen.promise).includes(`[${text}]`), await seen.promise);
  assert.ok(answer.text.includes(`"result":${text}`), answer.text);
});

test('a second owner is refused with registrationrejected; the connection lives on', async () => {
  const [first, second] = [await server.peer(), await server.peer()];
  const id = unique('fn::taken');
  first.serve(id, () => ({ result: 'first' }));
  await first.settled();
  second.serve(id, () => ({ result: 'second' }));
  const refusal = await second.take((f) => f.type === 'registrationrejected', 'registrationrejected');
  assert.equal(refusal.code, 'FUNCTION_NAMESPACE_CONFLICT');
  assert.equal(refusal.function_id, id);
  assert.equal(refusal.owner_worker_id, first.registered.worker_id);
  assert.equal(refusal.namespace, 'default');
  assert.equal(await second.result(id, {}), 'first');
  second.send({ type: 'unregisterfunction', id });
  await second.settled();
  assert.equal(await second.result(id, {}), 'first', 'only the owner may unregister');
  first.send({ type: 'unregisterfunction', id });
  await first.settled();
  assert.equal((await second.call(id, {})).error.code, 'function_not_found');
  second.serve(id, () => ({ result: 'second' }));
  await second.settled();
  assert.equal(await first.result(id, {}), 'second', 'the id is free again');
});

test('registering twice on one connection is no conflict', async () => {
  const peer = await server.peer();
  const id = unique('fn::twice');
  peer.serve(id, () => ({ result: 1 }));
  peer.send({ type: 'registerfunction', id, description: 'again', metadata: { v: 2 } });
  assert.equal(await peer.result(id, {}), 1);
  await silence(peer, 'a repeated registration');
});

test('when the executing worker goes, its callers are told invocation_stopped', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('fn::never');
  const arrived = new Record(server);
  owner.serve(id, (data) => { arrived.push(data); });
  await owner.settled();
  const waiting = [caller.call(id, {}), caller.call(id, {})];
  await arrived.count(2);
  owner.ws.terminate();
  for (const frame of await Promise.all(waiting)) assert.equal(frame.error.code, 'invocation_stopped');
  assert.equal((await caller.call(id, {})).error.code, 'function_not_found', 'its functions are gone');
});

test('when the calling worker goes, the executing one is not disturbed', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('fn::late');
  const calls = new Record(server);
  owner.serve(id, (data, frame) => { calls.push(frame); });
  await owner.settled();
  caller.call(id, {}).catch(() => {}); // it will never be answered: that is the point
  const [call] = await calls.count(1);
  caller.ws.terminate();
  await caller.closed;
  owner.send({ type: 'invocationresult', invocation_id: call.invocation_id, function_id: id, result: 1 });
  await silence(owner, 'an answer nobody waits for');
});

test('reattach ends the old connection: functions free, waiting callers told', async () => {
  const [old, caller] = [await server.peer(), await server.peer()];
  const id = unique('fn::reattached');
  const arrived = new Record(server);
  old.serve(id, (data) => { arrived.push(data); });
  await old.settled();
  const waiting = caller.call(id, {});
  await arrived.count(1);
  const fresh = await server.peer();
  fresh.send({ type: 'reattach', previous_worker_id: old.registered.worker_id, reattach_token: old.registered.reattach_token });
  fresh.serve(id, () => ({ result: 'fresh' }));
  assert.equal((await waiting).error.code, 'invocation_stopped');
  await fresh.settled();
  assert.equal(await caller.result(id, {}), 'fresh');
  await server.within(old.closed, 'the old connection to end');
  await silence(fresh, 'no conflict was reported');
});

test('reattach with a wrong token, an unknown or its own id is ignored', async () => {
  const [old, fresh] = [await server.peer(), await server.peer()];
  const id = unique('fn::kept');
  old.serve(id, () => ({ result: 'old' }));
  await old.settled();
  fresh.send({ type: 'reattach', previous_worker_id: old.registered.worker_id, reattach_token: randomUUID() });
  fresh.send({ type: 'reattach', previous_worker_id: old.registered.worker_id });
  fresh.send({ type: 'reattach', previous_worker_id: old.registered.worker_id, reattach_token: fresh.registered.reattach_token });
  fresh.send({ type: 'reattach', previous_worker_id: randomUUID(), reattach_token: old.registered.reattach_token });
  fresh.send({ type: 'reattach', previous_worker_id: fresh.registered.worker_id, reattach_token: fresh.registered.reattach_token });
  fresh.send({ type: 'reattach', previous_worker_id: 'nonsense', reattach_token: 'x' });
  await silence(fresh, 'a reattach that does not fit');
  assert.equal(await fresh.result(id, {}), 'old');
});

test('iii-sdk: a worker whose connection breaks reconnects, reattaches and serves again', async () => {
  const worker = server.sdk({ reconnectionConfig: { initialDelayMs: 20, maxDelayMs: 50 } });
  const caller = server.sdk();
  const id = unique('fn::reconnecting');
  worker.registerFunction(id, async () => 'here');
  await settled(worker);
  assert.equal(await caller.trigger({ function_id: id, payload: {} }), 'here');
  worker.ws.terminate();
  // The call queues in the client until its new connection has registered everything.
  await settled(worker);
  assert.equal(await caller.trigger({ function_id: id, payload: {} }), 'here');
});

test('enqueue without a queue provider is enqueue_error and does not call', async () => {
  const peer = await server.peer();
  const at = item();
  const frame = await peer.call('stream::set', { ...at, data: 1 }, { action: { type: 'enqueue', queue: 'q' } });
  assert.equal(frame.error.code, 'enqueue_error');
  assert.match(frame.error.message, /queue/);
  assert.ok(!('result' in await peer.call('stream::get', at)));
});

test('a blank namespace is INVALID_NAMESPACE', async () => {
  const peer = await server.peer();
  for (const namespace of ['', '  ']) {
    assert.equal((await peer.call('stream::list_all', {}, { namespace })).error.code, 'INVALID_NAMESPACE');
  }
});

test('engine::workers::register asked for an answer says success, whatever the name', async () => {
  const [a, b] = [await server.peer(), await server.peer()];
  for (const peer of [a, b]) {
    assert.deepEqual(await peer.result('engine::workers::register', { name: 'same-name', runtime: 'node', version: '1', namespace: null, pid: 1 }), { success: true });
  }
  await silence(b, 'equal names are no conflict');
});

test('a close with 1000 is answered with 1000', async () => {
  const peer = await server.peer();
  assert.equal((await peer.close(1000)).code, 1000);
});
