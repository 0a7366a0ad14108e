// What a start on Redis says: each setting by which Redis may lose what was acknowledged, and in one line why it cannot be used.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { rejection, startServer } from './harness.mjs';
import { freePort, startRedis, until, withoutRedis } from './redis.mjs';

const skip = withoutRedis;
const onRedis = (config, more = {}) => startServer({ stream: { adapter: { name: 'redis', config } }, ...more });
const warnings = (server) => [...server.log.matchAll(/ WARN (Redis at .*)/g)].map(([, text]) => text);
const health = async (server) => JSON.parse((await server.page('/health')).body);

test('settings by which Redis may lose what was acknowledged are told at the start and in /health', { skip }, async (t) => {
  const redis = await startRedis({ appendonly: 'no', save: '', 'maxmemory-policy': 'allkeys-lru' });
  t.after(() => redis.stop());
  const server = await onRedis({ redis_url: redis.url });
  t.after(() => server.stop());
  const { status, store } = await health(server);
  assert.deepEqual([status, store.name], ['ok', 'redis']);
  assert.deepEqual(store.unsafe_settings, warnings(server));
  const expected = [
    /appendonly is no and save is empty: .*everything is lost; set appendonly yes/,
    /maxmemory-policy is allkeys-lru: .*set maxmemory-policy noeviction/,
    /it has no replica: .*attach a replica/,
  ];
  assert.equal(store.unsafe_settings.length, expected.length, store.unsafe_settings.join('\n'));
  for (const [n, pattern] of expected.entries()) {
    assert.ok(store.unsafe_settings[n].startsWith(`Redis at ${redis.address}: `), store.unsafe_settings[n]);
    assert.match(store.unsafe_settings[n], pattern);
  }
});

test('a Redis that appends to its file is told of only what is left, and one with a replica of nothing', { skip }, async (t) => {
  const redis = await startRedis({ appendonly: 'yes', appendfsync: 'always', 'min-replicas-to-write': 0, 'repl-diskless-sync-delay': 0 });
  t.after(() => redis.stop());
  const alone = await onRedis({ redis_url: redis.url });
  t.after(() => alone.stop());
  assert.deepEqual((await health(alone)).store.unsafe_settings, warnings(alone));
  assert.equal(warnings(alone).length, 1, alone.log);
  assert.match(warnings(alone)[0], /it has no replica/);
  const replica = await startRedis({ replicaof: `127.0.0.1 ${redis.port}` });
  t.after(() => replica.stop());
  await until(async () => Number((await redis.info('replication')).connected_slaves) === 1, 'the replica to be connected');
  await redis.call('CONFIG', 'SET', 'min-replicas-to-write', '1');
  const guarded = await onRedis({ redis_url: redis.url });
  t.after(() => guarded.stop());
  assert.deepEqual(warnings(guarded), []);
  assert.equal((await health(guarded)).store.unsafe_settings, undefined);
});

/** The line with which a start on what `config` says ends. */
async function lastLine(config) {
  const error = await rejection(onRedis({ connect_timeout_ms: 1_000, ...config }), 'the start');
  const lines = error.message.split('\n').filter((line) => line.startsWith('error: '));
  assert.equal(lines.length, 1, error.message);
  return lines[0];
}

test('a start that cannot use its Redis ends with one line: where, what is wrong, what to do; and no password', { skip }, async (t) => {
  const guarded = await startRedis();
  t.after(() => guarded.stop());
  await guarded.call('ACL', 'SETUSER', 'ann', 'on', '>right-secret', '~*', '&*', '+@all');
  const at = guarded.address;
  const other = createServer((socket) => { socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n'); });
  await new Promise((resolve) => { other.listen(0, '127.0.0.1', resolve); });
  t.after(() => other.close());
  const web = `127.0.0.1:${other.address().port}`;
  const mute = createServer((socket) => { socket.on('error', () => {}).resume(); });
  await new Promise((resolve) => { mute.listen(0, '127.0.0.1', resolve); });
  t.after(() => mute.close());
  const silent = `127.0.0.1:${mute.address().port}`;
  const nobody = `127.0.0.1:${await freePort()}`;
  for (const [config, pattern] of [
    [{ redis_url: `redis://ann:wrong-secret@${at}` }, `Redis at ${at} refuses us: .*password of user .ann. in .?redis_url`],
    [{ redis_url: `redis://${nobody}` }, `Redis at ${nobody} cannot be reached within 1000 ms: .*refused`],
    [{ redis_url: `redis://${web}` }, `Redis at ${web} refuses us: .*no Redis`],
    [{ redis_url: `redis://${silent}` }, `Redis at ${silent} cannot be reached within 1000 ms: .*no answer`],
    [{ redis_url: `rediss://ann:right-secret@${at}` }, 'redis_url.*TLS'],
    [{ redis_url: 'redis://' }, 'redis_url.*names no host'],
    [{ redis_url: `redis://${at}/99` }, `Redis at ${at} refuses us: .*database 99`],
    [{ redis_url: `redis://${at}`, mode: 'cluster' }, `Redis at ${at} refuses us: .*not part of a cluster.*mode`],
    [{ redis_url: `redis://${at}`, mode: 'sentinel' }, `${at} .*it is no sentinel`],
  ]) {
    const line = await lastLine(config);
    t.diagnostic(line);
    assert.match(line, new RegExp(pattern));
    assert.doesNotMatch(line, /secret/);
  }
});
