// The load generator against a real server: every load for a moment, and what it says when there is nobody to load.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';
import { deferred, serverBinary, startServer, within } from './harness.mjs';

let server;
const children = [];
before(async () => { server = await startServer(); });
after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await server?.stop();
});

/** Runs `iii-stream bench` to its end; an address given twice counts as given last. */
function run(args, { env = {}, of = server } = {}) {
  const child = spawn(serverBinary(), ['bench', ...args, ...(of ? ['--url', of.subscribers, '--worker-url', of.workers] : [])], {
    stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env },
  });
  children.push(child);
  const ended = deferred();
  const out = { stdout: '', stderr: '' };
  child.stderr.setEncoding('utf8').on('data', (text) => { out.stderr += text; });
  child.stdout.setEncoding('utf8').on('data', (text) => { out.stdout += text; });
  child.on('close', (code) => ended.resolve({ code, ...out }));
  return within(ended.promise, `iii-stream bench ${args.join(' ')} to end`, { server, ms: 60_000 });
}

/** Runs a load and returns its results, which must be without fault. */
async function load(...args) {
  const { code, stdout, stderr } = await run([...args, '--pid', String(server.pid), '--json', '-']);
  assert.equal(code, 0, stderr);
  const { bench, results, notes } = JSON.parse(stdout);
  assert.equal(bench, args[0]);
  assert.ok(results.delivered > 0, stdout);
  const { lost, duplicated, misordered } = results;
  assert.deepEqual({ lost, duplicated, misordered }, { lost: 0, duplicated: 0, misordered: 0 }, stdout);
  assert.deepEqual(notes.filter((note) => note.includes('ended')), []);
  return results;
}

for (const what of ['set', 'update', 'send', 'get']) {
  test(`writes: ${what}, each answered once and in order`, async () => {
    const results = await load('writes', what, '--seconds', '0.5', '--connections', '3', '--depth', '8', '--groups', '4', '--items', '100');
    assert.ok(results.calls_per_second > 0 && results.p50_us > 0 && results.p50_us <= results.p99_us && results.p99_us <= results.max_us * 1.01);
    assert.ok(results.server_cpu_us >= 0 && results.server_rss_mib > 1);
  });
}

test('writes at a rate: as many as were due', async () => {
  const results = await load('writes', '--seconds', '1', '--rate', '500', '--connections', '2');
  // A fifth of the time is warm-up, whose calls are answered too; a busy machine ends a little later.
  assert.ok(Math.abs(results.delivered - 600) <= 30, `${results.delivered} calls`);
});

test('fanout: window after window reaches every subscriber', async () => {
  const results = await load('fanout', '--subscribers', '20', '--seconds', '0.5');
  assert.equal(results.delivered, results.published * 20);
  assert.equal(results.frame_bytes, 393);
  await load('fanout', '--subscribers', '20', '--seconds', '0.5', '--window', '1', '--bytes', '20000');
});

test('fanout at a rate, beside idle subscribers: as many as were due', async () => {
  const results = await load('fanout', '--subscribers', '5', '--idle', '30', '--rate', '200', '--seconds', '1');
  assert.ok(Math.abs(results.published - 200) <= 10, `${results.published} events`);
  assert.ok(results.silence_ms > 0);
});

for (const groups of ['own', 'one']) {
  test(`connect: everybody in ${groups} group gets in, and then an event`, async () => {
    const results = await load('connect', '--subscribers', '200', '--groups', groups);
    assert.equal(results.delivered, 200);
    assert.ok(results.joined_per_second > 0 && Number.isFinite(results.server_bytes));
  });
}

for (const elsewhere of [[], ['--stuck-elsewhere']]) {
  test(`slow: those who read lose nothing ${elsewhere}`, async () => {
    const results = await load('slow', '--subscribers', '8', '--stuck', '2', '--seconds', '1', ...elsewhere);
    // 50 events for 8 and for 6 readers, up to those under way when the time was over: more of them on a busy machine.
    assert.ok(results.delivered >= 500 && results.delivered <= 780, `${results.delivered} delivered`);
    assert.ok(results.without_server_rss_peak_mib > 0 && results.with_silence_ms > 0);
  });
}

test('growth: all sizes, and appends where the server has deltas', async () => {
  const { code, stdout, stderr } = await run(['growth', '--most', '100', '--calls', '20', '--passes', '2', '--subscribers', '3', '--appends', '10',
    '--tokens', '30', '--json', '-']);
  assert.equal(code, 0, stderr);
  const { results, rows, notes } = JSON.parse(stdout);
  assert.deepEqual([results.lost, results.duplicated, results.misordered], [0, 0, 0]);
  assert.equal(rows.filter(({ what }) => what.endsWith(': set, p50')).length, 6);
  assert.ok(results.items_set_ratio > 0 && results.groups_delete_ratio > 0);
  if (notes.some((note) => note.includes('version 2'))) return;
  // 20 warm-up appends come on top of those asked for.
  assert.equal(results.delivered, 2 * 3 * 30 + 2 * 50);
  assert.ok(results.token_delta_bytes > results.token_text_bytes && results.token_delta_bytes < results.token_value_bytes);
});

test('a server that is not there: which, and what to do', async () => {
  const { code, stdout, stderr } = await run(['fanout', '--url', 'ws://127.0.0.1:1', '--worker-url', 'ws://127.0.0.1:1'], { of: null });
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(stderr, /cannot reach 127\.0\.0\.1:1: .*Start it with: iii-stream/);
});

test('a token that is missing is asked for, one that is given is shown', async () => {
  const guarded = await startServer({ manager: { token: 'let-me-in' } });
  try {
    const args = ['fanout', '--subscribers', '2', '--seconds', '0.2', '--json', '-'];
    const refused = await run(args, { of: guarded });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /401/);
    assert.equal((await run(args, { of: guarded, env: { III_TOKEN: 'let-me-in' } })).code, 0);
    assert.equal((await run([...args, '--token', 'let-me-in'], { of: guarded })).code, 0);
  } finally {
    await guarded.stop();
  }
});

test('more subscribers than files may be open: how to allow more', async () => {
  const { code, stderr } = await run(['fanout', '--subscribers', '90000000']);
  assert.equal(code, 1);
  assert.match(stderr, /ulimit -n 90000040/);
});

test('a table is shown, and JSON goes where it is wanted', async () => {
  const { code, stdout } = await run(['fanout', '--subscribers', '2', '--seconds', '0.2']);
  assert.equal(code, 0);
  assert.match(stdout, /^fanout: .*\n[\s\S]* delivered a second +[\d,]+ \/s\n/);
  assert.match((await run(['--help'], { of: null })).stdout, /writes[\s\S]*fanout[\s\S]*connect[\s\S]*slow[\s\S]*growth/);
});
