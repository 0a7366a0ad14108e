// The network between one of two instances and Redis is cut, in each direction and in both: nothing is lost, done twice or out of order,
// calls are answered in time, subscribers stay and heal.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as after } from 'node:timers/promises';
import { AWAY, Scene, SLACK_MS, WAIT_MAX_MS } from './fault-scene.mjs';
import { startProxy } from './proxy.mjs';
import { startRedis, withoutRedis } from './redis.mjs';

const skip = withoutRedis;

const NETWORK = [
  ['is cut', (proxy) => proxy.cut()],
  ['swallows what goes to Redis', (proxy) => proxy.hold('to')],
  ['swallows what comes from Redis', (proxy) => proxy.hold('from')],
  ['swallows everything', (proxy) => proxy.hold()],
];
for (const [what, harm] of NETWORK) {
  test(`the network between one instance and Redis ${what} for 5 s`, { skip }, async (t) => {
    const redis = await startRedis();
    const proxy = await startProxy(redis.port);
    t.after(() => { proxy.close(); return redis.stop(); });
    const scene = await Scene.begin(t, redis, { config: (n) => (n === 0 ? {} : { redis_url: proxy.url }) });
    harm(proxy);
    await after(5_000);
    proxy.heal();
    await scene.goesOn('it is back');
    await scene.finish({ resets: false });
    for (const { longestMs } of scene.writers) assert.ok(longestMs < WAIT_MAX_MS + SLACK_MS, `a call took ${Math.round(longestMs)} ms`);
    for (const told of scene.errors.keys()) assert.match(told, AWAY);
  });
}
