// Peers and networks at their worst: slow, gone, rude, too many. Others never feel it, memory is bounded, and afterwards nothing is left.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { deferred, Record, startServer } from './harness.mjs';
import { atRest, CLOSE, closing, frame, idle, metricsWhen, PING, PONG, range, RawSocket, Tcp, TEXT } from './raw.mjs';

const servers = [];
after(() => Promise.all(servers.map((server) => server.stop())));

async function own(config) {
  const server = await startServer(config);
  servers.push(server);
  return server;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const AT = { stream_name: 'faults', group_id: 'g', item_id: 'i' };
const join = (groupId = 'g', subscriptionId = 's') => ({ type: 'join', data: { subscriptionId, streamName: 'faults', groupId } });
const leave = (groupId = 'g', subscriptionId = 's') => ({ type: 'leave', data: { subscriptionId, streamName: 'faults', groupId } });
const bind = (worker, trigger_type, function_id, config = {}) => worker.send({ type: 'registertrigger', id: randomUUID(), trigger_type, function_id, config });
const set = (peer, data, at = AT) => peer.result('stream::set', { ...at, data, returning: 'none' });

/** A raw subscriber of the group, after its sync. */
async function joined(server, groupId) {
  const raw = await RawSocket.connect(server, server.subscribers);
  raw.send(join(groupId));
  assert.equal((await raw.message('the sync')).event.type, 'sync');
  return raw;
}

/** The leave triggers of a server, by subscription. */
async function leaves(server, peer) {
  const left = new Record(server);
  peer.serve('on::leave', ({ subscription_id }) => { left.push(subscription_id); return { result: {} }; });
  bind(peer, 'stream:leave', 'on::leave');
  await peer.settled();
  return left;
}

test('who reads one byte at a time is left alone while it reads, and costs no more than its bound', async () => {
  const QUEUE = 64 * KIB;
  const server = await own({ stream: { queue_bytes_max: QUEUE, blocked_timeout_ms: 1_500 } });
  const [peer, quick] = [await server.peer(), await server.subscriber()];
  await quick.join('faults', 'g');
  const left = await leaves(server, peer);
  const slow = await joined(server);
  slow.pause();
  const text = 'x'.repeat(60_000);
  let most = 0;
  // A byte from time to time moves no window: it is as if it took nothing.
  const sips = setInterval(() => slow.tcp.socket.read(1), 100);
  try {
    for (const n of range(200)) {
      await set(peer, { n, text });
      assert.equal((await quick.next()).event.data.n, n);
      if (n % 10 === 0) most = Math.max(most, (await server.metrics()).iii_stream_subscriber_queue_bytes);
    }
    assert.ok(most > 0 && most <= 2 * (QUEUE + 61_000), `${most} bytes waited`);
    assert.deepEqual(await left.count(1), ['s']);
    const metrics = await metricsWhen(server, (m) => m['iii_stream_connections{port="subscribers"}'] === 1, 'the slow one to be gone');
    assert.equal(metrics['iii_stream_slow_consumer_closed_total{reason="blocked"}'], 1);
  } finally {
    clearInterval(sips);
  }
  slow.tcp.destroy();
  await quick.close();
  await atRest(server, { workers: 1 });
});

test('a peer that disappears without a word, with events on their way to it, is found out', async () => {
  const server = await own({ stream: { ping_interval_ms: 100, idle_timeout_ms: 800 } });
  const [peer, listener] = [await server.peer(), await server.subscriber()];
  const left = await leaves(server, peer);
  await listener.join('faults', 'g', undefined, 'listener');
  const gone = await Promise.all(range(20).map(() => joined(server)));
  // Nothing is read and nothing is answered from here on, as if the cable were cut.
  for (const raw of gone) raw.pause();
  const begun = performance.now();
  let n = 0;
  while (left.items.length < 20) {
    await set(peer, { n, text: 'x'.repeat(10_000) });
    assert.equal((await listener.take((f) => f.event?.type !== 'sync', 'an event')).event.data.n, n);
    n += 1;
  }
  assert.ok(performance.now() - begun >= 700, 'not before its time');
  assert.ok(!left.items.includes('listener'));
  for (const raw of gone) raw.tcp.destroy();
  await listener.close();
  await atRest(server, { workers: 1 });
});

test('10,000 joins and leaves of one connection leave nothing behind', async () => {
  const server = await own({ stream: { messages_per_second_max: 1_000_000 } });
  const [peer, stays, busy] = [await server.peer(), await server.subscriber(), await server.subscriber()];
  await stays.join('faults', 'g', undefined, 'stays');
  const before = await server.metrics();
  for (const n of range(10_000)) {
    busy.send(join(`g${n % 100}`, `s${n}`));
    busy.send(leave(`g${n % 100}`, `s${n}`));
    if (n % 100 === 99) await busy.ping();
  }
  const during = await server.metrics();
  assert.equal(during.iii_stream_joins_total - before.iii_stream_joins_total, 10_000);
  assert.equal(during.iii_stream_leaves_total - before.iii_stream_leaves_total, 10_000);
  assert.deepEqual([during.iii_stream_subscriptions, during.iii_stream_subscribed_groups], [1, 1]);
  assert.equal(busy.frames.filter(({ event }) => event.type === 'sync').length, 10_000);
  // Again into the group where somebody stays: its place is found every time.
  busy.frames.length = 0;
  for (const n of range(1_000)) {
    busy.send(join('g', 'again'));
    if (n % 3 > 0) busy.send(leave('g', 'again'));
    if (n % 100 === 99) await busy.ping();
  }
  busy.send(join('g', 'again'));
  await busy.ping();
  await set(peer, 1);
  assert.equal((await busy.take((f) => f.event.type === 'create', 'the event')).seq, 1);
  assert.equal((await stays.take((f) => f.event.type === 'create', 'the event')).seq, 1);
  await busy.ping();
  assert.deepEqual(busy.frames.filter(({ event }) => event.type !== 'sync'), [], 'once');
  assert.equal((await server.metrics()).iii_stream_subscriptions, 2);
  await busy.close();
  await stays.close();
  const after = await atRest(server, { workers: 1 });
  assert.ok(after.process_resident_memory_bytes - before.process_resident_memory_bytes < 64 * MIB);
});

test('a half-closed connection is a closed one, on both ports, also with much on its way', async () => {
  const server = await own();
  const peer = await server.peer();
  const left = await leaves(server, peer);
  const worker = await RawSocket.connect(server, server.workers);
  await worker.message('its registration');
  const subscriber = await joined(server);
  for (const raw of [worker, subscriber]) {
    raw.tcp.socket.end();
    await server.within(raw.tcp.closed, 'the other half to be closed');
  }
  await left.count(1);
  const full = await joined(server);
  full.pause();
  await (async () => { for (const n of range(100)) await set(peer, { n, text: 'x'.repeat(100_000) }); })();
  full.tcp.socket.end();
  await left.count(2);
  full.tcp.destroy();
  await atRest(server, { workers: 1 });
});

test('a broadcast during a stop: a prefix for everybody, nothing twice, 1001, however slow they are', async () => {
  const server = await own({ stream: { drain_window_ms: 400 } });
  const peer = await server.peer();
  const crowd = await Promise.all(range(60).map(() => joined(server)));
  let isOpen = true;
  peer.closed.then(() => { isOpen = false; });
  let acknowledged = 0;
  const writing = (async () => {
    while (isOpen) {
      const answered = await Promise.race([set(peer, { n: acknowledged + 1, text: 'x'.repeat(2_000) }).then(() => true, () => false), peer.closed.then(() => false)]);
      if (answered) acknowledged += 1;
    }
  })();
  for (const raw of crowd) assert.equal((await raw.message('the first event')).seq, 1);
  server.signal('SIGTERM');
  const lasts = await Promise.all(crowd.map(async (raw, index) => {
    for (let seq = 2; ; seq += 1) {
      if (index % 10 === 0) { raw.pause(); await server.page('/health').catch(() => {}); raw.resume(); }
      const { opcode, payload } = await raw.next(`event ${seq} or the close`);
      if (opcode === CLOSE) {
        assert.equal(payload.readUInt16BE(), 1001);
        raw.write(closing(1001));
        await server.within(raw.tcp.closed, 'the TCP connection to end');
        assert.equal(raw.tcp.waiting, 0, 'nothing after the close');
        return seq - 1;
      }
      assert.equal(JSON.parse(payload).seq, seq);
    }
  }));
  await writing;
  assert.equal((await server.ended()).code, 0);
  assert.ok(Math.max(...lasts) > Math.min(...lasts), `${lasts}`);
  assert.ok(Math.max(...lasts) <= acknowledged + 1);
});

test('when there are no more files, who is there loses nothing, and who comes waits until somebody goes', async () => {
  const server = await own();
  const LIMIT = 64;
  const peer = await server.peer();
  const listeners = await Promise.all(range(5).map(() => joined(server)));
  execFileSync('prlimit', ['--pid', String(server.pid), `--nofile=${LIMIT}:${LIMIT}`]);
  const crowd = await Promise.all(range(100).map(() => Tcp.connect(server, server.subscribers)));
  // Nobody can ask for metrics now: that would be one more file.
  const answered = new Set();
  const upgrades = crowd.map(async (tcp, n) => {
    tcp.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n');
    await tcp.until(() => tcp.bytes.includes('\r\n\r\n'), `answer ${n}`, 60_000);
    answered.add(n);
  });
  const events = 300;
  for (const n of range(events)) await set(peer, n);
  for (const raw of listeners) for (const n of range(events)) assert.equal((await raw.message(`event ${n}`)).event.data, n);
  assert.ok(answered.size > 20 && answered.size < LIMIT, `${answered.size} of 100 have come in`);
  // The tries go on while nobody goes, quietly.
  await idle(server);
  // As some go, others come, until all have been there.
  const isGone = new Set();
  while (answered.size < 100) {
    for (const n of answered) if (!isGone.has(n)) { isGone.add(n); crowd[n].destroy(); }
    const before = answered.size;
    await server.within((async () => { while (answered.size === before && answered.size < 100) await Promise.race(upgrades.filter((_, n) => !answered.has(n))); })(), 'more to come in');
  }
  await Promise.all(upgrades);
  for (const tcp of crowd) tcp.destroy();
  await set(peer, 'last');
  for (const raw of listeners) assert.equal((await raw.message('the last event')).event.data, 'last');
  for (const raw of listeners) raw.tcp.destroy();
  const metrics = await atRest(server, { workers: 1 });
  assert.ok(metrics['iii_stream_accept_errors_total{port="subscribers"}'] > 3);
  const lines = server.log.split('\n').filter((line) => line.includes('cannot accept')).length;
  assert.ok(lines > 0 && lines <= 30, `${lines} lines of log`);
});

/** `stuck` of 50 take nothing while 16 KiB events come 50 times a second for three seconds; what the others see. */
async function withStuck(stuckGroup) {
  const server = await own({ stream: { queue_bytes_max: 256 * KIB } });
  const peer = await server.peer();
  const others = await Promise.all(range(47).map(() => joined(server)));
  const stuck = await Promise.all(range(3).map(() => joined(server, stuckGroup)));
  for (const raw of stuck) raw.pause();
  const text = 'x'.repeat(16 * KIB);
  const EVENTS = 150;
  const groups = [...new Set(['g', stuckGroup])];
  const silences = others.map(() => 0);
  const reading = others.map(async (raw, index) => {
    let last;
    for (const n of range(EVENTS)) {
      assert.equal((await raw.message(`event ${n}`)).event.data.n, n);
      const now = performance.now();
      if (last) silences[index] = Math.max(silences[index], now - last);
      last = now;
    }
  });
  let most = 0;
  const begun = performance.now();
  for (const n of range(EVENTS)) {
    const due = deferred();
    setTimeout(due.resolve, begun + n * 20 - performance.now());
    await due.promise;
    await Promise.all(groups.map((group_id) => set(peer, { n, text }, { ...AT, group_id })));
    if (n % 10 === 9) {
      const metrics = await server.metrics();
      most = Math.max(most, metrics.iii_stream_subscriber_queue_bytes);
      assert.equal(metrics.iii_stream_subscriber_queue_bytes_max, 50 * 256 * KIB);
    }
  }
  await Promise.all(reading);
  assert.ok(Math.max(...silences) < 1_000, `a silence of ${Math.max(...silences)} ms`);
  assert.ok(most <= 3 * (256 + 17) * KIB, `${most} bytes waited`);
  for (const raw of stuck) {
    raw.resume();
    // Whatever it missed, it ends up with the last state.
    for (;;) {
      const { event } = await raw.message('the last state');
      if ((event.type === 'sync' ? event.data[0].n : event.data.n) === EVENTS - 1) break;
    }
  }
  for (const raw of [...others, ...stuck]) raw.tcp.destroy();
  await atRest(server, { workers: 1 });
}

test('3 of 50 are stuck in the same group: the others lose nothing and wait for nobody', () => withStuck('g'));
test('3 are stuck in another group: the same', () => withStuck('elsewhere'));

/** Around the boundaries of frame headers. */
const SIZES = [0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536, 65_537];

test('frames of every size around the boundaries, both ways on both ports', async () => {
  const server = await own({ stream: { message_bytes_max: MIB } });
  const peer = await server.peer();
  const worker = await RawSocket.connect(server, server.workers);
  await worker.message('its registration');
  const subscriber = await joined(server);
  // To the server: JSON padded with spaces to exactly this size. Answers tell that it was understood.
  for (const size of SIZES.filter((each) => each >= 124)) {
    const pad = (message) => { const text = JSON.stringify(message); return text + ' '.repeat(size - text.length); };
    worker.write(frame(TEXT, pad({ type: 'invokefunction', invocation_id: `id-${size}`, function_id: 'none' })));
    assert.equal((await worker.message(`the answer to ${size} bytes`)).invocation_id, `id-${size}`);
    subscriber.write(frame(TEXT, pad({ type: 'join', data: { subscriptionId: `s${size}`, streamName: 'f', groupId: 'h' } })));
    assert.equal((await subscriber.message(`the sync to ${size} bytes`)).event.type, 'sync');
  }
  for (const size of [0, 1, 124, 125]) {
    for (const raw of [worker, subscriber]) {
      raw.write(frame(PING, 'x'.repeat(size)));
      const { opcode, payload } = await raw.next(`the pong of ${size} bytes`);
      assert.deepEqual([opcode, payload.length], [PONG, size]);
    }
  }
  // From the server: an event's and a result's size is made exact by measuring what is around the value.
  const around = async (raw, send) => {
    await send('');
    return (await raw.next('a frame')).payload.length;
  };
  let n = 0;
  const event = (text) => set(peer, text);
  await event('first');
  await subscriber.next();
  const get = async (text) => {
    await set(peer, text, { ...AT, group_id: 'other' });
    worker.send({ type: 'invokefunction', invocation_id: 'x', function_id: 'stream::get', data: { ...AT, group_id: 'other' } });
  };
  for (const [raw, send] of [[subscriber, event], [worker, get]]) {
    for (const size of SIZES.filter((each) => each >= 65_534)) {
      const rest = size - await around(raw, send);
      await send('x'.repeat(rest));
      const { header, payload, fin, opcode } = await raw.next(`${size} bytes`);
      // The number of the change may have grown by a digit.
      assert.ok(Math.abs(payload.length - size) <= 1, `${payload.length} instead of ${size}`);
      assert.deepEqual([opcode, fin, header], [TEXT, true, payload.length < 126 ? 2 : payload.length < 65_536 ? 4 : 10]);
      JSON.parse(payload);
      n += 1;
    }
  }
  assert.equal(n, 8);
  // Small ones with a short header, exactly at its bound: pongs above; an error of the worker port by a name of chosen length.
  for (const length of range(20).map((each) => each + 1)) {
    worker.send({ type: 'invokefunction', invocation_id: 'y'.repeat(length), function_id: 'stream::list_all', data: {} });
    const { header, payload } = await worker.next('a small frame');
    assert.equal(header, payload.length < 126 ? 2 : payload.length < 65_536 ? 4 : 10);
    JSON.parse(payload);
  }
  for (const raw of [worker, subscriber]) raw.tcp.destroy();
  await atRest(server, { workers: 1 });
});

test('what is longer than 8 MiB leaves in pieces of that, and comes whole in any pieces', async () => {
  const server = await own({ stream: { message_bytes_max: 20 * MIB } });
  const peer = await server.peer();
  const worker = await RawSocket.connect(server, server.workers);
  await worker.message('its registration');
  const subscriber = await joined(server);
  const text = 'é'.repeat(10 * MIB); // 20 MiB, cut in the middle of a letter
  const call = JSON.stringify({ type: 'invokefunction', invocation_id: 'big', function_id: 'stream::set', data: { ...AT, data: text, returning: 'none' } });
  const bytes = Buffer.from(call);
  // In three pieces with pings between them and inside a letter, the last one empty.
  const cut = 8 * MIB + 1;
  worker.write(frame(TEXT, bytes.subarray(0, cut), { fin: false })).write(frame(PING, 'one'));
  worker.write(frame(0, bytes.subarray(cut), { fin: false })).write(frame(PING, 'two'));
  worker.write(frame(0, '', { fin: true }));
  // The later pong may stand for both: RFC 6455, section 5.5.3.
  let pong;
  do {
    pong = await worker.next('a pong between the pieces');
    assert.equal(pong.opcode, PONG);
  } while (pong.payload.toString() !== 'two');
  assert.equal((await worker.message('the answer')).invocation_id, 'big');
  const pieces = [];
  do pieces.push(await subscriber.next('a piece')); while (!pieces.at(-1).fin);
  assert.deepEqual(pieces.map(({ opcode }) => opcode), [TEXT, ...pieces.slice(1).map(() => 0)]);
  assert.deepEqual(pieces.map(({ payload }) => payload.length === 8 * MIB), [...pieces.slice(1).map(() => true), false]);
  assert.equal(JSON.parse(Buffer.concat(pieces.map(({ payload }) => payload))).event.data, text);
  worker.tcp.destroy();
  subscriber.tcp.destroy();
  await peer.result('stream::delete', { ...AT, returning: 'none' });
  await atRest(server, { workers: 1 });
});

test('a message in 5,000 pieces with pings in between is one message', async () => {
  const server = await own();
  const subscriber = await RawSocket.connect(server, server.subscribers);
  const bytes = Buffer.from(JSON.stringify({ ...join(), pad: 'x'.repeat(5_000) }));
  const parts = [];
  for (const n of range(bytes.length)) {
    parts.push(frame(n === 0 ? TEXT : 0, bytes.subarray(n, n + 1), { fin: n === bytes.length - 1 }));
    if (n % 100 === 0) parts.push(frame(PING, `${n}`));
  }
  subscriber.write(Buffer.concat(parts));
  let pongs = 0;
  for (;;) {
    const { opcode, payload } = await subscriber.next();
    if (opcode === TEXT) { assert.equal(JSON.parse(payload).event.type, 'sync'); break; }
    pongs += 1;
  }
  // One may stand for several, but the last that came before must be answered.
  assert.ok(pongs >= 1);
  subscriber.tcp.destroy();
  await atRest(server);
});

for (const port of ['subscribers', 'workers']) {
  test(`${port}: who pings without end and reads no pong costs no memory, and the last ping is answered in the end`, async () => {
    const server = await own();
    const raw = await RawSocket.connect(server, server[port]);
    if (port === 'workers') await raw.message('its registration');
    raw.pause();
    const before = (await server.metrics()).process_resident_memory_bytes;
    const many = Buffer.concat(range(4_000).map(() => frame(PING, 'x'.repeat(125))));
    let sent = 0;
    let most = 0;
    let queued = 0;
    // As fast as the server takes them.
    while (sent < 800_000) {
      const drained = deferred();
      raw.tcp.socket.write(many, () => drained.resolve());
      await server.within(drained.promise, 'the server to take pings');
      sent += 4_000;
      if (sent % 40_000 === 0) {
        const metrics = await server.metrics();
        most = Math.max(most, metrics.process_resident_memory_bytes - before);
        queued = Math.max(queued, metrics.iii_stream_subscriber_queue_bytes);
      }
    }
    assert.ok(most < 24 * MIB, `${Math.round(most / MIB)} MiB more after ${sent} pings`);
    assert.ok(queued <= 1_000, `${queued} bytes of pongs`);
    raw.write(frame(PING, 'the last'));
    raw.resume();
    let last;
    do last = await raw.next('the last pong'); while (last.payload.toString() !== 'the last');
    assert.equal(last.opcode, PONG);
    raw.tcp.destroy();
    await atRest(server);
  });

  test(`${port}: closes of the peer are answered with their code and end the connection`, async () => {
    const server = await own();
    for (const [code, reason] of [[1000, 'bye'], [1001, ''], [3000, 'é'.repeat(60)], [4999, 'x'.repeat(123)], [undefined]]) {
      const raw = await RawSocket.connect(server, server[port]);
      if (port === 'workers') await raw.message('its registration');
      // What comes behind a close is not listened to. All in one write: what comes later may break the connection, as in any server.
      raw.write(Buffer.concat([code ? closing(code, reason) : frame(CLOSE), frame(PING, 'late'), frame(TEXT, JSON.stringify(join()))]));
      assert.deepEqual(await raw.close(), code ? { code, reason } : {});
      await server.within(raw.tcp.closed, 'the TCP connection to end');
      assert.equal(raw.tcp.waiting, 0, 'nothing after the close');
    }
    await atRest(server);
  });
}

test('closes that cross: the peer\'s own is answered by nothing more, and the connection ends', async () => {
  const server = await own({ stream: { messages_per_second_max: 5 } });
  for (const round of range(20)) {
    const raw = await RawSocket.connect(server, server.subscribers);
    // The sixth makes the server close, while our close is on its way already, or comes when its own has left.
    raw.write(Buffer.concat(range(6).map((n) => frame(TEXT, JSON.stringify(join(`g${n}`, `s${n}`))))));
    if (round % 2) await raw.next('a sync');
    raw.write(closing(1000, 'mine'));
    const closed = await raw.close();
    assert.ok([4029, 1000].includes(closed.code), `${closed.code}`);
    await server.within(raw.tcp.closed, 'the TCP connection to end');
  }
  await atRest(server);
});

test('a flood of messages closes once, with one line of log', async () => {
  const server = await own({ stream: { messages_per_second_max: 10 } });
  const raw = await RawSocket.connect(server, server.subscribers);
  raw.write(Buffer.concat(range(50_000).map(() => frame(TEXT, '{}'))));
  assert.equal((await raw.close()).code, 4029);
  raw.write(closing(4029));
  await server.within(raw.tcp.closed, 'the TCP connection to end');
  const metrics = await atRest(server);
  assert.equal(metrics.iii_stream_rate_limited_total, 1);
  assert.equal(server.log.split('\n').filter((line) => line.includes('too many messages')).length, 1);
});

test('a peer that closes while megabytes wait for it gets its answer after what has begun to leave', async () => {
  const server = await own({ stream: { queue_bytes_max: 64 * MIB } });
  const peer = await server.peer();
  const left = await leaves(server, peer);
  for (const reads of [true, false]) {
    const raw = await joined(server);
    raw.pause();
    for (const n of range(300)) await set(peer, { n, text: 'x'.repeat(60_000) });
    assert.ok((await server.metrics()).iii_stream_subscriber_queue_bytes > 2 * MIB);
    raw.write(closing(1000, 'enough'));
    if (reads) {
      raw.resume();
      assert.deepEqual(await raw.close(), { code: 1000, reason: 'enough' });
      await server.within(raw.tcp.closed, 'the TCP connection to end');
    }
    await left.count(reads ? 1 : 2);
    raw.tcp.destroy();
    // The second one never reads its answer: it is waited for a while, not for ever.
    await atRest(server, { workers: 1 });
  }
});

test('connections reset in the middle of a large write, and 500 that come and break during a broadcast', async () => {
  const server = await own();
  const [peer, listener] = [await server.peer(), await server.subscriber()];
  const left = await leaves(server, peer);
  await listener.join('faults', 'g', undefined, 'listener');
  await set(peer, 'x'.repeat(30 * MIB), { ...AT, group_id: 'large' });
  for (let n = 0; n < 10; n += 1) {
    const raw = await RawSocket.connect(server, server.subscribers);
    raw.send(join('large', `large-${n}`));
    await raw.tcp.until(() => raw.tcp.received > 100_000, 'the beginning of the sync');
    raw.tcp.reset();
  }
  await left.count(10);
  let isDone = false;
  let written = 0;
  const writing = (async () => { while (!isDone) { written += 1; await set(peer, { n: written, text: 'x'.repeat(5_000) }); } })();
  for (const round of range(10)) {
    await Promise.all(range(50).map(async (n) => {
      const raw = await RawSocket.connect(server, server.subscribers);
      raw.send(join('g', `r${round}-${n}`));
      // Some break before their sync, some after events.
      if (n % 2) for (const each of range(n % 5)) await raw.message(`message ${each}`);
      raw.tcp.reset();
    }));
  }
  isDone = true;
  await writing;
  for (const n of range(written)) assert.equal((await listener.next(`event ${n + 1}`)).event.data.n, n + 1);
  await listener.close();
  await peer.result('stream::delete', { ...AT, group_id: 'large', returning: 'none' });
  const metrics = await atRest(server, { workers: 1 });
  // Whoever broke off before the sync has left, but not joined.
  assert.equal(metrics.iii_stream_leaves_total, 511);
  assert.ok(metrics.iii_stream_joins_total <= 511 && metrics.iii_stream_joins_total > 250, `${metrics.iii_stream_joins_total}`);
});

test('10,000 calls at once whose caller reads only at the end are all answered, in order', async () => {
  const server = await own();
  const raw = await RawSocket.connect(server, server.workers);
  await raw.message('its registration');
  raw.pause();
  const other = await server.peer();
  const text = 'x'.repeat(1_000);
  raw.write(Buffer.concat(range(10_000).map((n) => frame(TEXT, JSON.stringify({ type: 'invokefunction', invocation_id: `${n}`, function_id: 'stream::set', data: { ...AT, data: { n, text } } })))));
  // All have been carried out before the first answer is read.
  const done = async () => ((await other.result('stream::get', AT))?.n === 9_999 ? undefined : done());
  await server.within(done(), 'all calls to be carried out', 60_000);
  raw.resume();
  for (const n of range(10_000)) {
    const { invocation_id, result } = await raw.message(`answer ${n}`);
    assert.deepEqual([invocation_id, result.new_value.n], [`${n}`, n]);
  }
  raw.tcp.destroy();
  await atRest(server, { workers: 1 });
});

test('a reply of 30 MB comes whole, to who reads at once and to who waits', async () => {
  const server = await own();
  const peer = await server.peer();
  const text = 'y'.repeat(30_000_000);
  await set(peer, text);
  assert.equal(await peer.result('stream::get', AT), text);
  const raw = await RawSocket.connect(server, server.workers);
  await raw.message('its registration');
  raw.pause();
  raw.send({ type: 'invokefunction', invocation_id: 'a', function_id: 'stream::get', data: AT });
  raw.send({ type: 'invokefunction', invocation_id: 'b', function_id: 'stream::list_all', data: {} });
  await peer.result('stream::get', { ...AT, item_id: 'none' });
  raw.resume();
  const answer = await raw.message('the large reply');
  assert.deepEqual([answer.invocation_id, answer.result.length], ['a', text.length]);
  assert.equal((await raw.message('the next reply')).invocation_id, 'b');
  raw.tcp.destroy();
  await peer.result('stream::delete', { ...AT, returning: 'none' });
  await atRest(server, { workers: 1 });
});
