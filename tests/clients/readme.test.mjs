// The README's commands, code and configuration, run as they are printed, but on ports of their own.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
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
  const [read] = blocks('json');
  const place = (command) => command
    .replace('target/release/iii-stream', serverBinary())
    .replace(/ (watch .*)$/, ` $1 --url ${server.subscribers}`)
    .replace(/ (call .*)$/, ` $1 --worker-url ${server.workers}`)
    .replace('http://127.0.0.1:3112', server.subscribers.replace('ws', 'http'));
  const [watch, ...others] = commands.map(place);
  const [calls, [follow, get]] = [others.slice(0, 3), others.slice(3)];
  assert.equal(others.length, 5, section);

  const start = (command) => {
    const child = spawn('sh', ['-c', `exec ${command}`], { stdio: ['ignore', 'pipe', 'ignore'] });
    t.after(() => child.kill());
    const lines = new Record(server);
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop();
      parts.forEach((line) => lines.push(line));
    });
    return lines;
  };
  const lines = start(watch);
  await lines.count(1);
  const results = calls.map((call) => execFileSync('sh', ['-c', call], { encoding: 'utf8' }));
  assert.equal(results[2], '[{"text":"hi there","likes":1}]\n');
  const expected = shown.split('\n');
  assert.deepEqual(await lines.count(expected.length), expected);
  const group = JSON.parse(execFileSync('sh', ['-c', `${get} 2>/dev/null`], { encoding: 'utf8' }));
  assert.deepEqual(group, { ...JSON.parse(read), epoch: group.epoch });
  const [id, data] = await start(follow).count(2);
  assert.equal(id, `id: ${group.epoch}:${group.seq}`);
  assert.deepEqual(JSON.parse(data.replace('data: ', '')).event, { type: 'sync', mode: 'snapshot', items: group.items, more: false });
});

test('the code of "From your code" does what it says', async (t) => {
  const server = await startServer({ stream: { default_grants: [{ stream: '*', group: '*', can: ['read', 'set'] }] } });
  t.after(() => server.stop());
  const code = readme.split('## From your code')[1].split('\n## ')[0];
  const [worker, editing, page] = [...code.matchAll(/```js\n([\s\S]*?)```/g)].map((match) => match[1]
    .replace('ws://127.0.0.1:49134', server.workers)
    .replace('ws://127.0.0.1:3112', server.subscribers)
    .replace("'iii-stream'", JSON.stringify(new URL('../../pkg/dist/esm/index.js', import.meta.url))));
  const run = (source) => {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', source], { cwd: new URL('.', import.meta.url), stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => child.kill());
    const lines = new Record(server);
    child.stdout.setEncoding('utf8').on('data', (text) => text.split('\n').filter(Boolean).forEach((line) => lines.push(line)));
    return lines;
  };
  // Node 20 has no WebSocket of its own; a browser has.
  const inPage = (source) => run(`import WebSocket from 'ws'; globalThis.WebSocket = WebSocket;\n${source}`);
  const shown = inPage(editing);
  await shown.until((lines) => lines.includes("[ 'Olives' ]"), 'the own edit');
  const events = inPage(page);
  await events.until((lines) => lines.some((line) => line.includes("type: 'sync'")), 'the sync');
  run(worker);
  await events.until((lines) => lines.some((line) => line.includes("type: 'create'")), 'the event of the write');
});

test('the sample configuration is one', () => {
  const [, sample] = /## Configuration[\s\S]*?```yaml\n([\s\S]*?)```/.exec(readme);
  const file = join(mkdtempSync(join(tmpdir(), 'iii-stream-readme-')), 'iii-stream.yaml');
  writeFileSync(file, sample);
  try {
    const said = execFileSync(serverBinary(), ['check', '--config', file], { encoding: 'utf8', env: { ...process.env, STREAM_PORT: '' } });
    assert.match(said, /auth +stream::auth\n[\s\S]*ok\n$/);
  } finally {
    rmSync(dirname(file), { recursive: true });
  }
});
