// A subscriber port whose every answer a test decides: it records what clients say, and says what it is told.

import { once } from 'node:events';
import { WebSocketServer } from 'ws';
import { within } from './waiting.mjs';

export class FakeServer {
  connections = [];
  #waiters = new Set();

  /** `accept(request)` false refuses with 401; `on(connection, message)` answers. */
  static async start({ accept = () => true, on = () => {} } = {}) {
    const server = new FakeServer();
    server.wss = new WebSocketServer({
      port: 0, host: '127.0.0.1', maxPayload: 1 << 30,
      verifyClient: ({ req }) => accept(req),
      handleProtocols: (protocols) => [...protocols][0],
    });
    await once(server.wss, 'listening');
    server.wss.on('connection', (ws, request) => {
      const connection = new Connection(ws, request);
      server.connections.push(connection);
      ws.on('message', (data) => {
        const message = JSON.parse(data.toString());
        connection.messages.push(message);
        on(connection, message);
        server.#look();
      });
      ws.on('close', () => { connection.isClosed = true; server.#look(); });
      server.#look();
    });
    return server;
  }

  get url() {
    return `ws://127.0.0.1:${this.wss.address().port}`;
  }

  get last() {
    return this.connections.at(-1);
  }

  #look() {
    for (const waiter of this.#waiters) waiter();
  }

  /** Waits until `condition()` holds, looked at with everything that happens here. */
  async until(condition, what) {
    let look;
    const reached = new Promise((resolve) => {
      look = () => { if (condition()) resolve(); };
    });
    this.#waiters.add(look);
    look();
    try {
      await within(reached, what);
    } finally {
      this.#waiters.delete(look);
    }
  }

  async stop() {
    for (const { ws } of this.connections) ws.terminate();
    this.wss.close();
    await once(this.wss, 'close');
  }
}

class Connection {
  messages = [];
  isClosed = false;

  constructor(ws, request) {
    this.ws = ws;
    this.request = request;
  }

  send(message) {
    this.ws.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  of(type) {
    return this.messages.filter((message) => message.type === type);
  }

  get calls() {
    return this.of('call');
  }
}

/** The frame that answers a join of version 2 with a snapshot. */
export const snapshot = ({ data }, items = [], { seq = 0, epoch = 'e1', ...more } = {}) => ({
  type: 'stream', timestamp: 1, streamName: data.streamName, groupId: data.groupId, id: data.id ?? null, subscriptionId: data.subscriptionId,
  epoch, seq, ...more, event: { type: 'sync', mode: 'snapshot', items, more: false },
});

/** The frame of a change. */
export const event = (streamName, groupId, id, seq, body, more = {}) => ({
  type: 'stream', timestamp: 1, streamName, groupId, id, seq, ...more, event: body,
});
