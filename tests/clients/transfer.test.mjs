// export, import and verify: from server to server through a file, from an iii engine's directory, and what they say when something is wrong.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { deferred, serverBinary, startServer, within } from './harness.mjs';

const folder = mkdtempSync(join(tmpdir(), 'iii-stream-transfer-'));
const servers = [];
let source;
const fresh = async (options) => {
  const server = await startServer(options);
  servers.push(server);
  return { server, peer: await server.peer() };
};
before(async () => { source = await fresh(); });
after(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  rmSync(folder, { recursive: true, force: true });
});

/** Runs the binary with `input` on standard input; resolves with its exit code and texts. */
function run(args, { input = '', env = {} } = {}) {
  const child = spawn(serverBinary(), args, { cwd: folder, env: { ...process.env, ...env } });
  const ended = deferred();
  const out = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => { out[name] += text; });
  child.stdin.on('error', () => {}); // it may have ended before it has read everything
  child.stdin.end(input);
  child.on('close', (code) => ended.resolve({ code, ...out }));
  return within(ended.promise, `iii-stream ${args.join(' ')}`, { ms: 60_000 });
}
const address = ({ server }) => ['--address', new URL(server.workers).host];
const path = (name) => join(folder, name);
const ok = ({ code, stdout, stderr }) => { assert.equal(code, 0, stderr); return { stdout, stderr }; };
const set = ({ peer }, stream_name, group_id, item_id, data, more) => peer.result('stream::set', { stream_name, group_id, item_id, data, ...more });
const list = async ({ peer }, stream_name, group_id) => (await peer.result('stream::list', { stream_name, group_id, meta: true }));
const lines = (text) => text.trimEnd().split('\n').map((line) => JSON.parse(line));
const pairs = (items) => items.map(({ id, value }) => [id, value]);

/** The text as an engine archives it: filler behind short text; else padding, the length and the distance back to the text. */
function archived(text) {
  const bytes = Buffer.from(text);
  if (bytes.length <= 8) return Buffer.concat([bytes, Buffer.alloc(8 - bytes.length, 0xff)]);
  const end = Buffer.alloc(8);
  const at = Math.ceil(bytes.length / 4) * 4;
  end.writeUInt32LE(bytes.length, 0);
  end.writeInt32LE(-at, 4);
  return Buffer.concat([bytes, Buffer.alloc(at - bytes.length), end]);
}
const encoded = (index) => [...Buffer.from(index)].map((byte) => (/[A-Za-z0-9\-_.]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte)
  : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)).join('');
let made = 0;
function kvDirectory(files) {
  const directory = path(`kv-${made += 1}`);
  mkdirSync(directory);
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(directory, name), bytes);
  return directory;
}
/** Everything about a folder that a reader could have changed. */
function fingerprint(directory) {
  return readdirSync(directory).sort().map((name) => {
    const { mtimeMs, size, mode } = statSync(join(directory, name));
    return [name, mtimeMs, size, mode, createHash('sha256').update(readFileSync(join(directory, name))).digest('hex')];
  });
}

test('what one server exports another imports: values, order, time to live, state', async () => {
  const strange = 'a:b/c "é🦀\n\\';
  for (let i = 0; i < 700; i += 1) await set(source, 'many', 'g', `i${(i * 37) % 700}`, { i, text: 'x'.repeat(i) });
  await source.peer.result('stream::delete', { stream_name: 'many', group_id: 'g', item_id: 'i37' });
  await set(source, 'many', 'g', 'i37', { again: true });
  await set(source, strange, strange, strange, { z: 1, a: [null, 18446744073709551615n.toString()], strange });
  await set(source, strange, 'other', 'null', null);
  await source.peer.callText('stream::set', '{"stream_name":"exact","group_id":"g","item_id":"n","data":{"big":18446744073709551615,"form":1.50}}');
  await set(source, 'ttl', 'g', 'lives', 1, { ttl_ms: 600_000 });
  await set(source, 'ttl', 'g', 'stays', 2);
  for (const key of ['z', 'a', strange]) await source.peer.result('state::set', { scope: 'users', key, value: { key } });

  const exported = ok(await run(['export', 'all.jsonl', ...address(source)]));
  assert.match(exported.stderr, /^exported 708 items/m);
  assert.equal(exported.stdout, '');
  assert.ok(!existsSync(path('all.jsonl.part')));
  const written = readFileSync(path('all.jsonl'), 'utf8');
  assert.ok(written.includes('"value":{"big":18446744073709551615,"form":1.50}}'), 'numbers as they were');
  const lives = lines(written).find(({ item }) => item === 'lives');
  assert.equal(lives.ttl_ms, 600_000);
  assert.ok(Math.abs(lives.expires_ms - Date.now() - 600_000) < 60_000);

  const target = await fresh();
  const imported = ok(await run(['import', '--from', 'all.jsonl', ...address(target)]));
  assert.match(imported.stderr, /^checked 708 items[\s\S]*^imported 708 items/m);
  assert.deepEqual(await target.peer.result('stream::list_all', {}), await source.peer.result('stream::list_all', {}));
  for (const [stream, group] of [['many', 'g'], [strange, strange], [strange, 'other'], ['ttl', 'g']]) {
    assert.deepEqual(pairs(await list(target, stream, group)), pairs(await list(source, stream, group)), stream);
  }
  const times = (await list(target, 'ttl', 'g')).map(({ id, ttl_ms, expires_ms }) => [id, ttl_ms, typeof expires_ms]);
  assert.deepEqual(times, [['lives', 600_000, 'number'], ['stays', undefined, 'undefined']]);
  const state = await target.peer.result('state::list', { scope: 'users', meta: true });
  assert.deepEqual(state.map(({ key, value }) => [key, value.key]), ['z', 'a', strange].map((key) => [key, key]));

  // Again does no harm, and what comes out of the second is what came out of the first, but for the times.
  ok(await run(['import', '--from', '-', ...address(target)], { input: written }));
  const second = ok(await run(['export', ...address(target)])).stdout;
  const timeless = (text) => text.replaceAll(/"expires_ms":\d+/g, '');
  assert.equal(timeless(second), timeless(written));
});

test('export of some streams only, to standard output', async () => {
  await set(source, 'wanted', 'g', 'i', 1);
  const { stdout } = ok(await run(['export', '--stream', 'wanted', '--worker-url', source.server.workers]));
  assert.equal(stdout, '{"stream":"wanted","group":"g","item":"i","value":1}\n');
  const missing = await run(['export', '--stream', 'no-such', ...address(source)]);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /no stream `no-such`/);
});

test('export never writes over a file', async () => {
  writeFileSync(path('mine.jsonl'), 'mine');
  const { code, stderr } = await run(['export', 'mine.jsonl', ...address(source)]);
  assert.equal(code, 1);
  assert.match(stderr, /mine\.jsonl is there already/);
  assert.equal(readFileSync(path('mine.jsonl'), 'utf8'), 'mine');
});

test('a group that cannot be had is named, the rest is kept under another name', async () => {
  const other = await fresh({ stream: { adapter: { name: 'my::adapter' } } });
  other.peer.serve('my::adapter::list_all', () => ({ result: { stream: [{ id: 's', groups: ['g'] }], count: 1 } }));
  await other.peer.settled();
  const { code, stderr } = await run(['export', 'some.jsonl', ...address(other)]);
  assert.equal(code, 1);
  assert.match(stderr, /stream `s`, group `g`: unsupported_by_storage/);
  assert.match(stderr, /1 group could not be read: some\.jsonl\.part is without it/);
  assert.ok(!existsSync(path('some.jsonl')));
});

test("an engine's directory is imported, and left as it was", async () => {
  const text = '{"z":{"text":"}\\"{🦀"},"a":1.50,"m/:x":null}';
  const directory = kvDirectory({
    [`${encoded('stream:chat:room 1')}.bin`]: archived(text),
    [`${encoded('stream:chat:🦀/x')}.bin`]: archived('{"a":1}'),
    [`${encoded('stream:a:b:c')}.bin`]: archived('{"i":[1,2,3]}'),
    [`${encoded('user scope')}.bin`]: archived('{"u1":{"n":1}}'),
    [`${encoded('stream:chat:room 1')}.bin.tmp`]: '{"half',
    [`${encoded('stream:chat:gone')}.bin.tmp`]: '{"half',
    'README.txt': 'mine',
  });
  for (const name of readdirSync(directory)) chmodSync(join(directory, name), 0o444);
  const before = fingerprint(directory);
  const target = await fresh();
  const { stderr } = ok(await run(['import', '--from', directory, ...address(target)]));
  assert.deepEqual(fingerprint(directory), before);
  assert.match(stderr, /warning: stream%3Aa%3Ab%3Ac\.bin: `a:b:c` can be split in more than one way; taken as stream `a`, group `b:c`/);
  assert.match(stderr, /room%201\.bin\.tmp: left behind by an interrupted write; it is skipped, the whole file is beside it/);
  assert.match(stderr, /gone\.bin\.tmp: [^\n]*no whole file/);
  assert.match(stderr, /skipped: README\.txt/);
  assert.match(stderr, /^imported 6 items/m);
  assert.deepEqual(pairs(await list(target, 'chat', 'room 1')), [['z', { text: '}"{🦀' }], ['a', 1.5], ['m/:x', null]]);
  assert.deepEqual(pairs(await list(target, 'chat', '🦀/x')), [['a', 1]]);
  assert.deepEqual(pairs(await list(target, 'a', 'b:c')), [['i', [1, 2, 3]]]);
  assert.deepEqual(await target.peer.result('state::get', { scope: 'user scope', key: 'u1' }), { n: 1 });

  ok(await run(['import', '--from', directory, '--stream-name', 'a:b', ...address(target)]));
  assert.deepEqual(pairs(await list(target, 'a:b', 'c')), [['i', [1, 2, 3]]]);
});

test('a damaged file keeps everything from being imported, unless it may be skipped', async () => {
  const directory = kvDirectory({
    [`${encoded('stream:s:bad')}.bin`]: '{"a":1,"b":{"c":',
    [`${encoded('stream:s:good')}.bin`]: archived('{"i":"long enough"}'),
  });
  const target = await fresh();
  const refused = await run(['import', '--from', directory, ...address(target)]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^damaged: stream%3As%3Abad\.bin: the text ends at byte 16/m);
  assert.match(refused.stderr, /error: 1 place cannot be read, so nothing was imported\. With --skip-damaged/);
  assert.deepEqual(await target.peer.result('stream::list_all', {}), { stream: [], count: 0 });
  const verified = await run(['verify', directory]);
  assert.deepEqual([verified.code, verified.stdout], [1, '']);
  assert.match(verified.stderr, /error: 1 place cannot be read/);

  const { stderr } = ok(await run(['import', '--skip-damaged', '--from', directory, ...address(target)]));
  assert.match(stderr, /damaged and skipped: stream%3As%3Abad\.bin/);
  assert.deepEqual(pairs(await list(target, 's', 'good')), [['i', 'long enough']]);
  assert.deepEqual(pairs(await list(target, 's', 'bad')), [['a', 1]], 'what can be read of it');
});

test('folders that are none of an engine are refused', async () => {
  for (const directory of [kvDirectory({}), kvDirectory({ 'notes.txt': '' })]) {
    const { code, stderr } = await run(['import', '--from', directory, ...address(source)]);
    assert.equal(code, 1);
    assert.match(stderr, /is no kv directory of an iii engine: it has no `\.bin` files/);
  }
  const single = await run(['verify', join(kvDirectory({ 'a.bin': archived('{}') }), 'a.bin')]);
  assert.match(single.stderr, /give the directory/);
  const missing = await run(['verify', 'no-such.jsonl']);
  assert.deepEqual([missing.code, /cannot read no-such\.jsonl/.test(missing.stderr)], [1, true], missing.stderr);
});

test('bad lines are told by number; a file is then not imported at all, standard input up to there', async () => {
  const line = (item, more = '') => `{"stream":"bad","group":"g","item":"${item}","value":1${more}}\n`;
  const text = `${line('a')}\n${line('b', ',"colour":"red"')}{"stream":"bad"\n${line('c')}`;
  writeFileSync(path('bad.jsonl'), text);
  const target = await fresh();
  const file = await run(['import', '--from', 'bad.jsonl', ...address(target)]);
  assert.equal(file.code, 1);
  assert.match(file.stderr, /^damaged: line 3: unknown field `colour`[\s\S]*^damaged: line 4: EOF[\s\S]*error: 2 places cannot be read, so nothing/m);
  assert.deepEqual(await list(target, 'bad', 'g'), []);
  const input = await run(['import', '--from', '-', ...address(target)], { input: text });
  assert.equal(input.code, 1);
  assert.match(input.stderr, /error: line 3: unknown field `colour`/);
  assert.deepEqual(pairs(await list(target, 'bad', 'g')), [['a', 1]]);
  ok(await run(['import', '--from', '-', '--skip-damaged', ...address(target)], { input: text }));
  assert.deepEqual(pairs(await list(target, 'bad', 'g')), [['a', 1], ['c', 1]]);
  assert.deepEqual(ok(await run(['verify', '-'], { input: line('a') })).stdout, 'ok\n');
});

test('the last of repeated items counts, and those whose time was over are left out', async () => {
  const item = (fields) => `${JSON.stringify({ stream: 'twice', group: 'g', ...fields })}\n`;
  const input = item({ item: 'a', value: 1 }) + item({ item: 'b', value: 1 }) + item({ item: 'a', value: 2 })
    + item({ item: 'over', value: 1, ttl_ms: 1_000, expires_ms: 1_000 });
  const target = await fresh();
  const { stderr } = ok(await run(['import', '--from', '-', ...address(target)], { input }));
  assert.match(stderr, /line 3: item `a` of `twice`, group `g` came before; the last one counts/);
  assert.match(stderr, /left out: 1 item whose time was over/);
  assert.deepEqual(pairs(await list(target, 'twice', 'g')), [['a', 2], ['b', 1]]);
});

test('what the server refuses is told by line, and the rest is imported', async () => {
  const target = await fresh({ stream: { group_items_max: 2 } });
  const input = ['a', 'b', 'c'].map((item) => `${JSON.stringify({ stream: 's', group: 'g', item, value: 1 })}\n`).join('');
  const { code, stderr } = await run(['import', '--from', '-', ...address(target)], { input });
  assert.equal(code, 1);
  assert.match(stderr, /refused: line 3: item `c` of `s`, group `g`: group_full/);
  assert.match(stderr, /error: 1 item refused; the rest is imported/);
  assert.deepEqual(pairs(await list(target, 's', 'g')), [['a', 1], ['b', 1]]);
});

test('large items pass, one that no server takes is refused alone', async () => {
  const item = (id, bytes) => `{"stream":"large","group":"g","item":"${id}","value":"${'x'.repeat(bytes)}"}\n`;
  const target = await fresh();
  const input = item('before', 20 << 20) + item('middle', 40 << 20) + item('too large', (64 << 20) - 60) + item('after', 1);
  const imported = await run(['import', '--from', '-', ...address(target)], { input });
  assert.equal(imported.code, 1);
  assert.match(imported.stderr, /refused: line 3: item `too large` of `large`, group `g`: takes \d+ bytes as a call, and a server takes 67108864/);
  const written = ok(await run(['export', ...address(target)])).stdout;
  assert.equal(written, item('before', 20 << 20) + item('middle', 40 << 20) + item('after', 1));
});

test('a server that is not there, that asks for a token, or that goes, is told', async () => {
  const nobody = await run(['import', '--from', '-', '--address', '127.0.0.1:1']);
  assert.equal(nobody.code, 1);
  assert.match(nobody.stderr, /cannot reach ws:\/\/127\.0\.0\.1:1: .*Is the server running/);

  const locked = await startServer({ manager: { token: 'secret' } });
  servers.push(locked);
  const input = '{"stream":"s","group":"g","item":"i","value":1}\n';
  const without = await run(['import', '--from', '-', ...address({ server: locked })], { input });
  assert.equal(without.code, 1);
  assert.match(without.stderr, /answered 401/);
  const env = { III_TOKEN: 'secret' };
  ok(await run(['import', '--from', '-', ...address({ server: locked })], { input, env }));
  assert.equal(ok(await run(['export', ...address({ server: locked })], { env })).stdout, input);

  const going = await startServer();
  const peer = await going.peer();
  const child = spawn(serverBinary(), ['import', '--from', '-', ...address({ server: going })]);
  let told = '';
  child.stderr.setEncoding('utf8').on('data', (text) => { told += text; });
  const ended = deferred();
  child.on('close', ended.resolve);
  child.stdin.on('error', () => {});
  const first = deferred();
  peer.serve('test::seen', () => { first.resolve(); return { result: null }; });
  peer.send({ type: 'registertrigger', id: 't', trigger_type: 'stream', function_id: 'test::seen', config: { stream_name: 's' } });
  await peer.settled();
  for (let i = 0; i < 600; i += 1) child.stdin.write(`{"stream":"s","group":"g","item":"i${i}","value":1}\n`);
  await within(first.promise, 'the first item to arrive', { server: going });
  going.signal('SIGKILL');
  await going.ended();
  child.stdin.end('{"stream":"s","group":"g","item":"last","value":1}\n');
  assert.equal(await within(ended.promise, 'the import to end'), 1);
  assert.match(told, /error: (the connection to ws:\S+ broke: .*|ws:\S+ closed the connection.*)\. \d+ items were confirmed, \d+ more may have arrived\. To import all of it again does no harm/);
});

test('a slow source does not cost the connection', async () => {
  const target = await fresh({ manager: { ping_interval_ms: 100, idle_timeout_ms: 400 } });
  const line = (item) => `{"stream":"slow","group":"g","item":"${item}","value":1}\n`;
  const child = spawn(serverBinary(), ['import', '--from', '-', ...address(target)]);
  let told = '';
  child.stderr.setEncoding('utf8').on('data', (text) => { told += text; });
  const ended = deferred();
  child.on('close', ended.resolve);
  const first = deferred();
  target.peer.serve('test::seen', () => { first.resolve(); return { result: null }; });
  target.peer.send({ type: 'registertrigger', id: 't', trigger_type: 'stream', function_id: 'test::seen', config: { stream_name: 'slow' } });
  await target.peer.settled();
  for (let i = 0; i < 600; i += 1) child.stdin.write(line(i));
  await within(first.promise, 'the first item to arrive', { server: target.server });
  // Whoever answers no pings is dropped in that time; twice, because the first one may have come late.
  for (let n = 0; n < 2; n += 1) {
    const silent = await target.server.socket(target.server.workers, '/', { autoPong: false });
    await within(silent.closed, 'a silent connection to be dropped');
  }
  child.stdin.end(line('last'));
  assert.equal(await within(ended.promise, 'the import to end'), 0, told);
  assert.equal((await list(target, 'slow', 'g')).length, 601);
});

// The data directory of a stopped server.

const onDisk = (directory) => fresh({ stream: { adapter: { name: 'kv', config: { store_method: 'file_based', file_path: directory } } } });
function fingerprints(directory) {
  const names = readdirSync(directory, { recursive: true }).map(String).sort().filter((name) => statSync(join(directory, name)).isFile());
  return names.map((name) => {
    const { mtimeMs, size } = statSync(join(directory, name));
    return [name, mtimeMs, size, createHash('sha256').update(readFileSync(join(directory, name))).digest('hex')];
  });
}

test("an engine's directory becomes a data directory with one command, and a server starts on it", async () => {
  const many = Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`i${(i * 37) % 5_000}`, { i, text: 'x'.repeat(i % 300) }]));
  const old = kvDirectory({
    [`${encoded('stream:chat:room 1')}.bin`]: archived('{"z":{"text":"}\\"{🦀"},"a":1.50,"m/:x":null}'),
    [`${encoded('stream:many:g')}.bin`]: archived(JSON.stringify(many)),
    [`${encoded('users')}.bin`]: archived('{"u2":{"n":2},"u1":{"n":1}}'),
  });
  const before = fingerprint(old);
  const { stderr } = ok(await run(['import', '--from', old, '--data', 'moved/stream_store']));
  assert.match(stderr, /^imported 5,005 items/m);
  assert.deepEqual(fingerprint(old), before);
  const directory = path('moved/stream_store');
  assert.match(ok(await run(['verify', directory])).stderr, /streams 2, groups 2, items 5,003/);

  const server = await onDisk(directory);
  assert.deepEqual(pairs(await list(server, 'chat', 'room 1')), [['z', { text: '}"{🦀' }], ['a', 1.5], ['m/:x', null]]);
  assert.deepEqual(pairs(await list(server, 'many', 'g')), Object.entries(many), 'in order');
  const state = await server.peer.result('state::list', { scope: 'users', meta: true });
  assert.deepEqual(state.map(({ key, value }) => [key, value]), [['u2', { n: 2 }], ['u1', { n: 1 }]]);

  for (const command of [['export', '--data', directory], ['verify', directory], ['verify', '--repair', directory],
    ['import', '--from', '-', '--data', directory], ['import', '--from', directory, '--data', 'other']]) {
    const refused = await run(command);
    assert.equal(refused.code, 1, command.join(' '));
    assert.match(refused.stderr, /error: the data directory \S+ is in use by another process: stop that one/);
  }
  await server.server.terminate();
  // What is there stays.
  ok(await run(['import', '--from', '-', '--data', directory], { input: '{"stream":"chat","group":"room 1","item":"new","value":1}\n' }));
  const ids = lines(ok(await run(['export', '--data', directory, '--stream', 'chat'])).stdout).map(({ item }) => item);
  assert.deepEqual(ids, ['z', 'a', 'm/:x', 'new']);
  const missing = await run(['export', '--data', directory, '--stream', 'no-such']);
  assert.match(missing.stderr, /there is no stream `no-such` in /);
  const both = await run(['export', '--data', directory, '--address', '127.0.0.1:1']);
  assert.match(both.stderr, /cannot be used with/);
});

test('a data directory tells what its server told, also after a kill, and is not changed by that', async () => {
  const directory = path('killed');
  const server = await onDisk(directory);
  servers.splice(servers.indexOf(server.server), 1); // its end is this test's business
  for (let i = 0; i < 300; i += 1) await set(server, `s${i % 3}`, `g${i % 7}`, `i${i % 50}`, { i, text: 'y'.repeat(i) });
  await set(server, 'ttl', 'g', 'lives', 1, { ttl_ms: 600_000 });
  await set(server, 'ttl', 'g', 'goes', 1, { ttl_ms: 60_000 });
  await server.peer.result('stream::delete', { stream_name: 's0', group_id: 'g0', item_id: 'i0' });
  await server.peer.result('state::set', { scope: 'users', key: 'u', value: { n: 1 } });
  const running = ok(await run(['export', ...address(server)])).stdout;
  server.server.signal('SIGKILL');
  await server.server.ended();

  const before = fingerprints(directory);
  assert.equal(ok(await run(['export', '--data', directory])).stdout, running);
  const verified = ok(await run(['verify', directory]));
  assert.equal(verified.stdout, 'ok\n');
  assert.doesNotMatch(verified.stderr, /damaged/);
  // From one data directory into another: the times to live stay as they are.
  ok(await run(['import', '--from', directory, '--data', 'copied']));
  assert.equal(ok(await run(['export', '--data', 'copied'])).stdout, running);
  assert.deepEqual(fingerprints(directory), before);
  const itself = await run(['import', '--from', directory, '--data', directory]);
  assert.match(itself.stderr, /cannot be imported into itself/);
});

test('damage is told with its place, kept from an import, and repaired on request', async () => {
  const directory = path('damaged');
  const item = (stream, i) => `${JSON.stringify({ stream, group: 'g', item: `i${i}`, value: { i, text: 'z'.repeat(200) } })}\n`;
  const input = Array.from({ length: 200 }, (_, i) => item('a', i) + item('b', i)).join('');
  ok(await run(['import', '--from', '-', '--data', directory], { input }));
  const log = join(directory, readdirSync(directory).find((name) => name.startsWith('log-')));
  const bytes = readFileSync(log);
  const at = bytes.indexOf('"i":20,');
  bytes[at] ^= 1;
  writeFileSync(log, bytes);

  const before = fingerprints(directory);
  const verified = await run(['verify', directory]);
  assert.deepEqual([verified.code, verified.stdout], [1, '']);
  assert.match(verified.stderr, /^damaged: \S+log-0000000001, byte \d+: a batch at lsn \d+ was expected/m);
  const imported = await run(['import', '--from', directory, '--data', 'from-damaged']);
  assert.equal(imported.code, 1);
  assert.match(imported.stderr, /1 place cannot be read, so nothing was imported/);
  const exported = await run(['export', '--data', directory]);
  assert.equal(exported.code, 1);
  assert.deepEqual(fingerprints(directory), before);

  const repaired = ok(await run(['verify', '--repair', directory]));
  assert.match(repaired.stderr, /^repair: keeping a copy of log-0000000001 as lost-\d+-log-0000000001$[\s\S]*^repair: cutting the log at the first place/m);
  assert.equal(repaired.stdout, 'ok\n');
  assert.equal(ok(await run(['verify', directory])).stdout, 'ok\n');
  const server = await onDisk(directory);
  const left = pairs(await list(server, 'a', 'g')).map(([id]) => id);
  assert.deepEqual(left, Array.from({ length: left.length }, (_, i) => `i${i}`), 'what came before the damage');
  await set(server, 'a', 'g', 'new', 1);
  await server.server.terminate();
  const none = await run(['verify', '--repair', 'no-such']);
  assert.equal(none.code, 1);
});

test('after a backup was restored, a new era has subscribers begin anew', async () => {
  const directory = path('restored');
  const first = await onDisk(directory);
  await set(first, 's', 'g', 'i', 1);
  const position = async ({ server }) => {
    const answer = await fetch(new URL('/stream/s/g', server.subscribers.replace('ws:', 'http:')));
    const { epoch, seq, items } = await answer.json();
    return { epoch, at: [seq, items] };
  };
  const before = await position(first);
  await first.server.terminate();
  const same = await onDisk(directory);
  assert.deepEqual(await position(same), before, 'a restart alone leaves it');
  await same.server.terminate();
  const { stderr } = ok(await run(['verify', '--new-era', directory]));
  assert.match(stderr, /all histories have new names/);
  const after = await position(await onDisk(directory));
  assert.deepEqual(after.at, before.at);
  assert.deepEqual(after.at[1].map(({ id, data }) => [id, data]), [['i', 1]]);
  assert.notEqual(after.epoch, before.epoch);
});
