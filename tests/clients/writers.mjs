// Writers that outlive faults: a call that fails or is not answered is sent again with the same `mutation`, to the next instance. They
// keep book of what was acknowledged, so that a test can say whether anything was lost, done twice or out of order.
import assert from 'node:assert/strict';
import { within } from './harness.mjs';

/** Calls of a writer that are on their way at one time. */
const WINDOW = 8;
/** The items that they share. */
const ITEMS = Array.from({ length: 12 }, (_, n) => `i${n}`);
/** What a writer waits after a failure, in milliseconds, and how often it tries a call. */
const [PAUSE_MS, ATTEMPTS_MAX] = [25, 2_000];

/** One writer: counts shared items up and writes its name into their logs, in the order of its calls. */
export class Writer {
  #mutation = 0;
  #isOver = false;
  #isAbandoned = false;
  #moves = 0;
  /** Acknowledged calls: `{ item, nth, seq? }`; of a duplicate nobody knows the sequence. */
  acknowledged = [];
  /** Errors by code and what they say of the storage. */
  errors = new Map();
  duplicates = 0;
  /** The call that took longest to be answered, in milliseconds. */
  longestMs = 0;

  constructor(fleet, number, at, { items = ITEMS, pauseMs = 5 } = {}) {
    Object.assign(this, { fleet, number, at, items, pauseMs });
    this.client = `writer-${number}-${at.group_id}-0123456789`;
  }

  /** Writes until `stop`. */
  start() {
    this.running = this.#run();
    this.running.catch((error) => { this.fault = error; });
    return this;
  }

  /** Resolves when everything that it wanted is acknowledged. */
  async stop() {
    this.#isOver = true;
    await within(this.running, `writer ${this.number} to have everything acknowledged`, { ms: 60_000 });
  }

  async #run() {
    while (!this.#isOver) {
      const calls = Array.from({ length: WINDOW }, () => {
        this.#mutation += 1;
        const nth = this.#mutation;
        return { nth, item: this.items[nth % this.items.length] };
      });
      let open = await this.#send(calls);
      // One after another: a mutation is taken only after the one before it.
      for (let failures = 0; open.length > 0 && !this.#isAbandoned;) {
        const [first, ...others] = open;
        const isDone = failures > 0 && (await this.#send([first])).length === 0;
        if (isDone) {
          open = others;
          continue;
        }
        failures += 1;
        assert.ok(failures < ATTEMPTS_MAX, `writer ${this.number} gave up: ${JSON.stringify([...this.errors])}`);
        await new Promise((resolve) => { setTimeout(resolve, PAUSE_MS); });
        this.#moves += 1;
      }
      if (this.pauseMs > 0) await new Promise((resolve) => { setTimeout(resolve, this.pauseMs); });
    }
  }

  /** Sends calls; gives back those from the first that was not acknowledged. */
  async #send(calls) {
    const peer = await this.#peer();
    if (!peer) return calls;
    const answers = await Promise.all(calls.map(async (call) => {
      const begun = performance.now();
      try {
        return await peer.result('stream::update', {
          ...this.at, item_id: call.item, returning: 'none', mutation: { client: this.client, seq: call.nth },
          ops: [{ type: 'increment', path: 'n', by: 1 }, { type: 'append', path: 'log', value: `${this.number}:${call.nth};` }],
        });
      } catch (error) {
        this.#note(error);
        return undefined;
      } finally {
        this.longestMs = Math.max(this.longestMs, performance.now() - begun);
      }
    }));
    let failed = [];
    let last = 0;
    for (const [i, answer] of answers.entries()) {
      if (!answer) {
        failed = calls.slice(i);
        break;
      }
      if (answer.duplicate) this.duplicates += 1;
      else {
        assert.ok(last < answer.seq, `${answer.seq} was answered after ${last}`);
        last = answer.seq;
      }
      this.acknowledged.push({ ...calls[i], seq: answer.duplicate ? undefined : answer.seq });
    }
    // Those after a failure are sent again with it: a mutation that was taken is answered as a duplicate.
    return failed;
  }

  #note(error) {
    if (/^the connection was closed/.test(error.message)) return void this.#count('closed');
    if (error.code === undefined) throw error;
    this.#count(error.storage === undefined ? error.code : `${error.code} ${error.storage}`);
  }

  #count(what) {
    this.errors.set(what, (this.errors.get(what) ?? 0) + 1);
  }

  async #peer() {
    const server = await this.fleet.pick(this.number + this.#moves);
    if (this.peer?.server === server && this.peer.ws.readyState === 1) return this.peer;
    this.peer?.ws.terminate();
    try {
      this.peer = await server.peer();
    } catch (error) {
      if (server.alive && !/refused|closed|ECONN|hang up|503/.test(error.message)) throw error;
      this.#count('not connected');
      return undefined;
    }
    return this.peer;
  }

  /** Goes, whatever is not acknowledged. */
  abandon() {
    this.#isOver = true;
    this.#isAbandoned = true;
    this.leave();
  }

  leave() {
    this.peer?.ws.terminate();
  }
}

/** What was acknowledged is there, once and in order: `items` of `stream::list` with `meta`. */
export function assertBook(writers, items) {
  const wanted = new Map();
  for (const { number, acknowledged } of writers) {
    for (const { item, nth, seq } of acknowledged) {
      const parts = wanted.get(item) ?? [];
      wanted.set(item, parts);
      parts.push({ part: `${number}:${nth};`, number, nth, seq });
    }
  }
  for (const [id, parts] of wanted) {
    const item = items.find((one) => one.id === id);
    assert.ok(item, `${id} is lost`);
    const log = item.value.log.split(';').slice(0, -1).map((part) => `${part};`);
    const places = new Map(log.map((part, place) => [part, place]));
    const lost = parts.filter(({ part }) => !places.has(part));
    assert.deepEqual(lost, [], `${id}: acknowledged, but not there`);
    assert.equal(places.size, log.length, `${id}: done twice: ${log.filter((part, place) => places.get(part) !== place).slice(0, 5)}`);
    assert.equal(item.value.n, log.length, `${id}: each increment once`);
    assert.equal(log.length, parts.length, `${id}: nothing that nobody sent`);
    // In the order of each writer's calls, and of the sequences that the answers told.
    const inOrder = parts.map((one) => ({ ...one, place: places.get(one.part) })).sort((a, b) => a.place - b.place);
    const latest = new Map();
    let last = 0;
    for (const { number, nth, seq, part } of inOrder) {
      assert.ok((latest.get(number) ?? 0) < nth, `${id}: ${part} after ${number}:${latest.get(number)}`);
      latest.set(number, nth);
      if (seq === undefined) continue;
      assert.ok(last < seq, `${id}: ${part} has ${seq}, after ${last}`);
      last = seq;
    }
  }
}
