// <sse-live-job>: text by offsets, what is missing, how it stands, and Stop.
import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { FakeElement, FakePage, giveDOM, pass, resetFakes } from "./fakes.mjs";
import { randomFrom } from "./world.mjs";

const defined = giveDOM();
globalThis.MutationObserver = class {
  constructor(run) { this.run = run; }
  observe(element) { element.observer = this; }
  takeRecords() {}
};
const { SSELiveJobElement, watch } = await import("../../django_sse_live/static/django_sse_live/sse-live-job.js");

const ID = "5f".repeat(16);

/** An element with a text. */
class FakePart extends FakeElement {
  hidden = false;
  position = -1;
  /** How often its text was appended to, and replaced. */
  appended = 0;
  replaced = 0;

  constructor(name, text = "") {
    super();
    this.name = name;
    const part = this;
    const node = {
      data: text,
      get length() { return this.data.length; },
      appendData(more) {
        this.data += more;
        part.appended += 1;
      },
    };
    Object.defineProperties(this, {
      firstChild: { get: () => node.data ? node : null },
      textContent: {
        get: () => node.data,
        set(text) {
          node.data = text;
          part.replaced += 1;
        },
      },
    });
  }

  closest() { return this.name === "stop" ? this : null; }
  focus() { document.activeElement = this; }
}
Object.defineProperty(FakeElement.prototype, "querySelector", {
  value(selector) {
    const name = /data-job=(\w+)/.exec(selector)?.[1];
    return this.children.find((each) => name ? each.name === name : each.isStream) ?? null;
  },
});

/** The inner <sse-live>, whose server is the test. */
class FakeStream extends FakeElement {
  isStream = true;
  live = { state: "connecting" };
  sent = [];

  send(type, data, options) {
    return new Promise((resolve, reject) => this.sent.push({ type, ...options, resolve, reject }));
  }

  remove() { this.isRemoved = true; }
  say(type, data) { this.dispatchEvent(new CustomEvent(`sse:${type}`, { detail: { type, data } })); }

  connected() {
    this.live.state = "connected";
    this.say("connected", {});
  }

  tell(more) {
    const whole = { job: ID, n: 1, offset: 0, text: "", state: "running", ...more };
    this.say("sse.job", { type: "sse.job", channels: [`sse.job.${ID}`], data: { length: whole.offset + whole.text.length, ...whole } });
  }
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

function put({ state = "running", may = true, text = "", parts = ["text", "progress", "label", "status", "error", "stop"] } = {}) {
  const it = new SSELiveJobElement();
  it.setAttribute("job", ID);
  it.setAttribute("state", state);
  if (may) it.setAttribute("may-stop", "");
  for (const word of ["running", "finished", "failed", "cancelled", "lost", "unstopped"]) it.setAttribute(`text-${word}`, `${word}!`);
  it.append(...parts.map((name) => new FakePart(name, name === "text" ? text : "")));
  const stream = new FakeStream();
  it.append(stream);
  it.heard = [];
  it.addEventListener("sse:job", ({ bubbles, detail: { data } }) => it.heard.push([bubbles, data.state, data.text]));
  it.enter();
  return [it, stream, Object.fromEntries(it.children.map((each) => [each.name, each]))];
}

beforeEach(() => {
  resetFakes();
  new FakePage();
});

describe("the text", () => {
  test("is put together from pieces, whichever come twice, and is appended to what is shown", () => {
    const [it, stream, { text }] = put();
    stream.tell({ text: "Hello" });
    stream.tell({ n: 2, offset: 5, text: " wor" });
    stream.tell({ n: 2, offset: 5, text: " wor" });
    stream.tell({ n: 1, offset: 0, text: "Hel" });
    stream.tell({ n: 3, offset: 7, text: "orld" });
    assert.equal(it.job.text, "Hello world");
    assert.deepEqual([text.textContent, text.appended, text.hidden], ["Hello world", 2, false]);
    assert.deepEqual(it.heard.at(-1), [true, "running", "Hello world"]);
  });

  test("counts as JavaScript does", () => {
    const [it, stream] = put();
    stream.tell({ text: "a😀" });
    stream.tell({ offset: 3, text: "b" });
    assert.equal(it.job.text, "a😀b");
  });

  test("that was drawn is shown until the server's takes its place", () => {
    const [it, stream, { text }] = put({ text: "a\nb" });
    assert.equal(text.textContent, "a\nb");
    stream.tell({ offset: 4, text: "cd" });
    assert.equal(text.textContent, "a\nb");
    stream.tell({ text: "a\r\nbc" });
    assert.equal(text.textContent, "a\r\nbc");
    assert.equal(it.job.text, "a\r\nbc");
  });

  test("that is drawn later is shown, too: a page may be parsed in pieces", () => {
    const [it, , { text }] = put();
    text.textContent = "drawn";
    it.observer.run();
    assert.deepEqual([it.job.text, text.textContent], ["drawn", "drawn"]);
  });

  test("of another job on the same stream is none of ours", () => {
    const [it, stream] = put();
    stream.tell({ job: "other", text: "x" });
    assert.equal(it.job.text, "");
  });

  test("equals what was written, whatever order and pieces its frames come in", () => {
    for (let seed = 0; seed < 300; seed += 1) {
      resetFakes();
      const random = randomFrom(seed);
      const upTo = (most) => Math.floor(random() * (most + 1));
      const written = Array.from({ length: 200 }, (_, n) => `${n}${"😀é\n<b>"[n % 6] ?? ""}`).join("");
      const [it, stream, { text }] = put();
      stream.connected();
      for (let at = 0; at < written.length;) {
        const next = Math.min(written.length, at + upTo(30));
        const kind = random();
        // Lost, doubled, late, from further back, or as it should be.
        if (kind > 0.1) stream.tell({ n: next, offset: at, text: written.slice(at, next) });
        if (kind > 0.7) stream.tell({ n: at, offset: upTo(at), text: "", length: at });
        if (kind > 0.9) stream.tell({ n: next, offset: 0, text: written.slice(0, next) });
        at = next;
        assert.ok(written.startsWith(it.job.text));
      }
      stream.tell({ n: 1e6, offset: written.length, text: "", state: "finished" });
      for (let waits = 0; !stream.isRemoved; waits += 1) {
        assert.ok(waits < 1000, `seed ${seed}`);
        pass(1000);
        const asked = stream.sent.splice(0);
        if (asked.length && random() > 0.3) stream.tell({ n: 1e6, text: written, state: "finished" });
      }
      assert.deepEqual([it.job.text, text.textContent], [written, written]);
    }
  });
});

describe("what is missing", () => {
  test("is asked for if it has not come by itself, and then more and more slowly", () => {
    const [, stream] = put();
    stream.connected();
    stream.tell({ text: "abc" });
    pass(60_000);
    assert.equal(stream.sent.length, 0);
    stream.tell({ offset: 5, text: "fg" });
    stream.tell({ offset: 7, text: "hi" });
    pass(499);
    assert.equal(stream.sent.length, 0);
    pass(1);
    assert.deepEqual(stream.sent.map(({ type, channel, queue }) => [type, channel, queue]), [["sse.job.state", `sse.job.${ID}`, "none"]]);
    pass(1000);
    assert.equal(stream.sent.length, 2);
    pass(1999);
    assert.equal(stream.sent.length, 2);
    pass(1);
    assert.equal(stream.sent.length, 3);
    stream.tell({ text: "abcdefghi" });
    pass(60_000);
    assert.equal(stream.sent.length, 3);
    stream.tell({ offset: 10, text: "k" });
    pass(500);
    assert.equal(stream.sent.length, 4);
  });

  test("is known also where a frame says how long the text is", () => {
    const [, stream] = put();
    stream.connected();
    stream.tell({ text: "abc", length: 7 });
    pass(500);
    assert.equal(stream.sent.length, 1);
  });

  test("may be all of it: where the stream was there before this element, or is another tab's", () => {
    const [, stream] = put();
    stream.live.state = "connected";
    pass(500);
    assert.equal(stream.sent.length, 1);
  });

  test("is not asked for while there is no connection; and may have come with each new one", () => {
    const [, stream] = put();
    stream.connected();
    stream.tell({ text: "abc" });
    stream.live.state = "reconnecting";
    stream.tell({ offset: 9, text: "d" });
    pass(30_000);
    assert.equal(stream.sent.length, 0);
    stream.connected();
    pass(500);
    assert.equal(stream.sent.length, 1);
  });

  test("is not asked for by an element that has gone", () => {
    const [it, stream] = put();
    stream.connected();
    it.isConnected = false;
    pass(60_000);
    assert.equal(stream.sent.length, 0);
  });
});

describe("how it stands", () => {
  test("is said in the server's words, once for each change", () => {
    const [it, stream, { status, label, error }] = put();
    stream.tell({ label: "Parsing" });
    stream.tell({ label: "Parsing" });
    assert.deepEqual([label.textContent, label.hidden], ["Parsing", false]);
    stream.tell({ n: 2, state: "failed", error: "The file is empty." });
    assert.deepEqual([status.textContent, error.textContent, error.hidden, it.getAttribute("state")], ["failed!", "The file is empty.", false, "failed"]);
    assert.deepEqual([label.textContent, label.hidden], ["", true]);
    assert.deepEqual([status.replaced, status.appended], [2, 0]);
  });

  test("is a bar while it runs, and where it did not get to the end", () => {
    const [, stream, { progress }] = put();
    stream.tell({ progress: 0.4 });
    assert.deepEqual([progress.value, progress.hidden], [0.4, false]);
    stream.tell({ n: 2, progress: 0.6, state: "cancelled" });
    assert.deepEqual([progress.value, progress.hidden], [0.6, false]);
    const [unheard, other, { progress: bar }] = put();
    bar.setAttribute("value", "0.5");  // as it was drawn
    unheard.observer.run();
    assert.equal(bar.getAttribute("value"), "0.5");
    other.tell();
    assert.deepEqual([bar.getAttribute("value"), bar.hidden], [null, false]);
    other.tell({ n: 2, state: "lost" });
    assert.equal(bar.hidden, true);
    other.tell({ n: 3, progress: 1, state: "finished" });
    assert.equal(bar.hidden, true);
  });

  test("is not taken back by what is older, or by a judgement after the end", () => {
    const [it, stream] = put();
    stream.tell({ n: 5, progress: 0.5 });
    stream.tell({ n: 4, progress: 0.4 });
    assert.equal(it.job.progress, 0.5);
    stream.tell({ n: 5, state: "lost" });
    assert.equal(it.job.state, "lost");
    stream.tell({ n: 6, state: "running" });
    assert.equal(it.job.state, "running");
    stream.tell({ n: 7, state: "cancelled" });
    stream.tell({ n: 7, state: "lost" });
    stream.tell({ n: 8, state: "running", text: "late" });
    assert.deepEqual([it.job.state, it.job.text], ["cancelled", "late"]);
    stream.tell({ n: 9, offset: 4, state: "expired" });
    assert.equal(it.job.state, "expired");
  });

  test("is said, too, where the server's cache has lost all that it knew of the job", () => {
    for (const state of ["lost", "expired"]) {
      const [it, stream, { text }] = put();
      stream.tell({ n: 42, text: "so far" });
      stream.tell({ n: 0, state });
      assert.deepEqual([it.job.state, text.textContent], [state, "so far"]);
    }
    const [it, stream] = put();
    stream.tell({ n: 42, state: "finished" });
    stream.tell({ n: 0, state: "expired" });
    assert.equal(it.job.state, "finished");
  });

  test("is what a process says that has heard less of the job than this page: another worker, or who stopped it", () => {
    for (const state of ["lost", "cancelled"]) {
      const [it, stream, { text }] = put();
      stream.tell({ n: 42, text: "so far" });
      stream.tell({ n: 40, text: "so", state });
      assert.deepEqual([it.job.state, it.getAttribute("state"), text.textContent], [state, state, "so far"]);
      stream.tell({ n: 43, offset: 6, text: "!", state: "running" });
      assert.deepEqual([it.job.state, text.textContent], [state === "lost" ? "running" : state, "so far!"]);
    }
  });

  test("is heard until nothing more can come, and until all has come", () => {
    for (const state of ["lost", "cancelled"]) {
      const [, stream] = put();
      stream.tell({ state });
      assert.ok(!stream.isRemoved, state);
    }
    for (const state of ["finished", "failed", "expired"]) {
      const [, stream] = put();
      stream.tell({ text: "ab" });
      stream.tell({ n: 2, offset: 5, state });
      assert.ok(!stream.isRemoved, state);
      stream.tell({ n: 2, text: "abcde", state });
      assert.ok(stream.isRemoved, state);
    }
  });

  test("is put right where somebody else has changed what is shown", () => {
    const [it, stream, { text, status }] = put();
    stream.tell({ n: 2, text: "abc", state: "cancelled" });
    it.setAttribute("state", "running");
    [text.textContent, status.textContent] = ["a", "running!"];
    it.observer.run();
    assert.deepEqual([it.getAttribute("state"), text.textContent, status.textContent], ["cancelled", "abc", "cancelled!"]);
  });

  test("is another job's where the element has become that job's", () => {
    const [it, stream, { text, status }] = put();
    stream.tell({ text: "abc" });
    it.setAttribute("job", "other");
    it.setAttribute("state", "failed");
    [text.textContent, status.textContent] = ["drawn", "failed!"];
    it.observer.run();
    stream.tell({ offset: 3, text: "d" });
    assert.deepEqual([it.job.id, it.job.text, text.textContent, it.getAttribute("state")], ["other", "drawn", "drawn", "failed"]);
  });

  test("may be shown by any part alone", () => {
    const [, stream, { text }] = put({ parts: ["text"] });
    stream.tell({ text: "abc", progress: 0.4, label: "x" });
    stream.tell({ n: 2, offset: 3, state: "failed", error: "e" });
    assert.equal(text.textContent, "abc");
  });
});

describe("Stop", () => {
  const press = (stop) => (it) => it.handleEvent({ type: "click", target: stop });

  test("is there while the job runs, for those who may; and is pressed once", async () => {
    const [it, stream, { stop, status }] = put();
    stream.tell();
    assert.deepEqual([stop.hidden, stop.getAttribute("aria-disabled")], [false, "false"]);
    document.activeElement = stop;
    press(stop)(it);
    press(stop)(it);
    await settle();
    assert.deepEqual(stream.sent.map(({ type, channel }) => [type, channel]), [["sse.job.stop", `sse.job.${ID}`]]);
    assert.equal(stop.getAttribute("aria-disabled"), "true");
    stream.sent[0].resolve({ state: "cancelled" });
    await settle();
    assert.deepEqual([stop.hidden, status.textContent, it.getAttribute("state")], [true, "cancelled!", "cancelled"]);
    assert.equal(document.activeElement, status);  // not nowhere
    assert.ok(put({ may: false })[2].stop.hidden);
  });

  test("that comes after the end changes nothing", async () => {
    const [it, stream] = put();
    stream.tell({ text: "ab" });
    const answer = it.stop();
    await settle();
    stream.tell({ n: 2, offset: 2, state: "finished" });
    stream.sent[0].resolve({ state: "finished" });
    assert.equal(await answer, "finished");
    assert.equal(await it.stop(), "finished");
    assert.equal(stream.sent.length, 1);
  });

  test("that did not get through says so, and may be pressed again", async () => {
    const [it, stream, { stop, error }] = put();
    stream.tell();
    press(stop)(it);
    await settle();
    stream.sent[0].reject({ isTemporary: true, message: "unreachable" });
    await settle();
    assert.deepEqual([error.textContent, error.hidden, stop.hidden, stop.getAttribute("aria-disabled")], ["unstopped!", false, false, "false"]);
    press(stop)(it);
    assert.equal(error.hidden, true);
    await settle();
    assert.equal(stream.sent.length, 2);
  });

  test("that is refused says why, and is taken away", async () => {
    const [it, stream, { stop, error }] = put();
    stream.tell();
    const refused = assert.rejects(it.stop(), { message: "Not yours." });
    await settle();
    stream.sent[0].reject(Object.assign(new Error("Not yours."), { isTemporary: false }));
    await refused;
    assert.deepEqual([error.textContent, stop.hidden], ["Not yours.", true]);
    stream.tell({ n: 2, state: "finished" });
    assert.equal(error.hidden, true);
  });
});

test("a script's job has the stream of its page, by a way of its own", () => {
  const host = new FakeStream();
  host.live = { url: "http://localhost/events/?room=7&channel=a&token=old" };
  host.attributes = Object.entries({ src: "/events/?channel=a&room=7", token: "old", share: "g", "share-src": "/s.js", "csrf-token": "c", id: "x", persist: "local" })
    .map(([name, value]) => ({ name, value }));
  const root = new FakeElement();
  Object.assign(document, { documentElement: root, querySelectorAll: () => [host], createElement: (name) => name === "sse-live" ? new FakeStream() : new SSELiveJobElement() });
  const job = watch(host.live, "t", ID);
  const [stream] = job.children;
  const attributes = ["src", "token", "channels", "share", "share-src", "csrf-token", "id", "persist"].map((name) => stream.getAttribute(name));
  assert.deepEqual(attributes, ["/events/?room=7", "t", `sse.job.${ID}`, "g", "/s.js", "c", null, null]);
  assert.deepEqual([job.getAttribute("job"), job.hidden, root.children], [ID, true, [job]]);

  host.live = {};
  watch({ url: "http://localhost/events/?token=old" }, "t", ID);
  assert.equal(root.children[1].children[0].getAttribute("src"), "http://localhost/events/?");
});

test("the element is there once, though its file is loaded by two names", async () => {
  await import("../../django_sse_live/static/django_sse_live/sse-live-job.js?v=2");
  assert.equal(defined.get("sse-live-job"), SSELiveJobElement);
});
