// Server-sent events (design §5): snapshots, ids that resume exactly, and clients of every kind, from curl to a browser that comes back by itself.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { deferred, Record, settled, startServer, unique, within } from './harness.mjs';
import { atRest, EventStream, GET, http, idle, metricsWhen, range, Tcp } from './raw.mjs';

const servers = [];
let server;
let peer;
before(async () => {
  server = await own();
  peer = await server.peer();
});
after(() => Promise.all(servers.map((each) => each.stop())));

async function own(config) {
  const each = await startServer(config);
  servers.push(each);
  return each;
}

const place = () => ({ stream_name: unique('s'), group_id: 'g' });
const path = ({ stream_name, group_id, item_id }, query = '') => `/stream/${[stream_name, group_id, item_id].filter(Boolean).map(encodeURIComponent).join('/')}${query}`;
const set = (at, item_id, data, on = peer) => on.result('stream::set', { ...at, item_id, data, returning: 'none' });
const open = (what, options, on = server) => EventStream.open(on, what, options);
const EVENTS = 'Accept: text/event-stream\r\n';

/** What a client of version 2 holds after a run of frames, and that it was told of every change once. */
class Replica {
  items = new Map();
  seq = 0;

  take(frame) {
    const { event } = frame;
    if (event.type === 'sync' && event.mode === 'snapshot') {
      if (!this.paging) this.items = new Map();
      this.paging = event.more;
      for (const { id, data } of event.items) this.items.set(id, data);
      this.seq = frame.seq;
    } else if (event.type === 'sync') {
      assert.equal(event.from, this.seq, `a resume from where it was: ${JSON.stringify(frame)}`);
    } else {
      assert.equal(frame.seq, this.seq + 1, `every change once: ${JSON.stringify(frame)} after ${this.seq}`);
      this.seq = frame.seq;
      if (event.type === 'delete') this.items.delete(frame.id);
      else if (event.type !== 'event') this.items.set(frame.id, event.data);
    }
  }
}

test('a snapshot, then every change, with positions as ids', async () => {
  const at = place();
  await set(at, 'i', { n: 1 });
  const stream = await open(path(at));
  assert.equal(stream.status, 200);
  assert.equal(stream.headers.get('content-type'), 'text/event-stream');
  assert.equal(stream.headers.get('cache-control'), 'no-store');
  assert.equal(stream.headers.get('x-accel-buffering'), 'no');
  const sync = await stream.take();
  const { epoch } = sync.json;
  assert.deepEqual([sync.id, sync.json.seq, sync.json.event], [`${epoch}:1`, 1, { type: 'sync', mode: 'snapshot', items: [{ id: 'i', seq: 1, data: { n: 1 } }], more: false }]);
  await set(at, 'i', { n: 'é🦀\n' });
  await set(at, 'j', null);
  await peer.result('stream::delete', { ...at, item_id: 'i' });
  await peer.result('stream::send', { ...at, type: 'typing', data: { who: 'me' } });
  const events = [await stream.take(), await stream.take(), await stream.take(), await stream.take()];
  assert.deepEqual(events.map(({ id }) => id), [2, 3, 4, 5].map((seq) => `${epoch}:${seq}`));
  assert.deepEqual(events.map(({ json }) => json.event), [
    { type: 'update', data: { n: 'é🦀\n' } }, { type: 'create', data: null }, { type: 'delete', data: { n: 'é🦀\n' } }, { type: 'event', event: { type: 'typing', data: { who: 'me' } } }]);
  stream.close();
});

test('Last-Event-ID and ?since= go on exactly there; the header is the later word', async () => {
  const at = place();
  for (const n of range(10)) await set(at, 'i', n);
  const first = await open(path(at));
  const { id } = await first.take();
  const epoch = id.split(':')[0];
  first.close();
  for (const [since, query] of [[`${epoch}:7`, ''], [undefined, `?since=${epoch}:7`], [`${epoch}:7`, `?since=${epoch}:2`], [`${epoch}:7`, '?since=other:1']]) {
    const stream = await open(path(at, query), { since });
    const sync = await stream.take();
    assert.deepEqual([sync.id, sync.json.event], [undefined, { type: 'sync', mode: 'resume', from: 7 }], 'the changes that follow carry the ids');
    const changes = [await stream.take(), await stream.take(), await stream.take()];
    assert.deepEqual(changes.map((change) => [change.id, change.json.event.data]), [8, 9, 10].map((seq) => [`${epoch}:${seq}`, seq - 1]));
    stream.close();
  }
  const current = await open(path(at), { since: id });
  const sync = await current.take();
  assert.deepEqual([sync.id, sync.json.event.mode], [id, 'resume'], 'nothing follows, so this has the id');
  current.close();
  for (const since of ['57', 'x:y', 'K3:1', `${epoch}:-1`]) assert.equal((await open(path(at), { since })).status, 400, since);
  const empty = await open(path(at), { since: '' });
  assert.equal((await empty.json()).event.mode, 'snapshot');
  empty.close();
});

test('cut at 300 random places while a writer runs: every change exactly once', async () => {
  const roomy = await own({ stream: { history_changes_max: 1_000_000, history_bytes_max: 1_000_000_000 } });
  const writer = await roomy.peer();
  const at = place();
  let isDone = false;
  let written = 0;
  const writing = (async () => {
    while (!isDone) {
      written += 1;
      await set(at, `i${written % 50}`, { n: written, pad: 'x'.repeat(written % 300) }, writer);
    }
  })();
  const replica = new Replica();
  let since;
  let random = 12_345;
  const next = (n) => { random = (random * 1_103_515_245 + 12_345) % 2_147_483_648; return random % n; };
  let taken = 0;
  for (const cut of range(300)) {
    const raw = await Tcp.connect(roomy, roomy.subscribers, GET(path(at), EVENTS + (since ? `Last-Event-ID: ${since}\r\n` : '')));
    const head = await raw.through('\r\n\r\n');
    assert.match(head, / 200 /);
    // What was received whole counts, cut anywhere, also inside an event or its chunk's size.
    const bytes = 1 + next(3_000);
    await raw.until(() => raw.waiting >= bytes, `${bytes} bytes of stream ${cut}`);
    const body = chunks(raw.bytes.subarray(0, bytes));
    raw.reset();
    const reader = new EventStream(roomy);
    reader.lastEventId = since ?? '';
    reader.feed(body.toString());
    for (const { json } of reader.events) replica.take(json);
    taken += reader.events.length;
    since = reader.lastEventId || undefined;
    if (!since) { replica.items = new Map(); replica.seq = 0; replica.paging = false; }
    else assert.equal(since.split(':')[1], String(replica.seq));
  }
  isDone = true;
  await writing;
  const last = await open(path(at), { since }, roomy);
  while (replica.seq < written) replica.take(await last.json(`change ${replica.seq + 1} of ${written}`));
  last.close();
  assert.ok(taken > 300, `${taken} events before the last connection`);
  const { items } = await (await fetch(http(roomy) + path(at))).json();
  assert.deepEqual(Object.fromEntries(replica.items), Object.fromEntries(items.map(({ id, data }) => [id, data])));
  const metrics = await roomy.metrics();
  assert.equal(metrics.iii_stream_resets_total, 0);
  await writer.close();
  await atRest(roomy);
});

/** The payload of the chunks that have come whole or in part. */
function chunks(bytes) {
  const parts = [];
  for (let at = 0; ;) {
    const end = bytes.indexOf('\r\n', at);
    if (end < 0) return Buffer.concat(parts);
    const length = parseInt(bytes.subarray(at, end).toString(), 16);
    parts.push(bytes.subarray(end + 2, end + 2 + length));
    at = end + 2 + length + 2;
    if (at > bytes.length) return Buffer.concat(parts);
  }
}

test('ids come only with the end of the snapshot: 3,000 items, cut in the middle, begin again', async () => {
  const at = place();
  for (const n of range(3_000)) peer.void('stream::set', { ...at, item_id: `i${n}`, data: { n, pad: 'x'.repeat(200) } });
  await peer.settled();
  const raw = await Tcp.connect(server, server.subscribers, GET(path(at), EVENTS));
  await raw.through('\n\n', 'the first page');
  // A change in the middle of the snapshot must not lend it an id.
  raw.socket.pause();
  await set(at, 'i0', 'changed');
  raw.socket.resume();
  raw.reset();
  const stream = await open(path(at));
  const pages = [];
  while (pages.at(-1)?.json.event.more !== false) pages.push(await stream.take());
  assert.deepEqual(pages.map(({ json }) => json.event.items.length), [1_000, 1_000, 1_000]);
  assert.deepEqual(pages.map(({ id }) => id === undefined), [true, true, false]);
  await set(at, 'i1', 'later');
  const change = await stream.take();
  assert.deepEqual([change.json.event.data, change.id], ['later', `${pages[0].json.epoch}:3002`]);
  stream.close();
});

test('changes during a long snapshot come after it, once each', async () => {
  const tight = await own({ stream: { queue_bytes_max: 64 * 1024 } });
  const writer = await tight.peer();
  const at = place();
  for (const n of range(5_000)) writer.void('stream::set', { ...at, item_id: `i${n}`, data: { n, pad: 'x'.repeat(1_000) } });
  await writer.settled();
  const raw = await Tcp.connect(tight, tight.subscribers, GET(path(at), EVENTS));
  await raw.through('\r\n\r\n');
  raw.socket.pause();
  for (const n of range(500)) writer.void('stream::set', { ...at, item_id: `i${n * 10}`, data: { n, changed: true } });
  await writer.settled();
  raw.socket.resume();
  const reader = new EventStream(tight);
  const replica = new Replica();
  await raw.until(() => raw.bytes.subarray(-2_000).includes(':5500\n'), 'the last change', 30_000);
  reader.feed(chunks(raw.bytes).toString());
  let isComplete = false;
  for (const { id, json } of reader.events) {
    if (!json) continue;
    if (id === undefined) assert.ok(!isComplete || json.event.type === 'sync', 'an event without an id');
    else isComplete = true;
    replica.take(json);
  }
  assert.equal(replica.seq, 5_500);
  assert.equal([...replica.items.values()].filter(({ changed }) => changed).length, 500);
  raw.destroy();
  await writer.close();
  await atRest(tight);
});

test('where the history does not reach, the snapshot says that it is a reset', async () => {
  const brief = await own({ stream: { history_changes_max: 5 } });
  const writer = await brief.peer();
  const at = place();
  for (const n of range(20)) await set(at, 'i', n, writer);
  const { epoch } = await (await fetch(http(brief) + path(at))).json();
  for (const [since, mode] of [[`${epoch}:15`, 'resume'], [`${epoch}:14`, 'snapshot'], [`${epoch}:99`, 'snapshot'], ['other:15', 'snapshot']]) {
    const stream = await open(path(at), { since }, brief);
    const { event } = await stream.json();
    assert.deepEqual([event.mode, event.reset], [mode, mode === 'snapshot' ? true : undefined], since);
    stream.close();
  }
  const metrics = await brief.metrics();
  assert.deepEqual([metrics.iii_stream_resumes_total, metrics.iii_stream_resets_total], [1, 3]);
  await writer.close();
  await atRest(brief);
});

test('?deltas=1 gives operations, unless the client\'s core is another', async () => {
  const at = place();
  await set(at, 'i', { text: 'x'.repeat(1_000) });
  const core = (await (await import('node:fs/promises')).readFile(new URL('../../core/src/lib.rs', import.meta.url), 'utf8')).match(/OPS_VERSION[^=]*=\s*(\d+)/)?.[1] ?? '1';
  const streams = [];
  for (const query of [`?deltas=1&core=${core}`, '?deltas=1', '?deltas=1&core=999', `?core=${core}`, '?deltas=0']) {
    const stream = await open(path(at, query));
    assert.equal((await stream.json()).event.mode, 'snapshot');
    streams.push(stream);
  }
  await peer.result('stream::update', { ...at, item_id: 'i', ops: [{ type: 'append', path: 'text', value: 'tok' }] });
  const events = await Promise.all(streams.map((stream) => stream.take()));
  assert.deepEqual(events.map(({ json }) => ['ops' in json.event, 'data' in json.event]), [[true, false], [true, false], [false, true], [false, true], [false, true]]);
  assert.deepEqual(events[0].json.event.ops, [{ type: 'append', path: 'text', value: 'tok' }]);
  const since = events[0].id.replace(/\d+$/, '1');
  const resumed = await open(path(at, '?deltas=1'), { since });
  assert.equal((await resumed.json()).event.mode, 'resume');
  assert.deepEqual((await resumed.take()).json.event, events[0].json.event);
  for (const stream of [...streams, resumed]) stream.close();
});

test('an item by itself sees only its own, and resumes however long ago that was', async () => {
  const brief = await own({ stream: { history_changes_max: 5 } });
  const writer = await brief.peer();
  const at = { ...place(), item_id: 'mine' };
  const absent = await open(path(at), {}, brief);
  assert.deepEqual((await absent.json()).event.items, []);
  await set(at, 'mine', 1, writer);
  const created = await absent.take();
  assert.equal(created.json.event.type, 'create');
  for (const n of range(50)) await set(at, 'other', n, writer);
  await set(at, 'mine', 2, writer);
  assert.deepEqual((await absent.take()).json.event, { type: 'update', data: 2 });
  const { id } = await (async () => { const stream = await open(path(at), {}, brief); const sync = await stream.take(); stream.close(); return sync; })();
  for (const n of range(50)) await set(at, 'other', n, writer);
  const resumed = await open(path(at), { since: id }, brief);
  assert.equal((await resumed.json()).event.mode, 'resume');
  const old = await open(path(at), { since: created.id }, brief);
  assert.equal((await old.json()).event.mode, 'snapshot', 'it has changed since');
  for (const stream of [absent, resumed, old]) stream.close();
  await writer.close();
  await atRest(brief);
});

test('a quiet stream is kept alive by comments, which no client shows', async () => {
  const lively = await own({ stream: { ping_interval_ms: 100 } });
  const stream = await open('/stream/a/b', {}, lively);
  await stream.json();
  const begun = performance.now();
  for (const n of range(5)) assert.equal((await stream.take()).comment, 'keep-alive', `comment ${n}`);
  const took = performance.now() - begun;
  assert.ok(took >= 350 && took < 2_000, `${took} ms for five`);
  stream.close();
  await atRest(lively);
});

const bind = (worker, trigger_type, function_id, config) => worker.send({ type: 'registertrigger', id: randomUUID(), trigger_type, function_id, config });

test('guards decide, and leave triggers are told when the client goes, by whatever way', async () => {
  const { stream_name } = place();
  const worker = await server.peer();
  const [joined, left] = [new Record(server), new Record(server)];
  const [guard, leave] = [unique('guard'), unique('leave')];
  worker.serve(guard, (input) => { joined.push(input); return { result: { unauthorized: input.group_id === 'secret' } }; });
  worker.serve(leave, (input) => { left.push(input); return { result: {} }; });
  bind(worker, 'stream:join', guard, { stream_name });
  bind(worker, 'stream:leave', leave, { stream_name });
  await worker.settled();
  assert.equal((await open(`/stream/${stream_name}/secret`)).status, 403);
  const aborted = await open(`/stream/${stream_name}/aborted`);
  await aborted.json();
  const reset = await Tcp.connect(server, server.subscribers, GET(`/stream/${stream_name}/reset`, EVENTS));
  await reset.through('\n\n');
  const ended = await Tcp.connect(server, server.subscribers, GET(`/stream/${stream_name}/ended/item`, EVENTS));
  await ended.through('\n\n');
  assert.deepEqual(left.items, []);
  for (const [n, go] of [() => aborted.close(), () => reset.reset(), () => ended.socket.end()].entries()) {
    go();
    await left.count(n + 1);
  }
  assert.deepEqual(left.items, joined.items.slice(1), 'with the same data');
  assert.deepEqual(left.items.map(({ group_id, id }) => [group_id, id]), [['aborted', null], ['reset', null], ['ended', 'item']]);
  await server.within(ended.closed, 'the ended one to be closed');
});

test('the auth function decides; expires_at ends the stream whole; its context reaches the triggers', async () => {
  const guarded = await own({ stream: { auth_function: 'my::auth', auth_timeout_ms: 500 } });
  assert.equal((await open('/stream/a/b', {}, guarded)).status, 503);
  const worker = guarded.sdk();
  worker.registerFunction('my::auth', async ({ query_params: { mode } }) => {
    if (mode[0] === 'no') throw new Error('no');
    return { context: { mode: mode[0] }, ...(mode[0] === 'brief' && { expires_at: Math.floor(Date.now() / 1_000) + 1 }) };
  });
  await settled(worker);
  const by = await guarded.peer();
  const left = new Record(guarded);
  by.serve('leave', (input) => { left.push(input.context); return { result: {} }; });
  bind(by, 'stream:leave', 'leave', {});
  await by.settled();
  assert.equal((await open('/stream/a/b?mode=no', {}, guarded)).status, 401);
  const brief = await open('/stream/a/b?mode=brief', {}, guarded);
  await brief.json();
  assert.equal(await guarded.within(brief.ended, 'the permission to expire'), undefined, 'an end, not a break');
  assert.deepEqual(await left.count(1), [{ mode: 'brief' }]);
});

test('SIGTERM ends streams whole, after everything that came before, while others still read', async () => {
  const ending = await own({ stream: { drain_window_ms: 300 } });
  const writer = await ending.peer();
  const at = place();
  const streams = await Promise.all(range(50).map(() => open(path(at), {}, ending)));
  await Promise.all(streams.map((stream) => stream.json()));
  let isOpen = true;
  writer.closed.then(() => { isOpen = false; });
  const writing = (async () => { for (let n = 1; isOpen; n += 1) await Promise.race([set(at, 'i', n, writer).catch(() => {}), writer.closed]); })();
  await Promise.all(streams.map((stream) => stream.take(({ json }) => json.seq === 5, 'the fifth change')));
  ending.signal('SIGTERM');
  const ends = await Promise.all(streams.map((stream) => ending.within(stream.ended, 'the end of a stream')));
  assert.deepEqual(ends, ends.map(() => undefined), 'every one ends, none breaks off');
  for (const stream of streams) {
    const seqs = stream.events.filter(({ json }) => json).map(({ json }) => json.seq);
    const all = [...seqs.slice(0, 4), 5, ...seqs.slice(4)];
    assert.deepEqual(all, range(all.length).map((n) => n + 1));
  }
  await writing;
  assert.equal((await ending.ended()).code, 0);
  assert.ok(!/without waiting longer until subscribers/.test(ending.log), ending.log);
});

test('streams end whole when the server stops with nobody else there, again and again', async () => {
  for (const round of range(8)) {
    const ending = await own({ stream: { drain_window_ms: 0 } });
    const streams = await Promise.all(range(20).map(() => open('/stream/a/b', {}, ending)));
    await Promise.all(streams.map((stream) => stream.json()));
    ending.signal('SIGTERM');
    const ends = await Promise.all(streams.map((stream) => ending.within(stream.ended, 'the end of a stream')));
    assert.deepEqual(ends.map((error) => error?.cause?.message ?? error?.message), ends.map(() => undefined), `round ${round}`);
    assert.equal((await ending.ended()).code, 0);
  }
});

test('who stops reading is bounded, then cut off, and told of as one that left', async () => {
  const QUEUE = 256 * 1024;
  const bounded = await own({ stream: { queue_bytes_max: QUEUE, blocked_timeout_ms: 1_500, ping_interval_ms: 60_000 } });
  const writer = await bounded.peer();
  const left = new Record(bounded);
  writer.serve('leave', (input) => { left.push(input.group_id); return { result: {} }; });
  bind(writer, 'stream:leave', 'leave', {});
  await writer.settled();
  const at = place();
  const deaf = await Promise.all(range(3).map(() => Tcp.connect(bounded, bounded.subscribers, GET(path(at), EVENTS))));
  await Promise.all(deaf.map((raw) => raw.through('\n\n')));
  for (const raw of deaf) raw.socket.pause();
  const quick = await open(path(at), {}, bounded);
  await quick.json();
  const before = (await bounded.metrics()).process_resident_memory_bytes;
  const text = 'x'.repeat(64 * 1024);
  let queued = 0;
  for (const n of range(300)) {
    await set(at, 'i', { n, text }, writer);
    assert.equal((await quick.take(({ json }) => json)).json.event.data.n, n);
    if (n % 30 === 0) queued = Math.max(queued, (await bounded.metrics()).iii_stream_subscriber_queue_bytes);
  }
  assert.ok(queued <= 4 * (QUEUE + 70_000), `${queued} bytes waited`);
  const during = (await bounded.metrics()).process_resident_memory_bytes;
  assert.ok(during - before < 64 * 1024 * 1024, `${(during - before) / 1e6} MB more`);
  await left.count(3);
  const metrics = await metricsWhen(bounded, (m) => m['iii_stream_connections{port="subscribers"}'] === 1, 'the deaf to be gone');
  assert.equal(metrics['iii_stream_slow_consumer_closed_total{reason="blocked"}'], 3);
  quick.close();
  await left.count(4);
  for (const raw of deaf) {
    raw.socket.resume();
    await bounded.within(raw.closed, 'the TCP connection to have ended');
  }
  await atRest(bounded, { workers: 1 });
});

test('who stops reading for a while and goes on is told how things stand, and then of every change', async () => {
  const bounded = await own({ stream: { queue_bytes_max: 256 * 1024 } });
  const writer = await bounded.peer();
  const at = place();
  const raw = await Tcp.connect(bounded, bounded.subscribers, GET(path(at), EVENTS));
  await raw.through('\r\n\r\n');
  raw.socket.pause();
  const text = 'x'.repeat(64 * 1024);
  for (const n of range(400)) await set(at, `i${n % 7}`, { n, text }, writer);
  raw.socket.resume();
  const reader = new EventStream(bounded);
  const replica = new Replica();
  await raw.until(() => raw.bytes.includes(':400\ndata: ') && raw.bytes.subarray(-4).toString() === '\n\n\r\n', 'the last change', 30_000);
  reader.feed(chunks(raw.bytes).toString());
  let position = 0;
  for (const { id, json } of reader.events.filter(({ json: each }) => each)) {
    if (json.event.type === 'sync' && json.event.mode === 'snapshot' && position > 0) assert.equal(json.event.reset, true);
    replica.take(json);
    if (id) {
      const seq = Number(id.split(':')[1]);
      assert.ok(seq >= position, `ids go forward: ${seq} after ${position}`);
      position = seq;
    }
  }
  assert.equal(replica.seq, 400);
  assert.deepEqual([...replica.items.values()].map(({ n }) => n).sort((a, b) => a - b), range(7).map((n) => n + 393));
  assert.ok((await bounded.metrics()).iii_stream_slow_consumer_syncs_total > 0, 'it did lag');
  raw.destroy();
  await writer.close();
  await atRest(bounded);
});

test('an HTTP/1.0 client gets the stream without chunks, until the end', async () => {
  const at = place();
  await set(at, 'i', 1);
  const raw = await Tcp.connect(server, server.subscribers, `GET ${path(at)} HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n`);
  const head = await raw.through('\r\n\r\n');
  assert.ok(!/transfer-encoding/i.test(head), head);
  assert.match(await raw.through('\n\n'), /^id: \S+:1\ndata: \{/);
  await set(at, 'i', 2);
  assert.match(await raw.through('\n\n'), /^id: \S+:2\ndata: \{.*\n\n$/);
  raw.destroy();
});

const curl = (() => { try { execFileSync('curl', ['--version']); return false; } catch { return 'no curl'; } })();

test('curl -N shows events as they come, and ends with 0 when the server stops', { skip: curl }, async () => {
  const ending = await own({ stream: { drain_window_ms: 0 } });
  const writer = await ending.peer();
  const child = spawn('curl', ['-sSN', '-H', 'Accept: text/event-stream', `${http(ending)}/stream/a/b`], { stdio: ['ignore', 'pipe', 'pipe'] });
  const stream = new EventStream(ending);
  const ended = deferred();
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text) => stream.feed(text));
  child.stderr.setEncoding('utf8').on('data', (text) => { said += text; });
  child.on('exit', ended.resolve);
  await stream.json();
  await set({ stream_name: 'a', group_id: 'b' }, 'i', 'here', writer);
  assert.equal((await stream.json()).event.data, 'here');
  ending.signal('SIGTERM');
  assert.equal(await within(ended.promise, 'curl to end'), 0, said);
});

const sh = (command) => execFileSync('sh', ['-c', command], { stdio: 'pipe' });
const noNamespaces = (() => {
  if (curl) return curl;
  try { sh('ip netns add iii-probe && ip netns del iii-probe'); return false; } catch { return 'no network namespaces: needs root and ip'; }
})();

test('a client whose cable is cut is found out, though it never says a word anyway', { skip: noNamespaces }, async () => {
  const watchful = await own({ stream: { host: '0.0.0.0', ping_interval_ms: 300, idle_timeout_ms: 2_000, blocked_timeout_ms: 2_000 } });
  const worker = await watchful.peer();
  const left = new Record(watchful);
  worker.serve('leave', (input) => { left.push(input.group_id); return { result: {} }; });
  bind(worker, 'stream:leave', 'leave', {});
  await worker.settled();
  const name = `iii${process.pid % 100_000}`;
  const net = `10.231.${process.pid % 250}`;
  sh(`ip netns add ${name} && ip link add ${name}a type veth peer name ${name}b && ip link set ${name}b netns ${name}
    ip addr add ${net}.1/24 dev ${name}a && ip link set ${name}a up && ip netns exec ${name} ip addr add ${net}.2/24 dev ${name}b && ip netns exec ${name} ip link set ${name}b up`);
  const child = spawn('ip', ['netns', 'exec', name, 'curl', '-sN', '-H', 'Accept: text/event-stream', `http://${net}.1:${new URL(watchful.subscribers).port}/stream/a/cut`], { stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    const begun = deferred();
    child.stdout.once('data', begun.resolve);
    await watchful.within(begun.promise, 'the snapshot');
    sh(`ip link set ${name}a down`);
    const since = performance.now();
    assert.deepEqual(await left.count(1), ['cut']);
    assert.ok(performance.now() - since >= 1_500, 'not before its time');
    await atRest(watchful, { workers: 1 });
  } finally {
    child.kill('SIGKILL');
    sh(`ip netns del ${name}; ip link del ${name}a 2>/dev/null || true`);
  }
});

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const noChromium = existsSync(executablePath) ? false : `no Chromium at ${executablePath}; set $CHROMIUM`;

test('a browser\'s EventSource comes back by itself, to a server that was restarted', { skip: noChromium }, async () => {
  // A port of our own, so that the next server can have the same.
  const port = await new Promise((resolve) => { const probe = createServer().listen(0, '127.0.0.1', () => { const { port: free } = probe.address(); probe.close(() => resolve(free)); }); });
  const config = { stream: { port, drain_window_ms: 0, allowed_origins: [] } };
  const site = createServer((request, response) => response.setHeader('content-type', 'text/html').end('<!doctype html><link rel="icon" href="data:,"><title>t</title>'));
  await new Promise((resolve) => { site.listen(0, '127.0.0.1', resolve); });
  const browser = await chromium.launch({ executablePath, args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'] });
  try {
    const first = await own(config);
    const at = { stream_name: 'browser', group_id: 'g' };
    const writer = await first.peer();
    await set(at, 'i', 'before', writer);
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${site.address().port}/`);
    await page.evaluate((url) => {
      window.seen = [];
      window.states = [];
      window.source = new EventSource(url);
      window.source.onopen = () => window.states.push('open');
      window.source.onerror = () => window.states.push(`error ${window.source.readyState}`);
      window.source.onmessage = ({ lastEventId, data }) => window.seen.push({ lastEventId, frame: JSON.parse(data) });
    }, `http://127.0.0.1:${port}${path(at)}`);
    await page.waitForFunction(() => window.seen.length === 1);
    await set(at, 'i', 'live', writer);
    await page.waitForFunction(() => window.seen.length === 2);
    await first.terminate();
    servers.splice(servers.indexOf(first), 1);
    await page.waitForFunction(() => window.states.at(-1) === 'error 0');
    const second = await own(config);
    const again = await second.peer();
    await set(at, 'j', 'after', again);
    await page.waitForFunction(() => window.seen.some(({ frame }) => frame.event.reset), undefined, { timeout: 30_000 });
    await set(at, 'j', 'live again', again);
    await page.waitForFunction(() => window.seen.at(-1).frame.event.data === 'live again');
    // A break of the connection alone, by the page itself going offline, is resumed.
    const { seen, states } = await page.evaluate(() => ({ seen: window.seen, states: window.states }));
    const [old, epoch] = [seen[0].frame.epoch, seen.at(-1).lastEventId.split(':')[0]];
    assert.notEqual(old, epoch);
    const reset = seen.find(({ frame }) => frame.event.reset);
    assert.deepEqual([reset.frame.epoch, reset.frame.event.mode], [epoch, 'snapshot']);
    assert.ok(!JSON.stringify(reset.frame.event.items).includes('live'), 'nothing of the old history');
    assert.deepEqual(seen.slice(0, 2).map(({ lastEventId }) => lastEventId), [`${old}:1`, `${old}:2`]);
    assert.equal(states[0], 'open');
    assert.equal(states.at(-1), 'open');
    await page.close();
    await metricsWhen(second, (m) => m.iii_stream_event_streams === 0, 'the page to have gone');
  } finally {
    await browser.close();
    site.close();
  }
});

test('a browser\'s EventSource that is cut resumes without a gap', { skip: noChromium }, async () => {
  // expires_at cuts each connection after a second or two: the browser comes back with its last id.
  const brief = await own({ stream: { auth_function: 'my::auth' } });
  const worker = brief.sdk();
  worker.registerFunction('my::auth', async () => ({ context: {}, expires_at: Math.floor(Date.now() / 1_000) + 2 }));
  await settled(worker);
  const writer = await brief.peer();
  const site = createServer((request, response) => response.setHeader('content-type', 'text/html').end('<!doctype html><link rel="icon" href="data:,"><title>t</title>'));
  await new Promise((resolve) => { site.listen(0, '127.0.0.1', resolve); });
  const browser = await chromium.launch({ executablePath, args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'] });
  try {
    const at = { stream_name: 'browser', group_id: 'cut' };
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${site.address().port}/`);
    await page.evaluate((url) => {
      Object.assign(window, { seen: [], opened: 0 });
      const source = new EventSource(url);
      source.onopen = () => { window.opened += 1; };
      source.onmessage = ({ data }) => window.seen.push(JSON.parse(data));
    }, http(brief) + path(at));
    let isDone = false;
    let written = 0;
    const writing = (async () => { while (!isDone) { written += 1; await set(at, 'i', written, writer); await writer.ping(); } })();
    await page.waitForFunction(() => window.opened >= 3, undefined, { timeout: 40_000 });
    isDone = true;
    await writing;
    await page.waitForFunction((last) => window.seen.at(-1).seq === last, written);
    const seen = await page.evaluate(() => window.seen);
    const modes = seen.filter(({ event }) => event.type === 'sync').map(({ event }) => event.mode + (event.reset ? ' reset' : ''));
    const replica = new Replica();
    for (const frame of seen) replica.take(frame);
    assert.equal(replica.items.get('i'), written);
    assert.equal(modes[0], 'snapshot');
    assert.ok(modes.length >= 3);
  } finally {
    await browser.close();
    site.close();
  }
});

test('nothing is left of all that', async () => {
  await metricsWhen(server, (m) => m.iii_stream_event_streams === 0 && m['iii_stream_connections{port="subscribers"}'] === 0, 'all to be gone');
  await idle(server);
});
