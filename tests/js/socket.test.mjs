// Messages to the server: in order, each once, by either carrier; what waits for the network; and the change of carrier.
import assert from "node:assert/strict";
import { beforeEach, describe, mock, test } from "node:test";

import { FakeEventSource, FakePage, FakeStorage, FakeWebSocket, pass, resetFakes } from "./fakes.mjs";
import { SSELive } from "../../django_sse_live/static/django_sse_live/sse-live.js";
import { SSELiveError } from "../../django_sse_live/static/django_sse_live/sse-live-socket.js";

const URL_ = "http://localhost/events/?channel=comments";
let page;
/** Requests that nobody has answered yet. */
let posts;
let posted;
let heads;

/** Lets what was awaited go on. */
async function settle() {
  for (let turn = 0; turn < 8; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Time passes, and what waits for it goes on. */
async function wait(ms) {
  await settle();
  pass(ms);
  await settle();
}

class Post {
  constructor({ body, headers, credentials, signal }) {
    Object.assign(this, { ...JSON.parse(body), headers, credentials });
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    signal.addEventListener("abort", () => this.#end(this.reject, new DOMException("", "AbortError")));
  }

  #end(how, value) {
    posts = posts.filter((post) => post !== this);
    how(value);
    return settle();
  }

  answer(said = { id: this.id, data: null }, status = 200, headers = {}) {
    return this.#end(this.resolve, new Response(typeof said === "string" ? said : JSON.stringify(said), { status, headers }));
  }

  refuse(error, status, more = {}, headers = {}) { return this.answer({ error, detail: `${error}!`, ...more }, status, headers); }

  lose() { return this.#end(this.reject, new TypeError("network")); }
}

function define(name, value) {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}

async function open(options = {}, frame = {}) {
  const live = new SSELive(URL_, { logger: null, ...options });
  await settle();
  FakeEventSource.last?.connected({ as: "u7", ...frame }, "a:1-0");
  await settle();
  return live;
}

/** What becomes of a message: its data, or its error's name. */
function send(live, type, data, options) {
  const outcome = { type };
  live.send(type, data, options).then((answer) => outcome.data = answer, (error) => Object.assign(outcome, { error }));
  return outcome;
}

/** Answers whatever comes, for as long as something does. */
async function answerAll(posts_ = () => posts) {
  for (await settle(); posts_().length; await settle()) await posts_()[0].answer();
}

beforeEach(() => {
  resetFakes();
  page = new FakePage();
  [posts, posted, heads] = [[], [], []];
  mock.method(globalThis, "fetch", async (url, init) => {
    if (init.method === "HEAD") return heads.push(url) && new Response(null);
    const post = new Post(init);
    post.url = url;
    posts.push(post);
    posted.push(post);
    return post.promise;
  });
  define("EventSource", FakeEventSource);
  define("WebSocket", FakeWebSocket);
  define("sessionStorage", new FakeStorage());
});

describe("a message by POST", () => {
  test("goes to the stream's url, and its promise gives the answer's data", async () => {
    const live = await open({ csrfToken: "t1" });
    const outcome = send(live, "say", { text: "hi" }, { channel: "comments" });
    await settle();
    const [post] = posts;
    assert.deepEqual([post.type, post.channel, post.data, post.as, post.client_id], ["say", "comments", { text: "hi" }, "u7", "c1"]);
    assert.match(post.id, /^[0-9a-f]{32}$/);
    assert.deepEqual([post.headers["X-CSRFToken"], post.headers["Content-Type"], post.credentials, post.url], ["t1", "application/json", "same-origin", URL_]);
    await post.answer({ id: post.id, data: { ok: true } });
    assert.deepEqual(outcome, { type: "say", data: { ok: true } });
  });

  test("is sent as it was when it was given", async () => {
    const live = await open();
    const data = { text: "hi" };
    send(live, "say", data);
    send(live, "say", data);
    data.text = "changed";
    await answerAll();
    assert.deepEqual(posted.map(({ data }) => data.text), ["hi", "changed"].map(() => "hi"));
  });

  test("waits until the one before it is answered", async () => {
    const live = await open();
    for (const type of ["a", "b", "c"]) send(live, type);
    await settle();
    assert.deepEqual(posts.map(({ type }) => type), ["a"]);
    await posts[0].answer();
    assert.deepEqual(posts.map(({ type }) => type), ["b"]);
    await answerAll();
    assert.deepEqual(posted.map(({ type }) => type), ["a", "b", "c"]);
    assert.equal(new Set(posted.map(({ id }) => id)).size, 3);
  });

  test("that is refused says why", async () => {
    const live = await open();
    const outcome = send(live, "say");
    await settle();
    await posts[0].refuse("forbidden", 403);
    assert.ok(outcome.error instanceof SSELiveError);
    const { error, status, isTemporary, message, id } = outcome.error;
    assert.deepEqual([error, status, isTemporary, message, id], ["forbidden", 403, false, "forbidden!", posted[0].id]);
  });

  test("that is one too many is temporary, and so is a worker that shuts down", async () => {
    const live = await open();
    for (const [error, status] of [["too_many_messages", 429], ["shutdown", 503]]) {
      const outcome = send(live, "say");
      await settle();
      await posts[0].refuse(error, status, {}, { "Retry-After": "1" });
      assert.deepEqual([outcome.error.error, outcome.error.isTemporary], [error, true]);
    }
  });

  test("whose answer does not come in time has an unknown outcome, and may be sent again with its id", async () => {
    const live = await open();
    const outcome = send(live, "say", "hi");
    const next = send(live, "next", null, { timeoutMs: 9_000 });
    await wait(10_000);
    assert.deepEqual([outcome.error.error, outcome.error.isTemporary, outcome.error.status], ["outcome_unknown", true, 0]);
    assert.equal(next.error.error, "unreachable");  // it has never been sent
    const again = send(live, "say", "hi", { id: outcome.error.id });
    await settle();
    assert.equal(posts.at(-1).id, posted[0].id);
    await posts.at(-1).answer({ data: 7 });
    assert.equal(again.data, 7);
  });

  test("whose answer is lost is sent again with its id", async () => {
    const live = await open();
    const outcome = send(live, "say");
    await settle();
    await posts[0].lose();
    await wait(1_000);
    await posts[0].answer({ data: 1 });
    assert.equal(outcome.data, 1);
    assert.equal(posted[0].id, posted[1].id);
  });

  test("that is still being handled is asked for again", async () => {
    const live = await open();
    const outcome = send(live, "say");
    await settle();
    await posts[0].refuse("running", 409, {}, { "Retry-After": "1" });
    assert.equal(posts.length, 0);
    await wait(1_250);
    await posts[0].answer({ data: 1 });
    assert.equal(outcome.data, 1);
  });

  test("fails at once without a network", async () => {
    const live = await open();
    page.goOffline();
    const outcome = send(live, "say");
    await settle();
    await posts[0].lose();
    assert.deepEqual([outcome.error.error, outcome.error.isTemporary], ["unreachable", true]);
  });

  test("that is too large is not sent", async () => {
    const live = await open();
    const outcome = send(live, "say", "x".repeat(65_536));
    await settle();
    assert.deepEqual([outcome.error.error, outcome.error.status, posts.length], ["too_large", 413, 0]);
  });

  test("that is no JSON is the caller's mistake", async () => {
    const live = await open();
    const outcome = send(live, "say", 7n);
    await settle();
    assert.ok(outcome.error instanceof TypeError);
  });

  test("goes with a fresh CSRF token where its own is not right, once", async () => {
    const live = await open({ csrfToken: "old" });
    const outcome = send(live, "say");
    await settle();
    await posts[0].refuse("csrf", 403, { csrf_token: "fresh" });
    assert.equal(posts[0].headers["X-CSRFToken"], "fresh");
    await posts[0].refuse("csrf", 403, { csrf_token: "fresher" });
    assert.deepEqual([outcome.error.error, posts.length], ["csrf", 0]);
    send(live, "say");
    await settle();
    assert.equal(posts[0].headers["X-CSRFToken"], "fresh");
  });

  test("to another origin goes with cookies where the stream does", async () => {
    const live = await open({ withCredentials: true });
    send(live, "say");
    await settle();
    assert.equal(posts[0].credentials, "include");
  });

  test("is not sent after the stream was closed; one that is under way still gets its answer", async () => {
    const live = await open();
    const [first, second] = [send(live, "a"), send(live, "b")];
    await settle();
    live.close();
    await settle();
    assert.equal(second.error.error, "closed");
    await posts[0].answer({ data: 1 });
    assert.equal(first.data, 1);
    assert.equal(send(live, "c").error, undefined);
    await settle();
    assert.equal(posted.length, 1);
  });
});

test("a message without a time limit waits for its answer", async () => {
  const live = await open();
  const outcome = send(live, "say", 1, { timeoutMs: Infinity });
  await wait(60_000);
  assert.deepEqual(outcome, { type: "say" });
  await posts[0].answer({ data: 2 });
  assert.equal(outcome.data, 2);
});

describe("a queue", () => {
  test("keeps messages in order until the network is back", async () => {
    const live = await open();
    const outcomes = Array.from({ length: 20 }, (_, n) => send(live, "say", n, { queue: "memory" }));
    await settle();
    for (let attempt = 0; attempt < 5; attempt += 1) {
      await posts[0].lose();
      while (!posts.length) await wait(1_000);
    }
    await answerAll();
    assert.deepEqual(posted.slice(5).map(({ data }) => data), [...Array(20).keys()]);
    assert.ok(outcomes.every((outcome) => "data" in outcome));
  });

  test("goes on at once when the stream is back", async () => {
    const live = await open();
    for (let n = 0; n < 5; n += 1) {
      send(live, "say", n, { queue: "memory" });
      await settle();
      await posts[0]?.lose();
    }
    FakeEventSource.last.break();
    await wait(2_000);
    FakeEventSource.last.connected({ as: "u7" });
    await answerAll();
    assert.deepEqual(posted.filter(({ data }) => data).map(({ data }) => data), [1, 2, 3, 4]);
  });

  for (const [what, answer, told] of [
    ["429", (post) => post.refuse("too_many_messages", 429, {}, { "Retry-After": "5" }), 5_000],
    ["503", (post) => post.refuse("shutdown", 503, {}, { "Retry-After": "1" }), 1_000],
    ["a proxy's 502", (post) => post.answer("<h1>Bad gateway</h1>", 502), 0],
    ["a proxy's 404", (post) => post.answer("<h1>Not found</h1>", 404), 0],
    ["a log-in page", (post) => post.answer("<form>", 200), 0],
    ["a CSRF token that is refused twice", async (post) => {
      await post.refuse("csrf", 403, { csrf_token: "a" });
      await posts[0].refuse("csrf", 403, { csrf_token: "b" });
    }, 0],
  ]) {
    test(`tries again after ${what}, and not before it is told to`, async () => {
      const live = await open();
      const outcome = send(live, "say", 1, { queue: "memory" });
      await settle();
      await answer(posts[0]);
      page.fire("online");
      await settle();
      if (told) {
        assert.equal(posts.length, 0);
        await wait(told * 1.25);
      }
      await posts[0].answer({ data: 1 });
      assert.equal(outcome.data, 1);
      assert.equal(new Set(posted.map(({ id }) => id)).size, 1);
    });
  }

  test("makes no storm when it is told to wait for a month", async () => {
    const live = await open();
    send(live, "say", 1, { queue: "memory" });
    await settle();
    await posts[0].answer("<h1>Banned</h1>", 503, { "Retry-After": String(30 * 24 * 3600) });
    for (let each = 0; each < 60; each += 1) await wait(1_000);
    assert.equal(posted.length, 1);
  });

  test("goes on with the next after a final refusal", async () => {
    const live = await open();
    const outcomes = ["a", "b"].map((type) => send(live, type, null, { queue: "memory" }));
    await settle();
    await posts[0].refuse("invalid", 400);
    await posts[0].answer({ data: 2 });
    assert.deepEqual([outcomes[0].error.error, outcomes[1].data], ["invalid", 2]);
  });

  test("asks a handler that failed three times", async () => {
    const live = await open();
    const outcome = send(live, "say", null, { queue: "memory" });
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await wait(3_000);
      await posts[0].refuse("server_error", 500);
    }
    assert.deepEqual([outcome.error.error, outcome.error.isTemporary, posted.length], ["server_error", false, 3]);
  });

  test("sends again what was not answered in time", async () => {
    const live = await open();
    const outcome = send(live, "say", null, { queue: "memory", timeoutMs: 500 });
    await wait(500);
    assert.equal(posts.length, 0);  // that request is given up, and with it its connection
    await wait(1_000);
    await posts[0].answer({ data: 1 });
    assert.deepEqual([outcome.data, posted[0].id === posted[1].id], [1, true]);
  });

  test("is bounded in messages and bytes", async () => {
    const live = await open();
    const outcomes = Array.from({ length: 101 }, () => send(live, "say", null, { queue: "memory" }));
    await settle();
    assert.deepEqual(outcomes.filter(({ error }) => error).map(({ error }) => [error.error, error.isTemporary]), [["queue_full", true]]);
    const other = await open();
    const large = Array.from({ length: 17 }, () => send(other, "say", "x".repeat(65_000), { queue: "memory" }));
    await settle();
    assert.deepEqual(large.map(({ error }) => error?.error), [...Array(16).fill(undefined), "queue_full"]);
  });

  test("forgets what is a day old", async () => {
    const live = await open();
    const outcome = send(live, "say", null, { queue: "memory" });
    await settle();
    await posts[0].lose();
    for (let hour = 0; hour <= 24; hour += 1) page.sleep(3_600_000);
    await settle();
    for (const post of [...posts]) await post.lose();
    await wait(31_000);
    assert.equal(outcome.error?.error, "expired");
  });

  test("is the element's or the option's, where send() names none", async () => {
    const live = await open({ queue: "storage" });
    send(live, "say");
    await settle();
    assert.equal(sessionStorage.keys().some((key) => key.startsWith("sse-live:queue")), true);
  });

  test("waits until it is known whose it is", async () => {
    const live = new SSELive(URL_, { logger: null });
    send(live, "say", null, { queue: "memory" });
    await settle();
    assert.equal(posts.length, 0);
    FakeEventSource.last.connected({ as: "u7" });
    await settle();
    assert.equal(posts[0].as, "u7");
  });
});

describe("a queue in the storage", () => {
  async function offline(count = 3) {
    const live = await open();
    for (let n = 0; n < count; n += 1) send(live, "say", n, { queue: "storage", channel: "comments" });
    await settle();
    await posts[0].lose();
    page.fire("pagehide");
    live.close();
    posts = posted = [];
    [posts, posted] = [[], []];
  }

  test("survives a reload: each message is sent once, in order, before new ones; and the page hears of it", async () => {
    await offline(20);
    const ids = JSON.parse(sessionStorage.getItem(sessionStorage.keys()[0])).map(({ id }) => id);
    const answers = [];
    const live = new SSELive(URL_, { logger: null });
    live.on("answer", ({ type, to }) => answers.push([type, to]));
    FakeEventSource.last.connected({ as: "u7" });
    send(live, "say", "new");
    await answerAll();
    assert.deepEqual(posted.map(({ data }) => data), [...Array(20).keys(), "new"]);
    assert.deepEqual(posted.slice(0, 20).map(({ id }) => id), ids);
    assert.deepEqual(answers.slice(0, 20), ids.map((id) => ["say", id]));
    assert.deepEqual(sessionStorage.keys(), []);
  });

  test("is deleted when another user is there, or nobody", async () => {
    for (const as of ["u8", "nobody"]) {
      await offline();
      await open({}, { as });
      await answerAll();
      assert.deepEqual([posted.length, sessionStorage.keys()], [0, []]);
    }
  });

  test("is deleted where the server ends the stream: after a logout, say", async () => {
    const live = await open();
    send(live, "say", 1, { queue: "storage" });
    await settle();
    await posts[0].lose();
    FakeEventSource.last.send({ type: "goodbye", reason: "forbidden", reconnect: false });
    await settle();
    assert.deepEqual([live.state, sessionStorage.keys()], ["disconnected", []]);
  });

  test("drops what the server says is another user's", async () => {
    const live = await open();
    const outcome = send(live, "say", 1, { queue: "storage" });
    await settle();
    await posts[0].refuse("other_user", 409);
    assert.deepEqual([outcome.error.error, sessionStorage.keys()], ["other_user", []]);
  });

  test("that cannot be written lives as long as the page", async () => {
    sessionStorage.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
    const live = await open();
    const outcome = send(live, "say", 1, { queue: "storage" });
    await answerAll();
    assert.equal(outcome.data, null);
  });
});

describe("the WebSocket", () => {
  const socket = () => FakeWebSocket.last;
  const events = (live) => {
    const seen = [];
    live.on("tick", (n) => seen.push(n));
    return seen;
  };

  test("takes over at the first message, without an event lost or doubled", async () => {
    const live = await open({ transport: "auto" });
    const seen = events(live);
    const source = FakeEventSource.last;
    source.event("tick", 1, "a:2-0");
    assert.equal(FakeWebSocket.made.length, 0);
    send(live, "a");
    await settle();
    assert.equal(socket().url.split("?")[0], "ws://localhost/events/");
    assert.deepEqual(["last_event_id", "replaces", "format"].map((name) => socket().parameters.get(name)), ["a:2-0", "c1", "envelope"]);
    source.event("tick", 2, "a:3-0");
    socket().connected();
    assert.equal(source.readyState, 2);
    socket().event("tick", 2, "a:3-0");
    socket().say({ type: "tick", channels: [], data: 3, id: "a:4-0" }, { type: "tick", channels: [], data: 4, id: "a:5-0" });
    assert.deepEqual([seen, live.state, live.lastEventId, live.clientId], [[1, 2, 3, 4], "connected", "a:5-0", "w1"]);
  });

  test("brings every frame to a page whose own code throws at one, and reports that", async () => {
    const reported = [];
    define("reportError", ({ message }) => reported.push(message));
    const live = await open({ transport: "websocket", onEvent(data, { type }) { if (data === 1) throw new Error(type); } });
    const seen = events(live);
    socket().connected();
    socket().say(...[1, 2, 3].map((data) => ({ type: "tick", channels: [], data, id: `a:${data + 1}-0` })));
    delete globalThis.reportError;
    assert.deepEqual([seen, reported], [[1, 2, 3], ["tick"]]);
  });

  test("takes a message only when the one by POST is answered, and then as they come", async () => {
    const live = await open({ transport: "auto" });
    send(live, "a");
    await settle();
    socket().connected();
    const outcomes = ["b", "c"].map((type) => send(live, type, 1, { channel: "comments" }));
    await settle();
    assert.equal(socket().sent.length, 0);
    await posts[0].answer();
    assert.deepEqual(socket().sent.map(({ type }) => type), ["b", "c"]);
    const [{ id, ...b }] = socket().sent;
    assert.deepEqual(b, { type: "b", channel: "comments", data: 1, as: "u7", client_id: "w1" });
    socket().answer({ data: 7 });
    socket().answer({ error: "forbidden", detail: "No.", status: 403 });
    await settle();
    assert.deepEqual([outcomes[0].data, outcomes[1].error.error, outcomes[1].error.status], [7, "forbidden", 403]);
    assert.equal(posted.length, 1);
  });

  test("has no more under way than the server lets wait", async () => {
    const live = await open({ transport: "websocket" });
    await settle();
    socket().connected();
    for (let n = 0; n < 50; n += 1) send(live, "typing", n);
    await settle();
    assert.equal(socket().sent.length, 20);
    socket().answer();
    await settle();
    assert.equal(socket().sent.length, 21);
  });

  test("takes those of a queue one at a time, so that none overtakes one that is sent again", async () => {
    const live = await open({ transport: "websocket" });
    socket().connected();
    for (const type of ["a", "b", "c"]) send(live, type, null, { queue: "memory" });
    await settle();
    assert.deepEqual(socket().sent.map(({ type }) => type), ["a"]);
    socket().answer({ error: "too_many_messages", detail: "", status: 429, retry: 1000 });
    await wait(1_250);
    for (let n = 0; n < 3; n += 1) {
      socket().answer();
      await settle();
    }
    assert.deepEqual(socket().sent.map(({ type }) => type), ["a", "a", "b", "c"]);
  });

  test("that breaks: what was unanswered goes first, with its id, by POST", async () => {
    const live = await open({ transport: "websocket" });
    socket().connected();
    const outcomes = ["a", "b"].map((type) => send(live, type));
    await settle();
    socket().break();
    send(live, "c");
    await settle();
    assert.deepEqual(posts.map(({ type, id }) => [type, id]), [["a", socket().sent[0].id]]);
    await answerAll();
    assert.deepEqual(posted.map(({ type }) => type), ["a", "b", "c"]);
    assert.deepEqual(outcomes.map(({ data }) => data), [null, null]);
  });

  test("that is replaced still brings the answers that it owes, and then the next one takes the messages", async () => {
    const live = await open({ transport: "websocket" });
    const first = socket();
    first.connected({ ends: 40 });
    pass(30_000);
    await settle();
    assert.equal(FakeWebSocket.made.length, 2);
    const outcomes = ["a", "b"].map((type) => send(live, type));
    await settle();
    socket().connected();
    assert.equal(first.isClosed, false);
    const last = send(live, "c");
    await settle();
    assert.equal(socket().sent.length, 0);
    first.answer({ data: 1 });
    first.answer({ data: 2 });
    await settle();
    assert.deepEqual(outcomes.map(({ data }) => data), [1, 2]);
    assert.deepEqual([first.isClosed, socket().sent.map(({ type }) => type)], [true, ["c"]]);
    socket().answer();
    await settle();
    assert.equal(last.data, null);
  });

  test("is the first that opens, where the page says so", async () => {
    const live = await open({ transport: "websocket" });
    assert.equal(FakeEventSource.made.length, 0);
    socket().connected();
    assert.equal(live.state, "connected");
  });

  for (const [what, refuse] of [["denied", async () => socket().break()], ["never open", async () => wait(2_500)]]) {
    test(`that is ${what} is given up for SSE and POST; the tab remembers`, async () => {
      const live = await open({ transport: "auto" });
      const source = FakeEventSource.last;
      const outcome = send(live, "a");
      await settle();
      await refuse();
      await answerAll();
      assert.deepEqual([outcome.data, live.state, source.readyState, FakeEventSource.made.length], [null, "connected", 1, 1]);
      send(live, "b");
      source.break();
      await wait(2_000);
      FakeEventSource.last.connected({ as: "u7" });
      await answerAll();
      live.close();
      const next = await open({ transport: "websocket" });
      assert.deepEqual([next.state, FakeWebSocket.made.length, posted.length], ["connected", 1, 2]);
    });
  }

  test("that is the first to be tried, and denied: the page is live without, and tries once more beside that", async () => {
    const live = await open({ transport: "websocket" });
    socket().break();
    await settle();
    FakeEventSource.last.connected({ as: "u7" }, "a:1-0");
    await settle();
    assert.deepEqual([live.state, FakeWebSocket.made.length], ["connected", 2]);
    socket().break();
    await settle();
    assert.deepEqual([live.state, FakeEventSource.made.length], ["connected", 1]);
    FakeEventSource.last.break();
    await wait(2_000);
    FakeEventSource.last.connected();
    assert.equal(FakeWebSocket.made.length, 2);
  });

  test("is not given up for a server that restarts", async () => {
    const live = await open({ transport: "websocket" });
    socket().connected();
    pass(60_000);
    socket().break();
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await wait(30_000);
      if (FakeWebSocket.last.onclose) socket().break();
      await settle();
      if (FakeEventSource.last?.readyState === 0) FakeEventSource.last.break();
    }
    await wait(30_000);
    FakeEventSource.last.connected({ as: "u7" });
    await settle();
    socket().connected();
    assert.equal(live.state, "connected");
    assert.equal(FakeEventSource.last.readyState, 2);
  });

  test("that breaks young twice is given up; one that held is not", async () => {
    const live = await open({ transport: "websocket" });
    for (const heldMs of [6_000, 1_000, 6_000, 1_000, 1_000]) {
      socket().connected();
      pass(heldMs);
      socket().break();
      const made = FakeWebSocket.made.length;
      assert.equal(FakeEventSource.made.length, made === 5 ? 1 : 0);
      while (made < 5 && FakeWebSocket.made.length === made) await wait(100);
    }
    FakeEventSource.last.connected();
    assert.deepEqual([live.state, FakeWebSocket.made.length], ["connected", 5]);
  });

  test("is one, though the page shows itself while the file is loaded", async () => {
    new SSELive(URL_, { logger: null, transport: "websocket" });
    page.fire("pageshow");
    pass(1);
    await settle();
    await wait(1);
    assert.deepEqual([FakeWebSocket.made.length, FakeEventSource.made.length], [1, 0]);
  });

  test("brings no cookies: the client fetches them", async () => {
    await open({ transport: "websocket" });
    socket().connected({ cookies: true });
    await settle();
    assert.deepEqual(heads, [URL_]);
  });

  test("says why the stream is refused", async () => {
    const live = await open({ transport: "websocket" });
    const changes = [];
    live.on("statechange", ({ reason, status }) => changes.push([reason, status]));
    socket().open();
    socket().say({ type: "goodbye", reason: "forbidden", reconnect: false, status: 403 });
    assert.deepEqual([live.state, changes], ["disconnected", [["forbidden", 403]]]);
  });

  test("is as safe as the stream: wss beside https", async () => {
    new SSELive("https://localhost/events/", { logger: null, transport: "websocket" });
    await settle();
    assert.equal(socket().url.split("?")[0], "wss://localhost/events/");
  });

  test("is not opened where the browser does not let it", async () => {
    define("WebSocket", class { constructor() { throw new DOMException("", "SecurityError"); } });
    const live = await open({ transport: "auto" });
    send(live, "a");
    await wait(1);
    await answerAll();
    assert.equal(live.state, "connected");
  });

  test("is not opened by a stream that tabs share", async () => {
    class Shared extends FakeEventSource { static reconnects = true; }
    const live = await open({ transport: "websocket", EventSource: Shared });
    const outcome = send(live, "a");
    await answerAll();
    assert.deepEqual([live.state, outcome.data, FakeWebSocket.made.length], ["connected", null, 0]);
  });
});
