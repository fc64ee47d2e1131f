// SSELive, a live stream from the server that is kept alive, and the <sse-live> element that shows its state.
// It knows the wire format of django-sse-live (the envelope form). The meaning of events is unknown here.
/// <reference types="./sse-live-jsx.d.ts" preserve="true" />

/**
 * The waits before a new connection, in ms. This is the first, unless the server or the page sets another; later ones are random,
 * up to a limit that grows.
 */
const RETRY_MS = 2_000;
const MAX_RETRY_MS = 30_000;
/** The growth of that limit. Slow, so that all pages are back soon after their server, spread over that time. */
const GROWTH = 1.5;
/** The heartbeat interval until the server tells its own, in ms. The stream is checked at least this often. */
const HEARTBEAT_MS = 30_000;
/** A stream is dead after this many intervals without a frame. */
const DEAD = 2;
/** An interval counts as missed once a frame is late by this factor. */
const LATE = 1.25;
/** A connection that held this long, in ms, worked, even if it was silent: the waits begin anew after it. */
const STEADY_MS = 5_000;
/** The longest timer, in ms: longer ones fire at once. */
const MAX_MS = 2 ** 31 - 1;
/** Time limit of a request for a token, in ms. */
const ASK_MS = 10_000;
/** The longest wait after an answer that is not django-sse-live's, in ms: a proxy's during a deploy, for example. */
const REFUSED_RETRY_MS = 60_000;
/** A stream is renewed this long before the server ends it, in ms, or a quarter of its life, if that is less. */
const RENEW_MS = 10_000;
/** A page that is still there this long after `beforeunload`, in ms, was not left. */
const STAYED_MS = 2_000;
/** A connection without a first frame after this long, in ms, causes a hint to the developer. */
const BUFFERED_MS = 20_000;
/** This many streams of one browser cause a hint too: with six, HTTP/1.1 has no connection left. */
const MANY = 5;
/** A stream that is made again after its reset, and gets another one within this time, in ms, is that of a page drawn anew because of it. */
const RELOAD_MS = 30_000;

/** The types of frames about the stream itself. Their data is the whole frame; an event's is what was broadcast. */
const CONTROL = /^(connected|heartbeat|reset|goodbye|sse\..*)$/;

/**
 * Whether the event id `id` is at or before `other`. Only ids of one epoch can be compared.
 * @param {string} id
 * @param {string} other
 * @param {boolean} [isAcrossEpochs] compare ids of different epochs by their times, as well as can be
 */
export function isAtOrBefore(id, other, isAcrossEpochs) {
  /** @type {any[][]} */
  const [a, b] = [id, other].map((each) => /^(.+):(\d+)-(\d+)$/.exec(each) ?? [0, NaN, 0, 0]);
  return (isAcrossEpochs || a[1] === b[1]) && (a[2] - b[2] || a[3] - b[3]) <= 0;
}

/**
 * The position after a frame. Only a reset takes it back.
 * @param {string} position
 * @param {{type: string}} frame
 * @param {string} id the frame's; "" for one without
 */
function moved(position, { type }, id) {
  return id && (type === "reset" || !isAtOrBefore(id, position)) ? id : position;
}

/**
 * Runs what the browser may deny, such as using a storage. Undefined if it does.
 * @template T
 * @param {() => T} run
 */
function attempt(run) {
  try { return run(); } catch { /* denied, full, or missing: not needed */ }
}

/**
 * Files that a page loads only if it needs them. The template tag names them in `share-src` and so on, perhaps with a hash. Without
 * the tag they are beside this file. The urls are literal, so that bundlers find them.
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
/** The loaded files, by name: a later page, perhaps of another release, uses the same ones. @type {Record<string, any>} */
const loaded = {};

/**
 * @param {string} name in FILES
 * @param {string | null} [source] its url, if neither an element names it nor it is beside this file
 * @param {number[]} [waitsMs] before the file is asked for again
 * @param {string} [hash] makes the url another one: some browsers never ask again for a module that failed
 * @returns {Promise<any>}
 */
async function load(name, source, [waitMs, ...waitsMs] = [1_000, 5_000, 25_000], hash = "") {
  source ??= globalThis.document?.querySelector(`sse-live[${name}-src]`)?.getAttribute(`${name}-src`);
  const { href } = source ? new URL(source, document.baseURI) : FILES[name]();
  try {
    return loaded[name] ??= await import(/* webpackIgnore: true */ /* @vite-ignore */ href + hash);
  } catch (error) {
    if (waitMs === undefined) throw error;
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    return load(name, source, waitsMs, `#${performance.now()}`);
  }
}

/**
 * @typedef {"connecting" | "connected" | "reconnecting" | "disconnected"} State
 *
 * @typedef {object} Change the data of `statechange`
 * @property {State} state
 * @property {State} previous
 * @property {string} reason `connected`, `lost`, `silent`, `offline`, `woke`, `unavailable`, `closed`, the reason of a goodbye, or why
 * the stream was refused: the server's word, such as `token_expired` or `forbidden`; `refused` without one
 * @property {number} [status] of the answer, if the server refused the stream
 *
 * @typedef {object} Options
 * @property {string | (() => Promise<string>)} [token] a signed subscription, which each connection replaces by a fresh one; or a
 *   function that returns one, called before each connection
 * @property {string} [lastEventId] the position after which to begin; by default, now
 * @property {Storage | null} [persist] `localStorage` or `sessionStorage`: keeps the position there, so that the next page gets the
 *   events in between
 * @property {string} [persistKey] the name there; by default the url's path and its channels
 * @property {string[]} [channels] the channels that the token grants, for that name
 * @property {(data: any, event: MessageEvent) => void} [onReset] called when events are lost for
 *   good: fetch the state anew
 * @property {(data: any, event: MessageEvent, frame: any) => void} [onEvent] called with every frame, of any type
 * @property {string | URL} [statsUrl] where `stats` are posted when the page is left, as JSON
 * @property {boolean | "path"} [adaptive] true: a visible page uses the server's heartbeat interval, a hidden one four times
 *   that, and both a shorter one on a path that cuts idle connections (see sse-live-loss.js); "path": hidden pages are not
 *   different; false: always the server's interval
 * @property {boolean} [withCredentials] send cookies to another origin too
 * @property {"sse" | "websocket" | "auto"} [transport] "websocket": over a WebSocket, if one opens; "auto": from the first message
 *   on. "sse" by default
 * @property {Queue} [queue] for messages whose `send` names none
 * @property {string} [csrfToken] Django's, for messages by POST; without it, the first message costs one more request
 * @property {string} [socketSrc] the url of sse-live-socket.js, if it is not beside this file
 * @property {number} [retryMs] the first wait before a new connection; by default the server's
 * @property {number} [maxRetryMs] the longest such wait
 * @property {boolean} [logEvents] logs each event at the level "info" instead of "debug"
 * @property {(Pick<Console, "info" | "warn"> & Partial<Pick<Console, "debug">>) | null} [logger] the console; null for silence
 * @property {typeof EventSource} [EventSource] a replacement. With a static `reconnects` it recovers from errors by itself; an error
 *   with `isAlone` makes the browser's own take its place
 *
 * @typedef {"none" | "memory" | "storage"} Queue for messages that cannot be sent now: none, one that ends with the page, or one that
 *   survives a reload
 *
 * @typedef {object} SendOptions
 * @property {string} [channel] a channel that the page may hear
 * @property {number} [timeoutMs] for the answer; with a queue, for each attempt. 10,000 by default
 * @property {Queue} [queue]
 * @property {string} [id] of a message whose outcome is unknown, to send it again; it is handled only once
 */

/**
 * A live stream. Dispatches each event of the stream as a `MessageEvent` of its type, with the decoded `data` and
 * the `lastEventId`; `stale` for a reset that a reload did not mend; and `statechange`, whose data is a {@link Change}.
 *
 *     const live = new SSELive("/events/?channel=comments");
 *     live.on("new_comment", (comment) => show(comment));
 *
 * It has at most two connections: the current one, whose frames are delivered, and the next one, which is not heard before its first
 * frame. Then that becomes the current one, the old one is closed, and events that both bring are delivered once.
 *
 * | | current | next | timers |
 * |---|---|---|---|
 * | `connecting`, `reconnecting`: opens | – | yes | watch |
 * | … waits, or asks for a token | – | – | retry |
 * | … asks why it was refused | – | – | none: the question has a time limit |
 * | … is prerendered, frozen, or in the back/forward cache | – | – | none: the page's events go on |
 * | `reconnecting`, since the browser says that it is offline | yes | now and then | watch, retry |
 * | `connected` | yes | – | watch, renewal |
 * | … renews its connection | yes | yes | watch |
 * | … the old one has ended as announced | – | yes | watch, renewal: until then the state does not change |
 * | `disconnected`: refused by a proxy or the like | – | now and then | retry |
 * | `disconnected` for good | – | – | none |
 *
 * Only #connect() makes a connection, and only #shut() ends one. Only #become() changes the state, as a method's last step.
 */
export class SSELive extends EventTarget {
  static isAtOrBefore = isAtOrBefore;
  static moved = moved;

  /** @type {URL} */ #url;
  /** @type {Options} */ #options;
  /** @type {State} */ #state = "connecting";
  /** The current connection. @type {EventSource | null} */ #source = null;
  /** The next one. @type {EventSource | null} */ #next = null;
  #lastEventId;
  /** The last id delivered before this connection, whose replay may repeat it. */ #delivered = "";
  #clientId = "";
  #lastHeartbeat = 0;
  /** From performance.now() to ms since 1970. */ #offsetMs = 0;
  #heartbeatMs = HEARTBEAT_MS;
  /** The server's heartbeat interval; 0 until it is known. */ #usualMs = 0;
  /** The longest silence that this connection has survived. */ #borneMs = 0;
  /** The limit of this network's path. @type {{limitMs: number} | undefined | any} */ #path;
  /** The interval that this connection asked for; 0 for none. */ #askedMs = 0;
  /** Waits since the last connection that worked. */ #waits = 0;
  /** The first wait, as the server wants it. */ #retryMs = RETRY_MS;
  /** The server told this page to wait until then: only sleep cuts that short. */ #notBefore = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retryTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #renewTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #monitorTimer;
  /** When that timer is due. */ #monitorDue = 0;
  /** The listener that `on` adds for each callback. @type {WeakMap<Function, EventListener>} */ #listeners = new WeakMap();
  /** Aborted when the stream ends: removes the listeners on the page. */ #ended = new AbortController();
  #stats = { connects: 0, events: 0, missedHeartbeats: 0, connectedMs: 0, lastRecoveryMs: 0, longestRecoveryMs: 0,
    reconnects: /** @type {Record<string, number>} */ ({}) };
  #madeAt = Date.now();
  /** When the current state began (never, if the page sleeps in it). The next two: its reason, and when the last loss was. */ #since = this.#now();
  #reason = "";
  #lostAt = 0;
  /** Sends messages; loaded on first use. @type {Promise<any> | undefined} */ #sender;
  #sendsAs = "";
  /** Resumes the stream after a break, without new checks. */ #ticket = "";
  /** Whether the file that the first connection needs is loaded. */ #isReady;

  /** Called at each `reset`: events are lost for good, so fetch the state anew. */
  onReset;
  /** The time, in ms, over which this worker's pages spread a fetch that one event causes in all of them, as the server last said. */
  spreadMs = 0;

  /**
   * Connects at once.
   * @param {string | URL} url of the stream, with its `channel` parameters if it has any
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super();
    this.#url = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    const { pathname, searchParams } = this.#url;
    const { token, lastEventId = "", channels = [] } = options;
    const persistKey = `sse-live:${pathname}?${[...searchParams.getAll("channel"), ...channels]}`;
    this.#options = { adaptive: true, logger: console, persistKey, ...options };
    if (typeof token === "string") searchParams.set("token", token);
    // The stored position may be another page's, and newer than this page.
    const stored = this.#stored;
    this.#lastEventId = stored && (!lastEventId || isAtOrBefore(stored, lastEventId, true)) ? stored : lastEventId;
    this.onReset = options.onReset;
    for (const type of ["online", "offline", "visibilitychange", "pagehide", "pageshow", "freeze", "resume", "prerenderingchange", "beforeunload"]) {
      globalThis.addEventListener?.(
        type, () => this.#onPage(type), { capture: true, signal: this.#ended.signal });
    }
    if (globalThis.navigator?.onLine === false) this.#become("reconnecting", "offline");
    if (this.#isReady = options.transport !== "websocket") this.#open();
    else this.#load().then((sender) => sender.upgrade()).catch(() => {}).then(() => {
      this.#isReady = true;
      this.#open();
    });
  }

  /** @returns {State} */
  get state() { return this.#state; }

  /** When the last frame of any type came, in ms since 1970. */
  get lastHeartbeat() { return Math.round(this.#lastHeartbeat); }

  /** The position up to which events have been delivered; "" before the first is known. */
  get lastEventId() { return this.#lastEventId; }

  /** The server's id of the current connection. */
  get clientId() { return this.#clientId; }

  /** Whether other tabs or elements may use its connection. */
  get isShared() { return !!(/** @type {any} */ (this.#options.EventSource)?.reconnects); }

  /** The stream's url, with the freshest token. */
  get url() { return this.#url.href; }

  /** A digest of the user that the server knows this page's visitor as; "" before it is known. */
  get sendsAs() { return this.#sendsAs; }

  /** Figures of the stream so far: times in ms, and reconnects by reason. */
  get stats() {
    return { ...structuredClone(this.#stats), connectedMs: Math.round(this.#stats.connectedMs + this.#connectedMs), heartbeatMs: this.#heartbeatMs };
  }

  /** How long this connection has held. */
  get #connectedMs() { return this.#state === "connected" ? Math.max(0, this.#now() - this.#since) : 0; }

  /** In ms since 1970, never going back. It counts sleep, which performance.now() may not, and ignores a clock that is set back. */
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
   * @param {(data: T, event: MessageEvent<T>) => void} callback as given to `on`
   */
  off(type, callback) {
    this.removeEventListener(type, this.#listener(callback));
    return this;
  }

  /** @param {any} callback @returns {EventListener} the same each time */
  #listener(callback) {
    if (!this.#listeners.has(callback)) this.#listeners.set(callback, (/** @type {any} */ event) => callback(event.data, event));
    return /** @type {EventListener} */ (this.#listeners.get(callback));
  }

  /**
   * Sends a message, after earlier ones, and returns the answer's data. Rejects with an `SSELiveError`, whose `error`, `status` and
   * `isTemporary` tell why; `outcome_unknown` if no answer came in time.
   * @param {string} type
   * @param {any} [data] anything that JSON can express
   * @param {SendOptions} [options]
   * @returns {Promise<any>}
   */
  async send(type, data = null, options) {
    const copy = JSON.parse(JSON.stringify(data));  // as it is now
    return (await this.#load()).send(type, copy, options);
  }

  /**
   * A job to watch and to stop, for scripts: an element that shows nothing, dispatches `sse:job`, and ends with its `remove()`.
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

  /** Switches to another `EventSource`, without a break. @param {typeof globalThis.EventSource} EventSource */
  use(EventSource) {
    this.#options.EventSource = EventSource;
    if (this.#source || this.#next) this.#open();
  }

  /** Ends the stream for good. */
  close() { this.#end("closed"); }

  /**
   * Watches for a silent stream: checks at least every 30 s, and takes it for dead after two intervals without a frame. Every
   * connection starts it by itself.
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

  /** Gives the developer a hint, once. @param {string} name in HINTS of sse-live-loss.js */
  #hint(name) {
    this.#loss(({ hint }) => hint(name, this, this.#options.logger));
  }

  /** Opens the next connection, unless the page is prerendered or the stream is over. */
  async #open() {
    clearTimeout(this.#retryTimer);
    if (this.#ended.signal.aborted || /** @type {any} */ (globalThis.document)?.prerendering) return;
    const { token, EventSource = globalThis.EventSource, withCredentials } = this.#options;
    if (typeof token === "function") {
      const turn = this.#retryTimer = setTimeout(() => this.#failed("lost", 0), ASK_MS);
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
    this.#lastHeartbeat = this.#now();  // to notice a server that accepts and then stays silent
    this.startHeartbeatMonitoring();
  }

  /** The heartbeat interval to ask for; 0 for the server's own. The server keeps it within bounds, and tells the result. */
  #wish() {
    const { adaptive } = this.#options;
    if (!adaptive || this.isShared) return this.#usualMs;
    const times = adaptive !== "path" && globalThis.document?.hidden ? 4 : 1;
    return Math.min(this.#usualMs * times, 0.75 * (this.#path?.limitMs ?? Infinity));
  }

  /** @param {EventSource} source @param {MessageEvent} message @param {number} askedMs the interval asked for */
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
    // A reset sets a new base. The server refuses a client that brings the id of a final goodbye: it is never kept.
    const isNews = type === "reset" || !isAtOrBefore(id, this.#delivered);
    const isFinal = isBye && frame.reconnect === false;
    if (!isFinal) this.#lastEventId = moved(this.#lastEventId, frame, id);

    if (type === "connected") this.#connected(frame);
    else if (isMain && !isBye && type !== "reset") {
      // A connection that breaks while its first frame is handled does not work.
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
        else if (reason !== "max_age") this.#reconnect(reason, retry);
        else {
          // As planned: the state changes only if the next connection takes long.
          this.#shut(source);
          if (!this.#next) this.#open();
        }
      }
      this.#store();
    }
  }

  /** The stored position. */
  get #stored() {
    const { persist, persistKey } = /** @type {any} */ (this.#options);
    return attempt(() => persist?.getItem(persistKey)) ?? "";
  }

  /** Stores the position, unless another page has stored a later one. */
  #store() {
    const { persist, persistKey } = /** @type {any} */ (this.#options);
    if (!isAtOrBefore(this.#lastEventId, this.#stored)) attempt(() => persist?.setItem(persistKey, this.#lastEventId));
  }

  /** @param {{client_id: string, heartbeat?: number, retry?: number, token?: string | null, tokens?: string[], ends?: number, streams?: number, as?: string, ticket?: string}} frame */
  #connected({ client_id, heartbeat = HEARTBEAT_MS / 1000, retry = RETRY_MS, token, tokens = token ? [token] : [], ends, streams, as = "", ticket = "" }) {
    this.#clientId = client_id;
    this.#ticket = ticket;
    this.#sendsAs = as;
    const { csrfToken, queue, transport, persistKey } = this.#options;
    // Now, since the network may be gone later, and an earlier page may have left messages to send.
    if (csrfToken ?? queue ?? transport ?? attempt(() => sessionStorage.getItem(`sse-live:queue ${persistKey}`))) this.#load().catch(() => {});
    this.#heartbeatMs = heartbeat * 1000;
    this.#borneMs = 0;
    if (!this.#askedMs) this.#usualMs = this.#heartbeatMs;
    this.#retryMs = retry;
    // Each replaces its own, if there were several: one for all would not tell which tab it belongs to.
    if (tokens.length) this.#url.searchParams.delete("token");
    for (const token of tokens) this.#url.searchParams.append("token", token);
    this.#stats.connects += 1;
    clearTimeout(this.#renewTimer);
    this.startHeartbeatMonitoring();
    if (ends) this.#renewIn(ends * 1000 - Math.min(RENEW_MS, ends * 250));
    if (/** @type {any} */ (streams) >= MANY) this.#hint("streams");
    this.#online();
  }

  /** @param {number} waitMs */
  #openIn(waitMs) { return setTimeout(() => this.#open(), Math.min(MAX_MS, waitMs)); }

  /** @param {number} waitMs */
  #renewIn(waitMs) {
    clearTimeout(this.#renewTimer);
    if (!this.#source && !this.#next || this.isShared) return;  // it renews by itself
    this.#renewTimer = this.#openIn(waitMs);
  }

  #online() {
    clearTimeout(this.#retryTimer);
    this.#become("connected", "connected");
  }

  /** @param {any} frame @param {string} lastEventId */
  #deliver(frame, lastEventId) {
    // A listener closed the stream just now.
    if (!this.#source && !this.#next) return;
    const { logger, logEvents, onEvent, persistKey } = this.#options;
    let { type, data } = frame;
    if (CONTROL.test(type)) data = frame;
    else {
      this.#stats.events += 1;
      logger?.[logEvents || !logger.debug ? "info" : "debug"]?.(`Real-time event received: ${type}`);
    }
    if (type === "reset") {
      const key = `sse-live:reset ${globalThis.location?.href} ${persistKey}`;
      const resetAt = /** @type {any} */ (attempt(() => sessionStorage.getItem(key)));
      if (this.#stats.connects < 2 && this.#madeAt >= resetAt && Date.now() - resetAt < RELOAD_MS) {
        // The page was drawn anew because of a reset, and is as old as before: from a cache, or with an old position.
        this.#hint("cached");
        type = "stale";
      } else attempt(() => sessionStorage.setItem(key, String(Date.now())));
    }
    const event = new MessageEvent(type, { data, lastEventId });
    this.dispatchEvent(event);
    onEvent?.(data, event, frame);
    if (type === "reset") this.onReset?.(data, event);
  }

  /** @param {any} source @param {string} url @param {any} event of a source with `reconnects`: perhaps why, or that it cannot share */
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
    // An EventSource that has given up was refused; any other has lost its network.
    else if (source.readyState === 2) this.#ask(url);
    else this.#reconnect(reason);
  }

  /** Whether the timer is late: the machine or the page slept, and the server was not waited for. */
  get #isLate() { return this.#now() - this.#monitorDue > 5_000; }

  /** Asks why a connection was refused. @param {string} url */
  async #ask(url) {
    this.#drop();
    if (this.#state === "connected") this.#become("reconnecting", "lost");
    const { reason = "lost", status, isFinal, waitMs } = await this.#loss(({ refusal }) => refusal(url, this.#options)) ?? {};
    // Opened again or closed meanwhile.
    if (this.#source || this.#next || this.#ended.signal.aborted) return;
    if (isFinal) return this.#end(reason, status);
    if (reason !== "refused") return this.#reconnect(reason, waitMs);
    // Not django-sse-live's answer: a proxy's during a deploy, a service worker's, a log-in page.
    this.#ticket = "";  // the url may have been too long
    this.#retry(undefined, REFUSED_RETRY_MS);
    this.#become("disconnected", reason, status);
  }

  /** Uses sse-live-loss.js, if it can be loaded. @param {(loss: any) => any} use @returns {Promise<any>} */
  #loss(use) { return load("loss", null, [0]).then(use).catch(() => {}); }

  /** @param {number} silentMs the silence after which the connection broke, or counts as broken */
  #learn(silentMs) {
    const borneMs = this.#borneMs;
    if (this.#state === "connected" && !this.#isLate) {
      this.#loss(({ Path }) => (this.#path ??= new Path()).broke(silentMs, borneMs));
    }
  }

  /** The next connection failed; the current one, if any, goes on. @param {string} reason @param {number} [toldMs] */
  #failed(reason, toldMs) {
    if (!this.#source) return this.#reconnect(reason, toldMs);
    this.#shut(this.#next);
    if (this.#state !== "connected") this.#retry(toldMs);
  }

  /**
   * Ends every connection, and opens the next one after a wait.
   * @param {string} reason
   * @param {number} [toldMs] the wait that the server told; 0 for none
   */
  #reconnect(reason, toldMs) {
    if (this.#ended.signal.aborted) return;
    this.#drop();
    if (this.#connectedMs > STEADY_MS) this.#waits = 0;
    this.#retry(toldMs);
    // A refused stream stays `disconnected` until it is let in.
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
    // In the back/forward cache, or frozen, a page cannot read a stream.
    if (type === "pagehide" || type === "freeze") {
      this.#drop();
      this.#notBefore = 0;
      this.#stats.connectedMs += this.#connectedMs;
      this.#since = Infinity;
    } else if (type === "prerenderingchange") this.#open();
    // For a navigation some browsers silently end every connection, even if the page stays, as for a download.
    else if (type === "beforeunload") this.#renewIn(STAYED_MS);
    // The browser may be wrong about the network: the connection is kept, and another one tried.
    else if (type === "offline") {
      if (this.#state !== "connected") return;
      this.#retry();
      this.#become("reconnecting", type);
    } else if (type !== "visibilitychange" || !hidden) this.#wake(type === "online");
  }

  /** Reconnects now instead of at the next check, if the stream may have died unnoticed, or its heartbeats are too rare now. */
  #wake(isNew = false) {
    if (isNew) this.#path = undefined;
    if (this.#now() - this.#lastHeartbeat >= this.#heartbeatMs * LATE || !(this.#source ? this.#state === "connected" : this.#next && !isNew)) this.#reconnect("woke", 0);
    // The server may have chosen a shorter interval than was asked for.
    else if (Math.min(this.#askedMs, this.#heartbeatMs) > this.#wish()) this.#open();
  }

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
   * Changes the state. The last step of a method, since a listener may close the stream.
   * @param {State} state
   * @param {string} reason
   * @param {number} [status]
   */
  #become(state, reason, status) {
    const previous = this.#state;
    // `unavailable` is news even to a page that is already reconnecting.
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
    this.#reason = reason;
    this.#since = now;
    if (state === "connected") this.#options.logger?.info("Real-time connection established");
    if (state === "reconnecting" && state !== previous) this.#options.logger?.warn("Connection lost, reconnecting...");
    this.dispatchEvent(new MessageEvent("statechange", { data: { state, previous, reason, status } }));
  }
}

/** The attributes that decide which stream an element has. */
const SAID = ["src", "channels"];
/** Which element dispatched an event, so that the page gets it once from several elements. The next: how many events are remembered. */
const heard = new Map();
const HEARD = 1_000;
/**
 * Done when the page has the last event so far. The next: how many events wait for a patch. One for all elements, since a row may
 * leave the channel of one and enter that of another, in this order.
 */
let turn = Promise.resolve();
let waits = 0;
/** Done when the page's listeners are there, those of deferred scripts too: no event comes before. */
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
 * "local" or "session"; `transport`, `queue` and `csrf-token`; words for the four states, `text-connecting` and so on, English by
 * default. With `share`, a name that is different for each user, the tabs of that name share one connection. `channels` has the
 * channels that the token grants, one a line. It sets `state`, and `stale` if the page could not be brought up to date. A change of
 * `src` or `channels` begins another stream; so does a `last-event-id` that goes back.
 */
export class SSELiveElement extends (globalThis.HTMLElement ?? Object) {
  static observedAttributes = ["src", "channels", "state", "hidden", "last-event-id"];

  /** The stream, once connected. @type {SSELive | null} */ live = null;
  /** Shows a state; undefined without a light. @type {((state: State) => void) | undefined} */ #light;
  /** The state shown. @type {State} */ #state = "connecting";
  /** Whether a patch failed. */ #isBehind = false;
  /** Messages that wait for the stream to begin. @type {((live: SSELive) => void)[]} */ #awaiting = [];
  /** The last id, which EventSource repeats for a frame without one. */ #lastId = "";
  /** The values of SAID when the current stream began. @type {(string | undefined)[]} */ #said = [];

  async connectedCallback() {
    this.#draw();
    // Moved within the page, or in the copy that Turbo shows while it fetches the page.
    if (this.live || this.closest("[data-turbo-preview]")) return;
    this.#show("connecting");
    await isReady();
    if (this.isConnected && !this.live) this.#connect();
  }

  /** Moving an element disconnects it and connects it again, as Turbo does a permanent one: that must not cost the stream. */
  disconnectedCallback() {
    setTimeout(() => {
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
      // A morph with the server's page may remove it, since only the browser knows the state.
      if (now !== this.#state) this.setAttribute(name, this.#state);
    } else queueMicrotask(() => {
      // Once, after all attributes have changed.
      if (!this.isConnected) return;
      this.#draw();
      // A morph takes the page back to before an event that came while its answer was on the way.
      const id = this.#attribute("last-event-id");
      if (!this.live || (!id || waits || isAtOrBefore(this.live.lastEventId, id, true)) && SAID.every((name, index) => this.#attribute(name) === this.#said[index])) return;
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

  /** Draws the light once, unless the element is hidden. */
  #draw() {
    if (this.hidden || this.#light) return;
    this.#light = () => {};
    this.#import("light").then(({ draw }) => {
      this.#light = draw(this);
      this.#light?.(this.#state);
    }, () => {});
  }

  /** @param {string} name */
  #attribute(name) { return this.getAttribute(name) ?? undefined; }

  async #connect() {
    // The job element must be defined before its first frame.
    if (this.hasAttribute("job-src")) await this.#import("job").catch(console.error);
    const EventSource = (this.hasAttribute("share") || document.querySelectorAll("sse-live")[1]) && await this.#import("share", [])
      .then(({ join }) => join(SSELive, this, () => this.#import("page", [])))
      .catch(console.warn);
    if (this.live || !this.isConnected) return;
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
      persist: attempt(() => /** @type {any} */ (globalThis)[this.#attribute("persist") + "Storage"]),
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
   * Dispatches events in order: an event after a patch waits until the patch is applied.
   * @param {any} data @param {MessageEvent} event @param {any} frame
   */
  #hear(data, { type, lastEventId: id }, frame) {
    // Not in the page: if it comes back, it goes on from before this event.
    if (!this.isConnected) return this.#leave();
    const position = this.live?.lastEventId ?? "";
    // One without an id of its own, as in a snapshot, is known by its content.
    const bubbles = this.#isFirst(JSON.stringify(id && id !== this.#lastId ? [type, id] : frame));
    this.#lastId = id;
    // Heartbeats load the files while they are there: the deploy that causes a reset may take them away.
    const isNeeded = /heartbeat|reset/.test(frame.type) && document.querySelector("[data-sse-live], [reset]");
    if (isNeeded) this.#import("patch", []).then(() => this.#import("refresh", [])).catch(() => {});
    const isPatch = bubbles && frame.patch || isNeeded && frame.type === "reset";
    const handOn = () => {
      if (type === "stale" && !isPatch) this.setAttribute("stale", "");
      this.#dispatch(type, data, id, bubbles);
      // If the element is put back later, it goes on from here; so do the page copies that libraries keep.
      if (frame.token) this.setAttribute("token", frame.token);
      if (!isAtOrBefore(position, this.#attribute("last-event-id") ?? "", true)) this.setAttribute("last-event-id", position);
    };
    if (!waits && !isPatch) return handOn();
    waits += 1;
    turn = turn.then(async () => {
      if (isPatch) await this.#patch(frame, id);
      waits -= 1;
      handOn();
    });
  }

  /**
   * Applies a patch. If the file for it cannot be loaded, the page is marked as stale; the next patch tries again, and then the page
   * is fetched anew.
   * @param {any} frame one with a patch, or a reset @param {string} id
   */
  async #patch(frame, id) {
    try {
      const { patch } = await this.#import("patch", this.#isBehind ? [0] : undefined);
      // An element that has gone meanwhile, as that of a finished job, leaves the patch to another one. On a newer page that knows it.
      const host = [this, .../** @type {any} */ (document.querySelectorAll("sse-live"))].find(({ live }) => live);
      if (host) await patch(this.#isBehind ? { type: "reset" } : frame, id, host, () => this.#import("refresh"));
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

  /** Whether no other element of this page with this stream has dispatched this event. @param {string} event */
  #isFirst(event) {
    event += this.live?.url.split("?")[0];
    const by = heard.get(event);
    if (by !== this && by?.isConnected) return false;
    if (heard.set(event, this).size > HEARD) heard.delete(heard.keys().next().value);
    return true;
  }

  /** @param {string} type @param {any} data @param {string} id @param {boolean} [bubbles] */
  #dispatch(type, data, id, bubbles = true) {
    this.dispatchEvent(new CustomEvent(`sse:${type}`, { bubbles, composed: true, detail: { type, data, id } }));
  }
}

// A page may load this file under two names, one with a hash: one element is enough.
globalThis.customElements?.get("sse-live") ?? globalThis.customElements?.define("sse-live", SSELiveElement);
