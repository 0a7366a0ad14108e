// Subscribers that outlive faults: they come back to another instance when their connection ends, and fail at the first change that is
// missing, comes twice or out of order. One of version 2 (the View of version-2.mjs) and one of version 1.
import assert from 'node:assert/strict';
import { unique, within } from './harness.mjs';
import { Connection, View } from './version-2.mjs';

/** How often a subscriber that has never been there tries to join. */
const COMINGS_MAX = 20;

/** Servers of which some may be away; whoever is turned away goes to the next. */
export class Fleet {
  constructor(servers) {
    this.servers = [...servers];
  }

  /** One that is there: the `n`th, or one after it; waits for one where there is none. */
  async pick(n) {
    for (;;) {
      const { servers } = this;
      const there = servers.map((_, i) => servers[(n + i) % servers.length]).find((server) => server?.alive);
      if (there) return there;
      await within(new Promise((resolve) => { setTimeout(resolve, 20); }), 'a server');
    }
  }
}

/** What both kinds do: stay connected. */
class Follower {
  /** How often it came to a server. */
  comings = 0;
  /** With which codes its connections were closed. */
  closes = [];
  fault = null;
  #isOver = false;

  constructor(fleet, home) {
    Object.assign(this, { fleet, home });
  }

  /** Follows until `leave`; resolves when it is there for the first time. */
  async follow() {
    await this.#come();
    this.staying = this.#stay();
    return this;
  }

  async #come() {
    for (;;) {
      const server = await this.fleet.pick(this.home + this.comings);
      this.comings += 1;
      try {
        this.connection = await Connection.open(server, this.options);
        this.begin();
        await this.connection.until(() => this.isThere, `${this.name} to be there`);
        return;
      } catch (error) {
        if (this.connection?.fault) throw error;
        // A first join waits for Redis only so long; its client comes again.
        if (this.comings < COMINGS_MAX && this.closes.length === 0 && this.connection?.code === 1013) continue;
        if (server.alive) throw error;
      }
    }
  }

  async #stay() {
    try {
      while (!this.#isOver) {
        await this.connection.closed;
        this.fault ??= this.connection.fault;
        if (this.#isOver || this.fault) return;
        this.closes.push(this.connection.code);
        await this.#come();
      }
    } catch (error) {
      this.fault = error;
    }
  }

  /** Waits until it was told of everything up to `seq`; throws what it found wrong. */
  async reach(seq, what = `${this.name} to be told of ${seq}`) {
    while (!this.fault) {
      const { connection } = this;
      try {
        await connection.until(() => this.cursor === seq, what);
        return;
      } catch (error) {
        // It may have moved to another server meanwhile.
        if (connection.fault || connection.code === undefined) throw error;
        await within(new Promise((resolve) => { setTimeout(resolve, 20); }), what);
      }
    }
    throw this.fault;
  }

  /** Goes, whatever it was told. */
  abandon() {
    this.#isOver = true;
    this.connection?.cut();
  }

  leave() {
    this.abandon();
    if (this.fault) throw this.fault;
  }
}

/** Version 2. */
export class Follower2 extends Follower {
  constructor(fleet, home, at, { item, deltas } = {}) {
    super(fleet, home);
    this.view = new View(unique('f'), at.stream_name, at.group_id, item);
    this.options = { deltas };
    this.name = `a subscriber of version 2${deltas ? ' (deltas)' : ''}${item === undefined ? '' : ' to an item'}`;
  }

  begin() {
    this.connection.join(this.view);
  }

  get isThere() {
    return this.view.isLive;
  }

  get cursor() {
    return this.view.cursor;
  }

  get heard() {
    return this.view.told.length;
  }

  shown() {
    return this.view.shown();
  }
}

/** Version 1: what it sees is `sync` frames and, after each, all changes that came later. */
export class Follower1 extends Follower {
  cursor = null;
  syncs = 0;
  /** Changes that it was told of. */
  heard = 0;
  #latest = 0;
  /** The last frame was a `sync`. */
  #isSynced = false;
  #byItem = new Map();

  constructor(fleet, home, at) {
    super(fleet, home);
    this.at = at;
    this.options = { version: 1 };
    this.name = 'a subscriber of version 1';
  }

  begin() {
    this.isThere = false;
    const { connection } = this;
    connection.take = (frame) => this.#take(frame);
    connection.send({ type: 'join', data: { subscriptionId: unique('s'), streamName: this.at.stream_name, groupId: this.at.group_id } });
  }

  #take({ timestamp, id, seq, epoch, event }) {
    if (event.type === 'sync') {
      // Published clients drop a `sync` that is older than what they have seen. Two with no change between them share a timestamp.
      assert.ok(this.#latest < timestamp || (this.#latest === timestamp && this.#isSynced && this.cursor === seq), `a sync of ${seq} at ${timestamp} after ${this.#isSynced ? 'a sync' : 'an event'} of ${this.cursor} at ${this.#latest}`);
      if (this.epoch === epoch) assert.ok(this.cursor <= seq, `a sync of ${seq} after change ${this.cursor}`);
      Object.assign(this, { epoch, cursor: seq, isThere: true });
      this.syncs += 1;
      this.#isSynced = true;
      this.#latest = timestamp;
      this.#byItem.clear();
      return;
    }
    assert.equal(seq, this.cursor + 1, 'no gap, no repetition');
    assert.ok(this.#latest <= timestamp, `an event at ${timestamp} after one at ${this.#latest}`);
    assert.ok(id === null || (this.#byItem.get(id) ?? 0) < timestamp, `an event of ${id} at ${timestamp} after one at ${this.#byItem.get(id)}`);
    this.cursor = seq;
    this.heard += 1;
    this.#isSynced = false;
    this.#latest = timestamp;
    this.#byItem.set(id, timestamp);
  }
}
