// Grants on the client's side: the same answers as the server's, and edits that are known to be refused are not shown.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Grants as EdgeGrants } from '../../dist/esm/edge/index.js';
import { FakeServer, snapshot } from './fake_server.mjs';
import { newClient } from './kit.mjs';
import { Grants, init } from './package.mjs';
import { rejection, until, within } from './waiting.mjs';

const LIST = [{ stream: 'chat', group: 'room-*', item: 'mine-*', can: ['set'] }, { stream: 'chat', group: 'hall', can: ['read', 'update', 'send'] }];

test('a list, or its text, decides as the server does; what cannot be read says where', async () => {
  await init();
  for (const grants of [new Grants(LIST), new Grants(JSON.stringify(LIST)), new EdgeGrants(LIST)]) {
    assert.equal(grants.may('set', 'chat', 'room-7', 'mine-1'), true);
    for (const [ability, group, item] of [['set', 'room-7', 'yours'], ['set', 'hall', 'mine-1'], ['set', 'room-7', undefined], ['update', 'room-7', 'mine-1']]) {
      assert.equal(grants.may(ability, 'chat', group, item), false, `${ability} ${group} ${item}`);
    }
    assert.equal(grants.may('send', 'chat', 'hall'), true);
    assert.throws(() => grants.may('shout', 'chat', 'hall'), { code: 'ability_unknown' });
    grants.free();
  }
  const circular = [];
  circular.push(circular);
  for (const wrong of ['', '{}', [{ can: ['read'] }], [{ stream: '', group: '*', can: [] }], [{ stream: '*', group: '*', can: ['wirte'] }], [{ stream: '*', group: '*', can: [], items: '*' }], undefined, circular]) {
    assert.throws(() => new Grants(wrong), { code: 'grants_invalid' });
  }
  assert.throws(() => new Grants([{ stream: '*', group: '*', can: ['wirte'] }]), /wirte/);
});

async function serve(t) {
  const server = await FakeServer.start({ on: (connection, message) => {
    if (message.type === 'join') connection.send(snapshot(message, [{ id: 'a', seq: 1, data: { n: 1 } }], { seq: 1 }));
    if (message.type !== 'call') return;
    const isAllowed = message.data.item_id === 'granted-since';
    connection.send({ type: 'result', id: message.id, ...(isAllowed ? { result: { seq: 2 } } : { error: { code: 'forbidden', message: 'no' } }) });
  } });
  t.after(() => server.stop());
  return server;
}

test('an edit that is not granted is not shown and predicted as forbidden, but sent: the server decides', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url, { grants: LIST });
  const group = client.group('chat', 'room-1');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  const [mine, theirs, since] = ['mine-1', 'theirs', 'granted-since'].map((id) => group.set(id, 1));
  assert.deepEqual(group.items.map(({ id }) => id), ['a', 'mine-1']);
  assert.deepEqual([mine.predicted.refused, theirs.predicted.refused.code, since.predicted.refused.code], [null, 'forbidden', 'forbidden']);
  assert.equal((await rejection(theirs.settled)).code, 'forbidden');
  assert.equal((await within(since.settled, 'what was granted since')).seq, 2);
  assert.equal(server.last.calls.length, 3);
});

test('a list that is of no use is told, and everything is shown', async (t) => {
  const server = await serve(t);
  const client = newClient(t, server.url, { grants: [{ can: ['wirte'] }] });
  const group = client.group('chat', 'room-1');
  group.subscribe(() => {});
  await until(group, () => group.status === 'live', 'live');
  group.set('theirs', 1);
  assert.equal(group.get('theirs').value, 1);
  assert.deepEqual(client.errors.map(({ code }) => code), ['grants_invalid']);
});

for (const deltas of [true, false, undefined]) {
  test(`deltas: ${deltas} asks for ${deltas === false ? 'whole values' : 'operations'}`, async (t) => {
    const server = await serve(t);
    const client = newClient(t, server.url, { deltas });
    const group = client.group('s', 'g');
    group.subscribe(() => {});
    await until(group, () => group.status === 'live', 'live');
    assert.equal(server.last.of('join')[0].data.deltas ?? false, deltas !== false);
  });
}
