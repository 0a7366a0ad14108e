// Much of everything: views that come and go, and edits made offline by the thousand.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { serverBinary, startServer, unique } from '../../../tests/clients/harness.mjs';
import { FakeServer, snapshot } from './fake_server.mjs';
import { realClient } from './kit.mjs';
import { Replica, init, memoryStore } from './package.mjs';
import { Proxy } from './proxy.mjs';
import { until, within } from './waiting.mjs';

const skip = existsSync(serverBinary()) ? false : `there is no ${serverBinary()}: cargo build -p iii-stream, or set III_STREAM_BIN`;
const EVERYTHING = [{ stream: '*', group: '*', can: ['read', 'set', 'update', 'delete', 'send'] }];
const EDITS = 10_000;
let server;
before(async () => { if (!skip) server = await startServer({ stream: { default_grants: EVERYTHING } }); });
after(() => server?.stop());

test('5,000 views come and go: each is left, its replica and its listeners are gone', async (t) => {
  const fake = await FakeServer.start({ on: (connection, message) => { if (message.type === 'join') connection.send(snapshot(message, [{ id: 'a', seq: 1, data: 1 }], { seq: 1 })); } });
  t.after(() => fake.stop());
  await init();
  const open = new Set();
  class CountingReplica extends Replica {
    open(name, ...target) { open.add(name); super.open(name, ...target); }
    close(name) { open.delete(name); super.close(name); }
  }
  const loadReplica = () => new CountingReplica();
  const client = realClient(t, fake.url, { loadReplica, lingerMs: 1 });
  const count = 500;
  for (let round = 0; round < 10; round += 1) {
    const views = Array.from({ length: count }, (_, n) => (n % 2 === 0 ? client.group('s', `g${round}-${n}`) : client.item('s', `g${round}-${n}`, 'a')));
    const ends = views.flatMap((view) => [view.subscribe(() => {}), view.onEvent(() => {})]);
    await until(views.at(-1), () => views.every(({ status }) => status === 'live'), 'live');
    assert.equal(open.size, count);
    for (const end of ends) end();
    await fake.until(() => fake.last.of('leave').length === (round + 1) * count, 'every leave');
    assert.ok(views.every(({ status }) => status === 'idle'));
    assert.equal(open.size, 0);
  }
  assert.equal(fake.connections.length, 1);
});

test('edits of more groups than are remembered take effect all the same', { skip, timeout: 60_000 }, async (t) => {
  const client = realClient(t, server.subscribers);
  const stream = unique('s');
  const edits = [];
  for (let round = 0; round < 2; round += 1) {
    for (let n = 0; n < 1_200; n += 1) edits.push(client.group(stream, `g${n}`).update('i', [{ type: 'increment', path: 'n', by: 1 }]).settled);
    await within(Promise.all(edits), 'all of a round', 30_000);
  }
  for (const n of [0, 600, 1_199]) assert.deepEqual(await client.call('stream::get', { stream_name: stream, group_id: `g${n}`, item_id: 'i' }), { n: 2 });
  assert.deepEqual(client.rejections, []);
});

for (const [what, options] of [['without storage', () => ({})], ['with storage', () => ({ storage: memoryStore(unique('m')) })]]) {
  test(`10,000 edits made offline, ${what}: shown at once, sent in order, a few refusals among them`, { skip, timeout: 110_000 }, async (t) => {
    const strict = await startServer({ stream: { default_grants: [{ stream: '*', group: '*', can: ['read'] }, { stream: '*', group: '*', item: 'i*', can: ['set', 'update'] }] } });
    t.after(() => strict.stop());
    const proxy = await Proxy.start(Number(new URL(strict.subscribers).port));
    t.after(() => proxy.stop());
    const client = realClient(t, proxy.url, { pendingMax: EDITS, ...options() });
    const group = client.group('s', 'g');
    group.subscribe(() => {});
    await until(group, () => group.status === 'live', 'live');
    proxy.isDown = true;
    proxy.cut();
    await until(group, () => group.status === 'stale', 'stale');
    const began = performance.now();
    // Every 500th is not allowed; the numbers of those behind it change each time.
    for (let n = 0; n < EDITS; n += 1) group.update(n % 500 === 250 ? 'theirs' : `i${n % 100}`, [{ type: 'append', path: 'log', value: n }]);
    const madeMs = performance.now() - began;
    assert.equal(client.pending, EDITS);
    let pauseMsMax = 0;
    let last = performance.now();
    const watch = setInterval(() => { pauseMsMax = Math.max(pauseMsMax, performance.now() - last); last = performance.now(); }, 1);
    proxy.isDown = false;
    client.reconnect();
    await until(client, () => client.pending === 0, 'nothing pending', 100_000);
    clearInterval(watch);
    t.diagnostic(`made in ${madeMs.toFixed()} ms, sent in ${(performance.now() - began - madeMs).toFixed()} ms, longest pause ${pauseMsMax.toFixed()} ms`);
    await until(group, () => group.status === 'live' && group.items.every(({ pending }) => !pending), 'confirmed');
    assert.equal(client.rejections.length, EDITS / 500);
    assert.ok(client.rejections.every(({ error }) => error.code === 'forbidden'));
    const watcher = realClient(t, strict.subscribers).group('s', 'g');
    watcher.subscribe(() => {});
    await until(watcher, () => watcher.status === 'live', 'live');
    assert.equal(watcher.get('theirs'), undefined);
    let sum = 0;
    for (const { id, value } of watcher.items) {
      sum += value.log.length;
      assert.ok(value.log.every((n, index) => index === 0 || n > value.log[index - 1]), `the order of ${id}`);
    }
    assert.equal(sum, EDITS - EDITS / 500);
  });
}
