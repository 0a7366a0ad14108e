// Groups and items over plain HTTP, as curl, fetch and a cache between see them (design §5): pages, tags, guards, and what is refused.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Record, settled, startServer, unique } from './harness.mjs';
import { atRest, GET, http, metricsWhen, range, Tcp } from './raw.mjs';

const servers = [];
let server;
let peer;
before(async () => {
  server = await own({ stream: { handshake_timeout_ms: 1_500 } });
  peer = await server.peer();
});
after(() => Promise.all(servers.map((each) => each.stop())));

async function own(config) {
  const each = await startServer(config);
  servers.push(each);
  return each;
}

const place = () => ({ stream_name: unique('s'), group_id: 'g' });
const path = ({ stream_name, group_id, item_id }) => `/stream/${[stream_name, group_id, item_id].filter((name) => name !== undefined).map(encodeURIComponent).join('/')}`;
const set = (at, item_id, data, on = peer) => on.result('stream::set', { ...at, item_id, data, returning: 'none' });

/** A request as fetch sends it: `{ status, headers, text, json }`. */
async function ask(what, { on = server, ...options } = {}) {
  const response = await on.within(fetch(http(on) + what, options), what);
  const text = await response.text();
  const isJson = (response.headers.get('content-type') ?? '').startsWith('application/json') && text !== '';
  return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined };
}

test('a group is JSON with everything that is needed to go on from there', async () => {
  const at = place();
  for (const n of [1, 2, 3]) await set(at, `i${n}`, { n });
  await set(at, 'i1', { n: 4 });
  await peer.result('stream::delete', { ...at, item_id: 'i2' });
  const { status, headers, json } = await ask(path(at));
  assert.equal(status, 200);
  assert.match(headers.get('content-type'), /^application\/json/);
  assert.match(json.epoch, /^[a-z0-9]+$/);
  assert.deepEqual(json, { streamName: at.stream_name, groupId: 'g', id: null, epoch: json.epoch, seq: 5,
    items: [{ id: 'i1', seq: 4, data: { n: 4 } }, { id: 'i3', seq: 3, data: { n: 3 } }], more: false });
  // The same with a slash, and for who connects from here: nothing is missed between the two.
  assert.deepEqual((await ask(`${path(at)}/`)).json, json);
  const subscriber = await server.subscriber(`${path(at)}?v=2&since=${json.epoch}:${json.seq}`);
  assert.deepEqual((await subscriber.next()).event, { type: 'sync', mode: 'resume', from: 5 });
  await subscriber.close();
});

test('an item is JSON by itself; one that is not there has no items, nor has a group that is empty', async () => {
  const at = place();
  await set(at, 'there', { a: 'é🦀' });
  await set(at, 'other', 1);
  const { json } = await ask(path({ ...at, item_id: 'there' }));
  assert.deepEqual(json, { streamName: at.stream_name, groupId: 'g', id: 'there', epoch: json.epoch, seq: 2, items: [{ id: 'there', seq: 1, data: { a: 'é🦀' } }], more: false });
  const missing = await ask(path({ ...at, item_id: 'missing' }));
  assert.deepEqual([missing.status, missing.json.items, missing.json.more], [200, [], false]);
  const empty = await ask(path(place()));
  assert.deepEqual([empty.status, empty.json.items, empty.json.more, empty.json.seq], [200, [], false, 0]);
});

test('2,500 items come in pages that ?after= goes through, each once and in order', async () => {
  const at = place();
  for (const n of range(2_500)) peer.void('stream::set', { ...at, item_id: `i${n}`, data: n });
  await peer.settled();
  // One that was changed keeps its place; one that was deleted and comes again is the last.
  await set(at, 'i0', 'changed');
  await peer.result('stream::delete', { ...at, item_id: 'i1' });
  await set(at, 'i1', 'again');
  const seen = [];
  const sizes = [];
  let query = '';
  for (;;) {
    const { json, headers } = await ask(path(at) + query);
    seen.push(...json.items);
    sizes.push(json.items.length);
    assert.equal(json.more, json.after !== undefined);
    assert.ok(headers.get('etag'));
    if (!json.more) break;
    query = `?after=${json.after}`;
  }
  assert.deepEqual(sizes, [1_000, 1_000, 500]);
  assert.deepEqual(seen.map(({ id }) => id), ['i0', ...range(2_500).slice(2).map((n) => `i${n}`), 'i1']);
  assert.deepEqual([seen[0].data, seen.at(-1).data], ['changed', 'again']);
  assert.deepEqual((await ask(`${path(at)}?after=1000000`)).json.items, []);
});

test('large items make pages smaller: an item that goes beyond 1 MiB is the last one', async () => {
  const at = place();
  for (const n of range(5)) await set(at, `i${n}`, 'x'.repeat(400_000));
  await set(at, 'huge', 'y'.repeat(3_000_000));
  const sizes = [];
  for (let after = 0; after !== undefined;) {
    const { json, text } = await ask(`${path(at)}?after=${after}`);
    sizes.push(json.items.length);
    // The last one of a page may be of any size.
    const rest = text.length - JSON.stringify(json.items.at(-1)).length;
    assert.ok(rest < 1024 * 1024, `${rest}`);
    after = json.after;
  }
  assert.equal(sizes.reduce((sum, n) => sum + n), 6);
  assert.ok(sizes.length >= 2, `${sizes}`);
});

test('a group\'s tag changes with every change of it, and saves the answer until then', async () => {
  const at = place();
  await set(at, 'i', 1);
  const first = await ask(path(at));
  const tag = first.headers.get('etag');
  const again = (value, more = '') => ask(path(at) + more, { headers: { 'If-None-Match': value } });
  for (const value of [tag, `W/${tag}`, `"other", ${tag}`, '*']) {
    const { status, text, headers } = await again(value);
    assert.deepEqual([status, text, headers.get('etag')], [304, '', tag], value);
  }
  assert.equal((await again('"other"')).status, 200);
  assert.equal((await again(tag, '?after=1')).status, 200, 'another page is something else');
  await set(at, 'j', 2);
  const changed = await again(tag);
  assert.equal(changed.status, 200);
  assert.notEqual(changed.headers.get('etag'), tag);
  await peer.result('stream::delete', { ...at, item_id: 'j' });
  assert.equal((await again(tag)).status, 200, 'as it was, but at another position');
});

test('an item\'s tag changes only with the item, and says that the rest of the answer may differ', async () => {
  const at = { ...place(), item_id: 'i' };
  const tagged = async () => (await ask(path(at))).headers.get('etag');
  const absent = await tagged();
  await set(at, 'i', 1);
  const tag = await tagged();
  assert.notEqual(tag, absent);
  await set(at, 'other', 1);
  assert.equal(await tagged(), tag);
  // The position of the group has changed meanwhile, and the bytes with it: such a tag is weak by RFC 9110, section 8.8.1.
  assert.match(tag, /^W\/"/);
  const { status } = await ask(path(at), { headers: { 'If-None-Match': tag } });
  assert.equal(status, 304);
  await set(at, 'i', 2);
  assert.equal((await ask(path(at), { headers: { 'If-None-Match': tag } })).status, 200);
  const tags = [absent, tag, await tagged()];
  await peer.result('stream::delete', at);
  tags.push(await tagged());
  await set(at, 'i', 1);
  tags.push(await tagged());
  assert.equal(new Set([...tags.slice(0, 3), tags[4]]).size, 4, `${tags}`);
});

test('caches may keep an answer but must ask, and are told what it depends on', async () => {
  const at = place();
  for (const headers of [{}, { Origin: 'https://app.example' }]) {
    const answer = await ask(path(at), { headers });
    assert.equal(answer.headers.get('cache-control'), 'no-cache');
    const vary = answer.headers.get('vary').toLowerCase().split(/, */);
    assert.ok(vary.includes('accept') && vary.includes('origin'), `${vary}`);
  }
  const guarded = await own({ stream: { auth_function: 'my::auth' } });
  const worker = guarded.sdk();
  worker.registerFunction('my::auth', async () => ({ context: null }));
  await settled(worker);
  assert.equal((await ask(path(at), { on: guarded })).headers.get('cache-control'), 'private, no-cache', 'what not everybody may see');
});

test('HEAD is GET without the body', async () => {
  const at = place();
  await set(at, 'i', 'x'.repeat(1_000));
  const get = await ask(path(at));
  for (const headers of [{}, { Accept: 'text/event-stream' }]) {
    const head = await ask(path(at), { method: 'HEAD', headers });
    assert.deepEqual([head.status, head.text, head.headers.get('etag')], [200, '', get.headers.get('etag')]);
    assert.equal(Number(head.headers.get('content-length')), get.text.length);
  }
  assert.equal((await ask(path(at), { method: 'HEAD', headers: { 'If-None-Match': get.headers.get('etag') } })).status, 304);
});

test('what writes is 405 and says what is allowed, here and where to write', async () => {
  const at = place();
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'PROPFIND']) {
    const { status, headers, text } = await ask(path(at), { method, ...(method === 'POST' && { body: 'x'.repeat(100_000) }) });
    assert.deepEqual([status, headers.get('allow')], [405, 'GET, HEAD, OPTIONS'], method);
    assert.match(text, /stream::set/);
  }
  // Who sends much is answered all the same, and the connection is not to be used again.
  const raw = await Tcp.connect(server, server.subscribers, `POST ${path(at)} HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n`);
  raw.write(Buffer.alloc(2_000_000));
  const { status, headers } = await raw.answer();
  assert.deepEqual([status, headers.connection], [405, 'close']);
  await server.within(raw.closed, 'the connection to be closed');
});

test('names are percent-encoded, whatever they are', async () => {
  for (const [stream_name, group_id, item_id] of [['a/b', 'c d', 'e?f'], ['é', '🦀', '%'], ['..', '.', '#x'], ['a+b', 'c&d=e', ';'], ['"', '\\', '\n'], ['x'.repeat(1_024), 'g', 'i']]) {
    const at = { stream_name, group_id };
    await set(at, item_id, 'here');
    // Not by fetch, which takes dots for folders even when they are encoded.
    const raw = await Tcp.connect(server, server.subscribers);
    const encode = (name) => encodeURIComponent(name).replaceAll('.', '%2E');
    raw.write(GET(`/stream/${[stream_name, group_id, item_id].map(encode).join('/')}`));
    const { status, body } = await raw.answer();
    assert.equal(status, 200);
    const json = JSON.parse(body);
    assert.deepEqual([json.streamName, json.groupId, json.id, json.items[0].data], [stream_name, group_id, item_id, 'here']);
    raw.destroy();
  }
});

test('paths that there are not are 404, and / wants an upgrade', async () => {
  for (const what of ['/x', '/stream', '/stream/', '/stream/a', '/stream/a/', '/stream/a/b/c/d', '/stream//b', '/stream/a/%ff', '/streams/a/b', `/stream/a/${'x'.repeat(1_025)}`]) {
    const { status, text, headers } = await ask(what);
    assert.equal(status, 404, what);
    assert.match(text, /\/stream\/\{stream\}\/\{group\}/);
    assert.match(headers.get('content-type'), /^text\/plain/);
  }
  const { status, text, headers } = await ask('/');
  assert.deepEqual([status, headers.get('upgrade')], [426, 'websocket'], 'RFC 9110, section 15.5.22');
  assert.match(text, /WebSocket/);
});

test('a bad ?after= or ?since= is 400 and says which and how', async () => {
  const at = place();
  for (const value of ['-1', 'x', '', '1.5', '1e3', '99999999999999999999999']) {
    const { status, text } = await ask(`${path(at)}?after=${value}`);
    assert.equal(status, 400, value);
    assert.match(text, /`after` must be/);
  }
  for (const value of ['57', 'k3', 'k3:', ':57', 'K3:57', 'k3:-1', 'k3:x']) {
    for (const headers of [{}, { Accept: 'text/event-stream' }]) {
      const { status, text } = await ask(`${path(at)}?since=${value}`, { headers });
      assert.equal(status, 400, value);
      assert.match(text, /`since` must look like/);
    }
  }
  // What is not ours belongs to the application.
  assert.equal((await ask(`${path(at)}?token=x&colour=red&v=9`)).status, 200);
});

test('pages of any origin may read where no origins are configured', async () => {
  const at = place();
  const origin = 'https://app.example';
  const { headers } = await ask(path(at), { headers: { Origin: origin } });
  assert.equal(headers.get('access-control-allow-origin'), origin);
  assert.match(headers.get('access-control-expose-headers'), /ETag/i);
  assert.equal(headers.get('access-control-allow-credentials'), null, 'cookies only to pages that are known');
  const preflight = await ask(path(at), { method: 'OPTIONS', headers: { Origin: origin, 'Access-Control-Request-Method': 'GET', 'Access-Control-Request-Headers': 'authorization' } });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get('access-control-allow-origin'), origin);
  assert.match(preflight.headers.get('access-control-allow-headers'), /authorization/i);
  assert.match(preflight.headers.get('access-control-allow-methods'), /GET/);
  assert.ok(Number(preflight.headers.get('access-control-max-age')) > 0);
  assert.equal((await ask(path(at))).headers.get('access-control-allow-origin'), null, 'who asks from no page needs none');
});

test('only pages of allowed_origins may read, with their cookies, and refusals too', async () => {
  const [origin, other] = ['https://app.example', 'https://evil.example'];
  const picky = await own({ stream: { allowed_origins: [origin], auth_function: 'my::auth' } });
  const worker = picky.sdk();
  worker.registerFunction('my::auth', async ({ headers }) => {
    if (headers.cookie !== 'session=1') throw new Error('who is that?');
    return { context: {} };
  });
  await settled(worker);
  const from = (Origin, more = {}, method = 'GET') => ask('/stream/a/b', { on: picky, method, headers: { Origin, ...more } });
  for (const [answer, status] of [[await from(origin, { Cookie: 'session=1' }), 200], [await from(origin), 401], [await from(origin, {}, 'POST'), 405],
    [await ask('/x', { on: picky, headers: { Origin: origin } }), 404], [await ask('/stream/a/b?after=x', { on: picky, headers: { Origin: origin } }), 400]]) {
    assert.equal(answer.status, status);
    assert.equal(answer.headers.get('access-control-allow-origin'), origin, `${status}: a page must be able to see why`);
    assert.equal(answer.headers.get('access-control-allow-credentials'), 'true');
    assert.match(answer.headers.get('vary'), /origin/i);
  }
  for (const answer of [await from(other, { Cookie: 'session=1' }), await from('null', { Cookie: 'session=1' }), await from(`${origin}.evil.example`)]) {
    assert.equal(answer.status, 403);
    assert.equal(answer.headers.get('access-control-allow-origin'), null);
  }
  const preflight = (Origin) => ask('/stream/a/b', { on: picky, method: 'OPTIONS', headers: { Origin, 'Access-Control-Request-Method': 'GET' } });
  assert.equal((await preflight(origin)).headers.get('access-control-allow-origin'), origin, 'a preflight comes without cookies');
  assert.equal((await preflight(other)).headers.get('access-control-allow-origin'), null);
  assert.equal((await ask('/stream/a/b', { on: picky, headers: { Cookie: 'session=1' } })).status, 200, 'programs send no origin');
});

test('the auth function decides over HTTP as over the socket', async () => {
  const guarded = await own({ stream: { auth_function: 'my::auth', auth_timeout_ms: 500 } });
  const missing = await ask('/stream/a/b', { on: guarded });
  assert.equal(missing.status, 503);
  assert.match(missing.headers.get('retry-after'), /^\d+$/);
  const worker = guarded.sdk();
  const inputs = new Record(guarded);
  const now = () => Math.floor(Date.now() / 1_000);
  const parts = { ok: () => ({ context: { n: 1 } }), no: () => { throw new Error('secret reason'); }, text: () => 'yes', never: () => new Promise(() => {}), past: () => ({ context: {}, expires_at: now() - 10 }), soon: () => ({ context: {}, expires_at: now() + 60 }) };
  worker.registerFunction('my::auth', async (input) => { inputs.push(input); return parts[input.query_params.mode[0]](input); });
  await settled(worker);
  const status = async (mode) => (await ask(`/stream/a/b%20c?mode=${mode}&after=0`, { on: guarded, headers: { Authorization: 'Bearer t', 'X-Custom': 'v' } }));
  assert.equal((await status('ok')).status, 200);
  const { headers, ...rest } = inputs.items[0];
  assert.deepEqual(rest, { path: '/stream/a/b%20c', query_params: { mode: ['ok'], after: ['0'] }, addr: '127.0.0.1' });
  assert.deepEqual([headers.authorization, headers['x-custom']], ['Bearer t', 'v']);
  const refused = await status('no');
  assert.equal(refused.status, 401);
  assert.ok(!refused.text.includes('secret'), refused.text);
  for (const mode of ['text', 'never']) {
    const answer = await status(mode);
    assert.equal(answer.status, 503, mode);
    assert.match(answer.headers.get('retry-after'), /^\d+$/);
  }
  assert.equal((await status('soon')).status, 200);
  assert.equal((await status('past')).status, 401, 'a permission that is over permits nothing');
  const stale = await status('ok');
  assert.equal((await ask('/stream/a/b%20c?mode=no', { on: guarded, headers: { 'If-None-Match': stale.headers.get('etag') } })).status, 401, 'a tag opens no door');
});

test('require_context holds over HTTP', async () => {
  const strict = await own({ stream: { auth_function: 'my::auth', require_context: true } });
  const worker = strict.sdk();
  worker.registerFunction('my::auth', async ({ query_params: { who } }) => ({ context: who ? { who: who[0] } : null }));
  await settled(worker);
  assert.equal((await ask('/stream/a/b', { on: strict })).status, 401);
  assert.equal((await ask('/stream/a/b?who=me', { on: strict })).status, 200);
});

const bind = (worker, trigger_type, function_id, config) => worker.send({ type: 'registertrigger', id: randomUUID(), trigger_type, function_id, config });

test('join guards are asked, and leave triggers told of whoever was let in', async () => {
  const { stream_name } = place();
  const worker = await server.peer();
  const [joined, left] = [new Record(server), new Record(server)];
  const [guard, leave] = [unique('guard'), unique('leave')];
  worker.serve(guard, (input) => { joined.push(input); return { result: { unauthorized: input.group_id === 'secret' } }; });
  worker.serve(leave, (input) => { left.push(input); return { result: {} }; });
  bind(worker, 'stream:join', guard, { stream_name });
  bind(worker, 'stream:leave', leave, { stream_name });
  await worker.settled();
  const refused = await ask(`/stream/${stream_name}/secret`);
  assert.equal(refused.status, 403);
  assert.match(refused.text, /stream:join/);
  assert.equal((await ask(`/stream/${stream_name}/open/i`)).status, 200);
  assert.equal((await ask(`/stream/${stream_name}/open`, { headers: { 'If-None-Match': '*' } })).status, 304);
  await left.count(2);
  const visits = joined.items.slice(1);
  assert.deepEqual(left.items.map(({ subscription_id }) => subscription_id), visits.map(({ subscription_id }) => subscription_id));
  assert.deepEqual(visits.map(({ group_id, id }) => [group_id, id]), [['open', 'i'], ['open', null]]);
  assert.equal(new Set(joined.items.map(({ subscription_id }) => subscription_id)).size, 3);
});

test('who goes away while its guard is out has left exactly if it was let in, by JSON and by events', async () => {
  const quiet = await own();
  const { stream_name } = place();
  const worker = await quiet.peer();
  const [asked, left] = [new Record(quiet), new Record(quiet)];
  const [guard, leave] = [unique('guard'), unique('leave')];
  worker.serve(guard, (input, { invocation_id }) => { asked.push({ ...input, invocation_id }); });
  worker.serve(leave, (input) => { left.push(input.group_id); return { result: {} }; });
  bind(worker, 'stream:join', guard, { stream_name });
  bind(worker, 'stream:leave', leave, { stream_name });
  await worker.settled();
  const CASES = [['json-in', ''], ['json-out', ''], ['events-in', 'Accept: text/event-stream\r\n'], ['events-out', 'Accept: text/event-stream\r\n']];
  for (const [group, headers] of CASES) {
    const raw = await Tcp.connect(quiet, quiet.subscribers, GET(`/stream/${stream_name}/${group}`, headers));
    await asked.until((all) => all.some(({ group_id }) => group_id === group), `the guard of ${group}`);
    raw.destroy();
  }
  // Verdicts come only when the server has let all of them go.
  await metricsWhen(quiet, (m) => m['iii_stream_connections{port="subscribers"}'] === 0, 'all of them to be gone');
  assert.deepEqual(left.items, [], 'nobody knows yet whether they came in');
  for (const { group_id, invocation_id } of asked.items) {
    worker.send({ type: 'invocationresult', invocation_id, function_id: guard, result: { unauthorized: group_id.endsWith('-out') } });
  }
  await left.count(2);
  // A later visit's leave is the last: there are no others before it.
  const raw = await Tcp.connect(quiet, quiet.subscribers, GET(`/stream/${stream_name}/end`));
  const { invocation_id } = (await asked.until((all) => all.some(({ group_id }) => group_id === 'end'), 'the last guard')).at(-1);
  worker.send({ type: 'invocationresult', invocation_id, function_id: guard, result: {} });
  assert.equal((await raw.answer()).status, 200);
  raw.destroy();
  await left.until((all) => all.includes('end'), 'the last leave');
  assert.deepEqual([...left.items].sort(), ['end', 'events-in', 'json-in']);
});

test('what a worker keeps itself is 501, as JSON and as events', async () => {
  const { stream_name } = place();
  const owner = await server.peer();
  owner.serve(`stream::list(${stream_name})`, () => ({ result: [] }));
  owner.serve(`stream::get(${stream_name})`, () => ({ result: null }));
  await owner.settled();
  for (const what of [`/stream/${stream_name}/g`, `/stream/${stream_name}/g/i`]) {
    for (const headers of [{}, { Accept: 'text/event-stream' }]) {
      const { status, text } = await ask(what, { headers });
      assert.equal(status, 501);
      assert.match(text, /WebSocket/);
    }
  }
});

test('requests one after another on one connection are answered in order, also when they come at once', async () => {
  const at = place();
  const COUNT = 200;
  for (const n of range(COUNT)) await set(at, `i${n}`, n);
  const raw = await Tcp.connect(server, server.subscribers);
  raw.write(range(COUNT).map((n) => GET(path({ ...at, item_id: `i${n}` }))).join(''));
  for (const n of range(COUNT)) {
    const { status, body } = await raw.answer();
    assert.deepEqual([status, JSON.parse(body).items[0].data], [200, n]);
  }
  // The connection lives on: other kinds of answers, then an upgrade.
  raw.write(GET('/nothing') + GET(path(at), 'If-None-Match: *\r\n') + GET(path({ ...at, item_id: 'i7' })));
  assert.equal((await raw.answer()).status, 404);
  assert.equal((await raw.answer()).status, 304);
  assert.equal(JSON.parse((await raw.answer()).body).items[0].data, 7);
  raw.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n');
  assert.match(await raw.through('\r\n\r\n'), /^HTTP\/1\.1 101/);
  raw.destroy();
});

test('HTTP/1.0 without a Host is answered and closed', async () => {
  const at = place();
  await set(at, 'i', 1);
  const raw = await Tcp.connect(server, server.subscribers, `GET ${path(at)} HTTP/1.0\r\n\r\n`);
  assert.equal(JSON.parse((await raw.answer()).body).items[0].data, 1);
  await server.within(raw.closed, 'the end of the connection');
});

test('a head of 60 KiB is read, a larger one refused with 431', async () => {
  const at = place();
  const fits = await Tcp.connect(server, server.subscribers, GET(path(at), `X: ${'x'.repeat(60_000)}\r\n`));
  assert.equal((await fits.answer()).status, 200);
  fits.destroy();
  const tooLarge = await Tcp.connect(server, server.subscribers, GET(path(at), `X: ${'x'.repeat(500_000)}\r\n`));
  assert.match(await tooLarge.through('\r\n'), / 431 /);
  await server.within(tooLarge.closed, 'the refused to be closed');
  const tooMany = await Tcp.connect(server, server.subscribers, GET(path(at), range(2_000).map((n) => `X-${n}: 1\r\n`).join('')));
  assert.match(await tooMany.through('\r\n'), / 431 /);
  await server.within(tooMany.closed, 'the refused to be closed');
});

test('who sends a head byte by byte, or keeps a connection without asking, is closed in time', async () => {
  const begun = performance.now();
  const head = GET(path(place()));
  const drips = await Tcp.connect(server, server.subscribers);
  let sent = 0;
  const dripping = setInterval(() => { if (!drips.isClosed && sent < head.length - 2) drips.write(head[sent++]); }, 50);
  const keeps = await Tcp.connect(server, server.subscribers, head);
  assert.equal((await keeps.answer()).status, 200);
  // Many of them take nothing from anybody else.
  const crowd = await Promise.all(range(200).map(() => Tcp.connect(server, server.subscribers, 'GET /stream/a/b HTTP/1.1\r\nHost: ')));
  assert.equal((await ask(path(place()))).status, 200);
  await server.within(drips.closed, 'the slow one to be closed');
  await server.within(keeps.closed, 'the quiet one to be closed');
  await Promise.all(crowd.map((raw) => server.within(raw.closed, 'the crowd to be closed')));
  clearInterval(dripping);
  assert.ok(sent < head.length - 2, 'it had not come to its end');
  assert.ok(performance.now() - begun < 6_000, `${performance.now() - begun} ms`);
});

test('a request with a body is answered, and the body is not taken for a request', async () => {
  const at = place();
  const smuggled = GET('/stream/a/b');
  const raw = await Tcp.connect(server, server.subscribers, `POST ${path(at)} HTTP/1.1\r\nHost: x\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}${GET(path(at))}`);
  assert.equal((await raw.answer()).status, 405);
  const next = raw.isClosed ? undefined : await Promise.race([raw.answer().catch(() => undefined), raw.closed.then(() => undefined)]);
  if (next) assert.equal(JSON.parse(next.body).streamName, at.stream_name);
  for (const head of ['Content-Length: 5\r\nContent-Length: 6\r\n', 'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', 'Content-Length: x\r\n']) {
    const odd = await Tcp.connect(server, server.subscribers, `POST ${path(at)} HTTP/1.1\r\nHost: x\r\n${head}\r\n`);
    const { status } = await odd.answer();
    assert.ok([400, 405].includes(status), `${head}: ${status}`);
    odd.destroy();
  }
});

test('who asks for much and takes nothing of it is cut off, and its memory given back', async () => {
  const slow = await own({ stream: { blocked_timeout_ms: 1_000, handshake_timeout_ms: 60_000 } });
  const worker = await slow.peer();
  const at = place();
  await set(at, 'huge', 'x'.repeat(30_000_000), worker);
  const deaf = await Tcp.connect(slow, slow.subscribers);
  deaf.socket.pause();
  deaf.write(GET(path(at)));
  // One that reads, however slowly, is left alone: a little at a time, for longer than the bound.
  const steady = await Tcp.connect(slow, slow.subscribers, GET(path(at)));
  const begun = performance.now();
  let breath;
  steady.socket.on('data', () => { steady.socket.pause(); breath = setTimeout(() => steady.socket.resume(), 5); });
  // Only who reads sees the end of a connection: the server's own count tells of the one that does not.
  await metricsWhen(slow, (m) => m['iii_stream_slow_consumer_closed_total{reason="blocked"}'] === 1 && m['iii_stream_connections{port="subscribers"}'] < 2, 'the deaf one to be cut off', 30_000);
  assert.ok(performance.now() - begun >= 900, 'not before its time');
  const { status, body } = await steady.answer();
  assert.equal(status, 200);
  assert.ok(body.length > 30_000_000);
  clearTimeout(breath);
  deaf.destroy();
  steady.destroy();
  await atRest(slow, { workers: 1 });
});

test('while the server stops, connections that are kept are ended and nobody waits for them', async () => {
  const ending = await own({ stream: { drain_window_ms: 0 } });
  const kept = await Tcp.connect(ending, ending.subscribers, GET(path(place())));
  assert.equal((await kept.answer()).status, 200);
  const begun = performance.now();
  ending.signal('SIGTERM');
  await ending.within(kept.closed, 'the kept connection to be ended');
  assert.equal(kept.error, undefined);
  assert.equal((await ending.ended()).code, 0);
  assert.ok(performance.now() - begun < 1_000, `${performance.now() - begun} ms`);
});

test('nothing is left of all that', async () => {
  const metrics = await atRest(server, { workers: (await server.metrics())['iii_stream_connections{port="workers"}'] });
  assert.ok(metrics['iii_stream_requests_refused_total{port="subscribers",code="404"}'] > 0);
});
