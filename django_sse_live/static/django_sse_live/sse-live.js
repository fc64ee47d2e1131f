// One live stream from the server, kept alive: SSELive, and the <sse-live> element that shows how it fares.
// Knows the wire of django-sse-live (its envelope form) and nothing of what the events mean.

/**
 * The waits before a new connection, in ms: the first as it stands, where neither the server nor the page says another; later
 * ones anything up to a limit that grows.
 */
const RETRY_MS = 2_000;
const MAX_RETRY_MS = 30_000;
/** By this factor: slow enough that a crowd is back soon after its server, spread over the while, with no long tail. */
const RETRY_GROWTH = 1.5;
/** Until the server announces its own interval, in ms. */
const HEARTBEAT_MS = 30_000;
/** The stream is looked at no less often than this, in ms, and is dead after so many intervals without a frame. */
const CHECK_MS = 30_000;
const DEAD_AFTER_INTERVALS = 2;
/** What a frame may be late by before its interval counts as missed. */
const LATE = 1.25;
/** A connection that held this long worked, also if it said nothing; the waits begin anew after it. */
const STEADY_MS = 5_000;
/** Timers that are longer than this fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** A question why the stream was refused gets no longer than this, in ms. */
const ASK_MS = 10_000;

/** Frames about the stream itself: their data is the whole frame, an event's is what was broadcast. */
const CONTROL = /^(connected|heartbeat|reset|goodbye|sse\..*)$/;

const EVENT_ID = /^(.+):(\d+)-(\d+)$/;

/**
 * Whether the event id `id` stands at or before `other`. Only ids of one epoch can be compared.
 * @param {string} id
 * @param {string} other
 */
export function isAtOrBefore(id, other) {
  const [, epoch, ms, sequence] = EVENT_ID.exec(id) ?? [];
  const [, otherEpoch, otherMs, otherSequence] = EVENT_ID.exec(other) ?? [];
  return epoch !== undefined && epoch === otherEpoch && (+ms - +otherMs || +sequence - +otherSequence) <= 0;
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

/** @param {string} pathname @param {string[]} channels */
const persistKey = (pathname, channels) => `sse-live:${pathname}?${channels}`;

/** @param {any} EventSource */
const isSelfHealing = (EventSource) => Boolean(EventSource?.reconnects);

const isOffline = () => globalThis.navigator?.onLine === false;

/**
 * The interval to ask the server for. Proxies and firewalls cut a connection that idles too long for them; hidden pages
 * can do with fewer heartbeats. The rule:
 *
 * 1. A connection that breaks after a silence of at least 3 s, longer than any that it had borne, was perhaps cut for it.
 *    Two in a row after about the same silence (within 15 %) were: that is the path's limit, and three quarters of it are
 *    asked for.
 * 2. A connection that falls silent without breaking counts as cut after two thirds of its interval: the path forgot it,
 *    nobody knows when. So two in a row halve the interval.
 * 3. Otherwise a visible page takes the server's own interval, and a hidden one asks for four times that.
 * 4. On another network all of this is forgotten.
 *
 * The server holds what is asked for within its bounds, and announces what is in force.
 */
export class HeartbeatPolicy {
  /** The server's own interval; 0 until it is known. */ usualMs = 0;
  /** The interval in force. */ #presentMs = 0;
  /** The longest silence that this connection has borne. */ #borneMs = 0;
  /** The silence at which the path cuts. */ #limitMs = Infinity;
  /** After what silence the last connection was perhaps cut. */ #suspectMs = 0;

  /** A new connection. @param {number} ms its interval @param {boolean} wasAsked whether that was our wish */
  connected(ms, wasAsked) {
    this.#presentMs = ms;
    this.#borneMs = 0;
    if (!wasAsked) this.usualMs = ms;
  }

  /** @param {number} silentMs the silence before a frame */
  heard(silentMs) {
    this.#borneMs = Math.max(this.#borneMs, silentMs);
  }

  /** @param {number} silentMs the silence before the connection broke */
  broke(silentMs) {
    if (silentMs < 3_000 || silentMs < 0.9 * this.#borneMs) return;
    const isAgain = Math.abs(silentMs - this.#suspectMs) <= 0.15 * this.#suspectMs;
    if (isAgain) this.#limitMs = Math.min(this.#limitMs, silentMs, this.#suspectMs);
    this.#suspectMs = silentMs;
  }

  /** The connection did not break, but nothing came any more. */
  fellSilent() {
    this.broke(this.#presentMs / 1.5);
  }

  forget() {
    this.#limitMs = Infinity;
    this.#suspectMs = 0;
  }

  /** The interval wanted, in ms; 0 as long as the server's own is not known. @param {boolean} isHidden */
  wish(isHidden) {
    return Math.min(this.usualMs * (isHidden ? 4 : 1), 0.75 * this.#limitMs);
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
 * @property {string} [token] a signed subscription; the fresh one that each connection brings takes its place
 * @property {string} [lastEventId] the position after which events are wanted; by default, from now on
 * @property {Storage | null} [persist] `localStorage` or `sessionStorage`: keep the position there, so that the next page
 *   gets what was missed in between
 * @property {string} [persistKey] under which name; by default the url's path and its channels
 * @property {(data: any, event: MessageEvent) => void} [onReset] events were lost that cannot be had again:
 *   fetch the state anew
 * @property {(data: any, event: MessageEvent, frame: any) => void} [onEvent] called with every frame, whatever its type
 * @property {string | URL} [statsUrl] where `stats` are posted when the page is left, as JSON
 * @property {boolean | "path"} [adaptive] see {@link HeartbeatPolicy}; "path": whether the page is hidden does not matter;
 *   false: the server's interval always
 * @property {boolean} [withCredentials] send cookies to another origin too
 * @property {number} [retryMs] the first wait before a new connection; by default the server's
 * @property {number} [maxRetryMs] the longest such wait
 * @property {Pick<Console, "info" | "warn"> | null} [logger] the console; null for silence
 * @property {typeof EventSource} [EventSource] one that sets its static `reconnects` comes back from an error by itself; where
 *   the error says `isAlone`, the browser's own takes its place
 */

/**
 * A live stream. Dispatches each event of the stream as a `MessageEvent` of its type, with the decoded `data` and
 * the `lastEventId`; and `statechange`, whose data is a {@link Change}.
 *
 *     const live = new SSELive("/events/?channel=comments");
 *     live.on("new_comment", (comment) => show(comment));
 */
export class SSELive extends EventTarget {
  static isAtOrBefore = isAtOrBefore;
  static moved = moved;

  /** @type {URL} */ #url;
  /** @type {Options} */ #options;
  /** @type {State} */ #state = "connecting";
  /** The one connection; null while there is none. @type {EventSource | null} */ #source = null;
  #lastEventId;
  /** What was delivered before this connection: its replay may overlap it. */ #delivered = "";
  #clientId = "";
  #lastHeartbeat = 0;
  /** From performance.now() to ms since 1970. */ #offsetMs = 0;
  #heartbeatMs = HEARTBEAT_MS;
  #heartbeat = new HeartbeatPolicy();
  /** The interval that this connection asked for; 0 for none. */ #askedMs = 0;
  /** Waits since the last connection that worked. */ #waits = 0;
  /** The first wait that the server would have. */ #retryMs = RETRY_MS;
  /** The server told us to wait until then: nothing but sleep cuts that short. */ #notBefore = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retryTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #monitorTimer;
  /** When that timer is due. */ #monitorDue = 0;
  /** What `on` added, so that `off` can find it. @type {Map<string, Map<Function, EventListener>>} */
  #listeners = new Map();
  /** Aborted when the stream ends: takes the page's listeners off. */ #ended = new AbortController();
  #stats = { connects: 0, reconnects: /** @type {Record<string, number>} */ ({}), events: 0, missedHeartbeats: 0,
    connectedMs: 0, lastRecoveryMs: 0, longestRecoveryMs: 0 };
  /** When the present state began (never, if the page sleeps in it), why, and when the last loss was. */ #since = 0;
  #reason = "";
  #lostAt = 0;

  /** Called at each `reset`: events were lost that cannot be had again, so fetch the state anew. */
  onReset;

  /**
   * Connects at once.
   * @param {string | URL} url the stream's, with its `channel` parameters if it has any
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super();
    this.#url = new URL(url, globalThis.document?.baseURI);
    const { pathname, searchParams } = this.#url;
    this.#options = { adaptive: true, logger: console,
      persistKey: persistKey(pathname, searchParams.getAll("channel")), ...options };
    if (options.token) searchParams.set("token", options.token);
    this.#lastEventId = this.#stored() || options.lastEventId || "";
    this.#since = this.#now();
    this.onReset = options.onReset;
    for (const type of ["online", "offline", "visibilitychange", "pagehide", "pageshow", "freeze", "resume"]) {
      globalThis.addEventListener?.(
        type, () => this.#onPage(type), { capture: true, signal: this.#ended.signal });
    }
    if (isOffline()) this.#reconnect("offline");
    else this.#open();
  }

  /** @returns {State} */
  get state() { return this.#state; }

  /** When the last sign of life came, in ms since 1970; every frame is one. */
  get lastHeartbeat() { return Math.round(this.#lastHeartbeat); }

  /** The position up to which events have been delivered; "" before the first is known. */
  get lastEventId() { return this.#lastEventId; }

  /** The server's name for the present connection. */
  get clientId() { return this.#clientId; }

  /** The stream's url, with the freshest token. */
  get url() { return this.#url.href; }

  /** How the stream fared so far: times in ms, and reconnects counted by their reason. */
  get stats() {
    const { reconnects, connectedMs, ...rest } = this.#stats;
    return { ...rest, reconnects: { ...reconnects }, connectedMs: Math.round(connectedMs + this.#connectedMs), heartbeatMs: this.#heartbeatMs };
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
   * @param {string} type an event's type, or `statechange`
   * @param {(data: any, event: MessageEvent) => void} callback
   */
  on(type, callback) {
    const callbacks = this.#listeners.get(type) ?? new Map();
    this.#listeners.set(type, callbacks);
    if (!callbacks.has(callback)) {
      const listener = (/** @type {any} */ event) => callback(event.data, event);
      callbacks.set(callback, listener);
      this.addEventListener(type, listener);
    }
    return this;
  }

  /**
   * @param {string} type
   * @param {(data: any, event: MessageEvent) => void} callback what was given to `on`
   */
  off(type, callback) {
    const listener = this.#listeners.get(type)?.get(callback);
    if (listener) this.removeEventListener(type, listener);
    this.#listeners.get(type)?.delete(callback);
    return this;
  }

  /** Ends the stream for good. */
  close() { this.#end("closed"); }

  /**
   * Watches for a stream that has fallen silent: looks at least every 30 s, and takes it for dead after two intervals
   * without a frame. Every connection starts it by itself.
   */
  startHeartbeatMonitoring() {
    clearTimeout(this.#monitorTimer);
    if (!this.#source) return;
    const now = this.#now();
    const left = this.#lastHeartbeat + DEAD_AFTER_INTERVALS * this.#heartbeatMs - now;
    if (left <= 0) return this.#fellSilent();
    const wait = Math.min(left, this.#heartbeatMs, CHECK_MS);
    this.#monitorDue = now + wait;
    this.#monitorTimer = setTimeout(() => this.startHeartbeatMonitoring(), wait);
  }

  #open() {
    const url = new URL(this.#url);
    url.searchParams.set("format", "envelope");
    if (this.#lastEventId) url.searchParams.set("last_event_id", this.#lastEventId);
    const wishMs = this.#wish();
    this.#askedMs = wishMs === this.#heartbeat.usualMs ? 0 : wishMs;
    if (this.#askedMs) url.searchParams.set("heartbeat", String(Math.floor(this.#askedMs / 1000)));
    this.#delivered = this.#lastEventId;
    this.#notBefore = 0;
    const { EventSource = globalThis.EventSource, withCredentials = false } = this.#options;
    const source = this.#source = new EventSource(url.href, { withCredentials });
    source.onmessage = (event) => this.#receive(event);
    source.onerror = (event) => this.#broke(source, url.href, event);
    this.#lastHeartbeat = this.#now();  // so that a server which accepts and then says nothing is noticed too
    this.startHeartbeatMonitoring();
  }

  #wish() {
    const { adaptive, EventSource = globalThis.EventSource } = this.#options;
    if (isSelfHealing(EventSource)) return this.#heartbeat.usualMs;  // the stream is not for this page alone
    const isHidden = adaptive !== "path" && Boolean(globalThis.document?.hidden);
    return adaptive ? this.#heartbeat.wish(isHidden) : this.#heartbeat.usualMs;
  }

  /** @param {MessageEvent} message */
  #receive({ data: text, lastEventId: id }) {
    const frame = JSON.parse(text);
    const { type } = frame;
    const isControl = CONTROL.test(type);
    const silentMs = this.#now() - this.#lastHeartbeat;
    this.#stats.missedHeartbeats += Math.floor(silentMs / (this.#heartbeatMs * LATE));
    this.#lastHeartbeat += silentMs;
    this.#heartbeat.heard(silentMs);
    // A reset re-bases. The id of a final goodbye is the server's mark to refuse us: never to be brought back.
    const isNews = type === "reset" || !isAtOrBefore(id, this.#delivered);
    const isFinal = type === "goodbye" && frame.reconnect === false;
    if (isNews && id && !isFinal) this.#lastEventId = id;

    if (type === "connected") this.#connected(frame);
    else if (type !== "goodbye" && type !== "reset") this.#waits = 0;  // one that dies of its first words does not work
    try {
      if (isControl || isNews) this.#deliver(type, isControl ? frame : frame.data, id, frame);
    } finally {
      if (isFinal) this.#end(frame.reason);
      else if (type === "goodbye") this.#reconnect(frame.reason, frame.retry);
      this.#store();
    }
  }

  #stored() {
    const { persist, persistKey = "" } = this.#options;
    try { return persist?.getItem(persistKey); } catch { /* denied: as if nothing had been kept */ }
  }

  #store() {
    const { persist, persistKey = "" } = this.#options;
    try { persist?.setItem(persistKey, this.#lastEventId); } catch { /* denied, or full: the next page goes on from an earlier position */ }
  }

  /** @param {{client_id: string, heartbeat?: number, retry?: number, token?: string | null, tokens?: string[]}} frame */
  #connected({ client_id, heartbeat = HEARTBEAT_MS / 1000, retry = RETRY_MS, token, tokens = token ? [token] : [] }) {
    this.#clientId = client_id;
    this.#heartbeatMs = heartbeat * 1000;
    this.#heartbeat.connected(this.#heartbeatMs, this.#askedMs > 0);
    this.#retryMs = retry;
    // Each by itself, where there were several: one for all of them would not tell what belongs to whom.
    if (tokens.length) this.#url.searchParams.delete("token");
    for (const each of tokens) this.#url.searchParams.append("token", each);
    this.#stats.connects += 1;
    this.startHeartbeatMonitoring();
    this.#become("connected", "connected");
  }

  /**
   * @param {string} type
   * @param {any} data
   * @param {string} lastEventId
   * @param {any} frame
   */
  #deliver(type, data, lastEventId, frame) {
    if (!this.#source) return;  // a listener has just closed the stream
    if (!CONTROL.test(type)) {
      this.#stats.events += 1;
      this.#options.logger?.info(`Real-time event received: ${type}`);
    }
    const event = new MessageEvent(type, { data, lastEventId });
    this.dispatchEvent(event);
    this.#options.onEvent?.(data, event, frame);
    if (type === "reset") this.onReset?.(data, event);
  }

  /** @param {any} source @param {string} url @param {any} event one that reconnects may say why, or that it cannot share */
  #broke(source, url, { reason = "lost", isAlone = false } = {}) {
    if (isAlone) {
      this.#drop();
      this.#options.EventSource = undefined;
      return this.#open();
    }
    if (isSelfHealing(source.constructor) && source.readyState !== source.constructor.CLOSED) {
      clearTimeout(this.#monitorTimer);
      return this.#become("reconnecting", reason);
    }
    if (this.#state === "connected" && !this.#isLate) this.#heartbeat.broke(this.#now() - this.#lastHeartbeat);
    // An EventSource that gave up was refused; one that did not lost its network.
    if (source.readyState === 2) this.#ask(url);
    else this.#reconnect("lost");
  }

  #fellSilent() {
    this.#stats.missedHeartbeats += DEAD_AFTER_INTERVALS;
    if (this.#state === "connected" && !this.#isLate) this.#heartbeat.fellSilent();
    this.#reconnect("silent", this.#isLate ? 0 : undefined);
  }

  /** A timer that comes late: the machine slept, or the page did. Nobody has waited for the server meanwhile. */
  get #isLate() { return this.#now() - this.#monitorDue > 5_000; }

  /** Why was the stream refused? EventSource does not say. @param {string} url */
  async #ask(url) {
    this.#drop();
    if (this.#state === "connected") this.#become("reconnecting", "lost");
    /** @type {Response | undefined} */ let answer;
    try {
      answer = await fetch(url, {
        method: "HEAD", cache: "no-store", headers: { Accept: "text/event-stream" },
        credentials: this.#options.withCredentials ? "include" : "same-origin", signal: AbortSignal.timeout(ASK_MS),
      });
    } catch { /* no network, or no server: wait, as for any loss */ }
    if (this.#source || this.#state === "disconnected") return;  // opened again or closed meanwhile
    const { status = 0, headers = new Headers(), redirected = false } = answer ?? {};
    const isTemporary = [408, 425, 429].includes(status) || status >= 500 && status !== 501;
    const isPage = redirected && !headers.get("Content-Type")?.startsWith("text/event-stream");  // a log-in page
    if (status === 204) return this.#end("closed", status);
    if (status >= 400 && !isTemporary || isPage) return this.#end(headers.get("SSE-Live-Error") ?? "refused", status);
    const after = headers.get("Retry-After");
    const waitMs = after ? 1000 * +after || Date.parse(after) - Date.now() : NaN;
    this.#reconnect(isTemporary ? "unavailable" : "lost", waitMs > 0 ? waitMs * (1 + Math.random() / 4) : undefined);
  }

  /**
   * Ends this connection, and opens the next one after a wait.
   * @param {string} reason
   * @param {number} [toldMs] the wait, where the server told it; 0 for now
   */
  #reconnect(reason, toldMs) {
    if (this.#state === "disconnected") return;
    this.#drop();
    if (this.#connectedMs > STEADY_MS) this.#waits = 0;
    const now = this.#now();
    if (toldMs) this.#notBefore = now + toldMs;
    const waitMs = Math.max(toldMs ?? this.#backoff(), this.#notBefore - now);
    this.#waits += 1;
    if (!isOffline()) this.#retryTimer = setTimeout(() => this.#open(), Math.min(waitMs, MAX_TIMER_MS));
    this.#become("reconnecting", reason);
  }

  #backoff() {
    const { retryMs = this.#retryMs, maxRetryMs = MAX_RETRY_MS } = this.#options;
    return this.#waits ? Math.random() * Math.min(maxRetryMs, retryMs * RETRY_GROWTH ** this.#waits) : retryMs;
  }

  /** The page goes to sleep, wakes up, or changes networks. @param {string} type */
  #onPage(type) {
    if (type === "pagehide") this.#sendStats();
    // A page in the back/forward cache and a frozen one can hold no stream that anyone reads.
    if (type === "pagehide" || type === "freeze") return this.#sleep();
    if (type === "offline") return this.#reconnect("offline", 0);
    if (type === "online") this.#heartbeat.forget();
    if (type !== "visibilitychange" || !document.hidden) this.#wake();
  }

  #sleep() {
    this.#drop();
    this.#notBefore = 0;
    this.#stats.connectedMs += this.#connectedMs;
    this.#since = Infinity;
  }

  /** Reconnects now, not at the next look, if the stream may have died unnoticed or its heartbeats are too rare by now. */
  #wake() {
    const isFresh = this.#now() - this.#lastHeartbeat < this.#heartbeatMs * LATE;
    // Of what was asked for, the server may have granted less.
    const everyMs = this.#state === "connected" ? Math.min(this.#askedMs, this.#heartbeatMs) : this.#askedMs;
    if (this.#source && isFresh && everyMs <= this.#wish()) return;
    this.#reconnect("woke", 0);
  }

  #sendStats() {
    const { statsUrl } = this.#options;
    if (statsUrl) navigator.sendBeacon(statsUrl, new Blob([JSON.stringify(this.stats)], { type: "application/json" }));
  }

  /** @param {string} reason @param {number} [status] */
  #end(reason, status) {
    this.#drop();
    this.#ended.abort();
    this.#become("disconnected", reason, status);
  }

  #drop() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#monitorTimer);
    if (!this.#source) return;
    this.#source.onmessage = this.#source.onerror = null;
    this.#source.close();
    this.#source = null;
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

/** Looks are the page's: these are defaults for the custom properties, and the parts are `light` and `text`. */
const STYLE = `
:host { display: inline-block }
:host([hidden]) { display: none }
[part=status] { display: inline-flex; align-items: center; gap: var(--sse-live-gap, .5em) }
[part=light] {
  box-sizing: border-box; inline-size: var(--sse-live-size, .75em); block-size: var(--sse-live-size, .75em);
  border: .2em solid var(--colour); border-radius: 50%; forced-color-adjust: none;
  --colour: var(--sse-live-connecting, #bf8700); background: linear-gradient(90deg, var(--colour) 50%, transparent 50%);
}
/* Full, half, empty: so that it can be told without colour. */
:host([state=connected]) [part=light] { --colour: var(--sse-live-connected, #2da44e); background: var(--colour) }
:host([state=disconnected]) [part=light] { --colour: var(--sse-live-disconnected, #e5534b); background: none }
@media (prefers-reduced-motion: no-preference) {
  :host(:is([state=connecting], [state=reconnecting])) [part=light] { animation: wait 1s ease-in-out infinite alternate }
}
@keyframes wait { to { opacity: .35 } }
`;

/** @type {Record<State, string>} */
const WORDS = { connecting: "Connecting…", connected: "Live", reconnecting: "Reconnecting…", disconnected: "Disconnected" };

/** The page's own listeners are on by then, those of deferred scripts too: no event comes before them. */
const whenPageIsReady = () => document.readyState === "complete" ? Promise.resolve() : new Promise((resolve) => {
  addEventListener("DOMContentLoaded", resolve, { once: true });
  addEventListener("load", resolve, { once: true });
});

/**
 * `<sse-live src="/events/?channel=comments">`: a stream for as long as it is in the page, a status light, and every
 * event as a bubbling `CustomEvent` named `sse:<type>`, with `detail = {type, data, id}`.
 *
 * Attributes: `src`; `token`, `last-event-id` and `stats-url` as in {@link Options}; `persist`, "local" or "session"; the words
 * for the four states, `text-connecting` and so on, English by default. With `share`, a name that is different for each user,
 * the tabs of that name share one connection, and `channels` names those that the token grants, one a line. It sets `state`.
 * Where `src` or `channels` change, the stream is another one.
 */
export class SSELiveElement extends (globalThis.HTMLElement ?? Object) {
  static observedAttributes = ["src", "channels", "state"];

  /** The stream, once connected. @type {SSELive | null} */ live = null;
  /** @type {HTMLElement | undefined} */ #text;
  /** What is shown. @type {State | ""} */ #state = "";
  /** The stream of before, gone on with as long as the page says nothing else. @type {SSELive | null} */ #left = null;
  /** What the page said when the present stream began, or that one. @type {Record<string, string | undefined>} */ #said = {};

  async connectedCallback() {
    if (!this.shadowRoot) this.#draw();
    if (this.live) return;  // only moved within the page
    this.#show("connecting");
    await whenPageIsReady();
    if (this.isConnected && !this.live) this.#connect();
  }

  /** Moving an element disconnects it and connects it again at once: that must not cost the stream. */
  disconnectedCallback() {
    queueMicrotask(() => {
      if (this.isConnected || !this.live) return;
      this.live.close();
      // Put back later, it goes on from where it was.
      this.#left = this.live;
      this.live = null;
    });
  }

  /** @param {string} name @param {string | null} before @param {string | null} now */
  attributeChangedCallback(name, before, now) {
    if (name === "state") {
      // Who brings the page up to date with one from the server takes off what only we know.
      if (this.#state && now !== this.#state) this.setAttribute("state", this.#state);
    } else queueMicrotask(() => {
      // Once, when all attributes have been changed.
      const { live } = this;
      if (!this.isConnected || !live || this.#isSaid("src") && this.#isSaid("channels")) return;
      this.#left = live;
      this.live = null;
      live.close();
      this.#show("connecting");
      this.#connect();
    });
  }

  #draw() {
    const root = this.attachShadow({ mode: "open" });
    const style = new CSSStyleSheet();  // unlike a <style>, allowed under a strict Content-Security-Policy
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    // Node by node: innerHTML is not allowed where trusted types are required.
    const [status, light, text] = ["status", "light", "text"].map((part) => {
      const span = document.createElement("span");
      span.setAttribute("part", part);
      return span;
    });
    status.setAttribute("role", "status");
    status.setAttribute("aria-live", "polite");
    status.append(light, text);
    root.append(status);
    this.#text = text;
  }

  /** @param {string} name */
  #attribute(name) { return this.getAttribute(name) ?? undefined; }

  /** Whether an attribute is what it was when the stream began. @param {string} name */
  #isSaid(name) { return this.#attribute(name) === this.#said[name]; }

  async #connect() {
    const group = this.#attribute("share");
    const shared = group && await this.#importShared();
    if (!this.isConnected || this.live) return;
    const left = this.#left;
    const isSame = left && ["src", "token", "channels"].every((name) => this.#isSaid(name));
    const lastEventId = left && this.#isSaid("last-event-id") ? left.lastEventId : this.#attribute("last-event-id");
    this.#said = Object.fromEntries(["src", "token", "channels", "last-event-id"].map((name) => [name, this.#attribute(name)]));
    const { src = "", token } = this.#said;
    const channels = this.#said.channels?.split("\n") ?? [];
    const { pathname, searchParams } = new URL(src, document.baseURI);
    const live = this.live = new SSELive(isSame ? left.url : src, {
      token: isSame ? undefined : token,
      lastEventId,
      statsUrl: this.#attribute("stats-url"),
      persist: this.#storage(),
      persistKey: persistKey(pathname, [...searchParams.getAll("channel"), ...channels]),
      ...shared && { EventSource: shared(SSELive, { group, channels }) },
      onEvent: (data, { type, lastEventId: id }) => this.#dispatch(type, data, id),
    });
    this.#left = null;
    this.#show(live.state);
    live.on("statechange", (data) => {
      if (live !== this.live) return;
      this.#show(data.state);
      this.#dispatch("statechange", data, "");
    });
  }

  /** Null where the browser allows none. */
  #storage() {
    const place = this.#attribute("persist");
    try {
      return place ? (place === "session" ? sessionStorage : localStorage) : null;
    } catch {
      return null;
    }
  }

  /** The page names the file, whose name may carry a hash. Where it cannot be had, the page has a stream of its own. */
  async #importShared() {
    const source = this.#attribute("share-src");
    try {
      const file = new URL(source ?? "sse-live-share.js", source === undefined ? import.meta.url : document.baseURI);
      return (await import(file.href)).shared;
    } catch (error) {
      console.warn("This page shares no stream:", error);
    }
  }

  /** @param {State} state */
  #show(state) {
    this.#state = state;
    this.setAttribute("state", state);
    if (this.#text) this.#text.textContent = this.getAttribute(`text-${state}`) ?? WORDS[state];
  }

  /** @param {string} type @param {any} data @param {string} id */
  #dispatch(type, data, id) {
    this.dispatchEvent(new CustomEvent(`sse:${type}`, { bubbles: true, composed: true, detail: { type, data, id } }));
  }
}

// A page may load this file under two names, one with a hash: one element is enough.
if (!globalThis.customElements?.get("sse-live")) globalThis.customElements?.define("sse-live", SSELiveElement);
