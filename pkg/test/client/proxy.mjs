// A TCP proxy that cuts connections: in the middle of frames, at random points, or all at once.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Proxy {
  #pairs = new Set();
  /** Bytes, in either direction, after which a connection is cut; given anew for each. */
  bytesUntilCut = () => Infinity;
  cuts = 0;
  isDown = false;

  static async start(port) {
    const proxy = new Proxy();
    proxy.target = port;
    proxy.server = createServer((client) => proxy.#pair(client));
    proxy.server.listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    return proxy;
  }

  get url() {
    return `ws://127.0.0.1:${this.server.address().port}`;
  }

  #pair(client) {
    if (this.isDown) {
      client.destroy();
      return;
    }
    const server = connect(this.target, '127.0.0.1');
    const pair = { client, server };
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    let left = this.bytesUntilCut();
    const pass = (from, to) => {
      from.on('data', (chunk) => {
        if (chunk.length < left) {
          left -= chunk.length;
          to.write(chunk);
          return;
        }
        this.cuts += 1;
        // What was passed before the cut arrives; what was behind it does not.
        to.end(chunk.subarray(0, left));
        left = 0;
        from.destroy();
        setTimeout(end, 5);
      });
      from.on('error', end).on('close', end);
    };
    pass(client, server);
    pass(server, client);
  }

  /** Cuts every connection now. */
  cut() {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  async stop() {
    this.cut();
    this.server.close();
    await once(this.server, 'close');
  }
}
