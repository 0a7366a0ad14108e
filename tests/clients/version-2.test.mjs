// Version 2 of the subscriber protocol, end to end (design §5): no gap, no repetition, no reordering, no lie.
//
// The client is the one in version-2.mjs, which fails at the first frame that does not fit what it holds.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { deferred, keeps, rejection, startServer, unique } from './harness.mjs';
import { assertExact, Churn, Connection, dice, mark, standing, untilMissed, View } from './version-2.mjs';

const range = (n) => Array.from({ length: n }, (_, i) => i);
const MIB = 1024 * 1024;
const all = (list, work) => Promise.all(list.map(work));
const servers = [];
let server;
let peer;
/** A group that holds nothing since before the first test: it is forgotten while the others run. */
const forgotten = { at: { stream_name: 'v2-forgotten', group_id: 'g' } };

/** A server of this suite; its history reaches back to the beginning unless a test wants it short. */
async function own(stream) {
  const started = await startServer({
    stream: { history_changes_max: 1_000_000, history_bytes_max: 512 * 1024 * 1024, messages_per_second_max: 1_000_000, ...stream },
  });
  servers.push(started);
  return started;
}
before(async () => {
  server = await own();
  peer = await server.peer();
  const hello = await open();
  hello.send(join(forgotten.at));
  forgotten.epoch = (await hello.next()).epoch;
  await call('set', { ...forgotten.at, item_id: 'i', data: 1 });
  await call('delete', { ...forgotten.at, item_id: 'i' });
  hello.cut();
});
after(() => all(servers, (started) => started.stop()));

const place = () => ({ stream_name: unique('v2'), group_id: 'g' });
const call = (verb, data, by = peer) => by.result(`stream::${verb}`, data);
const join = ({ stream_name, group_id }, more = {}) => ({
  type: 'join', data: { subscriptionId: 's1', streamName: stream_name, groupId: group_id, version: 2, ...more },
});
const open = (options, on = server) => Connection.open(on, options);
const view = (at, item, id = unique('s')) => new View(id, at.stream_name, at.group_id, item);
const address = ({ stream_name, group_id }, tail = '', query = '') => `/stream/${stream_name}/${group_id}${tail}?v=2${query}`;
const timeless = (frame) => frame.text.replace(/"timestamp":\d+/, '"timestamp":0');

// ---- frames

test('frames are those of the design, for a group and by join', async () => {
  const at = place();
  const { stream_name: stream } = at;
  const one = await open();
  one.send(join(at));
  const first = await one.next();
  const { epoch } = first;
  assert.match(epoch, /^[a-z0-9]+$/);
  const head = (id, more) => `{"type":"stream","timestamp":0,"streamName":"${stream}","groupId":"g","id":${id},${more}`;
  assert.equal(timeless(first), head('null', `"subscriptionId":"s1","epoch":"${epoch}","seq":0,"event":{"type":"sync","mode":"snapshot","items":[],"more":false}}`));
  await call('set', { ...at, item_id: 'm1', data: { text: '' } });
  await call('update', { ...at, item_id: 'm1', ops: [{ type: 'append', path: 'text', value: 'tok' }] });
  await call('send', { ...at, type: 'hello', data: [1] });
  await call('delete', { ...at, item_id: 'm1' });
  const changes = [
    ['"m1"', 1, '{"type":"create","data":{"text":""}}'],
    ['"m1"', 2, '{"type":"update","data":{"text":"tok"}}'],
    ['null', 3, '{"type":"event","event":{"type":"hello","data":[1]}}'],
    ['"m1"', 4, '{"type":"delete","data":{"text":"tok"}}'],
  ];
  for (const [id, seq, event] of changes) assert.equal(timeless(await one.next()), head(id, `"seq":${seq},"event":${event}}`));
  const other = await open();
  other.send(join(at, { since: { epoch, seq: 1 } }));
  assert.equal(timeless(await other.next()), head('null', `"subscriptionId":"s1","epoch":"${epoch}","seq":4,"event":{"type":"sync","mode":"resume","from":1}}`));
  for (const [id, seq, event] of changes.slice(1)) {
    assert.equal(timeless(await other.next()), head(id, `"subscriptionId":"s1","seq":${seq},"event":${event}}`), 'what follows a resume names its subscription');
  }
  await call('set', { ...at, item_id: 'm2', data: 1 });
  assert.equal(timeless(await other.next()), head('"m2"', '"seq":5,"event":{"type":"create","data":1}}'), 'a live event names none');
  const late = await open();
  late.send(join(at, { since: { epoch: 'k3', seq: 1 } }));
  assert.equal(timeless(await late.next()), head('null', `"subscriptionId":"s1","epoch":"${epoch}","seq":5,"event":{"type":"sync","mode":"snapshot","reset":true,"items":[{"id":"m2","seq":5,"data":1}],"more":false}}`));
});

test('frames are those of the design, for an item and by address', async () => {
  const at = place();
  await call('set', { ...at, item_id: 'm 1', data: { n: 1 } });
  const byAddress = async (query) => open({ path: address(at, '/m%201', query) });
  const one = await byAddress('');
  const first = await one.next();
  const { epoch, subscriptionId } = first;
  assert.ok(subscriptionId, 'the server made an id');
  assert.deepEqual([first.id, first.seq, first.event], ['m 1', 1, { type: 'sync', mode: 'snapshot', items: [{ id: 'm 1', seq: 1, data: { n: 1 } }], more: false }]);
  await call('set', { ...at, item_id: 'other', data: 1 });
  await call('set', { ...at, item_id: 'm 1', data: { n: 2 } });
  assert.deepEqual([(await one.next()).seq], [3]);
  const back = await byAddress(`&since=${epoch}:1`);
  const [resume, replayed] = [await back.next(), await back.next()];
  assert.deepEqual([resume.id, resume.seq, resume.event], ['m 1', 3, { type: 'sync', mode: 'resume', from: 1 }]);
  assert.deepEqual([replayed.subscriptionId, replayed.seq, replayed.event], [resume.subscriptionId, 3, { type: 'update', data: { n: 2 } }]);
  const none = await open({ path: address(at, '/nothing') });
  assert.deepEqual((await none.next()).event, { type: 'sync', mode: 'snapshot', items: [], more: false });
  for (const bad of ['&since=1', '&since=e:-1', '&since=e:x', '&since=:1', '&since=E:1', '&core=x']) {
    assert.equal((await rejection(server.subscriber(address(at, '', bad)))).status, 400, bad);
  }
});

test('pages hold at most 1,000 items, in order of creation, and the last one closes', async () => {
  const at = place();
  await all(range(2_500), (n) => call('set', { ...at, item_id: `i${n}`, data: n }));
  const one = await open();
  one.send(join(at));
  const pages = [await one.next(), await one.next(), await one.next()];
  assert.deepEqual(pages.map(({ event }) => [event.items.length, event.more]), [[1_000, true], [1_000, true], [500, false]]);
  assert.deepEqual(pages.flatMap(({ event }) => event.items.map(({ seq }) => seq)), range(2_500).map((n) => n + 1));
  assert.deepEqual(pages.map(({ seq, epoch }) => [seq, epoch]), pages.map(() => [2_500, pages[0].epoch]));
  assert.ok(pages.every(({ subscriptionId }) => subscriptionId === 's1'));
});

test('deltas are sent where they are shorter, and only to who can apply them', async () => {
  const at = place();
  const long = 'x'.repeat(500);
  await call('set', { ...at, item_id: 'm1', data: { text: long } });
  const asks = { deltas: { deltas: true }, core1: { deltas: true, core: 1 }, core2: { deltas: true, core: 2 }, values: {} };
  const readers = await all(Object.entries(asks), async ([name, more]) => {
    const connection = await open();
    connection.send(join(at, more));
    return [name, connection, await connection.next()];
  });
  const byAddress = await all(['&deltas=1', '&deltas=1&core=1', '&deltas=1&core=2', ''], async (query) => {
    const connection = await open({ path: address(at, '', query) });
    return [query, connection, await connection.next()];
  });
  await call('update', { ...at, item_id: 'm1', ops: [{ type: 'append', path: 'text', value: 'tok' }] });
  await call('update', { ...at, item_id: 'm1', ops: [{ type: 'set', path: '', value: 1 }] });
  for (const [name, connection] of [...readers, ...byAddress]) {
    const takes = name.includes('deltas') || name === 'core1' ? !name.endsWith('2') : false;
    const event = takes
      ? '{"type":"update","base":1,"ops":[{"type":"append","path":"text","value":"tok"}]}'
      : `{"type":"update","data":{"text":"${long}tok"}}`;
    assert.equal(timeless(await connection.next()), `{"type":"stream","timestamp":0,"streamName":"${at.stream_name}","groupId":"g","id":"m1","seq":2,"event":${event}}`, name);
    assert.deepEqual((await connection.next()).event, { type: 'update', data: 1 }, 'the value is shorter');
  }
  const { epoch } = readers[0][2];
  const back = await open();
  back.send(join(at, { deltas: true, core: 1, since: { epoch, seq: 1 } }));
  const [, replayed] = [await back.next(), await back.next()];
  assert.deepEqual([replayed.subscriptionId, replayed.event.base, replayed.event.ops.length], ['s1', 1, 1], 'what follows a resume too');
});

test('errors have a frame of their own, which clients of version 1 never see', async () => {
  const at = place();
  const one = await open();
  one.send(join(at));
  await one.next();
  const refused = async (message, code, subscriptionId = 's2') => {
    one.send(message);
    const frame = await one.next(code);
    assert.deepEqual([frame.type, frame.subscriptionId ?? null, frame.code], ['error', subscriptionId, code], frame.text);
    assert.ok(frame.message.length > 10);
    const keys = subscriptionId === null ? ['type', 'code', 'message'] : ['type', 'subscriptionId', 'code', 'message'];
    assert.deepEqual(Object.keys(frame), keys);
  };
  const second = (more) => join(at, { subscriptionId: 's2', ...more });
  await refused(second({ version: 1 }), 'subscription.version_mismatch');
  await refused(second({ deltas: true }), 'subscription.version_mismatch');
  await refused(second({ core: 2 }), 'subscription.version_mismatch');
  for (const version of [3, 0, '2', 2.5]) await refused(second({ version }), 'subscription.unsupported_version');
  for (const since of [{ epoch: 'e', seq: -1 }, { epoch: 'e', seq: 'x' }, { epoch: 'e', seq: 1.5 }, { epoch: '', seq: 1 }, { epoch: 'E', seq: 1 }, { epoch: 'e' }, { seq: 1 }, 'e:1', 7, []]) {
    await refused(second({ since }), 'subscription.invalid_since');
  }
  await refused(second({ streamName: '' }), 'subscription.invalid');
  await refused(second({ groupId: 'g'.repeat(1_025) }), 'subscription.invalid');
  await refused(second({ id: 'i'.repeat(1_025) }), 'subscription.invalid');
  await refused(second({ subscriptionId: 's'.repeat(257) }), 'subscription.invalid', 's'.repeat(257));
  await refused(second({ subscriptionId: 7 }), 'subscription.invalid', null);
  await refused(second({ deltas: 'yes' }), 'subscription.invalid');
  const garbage = ['', '{', 'null', '[]', '7', '"x"', '{}', '{"type":7}', '{"type":"join"}', '{"type":"join","data":[]}', '\u0000', '{"type":"leave","data":{}}'];
  for (const text of garbage) {
    one.send(text);
    const frame = await one.next(`an answer to ${text}`);
    assert.deepEqual([frame.type, /^(message|subscription)\.invalid$/.test(frame.code)], ['error', true], `${text}: ${frame.text}`);
  }
  await refused('{"type":"shout","data":{}}', 'message.unknown_type', null);
  // It stays, and what agrees is let in.
  one.send(second({ since: null }));
  assert.equal((await one.next()).subscriptionId, 's2');

  const fresh = await open();
  fresh.send(join(at, { version: 3 }));
  assert.equal((await fresh.next('an answer to version 3')).code, 'subscription.unsupported_version', 'also as the first word');
  fresh.send(join(at));
  assert.equal((await fresh.next()).event.mode, 'snapshot', 'it has not set the version');

  const old = await open();
  const { version, ...published } = join(at).data;
  old.send({ type: 'join', data: published });
  assert.deepEqual((await old.next()).event, { type: 'sync', data: [] });
  for (const text of garbage) old.send(text);
  old.send({ type: 'join', data: { ...published, subscriptionId: 's2', groupId: '' } });
  old.send({ type: 'join', data: { ...published, subscriptionId: 's'.repeat(300) } });
  old.send({ type: 'shout' });
  old.send({ type: 'join', data: { ...published, subscriptionId: 's3', since: { epoch: 'e', seq: 1 } } });
  assert.deepEqual((await old.next()).event, { type: 'sync', data: [] }, 'a published client sees what it knows');
  await call('update', { ...at, item_id: 'i', ops: [{ type: 'set', path: 'a', value: 1 }] });
  const event = await old.next();
  assert.deepEqual([Object.keys(event), event.event], [['type', 'timestamp', 'streamName', 'groupId', 'id', 'seq', 'event'], { type: 'create', data: { a: 1 } }]);
});

// ---- coming back

test('a client that is cut off a thousand times sees every change exactly once', async () => {
  const groups = [place(), place()];
  const churns = groups.map((at, n) => new Churn(peer, at, { ids: range(12).map((i) => `i${i}`), inFlight: 4, seed: n + 1 }));
  const CLIENTS = 10;
  const CUTS = 50;
  let cuts = 0;
  const visits = groups.flatMap((at, g) => range(CLIENTS).map(async (n) => {
    const roll = dice(100 * g + n + 7);
    const asks = { deltas: n % 2 === 1 };
    const one = view(at);
    // From the beginning: nothing is missed from the first change on.
    const hello = await open();
    hello.send(join(at));
    one.epoch = (await hello.next()).epoch;
    one.position = { epoch: one.epoch, seq: 0 };
    hello.cut();
    for (const turnOf of range(CUTS)) {
      const byAddress = roll(2) === 1;
      const query = `&since=${one.position.epoch}:${one.position.seq}${asks.deltas ? '&deltas=1&core=1' : ''}`;
      const connection = new Connection(server, byAddress ? { path: address(at, '', query) } : asks);
      if (byAddress) {
        // The id is the server's; this view takes the first that comes.
        one.begin();
        connection.take = (frame) => (frame.subscriptionId ? one.take(frame) : one.hear(frame, false));
        connection.views.set(one.id, one);
      }
      const frames = roll(8);
      const ended = deferred();
      connection.onFrame = () => {
        if (connection.fault) ended.reject(connection.fault);
        else if (frames <= connection.count) { connection.cut(); ended.resolve(); }
      };
      await server.within(connection.opened, 'a connection');
      if (!byAddress) connection.join(one);
      if (frames === 0) {
        // Before anything has come, or after who knows what.
        if (turnOf % 3 === 0) await turn();
        connection.cut();
      } else {
        await server.within(ended.promise, `frame ${frames} of visit ${turnOf}`);
      }
      cuts += 1;
    }
    const connection = await open(asks);
    connection.join(one);
    return { one, connection };
  }));
  const ends = await Promise.all(visits);
  const lasts = await all(churns, (churn) => churn.stop());
  const states = await all(groups, (at) => standing(peer, at));
  assert.equal(cuts, groups.length * CLIENTS * CUTS);
  for (const [n, { one, connection }] of ends.entries()) {
    const g = Math.floor(n / CLIENTS);
    await connection.until(() => one.cursor === lasts[g], `change ${lasts[g]}`);
    assertExact(one, 1, lasts[g], states[g], `client ${n}`);
    assert.equal(one.snapshots, 0, 'it never needed a snapshot');
    assert.equal(one.deltas > 0, n % 2 === 1, 'operations for those who want them');
    connection.cut();
  }
});

test('item subscriptions that are cut off see every change of their item exactly once', async () => {
  const at = place();
  const churn = new Churn(peer, at, { ids: ['a', 'b', 'c'], inFlight: 4, seed: 3 });
  const log = view(at);
  const whole = await open();
  whole.join(log, { since: undefined });
  await whole.until(() => log.isLive, 'the group');
  const { epoch } = log;
  // The whole group's watcher knows which changes were the item's.
  const ofItem = { a: [], b: [], c: [] };
  const listen = whole.take.bind(whole);
  whole.take = (frame) => { if (ofItem[frame.id] && frame.event.type !== 'sync') ofItem[frame.id].push(frame.seq); listen(frame); };
  const begin = log.cursor;
  const ends = await all(range(12), async (n) => {
    const roll = dice(n + 50);
    const item = 'abc'[n % 3];
    const asks = { deltas: n % 2 === 1 };
    const one = view(at, item);
    const first = await open(asks);
    first.join(one);
    await first.until(() => one.isLive, 'the item');
    const from = one.cursor;
    first.cut();
    for (const _ of range(30)) {
      const connection = await open(asks);
      const frames = 1 + roll(5);
      connection.join(one);
      await connection.until(() => connection.count >= frames, 'some frames');
      connection.cut();
    }
    const connection = await open(asks);
    connection.join(one);
    return { one, connection, item, from };
  });
  await churn.stop();
  const lasts = {};
  for (const id of 'abc') lasts[id] = await mark(peer, at, id);
  const state = await standing(peer, at);
  await whole.until(() => log.cursor >= lasts.c, 'the end');
  for (const { one, connection, item, from } of ends) {
    await connection.until(() => one.cursor === lasts[item], 'the end');
    const since = Math.max(from, begin);
    assert.deepEqual(one.told.filter((seq) => seq > since), ofItem[item].filter((seq) => seq > since));
    assert.deepEqual(one.shown(), item in state ? { [item]: state[item] } : {});
    assert.equal(one.epoch, epoch);
    connection.cut();
  }
  whole.cut();
});

test('the same token as since, over and over, resumes alike', async () => {
  const at = place();
  const hello = await open();
  hello.send(join(at));
  const { epoch } = await hello.next();
  await all(range(50), (n) => call('set', { ...at, item_id: `i${n % 5}`, data: n }));
  for (const n of range(20)) {
    const one = view(at);
    one.position = { epoch, seq: 10 };
    const connection = await open();
    connection.join(one);
    await connection.until(() => one.cursor === 50, 'all of it');
    assert.deepEqual(one.told, range(40).map((seq) => seq + 11), `${n}`);
    connection.cut();
  }
});

test('a since that leads nowhere gets a snapshot with reset', async () => {
  const at = place();
  const { stream_name } = at;
  for (const n of range(3)) await call('set', { ...at, item_id: 'i', data: n });
  const hello = await open();
  hello.send(join(at));
  const { epoch } = await hello.next();
  const begins = async (since, more = {}, of = at) => {
    const connection = await open();
    connection.send(join(of, { since, ...more }));
    const { event, seq } = await connection.next();
    connection.cut();
    return { ...event, seq };
  };
  const reset = { type: 'sync', mode: 'snapshot', reset: true, items: [{ id: 'i', seq: 3, data: 2 }], more: false, seq: 3 };
  assert.deepEqual(await begins({ epoch: `${epoch}0`, seq: 1 }), reset, 'of another epoch');
  assert.deepEqual(await begins({ epoch, seq: 4 }), reset, 'in the future');
  assert.deepEqual(await begins({ epoch, seq: Number.MAX_SAFE_INTEGER }), reset, 'in the far future');
  assert.deepEqual(await begins({ epoch, seq: 4 }, { id: 'i' }), reset, 'the same for an item');
  assert.deepEqual(await begins({ epoch, seq: 3 }), { type: 'sync', mode: 'resume', from: 3, seq: 3 }, 'the present');
  const nothing = { type: 'sync', mode: 'snapshot', reset: true, items: [], more: false, seq: 0 };
  assert.deepEqual(await begins({ epoch, seq: 5 }, {}, { stream_name, group_id: 'never' }), nothing, 'a group that never was');
  // In Redis each group has a history of its own name.
  const unborn = keeps === 'redis' ? nothing : { type: 'sync', mode: 'resume', from: 0, seq: 0 };
  assert.deepEqual(await begins({ epoch, seq: 0 }, {}, { stream_name, group_id: 'never' }), unborn);
  const one = await open();
  for (const seq of ['18446744073709551615', '18446744073709551616', '1e3', '-0', '-1', '1.0']) {
    one.send(JSON.stringify(join(at, { since: { epoch, seq: 0 } })).replace('"seq":0', `"seq":${seq}`));
    const frame = await one.next(seq);
    if (seq === '18446744073709551615') assert.equal(frame.event.reset, true, frame.text);
    else assert.equal(frame.code, 'subscription.invalid_since', frame.text);
  }
});

test('where the history does not reach there is a reset, but an item that has not changed resumes however old', async () => {
  const short = await own({ history_changes_max: 10 });
  const by = await short.peer();
  const at = place();
  await call('set', { ...at, item_id: 'quiet', data: 'q' }, by);
  await call('set', { ...at, item_id: 'gone', data: 'g' }, by);
  const hello = await open({}, short);
  hello.send(join(at));
  const { epoch } = await hello.next();
  await all(range(9), (n) => call('set', { ...at, item_id: 'busy', data: n }, by));
  const begins = async (seq, id) => {
    const connection = await open({}, short);
    connection.send(join(at, { since: { epoch, seq }, ...(id ? { id } : {}) }));
    const { event } = await connection.next();
    connection.cut();
    return event.mode === 'resume' ? `resume from ${event.from}` : `${event.reset ? 'reset' : 'snapshot'} of ${event.items.map((item) => item.id)}`;
  };
  assert.equal(await begins(1), 'resume from 1', 'the tenth change back');
  await call('set', { ...at, item_id: 'busy', data: 9 }, by);
  assert.equal(await begins(1), 'reset of quiet,gone,busy', 'the eleventh');
  assert.equal(await begins(2), 'resume from 2');
  assert.equal(await begins(1, 'quiet'), 'resume from 1', 'nothing has happened to it');
  assert.equal(await begins(0, 'quiet'), 'reset of quiet', 'its creation is not known any more');
  assert.equal(await begins(1, 'busy'), 'reset of busy');
  await call('delete', { ...at, item_id: 'gone' }, by);
  // Redis keeps up to an eighth more.
  await all(range(2), (n) => call('set', { ...at, item_id: 'busy', data: n }, by));
  assert.equal(await begins(2, 'gone'), 'reset of ', 'nobody knows since when there is none');
  assert.equal(await begins(5, 'gone'), 'resume from 5', 'its delete follows');
  await all(range(10), (n) => call('set', { ...at, item_id: 'busy', data: n }, by));
  assert.equal(await begins(5, 'gone'), 'reset of ');
  await call('set', { ...at, item_id: 'gone', data: 'again' }, by);
  const { seq } = await call('set', { ...at, item_id: 'busy', data: 'last', returning: 'none' }, by);
  await all(range(20), (n) => call('set', { ...at, item_id: 'busy', data: n }, by));
  assert.equal(await begins(seq, 'gone'), `resume from ${seq}`, 'it came again before');
  await call('send', { ...at, id: 'quiet', type: 'x', data: 1 }, by);
  await all(range(20), (n) => call('set', { ...at, item_id: 'busy', data: n }, by));
  assert.equal(await begins(1, 'quiet'), 'reset of quiet', 'an event of its own is a change that it was not told of');
});

test('the history is bounded by bytes', async () => {
  const short = await own({ history_bytes_max: 100_000, history_changes_max: 1_000 });
  const by = await short.peer();
  const at = place();
  const text = 'x'.repeat(8_000);
  const first = await open({}, short);
  first.send(join(at));
  const { epoch } = await first.next();
  for (const n of range(22)) await call('set', { ...at, item_id: 'big', data: { text, n } }, by);
  const begins = async (seq) => {
    const connection = await open({}, short);
    connection.send(join(at, { since: { epoch, seq } }));
    const { event } = await connection.next();
    connection.cut();
    return event.mode === 'resume' ? 'resume' : `reset ${event.reset}`;
  };
  assert.equal(await begins(3), 'reset true', '100,000 bytes reach back twelve changes, on Redis at least ten');
  assert.equal(await begins(13), 'resume');
});

const withAllValues = keeps === 'redis' && 'on Redis a history has each value, or the operations that lead to it';
test('the history lacks values that nobody asked for', { skip: withAllValues }, async () => {
  const short = await own({ history_bytes_max: 100_000, history_changes_max: 1_000 });
  const by = await short.peer();
  const at = place();
  const text = 'x'.repeat(8_000);
  await call('set', { ...at, item_id: 'big', data: { text } }, by);
  const hello = await open({}, short);
  hello.send(join(at));
  const { epoch } = await hello.next();
  hello.ws.close();
  await short.within(hello.closed, 'the end of the only one that takes values');
  const begins = async (seq, more = {}) => {
    const one = view(at);
    one.position = { epoch, seq };
    one.items.set('big', { seq, value: { text } });
    const connection = await open(more, short);
    connection.join(one);
    await connection.until(() => one.isLive, 'the sync');
    return { one, connection };
  };
  const reading = await begins(1, { deltas: true });
  assert.deepEqual([reading.one.resumes, reading.one.told], [1, []]);
  for (const n of range(40)) await call('update', { ...at, item_id: 'big', ops: [{ type: 'append', path: 'log', value: `${n} ` }], returning: 'none' }, by);
  await reading.connection.until(() => reading.one.cursor === 41, 'the appends');
  assert.equal(reading.one.deltas, 40);
  const again = await begins(1, { deltas: true });
  await again.connection.until(() => again.one.cursor === 41, 'the appends');
  assert.deepEqual([again.one.resumes, again.one.deltas, again.one.shown()], [1, 40, await standing(by, at)]);
  // Values linger for a minute after the last one that took them left, so they may be there; told is never an update without one.
  const values = await begins(1);
  await values.connection.until(() => values.one.cursor === 41, 'either');
  assert.deepEqual([values.one.deltas, values.one.shown()], [0, await standing(by, at)]);
  const other = place();
  await call('set', { ...other, item_id: 'big', data: { text }, returning: 'none' }, by);
  for (const n of range(40)) await call('update', { ...other, item_id: 'big', ops: [{ type: 'append', path: 'log', value: `${n} ` }], returning: 'none' }, by);
  const unasked = await open({}, short);
  unasked.send(join(other, { since: { epoch, seq: 1 } }));
  assert.equal((await unasked.next()).event.reset, true, 'values that were never written cannot be told');
  const asked = await open({}, short);
  asked.send(join(other, { since: { epoch, seq: 1 }, deltas: true }));
  assert.equal((await asked.next()).event.mode, 'resume');
});

// ---- pages

const text = (bytes) => 'x'.repeat(bytes);
for (const [name, { count = 5_000, bytes = 10, deltas, cuts, slow }] of Object.entries({
  'with values': {},
  'with deltas': { deltas: true, bytes: 200 },
  'cut off in the middle': { cuts: 3 },
  'cut off in the middle, with deltas': { cuts: 3, deltas: true, bytes: 200 },
  'in pages of 1 MiB': { count: 1_000, bytes: 8_000 },
  'on a slow socket': { count: 5_000, bytes: 2_000, slow: true },
  'on a slow socket, with deltas': { count: 5_000, bytes: 2_000, slow: true, deltas: true },
})) {
  test(`a large group is paged while it changes: ${name}`, async () => {
    const at = place();
    await all(range(count), (n) => call('set', { ...at, item_id: `i${n}`, data: { n, text: text(bytes) }, returning: 'none' }));
    const churn = new Churn(peer, at, { ids: range(count * 1.1).map((n) => `i${n}`), inFlight: 8, text: text(bytes), seed: count + bytes });
    const passed = async (writes) => {
      const [goal, reached] = [churn.done + writes, deferred()];
      churn.onWrite = () => { if (goal <= churn.done) reached.resolve(); };
      await server.within(reached.promise, `${writes} writes`);
    };
    const ends = [];
    for (const n of range(slow ? 1 : 3)) {
      const one = view(at);
      for (const _ of range(cuts ?? 0)) {
        const connection = await open({ deltas });
        const pages = one.pages.length + 1 + n;
        // In the middle of a snapshot: at the frame that brings the page.
        connection.onFrame = () => { if (pages <= one.pages.length) connection.cut(); };
        connection.join(one);
        await connection.until(() => connection.isCut || connection.code !== undefined, 'some pages');
        assert.deepEqual([one.position, one.state], [null, 'paging'], 'there is nothing to come back to');
      }
      const connection = await open({ deltas });
      const before = one.pages.length;
      connection.join(one);
      if (slow) {
        await connection.until(() => one.pages.length > 0, 'the first page');
        for (const _ of range(4)) {
          connection.ws.pause();
          await passed(150);
          const frames = connection.count;
          connection.ws.resume();
          await connection.until(() => connection.count > frames, 'more');
        }
      }
      await connection.until(() => one.isLive, 'the last page');
      assert.ok(before + count / (bytes < 1_000 ? 1_000 : 1_048_576 / bytes) * 0.8 <= one.pages.length, `${one.pages}`);
      assert.ok(one.pages.every((length) => length <= 1_000 && length * bytes <= 1.1 * MIB), `${one.pages}`);
      assert.equal(one.snapshots, 1 + (cuts ?? 0) + one.resets);
      if (slow) assert.ok(0 < one.amid, 'changes came between its pages');
      ends.push({ one, connection });
    }
    const last = await churn.stop();
    const state = await standing(peer, at);
    for (const { one, connection } of ends) {
      await connection.until(() => one.isLive && one.cursor === last, 'the end');
      assert.deepEqual(one.shown(), state);
      connection.cut();
    }
  });
}

test('a snapshot that changes pass by while it is being paged begins again, and says so', async () => {
  const narrow = await own({ queue_bytes_max: 128 * 1024 });
  const by = await narrow.peer();
  for (const deltas of [false, true]) {
    const at = place();
    await all(range(1_000), (n) => call('set', { ...at, item_id: `i${n}`, data: { n, text: text(10_000) }, returning: 'none' }, by));
    const connection = await open({ deltas }, narrow);
    const one = view(at);
    connection.onFrame = () => { if (one.pages.length === 1) connection.ws.pause(); };
    connection.join(one);
    await connection.until(() => one.pages.length === 1, 'the first page');
    await untilMissed(narrow, by, at);
    connection.onFrame = undefined;
    connection.ws.resume();
    const last = await mark(by, at);
    await connection.until(() => one.isLive && one.cursor === last, 'the end');
    assert.ok(0 < one.resets, 'it began again');
    assert.deepEqual(one.shown(), await standing(by, at));
    connection.cut();
  }
});

// ---- many subscriptions on one connection

test('each subscription of a connection is told of everything, whenever it joins, leaves and comes back', async () => {
  const at = place();
  await all(range(2_500), (n) => call('set', { ...at, item_id: `i${n}`, data: { n, text: text(100) }, returning: 'none' }));
  const ids = ['i0', 'i1', 'i2', ...range(5).map((n) => `new${n}`)];
  for (const deltas of [false, true]) {
    const churn = new Churn(peer, at, { ids, inFlight: 6, seed: 11 + deltas });
    const connection = await open({ deltas });
    const views = [view(at), view(at), view(at, 'i0'), view(at, 'i0'), view(at, 'i1'), view(at, 'new0'), view(at, 'none')];
    const roll = dice(5 + deltas);
    for (const one of views) connection.join(one);
    const gone = new Set();
    for (const round of range(150)) {
      const one = views[roll(views.length)];
      if (gone.delete(one)) {
        // What was on its way to the old id is for nobody.
        one.id = unique('s');
        connection.join(one);
      } else if (roll(3) === 0) {
        connection.leave(one);
        gone.add(one);
      } else if (one.isLive) {
        connection.join(one); // again, with what it has
      }
      // Sometimes while it is being paged, sometimes when it has begun.
      if (roll(2) === 0 && !gone.has(one)) await connection.until(() => one.isLive, `round ${round}`);
      else await turn();
    }
    for (const one of gone) connection.join(Object.assign(one, { id: unique('s') }));
    await connection.until(() => views.every((one) => one.isLive), 'all of them');
    await churn.stop();
    const lasts = {};
    for (const id of ['i0', 'i1', 'new0', 'none', 'end']) lasts[id] = await mark(peer, at, id);
    const state = await standing(peer, at);
    for (const one of views) {
      await connection.until(() => one.cursor === lasts[one.item ?? 'end'], `the end of ${one.item}`);
      assert.deepEqual(one.shown(), one.item === undefined ? state : { [one.item]: state[one.item] });
    }
    connection.cut();
  }
});

test('subscriptions of one connection that lag together come back without a gap', async () => {
  // Room for a burst to one that reads, and too little for one that does not.
  const narrow = await own({ queue_bytes_max: 768 * 1024 });
  const by = await narrow.peer();
  for (const deltas of [false, true]) {
    const at = place();
    const connection = await open({ deltas }, narrow);
    const views = [view(at), view(at, 'i0'), view(at), view(at, 'i1'), view(at, 'n0'), view(at, 'i0'), view(at, 'i3')];
    for (const one of views) connection.join(one);
    await connection.until(() => views.every((one) => one.isLive), 'all of them');
    const whole = view(at);
    const quick = await open({}, narrow);
    quick.join(whole);
    await quick.until(() => whole.isLive, 'the one that reads');
    const churn = new Churn(by, at, { ids: ['n0', 'n1', 'i0', 'i1'], inFlight: 4 });
    for (const _ of range(2)) {
      connection.ws.pause();
      await untilMissed(narrow, by, at);
      // More than the kernel takes at once, so that they come back one by one while changes go on.
      for (const _ of range(20)) await all(range(20), (n) => call('set', { ...at, item_id: `i${n % 7}`, data: { text: text(16_000) }, returning: 'none' }, by));
      // One more joins while changes pass the connection by.
      const late = view(at, views.length % 2 ? 'i2' : undefined);
      connection.join(late);
      views.push(late);
      const resumes = views.map((one) => one.resumes + one.resets);
      connection.ws.resume();
      const isBack = (one, n) => one.isLive && (one === late || resumes[n] < one.resumes + one.resets);
      await connection.until(() => views.every(isBack), 'all to come back');
    }
    await churn.stop();
    const lasts = {};
    for (const id of ['i0', 'i1', 'i2', 'i3', 'n0', 'end']) lasts[id] = await mark(by, at, id);
    const state = await standing(by, at);
    await quick.until(() => whole.cursor === lasts.end, 'the one that reads');
    for (const one of views) {
      await connection.until(() => one.cursor === lasts[one.item ?? 'end'], `the end of ${one.item}`);
      assert.deepEqual(one.shown(), one.item === undefined ? state : { [one.item]: state[one.item] });
    }
    // Nothing was lost: those that were there from the first change on have been told of each.
    for (const one of views.slice(0, 7).filter((each) => each.resets === 0 && each.item === undefined)) assertExact(one, 1, lasts.end, state, 'a group');
    const i0 = views[1].told;
    assert.deepEqual(views[5].told, i0, 'two subscriptions to one item are told the same');
    connection.cut();
    quick.cut();
  }
});

test('of a hundred groups on one connection only those lag that have passed it by', async () => {
  const narrow = await own({ queue_bytes_max: 128 * 1024 });
  const by = await narrow.peer();
  const stream_name = unique('hundred');
  const groups = range(100).map((n) => ({ stream_name, group_id: `g${n}` }));
  const connection = await open({}, narrow);
  const views = groups.map((at) => view(at));
  for (const one of views) connection.join(one);
  await connection.until(() => views.every((one) => one.isLive), 'all of them');
  connection.ws.pause();
  await all(groups, (at) => call('set', { ...at, item_id: 'i', data: 0 }, by));
  for (const n of [3, 50, 99]) await untilMissed(narrow, by, groups[n]);
  connection.ws.resume();
  await connection.until(() => [3, 50, 99].every((n) => 0 < views[n].resumes), 'the three');
  const lasts = await all(groups, (at) => mark(by, at, 'end'));
  for (const [n, one] of views.entries()) {
    await connection.until(() => one.cursor === lasts[n], `group ${n}`);
    assertExact(one, 1, lasts[n], await standing(by, groups[n]), `group ${n}`);
    // One of the three may lag a second time while the first is made good; the others never do.
    assert.equal(0 < one.resumes, [3, 50, 99].includes(n));
  }
});

test('ten thousand joins and leaves of one subscription leave one, or none', async () => {
  const at = place();
  await call('set', { ...at, item_id: 'i', data: 1 });
  const connection = await open();
  const one = view(at);
  const message = (type) => JSON.stringify({ type, data: { ...join(at).data, subscriptionId: one.id } });
  connection.views.set(one.id, one);
  for (const n of range(10_000)) {
    connection.send(message('join'));
    if (n < 9_999) connection.send(message('leave'));
    // Who does not read meanwhile is closed: too many messages about one subscription would wait for room, or for the store.
    if (n % 25 === 24) await connection.until(() => one.pages.length > n, 'the snapshots so far');
  }
  await connection.until(() => one.pages.length === 10_000, 'ten thousand snapshots');
  await mark(peer, at);
  await connection.until(() => one.cursor === 2, 'the event');
  connection.send(message('leave'));
  for (const _ of range(2)) {
    // An answer: so it has left. Then a change, and another answer: so nothing more came.
    connection.send('?');
    assert.equal((await connection.next()).type, 'error');
    await mark(peer, at);
  }
  assert.deepEqual(one.told, [2]);
});

test('a join that waits for its guard does not begin with what another subscription waits for', async () => {
  const [at, secret] = [place(), place()];
  await all(range(4_000), (n) => call('set', { ...at, item_id: `i${n}`, data: { text: text(1_000) }, returning: 'none' }));
  await call('set', { ...secret, item_id: 'i', data: 'secret' });
  const asked = deferred();
  const guard = await server.peer();
  const guardId = unique('guard');
  guard.serve(guardId, (input, frame) => { asked.resolve(frame.invocation_id); });
  guard.send({ type: 'registertrigger', id: guardId, trigger_type: 'stream:join', function_id: guardId, config: { stream_name: secret.stream_name } });
  await guard.settled();
  const connection = await open();
  // The first page leaves at once, the others follow; meanwhile the same subscription wants something else.
  connection.send(join(at));
  connection.send(join(secret));
  const invocation_id = await server.within(asked.promise, 'the guard to be asked');
  const pages = [];
  do {
    pages.push(await connection.next());
    assert.equal(pages.at(-1).streamName, at.stream_name, 'nobody has let it in yet');
  } while (pages.at(-1).event.more);
  assert.equal(pages.flatMap(({ event }) => event.items).length, 4_000);
  guard.send({ type: 'invocationresult', invocation_id, function_id: guardId, result: { unauthorized: true } });
  const refusal = await connection.next();
  assert.deepEqual([refusal.streamName, refusal.event], [secret.stream_name, { type: 'unauthorized' }]);
  await mark(peer, at);
  assert.equal((await connection.next()).seq, 4_001, 'what it had goes on');
});

/** Redis forgets what it was to forget some time. */
async function hasPassed({ stream_name, group_id }) {
  const redis = await (await import('./redis.mjs')).processRedis();
  for (const key of await redis.call('KEYS', `*{${stream_name}:${group_id}}`)) {
    const left = Number(await redis.call('PTTL', key));
    assert.ok(left > 0 && left <= 3_600_000, `${key} goes in ${left} ms`);
    await redis.call('PEXPIRE', key, 1);
  }
}

test('a group that was forgotten has another history', { timeout: 110_000 }, async () => {
  // It is forgotten within half a minute of its last visitor, on Redis within an hour, which is not waited for. Over HTTP one reads its
  // position without staying.
  const { at, epoch } = forgotten;
  if (keeps === 'redis') await hasPassed(at);
  const base = server.subscribers.replace('ws:', 'http:');
  let now = epoch;
  for (const begin = Date.now(); now === epoch && Date.now() - begin < 90_000;) {
    now = JSON.parse((await server.page(`/stream/${at.stream_name}/${at.group_id}`, { base })).body).epoch;
  }
  assert.notEqual(now, epoch);
  const back = await open();
  back.send(join(at, { since: { epoch, seq: 1 } }));
  assert.deepEqual((await back.next()).event, { type: 'sync', mode: 'snapshot', reset: true, items: [], more: false });
});
