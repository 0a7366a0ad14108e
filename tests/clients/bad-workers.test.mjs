// Workers and clients that flood, forge, fall silent or talk nonsense: bounded, answered, and never felt by anybody else.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, test } from 'node:test';
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises';
import { deferred, Record, startServer, unique } from './harness.mjs';

const MIB = 1024 * 1024;
const SUBSCRIPTIONS_MAX = 1_000;
const CALLS_MAX = 2_000;
const CALL_TIME_MAX_MS = 1_000;
const QUEUE_MAX = 2 * MIB;
let server;
let neighbour;
let listener;

before(async () => {
  server = await startServer({
    stream: { subscriptions_max: SUBSCRIPTIONS_MAX, messages_per_second_max: 1_000_000 },
    manager: { calls_in_flight_max: CALLS_MAX, invocation_timeout_ms: CALL_TIME_MAX_MS, queue_bytes_max: QUEUE_MAX },
  });
  neighbour = await server.peer();
  listener = await server.subscriber();
  await listener.join('neighbours', 'g');
});
after(() => server?.stop());

// After every test: the same process, and connections made before it still work in both directions.
afterEach(async () => {
  assert.ok(server.alive, 'the server is alive');
  await visit();
});

let visits = 0;
/** What a neighbour does: it binds and unbinds a trigger, writes, is answered, and a subscriber has the event. */
async function visit() {
  visits += 1;
  neighbour.send({ type: 'registertrigger', id: 'visit', trigger_type: 'stream', function_id: 'nobody', config: { stream_name: 'elsewhere' } });
  neighbour.send({ type: 'unregistertrigger', id: 'visit' });
  const written = await neighbour.result('stream::set', { stream_name: 'neighbours', group_id: 'g', item_id: 'i', data: visits });
  assert.equal(written.new_value, visits);
  assert.equal((await listener.next('the neighbour\'s event')).event.data, visits);
}

const VISIT_EVERY_MS = 5;
/** Does `work` while a neighbour visits again and again, and holds the server to what the neighbour felt. */
async function undisturbed(work) {
  const waits = [];
  let isDone = false;
  const visiting = (async () => {
    while (!isDone) {
      const begin = performance.now();
      await visit();
      waits.push(performance.now() - begin);
      await pause(VISIT_EVERY_MS); // a sample, not a load of its own
    }
  })();
  try {
    return await work();
  } finally {
    isDone = true;
    await visiting;
    waits.sort((a, b) => a - b);
    const [half, worst] = [waits[Math.floor(waits.length / 2)], waits.at(-1)].map(Math.round);
    // Of an unoptimised server and a client in this very process: a stall shows in seconds, not in milliseconds.
    const isUsual = waits.length < 20 || half < 100;
    assert.ok(isUsual && worst < 3_000, `${waits.length} visits took ${half} ms, at worst ${worst} ms`);
  }
}

const range = (n) => Array.from({ length: n }, (_, i) => i);

/** Sends `count` messages, some at a time: this process has neighbours to play, too. */
async function flood(socket, count, message) {
  for (let n = 0; n < count; n += 1) {
    socket.send(message(n));
    if (n % 200 === 199) await turn();
  }
}

/** Resident memory of the server in bytes. */
const resident = () => Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))[1]) * 1024;

/** Does `work` and holds the server to how much memory it took for it. */
async function within(bytes, work) {
  const begin = resident();
  const result = await work();
  const grown = resident() - begin;
  assert.ok(grown < bytes, `${Math.round(grown / MIB)} MiB more than before, allowed are ${bytes / MIB}`);
  return result;
}

const ping = async (socket) => {
  socket.send({ type: 'ping' });
  assert.equal((await socket.next('the pong')).type, 'pong', 'nothing else was said');
};

/** Closes a worker's connection and waits until the server has let go of what it had registered. */
async function leave(worker) {
  await worker.close();
  await gone(worker);
}

/** Waits until the server has dropped a worker. */
async function gone(worker) {
  const connected = async () => (await neighbour.result('engine::workers::list', {})).workers.map(({ id }) => id);
  while ((await connected()).includes(worker.registered.worker_id));
}

test('20,000 functions of one worker, and another one that wants them all', async () => {
  const [worker, rival] = [await server.peer(), await server.peer()];
  const prefix = unique('flood');
  const id = (n) => `${prefix}::${n}`;
  await undisturbed(() => within(100 * MIB, async () => {
    await flood(worker, 20_000, (n) => ({ type: 'registerfunction', id: id(n), description: 'one of many', metadata: { n } }));
    await worker.settled();
    await flood(rival, 20_000, (n) => ({ type: 'registerfunction', id: id(n) }));
    for (const _ of range(20_000)) assert.equal((await rival.next('a refusal')).type, 'registrationrejected');
  }));
  for (const n of [0, 9_999, 19_999]) {
    worker.serve(id(n), () => ({ result: n }));
    assert.equal(await rival.result(id(n), {}), n);
  }
  const { functions } = await rival.result('engine::functions::list', { prefix });
  assert.equal(functions.length, 20_000);
  await undisturbed(() => worker.close());
  // The server may hear of the closed connection a moment after the client has.
  let left;
  do left = (await rival.result('engine::functions::list', { prefix })).functions; while (left.length > 0 && left.length < 20_000);
  assert.equal((await rival.call(id(7), {})).error.code, 'function_not_found');
});

test('a worker that wants everything another one has does not cost it its connection', async () => {
  const [owner, rival] = [await server.peer(), await server.peer()];
  const id = (n) => `wanted::${n}`;
  for (const n of range(2_000)) owner.serve(id(n), () => ({ result: 'owner' }));
  await owner.settled();
  for (const n of range(2_000)) rival.send({ type: 'registerfunction', id: id(n) });
  await rival.settled();
  for (const _ of range(2_000)) assert.equal((await rival.next('a refusal')).owner_worker_id, owner.registered.worker_id);
  for (const n of [0, 1_999]) assert.equal(await rival.result(id(n), {}), 'owner');
  assert.deepEqual(rival.frames, []);
  await leave(owner);
});

test('20,000 bindings to functions that do not exist', async () => {
  const [worker, asking] = [await server.peer(), await server.peer()];
  const stream_name = unique('bound');
  const function_id = unique('nobody');
  const subscriber = await server.subscriber();
  await subscriber.join(stream_name, 'g');
  await undisturbed(() => within(150 * MIB, async () => {
    await flood(worker, 20_000, (n) => ({ type: 'registertrigger', id: `${function_id}-${n}`, trigger_type: 'stream', function_id, config: { stream_name } }));
    await worker.settled();
    // All of them fire, and fail; the subscriber waits for none of them.
    assert.equal((await asking.result('stream::set', { stream_name, group_id: 'g', item_id: 'i', data: 1 })).new_value, 1);
    assert.equal((await subscriber.next()).event.data, 1);
  }));
  await ping(worker);
  const bound = async () => (await asking.result('engine::registered-triggers::list', { function_id })).registered_triggers.length;
  assert.equal(await bound(), 20_000);
  await undisturbed(async () => {
    await worker.close();
    while (await bound() > 0); // all at once, a moment after the close
  });
});

test('100,000 joins on one socket', async () => {
  const subscriber = await server.subscriber();
  const stream_name = unique('joined');
  const told = { sync: 0, unauthorized: 0 };
  await undisturbed(() => within(64 * MIB, async () => {
    for (const round of range(200)) {
      await flood(subscriber, 500, (n) => ({ type: 'join', data: { subscriptionId: `${round}-${n}`, streamName: stream_name, groupId: `g${n % 50}` } }));
      for (const _ of range(500)) told[(await subscriber.next()).event.type] += 1;
    }
  }));
  assert.deepEqual(told, { sync: SUBSCRIPTIONS_MAX, unauthorized: 100_000 - SUBSCRIPTIONS_MAX });
  await neighbour.result('stream::set', { stream_name, group_id: 'g7', item_id: 'i', data: 'once' });
  assert.equal((await subscriber.next()).event.data, 'once');
  assert.equal(await subscriber.ping('alive'), 'alive');
  assert.deepEqual(subscriber.frames, [], 'one event, however many subscriptions');
});

test('forged results: of others\' calls, of none, and of one\'s own twice', async () => {
  const [owner, forger, caller] = await Promise.all(range(3).map(() => server.peer()));
  const id = unique('fn');
  const asked = new Record(server);
  owner.serve(id, (data, frame) => { asked.push(frame.invocation_id); });
  await owner.settled();
  const forge = (invocation_id, worker = forger) => {
    worker.send({ type: 'invocationresult', invocation_id, function_id: id, result: 'forged' });
    worker.send({ type: 'invocationresult', invocation_id, function_id: id, error: { code: 'forged', message: 'forged' } });
  };
  const callers = [randomUUID(), randomUUID()];
  const answers = callers.map((invocation_id) => caller.call(id, {}, { invocation_id }));
  const [first, second] = await asked.count(2);
  // What a forger may know or guess: both ends' ids, ids in a row, ids of another variant, ids that are none.
  const next = first.replace(/.$/, (digit) => ((parseInt(digit, 16) + 4) % 16).toString(16));
  const guesses = [first, second, ...callers, next, first.toUpperCase(), randomUUID(), 'nonsense', '', '0'];
  for (const guess of guesses) forge(guess);
  for (const guess of [...callers, next, randomUUID(), 'nonsense', '']) forge(guess, owner);
  await ping(forger);
  await ping(owner);
  await ping(caller);
  for (const [n, invocation_id] of [[1, second], [0, first]]) {
    owner.send({ type: 'invocationresult', invocation_id, function_id: 'not looked at', result: n });
    forge(invocation_id, owner); // once more, and otherwise: the first answer counts
  }
  assert.deepEqual((await Promise.all(answers)).map(({ result, error }) => [result, error]), [[0, undefined], [1, undefined]]);
  await ping(owner);
  await ping(caller);
});

test('10,000 results that nobody asked for', async () => {
  const worker = await server.peer();
  await undisturbed(() => within(32 * MIB, async () => {
    await flood(worker, 10_000, () => ({ type: 'invocationresult', invocation_id: randomUUID(), function_id: 'f', result: 'x'.repeat(1_000) }));
    await ping(worker);
  }));
});

test('a registration that is taken back while its owner is asked for a sign of life stays taken back', async () => {
  const [dead, fickle] = [await server.peer(), await server.peer()];
  const id = unique('fickle');
  dead.serve(id, () => ({ result: 'dead' }));
  await dead.settled();
  dead.ws.pause();
  fickle.send({ type: 'registerfunction', id });
  fickle.send({ type: 'unregisterfunction', id });
  await fickle.settled();
  // Once the dead one is gone the function would be the other's.
  await gone(dead);
  for (const _ of range(5)) await fickle.settled();
  assert.deepEqual((await neighbour.result('engine::functions::list', { prefix: id })).functions, []);
});

test('one invocation id for two calls at a time: both are answered', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const [id, invocation_id] = [unique('fn'), randomUUID()];
  owner.serve(id, (data) => ({ result: data }));
  await owner.settled();
  for (const data of [1, 2]) caller.send({ type: 'invokefunction', invocation_id, function_id: id, data });
  const answers = [await caller.next(), await caller.next()];
  assert.deepEqual(answers.map((answer) => [answer.invocation_id, answer.result]), [[invocation_id, 1], [invocation_id, 2]]);
});

test('a worker that never answers: its callers are told, their places are free again, its late results are dropped', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('never');
  const asked = new Record(server);
  owner.serve(id, (data, frame) => { asked.push(frame.invocation_id); });
  await owner.settled();
  await undisturbed(() => within(64 * MIB, async () => {
    const answers = range(CALLS_MAX).map((n) => caller.call(id, n));
    assert.equal((await caller.call(id, 'one more')).error.code, 'too_many_calls');
    const codes = new Set((await Promise.all(answers)).map(({ error }) => error?.code));
    assert.deepEqual([...codes], ['invocation_timeout']);
  }));
  for (const invocation_id of asked.items) owner.send({ type: 'invocationresult', invocation_id, function_id: id, result: 'late' });
  owner.serve(id, () => ({ result: 'at last' }));
  await ping(owner);
  assert.deepEqual(await Promise.all(range(CALLS_MAX).map(() => caller.result(id, {}))), range(CALLS_MAX).map(() => 'at last'));
  assert.deepEqual(caller.frames, [], 'nothing is answered twice');
});

test('a worker that never stops talking keeps its callers waiting no longer than others', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('busy');
  owner.serve(id, () => undefined);
  await owner.settled();
  // Always more than the server has read, past the WebSocket library, which would not be quick enough.
  const text = Buffer.from('{"type":"pong"}');
  const frames = Buffer.concat(Array(5_000).fill(Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text])));
  const socket = owner.ws._socket;
  let isAnswered = false;
  const talk = () => {
    if (!isAnswered) socket.write(frames) ? setImmediate(talk) : socket.once('drain', talk);
  };
  const begin = performance.now();
  const answer = caller.call(id, {});
  talk();
  const over = setTimeout(() => { isAnswered = true; }, 4 * CALL_TIME_MAX_MS); // long enough to tell it from being on time
  assert.equal((await answer).error.code, 'invocation_timeout');
  clearTimeout(over);
  isAnswered = true;
  const took = performance.now() - begin;
  assert.ok(took < 3 * CALL_TIME_MAX_MS, `answered after ${took} ms`);
  await leave(owner);
});

test('results for callers that have gone', async () => {
  const owner = await server.peer();
  const id = unique('slow');
  const asked = new Record(server);
  owner.serve(id, (data, frame) => { asked.push(frame.invocation_id); });
  await owner.settled();
  const callers = await Promise.all(range(50).map(() => server.peer()));
  for (const caller of callers) caller.call(id, {}).catch(() => {}); // it goes before its answer comes: that is the point
  await asked.count(50);
  for (const caller of callers) caller.ws.terminate();
  await Promise.all(callers.map((caller) => caller.closed));
  for (const invocation_id of asked.items) owner.send({ type: 'invocationresult', invocation_id, function_id: id, result: 1 });
  await ping(owner);
});

test('a worker that stops reading while it is called: bounded, closed with 4008, its callers told', async () => {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const id = unique('deaf');
  owner.serve(id, () => ({ result: 'heard' }));
  await owner.settled();
  owner.ws.pause();
  const pad = 'x'.repeat(64 * 1024);
  const codes = new Map();
  const answers = [];
  const isOver = deferred();
  // Beside the bound, as much as the kernel's buffers take waits: calls go on until the first one is answered.
  await undisturbed(() => within(32 * MIB, async () => {
    let isTold = false;
    while (!isTold && answers.length < CALLS_MAX / 2) {
      answers.push(caller.call(id, { pad }).then((answer) => {
        isTold = true;
        codes.set(answer.error?.code, (codes.get(answer.error?.code) ?? 0) + 1);
        isOver.resolve();
      }));
      await turn();
    }
    await server.within(isOver.promise, 'a caller to be told');
  }));
  owner.ws.resume();
  assert.equal((await server.within(owner.closed, 'the close')).code, 4008);
  await Promise.all(answers);
  for (const code of codes.keys()) assert.match(code, /^(invocation_stopped|channel_send_failed|function_not_found)$/);
  assert.ok(codes.has('invocation_stopped'), `${[...codes]}`);
  assert.equal((await caller.call(id, {})).error.code, 'function_not_found', 'it is gone');
});

test('oversized names, descriptions and metadata', async () => {
  const [worker, other] = [await server.peer(), await server.peer()];
  const [name, large] = ['n'.repeat(MIB / 4), { text: 'm'.repeat(2 * MIB) }];
  await undisturbed(async () => {
    worker.serve(name, () => ({ result: 'long' }));
    worker.send({ type: 'registerfunction', id: 'large', description: name, metadata: large, request_format: large, response_format: large });
    worker.serve('large', () => ({ result: 'large' }));
    worker.send({ type: 'registertrigger', id: name, trigger_type: name, function_id: name, config: large, metadata: large });
    worker.send({ type: 'registertriggertype', id: `${name}!`, description: name, trigger_request_format: large });
    await worker.result('engine::workers::register', { name: `\u202e${name}`, description: name, runtime: name, version: name });
    assert.deepEqual([await other.result(name, {}), await other.result('large', {})], ['long', 'large']);
  });
  const { workers } = await other.result('engine::workers::list', {});
  const shown = workers.find(({ id }) => id === worker.registered.worker_id);
  assert.deepEqual([shown.name, shown.description], ['n'.repeat(280), 'n'.repeat(280)], 'people are shown what fits a line');
  // Names of streams have a bound of their own, and a trigger type that nobody provides waits for one.
  for (const where of ['stream_name', 'group_id', 'item_id']) {
    const answer = await other.call('stream::set', { stream_name: 's', group_id: 'g', item_id: 'i', data: 1, [where]: name });
    assert.equal(answer.error?.code, 'invalid_name', where);
  }
  assert.equal((await other.call('no'.repeat(MIB), {})).error.code, 'function_not_found');
  await ping(worker);
  await worker.close();
  let answer;
  do answer = await other.call(name, {}); while (answer.error.code === 'invocation_stopped' || answer.error.code === 'channel_send_failed');
  assert.equal(answer.error.code, 'function_not_found', 'it went with its worker');
});

// ---- nonsense: every field of every message with every kind of value

const NONSENSE = [undefined, null, true, 0, -1, 1.5, 1e300, '', ' ', 'x', '\0', '🦀'.repeat(300), [], [[]], [null], {}, { type: 7 }, { type: 'x' }, { code: 1 }, { a: { b: [] } }];

/** Every message of the worker port, well-formed; those of the server too, as a worker should not send them. */
const MESSAGES = {
  invokefunction: { function_id: 'stream::list_all', data: {}, action: null, metadata: null, namespace: 'default', traceparent: 't', baggage: 'b' },
  invocationresult: { invocation_id: 'x', function_id: 'f', result: 1, error: null, traceparent: 't', baggage: 'b' },
  registerfunction: { id: 'nonsense::f', description: 'd', metadata: {}, request_format: {}, response_format: {}, invocation: null, namespace: 'default' },
  unregisterfunction: { id: 'nonsense::f' },
  registertrigger: { id: 'nonsense', trigger_type: 'nonsense:type', function_id: 'f', config: {}, metadata: {}, namespace: 'default', trigger_namespace: 'default', message_type: 'm' },
  unregistertrigger: { id: 'nonsense', trigger_type: 'stream' },
  registertriggertype: { id: 'nonsense:other', description: 'd', trigger_request_format: {}, call_request_format: {} },
  unregistertriggertype: { id: 'nonsense:other' },
  triggerregistrationresult: { id: 'nonsense', trigger_type: 'stream', function_id: 'f', error: { code: 'c', message: 'm' } },
  registerservice: { id: 's', name: 'n', description: 'd' },
  reattach: { previous_worker_id: randomUUID(), reattach_token: randomUUID() },
  registrationrejected: { code: 'c', namespace: 'n', function_id: 'f', owner_worker_id: 'w' },
  workerregistered: { worker_id: 'w', reattach_token: 't', features: [] },
  error: { code: 'c', message: 'm' },
  ping: { payload: 1 },
  pong: { payload: 1 },
  observe: { source: 's' },
};

for (const [type, fields] of Object.entries(MESSAGES)) {
  test(`nonsense in every field of ${type}`, async () => {
    const worker = await server.peer();
    for (const field of Object.keys(fields)) {
      for (const value of NONSENSE) {
        worker.send({ type, ...fields, [field]: value, ...(type === 'invokefunction' && { action: { type: 'void' } }) });
        worker.send({ type, ...fields, [field]: value });
      }
    }
    for (const value of NONSENSE) worker.send({ ...fields, type: value });
    for (const value of NONSENSE) worker.send(JSON.stringify(value) ?? 'undefined');
    // What it may be told is that a trigger was refused, pongs, and what its own calls without an id never are: nothing.
    worker.send({ type: 'invokefunction', invocation_id: randomUUID(), function_id: 'stream::list_all', data: {} });
    const told = [];
    do told.push((await worker.next('the answer of the last call')).type); while (told.at(-1) !== 'invocationresult');
    const allowed = { registertrigger: 'triggerregistrationresult', ping: 'pong' }[type];
    assert.deepEqual([...new Set(told.slice(0, -1))].filter((kind) => kind !== allowed), []);
    await ping(worker);
    await leave(worker);
  });
}

/** What a wrong value of these fields is answered with. */
const REFUSED = { function_id: /^(deserialization_error|function_not_found)$/, action: /^deserialization_error$/, namespace: /^(deserialization_error|INVALID_NAMESPACE)$/ };

test('a call with nonsense in any field is answered exactly once', async () => {
  const worker = await server.peer();
  const good = { type: 'invokefunction', ...MESSAGES.invokefunction };
  for (const field of Object.keys(MESSAGES.invokefunction)) {
    for (const value of NONSENSE) {
      const what = `${field}: ${JSON.stringify(value)}`;
      const invocation_id = randomUUID();
      worker.send({ ...good, invocation_id, [field]: value });
      const answer = await worker.next(`the answer to ${what}`);
      assert.equal(answer.invocation_id, invocation_id, what);
      assert.ok(answer.result !== undefined || typeof answer.error.code === 'string', answer.text);
      const isAbsent = value === undefined || value === null;
      if (field === 'function_id') assert.match(answer.error?.code, REFUSED.function_id, what);
      else if (field in REFUSED && !isAbsent && (field === 'action' || typeof value !== 'string' || value.trim() === '')) assert.match(answer.error?.code, REFUSED[field], what);
      else if (field === 'metadata' || isAbsent) assert.ok(answer.result, `${what}: ${answer.text}`);
    }
  }
  // An id that is no string is none: there is nobody to answer.
  for (const invocation_id of NONSENSE.filter((value) => typeof value !== 'string')) worker.send({ ...good, invocation_id });
  await ping(worker);
});

/** The input fields of the functions that the server brings, each with a right value. */
const ITEM = { stream_name: 'nonsense', group_id: 'g', item_id: 'i' };
const STATE = { scope: 'nonsense', key: 'k' };
const FUNCTIONS = {
  'stream::set': { ...ITEM, data: 1, if: { exists: true }, mutation: { client: 'c', seq: 1 }, returning: 'both', ttl_ms: 60_000 },
  'stream::get': { ...ITEM, meta: true },
  'stream::delete': { ...ITEM, if: { exists: true }, mutation: { client: 'c', seq: 1 }, returning: 'none' },
  'stream::update': { ...ITEM, ops: [{ type: 'set', path: 'a', value: 1 }], atomic: true, if: { seq: 1 }, returning: 'new', ttl_ms: 60_000 },
  'stream::list': { ...ITEM, meta: true },
  'stream::list_groups': { stream_name: 'nonsense' },
  'stream::list_all': { extra: 1 },
  'stream::send': { ...ITEM, id: 'i', type: 't', data: 1 },
  'state::set': { ...STATE, value: 1, data: 1 },
  'state::get': STATE,
  'state::delete': STATE,
  'state::update': { ...STATE, ops: [] },
  'state::list': STATE,
  'state::list_groups': { extra: 1 },
  'engine::workers::register': { name: 'n', description: 'd', runtime: 'r', version: 'v', os: 'o', isolation: 'i', namespace: 'default', pid: 1, telemetry: {}, features: [] },
  'engine::functions::list': { search: 's', prefix: 'p', worker: 'w', workers: ['w'], include_internal: true },
  'engine::functions::info': { function_id: 'stream::set', function_ids: ['stream::set'], namespace: 'default' },
  'engine::workers::list': { search: 's', runtime: 'r', status: 'connected' },
  'engine::workers::info': { name: 'iii-stream', namespace: 'default' },
  'engine::triggers::list': { search: 's', prefix: 'p', worker: 'w', include_internal: true },
  'engine::triggers::info': { id: 'stream', namespace: 'default' },
  'engine::registered-triggers::list': { search: 's', trigger_type: 't', function_id: 'f', worker: 'w', include_internal: true },
  'engine::registered-triggers::info': { id: 'x' },
  'engine::register_trigger': { trigger_type: 'nonsense', function_id: 'f', config: {}, metadata: {}, trigger_namespace: 'default' },
  'engine::unregister_trigger': { id: 'x', trigger_type: 't' },
  'engine::channels::create': { buffer_size: 1 },
};
const CODES = /^(deserialization_error|invalid_name|precondition_failed|mutation_gap|mutation_unknown|too_many_ops|NOT_FOUND|trigger_registration_failed)$/;

test('nonsense in every input field of the server\'s functions is answered', async () => {
  const worker = await server.peer();
  const known = (await worker.result('engine::functions::list', { include_internal: true })).functions;
  const own = known.filter(({ worker_name }) => ['stream', 'state', 'engine'].includes(worker_name)).map(({ function_id }) => function_id);
  assert.deepEqual(own.filter((id) => !(id in FUNCTIONS)), [], 'every function is in the table');
  let refused = 0;
  for (const [id, input] of Object.entries(FUNCTIONS)) {
    const inputs = [...Object.keys(input).flatMap((field) => NONSENSE.map((value) => ({ ...input, [field]: value }))), ...NONSENSE];
    const answers = await Promise.all(inputs.map((data) => worker.call(id, data)));
    answers.forEach(({ error, text }, n) => {
      if (error) assert.match(error.code, CODES, `${id} ${JSON.stringify(inputs[n])}: ${text}`);
      refused += error ? 1 : 0;
    });
    // Whatever is no object is refused, but nothing at all may stand for `{}`.
    for (const data of [7, 'x', [], true]) assert.equal((await worker.call(id, data)).error?.code, 'deserialization_error', `${id} ${JSON.stringify(data)}`);
  }
  assert.ok(refused > 500, `${refused} of them were refused`);
  await worker.result('engine::workers::register', {});
  for (const { id } of (await worker.result('engine::registered-triggers::list', { trigger_type: 'nonsense' })).registered_triggers) {
    assert.deepEqual(await worker.result('engine::unregister_trigger', { id }), { removed: true });
  }
});
