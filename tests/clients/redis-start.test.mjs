// What a start on Redis says: each setting by which Redis may lose what was acknowledged, and in one line why it cannot be used.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { newPrefix, rejection, startServer, startServers } from './harness.mjs';
import { freePort, inStep, startRedis, until, withoutRedis } from './redis.mjs';
import { Connection } from './version-2.mjs';

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
  const replica = await startRedis({ replicaof: `127.0.0.1 ${guarded.port}` });
  t.after(() => replica.stop());
  await inStep(replica);
  await guarded.call('ACL', 'SETUSER', 'bea', 'on', '>right-secret', '~*', '&*', '+@all', '-xadd', '-zpopmin');
  await guarded.call('ACL', 'SETUSER', 'cem', 'on', '>right-secret', '~other:*', '&*', '+@all');
  await guarded.call('ACL', 'SETUSER', 'dan', 'on', '>right-secret', '~*', '&*', '+@all', '-subscribe');
  for (const [config, pattern] of [
    [{ redis_url: `redis://${replica.address}` }, `Redis at ${replica.address} cannot be reached within 1000 ms: it is a replica of 127.0.0.1:${guarded.port} and takes no writes; name the master`],
    [{ redis_url: `redis://${at},redis://${replica.address}` }, `Redis at ${at} refuses us: it is not part of a cluster, and .redis_url. has 2 addresses; name one server`],
    [{ redis_url: `redis://bea:right-secret@${at}`, key_prefix: 'mine:' }, `Redis at ${at} does not allow our user what is needed: XADD, ZPOPMIN .*ACL SETUSER USER ~mine:\\* &mine:\\* `],
    [{ redis_url: `redis://cem:right-secret@${at}`, key_prefix: 'mine:' }, `Redis at ${at} does not allow our user what is needed: .*ACL SETUSER USER ~mine:\\* &mine:\\* `],
    [{ redis_url: `redis://dan:right-secret@${at}` }, 'did not confirm a subscription .* needs SUBSCRIBE'],
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

test('a Redis without memory refuses writes as `full`, says so in /health, and takes them again; who is there is seen all the while', { skip }, async (t) => {
  const redis = await startRedis({ maxmemory: '0', 'maxmemory-policy': 'noeviction' });
  t.after(() => redis.stop());
  const prefix = newPrefix();
  const both = await startServers(2, { redis, prefix, config: { heartbeat_ms: 100, instance_gone_ms: 500 } });
  t.after(() => Promise.all(both.map((server) => server.stop())));
  const [server] = both;
  const peer = await server.peer();
  const at = { stream_name: 'fill', group_id: 'g' };
  await peer.result('stream::set', { ...at, item_id: 'a', data: 1 });
  await redis.call('CONFIG', 'SET', 'maxmemory', '1');
  for (const [function_id, data] of [['stream::set', { ...at, item_id: 'a', data: 2 }], ['stream::delete', { ...at, item_id: 'a' }], ['state::set', { scope: 's', key: 'k', value: 1 }]]) {
    const { error } = await peer.call(function_id, data);
    assert.equal(error.storage, 'full', JSON.stringify(error));
    assert.match(error.message, /no memory left \(`maxmemory`\), so nothing was written: raise `maxmemory`/);
  }
  assert.equal(await peer.result('stream::get', { ...at, item_id: 'a' }), 1);
  const { status, store } = await health(server);
  assert.equal(status, 'full');
  assert.match(store.reason, /maxmemory/);
  assert.match((await server.page('/metrics')).body, /^iii_stream_store_writable 0$/m);
  assert.match(server.log, /ERROR writes are refused: .*maxmemory/);
  // Reading goes on, of what is there and of what is not, at each server and in each version.
  const watched = [];
  for (const [n, group_id] of [[0, 'g'], [1, 'g'], [1, 'new']]) {
    for (const version of [1, 2]) {
      const connection = await Connection.open(both[n]);
      const data = { subscriptionId: 's', streamName: at.stream_name, groupId: group_id, ...(version === 2 ? { version } : {}) };
      connection.send({ type: 'join', data });
      await connection.until(() => connection.frames.length > 0, `a sync of ${group_id} in version ${version}`);
      const shown = connection.frames[0].event.data ?? connection.frames[0].event.items.map(({ data }) => data);
      assert.deepEqual(shown, group_id === 'g' ? [1] : []);
      watched.push({ connection, group_id });
    }
  }
  const read = await fetch(`${both[1].subscribers.replace('ws:', 'http:')}/stream/fill/g`);
  assert.deepEqual([read.status, (await read.json()).items.length], [200, 1]);
  // Ten heartbeats, and twice the silence after which a server is gone.
  const beats = async () => JSON.parse((await redis.call('HVALS', `${prefix}instances`))[0]).beat_ms;
  const first = await beats();
  await until(async () => await beats() >= first + 1_000, 'ten heartbeats');
  assert.match((await server.page('/metrics')).body, /^iii_stream_cluster_instances 2$/m);
  await redis.call('CONFIG', 'SET', 'maxmemory', '0');
  await peer.result('stream::set', { ...at, item_id: 'a', data: 3 });
  await peer.result('stream::set', { ...at, group_id: 'new', item_id: 'a', data: 3 });
  // As a change, or in a fresh sync: the history of the new group begins only now.
  const last = ({ event }) => JSON.stringify(event.data ?? event.items?.map(({ data }) => data));
  for (const { connection, group_id } of watched) {
    await connection.until(() => /^\[?3\]?$/.test(last(connection.frames.at(-1))), `the change of ${group_id}`);
    connection.cut();
  }
  await until(async () => (await health(server)).status === 'ok', 'the health to be ok again', { ms: 15_000 });
});

test('servers on one Redis and prefix that are configured otherwise are told of it, with both values', { skip }, async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const key_prefix = newPrefix();
  const native = await onRedis({ redis_url: redis.url, key_prefix });
  t.after(() => native.stop());
  const adapter = { name: 'redis', config: { redis_url: redis.url, key_prefix, layout: 'compatible' } };
  const other = await startServer({ stream: { adapter, group_items_max: 5 } });
  t.after(() => other.stop());
  const told = (server, what) => until(() => new RegExp(`WARN .*other settings: ${what}`).test(server.log), `${what} to be told`);
  await told(native, '`layout` is compatible there and native here');
  await told(native, '`group_items_max` is 5 there and 10000000 here');
  await told(other, '`layout` is native there and compatible here');
});
