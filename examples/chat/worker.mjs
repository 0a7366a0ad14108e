// A chat room: serves the page, stores what is posted in the stream chat/lobby, and answers /time there as a bot.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { registerWorker } from 'iii-sdk';

const { III_URL = 'ws://127.0.0.1:49134', STREAM_URL = 'ws://127.0.0.1:3112', PORT = '8080' } = process.env;
const page = readFileSync(new URL('index.html', import.meta.url), 'utf8').replace('ws://127.0.0.1:3112', STREAM_URL);
const lobby = { stream_name: 'chat', group_id: 'lobby' };

const iii = registerWorker(III_URL, { workerName: 'chat', otel: { enabled: false }, enableMetricsReporting: false });
const say = (from, text) => {
  const id = randomUUID();
  const data = { id, from, text, at: Date.now() };
  return iii.trigger({ function_id: 'stream::set', payload: { ...lobby, item_id: id, data } });
};

// The server calls this after every change of the lobby; a new "/time" makes the bot write a message of its own.
iii.registerFunction('chat::bot', async ({ event }) => {
  if (event.type === 'create' && event.data.text === '/time') await say('bot', `It is ${new Date().toLocaleTimeString()}.`);
  return {};
});
iii.registerTrigger({ type: 'stream', function_id: 'chat::bot', config: lobby });

const server = createServer(async (request, response) => {
  if (request.method !== 'POST') return response.setHeader('content-type', 'text/html; charset=utf-8').end(page);
  try {
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) if ((body += chunk).length > 10_000) throw new Error('too long');
    const { from, text } = JSON.parse(body);
    // Everybody in the room sees events at once; they are not stored.
    if (text === undefined) await iii.trigger({ function_id: 'stream::send', payload: { ...lobby, type: 'typing', data: { from } } });
    else await say(String(from).slice(0, 40), String(text));
    response.end();
  } catch (error) {
    response.writeHead(400).end(error.message);
  }
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`chat  http://127.0.0.1:${server.address().port}`));
