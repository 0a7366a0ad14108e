// Concurrent writers lose nothing: 1,000 increments by four iii-sdk workers are 1,000.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { settled, startServer } from './harness.mjs';

let server;
before(async () => { server = await startServer(); });
after(() => server?.stop());

const at = { stream_name: 'concurrency', group_id: 'g', item_id: 'counter' };

test('1,000 concurrent increments from four workers count to exactly 1,000', async () => {
  const workers = [1, 2, 3, 4].map(() => server.sdk());
  await Promise.all(workers.map(settled));
  const answers = await Promise.all(workers.flatMap((worker) => Array.from({ length: 250 }, () =>
    worker.trigger({ function_id: 'stream::update', payload: { ...at, ops: [{ type: 'increment', path: 'n', by: 1 }] } }))));
  const values = answers.map((answer) => answer.new_value.n).sort((a, b) => a - b);
  assert.deepEqual(values, Array.from({ length: 1_000 }, (_, i) => i + 1), 'every increment saw a value of its own');
  for (const { old_value, new_value } of answers) assert.equal(new_value.n, (old_value?.n ?? 0) + 1);
  assert.deepEqual(await workers[0].trigger({ function_id: 'stream::get', payload: at }), { n: 1_000 });
});

test('appends by four workers all arrive, each worker\'s own in order', async () => {
  const workers = [0, 1, 2, 3].map(() => server.sdk());
  const list = { ...at, item_id: 'list' };
  await Promise.all(workers.flatMap((worker, w) => Array.from({ length: 100 }, (_, n) =>
    worker.trigger({ function_id: 'stream::update', payload: { ...list, ops: [{ type: 'append', path: 'all', value: [w, n] }] } }))));
  const { all } = await workers[0].trigger({ function_id: 'stream::get', payload: list });
  assert.equal(all.length, 400);
  for (const w of [0, 1, 2, 3]) {
    assert.deepEqual(all.filter(([by]) => by === w).map(([, n]) => n), Array.from({ length: 100 }, (_, n) => n));
  }
});

test('a subscriber sees all changes of four workers, in one order without a gap', async () => {
  const workers = [0, 1, 2, 3].map(() => server.sdk());
  const subscriber = await server.subscriber();
  await subscriber.join('concurrency', 'seen');
  await Promise.all(workers.flatMap((worker, w) => Array.from({ length: 100 }, (_, n) =>
    worker.trigger({ function_id: 'stream::set', payload: { stream_name: 'concurrency', group_id: 'seen', item_id: `${n % 7}`, data: [w, n] } }))));
  const seen = [];
  while (seen.length < 400) seen.push(await subscriber.next());
  assert.deepEqual(seen.map((frame) => frame.seq), Array.from({ length: 400 }, (_, i) => i + 1));
  for (const w of [0, 1, 2, 3]) {
    const mine = seen.map((frame) => frame.event.data).filter(([by]) => by === w).map(([, n]) => n);
    assert.deepEqual(mine, Array.from({ length: 100 }, (_, n) => n), 'a worker\'s calls keep their order');
  }
});
