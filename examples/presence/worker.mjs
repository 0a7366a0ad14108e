// Who is here: serves the page, and keeps one item per person in presence/<room> while one of their tabs is open.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { registerWorker } from 'iii-sdk';

const { III_URL = 'ws://127.0.0.1:49134', STREAM_URL = 'ws://127.0.0.1:3112', PORT = '8081', TTL_MS = '15000' } = process.env;
const ttl_ms = Number(TTL_MS);
const page = readFileSync(new URL('index.html', import.meta.url), 'utf8').replace('ws://127.0.0.1:3112', STREAM_URL);
const iii = registerWorker(III_URL, { workerName: 'presence', otel: { enabled: false }, enableMetricsReporting: false });

let people = new Map(); // the room and the name → { room, name, since, tabs: the ids of the subscriptions }
let connection;

/** Who is here, as far as this connection knows: who left while there was none, nobody has told us. */
function known() {
  if (connection !== iii.workerId) people = new Map(); // the id that the server gives to each connection
  connection = iii.workerId;
  return people;
}

// The calls of one connection take effect in the order they are sent, so the items follow `people` without a lock.
// An item that is not renewed goes by itself: so presence is right again after a crash of the server or of this process.
const call = (verb, { room, name }, more) => iii.trigger({
  function_id: `stream::${verb}`, payload: { stream_name: 'presence', group_id: room, item_id: name, returning: 'none', ...more }, timeoutMs: ttl_ms,
});
const show = (person) => call('set', person, { ttl_ms, data: { id: person.name, since: person.since, tabs: person.tabs.size } });

// Asked before a page may connect. A real one would look at a token; what it throws becomes a 401.
iii.registerFunction('presence::auth', async ({ query_params }) => {
  const name = [...(query_params.name?.[0] ?? '').trim()].slice(0, 40).join('');
  if (!name) throw new Error('no name');
  return { context: { name } };
});

iii.registerFunction('presence::join', async ({ subscription_id, group_id: room, context: { name } }) => {
  const key = JSON.stringify([room, name]);
  const person = known().get(key) ?? { room, name, since: Date.now(), tabs: new Set() };
  people.set(key, person);
  person.tabs.add(subscription_id);
  await show(person); // a page's first sync waits for this, so it already holds the page's own person
  return {};
});

iii.registerFunction('presence::leave', async ({ subscription_id, group_id: room, context: { name } }) => {
  const key = JSON.stringify([room, name]);
  const person = known().get(key);
  if (!person?.tabs.delete(subscription_id)) return;
  if (person.tabs.size > 0) return void await show(person);
  people.delete(key);
  await call('delete', person);
});
for (const when of ['join', 'leave']) iii.registerTrigger({ type: `stream:${when}`, function_id: `presence::${when}`, config: { stream_name: 'presence' } });

setInterval(() => known().forEach((person) => show(person).catch(() => {})), ttl_ms / 3);
const server = createServer((request, response) => response.setHeader('content-type', 'text/html; charset=utf-8').end(page));
server.listen(Number(PORT), '127.0.0.1', () => console.log(`presence  http://127.0.0.1:${server.address().port}`));
