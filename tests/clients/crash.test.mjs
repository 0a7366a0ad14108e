// A few rounds of what `make crash` does for long: kill -9 under load.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { Crashes } from './crash.mjs';
import { keepsFiles } from './harness.mjs';

test('kill -9 under load loses nothing that was answered, and nothing comes twice', { skip: keepsFiles ? false : 'these servers do not keep groups in files' }, async (t) => {
  const tally = await new Crashes(7).run(8);
  t.diagnostic(tally.line());
  assert.ok(tally.kills === 7 && tally.answered > 100 && tally.resumes > 0, tally.line());
});
