// What a page pays for an answer that arrives word by word: 5,000 appends to one item, told by operations and by whole values.
// Prints a table: time of the page's main thread in per cent of one core, and bytes received. Run by `make bench`.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { startServer } from './harness.mjs';
import { startSite } from './site.mjs';

process.env.III_STREAM_BIN ??= fileURLToPath(new URL('../../target/release/iii-stream', import.meta.url));
process.env.RUST_LOG ??= 'error';
const APPENDS = Number(process.env.APPENDS ?? 5_000);
const PER_SECOND = Number(process.env.PER_SECOND ?? 250);
const WORD = 'token ';
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'];

const site = await startSite();
const server = await startServer();
const sdk = server.sdk();
const folder = await mkdtemp(join(tmpdir(), 'iii-stream-tokens-'));
const context = await chromium.launchPersistentContext(folder, { executablePath, args: FLAGS });

/** One answer to one page. */
async function run(name, deltas) {
  const group = `answers-${name}`;
  const page = await context.newPage();
  await page.goto(site.url);
  await page.evaluate(async ([url, groupId, wantsDeltas]) => {
    const { StreamClient } = await import('/iii-stream/index.js');
    window.received = 0;
    class CountingSocket extends WebSocket {
      constructor(...args) {
        super(...args);
        this.addEventListener('message', ({ data }) => { window.received += data.length; });
      }
    }
    const client = new StreamClient(url, { deltas: wantsDeltas, WebSocket: CountingSocket });
    window.group = client.group('ai', groupId);
    // In paragraphs, as an answer is: the browser lays out again only the last one.
    const PARAGRAPH = 600;
    let last = document.body.appendChild(document.createElement('p')).appendChild(document.createTextNode(''));
    window.shown = 0;
    window.group.subscribe(() => {
      const text = window.group.items[0]?.value.text ?? '';
      while (window.shown < text.length) {
        if (last.length === PARAGRAPH) last = document.body.appendChild(document.createElement('p')).appendChild(document.createTextNode(''));
        const part = text.slice(window.shown, window.shown + PARAGRAPH - last.length);
        last.appendData(part);
        window.shown += part.length;
      }
    });
  }, [server.subscribers, group, deltas]);
  await page.waitForFunction(() => window.group.status === 'live');
  const call = (function_id, payload) => sdk.trigger({ function_id, payload: { stream_name: 'ai', group_id: group, item_id: 'a', ...payload } });
  await call('stream::set', { data: { text: '' } });

  const session = await context.newCDPSession(page);
  await session.send('Performance.enable', { timeDomain: 'timeTicks' });
  const seconds = async () => {
    const { metrics } = await session.send('Performance.getMetrics');
    return ['TaskDuration', 'ScriptDuration'].map((wanted) => metrics.find(({ name: metric }) => metric === wanted).value);
  };
  const [before, from] = [await seconds(), performance.now()];
  const pending = [];
  for (let n = 0; n < APPENDS; n += 1) {
    pending.push(call('stream::update', { ops: [{ type: 'append', path: 'text', value: WORD }] }));
    const aheadMs = from + ((n + 1) * 1_000) / PER_SECOND - performance.now();
    if (0 < aheadMs) await pause(aheadMs);
  }
  await Promise.all(pending);
  await page.waitForFunction((length) => window.shown === length, APPENDS * WORD.length);
  const [after, wall] = [await seconds(), (performance.now() - from) / 1_000];
  const [task, script] = after.map((value, n) => value - before[n]);
  const received = await page.evaluate(() => window.received);
  await page.close();
  return { core: (100 * task) / wall, script: (100 * script) / wall, ms: (1_000 * task) / APPENDS, received, wall };
}

console.log(`| ${APPENDS} appends of ${WORD.length} B, ${PER_SECOND}/s | of one core | of it script | per append | received |\n|---|---|---|---|---|`);
for (const [name, deltas] of [['operations', true], ['whole values', false]]) {
  const { core, script, ms, received, wall } = await run(name.replace(' ', '-'), deltas);
  console.log(`| ${name} (${wall.toFixed(1)} s) | ${core.toFixed(1)} % | ${script.toFixed(1)} % | ${ms.toFixed(3)} ms | ${(received / 1_000).toLocaleString('en', { maximumFractionDigits: 0 })} kB |`);
}
await context.close();
await site.stop();
await server.stop();
await rm(folder, { recursive: true, force: true });
