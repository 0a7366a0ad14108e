// Starts Redis servers for tests: one, a primary with a replica, Sentinels beside them, a Cluster. Each runs on a free port in a folder
// of its own and ends with the test process. Faults are what a test does to them: kill, pause, restart, fail over, move a slot.
import { execFileSync, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as after } from 'node:timers/promises';
import { deferred, newFolder, within } from './harness.mjs';
import { RedisConnection } from './resp.mjs';

const SLOTS = 16_384;
const LOG_BYTES_SHOWN = 3_000;
/** How long a server may take to start or to come to a state; what is asked for is looked at so often. */
const [WAIT_MS, LOOK_MS] = [20_000, 10];

function find() {
  try {
    execFileSync('redis-server', ['--version'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'there is no redis-server; run: make setup (or: apt-get install redis-server)';
  }
}

/** Why tests that need a Redis are skipped; `false` where there is one. For the option `skip` of a test. */
export const withoutRedis = find();

// A test process that ends leaves no server and no folder behind.
const running = new Set();
process.on('exit', () => {
  for (const redis of running) {
    redis.child.kill('SIGKILL');
    rmSync(redis.folder, { recursive: true, force: true });
  }
});

/** Asks until `ask()` gives something, or fails naming `what`; what it throws meanwhile counts as not yet. */
export async function until(ask, what, { ms = WAIT_MS } = {}) {
  const end = performance.now() + ms;
  let last;
  while (performance.now() < end) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    await after(LOOK_MS);
  }
  throw new Error(`waited ${ms} ms for ${what}${last ? `; last: ${last.message}` : ''}`);
}

/** A port that nobody listens on, below those that outgoing connections get: so it can be taken again after a restart. */
export async function freePort() {
  for (;;) {
    const port = randomInt(12_000, 32_000);
    const free = deferred();
    const probe = createServer().on('error', () => free.resolve(false)).listen(port, '127.0.0.1', () => probe.close(() => free.resolve(true)));
    if (await free.promise) return port;
  }
}

/** One redis-server. */
export class Redis {
  #connection;

  constructor({ port, folder, options, isSentinel = false }) {
    Object.assign(this, { port, folder, options, isSentinel });
    this.host = '127.0.0.1';
    this.address = `127.0.0.1:${port}`;
    this.url = `redis://127.0.0.1:${port}`;
  }

  /** Starts it on its port with what is in its folder, and waits until it has loaded that. */
  async start() {
    const args = this.isSentinel
      ? [join(this.folder, 'sentinel.conf'), '--sentinel']
      : Object.entries(this.options).flatMap(([key, value]) => [`--${key}`, ...[value].flat().map(String)]);
    this.child = spawn('redis-server', args, { cwd: this.folder, stdio: 'ignore' });
    this.child.unref();
    this.pid = this.child.pid;
    const ended = deferred();
    this.ended = ended.promise;
    this.child.on('exit', (code, signal) => { running.delete(this); ended.resolve({ code, signal }); });
    running.add(this);
    const up = async () => {
      if (this.child.exitCode !== null) throw Object.assign(new Error(`redis-server ended with ${this.child.exitCode}`), { isOver: true });
      return (await this.call('PING')) === 'PONG';
    };
    try {
      await until(up, `redis-server on port ${this.port}`);
    } catch (error) {
      this.child.kill('SIGKILL');
      error.message += this.report();
      throw error;
    }
    return this;
  }

  /** What it logged last. */
  report() {
    try {
      return `\n--- redis on ${this.port} said ---\n${readFileSync(join(this.folder, 'redis.log'), 'utf8').slice(-LOG_BYTES_SHOWN)}---`;
    } catch {
      return '';
    }
  }

  /** The answer to one command. */
  call(...parts) {
    if (!this.#connection || this.#connection.ended) this.#connection = new RedisConnection(this.port);
    return this.#connection.call(...parts);
  }

  /** A connection of its own, for what blocks or counts connections. */
  connect() {
    return new RedisConnection(this.port);
  }

  /** The fields of a section of INFO. */
  async info(section) {
    const text = await this.call('INFO', section);
    return Object.fromEntries(text.split('\r\n').filter((line) => /^[a-z]/.test(line)).map((line) => line.split(/:(.*)/, 2)));
  }

  /** Ends it: by SIGTERM it writes down all that it has, by SIGKILL it does not. Its folder stays. */
  async end(signal = 'SIGTERM') {
    if (this.isPaused) this.resume();
    this.child.ref();
    this.child.kill(signal);
    await within(this.ended, `redis-server on port ${this.port} to end`);
    this.#connection?.close();
  }

  kill() {
    return this.end('SIGKILL');
  }

  /** Ends it and starts it again on the same port and folder. `meanwhile` runs while it is away. */
  async restart({ signal = 'SIGTERM', meanwhile = async () => {} } = {}) {
    await this.end(signal);
    await meanwhile();
    return this.start();
  }

  /** Lets it stand still with all its connections open, as a machine that swaps does, until `resume`. */
  pause() {
    this.isPaused = true;
    this.child.kill('SIGSTOP');
  }

  resume() {
    this.isPaused = false;
    this.child.kill('SIGCONT');
  }

  /** Ends it and removes its folder. */
  async stop() {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.end('SIGKILL');
    this.#connection?.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Starts one redis-server; what it acknowledges outlives its end, up to a second's worth by a loss of power. `options` are settings. */
export async function startRedis(options = {}) {
  // Somebody else may take the port in the moment before Redis does.
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort();
    const folder = await newFolder();
    const settings = {
      port, bind: '127.0.0.1', dir: folder, logfile: 'redis.log', appendonly: 'yes', appendfsync: 'everysec', save: '', 'enable-debug-command': 'local', ...options,
    };
    const redis = new Redis({ port, folder, options: settings });
    try {
      return await redis.start();
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      if (attempt === 3) throw error;
    }
  }
}

/** A primary with a replica that has everything of it: `{ primary, replica, stop() }`. */
export async function startPair({ primary: primaryOptions = {}, replica: replicaOptions = {} } = {}) {
  const primary = await startRedis({ 'repl-diskless-sync-delay': 0, 'repl-ping-replica-period': 1, ...primaryOptions });
  const replica = await startRedis({ replicaof: ['127.0.0.1', primary.port], 'repl-diskless-sync-delay': 0, ...replicaOptions });
  await inStep(replica);
  return { primary, replica, stop: () => Promise.all([primary.stop(), replica.stop()]) };
}

/** Waits until a replica follows its primary. */
export const inStep = (replica) => until(async () => (await replica.info('replication')).master_link_status === 'up', 'the replica to follow');

/** Sentinels that watch a pair under the name `main`. */
class Sentinels {
  constructor(pair, sentinels) {
    Object.assign(this, { pair, sentinels });
    this.name = 'main';
    this.urls = sentinels.map(({ url }) => url);
    /** What a server's adapter needs besides the addresses. */
    this.config = { mode: 'sentinel', sentinel_master: this.name };
  }

  /** The port of the server that is the primary now, as the Sentinels say. */
  async primaryPort() {
    const [, port] = await this.sentinels[0].call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', this.name);
    return Number(port);
  }

  get #servers() {
    return [this.pair.primary, this.pair.replica];
  }

  async primary() {
    const port = await this.primaryPort();
    return this.#servers.find((redis) => redis.port === port);
  }

  /** Waits until the primary is another one than `old`, and says so itself. */
  async promoted(old) {
    return until(async () => {
      const now = await this.primary();
      return now !== old && (await now.call('ROLE'))[0] === 'master' && now;
    }, 'the replica to be promoted');
  }

  async stop() {
    await Promise.all(this.sentinels.map((sentinel) => sentinel.stop()));
    await this.pair.stop();
  }
}

/** A pair with three Sentinels; a primary that is silent for `downAfterMs` is replaced by its replica. */
export async function startSentinels({ downAfterMs = 500, ...options } = {}) {
  const pair = await startPair(options);
  const sentinels = await Promise.all(Array.from({ length: 3 }, async () => {
    const [port, folder] = [await freePort(), await newFolder()];
    writeFileSync(join(folder, 'sentinel.conf'), [
      `port ${port}`, 'bind 127.0.0.1', `dir ${folder}`, 'logfile redis.log', `sentinel monitor main 127.0.0.1 ${pair.primary.port} 2`,
      `sentinel down-after-milliseconds main ${downAfterMs}`, 'sentinel failover-timeout main 3000', '',
    ].join('\n'));
    return new Redis({ port, folder, isSentinel: true }).start();
  }));
  const all = new Sentinels(pair, sentinels);
  const know = async (sentinel) => {
    const [list] = await sentinel.call('SENTINEL', 'MASTERS');
    const told = Object.fromEntries(list.flatMap((name, i) => (i % 2 === 0 ? [[name, list[i + 1]]] : [])));
    return told['num-other-sentinels'] === '2' && told['num-slaves'] === '1';
  };
  for (const sentinel of sentinels) await until(() => know(sentinel), 'the Sentinels to know each other');
  return all;
}

/** The slot of a key, by the rule of hash tags. */
export function slotOf(key) {
  const tag = /^[^{]*\{([^}]+)\}/.exec(key)?.[1] ?? key;
  let crc = 0;
  for (const byte of Buffer.from(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = ((crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
  }
  return crc % SLOTS;
}

/** A Redis Cluster: masters that share the slots, each with a replica if asked for. */
class Cluster {
  constructor(masters, replicas) {
    Object.assign(this, { nodes: [...masters, ...replicas], masters, replicas });
    this.urls = this.nodes.map(({ url }) => url);
  }

  /** The node that serves a slot now, as a node that is alive says. */
  async nodeOf(slot, asked = this.nodes[0]) {
    const ranges = await asked.call('CLUSTER', 'SLOTS');
    const [, , [, port]] = ranges.find(([from, to]) => from <= slot && slot <= to);
    return this.nodes.find((node) => node.port === port);
  }

  nodeOfKey(key) {
    return this.nodeOf(slotOf(key));
  }

  /** Waits until all nodes that run say that the cluster is whole, and agree on who serves what. */
  async settled() {
    await until(async () => {
      const views = await Promise.all(this.nodes.filter(({ child, isPaused }) => child.exitCode === null && child.signalCode === null && !isPaused).map(async (node) => {
        const state = await node.call('CLUSTER', 'INFO');
        if (!state.includes('cluster_state:ok')) return undefined;
        const slots = await node.call('CLUSTER', 'SLOTS');
        return JSON.stringify(slots.map(([from, to, [, port], ...others]) => [from, to, port, others.length]).sort((a, b) => a[0] - b[0]));
      }));
      return views.every((view) => view !== undefined && view === views[0]);
    }, 'the cluster to be whole');
  }

  /** Moves a slot with its keys to another master, as `redis-cli --cluster reshard` does, while it is used. */
  async moveSlot(slot, to) {
    const from = await this.nodeOf(slot);
    const [fromId, toId] = await Promise.all([from, to].map((node) => node.call('CLUSTER', 'MYID')));
    await to.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', fromId);
    await from.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', toId);
    for (;;) {
      const keys = await from.call('CLUSTER', 'GETKEYSINSLOT', slot, 5);
      if (keys.length === 0) break;
      await from.call('MIGRATE', '127.0.0.1', to.port, '', 0, 5_000, 'KEYS', ...keys);
    }
    await to.call('CLUSTER', 'SETSLOT', slot, 'NODE', toId);
    await from.call('CLUSTER', 'SETSLOT', slot, 'NODE', toId);
    for (const node of this.masters) if (node !== to && node !== from) await node.call('CLUSTER', 'SETSLOT', slot, 'NODE', toId);
    return { from, to };
  }

  /** A replica of a master takes over from it; nothing is lost, as it waits until it has everything. The new master. */
  async failover(master) {
    const replica = await this.replicaOf(master);
    const [masterId, replicaId] = await Promise.all([master, replica].map((node) => node.call('CLUSTER', 'MYID')));
    // A master that does not know of its replica yet takes no notice of what that asks.
    const isKnown = async () => (await master.call('CLUSTER', 'REPLICAS', masterId)).some((line) => line.startsWith(replicaId));
    await until(isKnown, 'the master to know its replica');
    await replica.call('CLUSTER', 'FAILOVER');
    await until(async () => (await replica.call('ROLE'))[0] === 'master', 'the replica to be promoted');
    return replica;
  }

  async replicaOf(master) {
    for (const node of this.nodes) {
      const [role, , port] = await node.call('ROLE');
      if (role === 'slave' && port === master.port) return node;
    }
    throw new Error(`no replica of ${master.address}`);
  }

  async stop() {
    await Promise.all(this.nodes.map((node) => node.stop()));
  }
}

/** A Cluster of `masters`, each with a replica if `replicas`; a node that is silent for `nodeTimeoutMs` is taken for dead. */
export async function startCluster({ masters: count = 3, replicas: hasReplicas = false, nodeTimeoutMs = 1_000, options = {}, nodeOptions = () => ({}) } = {}) {
  const start = async (_, n) => startRedis({
    'cluster-enabled': 'yes', 'cluster-node-timeout': nodeTimeoutMs, 'cluster-port': await freePort(), 'cluster-replica-validity-factor': 0,
    'repl-diskless-sync-delay': 0, 'repl-ping-replica-period': 1, ...options, ...await nodeOptions(n),
  });
  const nodes = await Promise.all(Array.from({ length: hasReplicas ? count * 2 : count }, start));
  const [masters, replicas] = [nodes.slice(0, count), nodes.slice(count)];
  const [first] = nodes;
  const share = SLOTS / count;
  await Promise.all(nodes.map((node, n) => node.call('CLUSTER', 'SET-CONFIG-EPOCH', n + 1)));
  await Promise.all(masters.map((node, n) => node.call('CLUSTER', 'ADDSLOTSRANGE', Math.round(n * share), Math.round((n + 1) * share) - 1)));
  for (const node of nodes.slice(1)) await first.call('CLUSTER', 'MEET', '127.0.0.1', node.port, node.options['cluster-port']);
  await until(async () => {
    const known = await Promise.all(nodes.map((node) => node.call('CLUSTER', 'INFO')));
    return known.every((info) => info.includes(`cluster_known_nodes:${nodes.length}\r\n`));
  }, 'the nodes to know each other');
  for (const [n, replica] of replicas.entries()) {
    const id = await masters[n].call('CLUSTER', 'MYID');
    await until(async () => (await replica.call('CLUSTER', 'REPLICATE', id)) === 'OK', 'a replica to know its master');
  }
  await Promise.all(replicas.map(inStep));
  const cluster = new Cluster(masters, replicas);
  await cluster.settled();
  return cluster;
}

let own;
/** The Redis of this test process: started when it is first asked for, ended with the process. */
export function processRedis() {
  own ??= startRedis();
  return own;
}
