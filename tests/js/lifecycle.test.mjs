// Sleep and wake, networks that come and go, servers that refuse: what a page lives through.
import assert from "node:assert/strict";
import { beforeEach, describe, mock, test } from "node:test";

import { FakeEventSource, FakePage, FakeStorage, moveClock, pass, resetFakes } from "./fakes.mjs";
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

describe("a network that goes", () => {
  test("is reconnecting at once, and tries nothing until it is back", () => {
    const live = openConnected();
    page.goOffline();
    assert.equal(live.state, "reconnecting");
    pass(600_000);
    page.fire("visibilitychange");
    pass(60_000);
    assert.equal(connections(), 1);
    page.goOnline();
    pass(1);
    assert.equal(connections(), 2);
  });

  test("that was never there is waited for", () => {
    page.goOffline();
    const live = open();
    pass(60_000);
    assert.equal(connections(), 0);
    assert.equal(live.state, "reconnecting");
    page.goOnline();
    pass(1);
    assert.equal(connections(), 1);
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

  test("is no longer waited for once it is over, even without a network", async () => {
    await openToldToWait(120);
    page.goOffline();
    pass(200_000);
    page.goOnline();
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

  for (const status of [400, 401, 403, 404, 501]) {
    test(`with ${status} is over, and the page hears why`, async () => {
      const { live, change } = await refused(status);
      assert.equal(live.state, "disconnected");
      assert.deepEqual([change.reason, change.status], ["refused", status]);
      pass(120_000);
      assert.equal(connections(), 1);
    });
  }

  test("for a reason that the server names tells the page that one", async () => {
    const { change } = await refused(403, { "SSE-Live-Error": "token_expired" });
    assert.deepEqual([change.state, change.reason, change.status], ["disconnected", "token_expired", 403]);
  });

  test("by a redirect to a page, such as a log-in form, is over too", async () => {
    const { change } = await refused(200, { "Content-Type": "text/html" }, { redirected: true });
    assert.deepEqual([change.state, change.reason], ["disconnected", "refused"]);
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
  test("keeps the position for the next page", () => {
    const persist = new FakeStorage();
    const live = openConnected({ persist });
    server().event("tick", null, "a:1001-0");
    live.close();
    open({ persist, lastEventId: "a:1005-0" });
    assert.equal(server().parameters.get("last_event_id"), "a:1001-0", "what was missed in between comes");
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
