// What the store in files promises, through the real binary: a restart keeps everything, a directory belongs to one process, and
// whatever is wrong with a directory or its disk is said in words that help.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, openSync, closeSync, readFileSync, readSync, readdirSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deferred, keepsFiles, Record, serverBinary, startServer, unique, within } from './harness.mjs';
import { portsOf, restart } from './restart.mjs';
import { range } from './raw.mjs';
import { assertExact, Connection, mark as markEnd, standing, View } from './version-2.mjs';

const skip = keepsFiles ? false : 'these servers do not keep groups in files';
const folders = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));
const servers = [];
after(() => Promise.all(servers.map((server) => server.alive && server.stop())));

function newFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'iii-stream-durable-'));
  folders.push(folder);
  return folder;
}

/** A server on the data of the one before, if there is one. */
async function own(config, before) {
  const server = await (before ? restart(before, config) : startServer(config));
  servers.push(server);
  return server;
}

const files = (dir) => readdirSync(dir, { recursive: true }).map(String).sort();

test('a restart keeps items, their order, sequences, timestamps and the name of the history', { skip }, async () => {
  const first = await own();
  const peer = await first.peer();
  const at = { stream_name: 'kept', group_id: 'g' };
  for (const n of range(50)) await peer.result('stream::set', { ...at, item_id: `i${(n * 7) % 50}`, data: { n, text: 'é🦀\u0000' } });
  for (const n of range(10)) await peer.result('stream::delete', { ...at, item_id: `i${n}` });
  await peer.result('stream::set', { ...at, item_id: 'i3', data: 9007199254740993 });
  await peer.callText('stream::set', '{"stream_name":"kept","group_id":"g","item_id":"big","data":{"int":18446744073709551615,"float":1.0,"__proto__":1}}');
  await peer.result('stream::update', { ...at, item_id: 'i20', ops: [{ type: 'increment', path: 'n', by: 5 }, { type: 'append', path: 'text', value: '!' }] });
  for (const group_id of ['a', 'b']) await peer.result('stream::set', { ...at, group_id, item_id: 'i', data: null });
  await peer.result('stream::delete', { ...at, group_id: 'b', item_id: 'i' });
  await peer.result('state::set', { scope: 'users', key: 'u1', value: { n: 1 } });
  await peer.result('state::update', { scope: 'users', key: 'u1', ops: [{ type: 'increment', path: 'n', by: 1 }] });
  const look = async (by) => {
    const questions = [['stream::list', { ...at, meta: true }], ['stream::list_groups', at], ['stream::list_all', {}],
      ['stream::get', { ...at, item_id: 'big', meta: true }], ['state::list', { scope: 'users', meta: true }], ['state::list_groups', {}]];
    const texts = [];
    for (const [id, data] of questions) texts.push((await by.call(id, data)).text.replace(/^.*"result":/, ''));
    return texts;
  };
  const before = await look(peer);
  assert.match(before[0], /18446744073709551615/);
  const { epoch, seq } = JSON.parse((await first.page('/stream/kept/g', { base: first.subscribers.replace('ws', 'http') })).body);
  const second = await own({}, first);
  assert.deepEqual(await look(await second.peer()), before);
  const third = await own({}, second);
  const again = await third.peer();
  assert.deepEqual(await look(again), before);
  const now = JSON.parse((await third.page('/stream/kept/g', { base: third.subscribers.replace('ws', 'http') })).body);
  assert.deepEqual([now.epoch, now.seq], [epoch, seq]);
  const next = await again.result('stream::set', { ...at, item_id: 'new', data: 1, returning: 'none' });
  assert.equal(next.seq, seq + 1);
});

test('a deadline that passes while nobody runs is kept at the start, with an event and a trigger', { skip }, async () => {
  const first = await own();
  const peer = await first.peer();
  const at = { stream_name: 'ttl', group_id: 'g' };
  await peer.result('stream::set', { ...at, item_id: 'short', data: 1, ttl_ms: 400 });
  await peer.result('stream::set', { ...at, item_id: 'long', data: 2, ttl_ms: 3_600_000 });
  const [, { expires_at }] = await peer.result('stream::list', { ...at, meta: true });
  const ports = portsOf(first);
  await first.terminate({ keepsFolder: true });
  const passed = deferred();
  setTimeout(passed.resolve, 600); // the time that has to pass is what is tested
  await passed.promise;
  const second = await startServer({ ...ports, folder: first.folder });
  second.keepsFolder = false;
  servers.push(second);
  const worker = await second.peer();
  const items = await worker.result('stream::list', { ...at, meta: true });
  assert.deepEqual(items.map(({ id }) => id), ['long']);
  assert.deepEqual(items[0].expires_at, expires_at);
  // The delete is a change like any other: whoever was at the two sets is told of it.
  const http = second.subscribers.replace('ws', 'http');
  const { epoch, seq } = JSON.parse((await second.page('/stream/ttl/g', { base: http })).body);
  assert.equal(seq, 3);
  const connection = await Connection.open(second);
  const view = new View('v', at.stream_name, at.group_id);
  view.items.set('short', { seq: 1, value: 1 });
  view.position = { epoch, seq: 2 };
  connection.join(view);
  await connection.until(() => view.told.length === 1, 'the delete');
  assert.deepEqual([view.told, [...view.items]], [[3], []]);
  connection.cut();
});

test('a trigger that waits for it hears of a deadline that passed while nobody ran', { skip }, async () => {
  // The worker is back before the deadline is over, the server was away in between.
  const first = await own();
  const peer = await first.peer();
  const at = { stream_name: 'ttl', group_id: 'g' };
  await peer.result('stream::set', { ...at, item_id: 'i', data: 1, ttl_ms: 1_500 });
  const second = await own({}, first);
  const worker = await second.peer();
  const heard = new Record(second);
  worker.serve('on::delete', ({ id, event }) => { heard.push([id, event.type]); return { result: null }; });
  worker.send({ type: 'registertrigger', id: 't', trigger_type: 'stream', function_id: 'on::delete', config: { stream_name: 'ttl' } });
  await worker.settled();
  assert.deepEqual(await heard.count(1), [['i', 'delete']]);
});

test('mutations are known after a restart', { skip }, async () => {
  const first = await own();
  const at = { stream_name: 'm', group_id: 'g', item_id: 'i' };
  const write = (by, seq) => by.result('stream::update', { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }], returning: 'new', mutation: { client: 'c-0123456789', seq } });
  const peer = await first.peer();
  const replies = [await write(peer, 1), await write(peer, 2)];
  assert.deepEqual(replies.map(({ new_value }) => new_value.n), [1, 2]);
  const again = await (await own({}, first)).peer();
  for (const seq of [1, 2]) assert.equal((await write(again, seq)).duplicate, true);
  assert.deepEqual((await write(again, 3)).new_value, { n: 3 });
});

for (const deltas of [false, true]) {
  test(`who was there comes back to where it was, over three restarts${deltas ? ', with deltas' : ''}`, { skip }, async () => {
    let server = await own();
    const at = { stream_name: 'back', group_id: 'g' };
    const [all, one] = [new View('all', at.stream_name, at.group_id), new View('one', at.stream_name, at.group_id, 'i1')];
    let first;
    for (const round of range(4)) {
      const peer = await server.peer();
      const connection = await Connection.open(server, { deltas });
      connection.join(all);
      connection.join(one);
      await connection.until(() => all.isLive && one.isLive, 'both to be live');
      first ??= all.cursor + 1;
      for (const n of range(20)) {
        const item_id = `i${n % 3}`;
        if (n < 3) await peer.result('stream::set', { ...at, item_id, data: { n: round, log: '' } });
        else await peer.result('stream::update', { ...at, item_id, ops: [{ type: 'increment', path: 'n', by: 1 }, { type: 'append', path: 'log', value: 'x' }] });
      }
      await connection.until(() => all.cursor === (round + 1) * 30 - 10, 'what was written while it was there');
      connection.cut();
      // Ten more that it does not hear of.
      for (const n of range(10)) await peer.result('stream::update', { ...at, item_id: `i${n % 3}`, ops: [{ type: 'increment', path: 'n', by: 1 }] });
      server = await own({}, server);
    }
    const peer = await server.peer();
    const connection = await Connection.open(server, { deltas });
    connection.join(all);
    connection.join(one);
    const last = await markEnd(peer, at);
    await connection.until(() => all.cursor === last && one.isLive, 'the end');
    assertExact(all, first, last, await standing(peer, at), 'the whole group');
    const { i1 } = await standing(peer, at);
    assert.deepEqual(one.shown(), { i1 });
    assert.deepEqual([all.snapshots, all.resets, all.resumes, one.resets], [1, 0, 4, 0]);
    connection.cut();
  });
}

test('SIGTERM under load loses nothing that was answered', { skip }, async () => {
  let server = await own();
  const peer = await server.peer();
  const at = { stream_name: 'load', group_id: 'g' };
  const answered = [];
  const running = Promise.all(range(8).map(async (lane) => {
    for (let n = 0; ; n += 1) {
      const frame = await peer.call('stream::set', { ...at, item_id: `${lane}-${n}`, data: n, returning: 'none' }).catch(() => null);
      if (!frame || frame.error) return;
      answered.push(`${lane}-${n}`);
      if (answered.length === 500) server.signal('SIGTERM');
    }
  }));
  await server.within(running, 'the writers to be stopped');
  await server.ended();
  server = await own({}, server);
  const kept = new Set((await (await server.peer()).result('stream::list', { ...at, meta: true })).map(({ id }) => id));
  assert.ok(answered.length >= 500);
  for (const id of answered) assert.ok(kept.has(id), `${id} is lost`);
});

/** Runs the binary in a folder until it ends, or until it listens: `{ code, out, err }`. */
async function run(folder, args = [], { env = {} } = {}) {
  const child = spawn(serverBinary(), args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, RUST_LOG: 'info', III_TOKEN: '', ...env } });
  const [said, ended] = [{ out: '', err: '' }, deferred()];
  const greeted = deferred();
  child.stdout.setEncoding('utf8').on('data', (text) => { said.out += text; if (/\n\n/.test(said.out)) greeted.resolve(); });
  child.stderr.setEncoding('utf8').on('data', (text) => { said.err += text; });
  child.on('close', (code) => ended.resolve(code));
  try {
    await within(Promise.race([greeted.promise, ended.promise]), 'it to start or to end');
    if (child.exitCode === null) child.kill('SIGTERM');
    return { code: await within(ended.promise, 'it to end'), ...said };
  } finally {
    child.kill('SIGKILL');
  }
}

/** A configuration on free ports with its data in `dir`. */
function configure(folder, dir = 'data', more = '') {
  writeFileSync(join(folder, 'c.yaml'), `- name: iii-stream\n  config: { host: 127.0.0.1, port: 0, admin_port: 0, adapter: { name: kv, config: { store_method: file_based, file_path: ${JSON.stringify(dir)}${more} } } }\n- name: iii-worker-manager\n  config: { port: 0 }\n`);
  return ['--config', 'c.yaml'];
}

/** The one line that a start ends with which is refused. */
async function refusal(folder, dir, more) {
  const { code, out, err } = await run(folder, configure(folder, dir, more));
  assert.deepEqual([code, out], [1, ''], err);
  const [line, ...others] = err.split('\n').filter((text) => text.startsWith('error: '));
  assert.deepEqual(others, []);
  return line;
}

/** A folder with the data of a server that has ended. */
async function withData(fill = async () => {}) {
  const folder = newFolder();
  const server = await startServer({ folder });
  const peer = await server.peer();
  await peer.result('stream::set', { stream_name: 'chat', group_id: 'g', item_id: 'i', data: { text: 'hi' } });
  await fill(peer, server);
  await server.stop();
  return folder;
}

test('a bare start keeps its data in ./data/stream_store, and says so', { skip }, async () => {
  const folder = newFolder();
  // The default ports may be another's; the store is opened by a configuration without an adapter as well.
  writeFileSync(join(folder, 'c.yaml'), '- name: iii-stream\n  config: { host: 127.0.0.1, port: 0, admin_port: 0 }\n- name: iii-worker-manager\n  config: { port: 0 }\n');
  const { code, out } = await run(folder, ['--config', 'c.yaml']);
  assert.equal(code, 0);
  assert.match(out, /^ {2}store +data\/stream_store \(fsync: an acknowledged change survives a power cut\)$/m);
  const made = files(join(folder, 'data', 'stream_store'));
  for (const name of ['lock', 'state', /^manifest-\d{10}$/, /^log-\d{10}$/]) assert.ok(made.some((file) => (name.test ? name.test(file) : name === file)), `${name} in ${made}`);
  assert.deepEqual(readdirSync(folder).sort(), ['c.yaml', 'data']);
});

test('the second server on a directory is refused and harms nothing', { skip }, async () => {
  const first = await own();
  const peer = await first.peer();
  const at = { stream_name: 's', group_id: 'g', item_id: 'i' };
  await peer.result('stream::set', { ...at, data: 1 });
  const dir = join(first.folder, 'stream_store');
  assert.equal(await refusal(newFolder(), dir), `error: the data directory ${dir} is in use by another process: stop that one, or name another directory with \`file_path\``);
  await peer.result('stream::set', { ...at, data: 2 });
  assert.equal(await (await (await own({}, first)).peer()).result('stream::get', at), 2);
});

test('a data directory that is a file', { skip }, async () => {
  const folder = newFolder();
  writeFileSync(join(folder, 'data'), 'mine');
  assert.equal(await refusal(folder, 'data'), 'error: the data directory data is a file: name a directory with `file_path`');
  assert.match(await refusal(folder, 'data/deeper'), /^error: cannot make the data directory data\/deeper: Not a directory/);
  assert.equal(readFileSync(join(folder, 'data'), 'utf8'), 'mine');
});

test('a data directory that cannot be written', { skip: skip || (process.getuid?.() === 0 ? 'root may write everywhere' : false) }, async () => {
  const folder = newFolder();
  mkdirSync(join(folder, 'data'));
  chmodSync(join(folder, 'data'), 0o555);
  assert.match(await refusal(folder, 'data'), /^error: cannot write to the data directory data: Permission denied/);
});

/** Overwrites bytes of a file. */
function patch(file, offset, bytes) {
  const fd = openSync(file, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

/** The first file whose name begins so. */
const named = (folder, begin) => {
  const dir = join(folder, 'stream_store');
  return join(dir, readdirSync(dir).filter((name) => name.startsWith(begin)).sort()[0]);
};

/** Where the version and its checksum are in a file's header, which no version of its format moves, and what is summed up. */
const MARKS = {
  'manifest-': { bytes: 16, version: 8, checksum: 12, summed: [0, 12] },
  'log-': { bytes: 64, version: 12, checksum: 8, summed: [12, 64] },
};

/** Makes a file say that it is of version 99. */
function age(file, { bytes, version, checksum, summed }) {
  const header = Buffer.alloc(bytes);
  const fd = openSync(file, 'r');
  readSync(fd, header, 0, bytes, 0);
  closeSync(fd);
  assert.equal(header.readUInt32LE(checksum), crc32(header.subarray(...summed)), 'the header is where it is sought');
  header.writeUInt32LE(99, version);
  header.writeUInt32LE(crc32(header.subarray(...summed)), checksum);
  patch(file, 0, header);
}

/** By hand: Node 20 has none. */
function crc32(bytes) {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}

for (const [begin, mark] of Object.entries(MARKS)) {
  test(`a ${begin.slice(0, -1)} of a newer version is refused, and left alone`, { skip }, async () => {
    const folder = await withData();
    const file = named(folder, begin);
    age(file, mark);
    const before = files(join(folder, 'stream_store')).map((name) => [name, statSync(join(folder, 'stream_store', name)).size]);
    const said = await refusal(folder, 'stream_store');
    assert.ok(said.startsWith(`error: stream_store/${file.split('/').at(-1)} has format version 99`), said);
    assert.match(said, /version 1\b.* release/);
    assert.deepEqual(files(join(folder, 'stream_store')).map((name) => [name, statSync(join(folder, 'stream_store', name)).size]), before);
  });

  test(`a ${begin.slice(0, -1)} with a damaged header is refused, and says where`, { skip }, async () => {
    const folder = await withData();
    const file = named(folder, begin);
    patch(file, 3, Buffer.from([0xff, 0xff]));
    const said = await refusal(folder, 'stream_store');
    assert.ok(said.includes(`stream_store/${file.split('/').at(-1)}`), said);
    assert.match(said, /damaged|no .* of this program|not/);
  });
}

test('a directory without its manifest, and without its log', { skip }, async () => {
  const folder = await withData();
  const log = named(folder, 'log-');
  const manifest = named(folder, 'manifest-');
  const kept = readFileSync(manifest);
  rmSync(manifest);
  assert.match(await refusal(folder, 'stream_store'), /^error: the data directory stream_store has "log-\d+" but no manifest: files are missing, restore the directory from a backup$/);
  writeFileSync(manifest, kept);
  rmSync(log);
  const said = await refusal(folder, 'stream_store');
  assert.match(said, /missing/);
  assert.ok(said.includes('log-'), said);
});

test('a directory of somebody else is left as it is', { skip }, async () => {
  const folder = newFolder();
  mkdirSync(join(folder, 'photos'));
  writeFileSync(join(folder, 'photos', 'cat.jpg'), 'meow');
  assert.equal(await refusal(folder, 'photos'), 'error: the data directory photos holds files that this program did not make, for example "cat.jpg": name an empty or new directory with `file_path`');
  assert.deepEqual(files(join(folder, 'photos')), ['cat.jpg']);
  mkdirSync(join(folder, 'kv_store_data.db'));
  writeFileSync(join(folder, 'kv_store_data.db', 'stream%3A%3Achat.bin'), 'of an engine');
  assert.match(await refusal(folder, 'kv_store_data.db'), /did not make.*"stream%3A%3Achat\.bin".*; to move over from an existing engine: iii-stream import --from DIR$/);
  assert.deepEqual(files(join(folder, 'kv_store_data.db')), ['stream%3A%3Achat.bin']);
});

test('streams of any name have their files in the directory and nowhere else', { skip }, async () => {
  const folder = newFolder();
  const parent = join(folder, 'parent');
  mkdirSync(parent);
  const names = ['../../etc/passwd', '..', '.', '/', '/etc/passwd', 'a\0b', '\0', '🦀', 'x'.repeat(1_024), 'é'.repeat(512), 'con', 'NUL', 'a:b', 'A', 'a', '%2e%2e', ' ', 'lock', 'manifest-0000000001', 'state', '..\\..\\x', '-rf', '$(id)', 'a\nb'];
  // So small a log that everything is carried into the streams' files.
  const config = { stream: { adapter: { name: 'kv', config: { store_method: 'file_based', file_path: 'data', log_segment_bytes: 65_536, log_fold_bytes: 65_536 } } }, folder: parent };
  const first = await startServer(config);
  const peer = await first.peer();
  const text = 'y'.repeat(9_000);
  for (const stream_name of names) {
    for (const n of range(3)) await peer.result('stream::set', { stream_name, group_id: stream_name, item_id: stream_name, data: { n, text, stream_name } });
  }
  const folds = async () => { for (;;) if ((await first.metrics()).iii_stream_store_folds_total >= 3) return; };
  await first.within(folds(), 'some folds');
  await first.stop();
  assert.deepEqual(readdirSync(folder), ['parent']);
  assert.deepEqual(readdirSync(parent).sort(), ['config.yaml', 'data']);
  const made = readdirSync(join(parent, 'data'));
  const ours = made.filter((name) => name.endsWith('.stream'));
  assert.ok(ours.length > names.length / 2, `${ours.length} files`);
  for (const name of made) assert.match(name, /^(lock|state|manifest-\d{10}|(log|spare)-\d{10}|[a-z0-9_%~-]+\.stream)$/);
  const second = await startServer(config);
  try {
    const again = await second.peer();
    for (const stream_name of names) assert.equal((await again.result('stream::get', { stream_name, group_id: stream_name, item_id: stream_name })).stream_name, stream_name, JSON.stringify(stream_name));
  } finally {
    await second.stop();
  }
});

/** Why no disk of our own can be made here; false where it can. */
function noSmallDisk() {
  try {
    execFileSync('unshare', ['-rm', 'sh', '-c', 'mount -t tmpfs -o size=1m none /mnt'], { stdio: 'pipe' });
    return false;
  } catch (error) {
    return `no disk of one's own: ${String(error.stderr ?? error.message).trim()}`;
  }
}

test('a full disk refuses writes in words, serves on, and works again by itself once there is room', { skip: skip || noSmallDisk() }, async () => {
  const folder = newFolder();
  // The server and whoever fills the disk see it, in a mount namespace of their own.
  mkdirSync(join(folder, 'disk'));
  const wrapper = join(folder, 'iii-stream');
  const [fill, drain] = [join(folder, 'fill'), join(folder, 'drain')];
  writeFileSync(wrapper, `#!/bin/sh\nexec unshare -rm sh -c '
mount -t tmpfs -o size=12m none "${folder}/disk" || exit 9
(while [ -d "${folder}" ]; do
  if [ -e "${fill}" ]; then dd if=/dev/zero of="${folder}/disk/ballast" bs=4096 2>/dev/null; rm "${fill}"; fi
  if [ -e "${drain}" ]; then rm -f "${folder}/disk/ballast" "${drain}"; fi
  sleep 0.05
  kill -0 $$ 2>/dev/null || exit
done) >/dev/null 2>&1 &
exec "${serverBinary()}" "$@"' iii-stream "$@"\n`, { mode: 0o755 });
  const stream = { adapter: { name: 'kv', config: { store_method: 'file_based', file_path: join(folder, 'disk', 'data'), log_segment_bytes: 65_536, log_fold_bytes: 131_072 } } };
  const server = await startServer({ folder, stream, binary: wrapper });
  try {
    const peer = await server.peer();
    const at = { stream_name: 's', group_id: 'g' };
    const text = 'z'.repeat(20_000);
    const viewer = await server.subscriber();
    await viewer.join('s', 'g', undefined, 'v');
    await peer.result('stream::set', { ...at, item_id: 'first', data: 1 });
    await viewer.event('create');
    writeFileSync(fill, '');
    const gone = async (file) => { while (existsSync(file)) await new Promise(setImmediate); };
    await server.within(gone(fill), 'the disk to be full');
    let refused;
    const answered = new Map([['first', 1]]);
    for (let n = 0; !refused; n += 1) {
      assert.ok(n < 2_000, 'the disk is full at some time');
      const frame = await peer.call('stream::set', { ...at, item_id: `i${n % 5}`, data: { n, text }, returning: 'none' });
      if (frame.error) refused = frame.error;
      else answered.set(`i${n % 5}`, n);
    }
    assert.deepEqual([refused.code, refused.storage], ['STREAM_SET_ERROR', 'full'], JSON.stringify(refused));
    assert.match(refused.message, /^the disk is full, nothing was changed: .*No space left/);
    const health = JSON.parse((await server.page('/health')).body);
    assert.deepEqual([health.status, health.store.name], ['full', 'file']);
    assert.match(health.store.reason, /No space left/);
    assert.equal((await server.metrics()).iii_stream_store_writable, 0);
    // Reads go on and show what was answered, and no more; subscribers come and see the same.
    const items = await peer.result('stream::list', { ...at, meta: true });
    assert.deepEqual(items.map(({ id, value }) => [id, value.n ?? value]).sort(), [...answered].sort());
    const late = await server.subscriber();
    const { event } = await late.join('s', 'g', undefined, 'late');
    assert.equal(event.data.length, answered.size);
    assert.equal(await viewer.ping(), 'still there?');
    const stateful = await peer.call('state::set', { scope: 'a', key: 'b', value: text });
    assert.ok(stateful.error === undefined || stateful.error.storage === 'full', JSON.stringify(stateful.error));
    writeFileSync(drain, '');
    await server.within(gone(drain), 'room on the disk');
    const works = async () => {
      for (;;) {
        const frame = await peer.call('stream::set', { ...at, item_id: 'after', data: 2 });
        if (!frame.error) return;
        assert.equal(frame.error.storage, 'full', JSON.stringify(frame.error));
      }
    };
    await server.within(works(), 'writes to go well again');
    await late.take((frame) => frame.id === 'after', 'the event of it');
    const healthy = async () => { while (JSON.parse((await server.page('/health')).body).status !== 'ok'); };
    await server.within(healthy(), '/health to say ok');
    assert.equal((await server.metrics()).iii_stream_store_writable, 1);
    assert.match(server.log, /nothing can be written until there is room again: .*No space left[\s\S]*there is room again/, 'the log told of it');
  } finally {
    await server.stop();
  }
});
