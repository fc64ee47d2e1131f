// What is delivered: its size, its types, and that a bundler can import it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { gzipSync } from "node:zlib";

const HERE = import.meta.dirname;
const STATIC = join(HERE, "../../django_sse_live/static/django_sse_live");
const CORE = "sse-live.js";
const ALL = [CORE, "sse-live-light.js", "sse-live-loss.js", "sse-live-share.js", "sse-live-page.js", "sse-live-patch.js", "sse-live-refresh.js", "sse-live-socket.js", "sse-live-job.js"];

/** In bytes: of what every page loads, and of what it loads only if it needs it. */
const LIMITS = { [CORE]: 6_656, "sse-live-light.js": 1_050, "sse-live-loss.js": 1_100, "sse-live-share.js": 4_800, "sse-live-page.js": 900, "sse-live-patch.js": 3_072, "sse-live-refresh.js": 1_900, "sse-live-socket.js": 4_400, "sse-live-job.js": 2_048 };

const needed = (name) => existsSync(join(HERE, "node_modules", name)) ? false
  : `needs ${name}, which is not on this machine (npm install --prefix tests/js)`;

/** Comments and the indentation go, as any server or bundler that minds can do; no name is made shorter. */
async function slim(source) {
  const { parse } = await import("acorn");
  let [code, end] = ["", 0];
  const onComment = (isBlock, text, from, to) => {
    code += source.slice(end, from);
    end = to;
  };
  parse(source, { ecmaVersion: "latest", sourceType: "module", onComment });
  code += source.slice(end);
  return code.split("\n").map((line) => line.trim()).filter(Boolean).join("\n");
}

const read = (file) => readFileSync(join(STATIC, file), "utf8");
const size = (source) => gzipSync(source, { level: 9 }).length;

describe("the size, gzipped, without comments and not minified", () => {
  for (const [file, limit] of Object.entries(LIMITS)) {
    test(`of ${file} is at most ${limit} bytes`, { skip: needed("acorn") }, async (t) => {
      const bytes = size(await slim(read(file)));
      t.diagnostic(`${bytes} bytes; ${size(read(file))} with comments`);
      assert.ok(bytes <= limit, `${bytes} bytes`);
    });
  }
});

test("what is measured is all but the comments: what stands between two of them counts", { skip: needed("acorn") }, async () => {
  const source = "/** one */ a = b;\n  c(`//d`, /\\/*e/);  // two\n/** three */\nf('/*g*/');\n";
  assert.equal(await slim(source), "a = b;\nc(`//d`, /\\/*e/);\nf('/*g*/');");
});

describe("the types", () => {
  const tsc = join(HERE, "node_modules/.bin/tsc");

  test("in the source hold, and the declarations are those of the source", { skip: needed("typescript") }, () => {
    const fresh = mkdtempSync(join(tmpdir(), "sse-live-"));
    execFileSync(tsc, ["--project", HERE, "--outDir", fresh], { stdio: "pipe" });
    for (const file of ALL) {
      const name = file.replace(".js", ".d.ts");
      assert.equal(read(name), readFileSync(join(fresh, name), "utf8"),
        `${name} is not up to date: tests/js/node_modules/.bin/tsc -p tests/js --outDir static/django_sse_live`);
    }
  });

  test("fit those who use them", { skip: needed("typescript") }, () => {
    execFileSync(tsc, ["--project", join(HERE, "usage")], { stdio: "pipe" });
  });
});

describe("the package", () => {
  test("names files that exist", () => {
    const { exports } = JSON.parse(read("package.json"));
    for (const entry of Object.values(exports)) for (const file of Object.values(entry)) assert.ok(existsSync(join(STATIC, file)), file);
  });

  test("is imported by the name that it gives", async () => {
    const { SSELive } = await import("../../django_sse_live/static/django_sse_live/sse-live.js");
    assert.equal(typeof SSELive, "function");
  });

  test("loads its files by their address, which no bundler is to make anything of", () => {
    for (const file of ALL) {
      for (const [call] of read(file).matchAll(/\bawait import\([^;\n]*/g)) {
        assert.match(call, /webpackIgnore: true.*@vite-ignore/, file);
      }
    }
    assert.match(read(CORE), /await import\(/);
  });

  test("can be imported where there is no DOM: a page may be rendered on a server", async () => {
    const { shared } = await import("../../django_sse_live/static/django_sse_live/sse-live-share.js");
    assert.throws(() => shared(class {}, {}), /different for each user/);
    await import("../../django_sse_live/static/django_sse_live/sse-live-job.js");
  });
});
