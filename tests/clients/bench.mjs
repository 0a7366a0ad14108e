// Measures what passes through workers: calls between two of them, trigger invocations, and the auth function. Prints a table.
//
//   node bench.mjs [--json]     the server is $III_STREAM_BIN, else target/release/iii-stream
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { startServer } from './harness.mjs';

process.env.III_STREAM_BIN ??= fileURLToPath(new URL('../../target/release/iii-stream', import.meta.url));
process.env.RUST_LOG ??= 'error';
const ROUNDS = 5;

/** CPU seconds that a process has used so far. */
function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
const residentMib = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

/** Runs a round several times; gives medians of the rate and of the server's CPU per thing. */
async function measure(server, round) {
  const rates = [];
  const costs = [];
  for (let n = 0; n < ROUNDS; n += 1) {
    const [from, cpu] = [performance.now(), cpuSeconds(server.pid)];
    const count = await round();
    rates.push(count / ((performance.now() - from) / 1000));
    costs.push(((cpuSeconds(server.pid) - cpu) / count) * 1e6);
  }
  return { rate: median(rates), cpuUs: median(costs) };
}

/** Lets what is sent in one turn of this process leave in one write, as a client that gathers its writes does. */
function gather(ws) {
  const socket = ws._socket;
  socket.cork();
  setImmediate(() => socket.uncork());
}

/** 10,000 calls sent at once by one worker and answered by another; order and number are checked. */
async function calls(server, gathers) {
  const COUNT = 10_000;
  const [callee, caller] = [await server.peer(), await server.peer()];
  const seen = [];
  callee.ws.removeAllListeners('message');
  callee.ws.on('message', (text) => {
    const { type, invocation_id, function_id, data } = JSON.parse(text);
    if (type !== 'invokefunction') return;
    seen.push(data.n);
    if (gathers && callee.ws._socket.writableCorked === 0) gather(callee.ws);
    callee.ws.send(JSON.stringify({ type: 'invocationresult', invocation_id, function_id, result: data.n }));
  });
  callee.send({ type: 'registerfunction', id: 'bench::echo' });
  let answered;
  caller.ws.removeAllListeners('message');
  let open = new Set();
  caller.ws.on('message', (text) => {
    const { type, invocation_id, error } = JSON.parse(text);
    if (type !== 'invocationresult') return;
    if (error) throw new Error(JSON.stringify(error));
    open.delete(invocation_id);
    if (open.size === 0) answered();
  });
  const probe = () => new Promise((resolve) => { answered = resolve; const id = randomUUID(); open.add(id); caller.send({ type: 'invokefunction', invocation_id: id, function_id: 'bench::echo', data: { n: -1 } }); });
  await probe();
  const result = await measure(server, async () => {
    seen.length = 0;
    const done = new Promise((resolve) => { answered = resolve; });
    const ids = Array.from({ length: COUNT }, () => randomUUID());
    open = new Set(ids);
    if (gathers) gather(caller.ws);
    ids.forEach((invocation_id, n) => caller.ws.send(`{"type":"invokefunction","invocation_id":"${invocation_id}","function_id":"bench::echo","data":{"n":${n}}}`));
    await done;
    if (seen.length !== COUNT || seen.some((n, index) => n !== index)) throw new Error('calls were lost or out of order');
    return COUNT;
  });
  await Promise.all([callee.close(), caller.close()]);
  // A call passes the server twice: there and back.
  return { ...result, cpuUs: result.cpuUs / 2 };
}

/** Changes written by one worker, each handed to the `stream` trigger of another, which answers. */
async function triggers(server) {
  const COUNT = 50_000;
  const [listener, writer] = [await server.peer(), await server.peer()];
  let heard = 0;
  let last = -1;
  let finished;
  listener.ws.removeAllListeners('message');
  listener.ws.on('message', (data) => {
    const text = data.toString();
    if (!text.startsWith('{"type":"invokefunction"')) return;
    const invocation_id = text.slice(42, 78);
    listener.ws.send(`{"type":"invocationresult","invocation_id":"${invocation_id}","function_id":"bench::on","result":null}`);
    const n = Number(/"n":(\d+)/.exec(text)[1]);
    if (n !== last + 1) throw new Error(`trigger out of order: ${n} after ${last}`);
    last = n;
    heard += 1;
    if (heard === COUNT) finished();
  });
  listener.send({ type: 'registerfunction', id: 'bench::on' });
  listener.send({ type: 'registertrigger', id: 'bench-on', trigger_type: 'stream', function_id: 'bench::on', config: { stream_name: 'bench' } });
  await writer.settled();
  let peak = 0;
  const result = await measure(server, async () => {
    heard = 0;
    last = -1;
    const done = new Promise((resolve) => { finished = resolve; });
    for (let n = 0; n < COUNT; n += 1) {
      writer.ws.send(`{"type":"invokefunction","function_id":"stream::set","action":{"type":"void"},"data":{"stream_name":"bench","group_id":"g","item_id":"i${n % 100}","data":{"n":${n}}}}`);
      // No more than the lane takes: what is measured is the way to the handler, not the loss beyond its bound.
      while (n - heard > 5_000) await new Promise(setImmediate);
    }
    await done;
    peak = Math.max(peak, residentMib(server.pid));
    return COUNT;
  });
  return { ...result, mib: peak };
}

/** Upgrades, 64 at a time, each admitted by a worker's auth function. */
async function auth() {
  const server = await startServer({ stream: { auth_function: 'bench::auth' } });
  const [COUNT, AT_ONCE] = [4_000, 64];
  const worker = await server.peer();
  worker.ws.removeAllListeners('message');
  worker.ws.on('message', (data) => {
    const { type, invocation_id, function_id } = JSON.parse(data);
    if (type === 'invokefunction') worker.ws.send(`{"type":"invocationresult","invocation_id":"${invocation_id}","function_id":"${function_id}","result":{"context":{"user":1}}}`);
  });
  worker.send({ type: 'registerfunction', id: 'bench::auth' });
  const { hostname, port } = new URL(server.subscribers);
  const head = `GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nAuthorization: Bearer t\r\n\r\n`;
  const once = () => new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(head));
    socket.once('data', (data) => {
      if (!data.toString().startsWith('HTTP/1.1 101')) return reject(new Error(data.toString()));
      socket.destroy();
      resolve();
    });
    socket.on('error', reject);
  });
  // The registration is on its way on another connection.
  for (;;) {
    try { await once(); break; } catch { await new Promise(setImmediate); }
  }
  const result = await measure(server, async () => {
    let left = COUNT;
    await Promise.all(Array.from({ length: AT_ONCE }, async () => { while (left-- > 0) await once(); }));
    return COUNT;
  });
  await server.stop();
  return result;
}

const server = await startServer();
const rows = [
  ['calls between two workers, gathered writes', 'calls/s', await calls(server, true), (r) => `server CPU per hop ${r.cpuUs.toFixed(1)} us (at most 10)`],
  ['calls between two workers, a write each', 'calls/s', await calls(server, false), (r) => `server CPU per hop ${r.cpuUs.toFixed(1)} us (at most 10)`],
  ['stream trigger invocations, one Node worker', 'calls/s', await triggers(server), (r) => `server CPU ${r.cpuUs.toFixed(1)} us each with its set, resident ${r.mib.toFixed(0)} MiB; at least 50,000/s or what the worker takes`],
  ['upgrades through a Node auth function, 64 at a time', 'upgrades/s', await auth(), (r) => `server CPU ${r.cpuUs.toFixed(0)} us each (at least 2,000/s)`],
];
await server.stop();
if (process.argv.includes('--json')) console.log(JSON.stringify(rows.map(([what, unit, result]) => ({ what, unit, ...result }))));
else for (const [what, unit, result, note] of rows) console.log(`${what.padEnd(52)} ${Math.round(result.rate).toLocaleString('en').padStart(10)} ${unit.padEnd(11)} ${note(result)}`);
