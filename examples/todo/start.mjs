// Bundles the page and serves it.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const { STREAM_URL = 'ws://127.0.0.1:3112', PORT = '8082' } = process.env;
const here = (name) => fileURLToPath(new URL(name, import.meta.url));

const { outputFiles: [bundle] } = await build({
  entryPoints: [here('page.jsx')],
  bundle: true,
  write: false,
  minify: true,
  format: 'esm',
  jsx: 'automatic',
  // The package is a link into this repository, where it would find another React.
  alias: { react: here('node_modules/react') },
  define: { STREAM_URL: JSON.stringify(STREAM_URL), 'process.env.NODE_ENV': '"production"' },
});
const files = {
  '/': ['text/html; charset=utf-8', readFileSync(here('index.html'))],
  '/page.js': ['text/javascript; charset=utf-8', bundle.contents],
};

const server = createServer((request, response) => {
  const file = files[new URL(request.url, 'http://localhost').pathname];
  if (!file) return response.writeHead(404).end();
  response.setHeader('content-type', file[0]).end(file[1]);
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`todo  http://127.0.0.1:${server.address().port}`));
