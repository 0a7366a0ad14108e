// Grants, the reading side (design §8): whatever way a client reads, it sees what its grants allow and nothing else. Each hidden
// item is there and seen by somebody else, so a test that sees nothing of it has not looked at nothing.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createStream } from 'iii-sdk/helpers';
import { Record, rejection, settled, startServer, unique } from './harness.mjs';
import { EventStream, http, range } from './raw.mjs';
import { Connection, View, dice, standing, untilMissed } from './version-2.mjs';

const AUTH = 'grants::auth';
const servers = [];
let server;
let peer;
let sdk;

before(async () => {
  server = await own({ stream: { auth_function: AUTH, queue_bytes_max: 65_536 } });
  [peer, sdk] = [await server.peer(), server.sdk()];
  // The client says what it may do: `grants` as JSON text, or nothing.
  peer.serve(AUTH, ({ query_params: { grants: [grants] = [] } }) => ({
    result: { context: null, ...(grants === undefined ? {} : { grants: JSON.parse(grants) }) },
  }));
  await peer.settled();
});
after(() => Promise.all(servers.map((each) => each.stop())));

async function own(config) {
  const each = await startServer(config);
  servers.push(each);
  return each;
}

const place = () => ({ stream_name: unique('s'), group_id: 'g' });
const set = (at, item_id, data, on = peer) => on.result('stream::set', { ...at, item_id, data, returning: 'none' });
const remove = (at, item_id) => peer.result('stream::delete', { ...at, item_id });
const send = (at, type, id) => peer.result('stream::send', { ...at, type, data: type, ...(id ? { id } : {}) });

/** Reading of some items. */
const reads = (at, ...items) => items.map((item) => ({ stream: at.stream_name, group: at.group_id, item, can: ['read'] }));
const queried = (path, grants) => `${path}${path.includes('?') ? '&' : '?'}grants=${encodeURIComponent(JSON.stringify(grants))}`;
const path = (at, item, query = '') => `/stream/${[at.stream_name, at.group_id, item].filter((name) => name !== undefined).map(encodeURIComponent).join('/')}${query}`;
const subscriber = (grants, what = '/') => server.subscriber(queried(what, grants));
const open = (grants, { path: what = '/', ...options } = {}) => Connection.open(server, { path: queried(what, grants), ...options });
const partly = (id, at, item) => Object.assign(new View(id, at.stream_name, at.group_id, item), { isPartial: true });

async function ask(what, options) {
  const response = await server.within(fetch(http(server) + what, options), what);
  const text = await response.text();
  const json = response.status === 200 ? JSON.parse(text) : undefined;
  return { status: response.status, tag: response.headers.get('etag'), text, json, ids: json?.items.map(({ id }) => id) };
}

/** Everything that can happen to an item. The last event of it is an update. */
async function history(at, id) {
  await set(at, id, { id, n: 1 });
  await peer.result('stream::update', { ...at, item_id: id, ops: [{ type: 'increment', path: 'n', by: 1 }] });
  await send(at, `on ${id}`, id);
  await remove(at, id);
  await set(at, id, { id, n: 2 });
}

const heard = ({ id, event }) => `${event.type === 'event' ? event.event.type : event.type} ${id}`;
const HISTORY = (id) => [`create ${id}`, `update ${id}`, `on ${id} ${id}`, `delete ${id}`, `create ${id}`];

test('version 1: a group shows what is granted, in its sync and in its events', async () => {
  const at = place();
  for (const id of ['mine:1', 'yours:1', 'mine:2']) await set(at, id, { id });
  for (const by of ['message', 'path']) {
    const one = await subscriber(reads(at, 'mine:*', 'end'), by === 'path' ? path(at) : '/');
    const all = await server.subscriber();
    const sync = by === 'path' ? await one.sync(at.stream_name, 'g') : await one.join(at.stream_name, 'g');
    assert.deepEqual(sync.event.data, [{ id: 'mine:1' }, { id: 'mine:2' }], by);
    await all.join(at.stream_name, 'g');
    await history(at, 'yours:2');
    await history(at, 'mine:3');
    await send(at, 'to all');
    await set(at, 'end', 0);
    await one.take((frame) => frame.id === 'end', 'the end');
    await all.take((frame) => frame.id === 'end', 'the end');
    assert.deepEqual(one.frames.map(heard), [...HISTORY('mine:3'), 'to all null'], by);
    assert.deepEqual(all.frames.map(heard), [...HISTORY('yours:2'), ...HISTORY('mine:3'), 'to all null'], 'they happened');
    for (const id of ['yours:2', 'mine:3', 'end']) await remove(at, id);
    await Promise.all([one.close(), all.close()]);
  }
});

test('version 1: an item may be joined by whoever may read it, a group by whoever may read anything of it', async () => {
  const at = place();
  await set(at, 'mine', 1);
  await set(at, 'yours', 2);
  const one = await subscriber(reads(at, 'mine'));
  const answer = async (...target) => {
    const { event } = await one.join(...target);
    return event.type === 'sync' ? event.data : event.type;
  };
  assert.deepEqual(await answer(at.stream_name, 'g', 'mine'), 1);
  assert.deepEqual(await answer(at.stream_name, 'g', 'yours'), 'unauthorized');
  assert.deepEqual(await answer(at.stream_name, 'g', 'not there'), 'unauthorized', 'whether it is there is not told');
  assert.deepEqual(await answer(at.stream_name, 'other'), 'unauthorized');
  assert.deepEqual(await answer(unique('other'), 'g', 'mine'), 'unauthorized');
  assert.deepEqual(await answer(at.stream_name, 'g'), [1]);
  for (const what of [path(at, 'yours'), path({ ...at, group_id: 'other' })]) {
    const refused = await subscriber(reads(at, 'mine'), what);
    assert.equal((await refused.next()).event.type, 'unauthorized', what);
  }
  const nothing = await subscriber([]);
  assert.equal((await nothing.join(at.stream_name, 'g')).event.type, 'unauthorized');
  const writer = await subscriber([{ stream: '*', group: '*', can: ['set', 'update', 'delete', 'send'] }]);
  assert.equal((await writer.join(at.stream_name, 'g')).event.type, 'unauthorized', 'who may write may not read');
});

test('without grants everything may be read', async () => {
  const at = place();
  await set(at, 'i', 1);
  const one = await server.subscriber();
  assert.deepEqual((await one.join(at.stream_name, 'g')).event.data, [1]);
});

for (const deltas of [false, true]) {
  test(`version 2${deltas ? ' with deltas' : ''}: snapshot, events and resume show what is granted`, async () => {
    const at = place();
    for (const id of ['mine:1', 'yours:1', 'mine:2']) await set(at, id, { id, n: 0 });
    const grants = reads(at, 'mine:*');
    const ids = async () => Object.fromEntries(Object.entries(await standing(peer, at)).filter(([id]) => id.startsWith('mine:')));
    const view = partly('v', at);
    const item = partly('i', at, 'mine:1');
    const first = await open(grants, { deltas });
    first.join(view);
    first.join(item);
    await first.until(() => view.isLive && item.isLive, 'both live');
    assert.deepEqual(view.shown(), await ids());
    await history(at, 'yours:2');
    await history(at, 'mine:1');
    await send(at, 'to all');
    let last = (await set(at, 'mine:end', 0)).seq;
    await first.until(() => view.cursor === last, 'the end');
    assert.deepEqual(view.shown(), await ids());
    assert.deepEqual(view.events.map(({ type }) => type), ['on mine:1', 'to all']);
    assert.equal(view.epoch, item.epoch, 'one history for all subscriptions of a group');
    first.cut();
    // Away, and back with the same grants.
    await history(at, 'yours:2');
    await history(at, 'mine:2');
    await remove(at, 'mine:1');
    last = (await set(at, 'mine:end', 1)).seq;
    view.told = [];
    const second = await open(grants, { deltas });
    second.join(view);
    await second.until(() => view.cursor === last, 'the end again');
    assert.deepEqual([view.resumes, view.resets, view.told.length], [1, 0, HISTORY('mine:2').length + 2]);
    assert.deepEqual(view.shown(), await ids());
    second.cut();
    // Back with others: what was not shown then may have to be shown now.
    for (const [more, pattern] of [[reads(at, 'mine:*', 'yours:*'), /^(mine|yours):/], [reads(at, '*'), /./], [grants, /^mine:/]]) {
      const resets = view.resets;
      const other = await open(more, { deltas });
      other.join(view);
      await other.until(() => view.isLive, 'a snapshot');
      assert.equal(view.resets, resets + 1, 'a position of other grants is no position');
      const shown = Object.entries(await standing(peer, at)).filter(([id]) => pattern.test(id));
      assert.deepEqual(view.shown(), Object.fromEntries(shown));
      other.cut();
    }
  });
}

test('version 2: a refusal names its subscription', async () => {
  const at = place();
  const one = await open(reads(at, 'mine'));
  for (const id of [undefined, 'yours']) {
    const group_id = id ? 'g' : 'other';
    one.send({ type: 'join', data: { subscriptionId: 's', streamName: at.stream_name, groupId: group_id, id, version: 2 } });
    const { subscriptionId, event, groupId } = await one.next();
    assert.deepEqual({ subscriptionId, event, groupId }, { subscriptionId: 's', event: { type: 'unauthorized' }, groupId: group_id });
  }
});

test('pages without anything to show are passed over, and told of where there are very many', async () => {
  const at = place();
  const text = 'x'.repeat(1 << 20);
  // Each is a page of its own.
  for (const n of range(34)) await set(at, n === 3 ? 'mine:1' : `yours:${n}`, text);
  await set(at, 'mine:2', 2);
  const one = await open(reads(at, 'mine:*'));
  const view = partly('v', at);
  one.join(view);
  await one.until(() => view.isLive, 'the last page');
  assert.deepEqual([...view.items.keys()], ['mine:1', 'mine:2']);
  // After the first there are 30 pages with nothing.
  assert.deepEqual(view.pages, [1, 0, 1]);
  await set(at, 'yours:0', 1);
  const { seq } = await set(at, 'mine:2', 3);
  await one.until(() => view.cursor === seq, 'an event after the pages');

  const [ids, pages] = [[], []];
  for (let after = 0; after !== undefined;) {
    const { json } = await ask(queried(path(at, undefined, `?after=${after}`), reads(at, 'mine:*')));
    ids.push(...json.items.map(({ id }) => id));
    pages.push(json.items.length);
    after = json.after;
  }
  assert.deepEqual([ids, pages], [['mine:1', 'mine:2'], [1, 0, 1]]);
});

test('plain HTTP shows what is granted, and its tags belong to that', async () => {
  const at = place();
  for (const id of ['mine:1', 'yours:1', 'mine:2']) await set(at, id, { id });
  const [mine, yours, all] = [reads(at, 'mine:*'), reads(at, 'yours:*'), reads(at, '*')];
  const get = (grants, item, headers = {}) => ask(queried(path(at, item), grants), { headers });
  const [asMine, asYours, asAll] = [await get(mine), await get(yours), await get(all)];
  assert.deepEqual([asMine.ids, asYours.ids, asAll.ids], [['mine:1', 'mine:2'], ['yours:1'], ['mine:1', 'yours:1', 'mine:2']]);
  assert.equal((await get(mine, undefined, { 'If-None-Match': asMine.tag })).status, 304);
  for (const grants of [yours, all]) {
    const changed = await get(grants, undefined, { 'If-None-Match': asMine.tag });
    assert.equal(changed.status, 200, 'a tag is of no use with other grants');
  }
  assert.deepEqual((await get(mine, 'mine:1')).ids, ['mine:1']);
  for (const [grants, item] of [[mine, 'yours:1'], [mine, 'not there'], [[], undefined], [reads({ ...at, group_id: 'h' }, '*'), undefined]]) {
    const { status, text } = await get(grants, item);
    assert.equal(status, 403, text);
    assert.match(text, /may read nothing/);
  }
});

test('server-sent events show what is granted, and resume by their ids', async () => {
  const at = place();
  for (const id of ['mine:1', 'yours:1']) await set(at, id, { id });
  const what = queried(path(at), reads(at, 'mine:*'));
  const first = await EventStream.open(server, what);
  const sync = await first.take();
  assert.deepEqual(sync.json.event.items.map(({ id }) => id), ['mine:1']);
  await history(at, 'yours:2');
  await history(at, 'mine:2');
  const events = [];
  for (const _ of HISTORY('mine:2')) events.push((await first.take()).json);
  assert.deepEqual(events.map(heard), HISTORY('mine:2'));
  assert.equal(first.lastEventId, `${sync.json.epoch}:${events.at(-1).seq}`);
  first.controller.abort();
  await set(at, 'yours:1', 2);
  await set(at, 'mine:1', 3);
  const second = await EventStream.open(server, what, { since: first.lastEventId });
  assert.equal((await second.take()).json.event.mode, 'resume');
  assert.equal(heard((await second.take()).json), 'update mine:1');
  second.controller.abort();
  const third = await EventStream.open(server, queried(path(at), reads(at, '*')), { since: first.lastEventId });
  const { event } = (await third.take()).json;
  assert.deepEqual([event.reset, event.items.length], [true, 4], 'a position of other grants is no position');
  third.controller.abort();
  for (const item of [undefined, 'yours:1']) {
    const refused = await EventStream.open(server, queried(path(at, item), item ? reads(at, 'mine:*') : []));
    assert.equal(refused.status, 403);
  }
});

test('version 2: a subscriber that events have passed by is made good for with what is granted', async () => {
  const at = place();
  for (const id of ['mine', 'yours']) await set(at, id, { id, n: 0 });
  const one = await open(reads(at, 'i*', 'mine'));
  const view = partly('v', at);
  one.join(view);
  await one.until(() => view.isLive, 'a snapshot');
  one.ws.pause();
  await untilMissed(server, peer, at);
  await set(at, 'yours', { id: 'yours', n: 1 });
  const { seq } = await set(at, 'mine', { id: 'mine', n: 1 });
  one.ws.resume();
  await one.until(() => view.cursor >= seq, 'the last change');
  assert.ok(view.resumes + view.snapshots > 1, 'it was made good for');
  const shown = Object.entries(await standing(peer, at)).filter(([id]) => id !== 'yours');
  assert.deepEqual(view.shown(), Object.fromEntries(shown));
  one.cut();
});

test('version 1: a subscriber that events have passed by gets a sync of what is granted', async () => {
  const at = place();
  for (const id of ['mine', 'yours']) await set(at, id, { id, n: 0 });
  const one = await subscriber(reads(at, 'i*', 'mine'));
  await one.join(at.stream_name, 'g');
  one.ws.pause();
  await untilMissed(server, peer, at);
  await set(at, 'yours', { id: 'yours', n: 1 });
  await set(at, 'mine', { id: 'mine', n: 1 });
  one.ws.resume();
  const { event } = await one.event('sync');
  const ids = event.data.map(({ id }) => id).filter((id) => id !== undefined);
  assert.deepEqual([ids, event.data.length], [['mine'], 8], 'mine and seven that are written to');
  assert.ok(one.frames.every(({ id }) => id !== 'yours'));
});

test('guards are asked after the grants, and only where these allow', async () => {
  const at = place();
  const asked = new Record(server);
  const fn = unique('guard');
  sdk.registerFunction(fn, async (input) => { asked.push(input.id); return { unauthorized: input.id === 'b' }; });
  sdk.registerTrigger({ type: 'stream:join', function_id: fn, config: { stream_name: at.stream_name } });
  await settled(sdk);
  const one = await subscriber(reads(at, 'a', 'b'));
  const answers = [];
  for (const id of ['a', 'b', 'c']) answers.push((await one.join(at.stream_name, 'g', id)).event.type);
  assert.deepEqual(answers, ['sync', 'unauthorized', 'unauthorized']);
  assert.deepEqual(asked.items, ['a', 'b']);
  assert.equal((await ask(queried(path(at, 'c'), reads(at, 'a', 'b')))).status, 403);
  assert.deepEqual(asked.items, ['a', 'b']);
});

test('of a stream that a worker keeps, the values whose id is granted', async () => {
  const at = place();
  const values = [{ id: 'mine:1' }, { id: 'yours:1' }, { n: 'no id' }, 7, { id: 'mine:2' }];
  createStream(sdk, at.stream_name, {
    get: async ({ item_id }) => ({ id: item_id }), set: async ({ data }) => ({ old_value: null, new_value: data }),
    delete: async () => ({ old_value: null }), list: async () => values, listGroups: async () => ['g'],
  });
  await settled(sdk);
  const one = await subscriber(reads(at, 'mine:*'));
  assert.deepEqual((await one.join(at.stream_name, 'g')).event.data, [{ id: 'mine:1' }, { id: 'mine:2' }]);
  assert.deepEqual((await one.join(at.stream_name, 'g', 'mine:3')).event.data, { id: 'mine:3' });
  assert.equal((await one.join(at.stream_name, 'g', 'yours:1')).event.type, 'unauthorized');
  for (const item_id of ['yours:1', 'mine:1']) await set(at, item_id, { id: item_id });
  assert.equal((await one.next()).id, 'mine:1');
  const all = await server.subscriber();
  assert.deepEqual((await all.join(at.stream_name, 'g')).event.data, values);
});

test('grants that cannot be read let nobody in: 503, and the log says what is wrong', async () => {
  for (const [grants, named] of [
    [null, 'a list of grants'], [{ can: ['read'] }, 'a list of grants'], ['read', 'a list of grants'], [[{ stream: '*', group: '*', can: ['write'] }], '`write`'],
    [[{ groups: 'g', can: ['read'] }], '`groups`'], [[{ stream: null, can: ['read'] }], 'null'], [[{ group: '', can: ['read'] }], 'empty'], [[{ stream: 's', group: undefined, can: ['read'] }], '`group`'], [[{ stream: 's', group: 'g' }], '`can`'],
  ]) {
    const before = server.log.length;
    const refused = await rejection(subscriber(grants), JSON.stringify(grants));
    assert.equal(refused.status, 503, JSON.stringify(grants));
    assert.match(refused.headers['retry-after'] ?? '', /^\d+$/);
    assert.ok(server.log.slice(before).includes(named), `${named} in the log`);
    assert.equal((await ask(queried('/stream/s/g', grants))).status, 503);
  }
});

test('where there is no auth function, default_grants say what may be read', async () => {
  const open = await own({ stream: { default_grants: [{ stream: 'open', group: '*', can: ['read'] }, { stream: 'half', group: '*', item: 'a*', can: ['read'] }] } });
  const by = await open.peer();
  for (const stream_name of ['open', 'half', 'closed']) for (const item_id of ['a', 'b']) await set({ stream_name, group_id: 'g' }, item_id, item_id, by);
  const one = await open.subscriber();
  const shown = async (stream) => {
    const { event } = await one.join(stream, 'g');
    return event.data ?? event.type;
  };
  assert.deepEqual([await shown('open'), await shown('half'), await shown('closed')], [['a', 'b'], ['a'], 'unauthorized']);
  const statuses = await Promise.all(['open', 'half', 'closed'].map(async (name) => (await fetch(`${http(open)}/stream/${name}/g`)).status));
  assert.deepEqual(statuses, [200, 200, 403]);
});

/** Matches by trying everything: easy to believe, and slow. */
function matches(pattern, name) {
  if (pattern === '') return name === '';
  if (pattern[0] !== '*') return name[0] === pattern[0] && matches(pattern.slice(1), name.slice(1));
  return range(name.length + 1).some((from) => matches(pattern.slice(1), name.slice(from)));
}

test('random grants and random writes: what clients hear is what they may read, all of it', async () => {
  const roll = dice(Number(process.env.GRANTS_SEED ?? 7));
  const pick = (list) => list[roll(list.length)];
  const IDS = ['a', 'b', 'aa', 'ab', 'ba', 'aab', 'bab'];
  for (const round of range(6)) {
    const at = place();
    const write = async () => {
      const item_id = pick(IDS);
      const kind = roll(5);
      if (kind < 2) return set(at, item_id, { n: roll(100) });
      if (kind === 2) return peer.result('stream::update', { ...at, item_id, ops: [{ type: 'increment', path: 'n', by: 1 }] });
      if (kind === 3) return remove(at, item_id);
      return send(at, 'note', item_id);
    };
    for (const _ of range(10)) await write();
    const clients = await Promise.all(range(8).map(async (n) => {
      const patterns = range(1 + roll(2)).map(() => pick(['*', 'a', 'b*', '*b', 'a*b', '*a*', '*ab', 'x']));
      const granted = [...reads(at, ...patterns, 'end'), { stream: 'another', group: '*', can: ['read'] }, { stream: '*', group: '*', item: 'b', can: ['set'] }];
      const deltas = roll(2) === 1;
      const connection = await open(granted, { deltas });
      const view = partly(`v${n}`, at);
      return { connection, view, patterns: [...patterns, 'end'], granted, deltas, raw: [] };
    }));
    const attach = (client) => client.connection.ws.on('message', (data) => client.raw.push(JSON.parse(data)));
    for (const client of clients) {
      attach(client);
      client.connection.join(client.view);
    }
    for (const step of range(60)) {
      await write();
      if (step % 20 !== 19) continue;
      // One goes and comes back.
      const client = pick(clients);
      await client.connection.until(() => client.view.isLive, 'live before it goes');
      client.connection.cut();
      for (const _ of range(3)) await write();
      client.connection = await open(client.granted, { deltas: client.deltas });
      attach(client);
      client.connection.join(client.view);
    }
    const { seq } = await set(at, 'end', 0);
    const state = await standing(peer, at);
    for (const { connection, view, patterns, raw } of clients) {
      await connection.until(() => view.cursor >= seq, `the end of round ${round}`);
      const may = (id) => patterns.some((pattern) => matches(pattern, id));
      const ids = raw.flatMap(({ id, event }) => (event.type === 'sync' ? event.items?.map((item) => item.id) ?? [] : [id]));
      assert.deepEqual(ids.filter((id) => !may(id)), [], `${patterns}: nothing else was heard`);
      assert.deepEqual(view.shown(), Object.fromEntries(Object.entries(state).filter(([id]) => may(id))), `${patterns}: all of it is shown`);
      assert.ok(ids.length > 0);
      connection.cut();
    }
  }
});
