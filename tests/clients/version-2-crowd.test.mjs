// Version 2 of the subscriber protocol among others: slow subscribers, crowds, one order for everybody, tokens, bounds.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Record, startServer, unique } from './harness.mjs';
import { assertExact, Churn, Connection, dice, mark, standing, untilMissed, View } from './version-2.mjs';

const MIB = 1024 * 1024;
const range = (n) => Array.from({ length: n }, (_, i) => i);
const all = (list, work) => Promise.all(list.map(work));
const servers = [];
let server;
let peer;

async function own(stream) {
  const started = await startServer({
    stream: { history_changes_max: 1_000_000, history_bytes_max: 512 * MIB, messages_per_second_max: 1_000_000, ...stream },
  });
  servers.push(started);
  return started;
}
before(async () => {
  server = await own();
  peer = await server.peer();
});
after(() => all(servers, (started) => started.stop()));

const place = () => ({ stream_name: unique('v2-crowd'), group_id: 'g' });
const view = (at, item) => new View(unique('s'), at.stream_name, at.group_id, item);
const open = (options, on = server) => Connection.open(on, options);

/** A view that has begun, on a connection of its own. */
async function watch(at, options, on = server) {
  const connection = await open(options, on);
  const one = view(at);
  connection.join(one);
  await connection.until(() => one.isLive, 'the first sync');
  return { one, connection };
}

/** A group's subscriber of version 1; its frames are kept. */
async function published(at, on = server) {
  const connection = await open({ version: 1 }, on);
  connection.send({ type: 'join', data: { subscriptionId: 's', streamName: at.stream_name, groupId: at.group_id } });
  await connection.until(() => connection.frames.length === 1, 'the sync');
  return connection;
}

const residentBytes = async (pid) => Number(/VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))[1]) * 1_024;

// ---- slow subscribers

for (const [name, history, isReached] of [['the history reaches', {}, true], ['the history does not reach', { history_changes_max: 10 }, false]]) {
  test(`whoever stops reading is told what it missed, or that it did: ${name}`, async () => {
    const narrow = await own({ queue_bytes_max: 256 * 1024, ...history });
    const by = await narrow.peer();
    const at = place();
    const before = await residentBytes(narrow.pid);
    const slow = await all(range(16), (n) => watch(at, { deltas: n % 2 === 1 }, narrow));
    const [quick, quickDeltas] = [await watch(at, {}, narrow), await watch(at, { deltas: true }, narrow)];
    const old = await published(at, narrow);
    for (const { connection } of [...slow, { connection: old }]) connection.ws.pause();
    // As many as the kernel takes, then 300 changes of 16 KB more, at the pace of those who read.
    const readers = [quick, quickDeltas];
    const together = async (seq) => { for (const { one, connection } of readers) await connection.until(() => seq <= one.cursor, `change ${seq}`); };
    await untilMissed(narrow, by, at, { together });
    for (const _ of range(30)) {
      const replies = await all(range(10), (n) => by.result('stream::set', { ...at, item_id: `i${n % 7}`, data: { n, text: 'x'.repeat(16_000) }, returning: 'none' }));
      await together(Math.max(...replies.map(({ seq }) => seq)));
    }
    const churn = new Churn(by, at, { ids: range(9).map((n) => `i${n}`), inFlight: 4, text: 'x'.repeat(16_000) });
    // Who reads hears of it meanwhile.
    const heard = quick.one.cursor + 200;
    await quick.connection.until(() => heard <= quick.one.cursor, '200 more');
    for (const { one } of readers) assert.equal(one.resumes + one.resets, 0, 'nobody else notices');
    const grown = await residentBytes(narrow.pid) - before;
    assert.ok(grown < 160 * MIB, `${grown / MIB} MiB more in memory`);
    for (const { connection } of [...slow, { connection: old }]) connection.ws.resume();
    const last = await churn.stop();
    const state = await standing(by, at);
    for (const { one, connection } of slow) {
      await connection.until(() => one.isLive && one.cursor === last, 'the end');
      assert.deepEqual(one.shown(), state);
      assert.ok(0 < one.resumes + one.resets, 'it was told');
      if (isReached) assertExact(one, 1, last, state, 'it went on where it was');
      else assert.ok(0 < one.resets && one.told.length < last);
    }
    for (const { one, connection } of readers) {
      await connection.until(() => one.cursor === last, 'the end');
      // This process reads what the slow ones have left, so these may have become slow too.
      if (one.resets === 0) assertExact(one, 1, last, state, 'one that reads');
      assert.deepEqual(one.shown(), state);
    }
    // Of the events in between none may be missed without a word: they close version 1.
    assert.equal(await narrow.within(old.closed, 'the close'), 4008);
  });
}

test('version 1 gets a fresh sync for what it missed, and every change after it', async () => {
  const narrow = await own({ queue_bytes_max: 256 * 1024 });
  const by = await narrow.peer();
  const at = place();
  const old = await published(at, narrow);
  old.ws.pause();
  await untilMissed(narrow, by, at);
  old.ws.resume();
  const items = await by.result('stream::list', { ...at, meta: true });
  const present = Math.max(...items.map(({ seq }) => seq));
  await old.until(() => old.frames.at(-1).seq === present, 'everything so far');
  const { id: told, event: { type, data } } = old.frames.at(-1);
  if (type === 'sync') assert.deepEqual(data, items.map(({ value }) => value));
  else assert.deepEqual(data, items.find(({ id }) => id === told).value);
  const last = await mark(by, at);
  await old.until(() => old.frames.at(-1).seq === last, 'the next change');
  // It may have been too slow more than once: each gap ends with a sync, and nowhere else is one.
  let [cursor, gaps] = [0, 0];
  for (const { seq, event } of old.frames.slice(1)) {
    if (event.type === 'sync') {
      assert.ok(cursor <= seq, `a sync of ${seq} after ${cursor}`);
      gaps += cursor < seq;
    } else {
      assert.equal(seq, cursor + 1, 'no gap without a sync');
    }
    cursor = seq;
  }
  assert.ok(gaps > 0 && cursor === last, `${gaps} gaps, ${cursor} of ${last}`);
  assert.ok(old.frames.every((frame) => frame.type === 'stream' && ['sync', 'create', 'update'].includes(frame.event.type) && !('mode' in frame.event) && !('subscriptionId' in frame)));
});

test('version 1 that misses a custom event is closed with 4008, version 2 is told of it', async () => {
  const narrow = await own({ queue_bytes_max: 256 * 1024 });
  const by = await narrow.peer();
  const at = place();
  const old = await published(at, narrow);
  const { one, connection } = await watch(at, {}, narrow);
  const quick = await watch(at, {}, narrow);
  // Those who read keep up, so it is the other one that misses changes, and then the event.
  const missedBy = async (slow, type, readers) => {
    slow.ws.pause();
    const together = (seq) => all(readers, (reader) => reader.connection.until(() => seq <= reader.one.cursor, 'those who read'));
    await untilMissed(narrow, by, at, { atOnce: 8, together });
    await by.result('stream::send', { ...at, type, data: 'only' });
    await quick.connection.until(() => quick.one.events.at(-1)?.type === type, 'the event at who reads');
    slow.ws.resume();
  };
  await missedBy(old, 'first', [quick, { one, connection }]);
  assert.equal(await narrow.within(old.closed, 'the close'), 4008);
  await missedBy(connection, 'second', [quick]);
  await connection.until(() => one.events.length === 2, 'the event');
  assert.deepEqual(one.events, [{ type: 'first', data: 'only' }, { type: 'second', data: 'only' }]);
  assert.equal(one.resumes, 1);
});

test('whoever takes nothing for too long is closed with 4008, and comes back to where it was', async () => {
  const strict = await own({ queue_bytes_max: 256 * 1024, blocked_timeout_ms: 1_500 });
  const by = await strict.peer();
  const at = place();
  const { one, connection } = await watch(at, {}, strict);
  // What waits for whoever is given up is dropped, but for what the kernel has, what has begun to leave, and the close itself.
  // Changes that come one by one leave one by one, so what has begun is small.
  const waiting = async () => (await strict.metrics()).iii_stream_subscriber_queue_bytes;
  const givenUp = async (slow) => {
    slow.ws.pause();
    await untilMissed(strict, by, at, { atOnce: 1 });
    for (const begin = Date.now(); 64 * 1024 < await waiting();) assert.ok(Date.now() - begin < 15_000, 'it is given up');
    slow.ws.resume();
    assert.equal(await strict.within(slow.closed, 'the close'), 4008);
  };
  await givenUp(connection);
  assert.equal(connection.fault, null);
  const behind = one.cursor;
  await givenUp(await published(at, strict));
  const back = await open({}, strict);
  back.join(one);
  const last = await mark(by, at);
  assert.ok(behind < last - 10);
  await back.until(() => one.cursor === last, 'the end');
  assertExact(one, 1, last, await standing(by, at), 'it comes back');
});

// ---- crowds

test('fifty that join at random moments of 5,000 increments see every value after their sync exactly once', async () => {
  const at = place();
  const item = { ...at, item_id: 'i' };
  const WRITES = 5_000;
  await peer.result('stream::set', { ...item, data: { n: 0, text: 'x'.repeat(200) } });
  const roll = dice(77);
  const moments = range(50).map((n) => ({ n, at: roll(WRITES) })).sort((a, b) => a.at - b.at);
  const joining = [];
  const visit = async (n) => {
    if (n % 3 === 0) {
      const old = await published(at);
      return { old };
    }
    return watch(at, { deltas: n % 3 === 2 });
  };
  let sent = 0;
  await all(range(16), async () => {
    while (sent < WRITES) {
      sent += 1;
      while (moments[0]?.at < sent) joining.push(visit(moments.shift().n));
      await peer.result('stream::update', { ...item, ops: [{ type: 'increment', path: 'n', by: 1 }], returning: 'none' });
    }
  });
  const state = await standing(peer, at);
  const last = WRITES + 1;
  for (const { old, one, connection } of await Promise.all(joining)) {
    if (one) {
      await connection.until(() => one.cursor === last, 'the end');
      // Each was contiguous with the one before: the view sees to that. Nothing more, nothing less.
      assert.deepEqual([one.snapshots, one.resumes, one.shown()], [1, 0, state]);
      connection.cut();
    } else {
      await old.until(() => old.frames.at(-1).seq === last || old.frames[0].seq === last, 'the end');
      const values = old.frames.map(({ event }, index) => (index === 0 ? event.data[0].n : event.data.n));
      assert.deepEqual(values, range(values.length).map((n) => values[0] + n));
      assert.equal(values.at(-1), WRITES);
      old.cut();
    }
  }
});

test('one order: sequences, triggers and every subscriber agree', async () => {
  const at = place();
  const seen = new Record(server);
  const worker = await server.peer();
  const id = unique('on-change');
  worker.serve(id, (input) => { seen.push(input); return { result: {} }; });
  worker.send({ type: 'registertrigger', id, trigger_type: 'stream', function_id: id, config: { stream_name: at.stream_name } });
  await worker.settled();
  const orders = [];
  const watchers = await all(range(6), async (n) => {
    const { one, connection } = await watch(at, { deltas: n % 2 === 1 });
    const order = [];
    orders.push(order);
    const take = connection.take.bind(connection);
    connection.take = (frame) => { if (frame.event?.data) order.push([frame.seq, frame.event.data.key]); take(frame); };
    return { one, connection };
  });
  const old = await published(at);
  const writers = await all(range(8), () => server.peer());
  const EACH = 250;
  const replies = new Map();
  await all(writers, async (writer, w) => {
    await all(range(EACH), async (k) => {
      const key = `${w}-${k}`;
      const { seq } = await writer.result('stream::set', { ...at, item_id: `i${(w + k) % 5}`, data: { key }, returning: 'none' });
      replies.set(seq, key);
    });
  });
  const total = writers.length * EACH;
  const expected = range(total).map((n) => [n + 1, replies.get(n + 1)]);
  assert.ok(expected.every(([, key]) => key), 'the writers were given every sequence');
  for (const { one, connection } of watchers) await connection.until(() => one.cursor === total, 'the end');
  for (const order of orders) assert.deepEqual(order, expected);
  await old.until(() => old.frames.length === total + 1, 'the end');
  assert.deepEqual(old.frames.slice(1).map((frame) => [frame.seq, frame.event.data.key]), expected);
  await seen.count(total);
  assert.deepEqual(seen.items.map((input) => input.event.data.key), expected.map(([, key]) => key));
  // What one writer sent first is first.
  for (const w of range(8)) {
    const mine = expected.filter(([, key]) => key.startsWith(`${w}-`)).map(([, key]) => Number(key.split('-')[1]));
    assert.deepEqual(mine, range(EACH));
  }
});

test('an answer that arrives token by token costs a delta subscriber what is new', async () => {
  const APPENDS = 5_000;
  const bytes = {};
  for (const deltas of [true, false]) {
    const at = place();
    await peer.result('stream::set', { ...at, item_id: 'answer', data: { text: '' } });
    const { one, connection } = await watch(at, { deltas });
    const before = connection.bytes;
    let sent = 0;
    await all(range(16), async () => {
      while (sent < APPENDS) {
        sent += 1;
        await peer.result('stream::update', { ...at, item_id: 'answer', ops: [{ type: 'append', path: 'text', value: `tok${sent % 10}` }], returning: 'none' });
        // No faster than it is read, or values would pass it by: each is as long as the whole answer so far.
        const read = sent - 30;
        await connection.until(() => one.cursor >= read, 'what came before');
      }
    });
    await connection.until(() => one.cursor === APPENDS + 1, 'the end');
    bytes[deltas ? 'deltas' : 'values'] = connection.bytes - before;
    assert.deepEqual(one.shown(), await standing(peer, at));
    assert.equal(one.items.get('answer').value.text.length, APPENDS * 4);
    assert.equal(one.snapshots + one.resumes, 1);
    connection.cut();
  }
  assert.ok(bytes.deltas <= APPENDS * (4 + 220), `${bytes.deltas / APPENDS} bytes per append`);
  assert.ok(bytes.deltas * 20 <= bytes.values, `${bytes.deltas} of ${bytes.values} bytes`);
});

// ---- bounds

for (const version of [2, 1]) {
  test(`joins without end stop at the limit of their connection, in bounded memory: version ${version}`, async () => {
    const { stream_name } = place();
    const connection = await open({ version });
    const before = await residentBytes(server.pid);
    const JOINS = 100_000;
    const kinds = {};
    connection.take = (frame) => {
      const kind = frame.code ?? frame.event.type;
      kinds[kind] = (kinds[kind] ?? 0) + 1;
    };
    const more = version === 2 ? ',"version":2' : '';
    let peak = 0;
    for (const round of range(JOINS / 1_000)) {
      for (const n of range(1_000)) {
        const id = round * 1_000 + n;
        connection.ws.send(`{"type":"join","data":{"subscriptionId":"${id}","streamName":"${stream_name}","groupId":"g${id % 50}","id":"${id}"${more}}}`);
      }
      // Every join is answered; what waits stays small on both sides.
      await connection.until(() => connection.count === (round + 1) * 1_000, `answer ${(round + 1) * 1_000}`);
      if (round % 10 === 9) peak = Math.max(peak, await residentBytes(server.pid) - before);
    }
    assert.deepEqual(kinds, { sync: 10_000, [version === 2 ? 'subscription.limit' : 'unauthorized']: JOINS - 10_000 });
    assert.ok(peak < 64 * MIB, `${peak / MIB} MiB more in memory`);
    connection.ws.close();
    assert.equal(await server.within(connection.closed, 'the close'), 1005);
  });
}

test('whoever floods without reading is closed, and costs no memory', async () => {
  const { stream_name } = place();
  const before = await residentBytes(server.pid);
  const connection = await open();
  connection.send({ type: 'join', data: { subscriptionId: 's', streamName: stream_name, groupId: 'g', version: 2 } });
  await connection.until(() => connection.count === 1, 'the sync');
  connection.ws.pause();
  const closes = async () => (await server.metrics())['iii_stream_closes_total{code="4008"}'] ?? 0;
  const closed = await closes();
  const garbage = 'no JSON '.repeat(10);
  for (const begin = Date.now(); await closes() === closed;) {
    for (const _ of range(2_000)) connection.ws.send(garbage);
    assert.ok(Date.now() - begin < 60_000, 'it is closed');
    await turn();
  }
  connection.cut();
  const grown = await residentBytes(server.pid) - before;
  assert.ok(grown < 64 * MIB, `${grown / MIB} MiB more in memory`);
});
