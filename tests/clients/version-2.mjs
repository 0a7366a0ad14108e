// A small client of version 2 that trusts nothing: it follows subscriptions as a real one would, and fails at the first
// gap, repetition, reordering or frame that does not fit what it holds.
//
// What it expects of the server: a live event is told once per connection and is for each of its subscriptions that has
// not been told of it yet; so one whose `seq` is not later than a subscription's cursor is skipped where the connection
// has several, and is a repetition where it has one. Between `resume` and the end of what follows it, the place to come
// back to is the last change that came, not the position in the `resume` frame.
import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import { deferred, within } from './harness.mjs';

/** One connection of version 2 (or 1, which has only `frames`), by its first join or by its address. */
export class Connection {
  /** Frames that belong to no view: errors, refusals, and everything where there are no views. */
  frames = [];
  bytes = 0;
  count = 0;
  views = new Map();
  fault = null;
  #waiters = new Set();

  constructor(server, { path = '/', deltas, core, version = 2 } = {}) {
    this.server = server;
    this.asks = version === 2 ? { version, ...(deltas ? { deltas } : {}), ...(core === undefined ? {} : { core }) } : {};
    this.ws = new WebSocket(server.subscribers + path, { perMessageDeflate: false });
    const [opened, closed] = [deferred(), deferred()];
    [this.opened, this.closed] = [opened.promise, closed.promise];
    this.opened.catch(() => {});
    this.ws.on('open', opened.resolve);
    this.ws.on('error', opened.reject);
    this.ws.on('close', (code) => { this.code = code; closed.resolve(code); this.#look(); });
    this.ws.on('message', (data) => this.#receive(data));
  }

  static async open(server, options) {
    const connection = new Connection(server, options);
    await within(connection.opened, 'a connection', { server });
    return connection;
  }

  #receive(data) {
    if (this.isCut || this.fault) return;
    this.bytes += data.length;
    this.count += 1;
    try {
      this.take(Object.defineProperty(JSON.parse(data.toString()), 'text', { value: data.toString() }));
    } catch (error) {
      // Thrown where somebody waits, which has a test around it.
      error.message += `\nframe: ${data.toString().slice(0, 300)}`;
      this.fault = error;
    }
    this.onFrame?.();
    this.#look();
  }

  take(frame) {
    const { subscriptionId } = frame;
    if (subscriptionId !== undefined && frame.type === 'stream') {
      const view = this.views.get(subscriptionId);
      if (!view) return void this.frames.push(frame);
      return view.take(frame);
    }
    if (frame.type !== 'stream' || this.views.size === 0 || frame.seq === undefined) return void this.frames.push(frame);
    for (const view of this.views.values()) view.hear(frame, this.views.size > 1);
  }

  /** Sends text as it is, anything else as JSON. */
  send(message) {
    this.ws.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  /** Subscribes a view; where it was somewhere before, from there. */
  join(view, { since = view.position, ...more } = {}) {
    this.views.set(view.id, view);
    view.begin();
    this.send({ type: 'join', data: { subscriptionId: view.id, ...view.place, ...this.asks, ...(since ? { since } : {}), ...more } });
    return view;
  }

  leave(view) {
    this.views.delete(view.id);
    this.send({ type: 'leave', data: { subscriptionId: view.id, ...view.place } });
  }

  /** Ends without a word; what is on its way is lost. */
  cut() {
    this.isCut = true;
    this.ws.terminate();
  }

  #look() {
    for (const look of this.#waiters) look();
  }

  /** Waits until `done()` holds; fails with the fault that a frame was. */
  async until(done, what, ms = 30_000) {
    const reached = deferred();
    const look = () => {
      if (this.fault) reached.reject(this.fault);
      else if (done()) reached.resolve();
      else if (this.code !== undefined) reached.reject(new Error(`closed with ${this.code} while waiting for ${what}`));
    };
    this.#waiters.add(look);
    look();
    try {
      await within(reached.promise, what, { ms, server: this.server });
    } catch (error) {
      const state = [...this.views.values()].map((view) => `${view.id}: ${view.state} at ${view.cursor}`).slice(0, 9);
      error.message += `\nviews: ${state.join(', ')}; ${this.count} frames; others: ${JSON.stringify(this.frames.slice(-2)).slice(0, 400)}`;
      throw error;
    } finally {
      this.#waiters.delete(look);
    }
  }

  /** The next of the frames that belong to no view. */
  async next(what = 'the next frame') {
    await this.until(() => this.frames.length > 0, what);
    return this.frames.shift();
  }
}

/** What one subscription shows: the items of a group, or one of them. */
export class View {
  items = new Map();
  /** All changes that it was told of, by their sequence. */
  told = [];
  /** Custom events that it was told of. */
  events = [];
  /** `away`, `joining`, `paging`, `live`. */
  state = 'away';
  /** It was told of all changes up to this one. */
  cursor = null;
  epoch = null;
  /** Where to come back to. */
  position = null;
  snapshots = 0;
  resets = 0;
  resumes = 0;
  pages = [];
  deltas = 0;
  values = 0;
  /** Its client may not read all of the group: there are changes that it is not told of. */
  isPartial = false;
  /** Changes that it was told of between the pages of the last snapshot. */
  amid = 0;
  #deleted = new Map();
  #inPages = new Set();

  constructor(id, streamName, groupId, item) {
    this.id = id;
    this.item = item;
    this.place = { streamName, groupId, ...(item === undefined ? {} : { id: item }) };
  }

  begin() {
    this.state = 'joining';
  }

  get isLive() {
    return this.state === 'live';
  }

  take(frame) {
    assert.equal(frame.streamName, this.place.streamName);
    assert.equal(frame.groupId, this.place.groupId);
    if (frame.event.type !== 'sync') return this.#change(frame);
    assert.equal(frame.id, this.item ?? null);
    if (frame.event.mode === 'resume') this.#resume(frame);
    else this.#page(frame);
  }

  #resume({ epoch, seq, event }) {
    assert.ok(this.position, 'there is something to go on from');
    assert.equal(epoch, this.position.epoch);
    // A server that makes good for what it let pass by knows also of changes that are not the item's.
    if (this.state === 'live' && this.item !== undefined) assert.ok(this.cursor <= event.from, 'it goes on where this one was');
    else assert.equal(event.from, this.position.seq, 'it goes on where this one was');
    assert.ok(event.from <= seq, 'a resume does not go back');
    this.resumes += 1;
    this.cursor = event.from;
    this.state = 'live';
  }

  #page({ epoch, seq, event: { mode, items, more, reset } }) {
    assert.equal(mode, 'snapshot');
    if (this.state !== 'paging' || reset) {
      // Everything known is of no use any more.
      this.items = new Map();
      this.#deleted = new Map();
      this.#inPages = new Set();
      this.position = null;
      this.snapshots += 1;
      this.resets += reset ? 1 : 0;
      this.cursor = seq;
      this.epoch = epoch;
      this.amid = 0;
      this.state = 'paging';
    }
    if (this.isPartial) assert.ok(this.cursor <= seq, 'a page is of no moment before what was told');
    else assert.equal(seq, this.cursor, 'a page is of the moment up to which everything was told');
    this.cursor = seq;
    assert.equal(epoch, this.epoch);
    this.pages.push(items.length);
    for (const { id, seq: itemSeq, data } of items) {
      assert.ok(!this.#inPages.has(`${id} ${itemSeq}`), `${id} is in one page only`);
      this.#inPages.add(`${id} ${itemSeq}`);
      const known = Math.max(this.items.get(id)?.seq ?? 0, this.#deleted.get(id) ?? 0);
      if (known < itemSeq) this.items.set(id, { seq: itemSeq, value: data });
    }
    if (more) return;
    this.#deleted.clear();
    this.position = { epoch, seq };
    this.state = 'live';
  }

  /** A live event, which is for every subscription that wants it. */
  hear(frame, isShared) {
    if (frame.streamName !== this.place.streamName || frame.groupId !== this.place.groupId) return;
    if (this.item !== undefined && frame.id !== this.item) return;
    if (this.state !== 'live' && this.state !== 'paging') {
      assert.ok(isShared || this.cursor !== null, 'nothing comes before the first sync');
      return;
    }
    if (isShared && frame.seq <= this.cursor) return;
    this.#change(frame);
  }

  #change({ id, seq, event }) {
    if (this.item === undefined && !this.isPartial) assert.equal(seq, this.cursor + 1, 'no gap, no repetition');
    else assert.ok(this.cursor < seq, `no repetition: ${seq} after ${this.cursor}`);
    this.cursor = seq;
    if (this.position) this.position = { ...this.position, seq };
    this.told.push(seq);
    if (this.state === 'paging') this.amid += 1;
    const held = this.items.get(id);
    switch (event.type) {
      case 'event':
        this.events.push(event.event);
        break;
      case 'delete':
        if (!held || held.seq < seq) this.items.delete(id);
        if (this.state === 'paging') this.#deleted.set(id, Math.max(seq, this.#deleted.get(id) ?? 0));
        break;
      case 'create':
      case 'update':
        this.#write(id, seq, event, held);
        break;
      default:
        assert.fail(`an event of type ${event.type}`);
    }
  }

  #write(id, seq, event, held) {
    if (event.ops) this.deltas += 1;
    else this.values += 1;
    if (held && seq <= held.seq) return; // a page knew more
    if (!event.ops) return void this.items.set(id, { seq, value: event.data });
    // The page that holds it is still to come, and knows this.
    if (!held && this.state === 'paging') return;
    assert.equal(held?.seq, event.base, `operations on ${id} are for what this one holds`);
    this.items.set(id, { seq, value: apply(held.value, event.ops) });
  }

  /** Its items as text by id, for comparing. */
  shown() {
    return Object.fromEntries([...this.items].sort(([a], [b]) => (a < b ? -1 : 1)).map(([id, { seq, value }]) => [id, JSON.stringify([seq, value])]));
  }
}

/** The few operations that these tests use, on fields of an object. */
export function apply(value, ops) {
  const next = structuredClone(value);
  for (const { type, path, value: operand, by } of ops) {
    if (type === 'set') next[path] = operand;
    else if (type === 'increment') next[path] = (next[path] ?? 0) + by;
    else if (type === 'append') next[path] = (next[path] ?? '') + operand;
    else if (type === 'remove') delete next[path];
    else assert.fail(`operation ${type}`);
  }
  return next;
}

// ---- what tests do with it

/** Numbers that look random and are the same in every run. */
export function dice(seed) {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
}

/** One more change to an item; its sequence. Whoever has it has been offered everything before. */
export async function mark(by, at, item_id = 'end') {
  const { seq } = await by.result('stream::set', { ...at, item_id, data: { end: true }, returning: 'none' });
  return seq ?? assert.fail('a reply tells the sequence');
}

/** How the group stands, in the form of `View.shown`. */
export async function standing(by, at) {
  const items = await by.result('stream::list', { ...at, meta: true });
  const ids = items.map(({ id, seq, value }) => [id, JSON.stringify([seq, value])]);
  return Object.fromEntries(ids.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Writes to a group until it is stopped: updates, sets, deletes, re-creations, events. */
export class Churn {
  done = 0;
  #stopped = false;

  constructor(by, at, { ids, inFlight = 8, text = 'x'.repeat(300), seed = 1 }) {
    Object.assign(this, { by, at, ids, text, roll: dice(seed) });
    this.running = Promise.all(Array.from({ length: inFlight }, () => this.#run()));
    this.running.catch(() => {});
  }

  async #run() {
    while (!this.#stopped) {
      await this.#write();
      this.done += 1;
      this.onWrite?.();
    }
  }

  #write() {
    const at = { ...this.at, item_id: this.ids[this.roll(this.ids.length)], returning: 'none' };
    const dart = this.roll(100);
    if (dart < 45) return this.by.result('stream::update', { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }] });
    if (dart < 65) return this.by.result('stream::update', { ...at, ops: [{ type: 'append', path: 'log', value: 'x' }, { type: 'set', path: 'at', value: dart }] });
    if (dart < 80) return this.by.result('stream::set', { ...at, data: { n: dart, text: this.text } });
    if (dart < 95) return this.by.result('stream::delete', at);
    const { item_id: id, returning, ...group } = at;
    return this.by.result('stream::send', { ...group, ...(dart < 98 ? { id } : {}), type: 'note', data: dart });
  }

  /** Ends it with a last change, whose sequence is that of the group. */
  async stop() {
    this.#stopped = true;
    await this.running;
    return mark(this.by, this.at);
  }
}

/** A view that must have been told of everything from `first` to `last`, and show the group as it is. */
export function assertExact(one, first, last, state, what) {
  assert.deepEqual([one.told.length, one.told[0], one.told.at(-1)], [last - first + 1, first, last], `${what}: each change once`);
  one.told.forEach((seq, index) => assert.equal(seq, first + index, what));
  assert.deepEqual(one.shown(), state, `${what}: what it shows`);
}

/** Writes to a group until the server has let something pass by a subscriber that does not read. */
export async function untilMissed(server, by, at, { bytes = 16_000, atOnce = 20, together } = {}) {
  const missed = async () => (await server.metrics()).iii_stream_slow_consumer_missed_events_total;
  const before = await missed();
  const text = 'x'.repeat(bytes);
  for (let round = 0; round < 8_000 / atOnce; round += 1) {
    const writes = Array.from({ length: atOnce }, (_, n) => by.result('stream::set', {
      ...at, item_id: `i${(round + n) % 7}`, data: { n: round * atOnce + n, text }, returning: 'none',
    }));
    const seqs = (await Promise.all(writes)).map(({ seq }) => seq);
    // At the pace of those who read, where there are some.
    await together?.(Math.max(...seqs));
    if (before < await missed()) return;
  }
  assert.fail('nothing was missed');
}
