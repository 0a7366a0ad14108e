// The client against the real server: convergence, lost connections, crashes, reloads; every edit once.
import 'fake-indexeddb/auto';
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { newFolder, serverBinary, startServer, unique } from '../../../tests/clients/harness.mjs';
import { realClient } from './kit.mjs';
import { indexedDbStore, memoryStore, rejected } from './package.mjs';
import { Proxy } from './proxy.mjs';
import { rejection, until, within } from './waiting.mjs';

const skip = existsSync(serverBinary()) ? false : `there is no ${serverBinary()}: cargo build -p iii-stream, or set III_STREAM_BIN`;
const EVERYTHING = [{ stream: '*', group: '*', can: ['read', 'set', 'update', 'delete', 'send'] }];
let server;

before(async () => { if (!skip) server = await startServer({ stream: { default_grants: EVERYTHING } }); });
after(() => server?.stop());

const live = async (view) => {
  view.subscribe(() => {});
  await until(view, () => view.status === 'live', `${view.group} to be live`);
};
const settled = (client, ms = 30_000) => until(client, () => client.pending === 0, 'nothing pending', ms);
const seen = (group) => group.items.map(({ id, value, seq, pending }) => [id, value, seq, pending]);
const portOf = (url) => Number(new URL(url).port);

/** A random number generator that can be repeated. */
function random(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** What `stream::list` of a worker says. */
async function listed(peer, stream, group) {
  return peer.result('stream::list', { stream_name: stream, group_id: group, meta: true });
}

test('two clients see each other, in one order, and own edits at once', { skip }, async (t) => {
  const [name, group] = [unique('s'), unique('g')];
  const clients = [1, 2].map(() => realClient(t, server.subscribers));
  const [a, b] = clients.map((client) => client.group(name, group));
  await Promise.all([live(a), live(b)]);
  for (let n = 0; n < 50; n += 1) {
    a.update(`i${n % 7}`, [{ type: 'increment', path: 'a', by: 1 }]);
    b.update(`i${n % 5}`, [{ type: 'increment', path: 'b', by: 1 }, { type: 'append', path: 'text', value: 'x' }]);
  }
  assert.equal(a.get('i0').value.a, 8);
  assert.equal(a.get('i0').pending, true);
  await Promise.all(clients.map((client) => settled(client)));
  const edits = (group) => group.items.reduce((sum, { value }) => sum + (value.a ?? 0) + (value.b ?? 0), 0);
  for (const group of [a, b]) await until(group, () => edits(group) === 100 && group.items.every(({ pending }) => !pending), 'all edits');
  assert.deepEqual(seen(a), seen(b));
  assert.equal(a.get('i0').value.text, 'x'.repeat(10));
});

test('no flicker: a value that only its own client changes never goes back', { skip }, async (t) => {
  const client = realClient(t, server.subscribers);
  const group = client.group(unique('s'), 'g');
  await live(group);
  const shown = [];
  group.subscribe(() => { const n = group.get('i')?.value.n; if (shown.at(-1) !== n) shown.push(n); });
  for (let n = 1; n <= 300; n += 1) {
    group.update('i', [{ type: 'increment', path: 'n', by: 1 }]);
    if (n % 10 === 0) await new Promise(setImmediate);
  }
  await settled(client);
  await until(group, () => !group.get('i').pending, 'confirmed');
  assert.deepEqual(shown, Array.from({ length: 300 }, (_, n) => n + 1));
});

test('a refused edit rolls back with its reason, and later ones go on', { skip }, async (t) => {
  const client = realClient(t, server.subscribers);
  const group = client.group(unique('s'), 'g');
  await live(group);
  await within(group.set('i', 1).settled, 'set');
  const other = realClient(t, server.subscribers).group(group.stream, 'g');
  await within(other.set('i', 2).settled, 'the other');
  const outcomes = await within(Promise.allSettled([
    group.set('i', 'mine', { if: { seq: 1 } }), group.update('i', [{ type: 'append', value: 'x' }], { atomic: true }), group.set('j', 1),
    group.set('j', 2, { if: { absent: true } }), group.set('k', 3),
  ].map((one) => one.settled)), 'all');
  assert.deepEqual(outcomes.map(({ status, reason }) => reason?.code ?? status), ['precondition_failed', 'atomic_failed', 'fulfilled', 'precondition_failed', 'fulfilled']);
  await until(group, () => group.items.every(({ pending }) => !pending), 'confirmed');
  assert.deepEqual(group.items.map(({ id, value }) => [id, value]), [['i', 2], ['j', 1], ['k', 3]]);
});

test('what is not granted is refused, and does not hold up what is', { skip }, async (t) => {
  const strict = await startServer({ stream: { default_grants: [{ stream: '*', group: '*', can: ['read'] }, { stream: '*', group: '*', item: 'mine-*', can: ['set'] }] } });
  t.after(() => strict.stop());
  const client = realClient(t, strict.subscribers);
  const group = client.group('s', 'g');
  await live(group);
  const outcomes = await within(Promise.allSettled(['mine-1', 'yours', 'mine-2', 'theirs', 'mine-3'].map((id) => group.set(id, id).settled)), 'all');
  assert.deepEqual(outcomes.map(({ status, reason }) => reason?.code ?? status), ['fulfilled', 'forbidden', 'fulfilled', 'forbidden', 'fulfilled']);
  await until(group, () => group.items.length === 3 && group.items.every(({ pending }) => !pending), 'confirmed');
  assert.equal((await rejection(client.call('stream::delete', { stream_name: 's', group_id: 'g', item_id: 'mine-1' }))).code, 'forbidden');
});

test('reads by call, and events', { skip }, async (t) => {
  const [a, b] = [1, 2].map(() => realClient(t, server.subscribers));
  const name = unique('s');
  await within(a.group(name, 'g').set('i', { n: 1 }).settled, 'set');
  assert.deepEqual(await a.call('stream::get', { stream_name: name, group_id: 'g', item_id: 'i' }), { n: 1 });
  assert.equal(await a.call('stream::get', { stream_name: name, group_id: 'g', item_id: 'none' }), undefined);
  const heard = new Promise((resolve) => { b.group(name, 'g').onEvent(resolve); });
  await live(b.group(name, 'g'));
  const { seq } = await within(a.group(name, 'g').send('typing', { by: 'a' }, 'i').settled, 'send');
  assert.equal(seq, null);
  assert.deepEqual(await within(heard, 'the event'), { id: 'i', seq: 2, type: 'typing', data: { by: 'a' } });
});

test('edits made offline are shown, and sent when the network is back; what others did meanwhile comes in', { skip }, async (t) => {
  const proxy = await Proxy.start(portOf(server.subscribers));
  t.after(() => proxy.stop());
  const client = realClient(t, proxy.url);
  const group = client.group(unique('s'), 'g');
  await live(group);
  await within(group.set('i', { n: 0 }).settled, 'set');
  proxy.isDown = true;
  proxy.cut();
  await until(group, () => group.status === 'stale', 'stale');
  for (let n = 0; n < 20; n += 1) group.update('i', [{ type: 'increment', path: 'n', by: 1 }]);
  assert.equal(group.get('i').value.n, 20);
  const other = realClient(t, server.subscribers).group(group.stream, 'g');
  await within(other.update('i', [{ type: 'increment', path: 'n', by: 100 }]).settled, 'the other');
  proxy.isDown = false;
  await settled(client);
  await until(group, () => !group.get('i').pending && group.status === 'live', 'confirmed');
  assert.equal(group.get('i').value.n, 120);
});

test('a reload: the next client sends what the last one could not, whatever had arrived', { skip }, async (t) => {
  const proxy = await Proxy.start(portOf(server.subscribers));
  t.after(() => proxy.stop());
  const name = unique('s');
  const database = unique('db');
  const next = random(7);
  let total = 0;
  for (let round = 0; round < 8; round += 1) {
    const client = realClient(t, proxy.url, { storage: indexedDbStore(database), aliveTimeoutMs: -1, inFlightMax: 4 });
    const group = client.group(name, 'g');
    await live(group);
    for (let n = 0; n < 25; n += 1) group.update('i', [{ type: 'increment', path: 'n', by: 1 }]);
    total += 25;
    const wanted = Math.floor(next() * 20);
    await until(client, () => client.pending <= wanted + 5, 'some to be sent');
    // As a page goes: whatever is in flight stays so.
    proxy.cut();
    await client.close();
  }
  const last = realClient(t, server.subscribers, { storage: indexedDbStore(database), aliveTimeoutMs: -1 });
  const group = last.group(name, 'g');
  await live(group);
  // What is in the storage is found a moment after the start.
  await until(group, () => group.get('i').value.n >= total && !group.get('i').pending, 'every edit', 30_000);
  await settled(last);
  await last.close();
  assert.deepEqual(await indexedDbStore(database).queues(), []);
  const value = await realClient(t, server.subscribers).call('stream::get', { stream_name: name, group_id: 'g', item_id: 'i' });
  assert.deepEqual(value, { n: total });
  assert.deepEqual(last.rejections, []);
});

for (const seed of [1, 2, 3]) {
  test(`exactly once over many cuts at random points (seed ${seed})`, { skip, timeout: 60_000 }, async (t) => {
    const proxy = await Proxy.start(portOf(server.subscribers));
    t.after(() => proxy.stop());
    const next = random(seed);
    proxy.bytesUntilCut = () => 400 + Math.floor(next() ** 2 * 8_000);
    const name = unique('s');
    const clients = [1, 2, 3].map(() => realClient(t, proxy.url, { backoff: { firstMs: 1, maxMs: 5 } }));
    const groups = clients.map((client) => client.group(name, 'g'));
    groups.forEach((group) => group.subscribe(() => {}));
    const perClient = 200;
    for (let n = 0; n < perClient; n += 1) {
      groups.forEach((group, index) => group.update(`i${Math.floor(next() * 4)}`, [{ type: 'increment', path: `c${index}`, by: 1 }, { type: 'append', path: 'log', value: `${index}:${n} ` }]));
      if (n % 8 === 0) await new Promise((resolve) => { setTimeout(resolve, 2); });
    }
    await Promise.all(clients.map((client) => until(client, () => client.pending === 0, 'all to be taken', 50_000)));
    assert.ok(proxy.cuts > 10, `${proxy.cuts} cuts`);
    proxy.bytesUntilCut = () => Infinity;
    const watcher = realClient(t, server.subscribers).group(name, 'g');
    await live(watcher);
    const totals = [0, 1, 2].map((index) => watcher.items.reduce((sum, { value }) => sum + (value[`c${index}`] ?? 0), 0));
    assert.deepEqual(totals, [perClient, perClient, perClient]);
    // Each client's edits of an item are in the order in which they were made.
    for (const { value } of watcher.items) {
      for (const index of [0, 1, 2]) {
        const numbers = value.log.trim().split(' ').filter((entry) => entry.startsWith(`${index}:`)).map((entry) => Number(entry.slice(2)));
        assert.deepEqual(numbers, [...numbers].sort((x, y) => x - y));
        assert.equal(new Set(numbers).size, numbers.length);
      }
    }
    await Promise.all(groups.map((group) => until(group, () => JSON.stringify(seen(group)) === JSON.stringify(seen(watcher)), 'the same everywhere')));
    assert.deepEqual(clients.flatMap(({ rejections }) => rejections), []);
  });
}

test('no flicker over lost connections either: what is shown of an own counter only grows', { skip, timeout: 60_000 }, async (t) => {
  const proxy = await Proxy.start(portOf(server.subscribers));
  t.after(() => proxy.stop());
  const next = random(11);
  proxy.bytesUntilCut = () => 600 + Math.floor(next() * 4_000);
  const client = realClient(t, proxy.url, { backoff: { firstMs: 1, maxMs: 5 } });
  const group = client.group(unique('s'), 'g');
  const shown = [];
  group.subscribe(() => { const n = group.get('i')?.value.n; if (shown.at(-1) !== n) shown.push(n); });
  await until(group, () => group.status === 'live', 'live');
  for (let n = 1; n <= 300; n += 1) {
    group.update('i', [{ type: 'increment', path: 'n', by: 1 }]);
    if (n % 5 === 0) await new Promise((resolve) => { setTimeout(resolve, 2); });
  }
  await settled(client);
  proxy.bytesUntilCut = () => Infinity;
  proxy.cut();
  await until(group, () => group.status === 'live' && !group.get('i').pending, 'confirmed');
  assert.ok(proxy.cuts > 5, `${proxy.cuts} cuts`);
  assert.deepEqual(shown.filter((n) => n !== undefined), Array.from({ length: 300 }, (_, n) => n + 1));
});

test('kill -9 of the server in the middle: what was taken stays, everything else is taken once', { skip, timeout: 90_000 }, async (t) => {
  const folder = await newFolder();
  t.after(() => rm(folder, { recursive: true, force: true }));
  const stream = { default_grants: EVERYTHING, adapter: { name: 'kv', config: { store_method: 'file_based', file_path: 'store' } } };
  let crashing = await startServer({ stream, folder });
  t.after(() => crashing.stop());
  const proxy = await Proxy.start(portOf(crashing.subscribers));
  t.after(() => proxy.stop());
  const client = realClient(t, proxy.url);
  const group = client.group('s', 'g');
  await live(group);
  const acknowledged = [];
  let made = 0;
  for (let round = 0; round < 4; round += 1) {
    for (let n = 0; n < 400; n += 1) {
      made += 1;
      const at = made;
      group.update('i', [{ type: 'increment', path: 'n', by: 1 }]).settled.then(() => acknowledged.push(at));
    }
    const before = acknowledged.length;
    await until(client, () => acknowledged.length > before + 20 * (round + 1), 'some to be taken');
    await crashing.kill();
    crashing = await startServer({ stream, folder });
    proxy.target = portOf(crashing.subscribers);
    client.reconnect();
  }
  await settled(client);
  await until(group, () => group.get('i').pending === false, 'confirmed');
  assert.equal(group.get('i').value.n, made);
  assert.deepEqual(client.rejections, []);
  assert.deepEqual(acknowledged, Array.from({ length: made }, (_, n) => n + 1));
});

test('a server that starts with nothing: edits that may have arrived are of unknown outcome or taken, later ones are taken', { skip }, async (t) => {
  const stream = { default_grants: EVERYTHING, adapter: { name: 'kv', config: { store_method: 'in_memory' } } };
  let forgetful = await startServer({ stream });
  t.after(() => forgetful.stop());
  const proxy = await Proxy.start(portOf(forgetful.subscribers));
  t.after(() => proxy.stop());
  const client = realClient(t, proxy.url);
  const group = client.group('s', 'g');
  await live(group);
  await within(group.set('before', 1).settled, 'before');
  await forgetful.kill();
  const made = [1, 2, 3].map((n) => group.set(`i${n}`, n));
  forgetful = await startServer({ stream });
  proxy.target = portOf(forgetful.subscribers);
  client.reconnect();
  const outcomes = await within(Promise.allSettled(made.map((one) => one.settled)), 'all');
  for (const { status, reason } of outcomes) assert.ok(status === 'fulfilled' || reason.code === 'outcome_unknown', `${status} ${reason}`);
  await within(group.set('after', 1).settled, 'after');
  await until(group, () => group.status === 'live' && group.items.every(({ pending }) => !pending), 'confirmed');
  assert.equal(group.get('before'), undefined);
  assert.equal(group.get('after').value, 1);
});

test('`send`: the application\'s back end makes the very same call, once', { skip }, async (t) => {
  const peer = await server.peer();
  let failures = 5;
  const next = random(3);
  const send = async ({ functionId, data }) => {
    if (data.item_id === 'theirs') throw rejected('not_yours');
    const frame = await peer.call(functionId, data);
    // Its answer does not always come through.
    if (next() < 0.3 && (failures -= 1) >= 0) throw new TypeError('fetch failed');
    if (frame.error) throw Object.assign(new Error(frame.error.message), frame.error);
    return frame.result;
  };
  const client = realClient(t, server.subscribers, { send });
  const group = client.group(unique('s'), 'g');
  await live(group);
  const made = Array.from({ length: 30 }, (_, n) => (n % 10 === 5 ? group.set('theirs', n) : group.update('i', [{ type: 'increment', path: 'n', by: 1 }])));
  const outcomes = await within(Promise.allSettled(made.map((one) => one.settled)), 'all');
  assert.deepEqual(outcomes.filter(({ status }) => status === 'rejected').map(({ reason }) => reason.code), ['not_yours', 'not_yours', 'not_yours']);
  await until(group, () => group.items.length === 1 && !group.get('i').pending, 'confirmed');
  assert.equal(group.get('i').value.n, 27);
  assert.deepEqual((await listed(peer, group.stream, 'g')).map(({ id, value }) => [id, value]), [['i', { n: 27 }]]);
});

test('4001: the connection comes back with a new token', { skip }, async (t) => {
  const guarded = await startServer({ stream: { auth_function: 'my::auth', default_grants: EVERYTHING } });
  t.after(() => guarded.stop());
  const peer = await guarded.peer();
  const tokens = [];
  peer.serve('my::auth', ({ headers }) => {
    const token = headers['sec-websocket-protocol'].split(/, ?/)[1];
    tokens.push(token);
    if (token !== `t${tokens.length}`) return { error: { code: 'no', message: 'an old token' } };
    return { result: { context: null, grants: EVERYTHING, ...(tokens.length === 1 ? { expires_at: Math.floor(Date.now() / 1000) + 1 } : {}) } };
  });
  await peer.settled();
  const asked = [];
  const client = realClient(t, guarded.subscribers, { token: ({ reason }) => { asked.push(reason); return `t${asked.length}`; } });
  const group = client.group('s', 'g');
  await live(group);
  await until(group, () => group.status === 'stale', 'the token to expire');
  await until(group, () => group.status === 'live', 'live again');
  assert.deepEqual(asked, ['connect', 'expired']);
  await within(group.set('i', 1).settled, 'an edit');
});

test('5,000 tokens appended to one item arrive as deltas, each client showing what is there', { skip, timeout: 60_000 }, async (t) => {
  const [writer, reader] = [1, 2].map(() => realClient(t, server.subscribers));
  const name = unique('ai');
  const [from, to] = [writer.item(name, 'answers', 'a1'), reader.item(name, 'answers', 'a1')];
  await Promise.all([live(from), live(to)]);
  let told = 0;
  to.subscribe(() => { told += 1; });
  from.set({ text: '', by: 'bot' });
  let text = '';
  for (let n = 0; n < 5_000; n += 1) {
    const token = `token${n} `;
    text += token;
    from.update([{ type: 'append', path: 'text', value: token }]);
    if (n % 50 === 0) await new Promise(setImmediate);
  }
  assert.equal(from.value.text, text);
  await settled(writer, 40_000);
  await until(to, () => to.value?.text === text, 'the whole text');
  assert.equal(to.item.seq, 5_001);
  assert.ok(told > 0 && told <= 5_003);
});

test('a client that is closed settles everything, and stays closed', { skip }, async (t) => {
  const client = realClient(t, server.subscribers, { storage: memoryStore() });
  const group = client.group(unique('s'), 'g');
  await live(group);
  const made = [group.set('i', 1), group.set('j', 2)];
  const call = client.call('stream::list_all');
  call.catch(() => {});
  await client.close();
  for (const one of made) {
    const outcome = await one.settled.catch((error) => error.code);
    assert.ok(outcome === 'closed' || outcome.seq > 0);
  }
  assert.equal(group.status, 'idle');
  assert.equal((await rejection(group.set('k', 1).settled)).code, 'closed');
  assert.equal((await rejection(client.call('stream::list_all'))).code, 'closed');
  assert.equal(client.status.state, 'closed');
});
