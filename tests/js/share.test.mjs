// Tabs that share one stream, in a world where tabs open, close, crash and hang, and connections break, at random. The real
// client runs in each; whatever happens, every tab hears every event of its channels once, in order.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { Tab, World } from "./world.mjs";

const SEEDS = Number(process.env.SEEDS ?? 40);
const ONLY = process.env.SEED;
const CHANNELS = ["a", "b", "c"];

/** What a tab must have heard: everything on its channels since its page was made. */
const due = (world, tab) => world.log.slice(tab.from).filter(({ channel }) => tab.channels.includes(channel)).map(({ number }) => number);

async function live(seed, fates, server = {}) {
  const world = new World(seed, server);
  let names = 0;
  const open = () => {
    const channels = CHANNELS.filter(() => world.random() < 0.5);
    return new Tab(world, `tab ${++names}`, channels.length ? channels : ["a"]);
  };
  open();
  for (let act = 0; act < 150; act++) {
    await world.run(world.between(10, 400));
    const tab = world.pick(world.tabs);
    switch (world.pick(["event", "event", "event", ...fates])) {
      case "event": world.broadcast(world.pick(CHANNELS)); break;
      case "open": if (world.tabs.length < 8) open(); break;
      case "close": if (world.tabs.length > 1) tab.close(); break;
      case "crash": if (world.tabs.length > 1) tab.crash(); break;
      case "break": world.breakAll(); break;
      case "hang":
        tab.hang();
        world.at(world.between(100, 90_000), () => tab.recover());
        break;
      case "hide": tab.document.hidden = !tab.document.hidden; break;
    }
  }
  await world.run(400_000);
  world.broadcast("a");
  world.broadcast("b");
  world.broadcast("c");
  await world.run(10_000);
  return world;
}

function check(world) {
  for (const tab of world.tabs) {
    assert.deepEqual(tab.heard, due(world, tab), `${tab.name}, on ${tab.channels}`);
    assert.equal(tab.live.state, "connected");
  }
  assert.equal(world.connections.size, 1, "one stream for all");
}

const fates = {
  "tabs come": ["open"],
  "tabs come and go": ["open", "close"],
  "tabs crash": ["open", "open", "crash"],
  "connections break": ["open", "break"],
  "tabs hang": ["open", "hang"],
  "everything happens": ["open", "open", "close", "crash", "break", "hang", "hide"],
};

for (const [what, list] of Object.entries(fates)) {
  describe(`while ${what}, nothing is lost and nothing is heard twice`, () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      if (ONLY && Number(ONLY) !== seed) continue;
      test(`seed ${seed}`, async () => check(await live(seed, list)));
    }
  });
}

describe("while the one stream is renewed every few seconds, nothing is lost, nothing is heard twice, and no tab is told", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    if (ONLY && Number(ONLY) !== seed) continue;
    test(`seed ${seed}`, async () => {
      const world = await live(seed, ["open"], { renewMs: 4_000 });
      for (const tab of world.tabs) {
        assert.deepEqual(tab.heard, due(world, tab), `${tab.name}, on ${tab.channels}`);
        assert.deepEqual(tab.told, ["connected"]);
      }
      assert.ok(world.requests > 100);
    });
  }
});

test("every tab knows why the one stream was lost", async () => {
  const world = new World(1);
  const tabs = [new Tab(world, "tab 1", ["a"]), new Tab(world, "tab 2", ["a"])];
  const reasons = tabs.map(() => []);
  tabs.forEach((tab, i) => tab.live.on("statechange", ({ state, reason }) => {
    if (state === "reconnecting") reasons[i].push(reason);
  }));
  await world.run(40_000);
  world.muteAll();
  await world.run(120_000);
  world.breakAll();
  await world.run(60_000);
  check(world);
  assert.deepEqual(reasons, [["silent", "lost"], ["silent", "lost"]]);
  assert.deepEqual(tabs.map(({ live }) => live.stats.reconnects), [{ silent: 1, lost: 1 }, { silent: 1, lost: 1 }]);
});

/** Tabs opened one after the other, each time that the world has come to rest. */
async function opened(world, ...wishes) {
  const tabs = [];
  for (const [channels, page] of wishes) {
    tabs.push(new Tab(world, `tab ${world.tabs.length + 1}`, channels, page));
    await world.run(3_000);
  }
  return tabs;
}

const states = (tabs) => tabs.map(({ live }) => live.state);
const heard = (tabs) => tabs.map((tab) => tab.heard);
const lead = (world) => world.tabs.find((tab) => [...world.connections].some((connection) => connection.tab === tab));

describe("where the server's history is short", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    test(`nobody who missed nothing gets a reset, seed ${seed}`, async () => {
      const world = new World(seed, { history: 5 });
      const first = new Tab(world, "tab 1", ["a"]);
      await world.run(2_000);
      for (const channel of ["b", "c", "d", "e"]) {
        for (let number = 0; number < 10; number++) {
          world.broadcast("a");
          await world.run(world.between(10, 200));
        }
        new Tab(world, channel, [channel]);
        await world.run(world.between(2_000, 40_000));
      }
      check(world);
      assert.equal(first.heard.length, 40);
    });
  }

  test("a tab that missed events gets its reset, once, and the others none", async () => {
    const world = new World(1, { history: 5 });
    world.broadcast("a");
    const position = world.head;
    const [first] = await opened(world, [["a"]]);
    for (let number = 0; number < 20; number++) world.broadcast("b");
    for (let number = 0; number < 20; number++) world.broadcast("a");
    await world.run(1_000);
    const [late] = await opened(world, [["b"], { position }]);
    await opened(world, [["c"]], [["d"]]);
    world.broadcast("b");
    await world.run(1_000);
    assert.deepEqual(late.heard, ["reset", 42]);
    assert.equal(first.heard.includes("reset"), false);
  });
});

describe("tokens", () => {
  const AGE = { tokenMs: 120_000, renewMs: 30_000 };
  const signed = (...channels) => [channels, { isSigned: true }];

  for (const [what, ...wishes] of [
    ["the same channels", signed("a"), signed("a")],
    ["other channels", signed("a"), signed("b"), signed("a")],
    ["some of another's channels", signed("a", "b"), signed("b")],
    ["a name and no token", signed("a"), [["b"]], signed("c")],
  ]) {
    test(`of tabs with ${what} are renewed, and serve the next leader`, async () => {
      const world = new World(1, AGE);
      const tabs = await opened(world, ...wishes);
      await world.run(400_000);
      lead(world).close();
      await world.run(20_000);
      for (const channel of CHANNELS) world.broadcast(channel);
      await world.run(10_000);
      assert.ok(tabs.every(({ isDead, told }) => isDead || !told.includes("token_expired")), JSON.stringify(tabs.map(({ told }) => told)));
      check(world);
    });
  }

  test("that were renewed are those that the stream is opened with for a new tab", async () => {
    const world = new World(1, AGE);
    await opened(world, signed("a"));
    await world.run(400_000);
    await opened(world, signed("b"));
    for (const channel of CHANNELS) world.broadcast(channel);
    await world.run(10_000);
    for (const { told } of world.tabs) assert.deepEqual(told.filter((each) => each === "lost" || each === "token_expired"), []);
    check(world);
  });

  test("of one tab are all kept", async () => {
    const world = new World(1, AGE);
    const [tab] = await opened(world, [["a", "b"], { tokens: [world.sign(["a"]), world.sign(["b"])] }]);
    await world.run(400_000);
    tab.live.startHeartbeatMonitoring();
    world.breakAll();
    await world.run(20_000);
    world.broadcast("a");
    world.broadcast("b");
    await world.run(10_000);
    check(world);
    assert.deepEqual(new URL(tab.live.url).searchParams.getAll("token").map((token) => token.split("~")[0]), ["a", "b"]);
  });
});

describe("a channel that a stream has without naming it", () => {
  test("is heard by every tab, also while one of them names it", async () => {
    const world = new World(1, { own: ["user:1"] });
    const [first, second] = await opened(world, [["a"]], [["a", "user:1"]]);
    world.broadcast("user:1");
    await world.run(1_000);
    assert.deepEqual(heard([first, second]), [[1], [1]]);
  });

  test("is heard by every tab where the server does not say which those are, as long as none names it", async () => {
    const world = new World(1, { own: ["user:1"], namesOwn: false });
    const [first, second] = await opened(world, [["a"]], [["user:1"]]);
    second.close();
    await opened(world, [["b"]]);
    world.broadcast("user:1");
    await world.run(1_000);
    assert.deepEqual(first.heard, [1]);
  });

  test("is no reason to hear what other tabs named", async () => {
    const world = new World(1, { own: ["user:1"] });
    const tabs = await opened(world, [["a"]], [["b"]]);
    world.broadcast("b");
    await world.run(1_000);
    assert.deepEqual(heard(tabs), [[], [1]]);
  });
});

describe("tabs that bring no position", () => {
  const anywhere = { position: undefined };

  test("know one as soon as they are connected", async () => {
    const world = new World(1);
    world.broadcast("a");
    const tabs = await opened(world, [["a"], anywhere], [["a"], anywhere]);
    assert.deepEqual(tabs.map(({ live }) => live.lastEventId), [world.head, world.head]);
  });

  test("lose nothing when the leader goes before they heard anything", async () => {
    const world = new World(1);
    const tabs = await opened(world, [["a"], anywhere], [["a"], anywhere]);
    lead(world).close();
    world.broadcast("a");
    await world.run(20_000);
    world.broadcast("a");
    await world.run(1_000);
    assert.deepEqual(tabs.find(({ isDead }) => !isDead).heard, [1, 2]);
  });
});

describe("tabs that ask for more channels than a stream may have", () => {
  const wishes = ["a", "b", "c", "d", "e"].map((letter) => [[1, 2, 3, 4].map((number) => letter + number)]);

  async function come(world, tabs) {
    await world.run(120_000);
    const { requests } = world;
    for (const { channels } of tabs) world.broadcast(channels[0]);
    await world.run(120_000);
    return { requests: world.requests - requests };
  }

  for (const isAtOnce of [false, true]) {
    test(`and come ${isAtOnce ? "at once" : "one by one"}: those beyond have a stream of their own, and all is quiet`, async () => {
      const world = new World(1, { maxChannels: 10 });
      const tabs = isAtOnce ? wishes.map(([channels], i) => new Tab(world, `tab ${i}`, channels)) : await opened(world, ...wishes);
      const { requests } = await come(world, tabs);
      assert.equal(requests, 0, "nobody tries again and again");
      assert.deepEqual(states(tabs), tabs.map(() => "connected"));
      assert.equal(world.connections.size, 4, "two share, three do not");
      for (const tab of tabs) assert.deepEqual(tab.heard, due(world, tab));
    });
  }

  test("are sent away at once, however many", async () => {
    const world = new World(1, { maxChannels: 5 });
    const tabs = Array.from({ length: 20 }, (_, number) => new Tab(world, `tab ${number}`, [`a${number}`, `b${number}`]));
    await world.run(5_000);
    assert.deepEqual(states(tabs), tabs.map(() => "connected"));
  });

  test("cost those who share nothing once that is known", async () => {
    const world = new World(1, { maxChannels: 10 });
    const tabs = await opened(world, ...wishes.slice(0, 3));
    const [shared] = world.connections;
    await opened(world, ...wishes.slice(3));
    assert.ok(world.connections.has(shared));
    assert.deepEqual(tabs.slice(0, 2).map(({ told }) => told), [["connected"], ["connected"]]);
  });

  test("alone end, with the reason", async () => {
    const world = new World(1, { maxChannels: 3 });
    const tabs = await opened(world, ...wishes.slice(0, 2));
    assert.deepEqual(tabs.map(({ told }) => told.at(-1)), ["too_many_channels", "too_many_channels"]);
  });

  test("and outlive the one that leads", async () => {
    const world = new World(1, { maxChannels: 10 });
    const tabs = await opened(world, ...wishes);
    lead(world).close();
    const rest = tabs.filter(({ isDead }) => !isDead);
    const { requests } = await come(world, rest);
    assert.equal(requests, 0);
    for (const tab of rest) assert.deepEqual(tab.heard, due(world, tab));
  });
});

describe("a page whose own code throws", () => {
  let reported;
  const onEvent = (data, { type }) => { throw new Error(type); };

  beforeEach(() => {
    reported = [];
    globalThis.reportError = ({ message }) => reported.push(message);
  });
  afterEach(() => { delete globalThis.reportError; });

  test("gets what it missed, whole, and its errors are reported", async () => {
    const world = new World(1);
    const position = world.head;
    const first = await opened(world, [["a"]]);
    for (let number = 0; number < 3; number++) world.broadcast("a");
    await world.run(1_000);
    const [late] = await opened(world, [["a"], { position, from: 0, onEvent }]);
    assert.deepEqual([first[0].heard, late.heard], [[1, 2, 3], [1, 2, 3]]);
    assert.deepEqual(reported.filter((type) => type === "tick").length, 3);
  });

  test("and that leads keeps no other tab from the stream", async () => {
    const world = new World(1);
    const [first, next, other] = await opened(world, [["a"]], [["a"], { onEvent }], [["a"]]);
    first.close();
    await world.run(3_000);
    assert.deepEqual([lead(world), other.live.state], [next, "connected"]);
    world.broadcast("a");
    await world.run(1_000);
    assert.deepEqual(other.heard, [1]);
  });
});

describe("a snapshot, whose frames have no id", () => {
  const SNAPSHOT = { snapshot: ["snap 1", "snap 2"] };
  const snaps = ({ told }) => told.filter((each) => each.startsWith("snap")).length;

  test("is handed on at each connection, whole", async () => {
    const world = new World(1, SNAPSHOT);
    const tabs = await opened(world, [["a"], { position: undefined }]);
    assert.deepEqual(tabs.map(snaps), [2]);
    world.breakAll();
    await world.run(20_000);
    assert.deepEqual(tabs.map(snaps), [4]);
  });

  test("is handed on after a reset, too", async () => {
    const world = new World(1, { ...SNAPSHOT, history: 1 });
    world.broadcast("a");
    const position = world.head;
    for (let number = 0; number < 5; number++) world.broadcast("a");
    const [tab] = await opened(world, [["a"], { position }]);
    assert.deepEqual([tab.heard, snaps(tab)], [["reset"], 2]);
  });

  test("leaves positions where they were", async () => {
    const world = new World(1, SNAPSHOT);
    const tabs = await opened(world, [["a"]], [["a"]]);
    world.broadcast("a");
    world.breakAll();
    await world.run(4_000);
    lead(world).close();
    world.broadcast("a");
    await world.run(20_000);
    world.broadcast("a");
    await world.run(1_000);
    assert.deepEqual(tabs.find(({ isDead }) => !isDead).heard, [1, 2, 3]);
  });
});

test("where locks are refused, each tab has a stream of its own", async () => {
  const world = new World(1);
  world.refusesLocks = true;
  const tabs = await opened(world, [["a"]], [["a"]]);
  world.broadcast("a");
  await world.run(1_000);
  assert.deepEqual([states(tabs), heard(tabs), world.connections.size], [["connected", "connected"], [[1], [1]], 2]);
});

describe("the one stream is opened once for each change of what it is to bring, wherever its members begin", () => {
  const FIRST = "a:0-0";  // before the first event
  const FOREIGN = "z:0-0";
  const OLD = "z:1-0";

  for (const [what, first, late] of [
    ["before the first event, and nowhere", FIRST, undefined],
    ["nowhere, and before the first event", undefined, FIRST],
    ["nowhere", undefined, undefined],
    ["before the first event", FIRST, FIRST],
    ["before the first event of another epoch, and nowhere", FOREIGN, undefined],
    ["before the first event, and that of another epoch", FIRST, FOREIGN],
    ["in another epoch, and nowhere", OLD, undefined],
  ]) {
    for (let seed = 1; seed <= 5; seed++) {
      test(`${what}, seed ${seed}`, async () => {
        const world = new World(seed);
        const [page] = await opened(world, [["a"], { position: first }]);
        world.broadcast("b");  // which the page does not hear of before the next heartbeat
        const [job] = await opened(world, [["b"], { position: late }]);
        assert.equal(world.requests, 2);
        await opened(world, [["b"], { position: undefined }]);
        job.close();
        await world.run(3_000);
        assert.equal(world.requests, 2, "nothing new is to be heard");
        world.broadcast("a");
        await world.run(60_000);
        assert.equal(world.requests, 2);
        assert.deepEqual([page.heard.at(-1), page.live.state, world.connections.size], [2, "connected", 1]);
      });
    }
  }
});

test("however many tabs come one after another with channels of their own, the stream is opened only now and then, for all of them", async () => {
  const world = new World(1);
  const tabs = [];
  for (let number = 0; number < 40; number++) {
    tabs.push(new Tab(world, `tab ${number}`, [`channel ${number}`]));
    await world.run(300);
  }
  assert.ok(world.requests <= 10, `${world.requests} in 12 s`);
  await world.run(10_000);
  for (const { channels } of tabs) world.broadcast(channels[0]);
  await world.run(10_000);
  check(world);
});
