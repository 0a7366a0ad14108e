// A TCP proxy that misbehaves when told to: cuts connections, holds bytes back in one direction or both, delays them.
//
// What is held is not lost: it goes on at `heal`, as what TCP sends again does after a network has come back. So a command may reach
// its server long after the caller gave up.
import { connect, createServer } from 'node:net';
import { deferred } from './harness.mjs';

/** One direction of one connection. */
class Pipe {
  #chunks = [];
  #isDraining = false;
  #timer;

  constructor(proxy, direction, from, to) {
    Object.assign(this, { proxy, direction, from, to });
    from.on('data', (chunk) => {
      this.#chunks.push({ chunk, due: performance.now() + proxy.delayMs });
      this.pass();
    });
    from.on('end', () => { this.isEnded = true; this.pass(); });
    to.on('drain', () => { this.#isDraining = false; from.resume(); this.pass(); });
  }

  /** Hands on what may go on. */
  pass() {
    if (this.proxy.held.has(this.direction)) return void this.from.pause();
    while (this.#chunks.length > 0 && !this.#isDraining) {
      const wait = this.#chunks[0].due - performance.now();
      if (wait > 0) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.pass(), wait);
        return;
      }
      if (!this.to.write(this.#chunks.shift().chunk)) {
        this.#isDraining = true;
        this.from.pause();
        return;
      }
    }
    if (this.isEnded && this.#chunks.length === 0) this.to.end();
    this.from.resume();
  }
}

class Proxy {
  #pipes = new Set();
  #sockets = new Set();
  #server = createServer((client) => this.#accept(client));
  /** Directions in which nothing goes on: `to` (to the server), `from` (from it). */
  held = new Set();
  delayMs = 0;
  isCut = false;
  /** How many connections there were. */
  accepted = 0;

  constructor(target) {
    /** The port that it stands before; may be set later. */
    this.target = target;
  }

  async listen(port) {
    const listening = deferred();
    this.#server.on('error', listening.reject);
    this.#server.listen(port, '127.0.0.1', listening.resolve);
    this.#server.unref();
    await listening.promise;
    this.port = this.#server.address().port;
    this.url = `redis://127.0.0.1:${this.port}`;
    return this;
  }

  #accept(client) {
    if (this.isCut) return void client.resetAndDestroy();
    this.accepted += 1;
    const server = connect(this.target, '127.0.0.1');
    const pipes = [new Pipe(this, 'to', client, server), new Pipe(this, 'from', server, client)];
    for (const pipe of pipes) {
      this.#pipes.add(pipe);
      pipe.pass();
    }
    for (const socket of [client, server]) {
      socket.setNoDelay();
      socket.unref();
      this.#sockets.add(socket);
      // An end without a word on one side is one on the other.
      socket.on('error', () => { client.destroy(); server.destroy(); });
      socket.on('close', () => {
        this.#sockets.delete(socket);
        for (const pipe of pipes) this.#pipes.delete(pipe);
        if (!this.held.size || this.isCut) { client.destroy(); server.destroy(); }
      });
    }
  }

  /** Connections that are open now. */
  get open() {
    return this.#sockets.size / 2;
  }

  /** Ends all connections by a reset; new ones are let through. */
  drop() {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Ends all connections and refuses new ones until `heal`. */
  cut() {
    this.isCut = true;
    this.drop();
  }

  /** Holds bytes back in one direction, or in both; connections stay, and new ones are taken. */
  hold(...directions) {
    this.held = new Set(directions.length > 0 ? directions : ['to', 'from']);
  }

  /** Each byte comes so much later. */
  delay(ms) {
    this.delayMs = ms;
  }

  /** All is well again; what was held goes on. */
  heal() {
    this.isCut = false;
    this.held = new Set();
    this.delayMs = 0;
    for (const pipe of this.#pipes) pipe.pass();
  }

  close() {
    this.cut();
    this.#server.close();
  }
}

/** A proxy on a free port, or on `port`, before the port `target`. */
export const startProxy = (target, { port = 0 } = {}) => new Proxy(target).listen(port);
