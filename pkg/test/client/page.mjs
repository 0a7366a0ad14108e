// A program in Chromium: bundled with the package as it was built, on a page of its own origin.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { launch, serve, skip } from '../chromium.mjs';

export { skip };

const here = fileURLToPath(new URL('.', import.meta.url));

/** Serves a page with `program`, an ES module that imports from './package.mjs' and the like. `open()` gives a tab of it; `close()` ends all. */
export async function startSite(program) {
  const root = mkdtempSync(join(tmpdir(), 'iii-stream-page-'));
  await build({
    stdin: { contents: program, resolveDir: here, sourcefile: 'page.js' },
    outfile: join(root, 'page.js'), bundle: true, format: 'esm', target: 'es2022', logLevel: 'warning', define: { 'process.env.NODE_ENV': '"development"' },
  });
  writeFileSync(join(root, 'index.html'), '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>test</title><div id="root"></div><script type="module" src="./page.js"></script>');
  const site = await serve(root);
  const browser = await launch();
  const context = await browser.newContext();
  return {
    browser,
    context,
    url: `${site.url}/index.html`,
    /** A tab in which the program has run; `tab.noise` has its warnings and errors. */
    async open(target = context, prepare = () => {}) {
      const tab = await target.newPage();
      tab.noise = [];
      tab.on('pageerror', (error) => tab.noise.push(error.message));
      tab.on('console', (message) => { if (['error', 'warning'].includes(message.type())) tab.noise.push(message.text()); });
      await tab.addInitScript(prepare);
      await tab.goto(`${site.url}/index.html`);
      await tab.waitForFunction(() => globalThis.isReady === true);
      return tab;
    },
    async close() {
      await browser.close();
      await site.close();
      rmSync(root, { recursive: true, force: true });
    },
  };
}
