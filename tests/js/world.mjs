// A small world: tabs with their own clocks that can stop, a browser's locks and broadcast channels, a server with a log.
// Everything that happens takes a random while, and is the same again for the same seed.
import { readFileSync } from "node:fs";
import { join } from "node:path";

const STATIC = join(import.meta.dirname, "../../django_sse_live/static/django_sse_live");
const source = (file) => readFileSync(join(STATIC, file), "utf8").replace(/^export /gm, "").replaceAll("import.meta.url", '"file:///"')
  .replace(/await import\(.*?\)/, "{ refusal, hint, Path }");
const GLOBALS = ["globalThis", "navigator", "BroadcastChannel", "document", "setTimeout", "clearTimeout", "Date",
  "EventSource", "fetch", "crypto", "URL", "Math", "performance"];
const makeTab = new Function(...GLOBALS, `${["sse-live-loss.js", "sse-live.js", "sse-live-share.js"].map(source).join("\n")}\nreturn { SSELive, shared }`);

export function randomFrom(seed) {
  // mulberry32
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class World {
  now = 1_764_150_000_000;
  tabs = [];
  channels = new Set();
  log = [];
  connections = new Set();
  /** How many streams were asked for. */
  requests = 0;
  /** As in a sandboxed frame. */
  refusesLocks = false;
  /** name → the lock's holder and those who wait for it */
  locks = new Map();
  #queue = [];
  #sequence = 0;
  /** From one to the other, nothing overtakes. */
  #lastArrival = new Map();

  /**
   * @param {number} seed
   * @param {object} [server]
   * @param {number} [server.history] how many events it keeps for those who come back
   * @param {number} [server.maxChannels] what a stream may have
   * @param {number} [server.tokenMs] how long a token lives
   * @param {number} [server.renewMs] how long a stream lives
   * @param {string[]} [server.own] channels that every stream has without naming them
   * @param {boolean} [server.namesOwn] whether `connected` says which those are
   * @param {string[]} [server.snapshot] types of the frames without an id that follow `connected`
   */
  constructor(seed, { history = Infinity, maxChannels = 50, tokenMs = Infinity, renewMs = Infinity, own = [], namesOwn = true, snapshot = [] } = {}) {
    Object.assign(this, { history, maxChannels, tokenMs, renewMs, own, namesOwn, snapshot });
    this.random = randomFrom(seed);
  }

  between(low, high) { return low + Math.floor(this.random() * (high - low + 1)); }
  pick(list) { return list[this.between(0, list.length - 1)]; }

  at(ms, run) {
    const item = { time: this.now + ms, sequence: this.#sequence++, run };
    this.#queue.push(item);
    return item;
  }

  /** After a while, but not before what went the same way earlier. */
  send(from, to, run, most = 5) {
    const way = `${from}>${to}`;
    const time = Math.max(this.now + this.between(0, most), this.#lastArrival.get(way) ?? 0);
    this.#lastArrival.set(way, time);
    this.at(time - this.now, run);
  }

  async run(ms) {
    for (const end = this.now + ms; ;) {
      let next = null;
      for (const item of this.#queue) {
        if (!next || item.time < next.time || (item.time === next.time && item.sequence < next.sequence)) next = item;
      }
      if (!next || next.time > end) {
        this.now = end;
        return;
      }
      this.#queue.splice(this.#queue.indexOf(next), 1);
      this.now = Math.max(this.now, next.time);
      next.run?.();
      await new Promise(setImmediate);  // whatever was awaited goes on
    }
  }

  // ---- the server

  get head() { return this.log.at(-1)?.id ?? "a:0-0"; }

  broadcast(channel) {
    const event = { id: `a:${this.log.length + 1}-0`, channel, number: this.log.length + 1 };
    this.log.push(event);
    for (const connection of this.connections) connection.offer(event);
  }

  sign(channels) { return `${channels}~${this.now + this.tokenMs}`; }

  /** What a url asks for, and why it is refused, if it is. */
  subscription(url) {
    const parameters = new URL(url).searchParams;
    const tokens = parameters.getAll("token").map((token) => token.split("~"));
    const named = [...parameters.getAll("channel"), ...tokens.flatMap(([channels]) => channels.split(","))];
    const channels = [...new Set([...this.own, ...named])];
    let refused = null;
    if (tokens.some(([, expiry]) => Number(expiry) <= this.now)) refused = [403, "token_expired"];
    else if (channels.length > this.maxChannels) refused = [400, "too_many_channels"];
    const fresh = tokens.map(([channels]) => this.sign(channels));
    const all = tokens.length ? this.sign([...new Set(tokens.flatMap(([channels]) => channels.split(",")))]) : null;
    return { channels, refused, position: parameters.get("last_event_id"), token: all, ...fresh.length > 1 && { tokens: fresh } };
  }

  /** The path forgets every connection: nothing breaks, and nothing comes any more. */
  muteAll() { for (const connection of this.connections) connection.isMute = true; }

  breakAll() { for (const connection of [...this.connections]) connection.break(); }
}

class Connection {
  #cursor;
  isMute = false;
  readyState = 0;

  constructor(world, tab, url) {
    Object.assign(this, { world, tab, url });
    world.requests += 1;
    world.at(world.between(5, 60), () => this.#open());
  }

  #open() {
    if (this.readyState === 2 || this.tab.isDead) return;
    const { world } = this;
    const { refused, channels, position, token, tokens } = world.subscription(this.url);
    if (refused) {
      world.send("server", this, () => this.tab.does(() => {
        if (this.readyState === 2) return;
        this.readyState = 2;
        this.onerror?.({});
      }));
      return;
    }
    this.channels = channels;
    world.connections.add(this);
    const isForeign = position && !position.startsWith("a:");  // of another epoch
    this.#cursor = position && !isForeign ? Number(/:(\d+)-/.exec(position)[1]) : world.log.length;
    const missed = world.log.slice(this.#cursor);
    const isGone = isForeign || this.#cursor < world.log.length - world.history && missed.slice(0, -world.history).some((event) => this.hears(event));
    this.#frame({ type: "connected", client_id: "c", channels, heartbeat: 30, resumed: Boolean(position), token, tokens,
      ...world.namesOwn && { own: world.own }, ...world.renewMs < Infinity && { ends: world.renewMs / 1000 } }, position ? "" : world.head);
    if (isGone) this.#frame({ type: "reset", reason: isForeign ? "unknown_id" : "history_expired" }, world.head);
    for (const type of world.snapshot) this.#frame({ type, channels, data: null }, "");
    if (!isGone) for (const event of missed) this.offer(event);
    this.#heartbeat();
    if (world.renewMs < Infinity) world.at(world.renewMs, () => this.#sayGoodbye());
  }

  hears({ channel }) { return this.channels.includes(channel); }

  offer(event) {
    if (this.hears(event)) this.#frame({ type: "tick", channels: [event.channel], data: event.number }, event.id);
  }

  #sayGoodbye() {
    if (!this.world.connections.delete(this)) return;
    this.#frame({ type: "goodbye", reason: "max_age", reconnect: true, retry: 100 }, "");
  }

  #heartbeat() {
    if (!this.world.connections.has(this)) return;
    this.#frame({ type: "heartbeat" }, this.world.head);
    this.world.at(30_000, () => this.#heartbeat());
  }

  #frame(frame, id) {
    if (this.isMute) return;
    this.world.send("server", this, () => this.tab.does(() => {
      if (this.readyState === 2) return;
      if (id) this.lastId = id;
      this.onmessage?.({ data: JSON.stringify(frame), lastEventId: this.lastId ?? "" });
    }), 30);
  }

  break() {
    this.world.connections.delete(this);
    this.world.send("server", this, () => this.tab.does(() => { if (this.readyState !== 2) this.onerror?.({}); }));
  }

  close() {
    this.readyState = 2;
    this.world.connections.delete(this);
  }
}

export class Tab {
  heard = [];
  isDead = false;
  isHung = false;
  #waiting = [];

  /** What else it heard, than ticks. */
  told = [];

  /**
   * @param {World} world
   * @param {string} name
   * @param {string[]} channels
   * @param {object} [page]
   * @param {boolean} [page.isSigned] whether it brings a token, instead of naming its channels
   * @param {string[]} [page.tokens] these, and no names of channels
   * @param {string | undefined} [page.position] where its page begins
   * @param {(data: any, event: any) => void} [page.onEvent] what the page does with every frame
   */
  constructor(world, name, channels, { isSigned = false, tokens = [], ...page } = {}) {
    Object.assign(this, { world, name, channels, position: world.head, from: world.log.length, ...page });
    world.tabs.push(this);
    const tab = this;
    this.document = { hidden: false, baseURI: "http://localhost/", querySelector: () => null };
    class BroadcastChannel {
      constructor(name) {
        this.name = name;
        this.tab = tab;
        world.channels.add(this);
      }

      postMessage(message) {
        const copy = structuredClone(message);
        for (const other of world.channels) {
          if (other !== this && other.name === this.name) {
            world.send(tab.name, other.tab.name, () => other.tab.does(() => world.channels.has(other) && other.onmessage?.({ data: copy })));
          }
        }
      }

      close() { world.channels.delete(this); }
    }
    const navigator = { locks: locksOf(world, tab) };
    const EventSource = class extends Connection {
      static CLOSED = 2;
      constructor(url) { super(world, tab, url); }
    };
    const globals = { navigator, BroadcastChannel, document: this.document, EventSource, AbortController };
    const { SSELive, shared } = makeTab(
      globals, navigator, BroadcastChannel, this.document,
      (run, ms) => this.#setTimeout(run, ms), (timer) => { if (timer) timer.run = null; },
      { now: () => world.now }, EventSource, (url) => this.#ask(url), crypto, URL,
      Object.assign(Object.create(Math), { random: world.random, min: Math.min, max: Math.max, floor: Math.floor, abs: Math.abs }),
      { now: () => world.now },
    );
    const url = new URL("http://localhost/events/");
    if (isSigned) tokens = [world.sign(channels)];
    for (const token of tokens) url.searchParams.append("token", token);
    if (!tokens.length) for (const channel of channels) url.searchParams.append("channel", channel);
    this.live = new SSELive(url.href, {
      lastEventId: this.position, logger: null, onEvent: this.onEvent,
      EventSource: shared(SSELive, { group: "g", channels: isSigned ? channels : [] }),
    });
    this.live.on("tick", (number) => this.heard.push(number)).on("reset", () => this.heard.push("reset"));
    for (const type of world.snapshot) this.live.on(type, () => this.told.push(type));
    this.live.on("statechange", ({ state, reason }) => this.told.push(state === "connected" ? state : reason));
  }

  /** HEAD. */
  #ask(url) {
    return new Promise((resolve) => this.world.at(this.world.between(5, 60), () => this.does(() => {
      const [status, error] = this.world.subscription(url).refused ?? [200];
      resolve({ status, headers: new Headers(error && { "SSE-Live-Error": error }) });
    })));
  }

  /** What comes to a tab that hangs waits, and nothing overtakes it; what comes to one that is gone is gone. */
  does(run) {
    if (this.isDead) return;
    if (this.isHung || this.#waiting.length) this.#waiting.push(run);
    else run();
  }

  #catchUp() {
    if (this.isHung || this.isDead || !this.#waiting.length) return;
    this.#waiting.shift()();
    this.world.at(0, () => this.#catchUp());
  }

  #setTimeout(run, ms) {
    const timer = this.world.at(ms, () => this.does(() => { if (timer.run) run(); }));
    return timer;
  }

  close() {
    this.live.close();
    this.vanish();
  }

  crash() { this.vanish(); }

  vanish() {
    this.isDead = true;
    this.world.tabs.splice(this.world.tabs.indexOf(this), 1);
    for (const channel of this.world.channels) if (channel.tab === this) this.world.channels.delete(channel);
    for (const connection of this.world.connections) if (connection.tab === this) this.world.connections.delete(connection);
    for (const lock of this.world.locks.values()) {
      lock.waiting = lock.waiting.filter(({ tab }) => tab !== this);
      if (lock.holder?.tab === this) {
        lock.holder = null;
        lock.next();
      }
    }
  }

  hang() { this.isHung = true; }

  recover() {
    this.isHung = false;
    this.world.at(0, () => this.#catchUp());
  }
}

/** Web Locks, as far as the client uses them: https://w3c.github.io/web-locks/ */
function locksOf(world, tab) {
  const lockNamed = (name) => {
    if (!world.locks.has(name)) {
      const lock = {
        name, holder: null, waiting: [],
        next() {
          if (lock.holder || !lock.waiting.length) return;
          const request = lock.holder = lock.waiting.shift();
          world.send("locks", request.tab.name, () => request.tab.does(() => { if (lock.holder === request) request.grant(); }));
        },
      };
      world.locks.set(name, lock);
    }
    return world.locks.get(name);
  };
  return {
    request(name, { signal, steal = false }, callback) {
      const lock = lockNamed(name);
      return new Promise((resolve, reject) => {
        const aborted = () => Object.assign(new Error("aborted"), { name: "AbortError" });
        if (world.refusesLocks) return reject(Object.assign(new Error("an opaque origin"), { name: "SecurityError" }));
        if (signal?.aborted) return reject(aborted());
        const request = {
          tab,
          async grant() {
            const result = await callback();
            if (lock.holder === request) {
              lock.holder = null;
              lock.next();
            }
            resolve(result);
          },
          lose: () => tab.does(() => reject(aborted())),
        };
        signal?.addEventListener("abort", () => {
          if (!lock.waiting.includes(request)) return;
          lock.waiting.splice(lock.waiting.indexOf(request), 1);
          reject(aborted());
        });
        if (steal) {
          const old = lock.holder;
          lock.holder = null;
          lock.waiting.unshift(request);
          if (old) world.send("locks", old.tab.name, old.lose);
        } else {
          lock.waiting.push(request);
        }
        lock.next();
      });
    },

    query() {
      return new Promise((resolve) => {
        world.send("locks", tab.name, () => tab.does(() => resolve({
          held: [...world.locks.values()].filter(({ holder }) => holder).map(({ name }) => ({ name })),
        })));
      });
    },
  };
}
