// Tabs that share one stream, in a world where tabs open, close, crash and hang, and connections break, at random. The real
// client runs in each; whatever happens, every tab hears every event of its channels once, in order.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Tab, World } from "./world.mjs";

const SEEDS = Number(process.env.SEEDS ?? 40);
const ONLY = process.env.SEED;
const CHANNELS = ["a", "b", "c"];

/** What a tab must have heard: everything on its channels since its page was made. */
const due = (world, tab) => world.log.slice(tab.from).filter(({ channel }) => tab.channels.includes(channel)).map(({ number }) => number);

async function live(seed, fates) {
  const world = new World(seed);
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
