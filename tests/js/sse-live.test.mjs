import assert from "node:assert/strict";
import { beforeEach, describe, mock, test } from "node:test";

import { isAtOrBefore, SSELive } from "../../django_sse_live/static/django_sse_live/sse-live.js";
import { FakeEventSource, pass, resetFakes } from "./fakes.mjs";

const URL_ = "http://localhost/events/?channel=comments";

/** What was said on the console. */
let said;

function open(options = {}) {
  const logger = { info: (text) => said.push(text), warn: (text) => said.push(text) };
  return new SSELive(URL_, { EventSource: FakeEventSource, logger, ...options });
}

/** A stream that is connected, and its server's end. */
function openConnected(options = {}, frame = {}) {
  const live = open(options);
  FakeEventSource.last.connected(frame, "a:1000-0");
  return live;
}

const server = () => FakeEventSource.last;
const connections = () => FakeEventSource.made.length;

beforeEach(() => {
  resetFakes();
  said = [];
});

describe("connecting", () => {
  test("asks for the envelope form, on the url's own channels", () => {
    open();
    assert.deepEqual([...server().parameters], [["channel", "comments"], ["format", "envelope"]]);
  });

  test("brings the page's token and position", () => {
    open({ token: "signed", lastEventId: "a:1-0" });
    assert.equal(server().parameters.get("token"), "signed");
    assert.equal(server().parameters.get("last_event_id"), "a:1-0");
  });

  test("is connecting until the server's first frame says connected", () => {
    const live = open();
    assert.equal(live.state, "connecting");
    server().connected({ client_id: "c7" });
    assert.equal(live.state, "connected");
    assert.equal(live.clientId, "c7");
  });

  test("announces each state once, with the one before and the reason", () => {
    const live = open();
    const changes = [];
    live.on("statechange", (data) => changes.push(data));
    server().connected();
    server().break();
    assert.deepEqual(changes, [
      { state: "connected", previous: "connecting", reason: "connected", status: undefined },
      { state: "reconnecting", previous: "connected", reason: "lost", status: undefined },
    ]);
  });

  test("says on the console what the document asks, and nothing for heartbeats", () => {
    openConnected();
    server().heartbeat("a:1000-0");
    server().event("new_comment", { id: 7 }, "a:1001-0");
    server().break();
    assert.deepEqual(said, [
      "Real-time connection established",
      "Real-time event received: new_comment",
      "Connection lost, reconnecting...",
    ]);
  });
});

describe("the line for each event", () => {
  for (const [what, options, level] of [["below what a console shows by itself", {}, "debug"], ["shown, if asked for", { logEvents: true }, "info"]]) {
    test(`is ${what}`, () => {
      const lines = [];
      const logger = Object.fromEntries(["debug", "info", "warn"].map((name) => [name, (text) => lines.push([name, text])]));
      openConnected({ logger, ...options });
      server().event("new_comment", { id: 7 }, "a:1001-0");
      assert.deepEqual(lines, [["info", "Real-time connection established"], [level, "Real-time event received: new_comment"]]);
    });
  }
});

describe("events", () => {
  test("reach the listeners of their type, with the decoded data and the id", () => {
    const live = openConnected();
    const heard = [];
    live.on("new_comment", (data, event) => heard.push([data, event.type, event.lastEventId]));
    server().event("new_comment", { id: 7 }, "a:1001-0");
    server().event("other", { id: 8 }, "a:1002-0");
    assert.deepEqual(heard, [[{ id: 7 }, "new_comment", "a:1001-0"]]);
  });

  test("of text arrive as that text", () => {
    const live = openConnected();
    live.on("fragment", (data) => assert.equal(data, "<li>…</li>"));
    server().event("fragment", "<li>…</li>", "a:1001-0");
  });

  test("are heard once by a callback added twice, and no more after off", () => {
    const live = openConnected();
    const callback = mock.fn();
    live.on("tick", callback).on("tick", callback);
    server().event("tick", null, "a:1001-0");
    live.off("tick", callback);
    server().event("tick", null, "a:1002-0");
    assert.equal(callback.mock.callCount(), 1);
  });

  test("reach plain DOM listeners too", () => {
    const live = openConnected();
    const listener = mock.fn();
    live.addEventListener("tick", listener);
    server().event("tick", 5, "a:1001-0");
    assert.equal(listener.mock.calls[0].arguments[0].data, 5);
  });

  test("of whatever type reach onEvent", () => {
    const types = [];
    openConnected({ onEvent: (data, event) => types.push(event.type) });
    server().event("new_comment", {}, "a:1001-0");
    server().heartbeat("a:1001-0");
    assert.deepEqual(types, ["connected", "new_comment", "heartbeat"]);
  });

  test("move the position, and so do heartbeats", () => {
    const live = openConnected();
    assert.equal(live.lastEventId, "a:1000-0");
    server().event("tick", null, "a:1001-0");
    assert.equal(live.lastEventId, "a:1001-0");
    server().heartbeat("a:1005-0");
    assert.equal(live.lastEventId, "a:1005-0");
  });

  test("and their like say over what time pages are to spread what they fetch because of one", () => {
    const live = openConnected({}, { spread: 300 });
    assert.equal(live.spreadMs, 300);
    server().send({ type: "heartbeat", spread: 4000 }, "a:1001-0");
    server().event("tick", null, "a:1002-0");
    assert.equal(live.spreadMs, 4000);
  });

  test("have moved the position by the time they are heard", () => {
    const live = openConnected();
    live.on("tick", (data, event) => assert.equal(live.lastEventId, event.lastEventId));
    server().event("tick", null, "a:1001-0");
  });

  test("come no more after close, even from within a listener", () => {
    const live = open();
    const heard = mock.fn();
    live.on("statechange", () => live.close());
    live.on("connected", heard);
    server().connected();
    assert.equal(heard.mock.callCount(), 0);
    assert.equal(live.state, "disconnected");
    assert.equal(server().readyState, FakeEventSource.CLOSED);
  });
});

describe("reconnecting", () => {
  test("closes the old EventSource, waits 2 s, and opens a new one from the last position", () => {
    const live = openConnected();
    const first = server();
    first.event("tick", null, "a:1001-0");
    first.break();
    assert.equal(first.readyState, FakeEventSource.CLOSED);
    assert.equal(live.state, "reconnecting");
    pass(1999);
    assert.equal(connections(), 1);
    pass(1);
    assert.equal(connections(), 2);
    assert.equal(server().parameters.get("last_event_id"), "a:1001-0");
    server().connected();
    assert.equal(live.state, "connected");
  });

  test("waits 2 s after a first attempt that failed, too", () => {
    open();
    server().break();
    pass(2000);
    assert.equal(connections(), 2);
  });

  test("backs off with full jitter, up to 30 s", () => {
    mock.method(Math, "random", () => 1);
    open();
    for (const wait of [2000, 3000, 4500, 6750, 10_125, 15_188, 22_782, 30_000, 30_000]) {
      const before = connections();
      server().break();
      pass(wait - 1);
      assert.equal(connections(), before, `sooner than ${wait} ms`);
      pass(1);
      assert.equal(connections(), before + 1, `later than ${wait} ms`);
    }
    Math.random.mock.mockImplementation(() => 0.1);
    const before = connections();
    server().break();
    pass(3000);
    assert.equal(connections(), before + 1);
  });

  for (const [what, works] of [
    ["brought an event", () => server().event("tick", null, "a:1001-0")],
    ["brought a heartbeat", () => server().heartbeat("a:1001-0")],
    ["held for a while", () => pass(6000)],
  ]) {
    test(`starts again at 2 s once a connection ${what}`, () => {
      mock.method(Math, "random", () => 1);
      openConnected();
      server().break();
      pass(2000);
      server().break();
      pass(4000);
      server().connected();
      works();
      const before = connections();
      server().break();
      pass(1999);
      assert.equal(connections(), before);
      pass(1);
      assert.equal(connections(), before + 1);
    });
  }

  test("backs off from a server that says connected and dies, each time", () => {
    mock.method(Math, "random", () => 1);
    open();
    for (const wait of [2000, 3000, 4500, 6750]) {
      const before = connections();
      server().connected();
      server().send({ type: "reset", reason: "unknown_id" }, "a:1-0");
      server().break();
      pass(wait - 1);
      assert.equal(connections(), before, `sooner than ${wait} ms`);
      pass(1);
      assert.equal(connections(), before + 1, `later than ${wait} ms`);
    }
  });

  test("waits first for as long as the server says, unless the page does", () => {
    for (const [options, wait] of [[{}, 15_000], [{ retryMs: 500 }, 500]]) {
      FakeEventSource.forget();
      const live = openConnected(options, { retry: 15_000 });
      server().break();
      pass(wait - 1);
      assert.equal(connections(), 1);
      pass(1);
      assert.equal(connections(), 2);
      live.close();
    }
  });

  test("stops at close", () => {
    const live = openConnected();
    server().break();
    live.close();
    pass(120_000);
    assert.equal(connections(), 1);
    assert.equal(live.state, "disconnected");
  });

  test("does not begin when a listener of the loss closes the stream", () => {
    const live = openConnected();
    live.on("statechange", () => live.close());
    server().break();
    pass(120_000);
    assert.equal(connections(), 1);
  });

  test("brings the fresh token of the last connection, in place of all it had", () => {
    open({ token: "first" });
    server().connected({ token: "second" });
    server().break();
    pass(2000);
    assert.deepEqual(server().parameters.getAll("token"), ["second"]);
  });

  test("brings the fresh token of each one that it had", () => {
    const live = new SSELive("http://localhost/events/?token=a&token=b", { EventSource: FakeEventSource, logger: null });
    server().connected({ token: "ab", tokens: ["a2", "b2"] });
    server().break();
    pass(2000);
    assert.deepEqual(server().parameters.getAll("token"), ["a2", "b2"]);
    live.close();
  });

  test("keeps the url as it is when no token came", () => {
    open({ token: "first" });
    server().connected({ token: null });
    server().break();
    pass(2000);
    assert.deepEqual(server().parameters.getAll("token"), ["first"]);
  });
});

describe("once and in order", () => {
  test("what is said of the stream itself is heard at a position that was heard already", () => {
    const heard = [];
    openConnected({ onEvent: (data, { type, lastEventId }) => heard.push(`${type} ${lastEventId}`) });
    server().break();
    pass(2000);
    server().connected({}, "a:1000-0");
    server().heartbeat("a:1000-0");
    assert.deepEqual(heard, ["connected a:1000-0", "connected a:1000-0", "heartbeat a:1000-0"]);
  });

  test("a replay that overlaps delivers nothing twice", () => {
    const live = openConnected();
    const heard = [];
    live.on("tick", (data) => heard.push(data));
    server().event("tick", 1, "a:1001-0");
    server().event("tick", 2, "a:1001-1");
    server().break();
    pass(2000);
    server().connected({ resumed: true });
    server().event("tick", 1, "a:1001-0");
    server().event("tick", 2, "a:1001-1");
    assert.equal(live.lastEventId, "a:1001-1", "the position never goes back");
    server().event("tick", 3, "a:1001-2");
    assert.deepEqual(heard, [1, 2, 3]);
  });

  test("a snapshot without ids of its own is delivered on each connection", () => {
    const live = openConnected();
    const heard = [];
    live.on("snapshot", (data) => heard.push(data));
    server().event("snapshot", "first");
    server().break();
    pass(2000);
    server().connected({ resumed: true });
    server().event("snapshot", "second");
    assert.deepEqual(heard, ["first", "second"]);
  });

  test("after a reset the new position holds, wherever it is", () => {
    const onReset = mock.fn();
    const live = openConnected({ onReset });
    const heard = [];
    live.on("tick", (data) => heard.push(data)).on("reset", () => heard.push("reset"));
    server().event("tick", 1, "a:5000-0");
    server().break();
    pass(2000);
    server().connected();
    server().send({ type: "reset", reason: "unknown_epoch" }, "b:3-0");
    assert.equal(live.lastEventId, "b:3-0");
    server().event("tick", 2, "b:4-0");
    assert.deepEqual(heard, [1, "reset", 2]);
    assert.deepEqual(onReset.mock.calls[0].arguments[0], { type: "reset", reason: "unknown_epoch" });
  });

  test("ids are compared as numbers, within one epoch", () => {
    assert.ok(isAtOrBefore("a:9-0", "a:10-0"));
    assert.ok(isAtOrBefore("a:10-2", "a:10-10"));
    assert.ok(isAtOrBefore("a:10-2", "a:10-2"));
    assert.ok(!isAtOrBefore("a:10-3", "a:10-2"));
    assert.ok(!isAtOrBefore("b:1-0", "a:10-0"));
    assert.ok(!isAtOrBefore("", ""));
    assert.ok(!isAtOrBefore("a:1-0", ""));
  });
});

describe("a server of another version", () => {
  test("that says no more than the first one did is understood", () => {
    const live = openConnected({ token: "first" }, {});
    const heard = [];
    live.on("tick", (data) => heard.push(data)).on("statechange", ({ state, reason }) => heard.push(`${state} ${reason}`));
    server().event("tick", 1, "a:1001-0");
    server().heartbeat("a:1002-0");
    server().send({ type: "goodbye", reason: "max_age", reconnect: true });
    server().connected({ token: "second", resumed: true });
    server().send({ type: "goodbye", reason: "shutdown", reconnect: true });
    pass(2_000);
    assert.deepEqual(["token", "last_event_id", "ticket"].map((name) => server().parameters.get(name)), ["second", "a:1002-0", null]);
    server().connected({ resumed: true });
    assert.deepEqual(heard, [1, "reconnecting shutdown", "connected connected"]);
    assert.deepEqual([live.sendsAs, live.spreadMs], ["", 0]);
    live.close();
  });

  test("that says more than this client knows is understood as far as it does", () => {
    const heard = [];
    const live = openConnected({ onEvent: (data, { type }) => heard.push(type) }, { later: { x: 1 }, retry: 500 });
    server().send({ type: "sse.later", later: [1] });
    server().send({ type: "tick", channels: ["comments"], data: 1, later: true, patch: { action: "later", target: "x" } }, "a:1001-0");
    server().send({ type: "goodbye", reason: "later", reconnect: true, retry: 100, later: 1 });
    pass(1_000);
    assert.deepEqual([heard, live.state, live.lastEventId], [["connected", "sse.later", "tick", "goodbye"], "reconnecting", "a:1001-0"]);
    assert.equal(connections(), 2);
    live.close();
  });
});

describe("goodbye", () => {
  test("reconnects after the wait that the server names", () => {
    const live = openConnected();
    server().send({ type: "goodbye", reason: "shutdown", reconnect: true, retry: 3140 });
    assert.equal(live.state, "reconnecting");
    pass(3139);
    assert.equal(connections(), 1);
    pass(1);
    assert.equal(connections(), 2);
  });

  test("of a server without room is no connection", () => {
    const live = open();
    server().send({ type: "goodbye", reason: "full", reconnect: true, retry: 5000 });
    assert.deepEqual([live.state, said], ["reconnecting", ["Connection lost, reconnecting..."]]);
    pass(5000);
    assert.equal(connections(), 2);
  });

  test("that is final ends the stream, and its id is not kept", () => {
    const live = openConnected();
    server().send({ type: "goodbye", reason: "disconnected", reconnect: false }, "a:1000-0/end");
    assert.equal(live.state, "disconnected");
    assert.equal(live.lastEventId, "a:1000-0");
    assert.equal(server().readyState, FakeEventSource.CLOSED);
    pass(120_000);
    assert.equal(connections(), 1);
  });

  test("that is final ends the stream, whatever the page makes of it", () => {
    const live = openConnected({ onEvent(data, { type }) { if (type === "goodbye") throw new Error("the page's own"); } });
    assert.throws(() => server().send({ type: "goodbye", reason: "disconnected", reconnect: false }, "a:1000-0/end"), /the page's own/);
    assert.equal(live.state, "disconnected");
    pass(120_000);
    assert.equal(connections(), 1);
  });
});

describe("heartbeat monitoring", () => {
  test("keeps the time of the last frame, whatever it was", () => {
    const live = openConnected();
    pass(7000);
    server().event("tick", null, "a:1001-0");
    assert.equal(live.lastHeartbeat, Date.now());
    pass(5000);
    assert.equal(live.lastHeartbeat, Date.now() - 5000);
    server().heartbeat("a:1001-0");
    assert.equal(live.lastHeartbeat, Date.now());
  });

  test("takes a stream for dead after 60 s without a frame", () => {
    const live = openConnected();
    pass(59_999);
    assert.equal(live.state, "connected");
    pass(1);
    assert.equal(live.state, "reconnecting");
    pass(2000);
    assert.equal(connections(), 2);
  });

  test("leaves a stream with heartbeats alone", () => {
    const live = openConnected();
    for (let i = 0; i < 20; i++) {
      pass(30_000);
      server().heartbeat("a:1000-0");
    }
    assert.equal(live.state, "connected");
    assert.equal(connections(), 1);
  });

  test("follows the interval that the server announces", () => {
    const live = openConnected({}, { heartbeat: 5 });
    pass(9_999);
    assert.equal(live.state, "connected");
    pass(1);
    assert.equal(live.state, "reconnecting");
  });

  test("looks at least every 30 s, however long the interval", () => {
    const live = openConnected({}, { heartbeat: 300 });
    const look = mock.method(live, "startHeartbeatMonitoring");
    pass(90_000);
    assert.equal(look.mock.callCount(), 3);
  });

  test("notices a server that accepts the connection and never says a word", () => {
    open();
    pass(62_000);
    assert.equal(connections(), 2);
  });

  test("can be started at any time, and starts nothing that runs after close", () => {
    const live = openConnected();
    live.startHeartbeatMonitoring();
    live.close();
    live.startHeartbeatMonitoring();
    pass(120_000);
    assert.equal(connections(), 1);
  });
});
