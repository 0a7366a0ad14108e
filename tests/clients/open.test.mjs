// `iii-stream --open`, the first minute on one's own machine: its programs and pages may write, nobody else may (operations.md).
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { serverBinary, startServer } from './harness.mjs';

const folder = mkdtempSync(join(tmpdir(), 'iii-stream-open-'));
const servers = [];
after(() => Promise.all(servers.map((server) => server.stop())));
after(() => rmSync(folder, { recursive: true, force: true }));

async function own(config) {
  const server = await startServer(config);
  servers.push(server);
  return server;
}

/** A configuration file with these keys of `iii-stream`. */
function configured(keys) {
  const file = join(folder, 'config.yaml');
  writeFileSync(file, `- name: iii-stream\n  config: ${JSON.stringify(keys)}\n`);
  return file;
}

const set = { type: 'call', id: '1', function_id: 'stream::set', data: { stream_name: 's', group_id: 'g', item_id: 'i', data: 1 } };

async function answer(server, options) {
  const socket = await server.subscriber('/', options);
  socket.send(set);
  return socket.next();
}

test('programs and pages of this machine may write, pages of other origins may not even connect', async () => {
  const server = await own({ args: ['--open'] });
  assert.match(server.report(), /clients +programs and pages of this machine may call everything/);
  for (const origin of [undefined, 'http://localhost:5173', 'http://127.0.0.1', 'http://[::1]:8080', 'https://localhost']) {
    assert.ok((await answer(server, { ...(origin ? { origin } : {}) })).result, origin);
  }
  for (const origin of ['https://evil.example', 'http://localhost.evil.example', 'null', 'http://192.168.0.2:8080']) {
    await assert.rejects(server.subscriber('/', { origin }), { status: 403 }, origin);
  }
});

test('what is configured counts, and without --open nothing is open', async () => {
  const picky = await own({ args: ['--open'], stream: { default_grants: [{ stream: '*', group: '*', can: ['read'] }], allowed_origins: ['https://*.example'] } });
  assert.ok(!picky.report().includes('call everything'));
  assert.equal((await answer(picky, { origin: 'https://app.example' })).error.code, 'forbidden');
  await assert.rejects(picky.subscriber('/', { origin: 'http://localhost:5173' }), { status: 403 });
  const plain = await own();
  assert.equal((await answer(plain, { origin: 'https://anywhere.example' })).error.code, 'forbidden');
});

test('it goes neither with an auth function, nor with a host that others reach, nor with another command', () => {
  const check = (...args) => spawnSync(serverBinary(), args, { encoding: 'utf8' });
  for (const [keys, what] of [[{ auth_function: 'my::auth' }, '`auth_function: my::auth`'], [{ host: '0.0.0.0' }, '`host: 0.0.0.0`']]) {
    for (const command of [[], ['check']]) {
      const { status, stderr } = check('--open', '--config', configured(keys), ...command);
      assert.deepEqual([status, stderr.trim()], [1, `error: --open lets whoever is on this machine write, so it does not go with ${what}: start without it`]);
    }
  }
  assert.match(check('--open', 'call', 'stream::list_all').stderr, /--open .* `serve` and `check` only/);
  assert.match(execFileSync(serverBinary(), ['--open', 'check'], { encoding: 'utf8' }), /subscribers  127\.0\.0\.1:3112[\s\S]*everybody may call everything/);
});
