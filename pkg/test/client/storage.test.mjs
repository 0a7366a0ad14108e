// Pending mutations that outlive their page: kept before they are sent, adopted once, also when storage or tabs fail.
import 'fake-indexeddb/auto';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { indexedDbStore, memoryStore } from './package.mjs';
import { FakeServer, snapshot } from './fake_server.mjs';
import { newClient } from './kit.mjs';
import { rejection, until, within } from './waiting.mjs';

let names = 0;
const stores = { memory: () => memoryStore(`m${names += 1}`), indexedDb: () => indexedDbStore(`db${names += 1}`) };

/** A server that counts mutations by the rules, over several connections and clients. */
async function serve(t, { isDeaf = () => false } = {}) {
  const known = new Map();
  const applied = [];
  const held = [];
  const on = (connection, message) => {
    if (isDeaf(connection, message)) return;
    if (message.type === 'call' && server.hold?.(message)) return void held.push(() => on(connection, message));
    if (message.type === 'join') connection.send(snapshot(message));
    if (message.type !== 'call') return;
    const { data, id } = message;
    const { client, seq, resent } = data.mutation;
    const last = known.get(client);
    const answer = (body) => connection.send({ type: 'result', id, ...body });
    if (last === undefined && seq !== 1) return void answer({ error: { code: 'mutation_unknown', message: '' } });
    if (seq > (last ?? 0) + 1) return void answer({ error: { code: 'mutation_gap', message: '', expected: (last ?? 0) + 1 } });
    if (seq <= (last ?? 0)) return void answer({ result: { duplicate: true, seq: last, at: null } });
    known.set(client, seq);
    applied.push({ item: data.item_id, value: data.data, client, seq, resent });
    answer({ result: { seq: applied.length } });
  };
  const server = await FakeServer.start({ on });
  t.after(() => server.stop());
  // Calls of which `hold` is true are dealt with when the test says so.
  return Object.assign(server, { applied, known, held });
}

const queue = (client, owner = 'o1', aliveMs = 1) => ({ client, stream: 's', group: 'g', owner, aliveMs });
const mutation = (client, seq, wasSent = false) => ({
  client, seq, functionId: 'stream::set', wasSent,
  data: JSON.stringify({ stream_name: 's', group_id: 'g', item_id: `${client}${seq}`, data: seq }),
});

/** Waits until the storage holds so many queues. */
async function stored(storage, count) {
  while ((await storage.queues()).length < count) await within(new Promise(setImmediate), 'the next turn');
}

/** A storage with other methods. */
const changed = (storage, methods) => new Proxy(storage, {
  get: (target, name) => methods[name] ?? (typeof target[name] === 'function' ? target[name].bind(target) : target[name]),
});

for (const [kind, make] of Object.entries(stores)) {
  test(`${kind}: the contract of a store`, async () => {
    const store = make();
    assert.deepEqual(await store.queues(), []);
    assert.equal(await store.add(queue('a'), [mutation('a', 2), mutation('a', 1), mutation('a', 10)]), true);
    assert.equal(await store.add(queue('b', 'o2'), [mutation('b', 1)]), true);
    assert.equal(await store.add(queue('a', 'o2'), [mutation('a', 3)]), false);
    assert.deepEqual((await store.mutations('a')).map(({ seq }) => seq), [1, 2, 10]);
    assert.deepEqual(await store.markSent('a', 'o1', [1, 3, 2]), [1, 2]);
    assert.deepEqual((await store.mutations('a')).map(({ wasSent }) => wasSent), [true, true, false]);
    assert.deepEqual(await store.markSent('a', 'o2', [1]), []);
    assert.deepEqual(await store.markSent('nobody', 'o1', [1]), []);
    await store.touch('o1', 50);
    assert.deepEqual(new Map((await store.queues()).map(({ client, aliveMs }) => [client, aliveMs])), new Map([['a', 50], ['b', 1]]));
    assert.equal(await store.adopt(queue('a', 'o1', 1), 'o3', 60), null);
    assert.deepEqual((await store.adopt(queue('a', 'o1', 50), 'o3', 60)).map(({ seq }) => seq), [1, 2, 10]);
    assert.equal(await store.adopt(queue('a', 'o1', 50), 'o4', 60), null);
    assert.equal(await store.replace('a', queue('c', 'o1'), [mutation('c', 1)]), false);
    assert.equal(await store.replace('a', queue('c', 'o3'), [mutation('c', 1)]), true);
    assert.deepEqual((await store.queues()).map(({ client }) => client).sort(), ['b', 'c']);
    assert.deepEqual(await store.mutations('a'), []);
    await store.remove('c', [1, 7]);
    await store.remove('nobody', [1]);
    assert.deepEqual((await store.queues()).map(({ client }) => client), ['b']);
    await store.close();
    assert.deepEqual((await store.mutations('b')).map(({ seq }) => seq), kind === 'memory' ? [1] : [1]);
    await store.close();
  });

  test(`${kind}: edits of a page that is gone are shown and sent by the next, in order, before its own`, async (t) => {
    const server = await serve(t);
    const storage = make();
    const offline = newClient(t, 'ws://127.0.0.1:1', { storage });
    const edits = [1, 2, 3].map((n) => offline.group('s', 'g').set(`i${n}`, n));
    await offline.close();
    const closed = await rejection(edits[0].settled);
    assert.deepEqual([closed.code, closed.details.stored], ['closed', true]);
    assert.deepEqual(offline.rejections, []);
    assert.equal((await storage.queues()).length, 1);

    const client = newClient(t, server.url, { storage, aliveTimeoutMs: -1 });
    const group = client.group('s', 'g');
    group.subscribe(() => {});
    const own = group.set('i3', 'newer');
    await within(own.settled, 'the own edit');
    assert.deepEqual(server.applied.map(({ item, value, resent }) => [item, value, resent]), [['i1', 1, undefined], ['i2', 2, undefined], ['i3', 3, undefined], ['i3', 'newer', undefined]]);
    await until(client, () => client.pending === 0, 'nothing pending');
    await client.close();
    assert.deepEqual(await storage.queues(), []);
  });

  test(`${kind}: what was sent before the page went is sent again as resent, once`, async (t) => {
    let isDeaf = true;
    const server = await serve(t, { isDeaf: (_, { type }) => isDeaf && type === 'call' });
    const storage = make();
    const first = newClient(t, server.url, { storage, inFlightMax: 2 });
    for (const n of [1, 2, 3]) first.group('s', 'g').set(`i${n}`, n);
    await server.until(() => server.last?.calls.length === 2, 'two calls');
    await first.close();
    isDeaf = false;
    // The first of them had arrived.
    const [{ data }] = server.last.calls;
    server.known.set(data.mutation.client, 1);
    const second = newClient(t, server.url, { storage, aliveTimeoutMs: -1 });
    second.subscribe(() => {});
    await server.until(() => server.applied.length === 2, 'the rest');
    assert.deepEqual(server.last.calls.map(({ data: { mutation: { seq, resent } } }) => [seq, resent]), [[1, true], [2, true], [3, undefined]]);
    await until(second, () => second.pending === 0, 'nothing pending');
  });
}

test('nothing is sent before it is stored', async (t) => {
  const server = await serve(t);
  const storage = memoryStore();
  const log = [];
  const slow = changed(storage, {
    add: async (...args) => { await new Promise(setImmediate); log.push(`stored ${args[1].map(({ seq }) => seq)}`); return storage.add(...args); },
    markSent: async (...args) => { log.push(`marked ${args[2]}`); return storage.markSent(...args); },
  });
  const client = newClient(t, server.url, { storage: slow });
  await within(client.group('s', 'g').set('i', 1).settled, 'the edit');
  assert.deepEqual(log, ['stored 1', 'marked 1']);
  await client.close();
  assert.deepEqual(await storage.queues(), []);
});

test('a new identity takes the place of the old one in the storage in one step', async (t) => {
  const server = await serve(t);
  const storage = memoryStore();
  const client = newClient(t, server.url, { storage });
  const group = client.group('s', 'g');
  await within(group.set('i', 0).settled, 'the first');
  server.known.clear();
  await within(Promise.all([1, 2, 3].map((n) => group.set('i', n).settled)), 'the others');
  assert.deepEqual(server.applied.map(({ value, seq }) => [value, seq]), [[0, 1], [1, 1], [2, 2], [3, 3]]);
  await client.close();
  assert.deepEqual(await storage.queues(), []);
});

for (const [when, held] of [['before it is marked', 'before'], ['while it is marked', 'after']]) {
  test(`an edit that gets a new identity ${when} as sent is sent, once, in its turn`, async (t) => {
    const server = await serve(t);
    const storage = memoryStore();
    let release;
    let isHeld = false;
    const released = new Promise((resolve) => { release = resolve; });
    const slow = changed(storage, { markSent: async (client, owner, seqs) => {
      if (seqs[0] !== 4) return storage.markSent(client, owner, seqs);
      if (held === 'before') {
        isHeld = true;
        await released;
        return storage.markSent(client, owner, seqs);
      }
      const ours = await storage.markSent(client, owner, seqs);
      isHeld = true;
      await released;
      return ours;
    } });
    const client = newClient(t, server.url, { storage: slow, inFlightMax: 2 });
    const group = client.group('s', 'g');
    await within(group.set('i', 0).settled, 'the first');
    let isFirst = true;
    const { applied, known } = server;
    // The second is answered, the third only once the fourth is about to be marked: the server has forgotten who sends.
    server.hold = ({ data: { mutation } }) => isFirst && mutation.seq === 3 && !(isFirst = false);
    const edits = [1, 2, 3, 4].map((n) => group.set('i', n));
    while (!isHeld || server.held.length === 0) await within(new Promise(setImmediate), 'the next turn');
    known.clear();
    server.held.splice(0).forEach((answer) => answer());
    while (edits[1].seq === 3) await within(new Promise(setImmediate), 'the next turn');
    release();
    const settled = await within(Promise.all(edits.map((one) => one.settled)), 'all');
    assert.deepEqual(applied.map(({ value }) => value), [0, 1, 2, 3, 4]);
    assert.deepEqual(settled.map(({ answered }) => answered), [true, true, true, true]);
    await client.close();
    assert.deepEqual(await storage.queues(), []);
  });
}

test('a tab that lives keeps its queue; one that is gone loses it: by Web Locks', async (t) => {
  const locks = new FakeLocks();
  Object.defineProperty(globalThis, 'navigator', { value: { locks }, configurable: true });
  t.after(() => { delete globalThis.navigator; });
  const storage = memoryStore();
  const living = newClient(t, 'ws://127.0.0.1:1', { storage });
  living.group('s', 'g').set('mine', 1);
  await stored(storage, 1);
  await storage.add(queue('gone', 'ghost'), [mutation('gone', 1)]);
  const server = await serve(t);
  const other = newClient(t, server.url, { storage, aliveTimeoutMs: -1 });
  await server.until(() => server.applied.length === 1, 'the edit of the ghost');
  assert.equal(server.applied[0].client, 'gone');
  await until(other, () => other.pending === 0, 'nothing pending');
  assert.deepEqual((await storage.queues()).length, 1);
  assert.equal(living.pending, 1);
});

test('two that start at once adopt once', async (t) => {
  const server = await serve(t);
  const storage = memoryStore();
  for (let n = 0; n < 10; n += 1) await storage.add(queue(`q${n}`, 'ghost'), [mutation(`q${n}`, 1), mutation(`q${n}`, 2)]);
  const clients = [1, 2, 3].map(() => newClient(t, server.url, { storage }));
  await server.until(() => server.applied.length === 20, 'twenty');
  for (const client of clients) await until(client, () => client.pending === 0, 'nothing pending');
  assert.equal(server.connections.flatMap(({ calls }) => calls).length, 20);
  assert.deepEqual(await storage.queues(), []);
});

test('a robbed tab that is closed leaves its edits to the robber', async (t) => {
  const storage = memoryStore();
  const frozen = newClient(t, 'ws://127.0.0.1:1', { storage, aliveTimeoutMs: 1e9 });
  const edits = [1, 2].map((n) => frozen.group('s', 'g').set(`i${n}`, n));
  await stored(storage, 1);
  const [known] = await storage.queues();
  assert.equal((await storage.adopt(known, 'robber', known.aliveMs)).length, 2);
  await frozen.close();
  assert.deepEqual(await Promise.all(edits.map(async (one) => (await rejection(one.settled)).details.stored)), [true, true]);
  assert.equal((await storage.mutations(known.client)).length, 2);
});

test('a robbed tab keeps showing what the robber sends until that is done, and edits on under a new identity', async (t) => {
  const server = await serve(t);
  const storage = memoryStore();
  let isOnline = false;
  const client = newClient(t, server.url, { storage, adoptIntervalMs: 20, aliveTimeoutMs: 1e9, token: () => { if (!isOnline) throw new Error('offline'); return 't'; } });
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  const edits = [1, 2].map((n) => group.set(`i${n}`, n));
  await stored(storage, 1);
  let [known] = await storage.queues();
  while ((await storage.adopt(known, 'robber', Date.now())) === null) [known] = await storage.queues();
  isOnline = true;
  client.reconnect();
  const own = group.set('own', 1);
  await within(own.settled, 'the own edit');
  assert.deepEqual(server.applied.map(({ item }) => item), ['own']);
  assert.notEqual(server.applied[0].client, known.client);
  assert.equal(group.get('i1').value, 1);
  assert.equal(client.pending, 2);
  await storage.remove(known.client, [1, 2]);
  const settled = await within(Promise.all(edits.map((one) => one.settled)), 'the robbed edits');
  assert.deepEqual(settled, [1, 2].map(() => ({ seq: null, errors: [], answered: false })));
  assert.equal(client.pending, 0);
});

for (const method of ['add', 'markSent', 'remove', 'queues', 'touch', 'replace', 'mutations', 'adopt']) {
  test(`a storage whose ${method} fails: edits are shown and sent all the same, and it is told once`, async (t) => {
    const server = await serve(t);
    const storage = memoryStore();
    await storage.add(queue('old', 'ghost'), [mutation('old', 1)]);
    const broken = changed(storage, { [method]: () => Promise.reject(new DOMException('full', 'QuotaExceededError')) });
    const client = newClient(t, server.url, { storage: broken });
    const group = client.group('s', 'g');
    group.subscribe(() => {});
    await within(group.set('i0', 0).settled, 'the first');
    server.known.clear();
    await within(Promise.all([1, 2, 3].map((n) => group.set(`i${n}`, n).settled)), 'the rest');
    assert.deepEqual(server.applied.map(({ item }) => item).filter((item) => item.startsWith('i')), ['i0', 'i1', 'i2', 'i3']);
    assert.ok(client.errors.length <= 1);
    assert.ok(client.errors.every(({ code }) => code === 'storage_failed'));
    if (!['replace', 'mutations'].includes(method)) assert.equal(client.errors.length, 1);
    assert.deepEqual(client.rejections, []);
  });
}

for (const [what, factory] of Object.entries({
  'is not there': null,
  'is denied': { open: () => { throw new DOMException('denied', 'SecurityError'); } },
  'never answers': { open: () => ({}) },
})) {
  test(`IndexedDB that ${what}: edits go on without it`, async (t) => {
    const server = await serve(t);
    const client = newClient(t, server.url, { storage: indexedDbStore(`x${names += 1}`, factory) });
    await within(client.group('s', 'g').set('i', 1).settled, 'the edit', 15_000);
    assert.deepEqual(client.errors.map(({ code }) => code), ['storage_failed']);
  });
}

test('without Web Locks a tab is gone when it was silent for long, or its clock is absurd', async (t) => {
  const server = await serve(t);
  const storage = memoryStore();
  const now = Date.now();
  await storage.add(queue('lively', 'o1', now), [mutation('lively', 1)]);
  await storage.add(queue('silent', 'o2', now - 130_000), [mutation('silent', 1)]);
  await storage.add(queue('future', 'o3', now + 1e12), [mutation('future', 1)]);
  const client = newClient(t, server.url, { storage });
  await server.until(() => server.applied.length === 2, 'two of them');
  await until(client, () => client.pending === 0, 'nothing pending');
  assert.deepEqual(server.applied.map(({ client: secret }) => secret).sort(), ['future', 'silent']);
  assert.deepEqual((await storage.queues()).map(({ client: secret }) => secret), ['lively']);
});

test('two tabs that edit at once on one database send each their own, once', async (t) => {
  const server = await serve(t);
  const name = `db${names += 1}`;
  const tabs = [1, 2].map(() => newClient(t, server.url, { storage: indexedDbStore(name), adoptIntervalMs: 5 }));
  const made = tabs.flatMap((tab, index) => Array.from({ length: 40 }, (_, n) => tab.group('s', 'g').set(`${index}`, n)));
  await within(Promise.all(made.map((one) => one.settled)), 'all');
  assert.equal(server.applied.length, 80);
  assert.equal(new Set(server.applied.map(({ client }) => client)).size, 2);
  for (const index of ['0', '1']) {
    assert.deepEqual(server.applied.filter(({ item }) => item === index).map(({ value }) => value), Array.from({ length: 40 }, (_, n) => n));
  }
  await Promise.all(tabs.map((tab) => tab.close()));
  assert.deepEqual(await indexedDbStore(name).queues(), []);
});

test('a queue that was left behind days ago is sent under its old identity', async (t) => {
  const server = await serve(t);
  const storage = memoryStore();
  await storage.add(queue('old', 'ghost', Date.now() - 5 * 86_400_000), [mutation('old', 3, true), mutation('old', 4)]);
  server.known.set('old', 3);
  const client = newClient(t, server.url, { storage });
  await server.until(() => server.applied.length === 1, 'the one that had not arrived');
  assert.deepEqual(server.applied.map(({ seq, resent }) => [seq, resent]), [[4, undefined]]);
  await until(client, () => client.pending === 0, 'nothing pending');
});

test('what is stored and cannot be read is refused, told, and goes; what is behind it is sent', async (t) => {
  const server = await serve(t);
  const storage = memoryStore();
  await storage.add(queue('old', 'ghost'), [{ ...mutation('old', 1), data: '{"half' }, { ...mutation('old', 2), functionId: 'stream::shout' }, mutation('old', 3)]);
  const client = newClient(t, server.url, { storage });
  await server.until(() => server.applied.length === 1, 'the good one');
  await until(client, () => client.pending === 0, 'nothing pending');
  assert.deepEqual(client.rejections.map(({ error: { code } }) => code), ['deserialization_error', 'function_not_found']);
  await client.close();
  assert.deepEqual(await storage.queues(), []);
});

/** Web Locks of one origin. */
class FakeLocks {
  held = new Set();

  async request(name, { ifAvailable = false }, granted) {
    if (this.held.has(name)) {
      assert.ok(ifAvailable, 'nobody waits for a lock');
      return granted(null);
    }
    this.held.add(name);
    try {
      return await granted({ name });
    } finally {
      this.held.delete(name);
    }
  }
}
