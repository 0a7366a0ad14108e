// A web site on a free port with the packed npm package at /iii-stream/, as a page without a bundler would have it.
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const TYPES = { '.js': 'text/javascript', '.html': 'text/html; charset=utf-8', '.wasm': 'application/wasm' };
const BLANK = '<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>test</title><body></body></html>';

/** Packs the package, and serves what is in the tarball beside an empty page. */
export async function startSite() {
  const folder = await mkdtemp(join(tmpdir(), 'iii-stream-site-'));
  const pkg = fileURLToPath(new URL('../../pkg', import.meta.url));
  await run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder], { cwd: pkg });
  const tarball = (await readdir(folder)).find((name) => name.endsWith('.tgz'));
  await run('tar', ['-xzf', join(folder, tarball), '-C', folder]);
  const root = join(folder, 'package', 'dist', 'esm');

  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    if (!pathname.startsWith('/iii-stream/')) return response.setHeader('content-type', TYPES['.html']).end(BLANK);
    try {
      const file = await readFile(join(root, normalize(pathname.slice('/iii-stream'.length))));
      response.setHeader('content-type', TYPES[extname(pathname)] ?? 'application/octet-stream').end(file);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    async stop() {
      server.closeAllConnections();
      server.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
