// The published Python worker SDKs against the server: starts both, and makes each case a test of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { deferred, settled, startServer, within } from './harness.mjs';
import { restart } from './restart.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const RUN_MS = 90_000;

for (const [version, venv] of [['0.25.0', 'python/.venv-0-25'], ['0.11.6', 'python/.venv-0-11']]) {
  const python = here(`${venv}/bin/python`);
  const skip = existsSync(python) ? false : `tests/clients/${venv} is missing; run: make setup`;

  test(`Python iii-sdk ${version}`, { skip }, async (t) => {
    let server = await startServer();
    // A worker in another language for the cases to talk to.
    const relay = server.sdk();
    relay.registerFunction('node::relay', ({ function_id, payload }) => relay.trigger({ function_id, payload }));
    await settled(relay);
    const child = spawn(python, ['-B', '-W', 'ignore', 'run.py'], {
      cwd: here('python'), stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, III_WORKERS_URL: server.workers, III_SUBSCRIBERS_URL: server.subscribers },
    });
    const ended = deferred();
    const finished = deferred();
    let said = '';
    let cases = 0;
    child.stderr.setEncoding('utf8').on('data', (text) => { said += text; });
    child.on('error', ended.reject);
    child.on('close', (code, signal) => ended.resolve(signal ?? code));

    createInterface({ input: child.stdout }).on('line', (text) => {
      const line = JSON.parse(text);
      if (line.ask === 'restart') {
        restart(server).then((other) => { server = other; child.stdin.write('restarted\n'); })
          .catch((error) => { ended.reject(error); child.kill('SIGKILL'); });
      }
      else if ('finished' in line) finished.resolve(line);
      else {
        cases += 1;
        t.test(`Python iii-sdk ${version}: ${line.case.replaceAll('_', ' ')}`, { skip: line.skipped ?? false }, () => {
          if (line.problem) throw new Error(line.problem);
        });
      }
    });
    try {
      const status = await within(ended.promise, `the cases of ${version} to end`, { ms: RUN_MS });
      assert.equal(status, 0, said);
      const { finished: count, problem } = await within(finished.promise, `the last line of ${version}`);
      assert.equal(problem, null);
      assert.ok(count > 10 && count === cases, `${count} cases were run, ${cases} told`);
    } finally {
      child.kill('SIGKILL');
      await relay.shutdown();
      await server.stop();
    }
  });
}
