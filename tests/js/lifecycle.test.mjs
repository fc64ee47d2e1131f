// Sleep and wake, networks that come and go, servers that refuse: what a page lives through.
import assert from "node:assert/strict";
import { beforeEach, describe, mock, test } from "node:test";

import { FakeEventSource, FakePage, FakeStorage, moveClock, pass, resetFakes } from "./fakes.mjs";
import { refusal } from "../../django_sse_live/static/django_sse_live/sse-live-loss.js";
import { SSELive } from "../../django_sse_live/static/django_sse_live/sse-live.js";

let page;

function open(options = {}) {
  return new SSELive("http://localhost/events/?channel=comments", { EventSource: FakeEventSource, logger: null, ...options });
}

function openConnected(options = {}, frame = {}) {
  const live = open(options);
  server().connected(frame, "a:1000-0");
  return live;
}

const server = () => FakeEventSource.last;
const connections = () => FakeEventSource.made.length;

/** Lets what was awaited go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

beforeEach(() => {
  resetFakes();
  page = new FakePage();
});

describe("a page that wakes", () => {
  test("reconnects at once if the stream missed a heartbeat meanwhile", () => {
    const live = openConnected();
    page.hide();
    page.sleep(45_000);
    page.show();
    assert.equal(live.state, "reconnecting");
    pass(1);
    assert.equal(connections(), 2);
    assert.equal(server().parameters.get("last_event_id"), "a:1000-0");
  });

  test("leaves a fresh stream alone", () => {
    const live = openConnected();
    page.hide();
    pass(10_000);
    page.show();
    page.fire("pageshow");
    assert.equal(live.state, "connected");
    assert.equal(connections(), 1);
  });

  test("leaves a stream alone that is just being opened, as when the page has loaded", () => {
    const live = open();
    for (const type of ["pageshow", "visibilitychange"]) page.fire(type);
    pass(1000);
    assert.deepEqual([connections(), live.state], [1, "connecting"]);
  });

  test("does not sit out a wait", () => {
    const live = openConnected();
    server().break();
    page.fire("visibilitychange");
    pass(1);
    assert.equal(connections(), 2);
    assert.equal(live.state, "reconnecting");
  });

  test("sits out a wait that the server told", () => {
    openConnected();
    server().send({ type: "goodbye", reason: "full", reconnect: true, retry: 9000 });
    page.fire("visibilitychange");
    pass(8999);
    assert.equal(connections(), 1);
    pass(1);
    assert.equal(connections(), 2);
  });

  test("comes back from the back/forward cache, and from being frozen", () => {
    for (const [away, back] of [["pagehide", "pageshow"], ["freeze", "resume"]]) {
      FakeEventSource.forget();
      const live = openConnected();
      page.fire(away);
      assert.equal(server().readyState, FakeEventSource.CLOSED, "nobody reads it");
      page.sleep(600_000);
      assert.equal(connections(), 1);
      page.fire(back);
      pass(1);
      assert.equal(connections(), 2);
      server().connected();
      assert.equal(live.state, "connected");
      live.close();
    }
  });

  test("comes back even if it went to sleep in a wait that the server told", () => {
    openConnected();
    server().send({ type: "goodbye", reason: "full", reconnect: true, retry: 9000 });
    page.fire("freeze");
    page.fire("resume");
    pass(1);
    assert.equal(connections(), 2);
  });

  test("stays closed if it was", () => {
    const live = openConnected();
    live.close();
    page.fire("pageshow");
    page.fire("online");
    pass(60_000);
    assert.equal(connections(), 1);
  });

  test("reconnects at once when a timer shows that the machine slept", () => {
    openConnected();
    page.sleep(600_000);
    pass(1);
    assert.equal(connections(), 2);
  });

  for (const [what, nap] of [
    ["a timer", () => page.sleep(600_000)],
    ["the network", () => { moveClock(600_000); server().break(); }],
  ]) {
    test(`does not take its sleep for a limit of the path, when ${what} shows it`, () => {
      openConnected();
      for (let naps = 1; naps <= 4; naps++) {
        pass(3000);
        nap();
        pass(3000);
        assert.equal(connections(), naps + 1);
        assert.equal(server().parameters.get("heartbeat"), null);
        server().connected();
      }
    });
  }

  test("leaves a stream alone whose heartbeats the server would not make rarer, nor more often", () => {
    for (const granted of [30, 120]) {
      FakeEventSource.forget();
      const live = openConnected({}, { heartbeat: granted });
      page.hide();
      server().break();
      pass(2000);
      assert.ok(server().parameters.get("heartbeat"));
      server().connected({ heartbeat: granted });
      pass(1000);
      page.show();
      pass(1);
      assert.equal(connections(), 2);
      live.close();
    }
  });

  test("leaves a stream alone that comes back by itself: it is not there for this page alone", () => {
    class Shared extends FakeEventSource {
      static reconnects = true;
    }
    const live = openConnected({ EventSource: Shared });
    page.hide();
    page.goOffline();
    page.goOnline();
    pass(1);
    assert.equal(server().parameters.get("heartbeat"), null);
    server().connected();
    page.show();
    pass(1);
    assert.deepEqual([live.state, connections()], ["connected", 2]);
  });
});

describe("a network that goes, as the browser says", () => {
  test("shows at once; the stream that is there is kept, and another one tried", () => {
    const live = openConnected();
    const [first] = FakeEventSource.made;
    page.goOffline();
    assert.deepEqual([live.state, first.readyState], ["reconnecting", FakeEventSource.OPEN]);
    pass(2000);
    assert.equal(connections(), 2);
    assert.equal(first.readyState, FakeEventSource.OPEN);
    server().connected();
    assert.deepEqual([live.state, first.readyState], ["connected", FakeEventSource.CLOSED]);
    pass(60_000);
    assert.equal(connections(), 2);
  });

  test("is there after all, if the stream goes on", () => {
    const live = openConnected();
    page.goOffline();
    server().event("tick", null, "a:1001-0");
    assert.equal(live.state, "connected");
    pass(10_000);
    assert.equal(connections(), 1);
  });

  test("is tried again and again, and at once when it is said to be back", () => {
    mock.method(Math, "random", () => 1);
    const live = openConnected();
    page.goOffline();
    for (const wait of [2000, 3000, 4500]) {
      const before = connections();
      pass(wait - 1);
      assert.equal(connections(), before, `sooner than ${wait} ms`);
      pass(1);
      assert.equal(connections(), before + 1);
      server().break();
      assert.equal(live.state, "reconnecting");
    }
    page.goOnline();
    pass(1);
    assert.equal(connections(), 5);
    server().connected();
    assert.equal(live.state, "connected");
  });

  test("was perhaps there from the first: a server on this very machine is", () => {
    page.goOffline();
    const live = open();
    assert.deepEqual([live.state, connections()], ["reconnecting", 1]);
    server().connected();
    assert.equal(live.state, "connected");
  });
});

describe("a navigation that does not leave the page, such as a download", () => {
  test("is followed by another connection, in quiet: browsers may have ended the old one without a word", () => {
    const live = openConnected();
    const states = [];
    live.on("statechange", ({ state }) => states.push(state));
    page.fire("beforeunload");
    pass(1999);
    assert.equal(connections(), 1);
    pass(1);
    assert.deepEqual([connections(), server().parameters.get("replaces")], [2, "c1"]);
    server().connected();
    assert.deepEqual([live.state, states, FakeEventSource.made[0].readyState], ["connected", [], FakeEventSource.CLOSED]);
  });

  test("is followed by another while the first one opens, too: it may have ended as well, and nothing would show it", () => {
    const live = open();
    page.fire("beforeunload");
    pass(2000);
    assert.deepEqual([connections(), FakeEventSource.made[0].readyState], [2, FakeEventSource.CLOSED]);
    server().connected();
    pass(29_000);
    assert.deepEqual([connections(), live.state], [2, "connected"]);
  });

  test("cuts no wait short", () => {
    openConnected();
    server().send({ type: "goodbye", reason: "full", reconnect: true, retry: 9000 });
    page.fire("beforeunload");
    pass(8999);
    assert.equal(connections(), 1);
  });

  test("and one that does by none", () => {
    openConnected();
    page.fire("beforeunload");
    page.fire("pagehide");
    pass(60_000);
    assert.equal(connections(), 1);
  });
});

describe("a page that nobody sees yet", () => {
  test("opens nothing while it is prerendered, whatever happens to it; and begins where it was drawn when it is shown", () => {
    let prerendering = true;
    Object.defineProperty(document, "prerendering", { get: () => prerendering, configurable: true });
    const live = open({ lastEventId: "a:5-0" });
    for (const type of ["pageshow", "visibilitychange", "online", "offline", "freeze", "resume"]) page.fire(type);
    pass(120_000);
    assert.deepEqual([connections(), live.state], [0, "connecting"]);
    prerendering = false;
    page.fire("prerenderingchange");
    assert.deepEqual([connections(), server().parameters.get("last_event_id")], [1, "a:5-0"]);
    server().connected();
    assert.equal(live.state, "connected");
  });
});

describe("a stream whose end the server announces", () => {
  const lived = (options) => openConnected(options, { ends: 100 });

  test("is renewed before it, without a word, and nothing is lost or doubled", () => {
    const said = [];
    const live = lived({ logger: { info: (text) => said.push(text), warn: (text) => said.push(text), debug() {} } });
    const states = [];
    live.on("statechange", ({ state }) => states.push(state));
    const heard = [];
    live.on("tick", (data) => heard.push(data));
    const [old] = FakeEventSource.made;
    pass(50_000);
    old.heartbeat("a:1000-0");
    pass(39_999);
    assert.equal(connections(), 1);
    pass(1);
    assert.equal(connections(), 2);
    const [, next] = FakeEventSource.made;
    assert.deepEqual([next.parameters.get("replaces"), next.parameters.get("last_event_id")], ["c1", "a:1000-0"]);
    old.event("tick", 1, "a:1001-0");
    next.connected({ client_id: "c2", ends: 100, resumed: true });
    assert.equal(old.readyState, FakeEventSource.CLOSED);
    next.event("tick", 1, "a:1001-0");
    next.event("tick", 2, "a:1002-0");
    assert.deepEqual([heard, states, live.state, live.clientId], [[1, 2], [], "connected", "c2"]);
    assert.deepEqual(said.filter((text) => !text.startsWith("Real-time")), []);
    assert.deepEqual(live.stats.reconnects, {});
    pass(60_000);
    next.heartbeat("a:1002-0");
    pass(30_000);
    assert.equal(connections(), 3, "and so on");
    live.close();
  });

  test("goes on where the next one is refused or breaks, and ends in quiet when it ends", () => {
    for (const fail of [
      (next) => next.break(), (next) => next.refuse(),
      (next) => next.send({ type: "goodbye", reason: "too_many_clients", reconnect: true, retry: 5000 }),
    ]) {
      FakeEventSource.forget();
      const live = lived();
      const heard = [];
      live.on("tick", (data) => heard.push(data)).on("goodbye", ({ reason }) => heard.push(reason)).on("statechange", ({ state }) => heard.push(state));
      const [old] = FakeEventSource.made;
      pass(50_000);
      old.heartbeat("a:1000-0");
      pass(40_000);
      fail(server());
      old.event("tick", 1, "a:1001-0");
      assert.deepEqual([heard, connections()], [[1], 2]);
      pass(9_000);
      old.send({ type: "goodbye", reason: "max_age", reconnect: true, retry: 3000 });
      assert.equal(connections(), 3, "at once");
      assert.equal(server().parameters.get("replaces"), null, "there is nothing to replace any more");
      server().connected({ client_id: "c3" });
      server().event("tick", 2, "a:1002-0");
      assert.deepEqual([heard, live.state], [[1, "max_age", 2], "connected"]);
      live.close();
    }
  });

  test("shows that it is gone where the next one does not come either", () => {
    const live = openConnected();
    server().send({ type: "goodbye", reason: "max_age", reconnect: true, retry: 3000 });
    assert.equal(live.state, "connected");
    server().break();
    assert.equal(live.state, "reconnecting");
    pass(2000);
    server().connected();
    server().send({ type: "goodbye", reason: "max_age", reconnect: true, retry: 3000 });
    pass(20_000);
    assert.equal(live.state, "reconnecting", "nothing came");
  });

  test("breaks while the next one opens: that shows, and the next one is it", () => {
    const live = lived();
    pass(59_000);
    server().heartbeat("a:1000-0");
    pass(31_000);
    const [old, next] = FakeEventSource.made;
    old.break();
    assert.equal(live.state, "reconnecting");
    next.connected();
    assert.equal(live.state, "connected");
    pass(20_000);
    assert.equal(connections(), 2);
  });

  test("is not renewed by a tab that shares it: its leader does that", () => {
    class Shared extends FakeEventSource {
      static reconnects = true;
    }
    openConnected({ EventSource: Shared }, { ends: 40 });
    pass(39_000);
    assert.equal(connections(), 1);
  });

  test("is renewed in quiet for the interval of a page that is looked at again, too", () => {
    const live = openConnected();
    page.hide();
    server().break();
    pass(2000);
    server().connected({ heartbeat: 120 });
    const states = [];
    live.on("statechange", ({ state }) => states.push(state));
    page.show();
    assert.equal(server().parameters.get("heartbeat"), null);
    server().connected();
    assert.deepEqual(states, []);
  });
});

describe("a clock that is set", () => {
  test("back does not blind the watch, and counts no heartbeat as missed", () => {
    const live = openConnected();
    const { lastHeartbeat } = live;
    moveClock(-3_600_000);
    pass(20_000);
    server().heartbeat("a:1000-0");
    assert.deepEqual([live.stats.missedHeartbeats, live.lastHeartbeat], [0, lastHeartbeat + 20_000]);
    pass(60_000);
    assert.equal(live.state, "reconnecting");
    assert.equal(live.stats.connectedMs, 80_000);
  });
});

describe("a wait that the server told", () => {
  async function openToldToWait(seconds) {
    mock.method(Math, "random", () => 0);
    mock.method(globalThis, "fetch", async () => ({ status: 503, headers: new Headers({ "Retry-After": String(seconds) }) }));
    const live = open();
    server().refuse();
    await settle();
    return live;
  }

  test("is not cut short by a network that goes and comes", async () => {
    await openToldToWait(120);
    pass(20_000);
    page.goOffline();
    pass(1000);
    page.goOnline();
    pass(98_999);
    assert.equal(connections(), 1);
    pass(1);
    assert.equal(connections(), 2);
  });

  test("is waited for though the browser says that there is no network, and then no longer", async () => {
    await openToldToWait(120);
    page.goOffline();
    pass(119_999);
    assert.equal(connections(), 1);
    pass(1);
    assert.equal(connections(), 2);
  });

  test("of a month does not make a storm", async () => {
    await openToldToWait(30 * 24 * 3600);
    pass(60_000);
    assert.equal(connections(), 1);
  });
});

describe("a stream that is refused", () => {
  async function refused(status, headers = {}, more = {}) {
    mock.method(globalThis, "fetch", async () => ({ status, headers: new Headers(headers), redirected: false, ...more }));
    const live = open();
    const changes = [];
    live.on("statechange", (data) => changes.push(data));
    server().refuse();
    await settle();
    return { live, change: changes.at(-1) };
  }

  test("is asked about by HEAD, with the same url", async () => {
    await refused(403);
    const [url, { method }] = fetch.mock.calls[0].arguments;
    assert.equal(url, server().url);
    assert.equal(method, "HEAD");
  });

  test("by our server is told in the console, once, with its reason", async () => {
    mock.method(globalThis, "fetch", async () => ({ status: 501, headers: new Headers({ "SSE-Live-Error": "asgi_required" }) }));
    const said = [];
    open({ logger: { info() {}, warn: (text) => said.push(text) } });
    server().refuse();
    await settle();
    assert.deepEqual(said, ["Stream refused: 501 asgi_required"]);
  });

  for (const [withCredentials, credentials] of [[true, "include"], [false, "same-origin"]]) {
    test(`is asked about ${withCredentials ? "with" : "without"} cookies of another origin, as it was opened`, async () => {
      mock.method(globalThis, "fetch", async () => ({ status: 403, headers: new Headers() }));
      open({ withCredentials });
      server().refuse();
      await settle();
      assert.equal(fetch.mock.calls[0].arguments[1].credentials, credentials);
    });
  }

  test("is asked about by a page from before an update as it was", async () => {
    mock.method(globalThis, "fetch", async () => ({ status: 403, headers: new Headers() }));
    await refusal("/events/", true);
    await refusal("/events/", undefined);
    assert.deepEqual(fetch.mock.calls.map((call) => call.arguments[1].credentials), ["include", "same-origin"]);
  });

  for (const status of [400, 401, 403, 404, 501]) {
    test(`with ${status} by our server is over, and the page hears why`, async () => {
      const { live, change } = await refused(status, { "SSE-Live-Error": "forbidden" });
      assert.equal(live.state, "disconnected");
      assert.deepEqual([change.reason, change.status], ["forbidden", status]);
      page.fire("online");
      page.fire("pageshow");
      pass(120_000);
      assert.equal(connections(), 1);
    });

    test(`with ${status} by something in between is shown, and tried again, more and more slowly`, async () => {
      mock.method(Math, "random", () => 1);
      const { live, change } = await refused(status);
      assert.deepEqual([live.state, change.reason, change.status], ["disconnected", "refused", status]);
      const waits = [];
      for (let passed = 0; waits.length < 12; passed += 500) {
        const before = connections();
        pass(500);
        if (connections() === before) continue;
        server().refuse();
        await settle();
        waits.push(passed);
        passed = -500;
      }
      assert.ok(waits[1] >= waits[0] && waits.every((wait) => wait <= 60_000), waits);
      assert.equal(Math.max(...waits), 60_000 - 500, "once a minute in the end");
      assert.equal(live.state, "disconnected");
      pass(60_000);
      server().connected();
      assert.equal(live.state, "connected");
    });
  }

  for (const type of ["visibilitychange", "online", "pageshow"]) {
    test(`by something in between is tried again at once on ${type}, and is red until it works`, async () => {
      const { live } = await refused(404);
      page.fire(type);
      pass(1);
      assert.deepEqual([connections(), live.state], [2, "disconnected"]);
      server().refuse();
      await settle();
      assert.equal(live.state, "disconnected");
      page.fire(type);
      pass(1);
      server().connected();
      assert.equal(live.state, "connected");
    });
  }

  test("by something in between, and closed by the page, stays closed", async () => {
    const { live } = await refused(404);
    live.close();
    page.fire("online");
    pass(120_000);
    assert.equal(connections(), 1);
  });

  test("for a reason that the server names tells the page that one", async () => {
    const { change } = await refused(403, { "SSE-Live-Error": "token_expired" });
    assert.deepEqual([change.state, change.reason, change.status], ["disconnected", "token_expired", 403]);
  });

  test("by a redirect to a page, such as a log-in form, is shown too, and tried again: somebody may log in", async () => {
    const { change } = await refused(200, { "Content-Type": "text/html" }, { redirected: true });
    assert.deepEqual([change.state, change.reason], ["disconnected", "refused"]);
    pass(2000);
    assert.equal(connections(), 2);
  });

  test("with 204 is closed", async () => {
    const { change } = await refused(204);
    assert.deepEqual([change.state, change.reason], ["disconnected", "closed"]);
  });

  for (const status of [429, 503]) {
    test(`with ${status} is tried again as told, with jitter`, async () => {
      mock.method(Math, "random", () => 1);
      const { live } = await refused(status, { "Retry-After": "20" });
      assert.equal(live.state, "reconnecting");
      pass(24_999);
      assert.equal(connections(), 1);
      pass(1);
      assert.equal(connections(), 2);
    });
  }

  test("with a Retry-After that is a date waits for it", async () => {
    mock.method(Math, "random", () => 0);
    await refused(503, { "Retry-After": new Date(Date.now() + 7000).toUTCString() });
    pass(5000);
    assert.equal(connections(), 1);
    pass(2000);
    assert.equal(connections(), 2);
  });

  test("for now says so, at first as well as while it is waited for", async () => {
    const { live, change } = await refused(503, { "Retry-After": "3" });
    assert.deepEqual([change.state, change.previous, change.reason], ["reconnecting", "connecting", "unavailable"]);
    pass(4000);
    server().connected({}, "a:1000-0");
    const reasons = [];
    live.on("statechange", ({ state, reason }) => reasons.push([state, reason]));
    server().break();
    pass(2000);
    server().refuse();
    await settle();
    pass(4000);
    server().refuse();
    await settle();
    assert.deepEqual(reasons, [["reconnecting", "lost"], ["reconnecting", "unavailable"]]);
    assert.deepEqual(live.stats.reconnects, { lost: 1 });
  });

  for (const status of [500, 502, 503]) {
    test(`with ${status} and no word when is backed off from`, async () => {
      await refused(status);
      pass(2000);
      assert.equal(connections(), 2);
    });
  }

  test("for want of a network is backed off from", async () => {
    mock.method(globalThis, "fetch", async () => { throw new TypeError("Failed to fetch"); });
    open();
    server().refuse();
    await settle();
    pass(2000);
    assert.equal(connections(), 2);
  });

  test("and closed by the page while it asks, stays closed", async () => {
    mock.method(globalThis, "fetch", async () => ({ status: 503, headers: new Headers(), redirected: false }));
    const live = open();
    server().refuse();
    live.close();
    await settle();
    pass(60_000);
    assert.equal(connections(), 1);
  });
});

describe("persist", () => {
  const key = "sse-live:/events/?comments";

  test("keeps the position for the next page", () => {
    const persist = new FakeStorage();
    const live = openConnected({ persist });
    server().event("tick", null, "a:1001-0");
    live.close();
    open({ persist, lastEventId: "a:1005-0" });
    assert.equal(server().parameters.get("last_event_id"), "a:1001-0", "what was missed in between comes");
  });

  test("is no position of a page that was drawn before: another tab may have moved it on", () => {
    const persist = new FakeStorage();
    persist.setItem(key, "a:1009-0");
    openConnected({ persist, lastEventId: "a:1005-0" });
    assert.equal(FakeEventSource.made[0].parameters.get("last_event_id"), "a:1005-0");
    server().event("tick", null, "a:1006-0");
    assert.equal(persist.getItem(key), "a:1009-0", "and is never moved back by it");
    server().event("tick", null, "a:1010-0");
    assert.equal(persist.getItem(key), "a:1010-0");
  });

  test("of another epoch is the earlier one too, as far as anyone can tell: what cannot be replayed is told", () => {
    for (const [kept, drawn, brought] of [["a:900-0", "b:1000-0", "a:900-0"], ["b:1000-0", "a:900-0", "a:900-0"]]) {
      const persist = new FakeStorage();
      persist.setItem(key, kept);
      open({ persist, lastEventId: drawn });
      assert.equal(server().parameters.get("last_event_id"), brought);
    }
  });

  test("begins anew with a reset", () => {
    const persist = new FakeStorage();
    persist.setItem(key, "a:1009-0");
    open({ persist });
    server().connected();
    server().send({ type: "reset", reason: "unknown_id" }, "b:3-0");
    assert.equal(persist.getItem(key), "b:3-0");
  });

  test("keeps one for each url and its channels", () => {
    const persist = new FakeStorage();
    openConnected({ persist });
    assert.deepEqual(persist.keys(), ["sse-live:/events/?comments"]);
  });

  test("takes the page's own position the first time", () => {
    open({ persist: new FakeStorage(), lastEventId: "a:1005-0" });
    assert.equal(server().parameters.get("last_event_id"), "a:1005-0");
  });
});

describe("a storage that cannot be used", () => {
  const denied = () => { throw new DOMException("denied", "SecurityError"); };

  for (const [what, persist] of [["denied", { getItem: denied, setItem: denied }], ["full", { getItem: () => null, setItem: denied }]]) {
    test(`because it is ${what} does not matter to the stream`, () => {
      const live = openConnected({ persist, lastEventId: "a:1-0" });
      const heard = mock.fn();
      live.on("tick", heard);
      server().event("tick", null, "a:1001-0");
      assert.deepEqual([live.state, live.lastEventId, heard.mock.callCount()], ["connected", "a:1001-0", 1]);
    });
  }
});

describe("statistics", () => {
  test("tell how the stream fared", () => {
    const live = openConnected();
    pass(10_000);
    server().event("tick", null, "a:1001-0");
    server().break();
    pass(2000);
    server().connected();
    pass(5000);
    const { connects, reconnects, events, connectedMs, lastRecoveryMs, longestRecoveryMs, missedHeartbeats } = live.stats;
    assert.deepEqual(
      { connects, reconnects, events, connectedMs, lastRecoveryMs, longestRecoveryMs, missedHeartbeats },
      { connects: 2, reconnects: { lost: 1 }, events: 1, connectedMs: 15_000, lastRecoveryMs: 2000,
        longestRecoveryMs: 2000, missedHeartbeats: 0 },
    );
  });

  test("do not count the time that the page was frozen as connected", () => {
    const live = openConnected();
    pass(10_000);
    page.fire("freeze");
    page.sleep(3_600_000);
    assert.equal(live.stats.connectedMs, 10_000);
    page.fire("resume");
    pass(1);
    server().connected();
    pass(5000);
    assert.equal(live.stats.connectedMs, 15_000);
  });

  test("count heartbeats that did not come", () => {
    const live = openConnected();
    pass(45_000);
    server().heartbeat("a:1000-0");
    assert.equal(live.stats.missedHeartbeats, 1);
    pass(60_000);
    assert.deepEqual([live.stats.missedHeartbeats, live.stats.reconnects], [3, { silent: 1 }]);
  });

  test("are sent when the page is left, if a url was given", async () => {
    openConnected({ statsUrl: "/stats/" });
    page.fire("pagehide");
    const [[url, body]] = page.beacons;
    assert.equal(url, "/stats/");
    assert.equal(JSON.parse(await body.text()).connects, 1);
  });

  test("are not sent otherwise", () => {
    openConnected();
    page.fire("pagehide");
    assert.deepEqual(page.beacons, []);
  });
});

describe("a reset", () => {
  let resets;

  /** A page that is loaded, or put in place by a script such as Turbo, and what the first connection of each of its streams brings. */
  function load(...streams) {
    FakeEventSource.forget();
    const opened = (streams.length ? streams : [{}]).map((options) => open({ lastEventId: "old:1-0", ...options }));
    for (const live of opened) live.on("reset", () => resets.push("reset")).on("stale", () => resets.push("stale"));
    for (const server of FakeEventSource.made) {
      pass(100);
      server.connected({ resumed: false });
      server.send({ type: "reset", reason: "unknown_id" }, "a:1000-0");
    }
    for (const live of opened) live.close();
  }

  beforeEach(() => {
    resets = [];
    Object.defineProperty(globalThis, "sessionStorage", { value: new FakeStorage(), configurable: true });
  });

  test("that neither a reload mends nor a visit by a script, such as Turbo's, is told once, and not again and again", () => {
    for (let loads = 0; loads < 2; loads++) {
      load();
      pass(500);
    }
    assert.deepEqual(resets, ["reset", "stale"]);
  });

  test("is told again later", () => {
    load();
    pass(60_000);
    load();
    assert.deepEqual(resets, ["reset", "reset"]);
  });

  test("is told to each stream of one page, to one for other channels, and to another page that was opened then", () => {
    load({}, {}, { channels: ["b"] });
    load({ channels: ["c"] });
    Object.defineProperty(globalThis, "location", { value: { href: "http://localhost/other/" }, configurable: true });
    load();
    delete globalThis.location;
    assert.deepEqual(resets, ["reset", "reset", "reset", "reset", "reset"]);
  });

  test("is told to a page that has been there, however soon after another", () => {
    const live = openConnected();
    const first = server();
    pass(1);
    load();
    resets = [];
    live.on("reset", () => resets.push("reset"));
    for (let number = 0; number < 3; number++) first.send({ type: "reset", reason: "history_expired" }, `a:200${number}-0`);
    assert.deepEqual(resets, ["reset", "reset", "reset"]);
  });

  test("that comes long after the reload for another one is told", () => {
    load();
    const live = openConnected();
    live.on("reset", () => resets.push("reset")).on("stale", () => resets.push("stale"));
    pass(20_000);
    server().heartbeat("a:1001-0");
    pass(20_000);
    server().send({ type: "reset", reason: "history_expired" }, "a:2000-0");
    assert.deepEqual(resets, ["reset", "reset"]);
  });

  test("does without a storage where there is none", () => {
    Object.defineProperty(globalThis, "sessionStorage", { get() { throw new DOMException("denied", "SecurityError"); }, configurable: true });
    load();
    load();
    assert.deepEqual(resets, ["reset", "reset"]);
  });
});

describe("what the developer is told in the console", () => {
  function hints(options) {
    const said = [];
    const live = open({ logger: { info() {}, debug() {}, warn: (text) => said.push(text) }, ...options });
    return { said, live };
  }

  test("is once that something buffers the stream, where no first word comes", async () => {
    const { said } = hints();
    pass(19_999);
    await settle();
    assert.deepEqual(said, []);
    pass(1);
    await settle();
    assert.match(said.join(), /buffer.*docs\/deploy\/proxies\.md/);
    pass(200_000);
    await settle();
    assert.equal(said.filter((text) => text.includes("buffer")).length, 1);
  });

  test("is nothing of the kind where it came in time, or where there is no server", async () => {
    const { said } = hints();
    server().connected();
    pass(29_000);
    await settle();
    assert.deepEqual(said, []);
    FakeEventSource.forget();
    const other = hints();
    for (let second = 0; second < 40; second++) {
      server().break();
      pass(1000);
    }
    await settle();
    assert.ok(!other.said.join().includes("buffer"));
  });

  for (const [protocol, streams, isSaid] of [["http/1.1", 5, true], ["http/1.1", 4, false], ["h2", 12, false], ["", 12, false]]) {
    test(`is that ${streams} streams are many over ${protocol || "who knows what"}: ${isSaid}`, async () => {
      mock.method(performance, "getEntriesByType", () => [{ nextHopProtocol: protocol }]);
      const { said } = hints();
      server().connected({ streams });
      server().break();
      pass(2000);
      server().connected({ streams });
      await settle();
      assert.equal(said.filter((text) => text.includes("share=True")).length, isSaid ? 1 : 0);
    });
  }
});

describe("a ticket", () => {
  const broken = () => {
    server().break();
    pass(60_000);
  };

  test("is brought back after each break, with the position, until there is another", () => {
    openConnected({}, { ticket: "t1" });
    assert.equal(server().parameters.get("ticket"), null);
    for (let round = 0; round < 2; round++) {
      broken();
      assert.deepEqual([server().parameters.get("ticket"), server().parameters.get("last_event_id")], ["t1", "a:1000-0"]);
    }
    server().connected({ ticket: "t2" });
    broken();
    assert.equal(server().parameters.get("ticket"), "t2");
    server().connected({});
    broken();
    assert.equal(server().parameters.get("ticket"), null);
  });

  test("is not brought by a connection that takes over: that one is to be checked", () => {
    openConnected({}, { ticket: "t1", ends: 60 });
    pass(55_000);
    assert.deepEqual([connections(), server().parameters.get("ticket")], [2, null]);
  });

  test("is let go of where the request with it was refused", async () => {
    openConnected({}, { ticket: "t1" });
    globalThis.fetch = async () => new Response(null, { status: 414 });
    server().refuse();
    await settle();
    pass(120_000);
    assert.equal(server().parameters.get("ticket"), null);
  });

  test("is kept while a proxy says that nobody is there", async () => {
    openConnected({}, { ticket: "t1" });
    globalThis.fetch = async () => new Response(null, { status: 502 });
    server().refuse();
    await settle();
    pass(120_000);
    assert.equal(server().parameters.get("ticket"), "t1");
  });
});

describe("a token that a function gives", () => {
  test("is asked for before each connection", async () => {
    let number = 0;
    const live = open({ token: async () => `token ${++number}` });
    assert.equal(connections(), 0);
    await settle();
    assert.equal(server().parameters.get("token"), "token 1");
    server().connected({ token: "fresh" });
    server().break();
    pass(2000);
    await settle();
    assert.deepEqual(server().parameters.getAll("token"), ["token 2"]);
    live.close();
  });

  test("and is not given, or not in time, is asked for again", async () => {
    let give = async () => { throw new Error("no network"); };
    const live = open({ token: () => give() });
    await settle();
    assert.deepEqual([connections(), live.state], [0, "reconnecting"]);
    give = () => new Promise(() => {});
    pass(2000);
    give = async () => "late";
    pass(10_000);
    await settle();
    assert.equal(server().parameters.get("token"), "late");
    pass(20_000);
    assert.equal(connections(), 1);
  });

  test("and is not given while the stream is renewed shows that there is none as soon as the old one has ended", async () => {
    let give = async () => "token";
    const live = open({ token: () => give() });
    await settle();
    server().connected();
    give = () => new Promise(() => {});
    server().send({ type: "goodbye", reason: "max_age", reconnect: true });
    assert.equal(live.state, "connected", "it is renewed in quiet");
    pass(11_000);
    assert.equal(live.state, "reconnecting");
    give = async () => "late";
    pass(11_000);
    await settle();
    server().connected();
    assert.equal(live.state, "connected");
    live.close();
  });

  test("and comes after the stream was closed opens nothing", async () => {
    const live = open({ token: async () => "too late" });
    live.close();
    await settle();
    pass(60_000);
    assert.equal(connections(), 0);
  });
});

test("a Worker resolves the stream's url by its own", () => {
  Object.defineProperty(globalThis, "document", { value: undefined, configurable: true });
  Object.defineProperty(globalThis, "location", { value: { href: "https://example.com/js/worker.js" }, configurable: true });
  try {
    const live = new SSELive("/events/", { EventSource: FakeEventSource, logger: null });
    assert.equal(new URL(server().url).origin, "https://example.com");
    page.fire("visibilitychange");
    page.fire("online");
    live.close();
  } finally {
    delete globalThis.location;
  }
});
