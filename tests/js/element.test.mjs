// <sse-live>, in a page that changes under it, and in browsers that refuse it this or that.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { FakeEventSource, FakePage, FakeStorage, giveDOM, pass, resetFakes } from "./fakes.mjs";

const MODULE = "../../django_sse_live/static/django_sse_live/sse-live.js";
const defined = giveDOM();
const { SSELiveElement: First } = await import(MODULE);
/** Of a page of its own: the files that one has loaded stay in it. */
let SSELiveElement = First;
let pages = 0;
const freshPage = async () => { ({ SSELiveElement } = await import(`${MODULE}?page=${++pages}`)); };

const server = () => FakeEventSource.last;
const connections = () => FakeEventSource.made.length;

/** Lets what was awaited go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Waits for what takes the real time of a file. */
async function until(condition) {
  while (!condition()) await settle();
}

/** What stands in the page. */
const present = new Set();

/** Out of the page, for good. */
function takeOut(it) {
  it.leave();
  pass(1);
}

async function put(attributes) {
  const it = new SSELiveElement();
  present.add(it);
  for (const [name, value] of Object.entries(attributes)) it.setAttribute(name, value);
  it.enter();
  await settle();
  return it;
}

async function putConnected(attributes) {
  const it = await put({ src: "/events/?channel=a", ...attributes });
  server().connected({}, "a:1000-0");
  return it;
}

let page;

beforeEach(async () => {
  for (const it of present) if (it.isConnected) takeOut(it);
  present.clear();
  await settle();
  resetFakes();
  await freshPage();
  page = new FakePage();
  mock.method(console, "info", () => {});
  mock.method(console, "warn", () => {});
  globalThis.EventSource = FakeEventSource;
});

describe("the element", () => {
  test("says how the stream fares, without markup from strings", async () => {
    const it = await put({ src: "/events/" });
    assert.deepEqual([it.getAttribute("state"), it.shadowRoot.text], ["connecting", "Connecting…"]);
    server().connected();
    assert.deepEqual([it.getAttribute("state"), it.shadowRoot.text], ["connected", "Live"]);
  });

  test("sends messages as its attributes say, also one that it is given before its stream begins; answers bubble as events", async () => {
    const posts = [];
    mock.method(globalThis, "fetch", async (url, { body, headers }) => {
      posts.push([url, JSON.parse(body).data, headers["X-CSRFToken"]]);
      return new Response(JSON.stringify({ id: "1", data: posts.length }));
    });
    const it = new SSELiveElement();
    it.setAttribute("src", "/events/?channel=a");
    it.setAttribute("csrf-token", "t");
    it.setAttribute("queue", "memory");
    const heard = [];
    it.addEventListener("sse:answer", ({ bubbles, detail: { data } }) => heard.push([bubbles, data.type, data.data]));
    const data = { n: 1 };
    const answers = [it.send("say", data)];
    data.n = 2;
    it.enter();
    await settle();
    server().connected({ as: "u7" }, "a:1000-0");
    assert.equal(await answers[0], 1);
    assert.equal(await it.send("say"), 2);
    assert.deepEqual(posts, [["http://localhost/events/?channel=a", { n: 1 }, "t"], ["http://localhost/events/?channel=a", null, "t"]]);
    assert.deepEqual(heard, [[true, "say", 1], [true, "say", 2]]);
  });

  test("that is hidden has no light before it is shown; and a stream without one, where its file cannot be had", async () => {
    const it = new SSELiveElement();
    it.hidden = true;
    it.setAttribute("src", "/events/");
    present.add(it);
    it.enter();
    await settle();
    server().connected();
    assert.deepEqual([it.shadowRoot, it.getAttribute("state")], [null, "connected"]);
    const written = [];
    const setAttribute = it.setAttribute;
    it.setAttribute = (name, value) => {
      written.push(name);
      setAttribute.call(it, name, value);
    };
    it.hidden = false;
    it.removeAttribute("hidden");
    await until(() => it.shadowRoot?.text);
    assert.equal(it.shadowRoot.text, "Live");
    assert.deepEqual(written, [], "the page sees no change of state where there is none");
    await freshPage();
    const other = await put({ src: "/events/", "light-src": "file:///nowhere/sse-live-light.js" });
    server().connected();
    assert.deepEqual([other.shadowRoot, other.getAttribute("state")], [null, "connected"]);
  });

  test("is there once, though its file is loaded by two names", async () => {
    await import(`${MODULE}?v=2`);
    assert.equal(defined.get("sse-live"), First);
  });

  test("within a job opens no stream before that is there to hear it; and opens one where its file cannot be had", async () => {
    const defined = mock.method(customElements, "define");
    const it = await put({ src: "/events/", "job-src": new URL("../../django_sse_live/static/django_sse_live/sse-live-job.js", import.meta.url).href });
    await until(() => it.live);
    assert.equal(defined.mock.calls[0].arguments[0], "sse-live-job");
    const said = mock.method(console, "error", () => {});
    await freshPage();
    const other = await put({ src: "/events/?other", "job-src": "file:///nowhere/sse-live-job.js" });
    for (let waits = 0; waits < 40; waits += 1) {
      await settle();
      pass(1000);
    }
    await until(() => other.live);
    assert.equal(said.mock.callCount(), 1);
  });

  test("has a stream of its own where the file for sharing cannot be had", async () => {
    const it = await put({ src: "/events/", share: "g", "share-src": "file:///nowhere/sse-live-share.js" });
    await until(() => it.live);
    server().connected();
    assert.equal(it.getAttribute("state"), "connected");
  });
});

describe("the position kept in the browser", () => {
  const token = { src: "/events/", token: "secret", channels: "a\nb", persist: "local" };

  test("is nothing that a stream depends on", async () => {
    Object.defineProperty(globalThis, "localStorage", { get() { throw new DOMException("denied", "SecurityError"); }, configurable: true });
    const it = await putConnected({ persist: "local" });
    assert.equal(it.getAttribute("state"), "connected");
  });

  test("has no token in its name, and the same name when the element is put back", async () => {
    const storage = new FakeStorage();
    Object.defineProperty(globalThis, "localStorage", { value: storage, configurable: true });
    const it = await putConnected(token);
    server().connected({ token: "fresh" });
    takeOut(it);
    it.enter();
    await settle();
    server().connected({}, "a:1001-0");
    assert.deepEqual(storage.keys(), ["sse-live:/events/?a,b"]);
    assert.equal(server().parameters.get("token"), "fresh");
  });
});

describe("a page that is brought up to date under the element", () => {
  test("may take off the state: it is put back", async () => {
    const it = await putConnected();
    it.removeAttribute("state");
    assert.equal(it.getAttribute("state"), "connected");
    it.setAttribute("state", "connecting");
    assert.equal(it.getAttribute("state"), "connected");
  });

  test("may name another stream, which begins where the one of before was", async () => {
    const it = await putConnected({ "last-event-id": "a:1-0" });
    const states = [];
    it.addEventListener("sse:statechange", ({ detail }) => states.push(detail.data.state));
    const [old] = FakeEventSource.made;
    it.setAttribute("src", "/events/?channel=b");
    await settle();
    assert.equal(old.readyState, FakeEventSource.CLOSED);
    assert.deepEqual(server().parameters.getAll("channel"), ["b"]);
    assert.equal(server().parameters.get("last_event_id"), "a:1000-0");
    assert.equal(it.getAttribute("state"), "connecting");
    server().connected();
    assert.deepEqual([it.getAttribute("state"), states], ["connected", ["connected"]]);
    pass(10_000);
    assert.equal(connections(), 2);
  });

  test("may say where that begins, and what it may hear", async () => {
    const it = await putConnected({ src: "/events/", token: "for a", channels: "a", "last-event-id": "a:1-0" });
    for (const [name, value] of Object.entries({ token: "for b", channels: "b", "last-event-id": "a:5000-0" })) it.setAttribute(name, value);
    await settle();
    assert.deepEqual([server().parameters.get("token"), server().parameters.get("last_event_id"), connections()], ["for b", "a:5000-0", 2]);
  });

  test("and says the same, in a fresh token: the stream goes on", async () => {
    const it = await putConnected({ src: "/events/", token: "one", channels: "a", "last-event-id": "a:1-0" });
    for (const [name, value] of Object.entries({ src: "/events/", token: "two", channels: "a", "last-event-id": "a:5000-0" })) it.setAttribute(name, value);
    await settle();
    assert.equal(connections(), 1);
  });

  test("and was drawn before an event that it has had is as it was before that: the event comes again", async () => {
    const it = await putConnected({ "last-event-id": "a:1000-0" });
    const heard = [];
    it.addEventListener("sse:tick", ({ detail }) => heard.push(detail.data));
    for (const number of [1, 2]) server().event("tick", number, `a:100${number}-0`);
    // A morph: the answer was on the way when the second event came.
    it.setAttribute("last-event-id", "a:1001-0");
    await settle();
    assert.deepEqual([connections(), server().parameters.get("last_event_id")], [2, "a:1001-0"]);
    server().connected({ resumed: true });
    server().event("tick", 2, "a:1002-0");
    assert.deepEqual(heard, [1, 2, 2]);
    assert.equal(it.getAttribute("last-event-id"), "a:1002-0");
  });

  test("and was drawn with all that it has had, or more, goes on", async () => {
    const it = await putConnected({ "last-event-id": "a:1000-0" });
    server().event("tick", 1, "a:1001-0");
    for (const position of ["a:1001-0", "a:1009-0"]) {
      it.setAttribute("last-event-id", position);
      await settle();
    }
    it.removeAttribute("last-event-id");
    await settle();
    server().event("tick", 2, "a:1010-0");
    server().send({ type: "reset", reason: "unknown_id" }, "b:900-0");
    await settle();
    server().event("tick", 3, "b:901-0");
    await settle();
    assert.equal(connections(), 1);
  });

  test("may move the element, and wait in between, as Turbo does with a permanent one", async () => {
    const it = await putConnected();
    it.leave();
    for (let turn = 0; turn < 5; turn++) await null;
    it.enter();
    pass(1);
    await settle();
    assert.deepEqual([connections(), it.getAttribute("state")], [1, "connected"]);
  });

  test("may hold it in hand when an event comes: the page hears of that when the element is back", async () => {
    const it = await putConnected({ "last-event-id": "a:1-0" });
    const heard = [];
    it.addEventListener("sse:one", ({ detail }) => heard.push(detail.id));
    it.leave();
    server().event("one", null, "a:1001-0");
    it.enter();
    await settle();
    pass(1);
    assert.deepEqual([connections(), server().parameters.get("last_event_id"), heard], [2, "a:1000-0", []]);
    server().connected();
    server().event("one", null, "a:1001-0");
    assert.deepEqual(heard, ["a:1001-0"]);
  });

  test("may take it out and put it back: it goes on from where it was, as its attributes say", async () => {
    const it = await putConnected({ token: "first", "last-event-id": "a:1-0" });
    server().connected({ token: "second" });
    takeOut(it);
    it.enter();
    await settle();
    assert.deepEqual([server().parameters.get("token"), server().parameters.get("last_event_id")], ["second", "a:1000-0"]);
    assert.deepEqual(["src", "token", "last-event-id"].map((name) => it.getAttribute(name)), ["/events/?channel=a", "second", "a:1000-0"]);
  });
});

describe("an event that brings a patch", () => {
  /** A file that notes what it is given, and takes a while to do it. */
  const notes = (name, what = "await new Promise((resolve) => setImmediate(resolve));") => "data:text/javascript," + encodeURIComponent(
    `export async function patch(frame, id, element) { ${what} globalThis.${name}.push("patched " + frame.type + " " + id); }`);

  async function putPatched(name, source = notes(name)) {
    const heard = globalThis[name] = [];
    const it = await putConnected({ "patch-src": source });
    for (const type of ["one", "two", "three", "reset", "stale"]) it.addEventListener(`sse:${type}`, ({ detail }) => heard.push(`${type} ${detail.id}`));
    return { it, heard };
  }

  const withRegions = (selector) => selector.startsWith("[data-sse-live]") ? {} : null;
  const patched = (type, id) => server().send({ type, channels: ["a"], data: null, patch: { action: "remove", target: "x" } }, id);

  test("is handed on when the patch is in the page, and so is what comes after it, in order", async () => {
    const { heard } = await putPatched("inOrder");
    server().event("one", null, "a:1001-0");
    patched("two", "a:1002-0");
    server().event("three", null, "a:1003-0");
    assert.deepEqual(heard, ["one a:1001-0"]);
    await until(() => heard.length === 4);
    assert.deepEqual(heard.slice(1), ["patched two a:1002-0", "two a:1002-0", "three a:1003-0"]);
    server().event("one", null, "a:1004-0");
    assert.deepEqual(heard.slice(4), ["one a:1004-0"], "nothing waits any more");
  });

  test("is handed on though the patch fails; the page is stale then, and says so", async () => {
    mock.method(console, "error", () => {});
    const { heard } = await putPatched("failing", notes("failing", "throw new Error('no');"));
    patched("two", "a:1002-0");
    await until(() => heard.length === 2);
    assert.deepEqual(heard, ["stale a:1002-0", "two a:1002-0"]);
  });

  test("waits for a file that cannot be had at first; and no longer than that", async () => {
    mock.method(console, "error", () => {});
    const { it, heard } = await putPatched("missing", "file:///nowhere/sse-live-patch.js");
    patched("two", "a:1002-0");
    for (const seconds of [1, 5, 25]) {
      for (let turn = 0; turn < 20; turn++) await settle();
      assert.deepEqual(heard, []);
      pass(seconds * 1000);
    }
    await until(() => heard.length === 2);
    assert.deepEqual(heard, ["stale a:1002-0", "two a:1002-0"]);
    assert.equal(it.getAttribute("stale"), "");
  });

  test("that could not be done is made good by the next: the page is fetched anew", async () => {
    mock.method(console, "error", () => {});
    const { heard } = await putPatched("behind", notes("behind", "if (frame.type === 'two') throw new Error('no');"));
    for (const [number, type] of ["two", "three", "one"].entries()) patched(type, `a:1002-${number}`);
    await until(() => heard.length === 6);
    assert.deepEqual(heard, ["stale a:1002-0", "two a:1002-0", "patched reset a:1002-1", "three a:1002-1", "patched one a:1002-2", "one a:1002-2"]);
  });

  test("has its file loaded once, also where that was not to be had at first", async () => {
    const { heard } = await putPatched("once", "data:text/javascript," + encodeURIComponent(`
      globalThis.runs = (globalThis.runs ?? 0) + 1;
      if (runs === 1) throw new Error("not yet");
      export function patch(frame, id) { globalThis.once.push("patched " + frame.type + " " + id); }`));
    patched("two", "a:1002-0");
    patched("three", "a:1003-0");
    for (let turn = 0; turn < 2000 && heard.length < 4; turn++) {
      await settle();
      if (globalThis.runs === 1) pass(100);
    }
    assert.deepEqual(heard, ["patched two a:1002-0", "two a:1002-0", "patched three a:1003-0", "three a:1003-0"]);
    assert.equal(globalThis.runs, 2);
  });

  test("is applied by the file that is there, though a later page names another: what it knows of the page is in it", async () => {
    const { it, heard } = await putPatched("same");
    patched("two", "a:1002-0");
    await until(() => heard.length === 2);
    it.leave();
    await putPatched("other");
    globalThis.same = [];
    patched("two", "a:1003-0");
    for (let turn = 0; turn < 2000 && !globalThis.same.length; turn++) await settle();
    assert.deepEqual(globalThis.same, ["patched two a:1003-0"]);
  });

  test("is a reset too, on a page with regions, and on no other", async () => {
    const { heard } = await putPatched("regions");
    server().send({ type: "reset", reason: "unknown_id" }, "b:1-0");
    assert.deepEqual(heard, ["reset b:1-0"]);
    document.querySelector = withRegions;
    server().send({ type: "reset", reason: "unknown_id" }, "c:1-0");
    await until(() => heard.length === 3);
    assert.deepEqual(heard.slice(1), ["patched reset c:1-0", "reset c:1-0"]);
  });

  test("has its files in the page from the first heartbeat on, if there are regions: a deploy may take them away, and cause a reset", async () => {
    const loaded = globalThis.early = [];
    const file = (name) => `data:text/javascript,globalThis.early.push("${name}");`;
    await putConnected({ "patch-src": file("patch"), "refresh-src": file("refresh") });
    server().event("one", null, "a:1001-0");
    server().heartbeat("a:1001-0");
    for (let turn = 0; turn < 20; turn++) await settle();
    assert.deepEqual(loaded, [], "a page without regions");
    document.querySelector = withRegions;
    server().event("one", null, "a:1002-0");
    for (let turn = 0; turn < 20; turn++) await settle();
    assert.deepEqual(loaded, [], "it may be left before that");
    for (const _ of [1, 2]) server().heartbeat("a:1002-0");
    await until(() => loaded.length === 2);
    for (let turn = 0; turn < 20; turn++) await settle();
    assert.deepEqual(loaded, ["patch", "refresh"]);
  });
});

describe("two elements of one page", () => {
  const STATIC = new URL("../../django_sse_live/static/django_sse_live/", import.meta.url);
  const files = { "share-src": new URL("sse-live-share.js", STATIC).href, "page-src": new URL("sse-live-page.js", STATIC).href };
  const base = { src: "/events/?channel=a", "last-event-id": "a:1000-0" };
  const other = { src: "/events/?channel=b", channels: "", "last-event-id": "a:1000-0", ...files };
  let elements;

  function make(attributes) {
    const it = new SSELiveElement();
    it.heard = [];
    for (const [name, value] of Object.entries(attributes)) it.setAttribute(name, value);
    for (const type of ["one", "two"]) it.addEventListener(`sse:${type}`, ({ detail, bubbles }) => it.heard.push([detail.type, bubbles]));
    elements.push(it);
    return it;
  }

  /** The connections that were not closed. */
  const open = () => FakeEventSource.made.filter(({ readyState }) => readyState !== FakeEventSource.CLOSED);
  const wasOpened = () => until(() => open().length === 1 && open()[0].parameters.getAll("channel").length === 2);

  beforeEach(() => {
    elements = [];
    document.querySelectorAll = () => elements.filter(({ isConnected }) => isConnected);
  });

  afterEach(async () => {
    for (const it of elements) if (it.isConnected) takeOut(it);
    await settle();
  });

  test("that come together share one connection, and the document hears each event once", async () => {
    const [first, second] = [make(base), make(other)];
    for (const it of elements) it.enter();
    await wasOpened();
    const [source] = open();
    source.connected({ channels: ["a", "b", "user:7"], own: ["user:7"] });
    await until(() => [first, second].every((it) => it.getAttribute("state") === "connected"));
    source.send({ type: "one", channels: ["user:7"], data: null }, "a:1001-0");
    source.send({ type: "two", channels: ["b"], data: null }, "a:1002-0");
    await until(() => second.heard.length === 2);
    assert.deepEqual([first.heard, second.heard].flat().filter(([type]) => type === "two"), [["two", true]]);
    assert.deepEqual([first.heard, second.heard].flat().filter(([type]) => type === "one").map(([, bubbles]) => bubbles).sort(), [false, true]);
    assert.equal(open().length, 1);
  });

  test("that both hear an event with a patch change the page once", async () => {
    const changes = globalThis.together = [];
    const patch = { "patch-src": "data:text/javascript,export async function patch(frame, id) { globalThis.together.push(id); }" };
    for (const attributes of [base, other]) make({ ...attributes, ...patch }).enter();
    await wasOpened();
    const [source] = open();
    source.connected({ channels: ["a", "b", "user:7"], own: ["user:7"] });
    for (const [number, channel] of ["user:7", "a", "b"].entries()) {
      source.send({ type: "two", channels: [channel], data: null, patch: { action: "remove", target: "x" } }, `a:1001-${number}`);
    }
    await until(() => elements.flatMap(({ heard }) => heard).length === 4);
    assert.deepEqual(changes, ["a:1001-0", "a:1001-1", "a:1001-2"]);
    assert.equal(elements.flatMap(({ heard }) => heard).filter(([, bubbles]) => bubbles).length, 3);
  });

  test("that hear events without an id, such as those of a snapshot, let the document hear each once", async () => {
    for (const attributes of [base, { ...other, channels: "b" }]) make(attributes).enter();
    await wasOpened();
    const [source] = open();
    source.connected({ channels: ["a", "b", "user:7"], own: ["user:7"], resumed: true });
    const heard = [];
    for (const it of elements) for (const type of ["one", "two"]) it.addEventListener(`sse:${type}`, ({ detail, bubbles }) => bubbles && heard.push(detail.data));
    for (const [data, channel] of [[1, "user:7"], [2, "user:7"], [3, "a"], [4, "b"], [5, "b"]]) source.send({ type: "one", channels: [channel], data });
    source.send({ type: "two", channels: ["b"], data: 6 }, "a:1001-0");
    await until(() => elements.flatMap(({ heard }) => heard).some(([type]) => type === "two"));
    assert.deepEqual(heard, [1, 2, 3, 4, 5, 6]);
  });

  test("that both hear an event with a patch change the page, though the one that applies it goes before its file is there", async () => {
    const changes = globalThis.inherited = [];
    let load;
    globalThis.isThere = new Promise((resolve) => { load = resolve; });
    const patch = { "patch-src": "data:text/javascript,await isThere; export function patch(frame, id, host) { inherited.push([id, host]); }" };
    for (const attributes of [base, other]) make({ ...attributes, ...patch }).enter();
    await wasOpened();
    const [source] = open();
    source.connected({ channels: ["a", "b", "user:7"], own: ["user:7"] });
    source.send({ type: "one", channels: ["user:7"], data: null }, "a:1001-0");
    await until(() => elements.every(({ heard }) => heard.length === 1));
    const [first, second] = [...elements].sort(({ heard: [[, bubbles]] }) => bubbles ? -1 : 1);
    source.send({ type: "two", channels: ["user:7"], data: null, patch: { action: "remove", target: "x" } }, "a:1002-0");
    await settle();
    takeOut(first);
    await settle();
    load();
    await until(() => second.heard.length === 2);
    assert.deepEqual(changes.map(([id, host]) => [id, host === second]), [["a:1002-0", true]]);
  });

  test("of which one comes later share one too, and the first goes on without a break", async () => {
    const first = make(base);
    first.enter();
    await settle();
    const [alone] = FakeEventSource.made;
    alone.connected({ channels: ["a"] });
    const states = [];
    first.addEventListener("sse:statechange", ({ detail }) => states.push(detail.data.state));
    const second = make(other);
    second.enter();
    await until(() => open().some((source) => source.parameters.getAll("channel").length === 2));
    alone.event("one", null, "a:1001-0");
    const source = FakeEventSource.last;
    source.connected({ channels: ["a", "b"], resumed: true });
    source.send({ type: "one", channels: ["a"], data: null }, "a:1001-0");
    source.send({ type: "two", channels: ["a"], data: null }, "a:1002-0");
    await until(() => first.heard.length === 2);
    assert.deepEqual([first.heard, states, alone.readyState], [[["one", true], ["two", true]], [], FakeEventSource.CLOSED]);
    assert.equal(second.getAttribute("state"), "connected");
    takeOut(first);
    await settle();
    await until(() => open().length === 1);
  });

  test("share one connection though one names the stream by its whole address, and the document hears each event once", async () => {
    make(base).enter();
    make({ ...other, src: "http://localhost/events/?channel=b" }).enter();
    await settle();
    for (let turn = 0; turn < 2000 && !(open().length === 1 && open()[0].parameters.getAll("channel").length === 2); turn++) await settle();
    const [source, ...more] = open();
    assert.deepEqual([source.parameters.getAll("channel").sort(), more], [["a", "b"], []]);
    source.connected({ channels: ["a", "b", "user:7"], own: ["user:7"] });
    source.send({ type: "one", channels: ["user:7"], data: null }, "a:1001-0");
    await until(() => elements.every(({ heard }) => heard.length));
    assert.deepEqual(elements.flatMap(({ heard }) => heard).map(([, bubbles]) => bubbles).sort(), [false, true]);
  });

  test("with streams of other urls have each its own", async () => {
    make(base);
    make({ ...other, src: "/other/?channel=b" });
    for (const it of elements) it.enter();
    await until(() => open().length === 2);
  });
});

describe("copies of the page", () => {
  test("that a library keeps begin where the page is, never before where it was drawn", async () => {
    const it = await putConnected({ "last-event-id": "a:1005-0" });
    server().event("tick", null, "a:1003-0");
    assert.equal(it.getAttribute("last-event-id"), "a:1005-0");
    server().event("tick", null, "a:1007-0");
    assert.equal(it.getAttribute("last-event-id"), "a:1007-0");
    await settle();
    assert.equal(connections(), 1);
    server().send({ type: "reset", reason: "unknown_id" }, "b:2000-0");
    assert.equal(it.getAttribute("last-event-id"), "b:2000-0");
  });

  test("that Turbo shows while it fetches the page open nothing", async () => {
    document.isPreview = true;
    await put({ src: "/events/" });
    assert.equal(connections(), 0);
  });
});

describe("a browser that lacks", () => {
  test("constructable stylesheets has a stream without looks", async () => {
    const { CSSStyleSheet } = globalThis;
    globalThis.CSSStyleSheet = class {};
    const it = await putConnected();
    globalThis.CSSStyleSheet = CSSStyleSheet;
    assert.deepEqual([it.getAttribute("state"), it.shadowRoot.text], ["connected", "Live"]);
  });

  test("the right to use BroadcastChannel has a stream of its own", async () => {
    const { BroadcastChannel } = globalThis;
    globalThis.BroadcastChannel = class { constructor() { throw new DOMException("denied", "SecurityError"); } };
    navigator.locks = { request: () => Promise.reject(new Error()), query: () => Promise.reject(new Error()) };
    const it = await put({ src: "/events/", share: "g" });
    await until(() => it.live);
    globalThis.BroadcastChannel = BroadcastChannel;
    server().connected();
    assert.equal(it.getAttribute("state"), "connected");
  });
});

describe("what is said of the page by attributes", () => {
  test("with-credentials sends cookies to another origin", async () => {
    await put({ src: "https://example.com/events/", "with-credentials": "" });
    assert.equal(server().withCredentials, true);
    await put({ src: "/events/" });
    assert.equal(server().withCredentials, false);
  });

  test("words that change are shown", async () => {
    const it = await putConnected({ "text-connected": "Live" });
    it.setAttribute("text-connected", "Verbunden");
    assert.equal(it.shadowRoot.text, "Verbunden");
    it.removeAttribute("text-connected");
    assert.equal(it.shadowRoot.text, "Live");
    assert.equal(connections(), 1);
  });

  test("log-events raises the level of the line for each event", async () => {
    mock.method(console, "debug", () => {});
    for (const [attributes, lines] of [[{}, 0], [{ "log-events": "" }, 1]]) {
      console.info.mock.resetCalls();
      await putConnected(attributes);
      server().event("tick", null, "a:1001-0");
      assert.equal(console.info.mock.calls.filter(({ arguments: [text] }) => text.endsWith("tick")).length, lines);
    }
  });
});

describe("a break", () => {
  const live = (it) => it.shadowRoot.children[0].getAttribute("aria-live");

  test("that is short is shown, and not read out", async () => {
    const it = await putConnected();
    server().break();
    assert.deepEqual([it.shadowRoot.text, live(it)], ["Reconnecting…", "off"]);
    pass(2000);
    server().connected();
    assert.deepEqual([it.shadowRoot.text, live(it)], ["Live", "off"]);
    pass(10_000);
    assert.equal(live(it), "off");
  });

  test("that lasts is read out, and so is its end", async () => {
    const it = await putConnected();
    server().break();
    pass(5000);
    assert.deepEqual([it.shadowRoot.text, live(it)], ["Reconnecting…", "polite"]);
    server().connected();
    assert.deepEqual([it.shadowRoot.text, live(it)], ["Live", "polite"]);
  });
});

test("an element that comes after DOMContentLoaded connects at once, whatever else is still loading", async () => {
  Object.defineProperty(document, "readyState", { value: "interactive", configurable: true });
  await put({ src: "/events/" });
  assert.equal(connections(), 0, "before it, the page's own listeners are waited for");
  FakeEventSource.forget();
  mock.method(performance, "getEntriesByType", () => [{ domContentLoadedEventStart: 120 }]);
  await put({ src: "/events/" });
  assert.equal(connections(), 1);
});
