// The command line against a running server: call prints a result or an error, watch prints every frame.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';
import { Record, deferred, serverBinary, startServer, within } from './harness.mjs';

let server;
const children = [];
before(async () => { server = await startServer(); });
after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await server?.stop();
});

/** Runs the binary; `lines` fill up while it runs, `ended` resolves with its exit code and texts. */
function run(...args) {
  const child = spawn(serverBinary(), args, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const lines = new Record(server);
  const ended = deferred();
  const out = { stdout: '', stderr: '' };
  let rest = '';
  child.stderr.setEncoding('utf8').on('data', (text) => { out.stderr += text; });
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out.stdout += text;
    const parts = (rest + text).split('\n');
    rest = parts.pop();
    parts.forEach((line) => lines.push(line));
  });
  child.on('close', (code) => ended.resolve({ code, ...out }));
  return { child, lines, ended: within(ended.promise, `iii-stream ${args[0]} to end`, { server }) };
}
const call = (fn, input) => run('call', fn, JSON.stringify(input), '--worker-url', server.workers).ended;
const at = { stream_name: 'cli', group_id: 'g', item_id: 'i' };

test('call prints the result as JSON and exits 0', async () => {
  const set = await call('stream::set', { ...at, data: { n: 1 } });
  assert.deepEqual([set.code, JSON.parse(set.stdout)], [0, { old_value: null, new_value: { n: 1 } }], set.stderr);
  assert.deepEqual(JSON.parse((await call('stream::get', at)).stdout), { n: 1 });
});

test('call prints an error on stderr and exits 1', async () => {
  const { code, stdout, stderr } = await call('no::such', {});
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(stderr, /function_not_found/);
  const refused = await call('stream::set', at);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /deserialization_error[\s\S]*data/);
});

test('call without a server says so and exits 1', async () => {
  const { code, stderr } = await run('call', 'stream::get', '{}', '--worker-url', 'ws://127.0.0.1:1').ended;
  assert.equal(code, 1);
  assert.match(stderr, /127\.0\.0\.1:1/);
});

test('watch prints every frame as one JSON line', async () => {
  const watch = run('watch', 'cli', 'watched', '--url', server.subscribers, '--json');
  watch.ended.catch(() => {}); // it ends only when it is told to
  await watch.lines.count(1);
  const peer = await server.peer();
  for (const n of [1, 2, 3]) await peer.result('stream::set', { stream_name: 'cli', group_id: 'watched', item_id: 'i', data: { n, text: 'a\nb' } });
  const frames = (await watch.lines.count(4)).map((line) => JSON.parse(line));
  assert.deepEqual(frames.map((frame) => frame.event.type), ['sync', 'create', 'update', 'update']);
  assert.deepEqual(frames[3].event.data, { n: 3, text: 'a\nb' });
  watch.child.kill('SIGTERM');
  await watch.ended;
});

test('watch of an item prints that item only', async () => {
  const watch = run('watch', 'cli', 'items', 'mine', '--url', server.subscribers, '--json');
  watch.ended.catch(() => {});
  await watch.lines.count(1);
  const peer = await server.peer();
  for (const item_id of ['other', 'mine']) await peer.result('stream::set', { stream_name: 'cli', group_id: 'items', item_id, data: item_id });
  const frames = (await watch.lines.count(2)).map((line) => JSON.parse(line));
  assert.deepEqual(frames.map((frame) => [frame.id, frame.event.data]), [['mine', null], ['mine', 'mine']]);
  watch.child.kill('SIGTERM');
  await watch.ended;
});

test('SIGTERM ends the server with 0, subscribers with 1001, workers with 1012', async () => {
  const other = await startServer();
  const [peer, subscriber] = [await other.peer(), await other.subscriber()];
  await other.terminate();
  const closed = await within(Promise.all([peer.closed, subscriber.closed]), 'both connections to be closed');
  assert.deepEqual(closed.map(({ code }) => code), [1012, 1001]);
});
