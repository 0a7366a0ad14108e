// A server that means harm, or is broken: nothing it says throws in the page, grows without bound or makes the client storm it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeServer, event, snapshot } from './fake_server.mjs';
import { realClient } from './kit.mjs';
import { until, within } from './waiting.mjs';

const answerJoins = (connection, message) => { if (message.type === 'join') connection.send(snapshot(message, [{ id: 'a', seq: 1, data: { n: 1 } }], { seq: 1 })); };

async function serve(t, on = answerJoins) {
  const server = await FakeServer.start({ on });
  t.after(() => server.stop());
  return server;
}

/** A live group of a client whose every uncaught error fails the test. */
async function liveGroup(t, server, options = {}) {
  const client = realClient(t, server.url, { backoff: { firstMs: 1, maxMs: 5 }, ...options });
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  return { client, group };
}

const nested = (depth) => '['.repeat(depth) + ']'.repeat(depth);
const WRONG = ['null', 'true', '-1', '1.5', '1e400', '9007199254740993', '18446744073709551616', '-9223372036854775809', '""', '"x"', '"\\ud800"', '[]', '[null]', '{}', '{"__proto__":1}', nested(5_000), `"${'x'.repeat(100_000)}"`];

/** Good frames of every kind; each member of each is replaced by everything that is wrong. */
const FRAMES = [
  snapshot({ data: { streamName: 's', groupId: 'g', subscriptionId: 's1' } }, [{ id: 'b', seq: 2, data: 1 }], { seq: 2, mutations: [{ tag: 'x', seq: 1 }] }),
  event('s', 'g', 'a', 3, { type: 'update', data: { n: 2 } }, { mutation: { tag: 't', seq: 1 }, subscriptionId: 's1' }),
  event('s', 'g', 'a', 4, { type: 'update', base: 3, ops: [{ type: 'increment', path: 'n', by: 1 }] }),
  event('s', 'g', 'a', 5, { type: 'delete', data: null }),
  event('s', 'g', 'c', 6, { type: 'create', data: [1] }),
  event('s', 'g', null, 7, { type: 'event', event: { type: 'hello', data: {} } }),
  { type: 'stream', timestamp: 1, streamName: 's', groupId: 'g', id: null, subscriptionId: 's1', epoch: 'e1', seq: 8, event: { type: 'sync', mode: 'resume' } },
  { type: 'stream', timestamp: 1, streamName: 's', groupId: 'g', id: null, subscriptionId: 's1', event: { type: 'unauthorized' } },
  { type: 'stream', timestamp: 1, streamName: 's', groupId: 'g', id: null, event: { type: 'sync', data: [{ id: 'a' }] } },
  { type: 'error', subscriptionId: 's1', code: 'x', message: 'y' },
  { type: 'result', id: '1', result: { seq: 4, errors: [{ op_index: 0, code: 'c', message: 'm' }] } },
  { type: 'result', id: '2', result: { duplicate: true, seq: 4, at: 3 } },
  { type: 'result', id: '3', error: { code: 'precondition_failed', message: 'm', seq: 1, expected: 1, storage: 'full' } },
];

/** Texts of `frame` with the value of one member, at any depth, replaced by `text`. */
function* spoilt(frame, text) {
  const paths = [];
  const walk = (value, path) => {
    if (typeof value !== 'object' || value === null) return;
    for (const key of Object.keys(value)) { paths.push([...path, key]); walk(value[key], [...path, key]); }
  };
  walk(frame, []);
  for (const path of paths) {
    const copy = structuredClone(frame);
    const holder = path.slice(0, -1).reduce((value, key) => value[key], copy);
    holder[path.at(-1)] = '@@';
    yield JSON.stringify(copy).replace('"@@"', () => text);
  }
}

/** A socket in this process: what the server says is read before `say` returns, and what that throws is thrown here. */
class Socket {
  static last;
  /** The answer to a call, as text. */
  static answer = ({ id }) => JSON.stringify({ type: 'result', id, result: { seq: 2 } });
  readyState = 1;

  constructor() {
    Socket.last = this;
    queueMicrotask(() => this.onopen?.({}));
  }

  say(text) {
    this.onmessage?.({ data: text });
  }

  send(text) {
    const message = JSON.parse(text);
    if (message.type === 'leave') return;
    const connection = { send: (frame) => this.say(JSON.stringify(frame)) };
    queueMicrotask(() => (message.type === 'join' ? answerJoins(connection, message) : this.say(Socket.answer(message))));
  }

  close() {
    this.readyState = 3;
  }
}

async function liveAtSocket(t) {
  const client = realClient(t, 'ws://nowhere', { WebSocket: Socket, backoff: { firstMs: 0, maxMs: 0 }, schedule: queueMicrotask });
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  return { client, group };
}

/** That the page goes on: a new connection shows what the server has, and nothing was thrown into nowhere. */
async function goesOn(client, group) {
  if (client.status.state === 'open') Socket.last.onclose({ code: 1001 });
  await until(group, () => group.status === 'live', 'live again');
  assert.equal(group.get('a').seq, 1);
  assert.deepEqual(client.errors.filter(({ code }) => code !== 'protocol_error' && code !== 'x'), []);
}

for (const [at, frame] of FRAMES.entries()) {
  test(`${frame.event?.type ?? frame.type} ${at}, each of its members with everything that is wrong: nothing throws, and the page goes on`, async (t) => {
    const { client, group } = await liveAtSocket(t);
    let count = 0;
    for (const wrong of WRONG) {
      for (const text of spoilt(frame, wrong)) {
        if (client.status.state !== 'open') await until(client, () => client.status.state === 'open', 'open');
        if (count % 7 === 0) group.update('a', [{ type: 'increment', path: 'n', by: 1 }]);
        Socket.last.say(text);
        assert.ok(Array.isArray(group.items));
        count += 1;
      }
    }
    // What errors say to people stays short, whatever the server wrote.
    assert.ok(client.errors.every(({ code, message }) => code === 'x' || message.length < 1_000));
    await goesOn(client, group);
  });
}

const ANSWERS = [
  { result: { seq: 4, errors: [{ op_index: 0, code: 'c', message: 'm' }] } },
  { result: { duplicate: true, seq: 4, at: 3 } },
  { result: { seq: null, errors: [{ op_index: 0, code: 'c', message: 'm' }] } },
  ...['forbidden', 'precondition_failed', 'mutation_gap', 'mutation_unknown'].map((code) => ({ error: { code, message: 'm', seq: 1, expected: 1, storage: 'full' } })),
];

for (const [at, body] of ANSWERS.entries()) {
  test(`answer ${at}, each of its members with everything that is wrong: every edit and call is settled`, async (t) => {
    const { client, group } = await liveAtSocket(t);
    const good = Socket.answer;
    t.after(() => { Socket.answer = good; });
    let made = 0;
    for (const wrong of WRONG) {
      for (const text of spoilt(body, wrong)) {
        let answers = 1;
        // One answer is spoilt; what comes of that is answered well.
        Socket.answer = (call) => ((answers -= 1) >= 0 ? `{"type":"result","id":"${call.id}",${text.slice(1)}` : good(call));
        await within(group.update('a', [{ type: 'increment', path: 'n', by: 1 }], { atomic: made % 2 === 0 }).settled.catch(() => {}), `an edit, after ${text.slice(0, 200)}`, 2_000);
        answers = 1;
        await within(client.call('stream::get', {}).catch(() => {}), `a call, after ${text.slice(0, 200)}`, 2_000);
        made += 1;
      }
    }
    Socket.answer = good;
    await until(client, () => client.pending === 0, 'nothing pending');
    await goesOn(client, group);
  });
}

test('rejoin storms: a sync that is followed by what does not fit is asked for again after growing pauses only', async (t) => {
  const server = await serve(t, (connection, message) => {
    answerJoins(connection, message);
    // A delta on top of nothing that anybody holds.
    if (message.type === 'join') connection.send(event('s', 'g', 'a', 9, { type: 'update', base: 8, ops: [] }));
  });
  const client = realClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await server.until(() => server.last?.of('join').length === 2, 'the one that is immediate');
  await new Promise((resolve) => { setTimeout(resolve, 400); });
  assert.ok(server.last.of('join').length <= 6, `${server.last.of('join').length} joins`);
  assert.equal(server.connections.length, 1);
  assert.deepEqual([group.status, group.get('a').value.n], ['stale', 1]);
  await client.close();
});

test('pages without end: the view keeps loading with what has come, edits go on, and closing ends it', async (t) => {
  let pages = 0;
  const server = await serve(t, (connection, message) => {
    if (message.type === 'call') connection.send({ type: 'result', id: message.id, result: { seq: 1 } });
    if (message.type !== 'join') return;
    const page = () => {
      if (connection.isClosed || pages >= 300) return;
      pages += 1;
      const frame = snapshot(message, Array.from({ length: 10 }, (_, n) => ({ id: `p${pages}-${n}`, seq: 1, data: n })), { seq: 1 });
      frame.event.more = true;
      connection.send(frame);
      setImmediate(page);
    };
    page();
  });
  const client = realClient(t, server.url);
  const group = client.group('s', 'g');
  group.subscribe(() => {});
  await within(group.set('mine', 1).settled, 'an edit meanwhile', 20_000);
  await until(group, () => group.items.length >= 1_000, 'a thousand items');
  assert.equal(group.status, 'loading');
  assert.equal(client.errors.length, 0);
  await client.close();
  assert.deepEqual([group.status, group.items.length], ['idle', 0]);
});

test('answers and syncs that nobody asked for, twice, or of another life', async (t) => {
  const server = await serve(t, (connection, message) => {
    answerJoins(connection, message);
    if (message.type !== 'call') return;
    for (const result of [{ seq: 2 }, { seq: 3 }]) connection.send({ type: 'result', id: message.id, result });
    connection.send({ type: 'result', id: message.id, error: { code: 'forbidden', message: 'after all' } });
  });
  const { client, group } = await liveGroup(t, server);
  // Before any call is made: those to come have these numbers.
  for (let id = 0; id < 10; id += 1) server.last.send({ type: 'result', id: String(id), error: { code: 'forbidden', message: 'early' } });
  server.last.send(snapshot({ data: { streamName: 's', groupId: 'g', subscriptionId: 's99' } }, [], { seq: 9 }));
  server.last.send(snapshot({ data: { streamName: 's', groupId: 'other', subscriptionId: 's1' } }, [], { seq: 9 }));
  server.last.send(event('s', 'g', 'a', 0, { type: 'delete', data: null }));
  server.last.send(event('s', 'g', 'b', 2, { type: 'create', data: 1 }));
  await until(group, () => group.items.length === 2, 'the item behind it all');
  assert.deepEqual((await within(group.set('a', 1).settled, 'an edit')).seq, 2);
  assert.deepEqual(await within(client.call('stream::get'), 'a call'), { seq: 2 });
  assert.deepEqual([client.rejections.length, client.errors.length, client.pending], [0, 0, 0]);
});

test('another epoch in the middle: events of it are not mixed in', async (t) => {
  const server = await serve(t);
  const { group } = await liveGroup(t, server);
  server.last.send(event('s', 'g', 'z', 1, { type: 'create', data: 'of another life' }, { epoch: 'e2' }));
  server.last.send(snapshot({ data: { streamName: 's', groupId: 'g', subscriptionId: 's1' } }, [{ id: 'q', seq: 1, data: 'new' }], { seq: 1, epoch: 'e2' }));
  await until(group, () => group.get('q') !== undefined, 'what the other epoch has');
  assert.deepEqual(group.items.map(({ id }) => id), ['q']);
});

test('a server that answers every sign of life with the end of it is not stormed', async (t) => {
  const server = await serve(t, (connection, message) => { if (message.type === 'join') connection.send('{"type":"stream"'); });
  const client = realClient(t, server.url, { backoff: { firstMs: 50, maxMs: 30_000 } });
  client.group('s', 'g').subscribe(() => {});
  await server.until(() => server.connections.length === 3, 'three attempts');
  const { attempt } = client.status;
  assert.ok(attempt >= 2 || client.status.state === 'open', `attempt ${attempt}`);
  await new Promise((resolve) => { setTimeout(resolve, 300); });
  assert.ok(server.connections.length < 15, `${server.connections.length} connections`);
});
