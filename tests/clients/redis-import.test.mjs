// import and verify of what an iii engine keeps in Redis, filled here by hand as an engine does.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';
import { deferred, newFolder, serverBinary, startServer, within } from './harness.mjs';
import { startRedis, withoutRedis } from './redis.mjs';

const skip = withoutRedis;
const servers = [];
let redis;
let folder;
before(async () => {
  folder = await newFolder();
  if (!skip) redis = await startRedis();
});
after(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  await redis?.stop();
});

/** Runs the binary; resolves with its exit code and texts. */
function run(...args) {
  const child = spawn(serverBinary(), args, { cwd: folder });
  const ended = deferred();
  const out = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => { out[name] += text; });
  child.on('close', (code) => ended.resolve({ code, ...out }));
  return within(ended.promise, `iii-stream ${args.join(' ')}`, { ms: 120_000 });
}
const ok = (ended) => { assert.equal(ended.code, 0, ended.stderr); return ended; };
async function fresh(options) {
  const server = await startServer(options);
  servers.push(server);
  const peer = await server.peer();
  return { peer, address: ['--address', new URL(server.workers).host] };
}
/** Every test has a database of its own. */
let databases = 0;
function database() {
  const number = databases += 1;
  const fill = async (key, ...pairs) => {
    const connection = redis.connect();
    await connection.call('SELECT', number);
    await connection.call('HSET', key, ...pairs);
    connection.close();
  };
  return { from: `${redis.url}/${number}`, fill };
}
const list = async ({ peer }, stream_name, group_id) => Object.fromEntries((await peer.result('stream::list', { stream_name, group_id, meta: true }))
  .map(({ id, value }) => [id, value]));

test('groups and scopes come over, whatever their names, into a server and into a directory', { skip }, async () => {
  const { from, fill } = database();
  await fill('stream:chat:r[1]*?', 'm1', '{"text":"hi"}', 'none', 'null', 'lua', '1.2345678901235e+18');
  await fill('stream:a*b\\c:🦀', 'x/y z', '{ "n" : [ ] }');
  await fill('state:users:vip', 'u1', '{"n":1}');
  await fill('other:stream:chat:r1', 'x', '1');
  const target = await fresh();
  const { stderr } = ok(await run('import', '--from', from, ...target.address));
  assert.match(stderr, /^checked 5 items[\s\S]*^imported 5 items/m);
  assert.doesNotMatch(stderr, /ambiguous/);
  assert.deepEqual(await list(target, 'chat', 'r[1]*?'), { m1: { text: 'hi' }, none: null, lua: 1.2345678901235e18 });
  assert.deepEqual(await list(target, 'a*b\\c', '🦀'), { 'x/y z': { n: [] } });
  assert.deepEqual(await target.peer.result('state::get', { scope: 'users:vip', key: 'u1' }), { n: 1 });
  assert.equal((await target.peer.result('stream::list_all', {})).count, 2);

  ok(await run('import', '--from', from, '--data', 'data'));
  const exported = ok(await run('export', '--data', 'data')).stdout;
  const sorted = (text) => text.trimEnd().split('\n').sort();
  const running = ok(await run('export', ...target.address)).stdout;
  assert.deepEqual(sorted(exported), sorted(running));
  assert.equal(ok(await run('verify', from)).stdout, 'ok\n');

  // And from there on, as any other server's.
  const next = await fresh();
  ok(await run('import', '--from', 'data', ...next.address));
  assert.deepEqual(await list(next, 'chat', 'r[1]*?'), await list(target, 'chat', 'r[1]*?'));
});

test('names with colons are told at the end, and settled by --stream-name', { skip }, async () => {
  const { from, fill } = database();
  await fill('stream:a:b:c', 'i', '1');
  await fill('stream:plain:g', 'i', '2');
  const target = await fresh();
  const { stderr } = ok(await run('import', '--from', from, ...target.address));
  assert.match(stderr, /^warning: [^\n]* 1 of its keys can be split in more than one way/m);
  assert.match(stderr, /^imported 2 items[^\n]*\nambiguous: stream:a:b:c: taken as stream `a`, group `b:c`\n$/m);
  assert.deepEqual(await list(target, 'a', 'b:c'), { i: 1 });
  const settled = ok(await run('import', '--from', from, '--stream-name', 'a:b', ...target.address));
  assert.doesNotMatch(settled.stderr, /ambiguous|warning/);
  assert.deepEqual(await list(target, 'a:b', 'c'), { i: 1 });
});

test('what is no JSON stops everything with key and field, unless it may be skipped', { skip }, async () => {
  const { from, fill } = database();
  await fill('stream:s:g', 'bad', '{oops', 'good', '1');
  const target = await fresh();
  const refused = await run('import', '--from', from, ...target.address);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^damaged: stream:s:g: field `bad`: its value cannot be read: not JSON/m);
  assert.match(refused.stderr, /error: 1 place cannot be read, so nothing was imported/);
  assert.deepEqual(await list(target, 's', 'g'), {});
  const { stderr } = ok(await run('import', '--skip-damaged', '--from', from, ...target.address));
  assert.match(stderr, /damaged and skipped: stream:s:g: field `bad`/);
  assert.deepEqual(await list(target, 's', 'g'), { good: 1 });
  assert.equal((await run('verify', from)).code, 1);
});

test('a hundred thousand items are read piece by piece', { skip }, async () => {
  const { from } = database();
  const connection = redis.connect();
  await connection.call('SELECT', databases);
  const text = JSON.stringify('x'.repeat(200));
  for (let i = 0; i < 100_000; i += 1_000) {
    await connection.call('HSET', 'stream:s:many', ...Array.from({ length: 1_000 }, (_, at) => [`i${i + at}`, text]).flat());
  }
  connection.close();
  const { stderr } = ok(await run('import', '--from', from, '--data', 'many'));
  assert.match(stderr, /^imported 100,000 items/m);
  assert.doesNotMatch(stderr, /came before/);
});

test('what cannot be imported from says why in one line', { skip }, async () => {
  const empty = await run('verify', database().from);
  assert.deepEqual([empty.code, empty.stderr.trimEnd().split('\n').length], [1, 1], empty.stderr);
  assert.match(empty.stderr, /holds nothing of an iii engine/);
  const nobody = await run('verify', 'redis://:secret@127.0.0.1:1/2');
  assert.match(nobody.stderr, /^error: cannot read the Redis at redis:\/\/127\.0\.0\.1:1\/2: [^\n]+\n$/);
  const state = await run('verify', '--state', redis.url);
  assert.match(state.stderr, /--state is for directories/);
});
