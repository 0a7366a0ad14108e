// A server under load that is killed with SIGKILL again and again, and started on the same directory and ports each time. Workers
// write, subscribers come back to where they were; afterwards everything is compared.
//
// What has to hold: nothing that was answered is lost or done twice; a call that was not answered, sent again with its `mutation`,
// has taken effect once; sequences grow in the order of a connection's calls; a subscriber that comes back hears of each change
// once, or is told `reset`; and what anybody shows is what the group holds.
//
//   node crash.mjs 200 [SEED]    so many rounds, with a line for each ten
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { newFolder, startServer, within } from './harness.mjs';
import { range } from './raw.mjs';
import { portsOf } from './restart.mjs';
import { Connection, dice, mark, standing, View } from './version-2.mjs';

/** So small that folds, evictions and loads happen all the time. */
const SMALL = {
  store_method: 'file_based', file_path: 'stream_store', log_segment_bytes: 65_536, log_fold_bytes: 131_072, cache_bytes_max: 400_000,
};
const STREAMS = ['crash', 'Crash/2'];
const GROUPS = 6;
const ITEMS = 8;
/** Calls of a writer that are on their way at one time. */
const LANES = 12;
/** Groups that are written once in a while only, so that they leave the memory. */
const COLD_GROUPS = 40;
const TEXT = 'x'.repeat(3_000);

/** Numbers of the whole run. */
class Tally {
  kills = 0;
  answered = 0;
  again = 0;
  duplicates = 0;
  resumes = 0;
  resets = 0;
  snapshots = 0;
  heard = 0;
  folds = 0;
  loads = 0;
  evictions = 0;
  startsMs = [];

  line() {
    const sorted = [...this.startsMs].sort((a, b) => a - b);
    const at = (share) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
    return `${this.kills} kills, ${this.answered} changes answered, ${this.again} sent again of which ${this.duplicates} had taken effect, `
      + `${this.heard} events heard, ${this.resumes} resumes, ${this.snapshots} snapshots, ${this.resets} resets, `
      + `${this.folds} folds, ${this.loads} loads, ${this.evictions} evictions, start-up ${at(0.5)} ms (median), ${at(1)} ms (longest)`;
  }
}

/** One writer: a connection, calls in order, each with a `mutation`; what is not answered is sent again after a crash. */
class Writer {
  #open = [];
  /** How many calls there were by group: each group knows its clients by itself. */
  #seqs = new Map();
  /** The last sequence that this connection was told, by group. */
  #last = new Map();

  constructor(run, number) {
    this.run = run;
    this.client = `writer-${number}-0123456789`;
    this.number = number;
    this.roll = dice(run.seed * 1_000 + number);
  }

  #place() {
    const stream_name = STREAMS[this.roll(STREAMS.length)];
    if (this.roll(8) === 0) return { stream_name, group_id: `cold-${this.roll(COLD_GROUPS)}`, item_id: `w${this.number}` };
    return { stream_name, group_id: `g${this.roll(GROUPS)}`, item_id: `i${this.roll(ITEMS)}` };
  }

  /** The next call. */
  #next() {
    const place = this.#place();
    const group = `${place.stream_name} ${place.group_id}`;
    const seq = (this.#seqs.get(group) ?? 0) + 1;
    this.#seqs.set(group, seq);
    const at = { ...place, returning: 'none', mutation: { client: this.client, seq } };
    // An item of this writer alone holds the last value that it set; the others are shared and only counted.
    const dart = this.roll(10);
    if (dart < 5) return { id: 'stream::update', data: { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }] } };
    if (dart < 8) return { id: 'stream::update', data: { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }, { type: 'append', path: 'log', value: `${this.number}:${seq};` }] } };
    return { id: 'stream::set', data: { ...at, item_id: `own-${this.number}`, data: { at: seq, text: TEXT } } };
  }

  /** Writes on a new connection until it breaks or `isOver()`. */
  async write(server, isOver) {
    try {
      const peer = await server.peer();
      await this.#sendAgain(peer);
      const lanes = range(LANES).map(() => this.#writeOn(peer, isOver));
      for (const { reason } of await Promise.allSettled(lanes)) if (reason) throw reason;
    } catch (error) {
      // That the connection breaks off is what is tested.
      if (!/^the connection was closed/.test(error.message)) throw error;
    }
  }

  /** What was not answered comes first, in its order: it may have taken effect, or not. */
  async #sendAgain(peer) {
    const { tally } = this.run;
    while (this.#open.length > 0) {
      const [call] = this.#open;
      const { duplicate, seq } = await peer.result(call.id, call.data);
      tally.again += 1;
      if (duplicate) tally.duplicates += 1;
      // The answer to a duplicate tells the last mutation, not the change.
      this.#settle(call, duplicate ? undefined : seq);
    }
    this.#last = new Map();
  }

  async #writeOn(peer, isOver) {
    while (!isOver()) {
      const call = this.#next();
      this.#open.push(call);
      const { seq, duplicate } = await peer.result(call.id, call.data);
      assert.equal(duplicate, undefined, 'what is sent for the first time is no duplicate');
      // Answers come in the order of calls, so the sequences of a group grow.
      const group = `${call.data.stream_name} ${call.data.group_id}`;
      assert.ok((this.#last.get(group) ?? 0) < seq, `${group}: ${seq} after ${this.#last.get(group)}`);
      this.#last.set(group, seq);
      this.#settle(call, seq);
    }
  }

  #settle(call, seq) {
    this.#open.splice(this.#open.indexOf(call), 1);
    this.run.tally.answered += 1;
    this.run.took(call.data, seq, this.number);
  }

  get open() {
    return this.#open.length;
  }
}

/** A subscriber that comes back: what it shows has to be exact at every end of a round. */
class Subscriber {
  constructor(run, options, place) {
    Object.assign(this, { run, options });
    this.view = new View(`v-${JSON.stringify(options)}-${place.group_id}`, place.stream_name, place.group_id, place.item);
    this.place = place;
  }

  async come(server) {
    this.connection = await Connection.open(server, this.options);
    const before = [this.view.resumes, this.view.resets, this.view.snapshots];
    this.connection.join(this.view);
    await this.connection.until(() => this.view.isLive, 'a subscriber to be back');
    const [resumes, resets, snapshots] = [this.view.resumes, this.view.resets, this.view.snapshots].map((now, n) => now - before[n]);
    this.run.tally.resumes += resumes;
    this.run.tally.resets += resets;
    this.run.tally.snapshots += snapshots;
  }

  /** Keeps what was heard small; each sequence came once, in order, which the view itself has checked. */
  rest() {
    this.run.tally.heard += this.view.told.length;
    this.view.told.length = 0;
  }
}

/** A subscriber of version 1, which gets a fresh `sync` each time. Published clients drop what is not later than what they have. */
class Old {
  #latest = 0;
  #byItem = new Map();
  #sync = 0;

  constructor(place) {
    this.place = place;
  }

  async come(server) {
    this.socket = await server.subscriber();
    const { event, timestamp } = await this.socket.join(this.place.stream_name, this.place.group_id);
    assert.equal(event.type, 'sync');
    assert.ok(this.#latest < timestamp, `a sync at ${timestamp} after an event at ${this.#latest}`);
    this.#sync = timestamp;
  }

  check() {
    for (const { timestamp, id } of this.socket.frames.splice(0)) {
      assert.ok(this.#sync < timestamp, `an event at ${timestamp} after a sync at ${this.#sync}`);
      assert.ok(this.#latest <= timestamp, `an event at ${timestamp} after one at ${this.#latest}`);
      assert.ok((this.#byItem.get(id) ?? 0) < timestamp, `an event of ${id} at ${timestamp} after one at ${this.#byItem.get(id)}`);
      this.#latest = timestamp;
      this.#byItem.set(id, timestamp);
    }
  }
}

/** One run of many rounds on one directory. */
export class Crashes {
  tally = new Tally();
  /** How often each item was counted, what was appended to it, what its only writer set last, and how many changes a group had. */
  #counts = new Map();
  #parts = new Map();
  #own = new Map();
  #changes = new Map();

  constructor(seed = 1) {
    this.seed = seed;
    this.roll = dice(seed);
    this.writers = range(4).map((n) => new Writer(this, n));
    const hot = { stream_name: STREAMS[0], group_id: 'g0' };
    this.subscribers = [
      new Subscriber(this, {}, hot), new Subscriber(this, { deltas: true }, hot), new Subscriber(this, {}, { ...hot, item: 'i1' }),
      new Subscriber(this, { deltas: true }, { stream_name: STREAMS[1], group_id: 'g3' }), new Subscriber(this, {}, { stream_name: STREAMS[1], group_id: 'cold-1' }),
    ];
    this.old = new Old(hot);
  }

  /** Takes note of a change that is known to have taken effect once; of a duplicate nobody knows the sequence. */
  took({ stream_name, group_id, item_id, ops, mutation }, seq, writer) {
    const key = JSON.stringify([stream_name, group_id, item_id]);
    this.#count(stream_name, group_id);
    if (!ops) {
      this.#own.set(key, Math.max(this.#own.get(key) ?? 0, mutation.seq));
      return;
    }
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    const part = ops[1]?.value;
    if (part) this.#parts.set(key, [...(this.#parts.get(key) ?? []), { part, seq, writer, nth: mutation.seq }]);
  }

  #count(stream_name, group_id) {
    const group = JSON.stringify([stream_name, group_id]);
    this.#changes.set(group, (this.#changes.get(group) ?? 0) + 1);
  }

  async run(rounds, onRound = () => {}) {
    const folder = await newFolder();
    let ports = {};
    try {
      for (let round = 1; round <= rounds; round += 1) {
        const begun = performance.now();
        const server = await startServer({ ...ports, stream: { ...ports.stream, adapter: { name: 'kv', config: SMALL } }, folder });
        this.tally.startsMs.push(performance.now() - begun);
        ports = portsOf(server);
        try {
          await this.#round(server, round === rounds);
        } catch (error) {
          throw new Error(`in round ${round} of a run with seed ${this.seed}: ${error.message}${server.report()}`, { cause: error });
        } finally {
          await (round === rounds ? server.stop() : server.kill());
        }
        onRound(round);
      }
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
    return this.tally;
  }

  async #round(server, isLast) {
    const viewers = [...this.subscribers, this.old];
    let isOver = false;
    const writing = Promise.all(this.writers.map((writer) => writer.write(server, () => isOver)));
    writing.catch(() => {});
    await Promise.race([Promise.all(viewers.map((viewer) => viewer.come(server))), server.died, writing.then(() => new Promise(() => {}))]);
    const wait = 50 + this.roll(750);
    await within(new Promise((resolve) => { setTimeout(resolve, wait); }), 'the moment of the crash', { ms: 5_000 });
    this.old.check();
    const m = await server.metrics();
    this.tally.folds += m.iii_stream_store_folds_total;
    this.tally.loads += m.iii_stream_store_loads_total;
    this.tally.evictions += m.iii_stream_store_evictions_total;
    // From time to time everything is compared while nobody writes, always at the end; else the crash comes first.
    if (isLast || this.roll(5) === 0) {
      isOver = true;
      await within(writing, 'all answers', { server });
      assert.deepEqual(this.writers.map((writer) => writer.open), [0, 0, 0, 0]);
      await this.#compare(server);
      for (const subscriber of this.subscribers) subscriber.rest();
      if (!isLast) await this.#crash(server);
    } else {
      await this.#crash(server);
      isOver = true;
      await within(writing, 'the writers to see the crash');
    }
    for (const subscriber of this.subscribers) {
      if (subscriber.connection.fault) throw subscriber.connection.fault;
      subscriber.connection.cut();
      subscriber.rest();
    }
  }

  async #crash(server) {
    this.tally.kills += 1;
    await server.kill();
  }

  async #compare(server) {
    const peer = await server.peer();
    const names = [...this.#counts.keys(), ...this.#own.keys()].map((key) => JSON.parse(key));
    const groups = new Map(names.map(([stream_name, group_id]) => [JSON.stringify([stream_name, group_id]), { stream_name, group_id }]));
    for (const [name, at] of groups) {
      const items = await peer.result('stream::list', { ...at, meta: true });
      // Nothing is ever deleted, so the latest item has the sequence of the group.
      assert.equal(Math.max(...items.map(({ seq }) => seq)), this.#changes.get(name), `${name}: each change once`);
      for (const { id, value } of items) {
        const key = JSON.stringify([at.stream_name, at.group_id, id]);
        if (id === 'end') continue;
        if (id.startsWith('own-')) assert.equal(value.at, this.#own.get(key), `${key} holds what was set last`);
        else this.#compareItem(key, value);
      }
      const ids = new Set(items.map(({ id }) => id));
      for (const [stream, group, id] of names) if (stream === at.stream_name && group === at.group_id) assert.ok(ids.has(id), `${name} ${id} is lost`);
    }
    for (const { view, connection, place } of this.subscribers) {
      const at = { stream_name: place.stream_name, group_id: place.group_id };
      const seq = await mark(peer, at);
      this.#count(at.stream_name, at.group_id);
      if (place.item === undefined) await connection.until(() => view.cursor === seq, 'everything to be told');
      const state = await standing(peer, at);
      if (place.item === undefined) assert.deepEqual(view.shown(), state, `${view.id} shows the group`);
      else await connection.until(() => JSON.stringify(view.shown()[place.item]) === JSON.stringify(state[place.item]), `${view.id} to show the item`);
    }
  }

  #compareItem(key, { n, log = '' }) {
    assert.equal(n, this.#counts.get(key), `${key}: each increment once`);
    const parts = this.#parts.get(key) ?? [];
    const order = new Map(log.split(';').slice(0, -1).map((part, place) => [`${part};`, place]));
    assert.equal(log.split(';').length - 1, parts.length, `${key}: each append once`);
    for (const one of parts) assert.ok(order.has(one.part), `${key}: ${one.part} is lost`);
    const inOrder = parts.map((one) => ({ ...one, place: order.get(one.part) })).sort((a, b) => a.place - b.place);
    const known = inOrder.filter(({ seq }) => seq !== undefined);
    known.forEach(({ seq, part }, i) => assert.ok(i === 0 || known[i - 1].seq < seq, `${key}: ${part} is in the order of sequences`));
    for (const number of range(4)) {
      const own = inOrder.filter(({ writer }) => writer === number);
      own.forEach(({ nth, part }, i) => assert.ok(i === 0 || own[i - 1].nth < nth, `${key}: ${part} is in the order of calls`));
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [rounds, seed] = [Number(process.argv[2] ?? 200), Number(process.argv[3] ?? Date.now() % 1_000_000)];
  const crashes = new Crashes(seed);
  console.log(`${rounds} rounds with seed ${seed}`);
  await crashes.run(rounds, (round) => {
    if (round % 10 === 0) console.log(`round ${round}: ${crashes.tally.line()}`);
  });
  console.log(`all is as it was answered: ${crashes.tally.line()}`);
  process.exit(0);
}
