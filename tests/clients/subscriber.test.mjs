// The subscriber port: join, leave, sync and events, by plain WebSocket and by the published client (stream-socket.md, design §5).
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Record, rejection, startServer, unique, upgrade } from './harness.mjs';
import { sameJson, slice } from './lossless.mjs';

const STREAM = 'subscriber';
let server;
let peer;
const call = (verb, data) => peer.result(`stream::${verb}`, data);
const group = () => ({ stream_name: STREAM, group_id: unique('group') });
const set = (of, item_id, data) => call('set', { ...of, item_id, data });
const increment = (of, item_id) => call('update', { ...of, item_id, ops: [{ type: 'increment', path: 'n', by: 1 }] });

before(async () => {
  server = await startServer();
  peer = await server.peer();
});
after(() => server?.stop());

/** The next frame must be the marker event: so nothing else was sent. */
async function nothingElse(subscriber, of) {
  await call('send', { ...of, type: 'marker', data: null });
  const next = await subscriber.next('the marker');
  assert.equal(next.event.event?.type, 'marker', `unexpected: ${next.text}`);
}

test('a group join is answered with a sync of all values, in order of creation', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  const begin = Date.now();
  const empty = await subscriber.join(of.stream_name, of.group_id);
  assert.deepEqual(Object.keys(empty).sort(), ['epoch', 'event', 'groupId', 'id', 'seq', 'streamName', 'timestamp', 'type']);
  assert.deepEqual([empty.type, empty.streamName, empty.groupId, empty.id, empty.event], ['stream', STREAM, of.group_id, null, { type: 'sync', data: [] }]);
  assert.ok(Number.isInteger(empty.timestamp) && empty.timestamp >= begin && empty.timestamp < begin + 60_000, `${empty.timestamp}`);
  assert.equal(empty.binary, false);
  for (const id of ['c', 'a', 'b']) await set(of, id, { id, v: 1 });
  await set(of, 'c', { id: 'c', v: 2 });
  const late = await server.subscriber();
  const full = await late.join(of.stream_name, of.group_id);
  assert.deepEqual(full.event, { type: 'sync', data: [{ id: 'c', v: 2 }, { id: 'a', v: 1 }, { id: 'b', v: 1 }] });
  assert.match(full.epoch, /^[a-z0-9]+$/);
  assert.deepEqual([full.seq, full.epoch], [4, empty.epoch]);
});

test('an item join is answered with the value, or null when there is none', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  const none = await subscriber.join(of.stream_name, of.group_id, 'i');
  assert.deepEqual([none.id, none.event], ['i', { type: 'sync', data: null }]);
  await set(of, 'i', { id: 'i' });
  const late = await server.subscriber();
  assert.deepEqual((await late.join(of.stream_name, of.group_id, 'i')).event, { type: 'sync', data: { id: 'i' } });
});

test('id null joins the group', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  assert.deepEqual((await subscriber.join(of.stream_name, of.group_id, null)).event.data, []);
});

test('create, update and delete arrive in the shapes of the spec, with their seq', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  const sync = await subscriber.join(of.stream_name, of.group_id);
  await set(of, 'm', { id: 'm', text: 'hi' });
  await call('update', { ...of, item_id: 'm', ops: [{ type: 'set', path: 'text', value: 'ho' }] });
  await set(of, 'm', { id: 'm', text: 'ho' });
  await call('delete', { ...of, item_id: 'm' });
  await call('delete', { ...of, item_id: 'm' });
  await call('update', { ...of, item_id: 'm', ops: [] });
  const expected = [['create', { id: 'm', text: 'hi' }], ['update', { id: 'm', text: 'ho' }], ['update', { id: 'm', text: 'ho' }],
    ['delete', { id: 'm', text: 'ho' }], ['create', {}]];
  let last = sync;
  for (const [type, data] of expected) {
    const frame = await subscriber.next();
    const { timestamp, seq, ...rest } = frame;
    assert.deepEqual(rest, { type: 'stream', streamName: STREAM, groupId: of.group_id, id: 'm', event: { type, data } });
    assert.equal(seq, last.seq + 1);
    assert.ok(timestamp > last.timestamp);
    assert.equal(frame.binary, false);
    last = frame;
  }
  await nothingElse(subscriber, of);
});

test('an item subscriber sees its item only', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  await subscriber.join(of.stream_name, of.group_id, 'mine');
  await set(of, 'other', 1);
  await call('send', { ...of, type: 'x', data: 1 });
  await call('send', { ...of, type: 'x', data: 1, id: 'other' });
  await set({ ...of, group_id: unique('elsewhere') }, 'mine', 1);
  await set(of, 'mine', { n: 1 });
  assert.deepEqual((await subscriber.next()).event, { type: 'create', data: { n: 1 } });
  await call('send', { ...of, type: 'x', data: null, id: 'mine' });
  const sent = await subscriber.next();
  assert.deepEqual([sent.id, sent.event], ['mine', { type: 'event', event: { type: 'x', data: null } }]);
  assert.ok(Number.isInteger(sent.seq));
});

test('one frame per event and connection, however many subscriptions match', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  for (const id of [undefined, 'i', undefined, 'i']) await subscriber.join(of.stream_name, of.group_id, id);
  await set(of, 'i', { id: 'i' });
  await call('send', { ...of, type: 'to-item', data: 1, id: 'i' });
  await call('send', { ...of, type: 'to-group', data: 1 });
  assert.equal((await subscriber.next()).event.type, 'create');
  assert.equal((await subscriber.next()).event.event.type, 'to-item');
  assert.equal((await subscriber.next()).event.event.type, 'to-group');
  await nothingElse(subscriber, of);
});

test('leave ends a subscription; another one of the same socket goes on', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  const [whole, one] = [randomUUID(), randomUUID()];
  await subscriber.join(of.stream_name, of.group_id, undefined, whole);
  await subscriber.join(of.stream_name, of.group_id, 'i', one);
  subscriber.send({ type: 'leave', data: { subscriptionId: whole, streamName: STREAM, groupId: of.group_id } });
  // A join is answered after the leave sent before it.
  await subscriber.join(STREAM, unique('fence'));
  await set(of, 'other', 1);
  await set(of, 'i', 1);
  assert.equal((await subscriber.next()).id, 'i');
  subscriber.send({ type: 'leave', data: { subscriptionId: one, streamName: STREAM, groupId: of.group_id, id: 'i' } });
  const fence = group();
  await subscriber.join(fence.stream_name, fence.group_id);
  await set(of, 'i', 2);
  await nothingElse(subscriber, fence);
});

test('a subscriptionId used again replaces the earlier subscription', async () => {
  const [a, b] = [group(), group()];
  const subscriber = await server.subscriber();
  const id = randomUUID();
  await subscriber.join(a.stream_name, a.group_id, undefined, id);
  await subscriber.join(b.stream_name, b.group_id, undefined, id);
  await set(a, 'i', 1);
  await nothingElse(subscriber, b);
});

test('64-bit integers and the order of keys reach subscribers', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  await subscriber.join(of.stream_name, of.group_id);
  const data = '{"z":18446744073709551615,"a":-9223372036854775808,"f":1.0,"__proto__":1}';
  await peer.callText('stream::set', `${JSON.stringify({ ...of, item_id: 'i' }).slice(0, -1)},"data":${data}}`);
  const frame = await subscriber.next();
  assert.equal(slice(slice(frame.text, 'event'), 'data'), data);
  const late = await (await server.subscriber()).join(of.stream_name, of.group_id);
  assert.equal(slice(slice(late.text, 'event'), 'data'), `[${data}]`);
  assert.ok(sameJson(slice(slice(late.text, 'event'), 'data'), `[${data}]`));
});

for (const [path, streamName, groupId, id] of [
  ['/stream/paths/plain', 'paths', 'plain', null],
  ['/stream/paths/slash/', 'paths', 'slash', null],
  ['/stream/paths/with/item', 'paths', 'with', 'item'],
  ['/stream/pa%2Fths/gr%20oup/', 'pa/ths', 'gr oup', null],
  ['/stream/%F0%9F%A6%80/a%3Ab/%2E%2Ex', '🦀', 'a:b', '..x'],
  ['/stream/paths/plus+sign/?token=x&y=z', 'paths', 'plus+sign', null],
]) {
  test(`connecting to ${path} subscribes at once`, async () => {
    const of = { stream_name: streamName, group_id: groupId };
    await set(of, 'item', { id: 'item' });
    if (id) await set(of, id, { id });
    const subscriber = await server.subscriber(path);
    const sync = await subscriber.next();
    assert.deepEqual([sync.streamName, sync.groupId, sync.id], [streamName, groupId, id]);
    assert.deepEqual(sync.event, { type: 'sync', data: id ? { id } : [{ id: 'item' }] });
    await set(of, id ?? 'item', { id: 'changed' });
    assert.deepEqual((await subscriber.next()).event, { type: 'update', data: { id: 'changed' } });
    // join and leave work there as well
    await subscriber.join(streamName, unique('more'));
  });
}

test('a join for the group of the path sends each event still once', async () => {
  const of = group();
  const subscriber = await server.subscriber(`/stream/${of.stream_name}/${of.group_id}/`);
  await subscriber.sync(of.stream_name, of.group_id);
  await subscriber.join(of.stream_name, of.group_id);
  await call('send', { ...of, type: 'once', data: 1 });
  assert.equal((await subscriber.next()).event.event.type, 'once');
  await nothingElse(subscriber, of);
});

test('other paths are 404', async () => {
  for (const path of ['/other', '/stream', '/stream/', '/stream/only-a-stream', '/stream/a/b/c/d', '/otel']) {
    const error = await rejection(server.subscriber(path), path);
    assert.equal(error.status, 404, `${path}: ${error.message}`);
  }
  for (const path of ['/stream//b', '/stream/%FF/b', `/stream/${'x'.repeat(1_025)}/b`]) {
    const error = await rejection(server.subscriber(path), path);
    assert.ok([400, 404].includes(error.status), `${path.slice(0, 20)}: ${error.message}`);
  }
});

test('the sub-protocol Authorization is answered, a token never, none when none was asked for', async () => {
  const none = await server.subscriber();
  assert.ok(!('sec-websocket-protocol' in none.headers));
  for (const [protocols, answer] of [[['Authorization', 'to.ken-1'], 'Authorization'], [['chat', 'Authorization'], 'Authorization'], [['chat', 'other'], 'chat']]) {
    const subscriber = await server.subscriber('/', { protocols });
    assert.equal(subscriber.ws.protocol, answer);
    assert.equal(subscriber.headers['sec-websocket-protocol'], answer);
  }
  for (const [asked, answer] of [['Authorization, tok', 'Authorization'], ['Authorization,tok', 'Authorization'], ['authorization, tok', 'authorization']]) {
    const { status, headers } = await upgrade(server.subscribers, '/', { 'Sec-WebSocket-Protocol': asked });
    assert.deepEqual([status, headers['sec-websocket-protocol']], [101, answer], asked);
  }
});

test('a WebSocket ping is answered with its payload, a close with its code', async () => {
  const subscriber = await server.subscriber();
  assert.equal(await subscriber.ping('🦀'), '🦀');
  assert.equal((await subscriber.close(1000)).code, 1000);
  const other = await server.subscriber();
  assert.equal((await other.close(4123)).code, 4123);
});

test('what is no join or leave is ignored without an answer', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  const data = { subscriptionId: 's', streamName: STREAM, groupId: of.group_id };
  for (const junk of ['', ' ', 'not json', '[]', 'null', '7', '{}', { type: 'JOIN', data }, { type: 'subscribe', data }, { type: 'join' },
    { type: 'join', data: null }, { type: 'join', data: { ...data, subscriptionId: 7 } }, { type: 'join', data: { ...data, groupId: undefined } },
    { type: 'join', data: { ...data, streamName: {} } }, { type: 'join', data: { ...data, id: 7 } }, { type: 'leave', data: { subscriptionId: 'x' } },
    Buffer.from([1, 2, 0xff])]) subscriber.send(junk);
  assert.deepEqual((await subscriber.join(of.stream_name, of.group_id)).event.data, []);
  assert.deepEqual(subscriber.frames, []);
  await nothingElse(subscriber, of);
});

test('a join in a binary frame is understood, the answer is text', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  subscriber.send(Buffer.from(JSON.stringify({ type: 'join', data: { subscriptionId: 's', streamName: STREAM, groupId: of.group_id } })));
  assert.equal((await subscriber.sync(STREAM, of.group_id)).binary, false);
});

test('published client: group and item see sync, then events', async () => {
  const of = group();
  await set(of, 'b', { id: 'b', v: 1 });
  await set(of, 'a', { id: 'a', v: 1 });
  const client = await server.client();
  const view = client.subscribeGroup(of.stream_name, of.group_id);
  const one = client.subscribeItem(of.stream_name, of.group_id, 'a');
  const [views, ones] = [new Record(server), new Record(server)];
  view.addChangeListener((state) => views.push(state));
  one.addChangeListener((state) => ones.push(state));
  await views.until((list) => list.at(-1)?.length === 2, 'the sync of the group');
  assert.deepEqual(views.items.at(-1), [{ id: 'b', v: 1 }, { id: 'a', v: 1 }]);
  assert.deepEqual((await ones.count(1))[0], { id: 'a', v: 1 });
  await set(of, 'a', { id: 'a', v: 2 });
  await set(of, 'c', { id: 'c', v: 1 });
  await call('delete', { ...of, item_id: 'b' });
  await call('delete', { ...of, item_id: 'a' });
  await views.until((list) => list.at(-1).length === 1, 'the deletes');
  assert.deepEqual(view.getState(), [{ id: 'c', v: 1 }]);
  assert.deepEqual((await ones.count(3)).slice(1), [{ id: 'a', v: 2 }, null]);
});

test('published client: a custom event runs each handler once', async () => {
  const of = group();
  const client = await server.client();
  const [view, one] = [client.subscribeGroup(of.stream_name, of.group_id), client.subscribeItem(of.stream_name, of.group_id, 'i')];
  const heard = new Record(server);
  const synced = new Record(server);
  view.addChangeListener((state) => synced.push(state));
  one.addChangeListener((state) => synced.push(state));
  view.onEvent('typing', (data) => heard.push(['group', data]));
  one.onEvent('typing', (data) => heard.push(['item', data]));
  view.onEvent('last', (data) => heard.push(['last', data]));
  await synced.count(2);
  await call('send', { ...of, type: 'typing', data: { who: 'a' }, id: 'i' });
  await call('send', { ...of, type: 'typing', data: { who: 'b' } });
  await call('send', { ...of, type: 'last', data: null });
  await heard.until((list) => list.at(-1)?.[0] === 'last', 'the last event');
  assert.deepEqual(heard.items, [['item', { who: 'a' }], ['group', { who: 'a' }], ['group', { who: 'b' }], ['last', null]]);
});

test('published client: five quick updates leave it right, 40 times', async () => {
  const of = group();
  const client = await server.client();
  const view = client.subscribeGroup(of.stream_name, of.group_id);
  const heard = new Record(server);
  view.onEvent('round', (n) => heard.push(n));
  const wrong = [];
  for (let round = 0; round < 40; round += 1) {
    const id = `i${round}`;
    const one = client.subscribeItem(of.stream_name, of.group_id, id);
    const synced = new Record(server);
    one.addChangeListener((state) => synced.push(state));
    one.onEvent('round', () => synced.push('marker'));
    await Promise.all([1, 2, 3, 4, 5].map((v) => set(of, id, { id, v })));
    await synced.count(1);
    // The marker is the item's last event: whoever has seen it has been offered everything before it.
    await call('send', { ...of, type: 'round', data: round, id });
    await heard.until((list) => list.at(-1) === round, `the marker of round ${round}`);
    // The item's own sync may come after it: events reach a connection that is not looked at otherwise.
    await synced.until((list) => list.includes('marker'), `the item's marker of round ${round}`);
    const shown = [view.getState().find((item) => item.id === id)?.v, one.getState()?.v];
    if (shown[0] !== 5 || shown[1] !== 5) wrong.push([round, ...shown]);
  }
  assert.deepEqual(wrong, [], 'rounds whose group or item view is not 5');
});

test('published client: after a lost connection it joins again and is right', async () => {
  const of = group();
  const client = await server.client();
  const view = client.subscribeGroup(of.stream_name, of.group_id);
  const states = new Record(server);
  view.addChangeListener((state) => states.push(state));
  await states.count(1);
  await set(of, 'a', { id: 'a', v: 1 });
  await states.until((list) => list.at(-1).length === 1, 'the create');
  client.ws.terminate();
  await set(of, 'a', { id: 'a', v: 2 });
  await set(of, 'b', { id: 'b', v: 1 });
  await states.until((list) => list.at(-1).length === 2, 'the sync after the reconnect');
  assert.deepEqual(view.getState(), [{ id: 'a', v: 2 }, { id: 'b', v: 1 }]);
});

test('joining while 5,000 increments run: no gap, no repetition, timestamps that published clients accept', async () => {
  const of = group();
  const LAST = 5_000;
  const JOINS = 50;
  await set(of, 'i', { id: 'i', n: 0 });
  const joined = [];
  let done = 0;
  // 200 in flight; a subscriber joins at every hundredth answer, so that joins meet writes on their way.
  const writer = async () => {
    while (done < LAST) {
      done += 1;
      const mine = done;
      await increment(of, 'i');
      if (mine % (LAST / JOINS) === 0) joined.push(follow(mine / (LAST / JOINS)));
    }
  };
  async function follow(nth) {
    const subscriber = await server.subscriber(nth % 3 === 2 ? `/stream/${of.stream_name}/${of.group_id}/` : '/');
    const id = nth % 3 === 1 ? 'i' : null;
    if (nth % 3 !== 2) subscriber.send({ type: 'join', data: { subscriptionId: 's', streamName: STREAM, groupId: of.group_id, ...(id && { id }) } });
    const frames = [];
    let frame;
    do {
      frame = await subscriber.next(`frames of subscriber ${nth}`);
      frames.push(frame);
    } while ((frame.event.type === 'sync' ? (id ? frame.event.data : frame.event.data[0]) : frame.event.data).n < LAST);
    subscriber.ws.terminate();
    return frames;
  }
  await Promise.all(Array.from({ length: 200 }, writer));
  assert.equal(joined.length, JOINS);
  let behind = 0;
  for (const frames of await Promise.all(joined)) {
    const [sync, ...events] = frames;
    assert.equal(sync.event.type, 'sync', 'nothing comes before the sync');
    const start = (Array.isArray(sync.event.data) ? sync.event.data[0] : sync.event.data).n;
    events.forEach((event, i) => {
      assert.deepEqual([event.event.type, event.event.data.n, event.seq], ['update', start + i + 1, sync.seq + i + 1]);
      const previous = i === 0 ? sync : events[i - 1];
      assert.ok(event.timestamp > previous.timestamp, `timestamp ${event.timestamp} after ${previous.timestamp}`);
    });
    behind += events.length;
  }
  assert.ok(behind > 1_000, `the joins met the writes (${behind} events followed)`);
});

test('a sync is later than every event before it and earlier than every event after it', async () => {
  const of = group();
  const witness = await server.subscriber();
  await witness.join(of.stream_name, of.group_id);
  const syncs = [];
  for (let n = 0; n < 100; n += 1) {
    // No waiting: writes of several items, a join and further writes within the same millisecond.
    const writes = ['a', 'b', 'a', 'c', 'a'].map((id) => set(of, id, { id, n }));
    const subscriber = await server.subscriber();
    syncs.push(await subscriber.join(of.stream_name, of.group_id));
    subscriber.ws.terminate();
    await Promise.all(writes);
  }
  const events = [];
  while (events.length < 500) events.push(await witness.next());
  const last = new Map();
  events.forEach((event, i) => {
    assert.equal(event.seq, i + 1);
    assert.ok(event.timestamp > (last.get(event.id) ?? 0), 'rises per item');
    if (i > 0) assert.ok(event.timestamp >= events[i - 1].timestamp, 'never falls per group');
    last.set(event.id, event.timestamp);
  });
  for (const sync of syncs) {
    const before = events.slice(0, sync.seq);
    const after = events.slice(sync.seq);
    if (before.length) assert.ok(before.at(-1).timestamp < sync.timestamp, 'later than what came before');
    if (after.length) assert.ok(after[0].timestamp > sync.timestamp, 'earlier than what comes after');
  }
});

test('the last event of an item is what is stored, with four concurrent writers', async () => {
  const of = group();
  const subscriber = await server.subscriber();
  await subscriber.join(of.stream_name, of.group_id);
  const writers = await Promise.all([0, 1, 2, 3].map(() => server.peer()));
  for (let round = 0; round < 60; round += 1) {
    await Promise.all(writers.map((writer, w) => writer.result('stream::set', { ...of, item_id: 'i', data: { round, w } })));
    const stored = await call('get', { ...of, item_id: 'i' });
    let last;
    for (let n = 0; n < 4; n += 1) last = await subscriber.next();
    assert.deepEqual(last.event.data, stored);
  }
});
