// The README's first minute, run as it is printed, but on ports of its own.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Record, serverBinary, startServer } from './harness.mjs';

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
const section = readme.split('## The first minute')[1].split('\n## ')[0];
const blocks = (language) => [...section.matchAll(new RegExp('```' + language + '\\n([\\s\\S]*?)```', 'g'))].map((match) => match[1].trimEnd());

test('the first minute works as printed', async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const commands = blocks('sh').flatMap((block) => block.split('\n'));
  const [shown] = blocks('text');
  const place = (command) => command
    .replace('target/release/iii-stream', serverBinary())
    .replace(/ (watch .*)$/, ` $1 --url ${server.subscribers}`)
    .replace(/ (call .*)$/, ` $1 --worker-url ${server.workers}`);
  const [watch, ...calls] = commands.map(place);
  assert.equal(calls.length, 3, section);

  const watching = spawn('sh', ['-c', `exec ${watch}`], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => watching.kill());
  const lines = new Record(server);
  let rest = '';
  watching.stdout.setEncoding('utf8').on('data', (text) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop();
    parts.forEach((line) => lines.push(line));
  });
  await lines.count(1);
  const results = calls.map((call) => execFileSync('sh', ['-c', call], { encoding: 'utf8' }));
  assert.equal(results[2], '[{"text":"hi there","likes":1}]\n');
  const expected = shown.split('\n');
  assert.deepEqual(await lines.count(expected.length), expected);
});
