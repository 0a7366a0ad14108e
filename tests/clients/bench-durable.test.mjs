// The measuring program of the durable store, once from end to end with small sizes: it checks what it measures, and says all it should.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { serverBinary } from './harness.mjs';

const program = join(dirname(serverBinary()), 'iii-stream-bench');
const skip = existsSync(program) ? false : `${program} is missing: cargo build -p iii-stream-bench`;

test('durable: every part runs, and every acknowledged change is found again', { skip }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'bench-durable-'));
  try {
    const json = join(folder, 'report.json');
    const { stdout } = await promisify(execFile)(program, ['durable', '--quick', '--json', json, '--server', serverBinary()]);
    assert.match(stdout, /durable store: writes/);
    const { sections, notes } = JSON.parse(await readFile(json, 'utf8'));
    const rows = new Map(sections.flatMap((section) => section.rows).map((row) => [row.what, row]));
    for (const row of rows.values()) assert.ok(Number.isFinite(row.median) && row.low <= row.high, JSON.stringify(row));
    const value = (what) => rows.get(what)?.median ?? assert.fail(`no row "${what}" in ${[...rows.keys()].join(' | ')}`);
    for (const what of ['set, loaded', 'set in memory, loaded', 'update, loaded', 'set in 100 streams, loaded',
      'the bare writer of such batches', 'replay after SIGKILL, all in the log', 'start after a clean stop, until the first answer',
      'get after eviction: p99 / (3 x p99 of hot ones + 1 ms)']) {
      assert.ok(value(what) > 0, what);
    }
    // What does not depend on how busy the machine is.
    const grown = 'one item, folds of 1 MiB: ';
    assert.ok(value(`${grown}bytes given to the log, one call at a time`) <= 300);
    assert.ok(value(`${grown}(log + folding) / log`) <= 3);
    assert.ok(value(`${grown}folds meanwhile`) >= 4);
    const isMissing = notes.some((note) => note.includes('redis-server is missing'));
    assert.equal(rows.has('Redis HSET, synced, loaded'), !isMissing);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
