// What is delivered for patches: its size, counted without every comment, and nothing else left out.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { gzipSync } from "node:zlib";

const HERE = import.meta.dirname;
const STATIC = join(HERE, "../../django_sse_live/static/django_sse_live");
const ACORN = join(HERE, "node_modules/acorn/dist/acorn.mjs");

/** In bytes: of what a page loads at its first patch, and of what it loads at its first reset or refresh. */
const LIMITS = { "sse-live-patch.js": 3_072, "sse-live-refresh.js": 2_048 };

/** Not minified: comments go, wherever they stand, and the indentation. */
async function withoutComments(source) {
  const { parse } = await import(ACORN);
  const comments = [];
  parse(source, { ecmaVersion: "latest", sourceType: "module", onComment: (isBlock, text, start, end) => comments.push([start, end]) });
  const code = comments.reduceRight((rest, [start, end]) => rest.slice(0, start) + rest.slice(end), source);
  return code.split("\n").map((line) => line.trim()).filter(Boolean).join("\n");
}

describe("the size, gzipped", { skip: existsSync(ACORN) ? false : "needs acorn, which is not on this machine (npm install --prefix tests/js)" }, () => {
  for (const [file, limit] of Object.entries(LIMITS)) {
    test(`of ${file} is at most ${limit} bytes`, async (t) => {
      const source = readFileSync(join(STATIC, file), "utf8");
      const bytes = gzipSync(await withoutComments(source), { level: 9 }).length;
      t.diagnostic(`${bytes} bytes; ${gzipSync(source, { level: 9 }).length} with comments`);
      assert.ok(bytes <= limit, `${bytes} bytes`);
    });
  }
});
