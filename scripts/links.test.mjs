// Every relative link in the Markdown files leads to a file, and to a heading where it names one; and the tests that
// docs/guarantees.md names are there.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const files = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "--", "*.md"], { cwd: root, encoding: "utf8" })
  .split("\n")
  .filter((file) => file !== "" && existsSync(join(root, file)));

/** The text without code, where brackets are no links. */
const prose = (text) => text.replace(/^(```|~~~)[\s\S]*?^\1/gm, "").replace(/`[^`\n]*`/g, "");

function targets(text) {
  const inline = [...prose(text).matchAll(/\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\)[^()\s]*)?)>?(?:\s+"[^"]*")?\s*\)/g)];
  const defined = [...prose(text).matchAll(/^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)/gm)];
  return [...inline, ...defined].map((match) => match[1]);
}

/** The anchors GitHub makes of a file's headings, and those that stand in it. */
function anchors(text) {
  const seen = new Map();
  const headings = [...text.replace(/^(```|~~~)[\s\S]*?^\1/gm, "").matchAll(/^#{1,6}\s+(.+?)\s*#*$/gm)];
  const written = [...text.matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id);
  const made = headings.map(([, heading]) => {
    const slug = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M} _-]/gu, "")
      .replaceAll(" ", "-");
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    return count === 0 ? slug : `${slug}-${count}`;
  });
  return new Set([...written, ...made]);
}

/** What is wrong with a link of a file, or nothing. */
function fault(file, link) {
  if (/^[a-z][a-z0-9+.-]*:/i.test(link)) return undefined;
  const [path, anchor] = link.split("#");
  const from = join(root, file);
  const to = path === "" ? from : join(dirname(from), decodeURIComponent(path));
  if (relative(root, to).startsWith("..")) return `${link} leaves the repository`;
  if (!existsSync(to)) return `${link} leads nowhere`;
  if (anchor === undefined || statSync(to).isDirectory() || !to.endsWith(".md")) return undefined;
  return anchors(readFileSync(to, "utf8")).has(decodeURIComponent(anchor)) ? undefined : `${link}: no such heading`;
}

for (const file of files) {
  test(`links of ${file}`, () => {
    const faults = targets(readFileSync(join(root, file), "utf8")).map((link) => fault(file, link));
    assert.deepEqual(faults.filter(Boolean), []);
  });
}

/** Tests that a text names and that are not there: a file, and behind a colon what its tests are called. */
function missing(text) {
  const named = [...text.matchAll(/`([\w./-]+\.(?:rs|mjs))`(?:: ((?:`[^`]+`(?:, )?)+))?/g)];
  return named.flatMap(([, file, names = ""]) => {
    if (!existsSync(join(root, file))) return [file];
    const source = readFileSync(join(root, file), "utf8");
    const isThere = (name) => (file.endsWith(".rs") ? source.includes(`fn ${name}(`) : source.includes(name));
    return [...names.matchAll(/`([^`]+)`/g)].map((match) => match[1]).filter((name) => !isThere(name)).map((name) => `${file}: ${name}`);
  });
}

test("the tests that docs/guarantees.md names are there", () => {
  const text = readFileSync(join(root, "docs/guarantees.md"), "utf8");
  assert.deepEqual(missing(text), []);
  const made = "`no/such.rs`, `core/tests/histories.rs`: `every_history_keeps_the_rules`, `no_such_test`";
  assert.deepEqual(missing(made), ["no/such.rs", "core/tests/histories.rs: no_such_test"]);
});

test("a broken link is found", () => {
  const from = "README.md";
  assert.match(fault(from, "no/such/file.md"), /leads nowhere/);
  assert.match(fault(from, "../elsewhere.md"), /leaves the repository/);
  assert.equal(fault(from, "https://example.org/"), undefined);
  assert.deepEqual(targets("[a](b.md) `[c](d.md)` [e](<f.md>)\n[g]: h.md\n"), ["b.md", "f.md", "h.md"]);
  assert.deepEqual([...anchors("# One `two`, three\n## One two three\n")], ["one-two-three", "one-two-three-1"]);
});
