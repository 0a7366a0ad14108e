// The golden vectors of update-ops.md through a live server, as exact JSON text over a plain worker connection.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { startServer } from './harness.mjs';
import { parse, sameJson, slice } from './lossless.mjs';

const folder = new URL('../vectors/', import.meta.url);
/** The lines of a vector file as { name, ...exact texts of the other members }. */
const read = (file) => readFileSync(new URL(file, folder), 'utf8').split('\n').filter(Boolean)
  .map((line) => ({ ...Object.fromEntries(parse(line).fields), name: JSON.parse(slice(line, 'name')) }));

let server;
let peer;
before(async () => {
  server = await startServer();
  peer = await server.peer();
});
after(() => server?.stop());

const call = (verb, stream, item, more = '') => peer.callText(`stream::${verb}`,
  `{"stream_name":${JSON.stringify(stream)},"group_id":"vectors","item_id":${JSON.stringify(item)}${more}}`);

/** What the live server makes of one vector that is differently from what the vector says; empty when nothing is. */
async function faults(stream, vector) {
  if (vector.old !== undefined) await call('set', stream, vector.name, `,"data":${vector.old}`);
  const [updated, read] = await Promise.all([
    call('update', stream, vector.name, `,"ops":${vector.ops}`),
    call('get', stream, vector.name),
  ]);
  if (updated.error) return [`refused: ${updated.error.message}`];
  const result = slice(updated.text, 'result');
  const codes = (errors) => JSON.stringify(errors.map(({ op_index, code }) => ({ op_index, code })));
  const got = {
    old_value: slice(result, 'old_value'), new_value: slice(result, 'new_value'), stored: slice(read.text, 'result'), errors: slice(result, 'errors'),
  };
  const wanted = JSON.parse(vector.errors);
  const found = [];
  if (!sameJson(got.old_value ?? '"absent"', vector.old ?? 'null')) found.push(`old_value ${got.old_value}`);
  if (!sameJson(got.new_value ?? '"absent"', vector.new)) found.push(`new_value ${got.new_value} instead of ${vector.new}`);
  if (!sameJson(got.stored ?? '"absent"', vector.new)) found.push(`stored ${got.stored} instead of ${vector.new}`);
  if (wanted.length === 0 && got.errors !== undefined) found.push(`errors ${got.errors} instead of none`);
  if (wanted.length > 0 && codes(JSON.parse(got.errors ?? '[]')) !== codes(wanted)) found.push(`errors ${got.errors} instead of ${vector.errors}`);
  return found;
}

async function checkAll(stream, vectors) {
  const outcomes = await Promise.all(vectors.map(async (vector) => [vector.name, await faults(stream, vector)]));
  const wrong = outcomes.filter(([, found]) => found.length > 0).map(([name, found]) => `${name}: ${found.join('; ')}`);
  none(wrong, vectors.length);
}

/** Fails naming the vectors that are wrong: the first ones with what is wrong about them, all by name. */
function none(wrong, of) {
  const names = wrong.map((line) => line.split(': ')[0]).join(' ');
  assert.equal(wrong.length, 0, `${wrong.length} of ${of} vectors are wrong:\n${wrong.slice(0, 20).map((line) => line.slice(0, 300)).join('\n')}\nall: ${names}`);
}

test('the 1,287 vectors of the iii engine', async () => {
  const vectors = read('update-ops.jsonl');
  assert.ok(vectors.length >= 1_287, `${vectors.length} vectors`);
  assert.equal(new Set(vectors.map((v) => v.name)).size, vectors.length, 'names are unique');
  await checkAll('vectors', vectors);
});

for (const file of ['update-ops-added.jsonl', 'update-ops-added-rejected.jsonl']) {
  const there = existsSync(new URL(file, folder));
  test(`our own vectors: ${file}`, { skip: there ? false : 'the file does not exist' }, async () => {
    const vectors = read(file);
    if (file.includes('rejected')) await checkRejected('added-rejected', vectors);
    else await checkAll('added', vectors);
  });
}

/** Every op list is refused as a whole and leaves {"a":5}, except where the product document accepts it. */
async function checkRejected(stream, vectors) {
  const wrong = [];
  const accepted = [];
  for (const vector of vectors) {
    await call('set', stream, vector.name, ',"data":{"a":5}');
    const answer = await call('update', stream, vector.name, vector.ops === undefined ? '' : `,"ops":${vector.ops}`);
    const stored = slice((await call('get', stream, vector.name)).text, 'result');
    if (vector.document_accepts === 'true' && !answer.error) {
      // An absent or null path is the root: the same ops with "path": "" must have the same outcome.
      const ops = JSON.stringify(JSON.parse(vector.ops).map((op) => ({ ...op, path: op.path ?? '' })));
      await call('set', stream, `${vector.name} at root`, ',"data":{"a":5}');
      const explicit = await call('update', stream, `${vector.name} at root`, `,"ops":${ops}`);
      if (!sameJson(slice(answer.text, 'result'), slice(explicit.text, 'result'))) wrong.push(`${vector.name}: ${answer.text} but ${explicit.text}`);
      accepted.push(vector.name);
    } else if (answer.error?.code !== JSON.parse(vector.code) || !sameJson(stored ?? 'null', '{"a":5}')) {
      wrong.push(`${vector.name}: stored ${stored}, answered ${answer.text}`);
    }
  }
  none(wrong, vectors.length);
  return accepted;
}

test('the 40 rejected requests, except those the product document accepts', async (t) => {
  const vectors = read('update-ops-rejected.jsonl');
  assert.ok(vectors.length >= 40, `${vectors.length} vectors`);
  const accepted = await checkRejected('rejected', vectors);
  const differing = vectors.filter((v) => v.document_accepts === 'true').map((v) => v.name);
  t.diagnostic(`accepted here, refused by the iii engine 0.23: ${accepted.join(', ')}`);
  assert.deepEqual(accepted, differing, 'following the product document: an absent path is the root');
});
