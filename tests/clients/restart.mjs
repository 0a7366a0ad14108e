// Ends a server while its clients are connected and starts another on the same ports, as an update of the server does.
import { startServer } from './harness.mjs';

/** The new server; `config` is what the old one was started with. */
export async function restart(server, { stream = {}, manager = {} } = {}) {
  const port = (url) => Number(new URL(url).port);
  const [subscribers, workers] = [port(server.subscribers), port(server.workers)];
  await server.terminate();
  return startServer({ stream: { ...stream, port: subscribers }, manager: { ...manager, port: workers } });
}
