// The admin's "Live connections", as far as it asks the server for something. How it looks is tested in a browser.
import assert from "node:assert/strict";
import { mock, test } from "node:test";

/** An element of which everything may be asked; what it answers is one of the same kind, and is written as nothing. */
const anything = new Proxy(() => {}, {
  get: (_, name) => name === Symbol.iterator ? () => [].values() : name === Symbol.toPrimitive ? () => "" : anything,
  set: () => true,
  apply: () => anything,
});

/** The url of each fetch. */
const asked = [];
const page = new EventTarget();
Object.assign(page, { documentElement: {}, getElementById: () => anything, createElement: () => anything, querySelectorAll: () => [] });
for (const [name, value] of Object.entries({ document: page, matchMedia: () => ({ matches: false }) })) {
  Object.defineProperty(globalThis, name, { value, configurable: true });
}
globalThis.fetch = async (url) => {
  asked.push(url);
  const pks = new URLSearchParams(url.slice(1)).getAll("user");
  return { ok: true, json: async () => Object.fromEntries(pks.map((pk) => [pk, { name: `name of ${pk}`, url: null }])) };
};
mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
await import("../../django_sse_live/static/django_sse_live/admin/connections.js");

const client = (user, number) => ({ id: `c${number}`, user, address: "127.0.0.1", agent: "", channels: [], more_channels: 0, connected_at: number, lag: 0,
  last: null, events: 0, bytes: 0, sending_seconds: 0, carrier: "" });

function report(users) {
  const data = { id: "w1", at: 1_000, started_at: 1, host: "h", pid: 1, state: "ready", streams: 0, lagging: 0, delivered: 0, received: 0, bytes: 0,
    refused: {}, log: { events: 0, bytes: 0 }, bus: { backend: "MemoryBackend", is_available: true, is_shared: true }, jobs: [],
    matches: users.map(client), matching: users.length };
  page.dispatchEvent(Object.assign(new Event("sse:worker"), { detail: { data } }));
  mock.timers.tick(200);
}

test("the names of many users are asked for in urls that every server and proxy takes, until all are known", async () => {
  const users = Array.from({ length: 200 }, (_, number) => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`);
  report([...users, null]);
  const named = () => asked.flatMap((url) => new URLSearchParams(url.slice(1)).getAll("user"));
  for (let turn = 0; turn < 200 && named().length < users.length; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(named().sort(), users);
  assert.ok(Math.max(...asked.map(({ length }) => length)) < 3_000, `${asked.map(({ length }) => length)}`);
});
