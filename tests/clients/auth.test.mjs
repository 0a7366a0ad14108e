// The auth function: what it is given and what its answers do to an upgrade (stream-functions.md §9.3, design §6, §8).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Record, rejection, settled, startServer } from './harness.mjs';

const AUTH = 'my::auth';
let server;
let sdk;
let inputs;

// One function plays every part: the query parameter `mode` says which. Tests run in the order of this file; the
// first ones need a server that nobody has given the function yet.
const PARTS = {
  token: ({ headers }) => {
    const auth = headers.authorization?.replace(/^Bearer\s+/i, '');
    const proto = headers['sec-websocket-protocol'];
    // The test of the product document: it holds for browsers, which put a space after the comma, and for ws.
    const token = auth ?? (proto?.startsWith('Authorization,') ? proto.slice('Authorization,'.length).trim() : null);
    if (!['abc', 'x.y-z'].includes(token)) throw new Error('no such token');
    return { context: { token } };
  },
  null: () => ({ context: null }),
  empty: () => ({}),
  more: () => ({ context: { n: 1 }, colour: 'red' }),
  throws: () => { throw new Error('secret reason: no such user'); },
  nothing: () => undefined,
  text: () => 'let me in',
  number: () => 7,
  list: () => [{ context: {} }],
  yes: () => true,
  never: () => new Promise(() => {}),
};

before(async () => {
  server = await startServer({ stream: { auth_function: AUTH, auth_timeout_ms: 500 } });
  inputs = new Record(server);
});
after(() => server?.stop());

const refused = (path, options) => rejection(server.subscriber(path, options), `the upgrade of ${path}`);

test('a missing auth function lets nobody in: 503 with Retry-After', async () => {
  for (const path of ['/', '/stream/a/b']) {
    const error = await refused(path);
    assert.equal(error.status, 503, error.message);
    assert.match(error.headers['retry-after'] ?? '', /^\d+$/);
  }
});

test('a path that does not exist is 404 without asking', async () => {
  assert.equal((await refused('/other')).status, 404);
});

test('the function is given headers, path, query parameters and the IP', async () => {
  sdk = server.sdk();
  sdk.registerFunction(AUTH, async (input) => {
    inputs.push(input);
    return PARTS[input.query_params.mode?.[0] ?? 'null'](input);
  });
  await settled(sdk);
  const subscriber = await server.subscriber('/?room=a&room=b&flag&b=%20x+y&%C3%A9=%F0%9F%A6%80&e=', { headers: { 'X-Custom-Header': 'Value', Authorization: 'Bearer t' } });
  await subscriber.ping();
  const { headers, ...rest } = (await inputs.count(1))[0];
  assert.deepEqual(rest, { path: '/', query_params: { room: ['a', 'b'], flag: [''], b: [' x y'], é: ['🦀'], e: [''] }, addr: '127.0.0.1' });
  assert.equal(headers['x-custom-header'], 'Value');
  assert.equal(headers.authorization, 'Bearer t');
  assert.equal(headers.upgrade, 'websocket');
  assert.equal(headers.host, new URL(server.subscribers).host);
  assert.ok(Object.entries(headers).every(([name, value]) => name === name.toLowerCase() && typeof value === 'string'));
});

test('a path subscription is asked about with its path', async () => {
  const known = inputs.items.length;
  const subscriber = await server.subscriber('/stream/a%2Fb/c/?x=1');
  await subscriber.sync('a/b', 'c');
  const input = inputs.items[known];
  assert.deepEqual([input.path, input.query_params], ['/stream/a%2Fb/c/', { x: ['1'] }]);
});

test('a token comes by header or by sub-protocol, and decides', async () => {
  for (const options of [{ headers: { Authorization: 'Bearer abc' } }, { protocols: ['Authorization', 'x.y-z'] }]) {
    const subscriber = await server.subscriber('/?mode=token', options);
    assert.equal(subscriber.ws.protocol, options.protocols ? 'Authorization' : '');
    assert.equal((await subscriber.join('auth', 'tokens')).event.type, 'sync');
  }
  assert.equal((await refused('/?mode=token')).status, 401);
});

test('an object lets in, with or without context', async () => {
  for (const mode of ['null', 'empty', 'more']) {
    const subscriber = await server.subscriber(`/?mode=${mode}`);
    assert.equal((await subscriber.join('auth', mode)).event.type, 'sync');
  }
});

test('an error is 401 and does not tell its reason', async () => {
  const error = await refused('/?mode=throws');
  assert.equal(error.status, 401);
  assert.ok(!error.body.includes('secret'), error.body);
});

for (const mode of ['nothing', 'text', 'number', 'list', 'yes']) {
  test(`an answer that is no object (${mode}) is 503`, async () => {
    const error = await refused(`/?mode=${mode}`);
    assert.equal(error.status, 503);
    assert.ok(error.headers['retry-after']);
  });
}

test('no answer in time is 503, and holds up nobody else', async () => {
  const begin = Date.now();
  const slow = refused('/?mode=never');
  await server.subscriber('/?mode=null');
  const error = await slow;
  assert.equal(error.status, 503);
  assert.ok(error.headers['retry-after']);
  assert.ok(Date.now() - begin >= 450, `it was given its time: ${Date.now() - begin} ms`);
});

test('it is asked once per socket, not once per join', async () => {
  const known = inputs.items.length;
  const subscriber = await server.subscriber('/?mode=null');
  for (const group of ['a', 'b', 'c']) await subscriber.join('auth', group);
  assert.equal(inputs.items.length, known + 1);
});

test('when its worker is gone, 503 again', async () => {
  await sdk.shutdown();
  // The server may hear of the closed connection a moment later; until then the answer is a refusal all the same.
  const error = await refused('/?mode=null');
  assert.equal(error.status, 503);
});
