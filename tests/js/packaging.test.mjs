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
const ALL = [CORE, "sse-live-share.js"];

const KIB = 1024;
const CORE_LIMIT = 6 * KIB;
const ALL_LIMIT = 10 * KIB;

const needed = (name) => existsSync(join(HERE, "node_modules", name)) ? false
  : `needs ${name}, which is not on this machine (npm install --prefix tests/js)`;

/** Whole-line comments and the indentation go, as any server or bundler that minds can do; no name is made shorter. */
function withoutComments(source) {
  const lines = source.replace(/^\s*\/\*\*[^]*?\*\/\s*?$/gm, "").split("\n");
  return lines.filter((line) => line.trim() && !line.trim().startsWith("//")).map((line) => line.trim()).join("\n");
}

const read = (file) => readFileSync(join(STATIC, file), "utf8");
const size = (source) => gzipSync(source, { level: 9 }).length;

describe("the size, gzipped, without comments and not minified", () => {
  test(`of the core module is at most ${CORE_LIMIT / KIB} KiB`, (t) => {
    const bytes = size(withoutComments(read(CORE)));
    t.diagnostic(`${bytes} bytes; ${size(read(CORE))} with comments`);
    assert.ok(bytes <= CORE_LIMIT, `${bytes} bytes`);
  });

  test(`of everything is at most ${ALL_LIMIT / KIB} KiB`, (t) => {
    const bytes = ALL.reduce((sum, file) => sum + size(withoutComments(read(file))), 0);
    t.diagnostic(`${bytes} bytes; ${ALL.reduce((sum, file) => sum + size(read(file)), 0)} with comments`);
    assert.ok(bytes <= ALL_LIMIT, `${bytes} bytes`);
  });
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

  test("can be imported where there is no DOM: a page may be rendered on a server", async () => {
    const { shared } = await import("../../django_sse_live/static/django_sse_live/sse-live-share.js");
    assert.throws(() => shared(class {}, {}), /different for each user/);
  });
});
