// The admin listener: health, readiness, metrics that move with what happens, and whatever is no request at all.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { deferred, keepsFiles, rejection, serverBinary, startServer, unique, within } from './harness.mjs';
import { metricsWhen } from './raw.mjs';

const servers = [];
let server;
let peer;
before(async () => {
  server = await own();
  peer = await server.peer();
});
after(() => Promise.all(servers.map((started) => started.stop())));

async function own(config) {
  const started = await startServer(config);
  servers.push(started);
  return started;
}

const place = () => ({ stream_name: unique('admin'), group_id: 'g', item_id: 'i' });

/** Waits until a metric has a value; it is asked for again and again, since some follow a moment after what they count. */
async function metric(name, value, on = server) {
  let last;
  const reached = async () => {
    last = await on.metrics();
    if (last[name] !== value) return reached();
  };
  await on.within(reached(), `${name} to be ${value}`).catch((error) => {
    error.message += `\nit is ${last?.[name]}`;
    throw error;
  });
}

/** How much these metrics grow while something is done. */
async function growth(names, done, on = server) {
  const first = await on.metrics();
  await done();
  const last = await on.metrics();
  return names.map((name) => (last[name] ?? 0) - (first[name] ?? 0));
}

test('/health says that it works, since when, and what is kept', async () => {
  const { status, headers, body } = await server.page('/health');
  assert.deepEqual([status, headers['content-type']], [200, 'application/json']);
  const { uptime_s, version, ...rest } = JSON.parse(body);
  assert.ok(Number.isInteger(uptime_s) && /^\d+\.\d+\.\d+$/.test(version), body);
  const store = keepsFiles
    ? { name: 'file', durability: 'fsync: an acknowledged change survives a power cut' }
    : { name: 'memory', durability: 'none: everything is lost when this process ends' };
  assert.deepEqual(rest, { status: 'ok', store });
  const custom = await own({ stream: { adapter: { name: 'my::adapter' } } });
  assert.equal(JSON.parse((await custom.page('/health')).body).store.name, 'custom');
});

test('/ready, the list of pages, and what is not there', async () => {
  const ready = await server.page('/ready');
  assert.deepEqual([ready.status, JSON.parse(ready.body)], [200, { ready: true }]);
  const index = await server.page('/');
  assert.equal(index.status, 200);
  for (const path of ['/health', '/ready', '/metrics']) assert.ok(index.body.includes(path), index.body);
  for (const path of ['/nope', '/metrics/', '/stream/a/b', '//', '/?x', '/health?verbose=1']) {
    const { status, body } = await server.page(path);
    const isThere = path.includes('?');
    assert.equal(status, isThere ? 200 : 404, path);
    if (!isThere) assert.match(body, /\/metrics/, 'the list stands in the refusal');
  }
});

test('only GET and HEAD are answered', async () => {
  for (const path of ['/', '/health', '/ready', '/metrics', '/nope']) {
    const [got, head, posted] = await Promise.all(['GET', 'HEAD', 'POST'].map((method) => server.page(path, { method })));
    assert.deepEqual([head.status, head.headers['content-type'], head.body], [got.status, got.headers['content-type'], ''], path);
    assert.deepEqual([posted.status, posted.headers.allow], [405, 'GET, HEAD'], path);
  }
});

test('/metrics is Prometheus text: each metric has help, a type and samples of its own', async () => {
  const { status, headers, body } = await server.page('/metrics');
  assert.deepEqual([status, headers['content-type']], [200, 'text/plain; version=0.0.4; charset=utf-8']);
  assert.ok(body.endsWith('\n'));
  const seen = new Set();
  let current;
  for (const line of body.trimEnd().split('\n')) {
    const [, kind, name, rest] = /^# (HELP|TYPE) ([a-z0-9_]+) (.+)$/.exec(line) ?? [];
    if (kind === 'HELP') {
      assert.ok(!seen.has(name), `${name} comes once`);
      seen.add(name);
      current = { name };
    } else if (kind === 'TYPE') {
      assert.equal(name, current.name);
      assert.match(rest, /^(counter|gauge|histogram)$/);
      current.suffix = rest === 'histogram' ? '(_bucket|_sum|_count)' : '';
    } else {
      assert.match(line, new RegExp(`^${current.name}${current.suffix}(\\{([a-z]+="([^"\\\\]|\\\\.)*",?)+\\})? [0-9.e+-]+$`));
    }
  }
  assert.ok(seen.size > 40, `${seen.size}`);
});

test('connections, workers and subscribers are counted while they are there', async () => {
  const other = await own({ stream: { connections_max: 2 } });
  const gauges = ['workers', 'subscribers'].flatMap((port) => [`iii_stream_connections{port="${port}"}`, `iii_stream_${port}`]);
  const now = async (...values) => { for (const [n, value] of values.entries()) await metric(gauges[n], value, other); };
  await now(0, 0, 0, 0);
  const [worker, first, second] = [await other.peer(), await other.subscriber(), await other.subscriber()];
  await now(1, 1, 2, 2);
  const refused = await growth(['iii_stream_connections_refused_total{port="subscribers"}', 'iii_stream_connections_total{port="subscribers"}'],
    () => rejection(other.subscriber(), 'a third connection'), other);
  assert.deepEqual(refused, [1, 0]);
  await first.join('admin', 'a');
  await second.join('admin', 'b');
  await metric('iii_stream_subscribed_groups', 2, other);
  for (const socket of [worker, first, second]) await socket.close();
  await now(0, 0, 0, 0);
  await metric('iii_stream_subscribed_groups', 0, other);
  const all = await other.metrics();
  assert.deepEqual([all['iii_stream_connections_max{port="subscribers"}'], all['iii_stream_connections_total{port="workers"}']], [2, 1]);
});

test('joins, changes, deliveries and closes are counted', async () => {
  const other = await own();
  const [worker, subscriber] = [await other.peer(), await other.subscriber()];
  const at = { stream_name: 'admin', group_id: 'g', item_id: 'i' };
  await subscriber.join('admin', 'g', undefined, 's');
  for (const data of [1, 2, 3]) await worker.result('stream::set', { ...at, data });
  await worker.result('stream::send', { ...at, id: 'i', type: 'ping', data: null });
  await worker.result('stream::delete', at);
  const events = [];
  while (events.length < 5) events.push(await subscriber.next());
  // Each with the header of a frame between 126 bytes and 64 KiB.
  const bytes = events.reduce((sum, { text }) => sum + Buffer.byteLength(text) + 4, 0);
  const expected = {
    iii_stream_joins_total: 1, iii_stream_subscriptions: 1, iii_stream_snapshot_pages_total: 1, iii_stream_subscriber_messages_total: 1,
    'iii_stream_changes_total{kind="create"}': 1, 'iii_stream_changes_total{kind="update"}': 2,
    'iii_stream_changes_total{kind="event"}': 1, 'iii_stream_changes_total{kind="delete"}': 1,
    iii_stream_delivered_messages_total: 5, iii_stream_delivered_bytes_total: bytes, iii_stream_fanout_messages_sum: 5,
  };
  const all = await other.metrics();
  assert.deepEqual(Object.fromEntries(Object.keys(expected).map((name) => [name, all[name]])), expected);
  const steps = all.iii_stream_fanout_messages_count;
  assert.ok(steps >= 1 && steps <= 5, `${steps} steps`);
  subscriber.send({ type: 'leave', data: { subscriptionId: 's', streamName: 'admin', groupId: 'g' } });
  await metric('iii_stream_leaves_total', 1, other);
  await metric('iii_stream_subscriptions', 0, other);
  subscriber.send('x'.repeat(2_000_000));
  await other.within(subscriber.closed, 'the close');
  await metric('iii_stream_closes_total{code="1009"}', 1, other);
});

test('calls are counted by function and outcome, and timed', async () => {
  const at = place();
  const sample = (name, outcome) => `iii_stream_calls_total{function="stream::${name}",outcome="${outcome}"}`;
  const names = [
    sample('set', 'ok'), sample('set', 'deserialization_error'), sample('get', 'ok'), sample('delete', 'precondition_failed'),
    'iii_stream_call_seconds_count{function="stream::set"}', 'iii_stream_call_seconds_bucket{function="stream::set",le="+Inf"}',
  ];
  const grown = await growth(names, async () => {
    for (const data of [1, 2, 3]) await peer.result('stream::set', { ...at, data });
    await peer.call('stream::set', {});
    await peer.result('stream::get', at);
    await peer.call('stream::delete', { ...at, if: { seq: 99 } });
    peer.void('stream::set', { ...at, data: 4 });
    await peer.result('stream::list', at); // shows it, so it is done
  });
  assert.deepEqual(grown, [4, 1, 1, 1, 5, 5]);
  const { 'iii_stream_call_seconds_sum{function="stream::set"}': sum } = await server.metrics();
  assert.ok(sum > 0 && sum < 10, `${sum}`);
});

test('errors of a worker that keeps a stream are counted together, whatever they are called', async () => {
  const stream_name = unique('kept');
  peer.serve(`stream::get(${stream_name})`, () => ({ error: { code: unique('code'), message: 'no' } }));
  await peer.settled();
  const names = ['iii_stream_calls_total{function="stream::get",outcome="worker_error"}', 'iii_stream_invocations_total'];
  const grown = await growth(names, async () => {
    for (let n = 0; n < 3; n += 1) await peer.call('stream::get', { stream_name, group_id: 'g', item_id: 'i' });
  });
  assert.deepEqual(grown, [3, 3]);
});

test('calls that workers execute, and trigger calls that wait, are seen while they last', async () => {
  const other = await own({ stream: { trigger_open_max: 1, trigger_queue_max: 1 } });
  const [owner, caller] = [await other.peer(), await other.peer()];
  const asked = deferred();
  owner.serve('slow', (data, frame) => { asked.resolve(frame.invocation_id); });
  await owner.settled();
  const answer = caller.call('slow', {});
  const invocation_id = await other.within(asked.promise, 'the call');
  await metric('iii_stream_invocations', 1, other);
  owner.send({ type: 'invocationresult', invocation_id, function_id: 'slow', result: 1 });
  await answer;
  await metric('iii_stream_invocations', 0, other);

  owner.serve('on::stuck', () => undefined);
  owner.send({ type: 'registertrigger', id: 't', trigger_type: 'stream', function_id: 'on::stuck', config: { stream_name: 'admin' } });
  await owner.settled();
  for (let n = 0; n < 20; n += 1) await caller.result('stream::set', { stream_name: 'admin', group_id: 'g', item_id: 'i', data: n });
  // One is open, at most two wait in the lane and its queue; all others are lost.
  const told = ({ iii_stream_trigger_calls_waiting: waiting, iii_stream_trigger_calls_lost_total: lost }) => lost + waiting === 20 && waiting >= 1 && waiting <= 4;
  await metricsWhen(other, told, 'all twenty to wait or to be lost');
  await owner.close();
  await metric('iii_stream_trigger_calls_waiting', 0, other);
});

test('refused calls, overdue calls and refused requests are counted', async () => {
  const other = await own({ manager: { calls_in_flight_max: 1, invocation_timeout_ms: 100, token: 'open-sesame' } });
  const headers = { Authorization: 'Bearer open-sesame' };
  const [owner, caller] = [await other.peer('/', { headers }), await other.peer('/', { headers })];
  owner.serve('never', () => undefined);
  await owner.settled();
  const overdue = caller.call('never', {});
  assert.equal((await caller.call('never', {})).error.code, 'too_many_calls');
  assert.equal((await overdue).error.code, 'invocation_timeout');
  await rejection(other.peer('/'), 'a worker without a token');
  await rejection(other.subscriber('/no/such/path'), 'a path that there is not');
  for (const [name, value] of [
    ['iii_stream_calls_refused_total', 1], ['iii_stream_invocation_timeouts_total', 1],
    ['iii_stream_requests_refused_total{port="workers",code="401"}', 1], ['iii_stream_requests_refused_total{port="subscribers",code="404"}', 1],
  ]) await metric(name, value, other);
});

test('the process is measured', async () => {
  const { process_resident_memory_bytes: memory, process_open_fds: files, process_max_fds: filesMax, ...all } = await server.metrics();
  assert.ok(memory > 1e6 && memory < 1e9, `${memory}`);
  assert.ok(files > 5 && files < filesMax, `${files} of ${filesMax}`);
  assert.ok(all.process_cpu_seconds_total >= 0 && all.iii_stream_uptime_seconds > 0);
  assert.equal(Object.keys(all).filter((name) => name.startsWith('iii_stream_info{version="')).length, 1);
});

test('what is no request disturbs nobody', async () => {
  const { hostname, port } = new URL(server.admin);
  const garbage = [
    '', '\r\n\r\n', 'GET', 'GET /metrics', 'GET /metrics HTTP/9.9\r\n\r\n', `GET /${'x'.repeat(100_000)} HTTP/1.1\r\n\r\n`,
    `GET / HTTP/1.1\r\n${'a: b\r\n'.repeat(5_000)}\r\n`, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n', 'GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n',
    'GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n',
  ];
  const answers = await Promise.all(garbage.map((text) => new Promise((resolve) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.end(text));
    socket.on('data', (data) => { answer += data; }).on('error', () => {}).on('close', () => resolve(answer.slice(0, 12)));
  })));
  assert.ok(answers.every((answer) => /^$|^HTTP\/1\.[01] (200|4\d\d)/.test(answer)), JSON.stringify(answers));
  assert.equal((await server.page('/ready')).status, 200);
});

test('more connections than there is room for are closed, and the room comes back', async () => {
  const { hostname, port } = new URL(server.admin);
  const silent = await Promise.all(Array.from({ length: 80 }, () => new Promise((resolve) => {
    const socket = connect(Number(port), hostname);
    socket.on('error', () => {}).on('close', () => { socket.isClosed = true; }).on('connect', () => resolve(socket));
  })));
  const refused = async () => {
    if (silent.filter((socket) => socket.isClosed).length < 16) {
      await new Promise((resolve) => { setTimeout(resolve, 5); });
      return refused();
    }
  };
  await server.within(refused(), 'sixteen of eighty connections to be closed');
  assert.equal(await peer.ping('workers'), 'workers', 'the other ports do not notice');
  for (const socket of silent) socket.destroy();
  const room = async () => {
    try { return (await server.page('/ready')).status; } catch { return room(); }
  };
  assert.equal(await server.within(room(), 'room'), 200);
  const { 'iii_stream_connections_refused_total{port="admin"}': count } = await server.metrics();
  assert.ok(count >= 16, `${count}`);
});

/** Runs the binary with these lines of configuration until it prints its addresses or ends. */
async function started(t, lines) {
  const folder = await mkdtemp(join(tmpdir(), 'iii-stream-admin-'));
  const config = join(folder, 'config.yaml');
  await writeFile(config, `- name: iii-stream\n  config:\n    port: 0\n    host: 127.0.0.1\n${lines}- name: iii-worker-manager\n  config: { port: 0 }\n`);
  const child = spawn(serverBinary(), ['--config', config], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, RUST_LOG: 'info' } });
  t.after(() => { child.kill('SIGKILL'); return rm(folder, { recursive: true }); });
  const out = { stdout: '', stderr: '' };
  const done = deferred();
  child.stdout.setEncoding('utf8').on('data', (text) => { out.stdout += text; if (out.stdout.includes('\n\n')) done.resolve(); });
  child.stderr.setEncoding('utf8').on('data', (text) => { out.stderr += text; });
  child.on('close', (code) => { out.code = code; done.resolve(); });
  await within(done.promise, 'the server to start or to end');
  return out;
}

test('a port that is taken is an error where it was asked for, and a warning where it was not', async (t) => {
  const { port } = new URL(server.admin);
  const refused = await started(t, `    admin_port: ${port}\n`);
  assert.deepEqual([refused.code, refused.stdout], [1, ''], refused.stderr);
  assert.match(refused.stderr, new RegExp(`cannot listen on 127\\.0\\.0\\.1:${port} for the admin listener`));

  // Another server on this machine may have the default port already, which is just as well.
  const holder = createServer();
  await new Promise((resolve) => { holder.once('error', resolve).listen(3113, '127.0.0.1', resolve); });
  t.after(() => holder.close());
  const without = await started(t, '');
  assert.equal(without.code, undefined, without.stderr);
  assert.doesNotMatch(without.stdout, /^ *admin /m);
  assert.match(without.stderr, /WARN 127\.0\.0\.1:3113 is taken, so there is no admin listener/);
});
