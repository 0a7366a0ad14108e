// Clients for tests: quick to come back, with every error kept, closed at the end of the test.

import { WebSocket } from 'ws';
import { StreamClient } from './package.mjs';
import { FakeReplica } from './fake_replica.mjs';

/** A client of `url` around a fake replica. `client.errors` and `client.rejections` hold what it told. */
export function newClient(t, url, options = {}) {
  return track(t, new StreamClient(url, { WebSocket, backoff: { firstMs: 5, maxMs: 40 }, ...options }));
}

/** A client of `url` with the package's own replica. */
export function realClient(t, url, options = {}) {
  return track(t, new StreamClient(url, { WebSocket, backoff: { firstMs: 10, maxMs: 100 }, ...options }));
}

function track(t, client) {
  client.errors = [];
  client.rejections = [];
  client.onError((error) => client.errors.push(error));
  client.onRejected((rejection) => client.rejections.push(rejection));
  t.after(() => client.close());
  return client;
}
