// Broken, hostile and huge input: answered or closed as documented, and never felt by anybody else.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { after, afterEach, before, test } from 'node:test';
import { deferred, startServer, unique } from './harness.mjs';

const MIB = 1024 * 1024;
let server;
let pid;
let neighbour;
let listener;

before(async () => {
  server = await startServer({ stream: { handshake_timeout_ms: 700 }, manager: { handshake_timeout_ms: 700 } });
  pid = server.pid;
  neighbour = await server.peer();
  listener = await server.subscriber();
  await listener.join('bad-input', 'neighbours');
});
after(() => server?.stop());

// After every test: the same process, and connections made before it still work in both directions.
let writes = 0;
afterEach(async () => {
  assert.ok(server.alive && server.pid === pid, `the server is alive${server.alive ? '' : server.report()}`);
  writes += 1;
  const { new_value } = await neighbour.result('stream::set', { stream_name: 'bad-input', group_id: 'neighbours', item_id: 'i', data: writes });
  assert.equal(new_value, writes);
  const event = await listener.next('the neighbour\'s event');
  assert.equal(event.event.data, writes);
});

/** Raw TCP to one of the ports; `closed` resolves with everything that was received when the server closes. */
async function tcp(base, first) {
  const { hostname, port } = new URL(base);
  const socket = connect(Number(port), hostname);
  const closed = deferred();
  const chunks = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.on('error', () => {}); // a reset is one way of being closed
  socket.on('close', () => closed.resolve(Buffer.concat(chunks)));
  const connected = deferred();
  socket.on('connect', connected.resolve);
  await server.within(connected.promise, 'a TCP connection');
  socket.write(first);
  return { socket, received: chunks, closed: (what) => server.within(closed.promise, `the server to close ${what}`) };
}

const UPGRADE = (path) => `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n`;

/** A client frame whose header may promise more than its payload holds. */
function frame(opcode, payload, { length = payload.length, fin = true, masked = true } = {}) {
  const head = Buffer.alloc(10);
  head[0] = (fin ? 0x80 : 0) | opcode;
  head[1] = (masked ? 0x80 : 0) | 127;
  head.writeBigUInt64BE(BigInt(length), 2);
  // A mask of zeros leaves the payload readable here and is as valid as any other.
  return Buffer.concat([head, masked ? Buffer.alloc(4) : Buffer.alloc(0), payload]);
}

/** The code of the first close frame among the server's frames after its HTTP answer, or undefined. */
function closeCode(bytes) {
  let at = bytes.indexOf('\r\n\r\n') + 4;
  while (at + 2 <= bytes.length) {
    const [opcode, short] = [bytes[at] & 0x0f, bytes[at + 1] & 0x7f];
    const [length, header] = short === 126 ? [bytes.readUInt16BE(at + 2), 4] : short === 127 ? [Number(bytes.readBigUInt64BE(at + 2)), 10] : [short, 2];
    if (opcode === 8) return bytes.readUInt16BE(at + header);
    at += header + length;
  }
  return undefined;
}

const BOTH = [['worker', () => server.workers], ['subscriber', () => server.subscribers]];

test('thousands of frames of junk on one connection', async () => {
  const [worker, subscriber] = [await server.peer(), await server.subscriber()];
  for (let n = 0; n < 2_000; n += 1) {
    for (const socket of [worker, subscriber]) socket.send(['{', 'x', '{"type":"invokefunction"}', '{"type":"join","data":[]}', '\0'][n % 5]);
  }
  assert.ok(await worker.result('stream::list_all', {}));
  assert.equal((await subscriber.join('bad-input', unique('g'))).event.type, 'sync');
  assert.deepEqual([worker.frames, subscriber.frames], [[], []]);
});

test('wrong types and missing fields in a call are answered, whatever field it is', async () => {
  const peer = await server.peer();
  const good = { type: 'invokefunction', function_id: 'stream::list_all', data: {} };
  for (const [field, value] of [['function_id', 7], ['function_id', null], ['function_id', undefined], ['action', 'void'], ['action', { type: 'x' }],
    ['action', {}], ['action', []], ['namespace', 7], ['traceparent', 7], ['baggage', []]]) {
    const id = randomUUID();
    peer.send({ ...good, invocation_id: id, [field]: value });
    const answer = await peer.take((f) => f.invocation_id === id, `an answer to ${field}: ${JSON.stringify(value)}`);
    assert.ok(answer.error === undefined || answer.error.code === 'deserialization_error', answer.text);
    if (['function_id', 'action'].includes(field)) assert.ok(answer.error, `${field}: ${JSON.stringify(value)} cannot be carried out`);
  }
  for (const id of [7, {}, 'not-a-uuid', '']) peer.send({ ...good, invocation_id: id });
  assert.ok(await peer.result('stream::list_all', {}));
});

test('1,000 levels of nesting are answered with an error', async () => {
  const peer = await server.peer();
  const deep = (levels) => '['.repeat(levels) + ']'.repeat(levels);
  const at = JSON.stringify({ stream_name: 'bad-input', group_id: 'deep', item_id: 'i' }).slice(0, -1);
  for (const levels of [1_000, 100_000]) {
    const answer = await peer.callText('stream::set', `${at},"data":${deep(levels)}}`);
    assert.equal(answer.error?.code, 'deserialization_error', `${levels}: ${answer.text.slice(0, 200)}`);
  }
  const objects = await peer.callText('stream::set', `${at},"data":${'{"a":'.repeat(1_000)}1${'}'.repeat(1_000)}}`);
  assert.equal(objects.error?.code, 'deserialization_error');
  assert.ok(!('result' in await peer.call('stream::get', { stream_name: 'bad-input', group_id: 'deep', item_id: 'i' })));
  const fine = await peer.callText('stream::set', `${at},"data":${deep(120)}}`);
  assert.ok(fine.result, 'what the iii engine takes is taken here');
});

test('what is nearly JSON is answered with an error, not with silence', async () => {
  const peer = await server.peer();
  const at = JSON.stringify({ stream_name: 'bad-input', group_id: 'odd', item_id: 'i' }).slice(0, -1);
  for (const data of ['1e999', '-1e999', '"\\ud800"', 'NaN', 'Infinity', '01', '"\n"', '{"a":1,}', "'x'"]) {
    const answer = await peer.callText('stream::set', `${at},"data":${data}}`);
    assert.equal(answer.error?.code, 'deserialization_error', `${data}: ${answer.text}`);
  }
});

test('duplicate keys: the last one wins', async () => {
  const peer = await server.peer();
  const answer = await peer.callText('stream::set', '{"stream_name":"bad-input","group_id":"dup","item_id":"i","data":{"a":1,"a":2}}');
  assert.deepEqual(answer.result.new_value, { a: 2 });
});

test('20 MiB in one message and in fragments is accepted and comes back whole', async () => {
  const peer = await server.peer();
  const at = { stream_name: 'bad-input', group_id: 'large', item_id: 'i' };
  const data = 'é'.repeat(10 * MIB);
  await peer.result('stream::set', { ...at, data, returning: 'none' });
  assert.equal(await peer.result('stream::get', at), data);
  const id = randomUUID();
  const bytes = Buffer.from(JSON.stringify({ type: 'invokefunction', invocation_id: id, function_id: 'stream::set', data: { ...at, data: `x${data}`, returning: 'none' } }));
  for (let i = 0; i < bytes.length; i += MIB) peer.send(bytes.subarray(i, i + MIB), { binary: false, fin: i + MIB >= bytes.length });
  await peer.take((f) => f.invocation_id === id, 'the answer to the fragments');
  assert.equal(await peer.result('stream::get', at), `x${data}`);
  await peer.result('stream::delete', { ...at, returning: 'none' });
});

test('65 MiB are refused with 1009, by their announcement alone', async () => {
  const raw = await tcp(server.workers, Buffer.concat([Buffer.from(UPGRADE('/')), frame(1, Buffer.from('{"type":'), { length: 65 * MIB })]));
  assert.equal(closeCode(await raw.closed('a 65 MiB message')), 1009);
});

test('65 MiB in fragments are refused with 1009', async () => {
  const peer = await server.peer();
  const mebibyte = Buffer.alloc(MIB, 0x20);
  // One mebibyte after the other, so that the refusal can arrive while something is left to send.
  for (let n = 0; n < 66 && peer.ws.readyState === peer.ws.OPEN; n += 1) {
    const sent = deferred();
    peer.ws.send(mebibyte, { binary: false, fin: n === 65 }, () => sent.resolve());
    await server.within(sent.promise, 'a fragment to be taken');
  }
  assert.equal((await server.within(peer.closed, 'the refusal')).code, 1009);
});

test('65 MiB sent at once by an ordinary client are refused with 1009', async () => {
  const peer = await server.peer();
  peer.send(Buffer.alloc(65 * MIB, 0x20), { binary: false });
  assert.equal((await server.within(peer.closed, 'the refusal')).code, 1009);
});

test('a subscriber may not send more than 1 MiB', async () => {
  const subscriber = await server.subscriber();
  subscriber.send(`{"type":"join","pad":"${'x'.repeat(MIB)}"}`);
  assert.equal((await server.within(subscriber.closed, 'the refusal')).code, 1009);
});

for (const [port, base] of BOTH) {
  test(`${port} port: half an upgrade request is closed in time`, async () => {
    const begin = Date.now();
    for (const half of ['', 'GET / HT', UPGRADE('/').slice(0, -2), 'GET /']) {
      const raw = await tcp(base(), half);
      await raw.closed(`half a request (${JSON.stringify(half)})`);
    }
    assert.ok(Date.now() - begin < 10_000, `${Date.now() - begin} ms for four of them`);
  });

  test(`${port} port: what is no HTTP is closed`, async () => {
    for (const junk of ['\x16\x03\x01\x02\x00\x01\x00', 'nonsense\r\n\r\n', '\0'.repeat(100), `GET / HTTP/1.1\r\n${'X: y\r\n'.repeat(20_000)}`, `GET /${'a'.repeat(200_000)} HTTP/1.1\r\n\r\n`]) {
      const raw = await tcp(base(), junk);
      await raw.closed('junk');
    }
  });

  test(`${port} port: a plain GET is answered by HTTP`, async () => {
    const response = await fetch(`${base().replace('ws:', 'http:')}/`);
    assert.ok([200, 400, 404, 426].includes(response.status), `${response.status}`);
  });

  test(`${port} port: invalid UTF-8 in a text message closes with 1007`, async () => {
    const socket = await server.socket(base(), '/');
    socket.send(Buffer.from([0x22, 0xff, 0xfe, 0x22]), { binary: false });
    assert.equal((await server.within(socket.closed, 'the refusal')).code, 1007);
  });

  test(`${port} port: a text message may be split inside a code point`, async () => {
    const socket = await server.socket(base(), '/');
    const bytes = Buffer.from('{"type":"nothing","text":"🦀"}');
    const cut = bytes.indexOf(0xf0) + 2;
    socket.send(bytes.subarray(0, cut), { binary: false, fin: false });
    assert.equal(await socket.ping('between'), 'between');
    socket.send(bytes.subarray(cut), { binary: false, fin: true });
    assert.equal(await socket.ping('after'), 'after');
  });

  test(`${port} port: a text message that ends inside a code point closes with 1007`, async () => {
    const socket = await server.socket(base(), '/');
    socket.send(Buffer.from([0x22, 0xf0, 0x9f]), { binary: false, fin: false });
    socket.send(Buffer.from([0x22]), { binary: false, fin: true });
    assert.equal((await server.within(socket.closed, 'the refusal')).code, 1007);
  });

  for (const [what, bytes] of [
    ['an unmasked frame', frame(1, Buffer.from('{}'), { masked: false })],
    ['a reserved opcode', frame(3, Buffer.from('{}'))],
    ['a reserved bit', Buffer.from([0xc1, 0x80, 0, 0, 0, 0])],
    ['a continuation of nothing', frame(0, Buffer.from('{}'))],
    ['a fragmented ping', frame(9, Buffer.from(''), { fin: false })],
    ['a text frame inside a fragmented one', Buffer.concat([frame(1, Buffer.from('{'), { fin: false }), frame(1, Buffer.from('}'))])],
    ['a ping of 126 bytes', frame(9, Buffer.alloc(126))],
    ['a close frame with one byte', Buffer.from([0x88, 0x81, 0, 0, 0, 0, 3])],
  ]) {
    test(`${port} port: ${what} is a protocol error`, async () => {
      const raw = await tcp(base(), Buffer.concat([Buffer.from(UPGRADE('/')), bytes]));
      assert.equal(closeCode(await raw.closed(what)), 1002);
    });
  }

  test(`${port} port: 200 connections that break off at once`, async () => {
    const sockets = await Promise.all(Array.from({ length: 200 }, () => tcp(base(), UPGRADE('/'))));
    for (const { socket } of sockets) socket.resetAndDestroy();
    const again = await server.socket(base(), '/');
    assert.equal(await again.ping('alive'), 'alive');
  });
}
