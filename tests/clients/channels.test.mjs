// Channels between two workers: bytes and text go from writer to reader unchanged, each end is taken once (worker-protocol.md §13).
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { createChannel } from 'iii-sdk/helpers';
import { settled, startServer, unique } from './harness.mjs';

let server;
before(async () => { server = await startServer(); });
after(() => server?.stop());

const address = ({ channel_id, access_key, direction }) => `${server.workers}/ws/channels/${channel_id}?key=${access_key}&dir=${direction}`;

/** Opens an end by hand; `messages` fill up, `closed` resolves with the close code. */
async function open(reference) {
  const ws = new WebSocket(address(reference));
  const messages = [];
  ws.on('message', (data, isBinary) => messages.push(isBinary ? data : data.toString()));
  const closed = once(ws, 'close').then(([code]) => code);
  await server.within(once(ws, 'open'), 'the channel to open');
  return { ws, messages, closed: server.within(closed, 'the channel to end') };
}

async function refusal(url) {
  const ws = new WebSocket(url);
  ws.on('error', () => {});
  const [, response] = await server.within(once(ws, 'unexpected-response'), 'a refusal');
  response.resume();
  return response.statusCode;
}

test('a megabyte and text go through iii-sdk, from one worker to another', async () => {
  const [from, to] = [server.sdk(), server.sdk()];
  const fn = unique('take::all');
  const texts = [];
  to.registerFunction(fn, async ({ reader }) => {
    reader.onMessage((text) => texts.push(text));
    let size = 0;
    for await (const chunk of reader.stream) size += chunk.length;
    return { size };
  });
  await settled(to);
  const { writer, readerRef } = await createChannel(from);
  const answer = from.trigger({ function_id: fn, payload: { reader: readerRef } });
  writer.sendMessage('first');
  writer.stream.end(Buffer.alloc(1024 * 1024, 7));
  assert.deepEqual(await server.within(answer, 'the reader'), { size: 1024 * 1024 });
  assert.deepEqual(texts, ['first']);
});

test('frames arrive unchanged and in order, and the end follows the last one', async () => {
  const peer = await server.peer();
  const { writer, reader } = await peer.result('engine::channels::create', { buffer_size: 2 });
  const write = await open(writer);
  const sent = [];
  for (let n = 0; n < 200; n += 1) {
    const message = n % 2 ? `text ${n} é😀` : Buffer.from([n, 0, 255]);
    sent.push(message);
    write.ws.send(message);
  }
  write.ws.close(1000);
  // The reader comes late: what was written waits for it, the rest waits in the writer's socket.
  const read = await open(reader);
  await read.closed;
  assert.deepEqual(read.messages, sent);
  assert.equal(await write.closed, 1000);
});

test('each end is taken once, by whoever has the key', async () => {
  const peer = await server.peer();
  const { reader, writer } = await peer.result('engine::channels::create', null);
  assert.equal(await refusal(address({ ...reader, access_key: 'other' })), 404);
  assert.equal(await refusal(address({ ...reader, channel_id: 'other' })), 404);
  assert.equal(await refusal(`${server.workers}/ws/channels/${reader.channel_id}`), 400);
  const [first, second] = [await open(reader), await open(reader)];
  await second.closed;
  const write = await open(writer);
  write.ws.send('for the first');
  write.ws.close();
  await first.closed;
  assert.deepEqual([first.messages, second.messages], [['for the first'], []]);
});

test('a writer without a reader is told when the reader has gone', async () => {
  const peer = await server.peer();
  const { reader, writer } = await peer.result('engine::channels::create', {});
  const [read, write] = [await open(reader), await open(writer)];
  read.ws.terminate();
  const more = setInterval(() => write.ws.send('anybody?'), 20);
  try {
    await write.closed;
  } finally {
    clearInterval(more);
  }
});
