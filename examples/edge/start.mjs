// Runs the worker in workerd on this machine, and puts three shows on sale.
import { fileURLToPath } from 'node:url';
import { StreamClient } from 'iii-stream';
import { WebSocket } from 'ws';
import { startWorker } from './workerd.mjs';

const { STREAM_URL = 'ws://127.0.0.1:3112', PORT = '8084' } = process.env;
const SHOWS = [
  ['hamlet', { title: 'Hamlet', left: 40, orders: [] }],
  ['tosca', { title: 'Tosca', left: 12, orders: [] }],
  ['jazz', { title: 'Late night jazz', left: 5, orders: [] }],
];

const client = new StreamClient(STREAM_URL, { WebSocket });
for (const [id, data] of SHOWS) {
  const put = client.call('stream::set', { stream_name: 'shop', group_id: 'tonight', item_id: id, data, if: { absent: true } });
  // They are on sale already when this is started again.
  await put.catch((error) => { if (error.code !== 'precondition_failed') throw error; });
}
client.close();

const url = await startWorker(fileURLToPath(new URL('worker.mjs', import.meta.url)), { port: Number(PORT), bindings: { STREAM_URL } });
console.log(`edge  ${url}`);
