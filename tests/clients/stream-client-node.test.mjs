// The published stream client for Node (0.17 line): states, token by sub-protocol, refusals, large items, a restarted server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Stream } from '@motiadev/stream-client-node';
import { deferred, keepsGroups, Record, settled, startServer, unique, within } from './harness.mjs';
import { restart } from './restart.mjs';
import { ODD_NAMES } from './sdk-checklist.mjs';

const AUTH = { stream: { auth_function: 'node::auth' } };
const TOKENS = { 'header.payload-signature': 'ada', 'other.token': 'bob' };
let server;
let sdk;
const inputs = [];
const clients = [];

/** A worker that lets in who has a token and keeps the group `secret` for ada. */
async function serve(target) {
  const worker = target.sdk({ reconnectionConfig: { initialDelayMs: 50, maxDelayMs: 200, jitterFactor: 0 } });
  worker.registerFunction('node::auth', async (input) => {
    inputs.push(input);
    // As the product document writes it: browsers put a space after the comma, ws does not.
    const protocol = input.headers['sec-websocket-protocol'];
    const token = protocol?.startsWith('Authorization,') ? protocol.slice('Authorization,'.length).trim() : undefined;
    if (!TOKENS[token]) throw new Error('unknown token');
    return { context: { user: TOKENS[token] } };
  });
  worker.registerFunction('node::join', async ({ group_id, context }) => ({ unauthorized: group_id === 'secret' && context.user !== 'ada' }));
  worker.registerTrigger({ type: 'stream:join', function_id: 'node::join', config: {} });
  await settled(worker);
  return worker;
}

before(async () => {
  server = await startServer(AUTH);
  sdk = await serve(server);
});
after(async () => {
  for (const client of clients) client.close();
  await sdk?.shutdown();
  await server?.stop();
});

const set = (stream_name, group_id, item_id, data, worker = sdk) => worker.trigger({ function_id: 'stream::set', payload: { stream_name, group_id, item_id, data } });

/** A client that is connected; its error events are told, where an application would be ended by them. */
async function connect(token = 'header.payload-signature', to = server) {
  const opened = deferred();
  const client = new Stream(to.subscribers, token && { protocols: ['Authorization', token] });
  client.ws.ws.on('open', opened.resolve);
  client.ws.ws.on('error', opened.reject);
  try {
    await to.within(opened.promise, 'the client to connect');
  } catch (error) {
    client.createSocket = () => client.ws; // it would try again for ever
    throw error;
  }
  clients.push(client);
  return client;
}

/** The states of a subscription, from now on. */
function states(subscription) {
  const seen = new Record(server);
  subscription.addChangeListener((state) => seen.push(structuredClone(state)));
  return seen;
}

test('group and item show what a worker writes, every state of it', async () => {
  const stream = unique('node');
  await set(stream, 'room', 'first', { id: 'first', n: 0 });
  const client = await connect();
  const [group, item] = [client.subscribeGroup(stream, 'room', 'id'), client.subscribeItem(stream, 'room', 'counter')];
  const [groupStates, itemStates, typing] = [states(group), states(item), new Record(server)];
  group.onEvent('typing', (data) => typing.push(data));
  assert.deepEqual((await groupStates.count(1))[0], [{ id: 'first', n: 0 }]);
  assert.deepEqual((await itemStates.count(1))[0], null);
  const numbers = Array.from({ length: 200 }, (_, n) => n + 1);
  await Promise.all(numbers.map((n) => set(stream, 'room', 'counter', { id: 'counter', n })));
  await sdk.trigger({ function_id: 'stream::delete', payload: { stream_name: stream, group_id: 'room', item_id: 'first' } });
  await sdk.trigger({ function_id: 'stream::send', payload: { stream_name: stream, group_id: 'room', type: 'typing', data: { who: 'worker' } } });
  await typing.count(1);
  assert.deepEqual(itemStates.items.slice(1).map(({ n }) => n), numbers);
  assert.deepEqual(group.getState(), [{ id: 'counter', n: 200 }]);
  assert.deepEqual(typing.items, [{ who: 'worker' }], 'once');
});

test('the token is the sub-protocol that decides', async () => {
  const client = await connect();
  assert.equal(client.ws.ws.protocol, 'Authorization', 'and is not echoed');
  assert.equal(inputs.at(-1).headers['sec-websocket-protocol'], 'Authorization,header.payload-signature');
  for (const wrong of ['wrong', undefined]) await assert.rejects(connect(wrong ?? ''), /401/);
});

test('a refused join shows nothing; the same client is let in elsewhere', async () => {
  const stream = unique('node');
  await set(stream, 'secret', 'i', { id: 'i' });
  const [ada, bob] = [await connect(), await connect('other.token')];
  const [mine, theirs, open] = [ada.subscribeGroup(stream, 'secret'), bob.subscribeGroup(stream, 'secret'), bob.subscribeGroup(stream, 'open')];
  const [mineSeen, theirsSeen, openSeen] = [mine, theirs, open].map(states);
  await Promise.all([mineSeen.count(1), openSeen.count(1)]);
  await set(stream, 'secret', 'j', { id: 'j' });
  await set(stream, 'open', 'i', { id: 'i' });
  await openSeen.until((items) => items.at(-1)?.length === 1, 'the open group');
  await mineSeen.until((items) => items.at(-1)?.length === 2, 'the secret group');
  assert.deepEqual([theirsSeen.items, theirs.getState()], [[], []]);
});

test('a closed subscription leaves', async () => {
  const stream = unique('node');
  const leaves = new Record(server);
  const id = unique('on::leave');
  sdk.registerFunction(id, async (input) => { leaves.push(input); return {}; });
  const trigger = sdk.registerTrigger({ type: 'stream:leave', function_id: id, config: { stream_name: stream } });
  await settled(sdk);
  const client = await connect();
  const subscription = client.subscribeItem(stream, 'g', 'i');
  await states(subscription).count(1);
  subscription.close();
  const { subscription_id, ...left } = (await leaves.count(1))[0];
  assert.equal(subscription_id, subscription.sub.subscriptionId);
  assert.deepEqual(left, { stream_name: stream, group_id: 'g', id: 'i', context: { user: 'ada' } });
  trigger.unregister();
});

test('odd names of streams, groups and items are ordinary', async () => {
  const client = await connect();
  const stream = unique('node');
  const waiting = ODD_NAMES.map((odd) => {
    const seen = states(client.subscribeItem(stream + odd, odd, odd));
    return seen.until((items) => items.at(-1)?.odd === odd, JSON.stringify(odd));
  });
  await Promise.all(ODD_NAMES.map((odd) => set(stream + odd, odd, odd, { id: odd, odd })));
  await Promise.all(waiting);
});

for (const [what, size] of [['1 MB', 1_000_000], ['20 MB', 20_000_000]]) {
  test(`an item of ${what} arrives whole, as an event and as a sync`, async () => {
    const stream = unique('node');
    const text = '0123456789é🦀"\\'.repeat(size / 20); // 20 bytes of JSON each
    const client = await connect();
    const live = client.subscribeItem(stream, 'g', 'i');
    const seen = states(live);
    await seen.count(1);
    await set(stream, 'g', 'i', { id: 'i', text });
    await seen.until(() => live.getState() !== null, 'the event');
    assert.ok(live.getState().text === text);
    const late = (await connect()).subscribeGroup(stream, 'g');
    await states(late).count(1);
    assert.ok(late.getState()[0].text === text);
    await sdk.trigger({ function_id: 'stream::delete', payload: { stream_name: stream, group_id: 'g', item_id: 'i' } });
  });
}

test('a restarted server is found again, with the token, and joined again', async (t) => {
  t.mock.method(console, 'error', () => {}); // the worker SDK tells each attempt to reconnect there
  let restarted = await startServer(AUTH);
  const worker = await serve(restarted);
  const client = await connect('header.payload-signature', restarted);
  try {
    const [group, item] = [client.subscribeGroup('back', 'g'), client.subscribeItem('back', 'secret', 'i')];
    const [groupStates, itemStates] = [states(group), states(item)];
    await set('back', 'g', 'before', { id: 'before' }, worker);
    await groupStates.until((items) => items.at(-1)?.length === 1, 'the state before');
    restarted = await restart(restarted, AUTH);
    await within(settled(worker), 'the worker to be back', { server: restarted });
    await set('back', 'g', 'after', { id: 'after' }, worker);
    await set('back', 'secret', 'i', { id: 'i', n: 1 }, worker);
    // In memory what was before is gone, in the client too.
    const before = keepsGroups ? [{ id: 'before' }] : [];
    await groupStates.until((items) => items.at(-1)?.[before.length]?.id === 'after', 'the sync of the new server');
    await set('back', 'secret', 'i', { id: 'i', n: 2 }, worker);
    await itemStates.until((items) => items.at(-1)?.n === 2, 'an event of the new server');
    assert.deepEqual(group.getState(), [...before, { id: 'after' }]);
  } finally {
    clients.splice(clients.indexOf(client), 1);
    client.close();
    await worker.shutdown();
    await restarted.stop();
  }
});
