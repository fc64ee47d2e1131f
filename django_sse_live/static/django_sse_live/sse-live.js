// One live stream from the server, kept alive: SSELive, and the <sse-live> element that shows how it fares.
// Knows the wire of django-sse-live (its envelope form) and nothing of what the events mean.
/// <reference types="./sse-live-jsx.d.ts" preserve="true" />

/**
 * The waits before a new connection, in ms: the first as it stands, where neither the server nor the page says another; later
 * ones anything up to a limit that grows.
 */
const RETRY_MS = 2_000;
const MAX_RETRY_MS = 30_000;
/** By this factor: slow enough that a crowd is back soon after its server, spread over the while, with no long tail. */
const GROWTH = 1.5;
/** Until the server announces its own interval, in ms; and the stream is looked at no less often than this. */
const HEARTBEAT_MS = 30_000;
/** It is dead after so many intervals without a frame. */
const DEAD = 2;
/** What a frame may be late by before its interval counts as missed. */
const LATE = 1.25;
/** A connection that held this long worked, also if it said nothing; the waits begin anew after it. */
const STEADY_MS = 5_000;
/** Timers that are longer than this fire at once. */
const MAX_MS = 2 ** 31 - 1;
/** A question for a token gets no longer than this, in ms. */
const ASK_MS = 10_000;
/** The longest wait after an answer that is no word of our server, in ms: a proxy during a deploy, say. */
const REFUSED_RETRY_MS = 60_000;
/** A stream is renewed so long before the server will end it, in ms; or a quarter of its life, if that is less. */
const RENEW_MS = 10_000;
/** A page that is still there so long after it was to be left, in ms, was not left. */
const STAYED_MS = 2_000;
/** A connection that has not said its first word after so long, in ms, is worth a word to the developer. */
const BUFFERED_MS = 20_000;
/** So many streams of one browser are, too: with six, HTTP/1.1 has no connection left. */
const MANY = 5;
/** A page that begins to load within this time after it had a reset, in ms, is loaded because of that. */
const RELOAD_MS = 15_000;

/** Frames about the stream itself: their data is the whole frame, an event's is what was broadcast. */
const CONTROL = /^(connected|heartbeat|reset|goodbye|sse\..*)$/;

/**
 * Whether the event id `id` stands at or before `other`. Only ids of one epoch can be compared.
 * @param {string} id
 * @param {string} other
 * @param {boolean} [isAcrossEpochs] by their times alone, which is as much as anyone can tell
 */
export function isAtOrBefore(id, other, isAcrossEpochs = false) {
  const [a, b] = [id, other].map((each) => /^(.+):(\d+)-(\d+)$/.exec(each) ?? [0, NaN, 0, 0]);
  return (isAcrossEpochs || a[1] === b[1]) && (+a[2] - +b[2] || +a[3] - +b[3]) <= 0;
}

/**
 * A position after a frame: it never goes back, but for a reset.
 * @param {string} position
 * @param {{type: string}} frame
 * @param {string} id the frame's; "" for one without
 */
function moved(position, { type }, id) {
  return id && (type === "reset" || !isAtOrBefore(id, position)) ? id : position;
}

/**
 * What the browser may deny, such as a storage: undefined then.
 * @template T
 * @param {() => T} run
 */
function attempt(run) {
  try { return run(); } catch { /* denied, full, or not there: all goes on without it */ }
}

/**
 * What a page loads only if it needs it. The tag names these files, whose names may carry a hash, in `share-src` and so on; those
 * who write the element by hand have them beside this one. Literal, so that a bundler brings them along.
 * @type {Record<string, () => URL>}
 */
const FILES = {
  share: () => new URL("./sse-live-share.js", import.meta.url),
  page: () => new URL("./sse-live-page.js", import.meta.url),
  light: () => new URL("./sse-live-light.js", import.meta.url),
  loss: () => new URL("./sse-live-loss.js", import.meta.url),
  patch: () => new URL("./sse-live-patch.js", import.meta.url),
  refresh: () => new URL("./sse-live-refresh.js", import.meta.url),
  socket: () => new URL("./sse-live-socket.js", import.meta.url),
  job: () => new URL("./sse-live-job.js", import.meta.url),
};
/** Those that are there, by their address. @type {Record<string, any>} */
const loaded = {};

/**
 * @param {string} name in FILES
 * @param {string | null} [source] where it is, if not where an element of the page says, nor beside this one
 * @param {number[]} [waitsMs] before the file is asked for again
 * @param {string} [hash] a file that failed once is failed for good under its name, in some browsers
 * @returns {Promise<any>}
 */
async function load(name, source, [waitMs, ...waitsMs] = [1_000, 5_000, 25_000], hash = "") {
  const { document } = globalThis;
  source ??= document?.querySelector(`sse-live[${name}-src]`)?.getAttribute(`${name}-src`);
  const { href } = source ? new URL(source, document.baseURI) : FILES[name]();
  try {
    return loaded[href] ??= await import(/* webpackIgnore: true */ /* @vite-ignore */ href + hash);
  } catch (error) {
    if (waitMs === undefined) throw error;
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    return load(name, source, waitsMs, `#${performance.now()}`);
  }
}

/**
 * @typedef {"connecting" | "connected" | "reconnecting" | "disconnected"} State
 *
 * @typedef {object} Change what `statechange` carries
 * @property {State} state
 * @property {State} previous
 * @property {string} reason `connected`, `lost`, `silent`, `offline`, `woke`, `unavailable`, `closed`, a goodbye's own, or why the
 * stream was refused: `token_expired`, `forbidden` and the like, as the server calls it; `refused` where it does not say
 * @property {number} [status] of the answer, where the server refused the stream
 *
 * @typedef {object} Options
 * @property {string | (() => Promise<string>)} [token] a signed subscription, and the fresh one that each connection brings takes
 *   its place; or a function that is asked for one before each connection
 * @property {string} [lastEventId] the position after which events are wanted; by default, from now on
 * @property {Storage | null} [persist] `localStorage` or `sessionStorage`: keep the position there, so that the next page
 *   gets what was missed in between
 * @property {string} [persistKey] under which name; by default the url's path and its channels
 * @property {string[]} [channels] those that the token grants, for that name
 * @property {(data: any, event: MessageEvent) => void} [onReset] events were lost that cannot be had again:
 *   fetch the state anew
 * @property {(data: any, event: MessageEvent, frame: any) => void} [onEvent] called with every frame, whatever its type
 * @property {string | URL} [statsUrl] where `stats` are posted when the page is left, as JSON
 * @property {boolean | "path"} [adaptive] a visible page takes the server's own interval, a hidden one asks for four times that,
 *   both for less on a path that cuts what idles (see sse-live-loss.js); "path": whether the page is hidden does not matter;
 *   false: the server's interval always
 * @property {boolean} [withCredentials] send cookies to another origin too
 * @property {"sse" | "websocket" | "auto"} [transport] "websocket": over a WebSocket, if one opens; "auto": from the first message
 *   on. "sse" by default
 * @property {Queue} [queue] of messages for which `send` names none
 * @property {string} [csrfToken] Django's, which messages by POST need; without one, the first costs one request more
 * @property {string} [socketSrc] where sse-live-socket.js is, if not beside this file
 * @property {number} [retryMs] the first wait before a new connection; by default the server's
 * @property {number} [maxRetryMs] the longest such wait
 * @property {boolean} [logEvents] a line at the console's level "info" for each event, not "debug"
 * @property {(Pick<Console, "info" | "warn"> & Partial<Pick<Console, "debug">>) | null} [logger] the console; null for silence
 * @property {typeof EventSource} [EventSource] one that sets its static `reconnects` comes back from an error by itself; where
 *   the error says `isAlone`, the browser's own takes its place
 *
 * @typedef {"none" | "memory" | "storage"} Queue of messages that cannot be sent now: none, one that ends with the page, or one that
 *   a reload of the page does not end
 *
 * @typedef {object} SendOptions
 * @property {string} [channel] one that the page may hear
 * @property {number} [timeoutMs] for an answer; with a queue, for each attempt. 10,000 by default
 * @property {Queue} [queue]
 * @property {string} [id] that of a message whose outcome is unknown, to send it again: it is handled once
 */

/**
 * A live stream. Dispatches each event of the stream as a `MessageEvent` of its type, with the decoded `data` and
 * the `lastEventId`; `stale`, where a reset came that a reload had not mended; and `statechange`, whose data is a {@link Change}.
 *
 *     const live = new SSELive("/events/?channel=comments");
 *     live.on("new_comment", (comment) => show(comment));
 *
 * Two connections at the most: the present one, whose frames are heard, and the next one, of which nothing counts before its
 * first word. Then it is the present one, the old one is closed, and what both bring is heard once.
 *
 * | | present | next | timers |
 * |---|---|---|---|
 * | `connecting`, `reconnecting`: opens | – | yes | watch |
 * | … waits, or asks for a token | – | – | retry |
 * | … asks why it was refused | – | – | none: the question has a time limit |
 * | … is prerendered, frozen, or in the back/forward cache | – | – | none: the page's events go on |
 * | `reconnecting`, since the browser says that it is offline | yes | now and then | watch, retry |
 * | `connected` | yes | – | watch, renewal |
 * | … renews its connection | yes | yes | watch |
 * | … the old one has ended as it had said | – | yes | watch, renewal: how long that is not shown |
 * | `disconnected`: refused by something in between | – | now and then | retry |
 * | `disconnected` for good | – | – | none |
 *
 * #connect() alone makes a connection and #shut() alone ends one; #become() alone changes the state, as a method's last step.
 */
export class SSELive extends EventTarget {
  static isAtOrBefore = isAtOrBefore;
  static moved = moved;

  /** @type {URL} */ #url;
  /** @type {Options} */ #options;
  /** @type {State} */ #state = "connecting";
  /** The present connection. @type {EventSource | null} */ #source = null;
  /** The next one. @type {EventSource | null} */ #next = null;
  #lastEventId;
  /** What was delivered before this connection: its replay may overlap it. */ #delivered = "";
  #clientId = "";
  #lastHeartbeat = 0;
  /** From performance.now() to ms since 1970. */ #offsetMs = 0;
  #heartbeatMs = HEARTBEAT_MS;
  /** The server's own interval; 0 until it is known. */ #usualMs = 0;
  /** The longest silence that this connection has borne. */ #borneMs = 0;
  /** What is known of this network. @type {{limitMs: number} | undefined | any} */ #path;
  /** The interval that this connection asked for; 0 for none. */ #askedMs = 0;
  /** Waits since the last connection that worked. */ #waits = 0;
  /** The first wait that the server would have. */ #retryMs = RETRY_MS;
  /** The server told us to wait until then: nothing but sleep cuts that short. */ #notBefore = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retryTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #renewTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #monitorTimer;
  /** When that timer is due. */ #monitorDue = 0;
  /** What `on` adds for each callback. @type {WeakMap<Function, EventListener>} */ #listeners = new WeakMap();
  /** Aborted when the stream ends: takes the page's listeners off. */ #ended = new AbortController();
  #stats = { connects: 0, reconnects: /** @type {Record<string, number>} */ ({}), events: 0, missedHeartbeats: 0,
    connectedMs: 0, lastRecoveryMs: 0, longestRecoveryMs: 0 };
  /** When the present state began (never, if the page sleeps in it), why, and when the last loss was. */ #since = this.#now();
  #reason = "";
  #lostAt = 0;
  /** What sends messages, once it is needed. @type {Promise<any> | undefined} */ #sender;
  #sendsAs = "";
  /** With which the stream goes on after a break, without being checked anew. */ #ticket = "";
  /** Whether the file is there that the first connection needs. */ #isReady;

  /** Called at each `reset`: events were lost that cannot be had again, so fetch the state anew. */
  onReset;
  /** Over how many ms the pages of this worker are to spread what they all fetch because of one event, as the server said last. */
  spreadMs = 0;

  /**
   * Connects at once.
   * @param {string | URL} url the stream's, with its `channel` parameters if it has any
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super();
    this.#url = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    const { pathname, searchParams } = this.#url;
    const { token, lastEventId = "", onReset, channels = [] } = options;
    const persistKey = `sse-live:${pathname}?${[...searchParams.getAll("channel"), ...channels]}`;
    this.#options = { adaptive: true, logger: console, persistKey, ...options };
    if (typeof token === "string") searchParams.set("token", token);
    // What was kept may be another page's position, and this page older than that.
    const stored = this.#stored;
    this.#lastEventId = stored && (!lastEventId || isAtOrBefore(stored, lastEventId, true)) ? stored : lastEventId;
    this.onReset = onReset;
    for (const type of ["online", "offline", "visibilitychange", "pagehide", "pageshow", "freeze", "resume", "prerenderingchange", "beforeunload"]) {
      globalThis.addEventListener?.(
        type, () => this.#onPage(type), { capture: true, signal: this.#ended.signal });
    }
    if (globalThis.navigator?.onLine === false) this.#become("reconnecting", "offline");
    this.#isReady = options.transport !== "websocket";
    if (this.#isReady) this.#open();
    else this.#load().then((sender) => sender.upgrade()).catch(() => {}).then(() => {
      this.#isReady = true;
      this.#open();
    });
  }

  /** @returns {State} */
  get state() { return this.#state; }

  /** When the last sign of life came, in ms since 1970; every frame is one. */
  get lastHeartbeat() { return Math.round(this.#lastHeartbeat); }

  /** The position up to which events have been delivered; "" before the first is known. */
  get lastEventId() { return this.#lastEventId; }

  /** The server's name for the present connection. */
  get clientId() { return this.#clientId; }

  /** Whether its connection may be others' too. */
  get isShared() { return !!(/** @type {any} */ (this.#options.EventSource)?.reconnects); }

  /** The stream's url, with the freshest token. */
  get url() { return this.#url.href; }

  /** A digest of whom the server takes this page's visitor for; "" before it is known. */
  get sendsAs() { return this.#sendsAs; }

  /** How the stream fared so far: times in ms, and reconnects counted by their reason. */
  get stats() {
    const { connectedMs } = this.#stats;
    return { ...structuredClone(this.#stats), connectedMs: Math.round(connectedMs + this.#connectedMs), heartbeatMs: this.#heartbeatMs };
  }

  /** How long this connection has held. */
  get #connectedMs() { return this.#state === "connected" ? Math.max(0, this.#now() - this.#since) : 0; }

  /** In ms since 1970, and never back: a sleep counts, which performance.now() may leave out, and a clock set back does not. */
  #now() {
    const ms = performance.now();
    this.#offsetMs = Math.max(this.#offsetMs, Date.now() - ms);
    return this.#offsetMs + ms;
  }

  /**
   * @template [T=any]
   * @param {string} type an event's type, or `statechange`
   * @param {(data: T, event: MessageEvent<T>) => void} callback
   */
  on(type, callback) {
    this.addEventListener(type, this.#listener(callback));
    return this;
  }

  /**
   * @template [T=any]
   * @param {string} type
   * @param {(data: T, event: MessageEvent<T>) => void} callback what was given to `on`
   */
  off(type, callback) {
    this.removeEventListener(type, this.#listener(callback));
    return this;
  }

  /** @param {any} callback @returns {EventListener} the same each time */
  #listener(callback) {
    const listener = this.#listeners.get(callback) ?? ((/** @type {any} */ event) => callback(event.data, event));
    this.#listeners.set(callback, listener);
    return listener;
  }

  /**
   * Sends a message, after those before it, and gives the answer's data. Rejects with an `SSELiveError`, whose `error`, `status` and
   * `isTemporary` say why there is none; `outcome_unknown` where none came in time.
   * @param {string} type
   * @param {any} [data] anything that JSON can say
   * @param {SendOptions} [options]
   * @returns {Promise<any>}
   */
  async send(type, data = null, options) {
    const copy = JSON.parse(JSON.stringify(data));  // as it is now
    return (await this.#load()).send(type, copy, options);
  }

  /**
   * A job to watch and to stop, for scripts: an element that shows nothing, says `sse:job`, and ends with its `remove()`.
   * @param {string} token @param {string} id
   * @returns {Promise<import("./sse-live-job.js").SSELiveJobElement>}
   */
  async job(token, id) { return (await load("job")).watch(this, token, id); }

  /** @returns {Promise<any>} */
  #load() {
    return this.#sender ??= load("socket", this.#options.socketSrc).then(({ Sender }) => new Sender(this, this.#options)).catch((error) => {
      this.#sender = undefined;
      throw error;
    });
  }

  /** Goes on by another `EventSource`, without a break. @param {typeof globalThis.EventSource} EventSource */
  use(EventSource) {
    this.#options.EventSource = EventSource;
    if (this.#source || this.#next) this.#open();
  }

  /** Ends the stream for good. */
  close() { this.#end("closed"); }

  /**
   * Watches for a stream that has fallen silent: looks at least every 30 s, and takes it for dead after two intervals
   * without a frame. Every connection starts it by itself.
   */
  startHeartbeatMonitoring() {
    clearTimeout(this.#monitorTimer);
    if (!this.#source && !this.#next) return;
    const now = this.#now();
    const silentMs = now - this.#lastHeartbeat;
    const left = DEAD * this.#heartbeatMs - silentMs;
    if (left <= 0) {
      this.#stats.missedHeartbeats += DEAD;
      this.#learn(this.#heartbeatMs / 1.5);
      return this.#reconnect("silent", this.#isLate ? 0 : undefined);
    }
    if (!this.#source && silentMs >= BUFFERED_MS) {
      this.#hint("buffered");
      if (this.#state === "connected") this.#become("reconnecting", "silent");
    }
    const wait = Math.min(left, this.#heartbeatMs, this.#source ? HEARTBEAT_MS : BUFFERED_MS);
    this.#monitorDue = now + wait;
    this.#monitorTimer = setTimeout(() => this.startHeartbeatMonitoring(), wait);
  }

  /** To the developer, once. @param {string} name in HINTS of sse-live-loss.js */
  #hint(name) {
    this.#loss(({ hint }) => hint(name, this, this.#options.logger));
  }

  /** Opens the next connection, if anybody is to see what it brings. */
  async #open() {
    clearTimeout(this.#retryTimer);
    if (this.#isOver || /** @type {any} */ (globalThis.document)?.prerendering) return;
    const { token, EventSource = globalThis.EventSource, withCredentials } = this.#options;
    if (typeof token === "function") {
      const turn = this.#retryTimer = this.#openIn(ASK_MS);
      const fresh = await token().catch((error) => this.#options.logger?.warn("No token:", error));
      if (turn !== this.#retryTimer) return;
      clearTimeout(turn);
      if (!fresh) return this.#failed("lost");
      this.#url.searchParams.set("token", fresh);
    }
    this.#shut(this.#next);
    const url = new URL(this.#url);
    const { searchParams } = url;
    searchParams.set("format", "envelope");
    if (this.#lastEventId) searchParams.set("last_event_id", this.#lastEventId);
    const wishMs = this.#wish();
    const askedMs = wishMs === this.#usualMs ? 0 : wishMs;
    if (askedMs) searchParams.set("heartbeat", `${Math.floor(askedMs / 1000)}`);
    if (!this.isShared) {
      if (this.#source) searchParams.set("replaces", this.#clientId);
      else if (this.#ticket) searchParams.set("ticket", this.#ticket);
    }
    this.#notBefore = 0;
    const source = this.#next = new EventSource(url.href, { withCredentials });
    source.onmessage = (event) => this.#receive(source, event, askedMs);
    source.onerror = (event) => this.#broke(source, url.href, event);
    if (this.#source) return;
    this.#lastHeartbeat = this.#now();  // so that a server which accepts and then says nothing is noticed too
    this.startHeartbeatMonitoring();
  }

  /** The interval to ask the server for, which holds it within its bounds and announces what is in force; 0 for its own. */
  #wish() {
    const { adaptive } = this.#options;
    if (!adaptive || this.isShared) return this.#usualMs;
    const times = adaptive !== "path" && globalThis.document?.hidden ? 4 : 1;
    return Math.min(this.#usualMs * times, 0.75 * (this.#path?.limitMs ?? Infinity));
  }

  /** @param {EventSource} source @param {MessageEvent} message @param {number} askedMs the interval that it was opened with */
  #receive(source, { data: text, lastEventId: id }, askedMs) {
    const frame = JSON.parse(text);
    const { type, reason, retry } = frame;
    const isBye = type === "goodbye";
    if (source === this.#next && (!this.#source || type === "connected") && !isBye) {
      this.#shut(this.#source);
      this.#source = source;
      this.#next = null;
      this.#askedMs = askedMs;
      this.#delivered = this.#lastEventId;
    }
    const isMain = source === this.#source;
    this.spreadMs = frame.spread ?? this.spreadMs;
    const silentMs = this.#now() - this.#lastHeartbeat;
    this.#stats.missedHeartbeats += Math.floor(silentMs / (this.#heartbeatMs * LATE));
    this.#lastHeartbeat += silentMs;
    this.#borneMs = Math.max(this.#borneMs, silentMs);
    // A reset re-bases. The id of a final goodbye is the server's mark to refuse us: never to be brought back.
    const isNews = type === "reset" || !isAtOrBefore(id, this.#delivered);
    const isFinal = isBye && frame.reconnect === false;
    if (!isFinal) this.#lastEventId = moved(this.#lastEventId, frame, id);

    if (type === "connected") this.#connected(frame);
    else if (isMain && !isBye && type !== "reset") {
      // One that dies of its first words does not work.
      this.#waits = 0;
      if (type === "heartbeat") this.#loss(() => {});
      if (this.#reason === "offline") this.#online();
    }
    try {
      if ((isNews || CONTROL.test(type)) && (isMain || !this.#source)) this.#deliver(frame, id);
    } finally {
      if (isFinal) this.#end(reason, frame.status);
      else if (isBye) {
        if (!isMain) this.#failed(reason, retry);
        else if (reason === "max_age") {
          // As planned: that is shown only if the next connection lets us wait.
          this.#shut(source);
          if (!this.#next) this.#open();
        } else this.#reconnect(reason, retry);
      }
      this.#store();
    }
  }

  /** The position that was kept. */
  get #stored() {
    const { persist, persistKey } = /** @type {any} */ (this.#options);
    return attempt(() => persist?.getItem(persistKey)) ?? "";
  }

  /** Never back: another page may be further. */
  #store() {
    const { persist, persistKey } = /** @type {any} */ (this.#options);
    if (!isAtOrBefore(this.#lastEventId, this.#stored)) attempt(() => persist?.setItem(persistKey, this.#lastEventId));
  }

  /** @param {{client_id: string, heartbeat?: number, retry?: number, token?: string | null, tokens?: string[], ends?: number, streams?: number, as?: string, ticket?: string}} frame */
  #connected({ client_id, heartbeat = HEARTBEAT_MS / 1000, retry = RETRY_MS, token, tokens = token ? [token] : [], ends, streams = 1, as = "", ticket = "" }) {
    this.#clientId = client_id;
    this.#ticket = ticket;
    this.#sendsAs = as;
    const { csrfToken, queue, transport, persistKey } = this.#options;
    // Before there is no network any more; and for what a page before this one has left to be sent.
    if (csrfToken ?? queue ?? transport ?? attempt(() => sessionStorage.getItem(`sse-live:queue ${persistKey}`))) this.#load().catch(() => {});
    this.#heartbeatMs = heartbeat * 1000;
    this.#borneMs = 0;
    if (!this.#askedMs) this.#usualMs = this.#heartbeatMs;
    this.#retryMs = retry;
    // Each by itself, where there were several: one for all of them would not tell what belongs to whom.
    if (tokens.length) this.#url.searchParams.delete("token");
    for (const each of tokens) this.#url.searchParams.append("token", each);
    this.#stats.connects += 1;
    clearTimeout(this.#renewTimer);
    this.startHeartbeatMonitoring();
    if (ends) this.#renewIn(ends * 1000 - Math.min(RENEW_MS, ends * 250));
    if (streams >= MANY) this.#hint("streams");
    this.#online();
  }

  /** @param {number} waitMs */
  #openIn(waitMs) { return setTimeout(() => this.#open(), Math.min(waitMs, MAX_MS)); }

  /** @param {number} waitMs */
  #renewIn(waitMs) {
    clearTimeout(this.#renewTimer);
    if (!this.#source || /** @type {any} */ (this.#source.constructor).reconnects) return;  // that one sees to itself
    this.#renewTimer = this.#openIn(waitMs);
  }

  #online() {
    clearTimeout(this.#retryTimer);
    this.#become("connected", "connected");
  }

  /** @param {any} frame @param {string} lastEventId */
  #deliver(frame, lastEventId) {
    // A listener has just closed the stream.
    if (!this.#source && !this.#next) return;
    const { logger, logEvents, onEvent } = this.#options;
    let { type, data } = frame;
    if (CONTROL.test(type)) data = frame;
    else {
      this.#stats.events += 1;
      logger?.[logEvents || !logger.debug ? "info" : "debug"]?.(`Real-time event received: ${type}`);
    }
    if (type === "reset") {
      const key = `sse-live:reset ${globalThis.location?.href}`;
      const sinceMs = performance.timeOrigin - Number(attempt(() => sessionStorage.getItem(key)));
      if (this.#stats.connects < 2 && sinceMs >= 0 && sinceMs < RELOAD_MS) {
        // The page was opened anew because of one, and is as old as it was: from a cache, or drawn with an old position.
        this.#hint("cached");
        type = "stale";
      } else attempt(() => sessionStorage.setItem(key, String(Date.now())));
    }
    const event = new MessageEvent(type, { data, lastEventId });
    this.dispatchEvent(event);
    onEvent?.(data, event, frame);
    if (type === "reset") this.onReset?.(data, event);
  }

  /** @param {any} source @param {string} url @param {any} event one that reconnects may say why, or that it cannot share */
  #broke(source, url, { reason = "lost", isAlone }) {
    const isMain = source === this.#source;
    if (isAlone) this.#options.EventSource = undefined;
    if (!isMain && this.#source) return this.#failed(reason);
    if (isAlone) {
      this.#drop();
      return this.#open();
    }
    if (source.constructor.reconnects && source.readyState !== 2) {
      clearTimeout(this.#monitorTimer);
      return this.#become("reconnecting", reason);
    }
    if (isMain) this.#learn(this.#now() - this.#lastHeartbeat);
    if (isMain && this.#next) {
      this.#shut(source);
      this.#become("reconnecting", reason);
    }
    // An EventSource that gave up was refused; one that did not lost its network.
    else if (source.readyState === 2) this.#ask(url);
    else this.#reconnect(reason);
  }

  /** A timer that comes late: the machine slept, or the page did. Nobody has waited for the server meanwhile. */
  get #isLate() { return this.#now() - this.#monitorDue > 5_000; }

  /** A connection was refused. @param {string} url */
  async #ask(url) {
    this.#drop();
    if (this.#state === "connected") this.#become("reconnecting", "lost");
    const { reason = "lost", status, isFinal, waitMs } = await this.#loss(({ refusal }) => refusal(url, this.#options.withCredentials)) ?? {};
    // Opened again or closed meanwhile.
    if (this.#source || this.#next || this.#isOver) return;
    if (isFinal) return this.#end(reason, status);
    if (reason !== "refused") return this.#reconnect(reason, waitMs);
    // Not our server's word, but that of something in between: a proxy during a deploy, a service worker, a log-in page.
    this.#ticket = "";  // it may have been too long a url
    this.#retry(undefined, REFUSED_RETRY_MS);
    this.#become("disconnected", reason, status);
  }

  /** Does something with sse-live-loss.js, where it can be had. @param {(loss: any) => any} use @returns {Promise<any>} */
  #loss(use) { return load("loss", null, [0]).then(use).catch(() => {}); }

  /** @param {number} silentMs the silence after which the connection broke, or as good as */
  #learn(silentMs) {
    const borneMs = this.#borneMs;
    if (this.#state === "connected" && !this.#isLate) {
      this.#loss(({ Path }) => (this.#path ??= new Path()).broke(silentMs, borneMs));
    }
  }

  /** The next connection was none; the present one, if there is one, goes on. @param {string} reason @param {number} [toldMs] */
  #failed(reason, toldMs) {
    if (!this.#source) return this.#reconnect(reason, toldMs);
    this.#shut(this.#next);
    if (this.#state !== "connected") this.#retry(toldMs);
  }

  /**
   * Ends every connection, and opens the next one after a wait.
   * @param {string} reason
   * @param {number} [toldMs] the wait, where the server told it; 0 for now
   */
  #reconnect(reason, toldMs) {
    if (this.#isOver) return;
    this.#drop();
    if (this.#connectedMs > STEADY_MS) this.#waits = 0;
    this.#retry(toldMs);
    // Refused until it is not.
    if (this.#state !== "disconnected") this.#become("reconnecting", reason);
  }

  /** Opens the next connection after a wait. @param {number} [toldMs] @param {number} [maxRetryMs] */
  #retry(toldMs, maxRetryMs = this.#options.maxRetryMs ?? MAX_RETRY_MS) {
    const now = this.#now();
    const { retryMs = this.#retryMs } = this.#options;
    const backoffMs = this.#waits ? Math.random() * Math.min(maxRetryMs, retryMs * GROWTH ** this.#waits) : retryMs;
    if (toldMs) this.#notBefore = now + toldMs;
    const waitMs = Math.max(toldMs ?? backoffMs, this.#notBefore - now);
    this.#waits += 1;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = this.#openIn(waitMs);
  }

  /** The page goes to sleep, wakes up, or changes networks. @param {string} type */
  #onPage(type) {
    const { statsUrl } = this.#options;
    const { prerendering, hidden } = /** @type {any} */ (globalThis.document ?? {});
    if (prerendering || !this.#isReady) return;
    if (type === "pagehide" && statsUrl) navigator.sendBeacon(statsUrl, new Blob([JSON.stringify(this.stats)], { type: "application/json" }));
    // A page in the back/forward cache and a frozen one can hold no stream that anyone reads.
    if (type === "pagehide" || type === "freeze") {
      this.#drop();
      this.#notBefore = 0;
      this.#stats.connectedMs += this.#connectedMs;
      this.#since = Infinity;
    }
    else if (type === "prerenderingchange") this.#open();
    // A download, say: some browsers end every connection for a navigation, and say nothing if the page stays after all.
    else if (type === "beforeunload") this.#renewIn(STAYED_MS);
    // The browser may be wrong that there is no network: what there is is kept, and another connection tried.
    else if (type === "offline") {
      if (this.#state !== "connected") return;
      this.#retry();
      this.#become("reconnecting", type);
    } else if (type !== "visibilitychange" || !hidden) this.#wake(type === "online");
  }

  /** Reconnects now, not at the next look, if the stream may have died unnoticed or its heartbeats are too rare by now. */
  #wake(isNew = false) {
    if (isNew) this.#path = undefined;
    const isConnected = this.#state === "connected";
    // Of what was asked for, the server may have granted less.
    const everyMs = isConnected ? Math.min(this.#askedMs, this.#heartbeatMs) : this.#askedMs;
    if (this.#now() - this.#lastHeartbeat >= this.#heartbeatMs * LATE || !(this.#source ? isConnected : this.#next && !isNew)) this.#reconnect("woke", 0);
    else if (everyMs > this.#wish()) this.#open();
  }

  get #isOver() { return this.#ended.signal.aborted; }

  /** @param {string} reason @param {number} [status] */
  #end(reason, status) {
    this.#drop();
    this.#ended.abort();
    this.#sender?.then((sender) => sender.end(reason), () => {});
    this.#become("disconnected", reason, status);
  }

  #drop() {
    for (const timer of [this.#retryTimer, this.#renewTimer, this.#monitorTimer]) clearTimeout(timer);
    this.#retryTimer = undefined;
    this.#shut(this.#source);
    this.#shut(this.#next);
  }

  /** @param {EventSource | null} source */
  #shut(source) {
    if (!source) return;
    source.onmessage = source.onerror = null;
    source.close();
    if (source === this.#source) this.#source = null;
    else this.#next = null;
  }

  /**
   * The last step of every change: a listener may close the stream.
   * @param {State} state
   * @param {string} reason
   * @param {number} [status]
   */
  #become(state, reason, status) {
    const previous = this.#state;
    // That the server cannot take us now is news also to a page that waits for it.
    if (state === previous && (reason === this.#reason || reason !== "unavailable")) return;
    const now = this.#now();
    if (previous === "connected") {
      this.#stats.connectedMs += this.#connectedMs;
      this.#lostAt = now;
      if (state === "reconnecting") this.#stats.reconnects[reason] = (this.#stats.reconnects[reason] ?? 0) + 1;
    } else if (state === "connected" && this.#lostAt) {
      this.#stats.lastRecoveryMs = Math.round(now - this.#lostAt);
      this.#stats.longestRecoveryMs = Math.max(this.#stats.longestRecoveryMs, this.#stats.lastRecoveryMs);
    }
    this.#state = state;
    this.#since = now;
    this.#reason = reason;
    if (state === "connected") this.#options.logger?.info("Real-time connection established");
    if (state === "reconnecting" && state !== previous) this.#options.logger?.warn("Connection lost, reconnecting...");
    this.dispatchEvent(new MessageEvent("statechange", { data: { state, previous, reason, status } }));
  }
}

/** What says which stream an element has. */
const SAID = ["src", "channels"];
/** Which element handed an event to the page, so that one which several elements hear is heard once; and for how many that is known. */
const heard = new Map();
const HEARD = 1_000;
/**
 * Done when the last event so far was handed to the page; and how many wait for a patch. Of all elements: what leaves the channel of
 * one may come to that of another, in this order.
 */
let turn = Promise.resolve();
let waits = 0;
/** The page's own listeners are on by then, those of deferred scripts too: no event comes before them. */
const isReady = () => new Promise((resolve) => {
  // https://www.w3.org/TR/navigation-timing-2/
  /** @type {any} */ const [navigation] = performance.getEntriesByType?.("navigation") ?? [];
  if (document.readyState === "complete" || navigation?.domContentLoadedEventStart) resolve(null);
  for (const type of ["DOMContentLoaded", "load"]) addEventListener(type, resolve);
});

/**
 * `<sse-live src="/events/?channel=comments">`: a stream for as long as it is in the page, a status light, and every
 * event as a bubbling `CustomEvent` named `sse:<type>`, with `detail = {type, data, id}`.
 *
 * Attributes: `src`; `token`, `last-event-id`, `stats-url`, `with-credentials` and `log-events` as in {@link Options}; `persist`,
 * "local" or "session"; `transport`, `queue` and `csrf-token`; the words for the four states, `text-connecting` and so on, English by default. With `share`, a name that
 * is different for each user, the tabs of that name share one connection, and `channels` names those that the token grants, one a
 * line. It sets `state`, and `stale` where the page could not be brought up to date. Where `src` or `channels` change, the stream
 * is another one.
 */
export class SSELiveElement extends (globalThis.HTMLElement ?? Object) {
  static observedAttributes = ["src", "channels", "state", "hidden"];

  /** The stream, once connected. @type {SSELive | null} */ live = null;
  /** Shows a state, once there is a light. @type {((state: State) => void) | undefined} */ #light;
  /** What is shown. @type {State} */ #state = "connecting";
  /** Whether a patch could not be done. */ #isBehind = false;
  /** Messages that wait for the stream to begin. @type {((live: SSELive) => void)[]} */ #awaiting = [];
  /** The id of the last frame; what has no id of its own bears it too. */ #lastId = "";
  /** What the page said when the present stream began, or that one. @type {(string | undefined)[]} */ #said = [];

  async connectedCallback() {
    this.#draw();
    // Only moved within the page, or in a copy that Turbo shows while it fetches the page.
    if (this.live || this.closest("[data-turbo-preview]")) return;
    this.#show("connecting");
    await isReady();
    if (this.isConnected && !this.live) this.#connect();
  }

  /** Moving an element disconnects it and connects it again at once: that must not cost the stream. */
  disconnectedCallback() {
    queueMicrotask(() => {
      if (!this.isConnected) this.#leave();
    });
  }

  #leave() {
    const { live } = this;
    this.live = null;
    live?.close();
  }

  /** @param {string} name @param {string | null} before @param {string | null} now */
  attributeChangedCallback(name, before, now) {
    if (name === "state") {
      // Who brings the page up to date with one from the server takes off what only we know.
      if (now !== this.#state) this.setAttribute("state", this.#state);
    } else queueMicrotask(() => {
      // Once, when all attributes have been changed.
      if (!this.isConnected) return;
      this.#draw();
      if (!this.live || SAID.every((name, index) => this.#attribute(name) === this.#said[index])) return;
      this.#leave();
      this.#show("connecting");
      this.#connect();
    });
  }

  /**
   * As {@link SSELive.send}; waits for the stream to begin.
   * @param {string} type @param {any} [data] @param {SendOptions} [options]
   * @returns {Promise<any>}
   */
  async send(type, data = null, options) {
    const copy = JSON.parse(JSON.stringify(data));
    /** @type {SSELive} */ const live = this.live ?? await new Promise((resolve) => this.#awaiting.push(resolve));
    return live.send(type, copy, options);
  }

  /** Once, unless nobody is to see it. */
  #draw() {
    if (this.hidden || this.#light) return;
    this.#light = () => {};
    this.#import("light").then(({ draw }) => {
      this.#light = draw(this);
      this.#show(this.#state);
    }, () => {});
  }

  /** @param {string} name */
  #attribute(name) { return this.getAttribute(name) ?? undefined; }

  async #connect() {
    // What hears a job must be there before its first frame.
    if (this.hasAttribute("job-src")) await this.#import("job").catch(console.error);
    const several = this.#attribute("share") || document.querySelectorAll("sse-live")[1];
    const EventSource = several && await this.#import("share", [])
      .then(({ join }) => join(SSELive, this, () => this.#import("page", [])))
      .catch(console.warn);
    if (!this.isConnected || this.live) return;
    const [src = "", channels] = this.#said = SAID.map((name) => this.#attribute(name));
    const live = this.live = new SSELive(src, {
      token: this.#attribute("token"),
      lastEventId: this.#attribute("last-event-id"),
      statsUrl: this.#attribute("stats-url"),
      withCredentials: this.hasAttribute("with-credentials"),
      logEvents: this.hasAttribute("log-events"),
      socketSrc: this.#attribute("socket-src"),
      transport: /** @type {any} */ (this.#attribute("transport")),
      queue: /** @type {any} */ (this.#attribute("queue")),
      csrfToken: this.#attribute("csrf-token"),
      persist: attempt(() => /** @type {any} */ (globalThis)[`${this.#attribute("persist")}Storage`]),
      channels: channels?.split("\n"),
      EventSource,
      onEvent: (data, event, frame) => this.#hear(data, event, frame),
    });
    this.#show(live.state);
    for (const resolve of this.#awaiting.splice(0)) resolve(live);
    live.on("answer", (data) => this.#dispatch("answer", data, ""));
    live.on("statechange", (data) => {
      if (live !== this.live) return;
      this.#show(data.state);
      this.#dispatch("statechange", data, "");
    });
  }

  /** @param {string} name in FILES @param {number[]} [waitsMs] */
  #import(name, waitsMs) { return load(name, this.getAttribute(`${name}-src`), waitsMs); }

  /**
   * Hands events to the page in order: what comes after a patch waits until that is in the page.
   * @param {any} data @param {MessageEvent} event @param {any} frame
   */
  #hear(data, { type, lastEventId: id }, frame) {
    const position = this.live?.lastEventId ?? "";
    const bubbles = id === this.#lastId || this.#isFirst(`${type} ${id}`);
    this.#lastId = id;
    const isPatch = bubbles && frame.patch || frame.type === "reset" && (this.hasAttribute("reset") || document.querySelector("[data-sse-live]"));
    const handOn = () => {
      if (type === "stale" && !isPatch) this.setAttribute(type, "");
      this.#dispatch(type, data, id, bubbles);
      // Put back later, the element goes on from where it was; and so do the copies of a page that libraries keep.
      if (frame.token) this.setAttribute("token", frame.token);
      if (!isAtOrBefore(position, this.getAttribute("last-event-id") ?? "", true)) this.setAttribute("last-event-id", position);
    };
    if (!isPatch && !waits) return handOn();
    waits += 1;
    turn = turn.then(async () => {
      if (isPatch) await this.#patch(frame, id);
      waits -= 1;
      handOn();
    });
  }

  /**
   * Where the file cannot be had, the page is stale, and says so. The next patch asks again, and then the page is fetched anew.
   * @param {any} frame one with a patch, or a reset @param {string} id
   */
  async #patch(frame, id) {
    try {
      const { patch } = await this.#import("patch", this.#isBehind ? [0] : undefined);
      if (this.live) await patch(this.#isBehind ? { type: "reset" } : frame, id, this, () => this.#import("refresh"));
      this.#isBehind = false;
    } catch (error) {
      this.#isBehind = true;
      console.error(error);
      this.setAttribute("stale", "");
      this.#dispatch("stale", {}, id);
    }
  }

  /** @param {State} state */
  #show(state) {
    this.#state = state;
    this.setAttribute("state", state);
    this.#light?.(state);
  }

  /** Whether no other element of this page with this stream has handed on this event. @param {string} event */
  #isFirst(event) {
    event += this.#said[0]?.split("?")[0];
    const by = heard.get(event) ?? this;
    if (by !== this && by.isConnected) return false;
    heard.set(event, this);
    if (heard.size > HEARD) heard.delete(heard.keys().next().value);
    return true;
  }

  /** @param {string} type @param {any} data @param {string} id @param {boolean} [bubbles] */
  #dispatch(type, data, id, bubbles = true) {
    this.dispatchEvent(new CustomEvent(`sse:${type}`, { bubbles, composed: true, detail: { type, data, id } }));
  }
}

// A page may load this file under two names, one with a hash: one element is enough.
globalThis.customElements?.get("sse-live") ?? globalThis.customElements?.define("sse-live", SSELiveElement);
