// Bundles a worker as its publishing tool would, and runs it in workerd.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { build } from 'esbuild';
import { Miniflare } from 'miniflare';

/** Gives the address it listens on. */
export async function startWorker(file, { port, bindings }) {
  const wasmFiles = new Map();
  const { outputFiles: [bundle] } = await build({
    entryPoints: [file],
    bundle: true,
    write: false,
    format: 'esm',
    conditions: ['workerd', 'worker'],
    loader: { '.html': 'text' },
    // workerd compiles no wasm at run time: it is handed over as a module of its own.
    plugins: [{
      name: 'wasm',
      setup: ({ onResolve }) => onResolve({ filter: /\.wasm$/ }, async ({ path, resolveDir }) => {
        const found = new URL(path, `file://${resolveDir}/`);
        wasmFiles.set(basename(found.pathname), readFileSync(found));
        return { path: `./${basename(found.pathname)}`, external: true };
      }),
    }],
  });
  const miniflare = new Miniflare({
    host: '127.0.0.1',
    port,
    compatibilityDate: '2026-07-01',
    modules: [
      { type: 'ESModule', path: 'worker.mjs', contents: bundle.text },
      ...[...wasmFiles].map(([path, contents]) => ({ type: 'CompiledWasm', path, contents })),
    ],
    bindings,
  });
  return (await miniflare.ready).origin;
}
