// Makes docs/api, the reference of the npm package, out of its types and their comments.

import { spawnSync } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { argv } from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
export const typedoc = here("node_modules/typedoc/bin/typedoc");
export const target = here("../../docs/api");
/** What the maker calls its pages, what they are called here, and the entry each tells of. */
const PAGES = [
  ["index-1.md", "iii-stream.md", "iii-stream"],
  ["react.md", "react.md", "iii-stream/react"],
];
const NOTE = "<!-- Made by `make api` from the sources in pkg/src; edit those. -->\n\n";

/** The pages, text by name. */
export function pages() {
  const out = mkdtempSync(join(tmpdir(), "iii-stream-api-"));
  try {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [typedoc, "--options", here("typedoc.json"), "--out", out, "--logLevel", "Warn"],
      { cwd: here("."), encoding: "utf8" },
    );
    if (status !== 0) throw new Error(`typedoc ended with ${status}:\n${stdout}${stderr}`);
    return Object.fromEntries(PAGES.map(([from, name, entry]) => [name, page(readFileSync(join(out, from), "utf8"), entry)]));
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

function page(text, entry) {
  const renamed = PAGES.reduce((changed, [from, name]) => changed.replaceAll(`](${from}`, `](${name}`), text);
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading.toLowerCase());
  // It numbers a name's anchor as if something else had the name, where a property is called like its type.
  const linked = renamed.replace(/\]\(#([a-z]+)-1\)/g, (link, name) =>
    headings.filter((heading) => heading === name).length === 1 ? `](#${name})` : link,
  );
  return NOTE + linked.replace(/^# .*$/m, `# \`${entry}\``);
}

if (pathToFileURL(argv[1]).href === import.meta.url) {
  mkdirSync(target, { recursive: true });
  for (const [name, text] of Object.entries(pages())) writeFileSync(join(target, name), text);
}
