// <sse-live>, in a page that changes under it, and in browsers that refuse it this or that.
import assert from "node:assert/strict";
import { beforeEach, describe, mock, test } from "node:test";

import { FakeEventSource, FakePage, FakeStorage, giveDOM, pass, resetFakes } from "./fakes.mjs";

const MODULE = "../../django_sse_live/static/django_sse_live/sse-live.js";
const defined = giveDOM();
const { SSELiveElement } = await import(MODULE);

const server = () => FakeEventSource.last;
const connections = () => FakeEventSource.made.length;

/** Lets what was awaited go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Waits for what takes the real time of a file. */
async function until(condition) {
  while (!condition()) await settle();
}

async function put(attributes) {
  const it = new SSELiveElement();
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

beforeEach(() => {
  resetFakes();
  new FakePage();
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

  test("is there once, though its file is loaded by two names", async () => {
    await import(`${MODULE}?v=2`);
    assert.equal(defined.get("sse-live"), SSELiveElement);
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
    it.leave();
    await settle();
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

  test("may move the element", async () => {
    const it = await putConnected();
    it.leave();
    it.enter();
    await settle();
    assert.deepEqual([connections(), it.getAttribute("state")], [1, "connected"]);
  });

  test("may take it out and put it back: it goes on from where it was, and its attributes are the page's", async () => {
    const it = await putConnected({ token: "first", "last-event-id": "a:1-0" });
    server().connected({ token: "second" });
    it.leave();
    await settle();
    it.enter();
    await settle();
    assert.deepEqual([server().parameters.get("token"), server().parameters.get("last_event_id")], ["second", "a:1000-0"]);
    assert.deepEqual(["src", "token", "last-event-id"].map((name) => it.getAttribute(name)), ["/events/?channel=a", "first", "a:1-0"]);
  });
});
