// A stop: in which order, how evenly, what is still done meanwhile, and who cannot hold it up (docs/operations.md, "Stopping").
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { after, test } from 'node:test';
import { deferred, Record, rejection, startServer, unique, within } from './harness.mjs';

const servers = [];
after(() => Promise.all(servers.map((server) => server.terminate().catch(() => {}))));

async function own(config) {
  const server = await startServer(config);
  servers.push(server);
  return server;
}

const range = (n) => Array.from({ length: n }, (_, i) => i);
const elapsed = (since) => Math.round(performance.now() - since);

/** Begins a stop and resolves when it has begun. The end is expected with 0. */
async function beginStop(server) {
  const since = performance.now();
  server.signal('SIGTERM');
  const begun = async () => {
    const { status, body } = await server.page('/ready');
    if (status !== 503) return begun();
    assert.deepEqual(JSON.parse(body), { ready: false, reason: 'draining' });
  };
  return { since, begun };
}

async function endsWith(server, code) {
  assert.deepEqual(await server.ended(), { code, signal: null }, server.log);
}

/** A function on a worker of its own that answers when it is told to. */
async function held(server, id = unique('held')) {
  const [owner, caller] = [await server.peer(), await server.peer()];
  const asked = deferred();
  owner.serve(id, (data, frame) => { asked.resolve(frame.invocation_id); });
  await owner.settled();
  const answer = caller.call(id, {});
  answer.catch(() => {}); // not every test waits for it
  const invocation_id = await server.within(asked.promise, 'the call');
  return { owner, caller, answer, release: (result) => owner.send({ type: 'invocationresult', invocation_id, function_id: id, result }) };
}

/** When each subscriber was closed, after `since`, and that it was by 1001. */
function closes(subscribers, since) {
  return Promise.all(subscribers.map(async (subscriber) => {
    const { code } = await within(subscriber.closed, 'a close', { server: subscriber.server });
    assert.equal(code, 1001);
    return elapsed(since);
  }));
}

test('subscribers are closed one after another, calls in flight are answered, nobody new comes in', async () => {
  const server = await own({ stream: { drain_window_ms: 2_000 } });
  const subscribers = await Promise.all(range(200).map(() => server.subscriber()));
  await Promise.all(subscribers.map((subscriber) => subscriber.join('drain', 'g')));
  const { owner, caller, answer, release } = await held(server);
  assert.equal((await server.page('/ready')).status, 200);

  const { since, begun } = await beginStop(server);
  const times = (await closes(subscribers, since)).sort((a, b) => a - b);
  // One per millisecond: the window is there for thousands.
  const span = times.at(-1) - times[0];
  assert.ok(span >= 50 && span < 1_500, `${span} ms from the first to the last`);
  const middle = times[100] - times[0];
  assert.ok(middle > span * 0.2 && middle < span * 0.8, `half of them within ${middle} of ${span} ms`);

  await begun();
  for (const base of [server.workers, server.subscribers]) await rejection(server.socket(base, '/'), 'a connection during the stop');
  assert.equal((await server.page('/health')).status, 200);
  assert.equal((await server.metrics()).iii_stream_draining, 1);
  // The call is still out, and workers can still do everything.
  assert.deepEqual(await caller.result('stream::list_all', {}), { stream: [], count: 0 });
  release({ all: 'well' });
  assert.deepEqual((await answer).result, { all: 'well' });
  for (const worker of [owner, caller]) assert.equal((await server.within(worker.closed, 'the close of a worker')).code, 1012);
  await endsWith(server, 0);
});

test('the window bounds how long it takes, and a window of 0 closes all at once', async () => {
  for (const [drain_window_ms, least, most] of [[150, 75, 1_500], [0, 0, 1_000]]) {
    const server = await own({ stream: { drain_window_ms } });
    const subscribers = await Promise.all(range(300).map(() => server.subscriber()));
    const { since } = await beginStop(server);
    const times = (await closes(subscribers, since)).sort((a, b) => a - b);
    const span = times.at(-1) - times[0];
    assert.ok(least <= span && span < most, `${span} ms with a window of ${drain_window_ms}`);
    await endsWith(server, 0);
  }
});

test('a few subscribers are closed at once, whatever the window', async () => {
  const server = await own({ stream: { drain_window_ms: 60_000 } });
  const subscribers = [await server.subscriber(), await server.subscriber()];
  const { since } = await beginStop(server);
  await closes(subscribers, since);
  await endsWith(server, 0);
  assert.ok(elapsed(since) < 2_000, `${elapsed(since)} ms`);
});

test('a broadcast during a stop reaches everybody in order and without a gap, until the close', async () => {
  const server = await own();
  const at = { stream_name: 'drain', group_id: 'live', item_id: 'i' };
  const subscribers = await Promise.all(range(300).map(() => server.subscriber()));
  await Promise.all(subscribers.map((subscriber) => subscriber.join(at.stream_name, at.group_id)));
  const writer = await server.peer();
  let written = 0;
  let isOpen = true;
  const closed = writer.closed.then(() => { isOpen = false; });
  const write = async () => {
    while (isOpen) {
      // The answer to the last one may be lost with the connection.
      const answered = await Promise.race([writer.result('stream::set', { ...at, data: written + 1 }).then(() => true), closed]).catch(() => false);
      if (answered) written += 1;
    }
  };
  const writing = write();
  await Promise.all(subscribers.map((subscriber) => subscriber.take((f) => f.seq === 5, 'the fifth event')));
  const { since } = await beginStop(server);
  await closes(subscribers, since);
  await writing;
  await endsWith(server, 0);
  const lasts = subscribers.map((subscriber) => {
    const seqs = subscriber.frames.map((frame) => frame.seq);
    // The fifth was taken out to wait for it.
    const seen = [...seqs.slice(0, 4), 5, ...seqs.slice(4)];
    assert.deepEqual(seen, range(seen.length).map((n) => n + 1));
    return seen.length;
  });
  assert.ok(Math.max(...lasts) > Math.min(...lasts), 'those closed later saw more');
  assert.ok(Math.max(...lasts) <= written + 1, `${Math.max(...lasts)} seen, ${written} acknowledged`);
});

test('all leaves are told before workers are closed', async () => {
  const server = await own();
  const listener = await server.peer();
  const left = new Record(server);
  listener.serve('on::leave', ({ subscription_id }) => { left.push(subscription_id); return { result: {} }; });
  listener.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream:leave', function_id: 'on::leave', config: { stream_name: 'drain' } });
  await listener.settled();
  const subscribers = await Promise.all(range(50).map(() => server.subscriber()));
  await Promise.all(subscribers.map((subscriber, n) => subscriber.join('drain', 'g', undefined, `s${n}`)));
  await beginStop(server);
  assert.equal((await server.within(listener.closed, 'the close of the worker')).code, 1012);
  assert.deepEqual([...left.items].sort(), range(50).map((n) => `s${n}`).sort());
  await endsWith(server, 0);
});

test('one who is still being asked about when the stop begins is answered 503', async () => {
  const server = await own({ stream: { auth_function: 'my::auth' } });
  const owner = await server.peer();
  const asked = deferred();
  owner.serve('my::auth', (data, frame) => { asked.resolve(frame.invocation_id); });
  await owner.settled();
  const connecting = rejection(server.subscriber(), 'a connection that comes too late');
  const invocation_id = await server.within(asked.promise, 'the auth function to be asked');
  const { begun } = await beginStop(server);
  await begun();
  owner.send({ type: 'invocationresult', invocation_id, function_id: 'my::auth', result: { context: {} } });
  const { status, headers } = await connecting;
  assert.deepEqual([status, headers['retry-after']], [503, '2']);
  await endsWith(server, 0);
});

/** A connection by raw TCP that is upgraded and answers nothing from then on; it reads on unless `isDeaf`. */
async function rude(server, base, text, isDeaf) {
  const { hostname, port } = new URL(base);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {}); // being reset is one way to be cut off
  const opened = deferred();
  socket.once('data', () => {
    if (isDeaf) socket.pause();
    opened.resolve();
  });
  socket.on('data', () => {});
  socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n');
  await server.within(opened.promise, 'the upgrade');
  const body = Buffer.from(text);
  const head = Buffer.from([0x81, 0x80 | 126, 0, 0, 0, 0, 0, 0]); // a mask of zeros
  head.writeUInt16BE(body.length, 2);
  socket.write(Buffer.concat([head, body]));
  return socket;
}

/** What a peer that answers no close costs a stop: at most three seconds beyond the window. */
async function stopsInTime(isDeaf, fill) {
  const server = await own({ stream: { drain_window_ms: 100, queue_bytes_max: 64 * 1024 * 1024 } });
  const listener = await server.peer();
  const left = new Record(server);
  listener.serve('on::leave', ({ subscription_id }) => { left.push(subscription_id); return { result: {} }; });
  listener.send({ type: 'registertrigger', id: randomUUID(), trigger_type: 'stream:leave', function_id: 'on::leave', config: { stream_name: 'drain' } });
  await listener.settled();
  const join = JSON.stringify({ type: 'join', data: { subscriptionId: 'rude', streamName: 'drain', groupId: 'g' } });
  const polite = await server.subscriber();
  await polite.join('drain', 'g');
  const sockets = [await rude(server, server.subscribers, join, isDeaf), await rude(server, server.workers, JSON.stringify({ type: 'ping' }), isDeaf)];
  await fill(listener, polite);
  const { since } = await beginStop(server);
  await closes([polite], since);
  assert.equal((await server.within(listener.closed, 'the close of the worker')).code, 1012);
  await endsWith(server, 0);
  const took = elapsed(since);
  for (const socket of sockets) socket.destroy();
  assert.ok(took < 100 + 3_000, `it took ${took} ms`);
  assert.ok(left.items.includes('rude'), 'its leave was told all the same');
}

test('peers that never answer a close are cut off', () => stopsInTime(false, async () => {}));

test('peers that read nothing, with much waiting for them, are cut off', () => stopsInTime(true, async (worker, polite) => {
  const text = 'x'.repeat(64 * 1024);
  for (const n of range(300)) {
    worker.void('stream::set', { stream_name: 'drain', group_id: 'g', item_id: 'i', data: { n, text } });
    if (n % 30 === 29) await polite.take((f) => f.event?.data?.n === n, `event ${n}`);
  }
}));

test('a second signal ends at once', async () => {
  for (const [first, second, code] of [['SIGTERM', 'SIGTERM', 143], ['SIGINT', 'SIGINT', 130], ['SIGTERM', 'SIGINT', 130]]) {
    const server = await own();
    await held(server);
    const since = performance.now();
    server.signal(first);
    const begun = async () => ((await server.page('/ready')).status === 503 ? undefined : begun());
    await begun();
    server.signal(second);
    await endsWith(server, code);
    assert.ok(elapsed(since) < 2_000, `${elapsed(since)} ms`);
    assert.match(server.log, /second signal/);
  }
});

test('a call that nobody answers holds a stop up for six seconds and no longer', async () => {
  const server = await own();
  await held(server);
  const { since } = await beginStop(server);
  await endsWith(server, 0);
  const took = elapsed(since);
  assert.ok(took >= 5_900 && took < 8_000, `${took} ms`);
  assert.match(server.log, /without waiting longer until workers answer/);
});
