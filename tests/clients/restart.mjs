// Ends a server while its clients are connected and starts another on the same ports and data, as an update of the server does.
import { startServer } from './harness.mjs';

/** Keys of a configuration that put a server on the ports of another. */
export function portsOf(server) {
  const port = (url) => Number(new URL(url).port);
  return { stream: { port: port(server.subscribers) }, manager: { port: port(server.workers) } };
}

/** The new server; `config` is what the old one was started with. Its folder goes with it, unless `config` names it. */
export async function restart(server, { stream = {}, manager = {}, folder } = {}) {
  const ports = portsOf(server);
  await server.terminate({ keepsFolder: true });
  const next = await startServer({ stream: { ...stream, ...ports.stream }, manager: { ...manager, ...ports.manager }, folder: server.folder });
  next.keepsFolder = folder !== undefined;
  return next;
}
