// One suite for every browser: it runs in the page, and reports to the site that the page came from.
// An iframe stands for a tab: it has a page, locks and a bus of its own, and is gone when it is removed.
import { SSELive } from "/static/django_sse_live/sse-live.js";
import { shared } from "/static/django_sse_live/sse-live-share.js";

const TIMEOUT_MS = 30_000;
/** Whether this site ends its streams every two seconds; those tests run alone. */
const isRenewing = new URLSearchParams(location.search).has("renewing");

const tests = [];
const test = (name, run) => tests.push({ name, run });

// ---- what the tests stand on

function equal(actual, expected, what = "value") {
  const [a, e] = [actual, expected].map((value) => JSON.stringify(value));
  if (a !== e) throw new Error(`${what}: ${a}, expected ${e}`);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition, what) {
  for (const start = performance.now(); ;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() - start > TIMEOUT_MS - 5_000) throw new Error(`in vain: ${what ?? condition}`);
    await sleep(20);
  }
}

const post = (path, body) => fetch(path, { method: "POST", body: JSON.stringify(body) });
const broadcast = (channel, type, data) => post("/broadcast/", { channel, type, data });
const ticks = (channel, count, interval) => post("/ticks/", { channel, count, interval });
const openClients = async () => (await (await fetch("/clients/")).json()).clients;

let names = 0;
/** A name that no test had before, in this browser or another. */
const unique = (word) => `${word}-${Date.now()}-${++names}`;

/** What must go when the test is over. */
let leftovers = [];

/** A server that does as it is told: `frames` and then `seconds` of silence, or a `status`. */
async function script(...steps) {
  const name = unique("script");
  await post(`/script/${name}/plan/`, steps);
  return {
    url: `/script/${name}/`,
    requests: async () => (await (await fetch(`/script/${name}/plan/`)).json()).requests,
  };
}

const connected = (more = {}) => ({ type: "connected", client_id: "c", channels: ["c"], heartbeat: 30, resumed: false, token: null, ...more });
const event = (id, type, data) => ({ id, type, channels: ["c"], data });

function open(url, options = {}) {
  const live = new SSELive(url, { logger: null, retryMs: 100, maxRetryMs: 400, ...options });
  leftovers.push(() => live.close());
  live.heard = [];
  const onEvent = (data, { type }) => { if (!["connected", "heartbeat"].includes(type)) live.heard.push(type === "tick" ? data : type); };
  for (const type of ["tick", "reset", "note", "goodbye"]) live.on(type, onEvent);
  live.changes = [];
  live.on("statechange", (change) => live.changes.push(change));
  return live;
}

const live = (stream) => until(() => stream.state === "connected", "connected");

function element(attributes) {
  const element = document.createElement("sse-live");
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  document.body.append(element);
  leftovers.push(() => element.remove());
  return element;
}

async function tab(parameters) {
  const frame = document.createElement("iframe");
  frame.src = `/tab/?${new URLSearchParams(parameters)}`;
  const loaded = new Promise((resolve) => { frame.onload = resolve; });
  document.body.append(frame);
  leftovers.push(() => frame.remove());
  await loaded;
  return frame;
}

const stateOf = (frame) => frame.contentDocument.querySelector("sse-live")?.getAttribute("state");
const isLive = (frame) => until(() => stateOf(frame) === "connected", "a tab that is connected");

/** The tab among these that holds the stream. */
async function leaderAmong(frames) {
  return until(async () => {
    const { held } = await navigator.locks.query();
    const leaders = held.filter(({ name }) => name.startsWith("sse-live:") && name.endsWith("]")).map((lock) => lock.clientId);
    for (const frame of frames) if (leaders.includes(await frame.contentWindow.lockClient)) return frame;
  }, "a leader");
}

const range = (count) => [...Array(count).keys()];

// ---- one stream

test("an event arrives, with its data and id", async () => {
  const channel = unique("c");
  const stream = open(`/events/?channel=${channel}`);
  await live(stream);
  const got = new Promise((resolve) => stream.on("note", (data, { lastEventId }) => resolve([data, lastEventId])));
  await broadcast(channel, "note", { text: "ünïcode \u2028 🎈" });
  const [data, id] = await got;
  equal(data, { text: "ünïcode \u2028 🎈" });
  equal(id, stream.lastEventId);
});

test("events between the page's position and its first connection arrive", async () => {
  const channel = unique("c");
  const first = open(`/events/?channel=${channel}`);
  await live(first);
  const { lastEventId } = first;
  first.close();
  await broadcast(channel, "tick", 1);
  const stream = open(`/events/?channel=${channel}`, { lastEventId });
  await until(() => stream.heard.length);
  equal(stream.heard, [1]);
});

test("a stream that ends is opened anew, from the last position", async () => {
  const server = await script(
    { frames: [connected({ token: "fresh" }), event("e:1-0", "tick", 1)] },
    { frames: [connected(), event("e:1-0", "tick", 1), event("e:2-0", "tick", 2)], seconds: 20 },
  );
  const stream = open(server.url, { token: "first" });
  await until(() => stream.heard.length === 2);
  equal(stream.heard, [1, 2]);
  const [first, second] = await server.requests();
  equal([first.token, first.last_event_id], ["first", undefined]);
  equal([second.token, second.last_event_id], ["fresh", "e:1-0"]);
});

test("a stream that falls silent is noticed", async () => {
  const server = await script(
    { frames: [connected({ heartbeat: 0.3 })], seconds: 20 }, { frames: [connected()], seconds: 20 });
  const stream = open(server.url);
  await until(() => stream.stats.connects === 2);
  equal(stream.changes.map(({ state }) => state), ["connected", "reconnecting", "connected"]);
  equal(stream.stats.reconnects, { silent: 1 });
});

test("a real server's heartbeats keep a stream alive and move its position", async () => {
  const stream = open(`/events/?channel=${unique("c")}`);
  await live(stream);
  const before = stream.lastEventId;
  await broadcast(unique("other"), "note", 1);
  await until(() => stream.lastEventId !== before);
  equal(stream.state, "connected");
});

test("a reset is handed to the page", async () => {
  let resets = 0;
  const stream = open(`/events/?channel=${unique("c")}`, { lastEventId: "0old:5-0", onReset: () => { resets += 1; } });
  await until(() => resets);
  equal(stream.heard, ["reset"]);
  await broadcast("x", "note", 1);
});

for (const [status, reason] of [[403, "forbidden"], [401, "token_expired"], [204, "closed"]]) {
  test(`our server's answer of ${status} is final`, async () => {
    const server = await script({ status, headers: status === 204 ? {} : { "SSE-Live-Error": reason } });
    const stream = open(server.url);
    await until(() => stream.state === "disconnected");
    equal([stream.changes.at(-1).reason, stream.changes.at(-1).status], [reason, status]);
    await sleep(1000);
    equal((await server.requests()).length, 1, "attempts");
  });
}

for (const status of [404, 403]) {
  test(`an answer of ${status} by something in between is red, and tried again`, async () => {
    const server = await script({ status }, { frames: [connected()], seconds: 20 });
    const stream = open(server.url);
    await live(stream);
    equal(stream.changes.map(({ state, reason }) => [state, reason]), [["disconnected", "refused"], ["connected", "connected"]]);
  });
}

for (const status of [500, 503, 429]) {
  test(`an answer of ${status} is temporary`, async () => {
    const server = await script({ status }, { frames: [connected()], seconds: 20 });
    const stream = open(server.url);
    await live(stream);
    equal(stream.changes.map(({ state }) => state), ["reconnecting", "connected"]);
  });
}

test("Retry-After is waited for", async () => {
  const server = await script({ status: 503, headers: { "Retry-After": "2" } }, { frames: [connected()], seconds: 20 });
  const start = performance.now();
  await live(open(server.url));
  const waited = performance.now() - start;
  if (waited < 1990 || waited > 5000) throw new Error(`waited ${waited} ms`);
});

test("a final goodbye is final", async () => {
  const server = await script({ frames: [connected(), event("e:1-0", "tick", 1), { id: "e:1-0/end", type: "goodbye", reason: "disconnected", reconnect: false }] });
  const stream = open(server.url);
  await until(() => stream.state === "disconnected");
  equal(stream.lastEventId, "e:1-0");
  await sleep(600);
  equal((await server.requests()).length, 1, "attempts");
});

test("a named stream is read by plain EventSource", async () => {
  const channel = unique("c");
  const source = new EventSource(`/events/?channel=${channel}`);
  leftovers.push(() => source.close());
  await new Promise((resolve) => source.addEventListener("connected", resolve, { once: true }));
  const got = new Promise((resolve) => source.addEventListener("note", resolve, { once: true }));
  await broadcast(channel, "note", [1, 2]);
  equal(JSON.parse((await got).data), [1, 2]);
});

test("the position outlives the page, if asked", async () => {
  const channel = unique("c");
  leftovers.push(() => localStorage.clear());
  const one = open(`/events/?channel=${channel}`, { persist: localStorage });
  await live(one);
  one.close();
  await broadcast(channel, "tick", 7);
  const other = open(`/events/?channel=${channel}`, { persist: localStorage });
  await until(() => other.heard.length);
  equal(other.heard, [7]);
});

// ---- renewal: the server ends each stream after eight seconds, and the next one is opened two before that

/** Hears `count` ticks, ten a second, while streams are renewed; and says what was heard, and how the streams fared. */
async function throughRenewals(channel, streams, count) {
  await Promise.all(streams.map(live));
  await ticks(channel, count, 0.1);
  await until(() => streams.every(({ heard }) => heard.at(-1) === count - 1), "the last tick");
  for (const { heard, changes, stats } of streams) {
    equal(heard, range(count), "heard");
    equal(changes.map(({ state, reason }) => [state, reason]), [["connected", "connected"]], "states");
    equal(stats.reconnects, {}, "reconnects");
    if (stats.connects < 3) throw new Error(`only ${stats.connects} connections`);
  }
}

if (isRenewing) {
  test("a stream is renewed under events: nothing is lost, doubled, or shown", async () => {
    const channel = unique("c");
    await throughRenewals(channel, [open(`/events/?channel=${channel}`)], 150);
  });

  test("a stream that tabs share is renewed under events: nothing is lost, doubled, or shown", async () => {
    const channel = unique("c");
    const EventSource = shared(SSELive, { group: unique("g"), channels: [channel] });
    const options = { EventSource };
    await throughRenewals(channel, range(4).map(() => open(`/events/?channel=${channel}`, options)), 150);
    await until(async () => await streamsOf(channel) === 1, "one stream");
  });

  test("the element stays green while its stream is renewed, and reads nothing out", async () => {
    const it = element({ src: `/events/?channel=${unique("c")}` });
    await until(() => it.getAttribute("state") === "connected");
    const states = new Set();
    const watch = new MutationObserver(() => states.add(it.getAttribute("state")));
    watch.observe(it, { attributeFilter: ["state"] });
    await until(() => it.live.stats.connects > 2);
    equal([...states], []);
  });
}

// ---- the element

test("the element says how the stream fares, in light and in words", async () => {
  const server = await script({ frames: [connected()], seconds: 0.5 }, { status: 403 });
  let it = element({ src: (await script({ frames: [], seconds: 5 })).url });
  const words = () => it.shadowRoot.querySelector("[part=text]").textContent;
  const colour = () => getComputedStyle(it.shadowRoot.querySelector("[part=light]")).borderTopColor;
  await until(() => it.shadowRoot, "the light");
  equal([it.getAttribute("state"), words(), colour()], ["connecting", "Connecting…", "rgb(191, 135, 0)"]);
  it = element({ src: server.url, "text-connected": "Verbunden" });
  await until(() => it.shadowRoot && it.getAttribute("state") === "connected");
  equal([words(), colour()], ["Verbunden", "rgb(45, 164, 78)"]);
  await until(() => it.getAttribute("state") === "reconnecting");
  equal([words(), colour()], ["Reconnecting…", "rgb(191, 135, 0)"]);
  await until(() => it.getAttribute("state") === "disconnected");
  equal([words(), colour()], ["Disconnected", "rgb(229, 83, 75)"]);
  const status = it.shadowRoot.querySelector("[role=status]");
  equal(status.getAttribute("aria-live"), "polite");
});

test("the element hands every event to the page, whatever its type", async () => {
  const channel = unique("c");
  const heard = [];
  const hear = ({ target, detail }) => heard.push([target.localName, detail.type, detail.data, Boolean(detail.id)]);
  document.addEventListener("sse:anything at all", hear);
  leftovers.push(() => document.removeEventListener("sse:anything at all", hear));
  const it = element({ src: `/events/?channel=${channel}` });
  await until(() => it.getAttribute("state") === "connected");
  await broadcast(channel, "anything at all", { a: 1 });
  await until(() => heard.length);
  equal(heard, [["sse-live", "anything at all", { a: 1 }, true]]);
});

test("the element connects while it is in the page, and goes on when put back", async () => {
  const channel = unique("c");
  const count = async () => (await openClients()).filter((channels) => channels.includes(channel)).length;
  const it = element({ src: `/events/?channel=${channel}` });
  await until(() => it.getAttribute("state") === "connected");
  const { clientId } = it.live;
  document.body.prepend(it);
  await sleep(300);
  equal(it.live.clientId, clientId, "moved within the page, the client");
  it.remove();
  await until(async () => await count() === 0);
  await broadcast(channel, "tick", 5);
  const heard = [];
  it.addEventListener("sse:tick", ({ detail }) => heard.push(detail.data));
  document.body.append(it);
  await until(() => heard.length);
  equal(heard, [5]);
});

test("elements of one page share one connection, and the document hears each event once", async () => {
  const [a, b] = [unique("c"), unique("c")];
  const heard = [];
  const hear = ({ detail }) => heard.push(detail.data);
  document.addEventListener("sse:tick", hear);
  leftovers.push(() => document.removeEventListener("sse:tick", hear));
  const first = element({ src: `/events/?channel=${a}` });
  await until(() => first.getAttribute("state") === "connected");
  const second = element({ src: `/events/?channel=${a}&channel=${b}` });
  await until(() => second.getAttribute("state") === "connected");
  await until(async () => await streamsOf(a, b) === 1, "one stream");
  for (const [number, channel] of [a, b, a].entries()) await broadcast(channel, "tick", number);
  await until(() => heard.includes(2));
  equal(heard, [0, 1, 2]);
  first.remove();
  await broadcast(a, "tick", 3);
  await until(() => heard.includes(3));
  equal(heard, [0, 1, 2, 3]);
});

test("a navigation that does not leave the page leaves no stream deaf", async () => {
  const channel = unique("c");
  const stream = open(`/events/?channel=${channel}`);
  await live(stream);
  const link = document.createElement("a");
  link.href = "/answer/204/";
  document.body.append(link);
  leftovers.push(() => link.remove());
  link.click();
  await sleep(3000);
  await broadcast(channel, "tick", 1);
  await until(() => stream.heard.length, "the event");
  equal([stream.heard, stream.state], [[1], "connected"]);
});

test("a position that a later page has kept is not taken for that of an older one", async () => {
  const server = await script({ frames: [connected()], seconds: 5 });
  leftovers.push(() => localStorage.clear());
  for (const [kept, drawn, begins] of [["e:2000-0", "e:1000-0", "e:1000-0"], ["e:1000-0", "e:2000-0", "e:1000-0"], ["old:1000-0", "e:2000-0", "old:1000-0"]]) {
    localStorage.setItem(`sse-live:${server.url}?`, kept);
    const before = (await server.requests()).length;
    const it = element({ src: server.url, persist: "local", "last-event-id": drawn });
    await until(async () => (await server.requests()).length > before);
    equal((await server.requests()).at(-1).last_event_id, begins);
    it.remove();
  }
});

test("a copy of the page begins where the page is, and one that Turbo shows meanwhile opens nothing", async () => {
  const server = await script({ frames: [connected(), event("e:7-0", "tick", 1)], seconds: 5 });
  const it = element({ src: server.url, "last-event-id": "e:1-0" });
  await until(() => it.getAttribute("last-event-id") === "e:7-0");
  const copy = it.cloneNode(true);
  it.remove();
  const preview = document.createElement("div");
  preview.dataset.turboPreview = "";
  preview.append(copy);
  document.body.append(preview);
  leftovers.push(() => preview.remove());
  await sleep(300);
  equal((await server.requests()).length, 1);
  delete preview.dataset.turboPreview;
  preview.append(copy);
  await until(async () => (await server.requests()).length === 2);
  equal((await server.requests())[1].last_event_id, "e:7-0");
});

test("an element that comes while an image still loads connects at once", async () => {
  const slow = await script({ frames: [], seconds: 20 });
  const server = await script({ frames: [connected()], seconds: 5 });
  const frame = document.createElement("iframe");
  const src = new URL("/static/django_sse_live/sse-live.js", location).href;
  frame.srcdoc = `<!doctype html><base href="${location.origin}"><img src="${slow.url}"><script type="module" src="${src}"></script>`;
  document.body.append(frame);
  leftovers.push(() => frame.remove());
  const page = () => frame.contentDocument;
  const entry = () => frame.contentWindow.performance.getEntriesByType("navigation")[0];
  await until(() => page().querySelector("img") && page().readyState === "interactive");
  if (!entry()) return;  // WebKit has none of such a frame: the element waits for it to load
  await until(() => entry().domContentLoadedEventEnd);
  const it = page().createElement("sse-live");
  it.setAttribute("src", server.url);
  page().body.append(it);
  await until(() => it.getAttribute("state") === "connected");
  equal(page().readyState, "interactive");
});

for (const transport of ["sse", "websocket", "auto"]) {
  test(`messages are answered in their order, whatever carries them: ${transport}`, async () => {
    const channel = unique("c");
    const stream = open(`/events/?channel=${channel}`, { transport });
    await live(stream);
    const send = (n) => stream.send("note", n, { channel });
    equal((await Promise.all(range(5).map(send))).map(({ count }) => count), [1, 2, 3, 4, 5]);
    if (transport === "auto") await until(() => stream.stats.connects === 2, "the WebSocket");
    equal(await send(5), { count: 6, client: stream.clientId });
    const refused = await stream.send("note", "refused", { channel }).catch(({ error, status }) => [error, status]);
    equal(refused, ["invalid", 400]);
    await until(() => stream.heard.length === 6, "what was said");
  });
}

test("the element's looks are the page's to change", async () => {
  const it = element({ src: (await script({ frames: [connected()], seconds: 5 })).url });
  await until(() => it.shadowRoot && it.getAttribute("state") === "connected");
  it.style.setProperty("--sse-live-connected", "rgb(1, 2, 3)");
  equal(getComputedStyle(it.shadowRoot.querySelector("[part=light]")).backgroundColor, "rgb(1, 2, 3)");
});

test("what the tag draws works under a strict policy", async () => {
  const violations = [];
  const channel = unique("c");
  const frame = await tab({ channel });
  frame.contentDocument.addEventListener("securitypolicyviolation", (violation) => violations.push(violation.violatedDirective));
  await isLive(frame);
  await broadcast(channel, "tick", 1);
  await until(() => frame.contentWindow.heard.length);
  const light = await until(() => frame.contentDocument.querySelector("sse-live").shadowRoot?.querySelector("[part=light]"));
  equal(violations, []);
  equal(frame.contentWindow.getComputedStyle(light).borderTopColor, "rgb(45, 164, 78)");
});

// ---- tabs

const streamsOf = async (...channels) => (await openClients()).filter((have) => channels.some((channel) => have.includes(channel))).length;

test("tabs that share have one stream between them", async () => {
  const channel = unique("c");
  const frames = await Promise.all(range(8).map(() => tab({ channel, share: "1" })));
  await Promise.all(frames.map(isLive));
  await broadcast(channel, "tick", 1);
  for (const frame of frames) await until(() => frame.contentWindow.heard.length);
  equal(frames.map((frame) => frame.contentWindow.heard), frames.map(() => [1]));
  equal(await streamsOf(channel), 1, "streams");
});

test("tabs of different users never share", async () => {
  const channel = unique("c");
  const frames = await Promise.all(["ada", "bob"].map((user) => tab({ channel, user, share: "1" })));
  const groups = frames.map((frame) => frame.contentDocument.querySelector("sse-live").getAttribute("share"));
  if (!groups[0] || groups[0] === groups[1]) throw new Error(`groups ${groups}`);
});

test("tabs with different channels and tokens share, and each hears its own", async () => {
  const [a, b, c] = ["a", "b", "c"].map(unique);
  const frames = [];
  for (const channels of [[a], [b], [b, c]]) {
    frames.push(await tab([["share", "1"], ...channels.map((channel) => ["channel", channel])]));
    await isLive(frames.at(-1));
  }
  for (const [number, channel] of [a, b, c, a].entries()) await broadcast(channel, "tick", number);
  const expected = [[0, 3], [1], [1, 2]];
  await until(() => frames.every((frame, i) => frame.contentWindow.heard.length >= expected[i].length));
  equal(frames.map((frame) => frame.contentWindow.heard), expected);
  await until(async () => await streamsOf(a, b, c) === 1, "one stream");
});

test("a tab that comes late gets what happened since its page was made", async () => {
  const channel = unique("c");
  const first = await tab({ channel, share: "1" });
  await isLive(first);
  const { lastEventId } = first.contentDocument.querySelector("sse-live").live;
  await broadcast(channel, "tick", 1);
  await until(() => first.contentWindow.heard.length);
  const group = first.contentDocument.querySelector("sse-live").getAttribute("share");
  const late = open(first.contentDocument.querySelector("sse-live").live.url,
    { lastEventId, EventSource: shared(SSELive, { group, channels: [channel] }) });
  await until(() => late.heard.length);
  equal(late.heard, [1]);
  equal(await streamsOf(channel), 1, "streams");
});

test("a late tab whose events are gone gets a reset, and the others none", async () => {
  const channel = unique("c");
  const first = await tab({ channel, share: "1" });
  await isLive(first);
  const { live: stream } = first.contentDocument.querySelector("sse-live");
  const group = first.contentDocument.querySelector("sse-live").getAttribute("share");
  const late = open(stream.url, { lastEventId: "0old:1-0", EventSource: shared(SSELive, { group, channels: [channel] }) });
  await until(() => late.heard.length);
  await broadcast(channel, "tick", 1);
  await until(() => late.heard.length === 2 && first.contentWindow.heard.length);
  equal([late.heard, first.contentWindow.heard], [["reset", 1], [1]]);
});

test("when the leader goes, ten times over, nothing is lost and nothing is heard twice", async () => {
  const channel = unique("c");
  const COUNT = 200;
  let frames = await Promise.all(range(12).map(() => tab({ channel, share: "1" })));
  await Promise.all(frames.map(isLive));
  await ticks(channel, COUNT, 0.05);
  for (let gone = 0; gone < 10; gone++) {
    const leader = await leaderAmong(frames);
    leader.remove();
    frames = frames.filter((frame) => frame !== leader);
    await sleep(500);
  }
  await until(() => frames.every((frame) => frame.contentWindow.heard.at(-1) === COUNT - 1), "the last tick");
  for (const frame of frames) equal(frame.contentWindow.heard, range(COUNT), "what a tab heard");
  equal([frames.length, await streamsOf(channel)], [2, 1], "tabs and streams");
});

test("tabs that share come back together after a break", async () => {
  const server = await script(
    { frames: [connected({ channels: ["c"] }), event("e:1-0", "tick", 1)], seconds: 1 },
    { frames: [connected(), event("e:2-0", "tick", 2)], seconds: 20 },
  );
  const EventSource = shared(SSELive, { group: unique("g"), channels: ["c"] });
  const streams = [open(server.url, { EventSource }), open(server.url, { EventSource })];
  await until(() => streams.every((stream) => stream.heard.length === 2), "both events in both");
  equal(streams.map((stream) => stream.heard), [[1, 2], [1, 2]]);
  for (const stream of streams) equal(stream.changes.map(({ state }) => state), ["connected", "reconnecting", "connected"]);
  equal((await server.requests()).length, 2, "connections");
});

test("tabs that share are refused together, each with its reason", async () => {
  const server = await script({ status: 403 });
  const EventSource = shared(SSELive, { group: unique("g"), channels: ["c"] });
  const streams = [open(server.url, { EventSource }), open(server.url, { EventSource })];
  await until(() => streams.every((stream) => stream.state === "disconnected"));
  equal(streams.map((stream) => stream.changes.at(-1).status), [403, 403]);
});

// ---- run and report

async function run({ name, run }) {
  const start = performance.now();
  let error = null;
  try {
    await Promise.race([run(), sleep(TIMEOUT_MS).then(() => { throw new Error("took too long"); })]);
  } catch (problem) {
    error = `${problem.message ?? problem}`;
  }
  for (const clean of leftovers.splice(0)) clean();
  return { name, error, ms: Math.round(performance.now() - start) };
}

const parameters = new URLSearchParams(location.search);
const wanted = parameters.get("only");
const results = [];
for (const each of tests) {
  if (wanted && !each.name.includes(wanted) || isRenewing && !each.name.includes("renew")) continue;
  results.push(await run(each));
  const line = document.createElement("li");
  line.textContent = `${results.at(-1).error ?? "ok"}: ${each.name}`;
  document.querySelector("#results").append(line);
}
await post("/report/", { run: parameters.get("run"), agent: navigator.userAgent, results });
document.title = "done";
