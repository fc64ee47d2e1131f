// The adaptive heartbeat against paths that cut what idles: how long until it settles, and at which interval.
import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { FakeEventSource, FakePage, pass, resetFakes } from "./fakes.mjs";
import { SSELive } from "../../django_sse_live/static/django_sse_live/sse-live.js";

const SERVER_SECONDS = 30;
const SERVER_BOUNDS = [5, 120];
const HOUR = 3600;

/** Lets what was awaited go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

let page;

beforeEach(() => {
  resetFakes();
  page = new FakePage();
});

/**
 * An hour of the real client against a server with our rules, behind a proxy.
 * @param {object} path
 * @param {number} path.cutsAfter seconds without a byte after which the proxy cuts
 * @param {boolean} [path.silently] whether it forgets the connection instead of closing it
 * @param {number} [path.endsAfter] seconds of life after which it closes any connection
 * @param {number} [path.renewsAfter] seconds of life after which the server says goodbye
 * @returns when the path cut for idling, in seconds, and what interval is in force in the end
 */
async function anHour({ cutsAfter, silently = false, endsAfter = Infinity, renewsAfter = Infinity }) {
  const live = new SSELive("http://localhost/events/", { EventSource: FakeEventSource, logger: null });
  const cuts = [];
  let source, interval, idle, age, isForgotten;
  for (let second = 0; second < HOUR; second++) {
    if (FakeEventSource.last !== source) {
      source = FakeEventSource.last;
      const asked = Number(source.parameters.get("heartbeat"));
      interval = asked ? Math.min(Math.max(asked, SERVER_BOUNDS[0]), SERVER_BOUNDS[1]) : SERVER_SECONDS;
      [idle, age, isForgotten] = [0, 0, false];
      source.connected({ heartbeat: interval });
    } else if (source.readyState === FakeEventSource.OPEN) {
      idle += 1;
      age += 1;
      if (idle >= cutsAfter || age >= endsAfter) {
        if (idle >= cutsAfter && !isForgotten) cuts.push(second);
        isForgotten = true;
        if (!silently) source.break();
      } else if (age >= renewsAfter) {
        source.send({ type: "goodbye", reason: "max_age", reconnect: true, retry: 1000 });
      } else if (age % interval === 0) {
        idle = 0;
        source.heartbeat("a:1-0");
      }
    }
    pass(1000);
    await settle();
  }
  live.close();
  return { cuts, interval };
}

describe("settles", () => {
  for (const [cutsAfter, expected] of [[10, 7], [30, 22], [60, 30], [300, 30]]) {
    test(`behind a proxy that cuts after ${cutsAfter} s, at ${expected} s`, async () => {
      const { cuts, interval } = await anHour({ cutsAfter });
      assert.equal(interval, expected);
      assert.ok(cuts.length <= 2, `cut at ${cuts}`);
      assert.ok(cuts.every((second) => second < 120));
    });
  }

  for (const [cutsAfter, expected] of [[10, 7], [30, 22], [60, 45], [300, 120]]) {
    test(`in a hidden page behind a proxy that cuts after ${cutsAfter} s, at ${expected} s`, async () => {
      page.isHidden = true;
      // The server renews a stream now and then: that is when a hidden page asks for its longer interval.
      const { cuts, interval } = await anHour({ cutsAfter, renewsAfter: 600 });
      assert.equal(interval, expected);
      assert.ok(cuts.length <= 4, `cut at ${cuts}`);
      assert.ok(cuts.every((second) => second < HOUR / 2), `cut at ${cuts}`);
    });
  }

  test("behind a firewall that forgets connections after 20 s, and tells nobody", async () => {
    const { cuts, interval } = await anHour({ cutsAfter: 20, silently: true });
    assert.equal(interval, 15);
    assert.equal(cuts.length, 2);
  });

  test("does not blame silence where a proxy ends every connection after 75 s", async () => {
    const { interval } = await anHour({ cutsAfter: Infinity, endsAfter: 75 });
    assert.equal(interval, SERVER_SECONDS);
  });

  test("nor where it ends them before the first heartbeat", async () => {
    const { interval } = await anHour({ cutsAfter: Infinity, endsAfter: 25 });
    assert.ok(interval >= 18);
  });
});

describe("asks", () => {
  test("nothing of a path that bears the server's interval", async () => {
    await anHour({ cutsAfter: 300 });
    assert.equal(FakeEventSource.last.parameters.get("heartbeat"), null);
  });

  test("nothing if it must not", () => {
    page.isHidden = true;
    const live = new SSELive("http://localhost/events/", { EventSource: FakeEventSource, logger: null, adaptive: false });
    FakeEventSource.last.connected();
    FakeEventSource.last.break();
    pass(2000);
    assert.equal(FakeEventSource.last.parameters.get("heartbeat"), null);
    live.close();
  });

  test("for the usual interval again as soon as the page is looked at", () => {
    const live = new SSELive("http://localhost/events/", { EventSource: FakeEventSource, logger: null });
    FakeEventSource.last.connected();
    page.hide();
    FakeEventSource.last.break();
    pass(2000);
    assert.equal(FakeEventSource.last.parameters.get("heartbeat"), "120");
    FakeEventSource.last.connected({ heartbeat: 120 });
    page.show();
    pass(1);
    assert.equal(FakeEventSource.last.parameters.get("heartbeat"), null);
    live.close();
  });

  test("as if it knew nothing on another network", async () => {
    const live = new SSELive("http://localhost/events/", { EventSource: FakeEventSource, logger: null });
    for (let cut = 0; cut < 2; cut++) {
      FakeEventSource.last.connected();
      pass(10_000);
      FakeEventSource.last.break();
      await settle();
      pass(2000);
    }
    assert.equal(FakeEventSource.last.parameters.get("heartbeat"), "7");
    page.goOffline();
    page.goOnline();
    pass(1);
    assert.equal(FakeEventSource.last.parameters.get("heartbeat"), null);
    live.close();
  });
});
