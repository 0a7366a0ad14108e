// Answers what is asked in the stream ai/answers, a word at a time, as a language model would; and serves the page.
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { registerWorker } from 'iii-sdk';

const { III_URL = 'ws://127.0.0.1:49134', STREAM_URL = 'ws://127.0.0.1:3112', PORT = '8083', WORDS = '700', PAUSE_MS = '12' } = process.env;
const answers = { stream_name: 'ai', group_id: 'answers' };

const iii = registerWorker(III_URL, { workerName: 'ai', otel: { enabled: false }, enableMetricsReporting: false });

// Called after every change of the group; a new question is an item without an answer.
iii.registerFunction('ai::answer', async ({ id, event }) => {
  if (event.type !== 'create') return {};
  void answer(id, event.data.question).catch((error) => console.error(error.message));
  return {};
});
iii.registerTrigger({ type: 'stream', function_id: 'ai::answer', config: answers });

async function answer(item_id, question) {
  const update = (ops) => iii.trigger({ function_id: 'stream::update', payload: { ...answers, item_id, ops } });
  for (const word of words(question)) {
    // Who watches with deltas is told these few bytes, however long the answer has become.
    await update([{ type: 'append', path: 'text', value: word }]);
    await pause(Number(PAUSE_MS));
  }
  await update([{ type: 'set', path: 'done', value: true }]);
}

/** Stands for a model: it talks at length, and ends where it is told to. */
function* words(question) {
  yield `You asked: “${question.trim()}” `;
  const text = readFileSync(new URL('answer.txt', import.meta.url), 'utf8').trim().split(/\s+/);
  for (let n = 0; n < Number(WORDS); n += 1) yield `${text[n % text.length]} `;
}

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.wasm': 'application/wasm' };
// The package needs no bundler: its modules are served as they are.
const modules = new URL('node_modules/iii-stream/dist/esm/', import.meta.url);
const page = readFileSync(new URL('index.html', import.meta.url), 'utf8').replace('ws://127.0.0.1:3112', STREAM_URL);

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  const type = TYPES[extname(pathname === '/' ? '/index.html' : pathname)];
  if (pathname === '/') return response.setHeader('content-type', type).end(page);
  const file = new URL(pathname.replace(/^\/iii-stream\//, ''), modules);
  const isServed = pathname.startsWith('/iii-stream/') && file.href.startsWith(modules.href) && type !== undefined && existsSync(file);
  if (!isServed) return response.writeHead(404).end();
  response.setHeader('content-type', type).end(readFileSync(file));
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`ai  http://127.0.0.1:${server.address().port}`));
