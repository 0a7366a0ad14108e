// The published React hooks in Node, without a browser: rendered by React's test renderer, on the `ws` package's WebSocket.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';
import WebSocket from 'ws';
import { Record, startServer } from './harness.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const APP = `
  import { createElement as h } from 'react';
  import { MotiaStreamProvider, useStreamEventHandler, useStreamGroup, useStreamItem } from '@motiadev/stream-client-react';

  function View({ tell }) {
    const { data, event } = useStreamGroup({ streamName: 'react-node', groupId: 'g', sortKey: 'id' });
    const item = useStreamItem({ streamName: 'react-node', groupId: 'g', id: 'counter' });
    useStreamEventHandler({ event, type: 'typing', listener: (who) => tell({ typing: who }) }, []);
    tell({ group: data, item: item.data });
    return null;
  }
  export const app = (address, tell) => h(MotiaStreamProvider, { address }, h(View, { tell }));
`;

let server;
let folder;
before(async () => {
  server = await startServer();
  // Beside the packages, so that the bundle finds React where the renderer finds it.
  folder = mkdtempSync(join(here, 'node_modules/.react-node-'));
});
after(async () => {
  // The published client connects again for ever, also after its end: from here on to nothing, so that this process can end.
  globalThis.WebSocket = class extends EventTarget { close() {} send() {} };
  if (folder) rmSync(folder, { recursive: true });
  await server?.stop();
});

test('group, item and events arrive in components that Node renders', async () => {
  globalThis.WebSocket = WebSocket;
  const file = join(folder, 'app.mjs');
  const { outputFiles: [bundle] } = await build({
    stdin: { contents: APP, resolveDir: here }, bundle: true, format: 'esm', platform: 'node', external: ['react'], write: false, logLevel: 'silent',
  });
  writeFileSync(file, bundle.contents);
  const [{ app }, { create }] = [await import(pathToFileURL(file)), (await import('react-test-renderer')).default];
  const peer = await server.peer();
  const set = (id, n) => peer.result('stream::set', { stream_name: 'react-node', group_id: 'g', item_id: id, data: { id, n } });
  await set('counter', 1);

  const told = new Record(server);
  const root = create(app(server.subscribers, (state) => told.push(state)));
  const until = (group, item) => told.until((list) => list.some((state) => JSON.stringify(state) === JSON.stringify({ group, item })), JSON.stringify({ group, item }));
  await until([{ id: 'counter', n: 1 }], { id: 'counter', n: 1 });
  await set('a', 5);
  await until([{ id: 'a', n: 5 }, { id: 'counter', n: 1 }], { id: 'counter', n: 1 });
  for (const n of [2, 3, 4]) await set('counter', n);
  await until([{ id: 'a', n: 5 }, { id: 'counter', n: 4 }], { id: 'counter', n: 4 });
  await peer.result('stream::send', { stream_name: 'react-node', group_id: 'g', type: 'typing', data: 'Ada' });
  await told.until((list) => list.filter((state) => state.typing === 'Ada').length === 1, 'the event');
  await peer.result('stream::delete', { stream_name: 'react-node', group_id: 'g', item_id: 'a' });
  await until([{ id: 'counter', n: 4 }], { id: 'counter', n: 4 });
  assert.equal(told.items.filter((state) => state.typing).length, 1, 'once');
  root.unmount();
});
