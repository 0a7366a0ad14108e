// The examples that use the npm package, as they are, in a real browser: todo, ai-tokens, edge. EXAMPLE_PICTURES=1 renews their pictures.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { deferred, newFolder, startServer, within } from './harness.mjs';
import { portsOf } from './restart.mjs';
import { rm } from 'node:fs/promises';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const missing = ['todo', 'ai-tokens', 'edge'].filter((name) => !existsSync(here(`../../examples/${name}/node_modules`)));
const skip = !existsSync(executablePath) ? `no Chromium at ${executablePath}; set $CHROMIUM`
  : missing.length > 0 ? `examples/${missing[0]}/node_modules is missing; run: make setup` : false;
const EVERYTHING = [{ stream: '*', group: '*', can: ['read', 'set', 'update', 'delete', 'send'] }];

let server;
let folder;
let browser;
const running = [];

before(async () => {
  if (skip) return;
  folder = await newFolder();
  server = await startServer({ stream: { default_grants: EVERYTHING }, folder });
  browser = await chromium.launch({ executablePath, args: ['--headless', '--no-sandbox', '--disable-gpu'] });
});

after(async () => {
  await browser?.close();
  running.forEach((child) => child.kill());
  await server?.stop();
  if (folder) await rm(folder, { recursive: true, force: true });
});

/** Starts an example with `npm start`'s program; gives the address it prints. */
async function start(name, program, env = {}) {
  const child = spawn(process.execPath, [program], {
    cwd: here(`../../examples/${name}`), stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, III_URL: server.workers, STREAM_URL: server.subscribers, PORT: '0', ...env },
  });
  running.push(child);
  const address = deferred();
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      said += text;
      const url = /^\w+\s+(http:\/\/\S+)$/m.exec(said)?.[1];
      if (url) address.resolve(url);
    });
  }
  child.on('exit', (code) => address.reject(new Error(`examples/${name} ended (${code}):\n${said}`)));
  return within(address.promise, `examples/${name} to print its address`, { ms: 60_000 });
}

async function open(url, viewport) {
  const page = await browser.newPage({ viewport });
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(error.message));
  await page.goto(url);
  return page;
}

const picture = async (page, name) => {
  const path = process.env.EXAMPLE_PICTURES ? here(`../../examples/${name}/${name}.png`) : undefined;
  const { length } = await page.screenshot({ path });
  assert.ok(length > 8_000, 'something is drawn');
};

test('todo: two people, one of them off line, the server started anew in between', { skip }, async () => {
  const url = await start('todo', 'start.mjs');
  const viewport = { width: 720, height: 560 };
  const [ada, bob] = [await open(url, viewport), await open(url, viewport)];
  const entries = (page) => page.$$eval('li', (rows) => rows.map((row) => `${row.querySelector('b').textContent} ${row.querySelector('span').textContent}`));
  const saved = (page, count) => page.waitForFunction((rows) => document.querySelectorAll('li').length === rows && !document.querySelector('li small'), count);
  const add = async (page, text) => { await page.fill('input[name=text]', text); await page.click('form button'); };
  for (const page of [ada, bob]) await page.waitForSelector('.state.open');
  for (const text of ['Coffee beans', 'Olives', 'Sourdough']) await add(ada, text);
  for (const page of [ada, bob]) await saved(page, 3);

  const { stream, manager } = portsOf(server);
  await server.terminate({ keepsFolder: true });
  for (const page of [ada, bob]) await page.waitForSelector('.state:not(.open)');
  await add(bob, 'A very ripe pear');
  for (const page of [ada, bob]) await page.click('li:nth-child(2) [aria-label="One more"]');
  await ada.click('li:nth-child(3) input');
  await bob.waitForSelector('.notice');
  assert.match(await bob.textContent('.notice'), /2 edits are kept here/);
  await picture(bob, 'todo');
  // Whatever was not sent is in the browser's storage, and the page comes from elsewhere.
  await bob.reload();
  server = await startServer({ stream: { default_grants: EVERYTHING, ...stream }, manager, folder });
  for (const page of [ada, bob]) await saved(page, 4);
  const wanted = ['1 Coffee beans', '3 Olives', '1 Sourdough', '1 A very ripe pear'];
  await ada.waitForFunction((text) => document.querySelector('li:nth-child(2) b').textContent === text, '3');
  await bob.waitForFunction((text) => document.querySelector('li:nth-child(2) b').textContent === text, '3');
  for (const page of [ada, bob]) {
    assert.deepEqual(await entries(page), wanted);
    assert.equal(await page.isChecked('li:nth-child(3) input'), true);
    assert.deepEqual(page.errors, []);
    await page.close();
  }
});

test('ai-tokens: an answer comes word by word, and costs the words', { skip }, async () => {
  const url = await start('ai-tokens', 'worker.mjs', { WORDS: '500', PAUSE_MS: '2' });
  const page = await open(url, { width: 900, height: 640 });
  await page.waitForSelector('#state.open');
  await page.click('button');
  await page.waitForFunction(() => Number(document.getElementById('changes').textContent.replace(/\D/g, '')) > 350, null, { timeout: 60_000 });
  await picture(page, 'ai-tokens');
  await page.waitForFunction(() => document.querySelector('article')?.className === '', null, { timeout: 60_000 });
  const text = await page.textContent('article p');
  assert.match(text, /^You asked: “How does an answer get here\?” A stream keeps small pieces of JSON, /);
  assert.equal(text.trim().split(' ').length, 500 + 8, 'every word, once');
  const number = (id) => page.$eval(`#${id}`, (cell) => Number(cell.textContent.replace(/\D/g, '')));
  const [received, whole] = [await number('received'), await number('whole')];
  assert.ok(received * 3 < whole, `${received} bytes instead of ${whole}`);
  assert.deepEqual(page.errors, []);
  await page.close();
});

test('edge: what is against the rules is refused there, and the rest comes out as predicted', { skip }, async () => {
  const url = await start('edge', 'start.mjs');
  const page = await open(url, { width: 900, height: 540 });
  await page.waitForSelector('section:nth-child(3)');
  const order = async (show, button) => {
    const rows = await page.locator('li').count();
    await page.click(`section:nth-child(${show}) button:nth-of-type(${button})`);
    await page.waitForFunction((before) => document.querySelectorAll('li').length > before, rows);
    return page.textContent('li:first-child span:last-child');
  };
  assert.equal(await order(1, 2), 'stored; 36 left, byte for byte as predicted');
  assert.equal(await order(3, 2), 'stored; 1 left, byte for byte as predicted');
  assert.equal(await order(3, 2), 'refused at the edge: 4 are too many, 1 left');
  assert.equal(await order(1, 3), 'refused at the edge: an order is for 1 to 6 seats');
  assert.equal(await order(2, 1), 'stored; 11 left, byte for byte as predicted');
  await page.waitForFunction(() => [...document.querySelectorAll('section b')].map((left) => left.textContent).join() === '36,11,1');
  await picture(page, 'edge');
  // Two at once for the last seats: the second one thinks again, and is refused.
  const both = await Promise.all([1, 2].map(() => page.evaluate(async () => (await fetch('/orders', {
    method: 'POST', body: JSON.stringify({ show: 'jazz', seats: 1, by: 'two' }),
  })).status)));
  assert.deepEqual(both.sort(), [200, 409]);
  assert.deepEqual(page.errors, []);
  await page.close();
});
