// The way back: messages to the server, by POST or over a WebSocket, in order; the queue of those that cannot be sent now;
// and the WebSocket as an EventSource, which carries the stream too.
// Knows SSELive by what it shows; nothing of what messages mean.
//
// A message keeps its id however often it is sent, and the server handles an id once: whatever is in doubt is sent again.

/** @typedef {import("./sse-live.js").SSELive} SSELive */
/** @typedef {import("./sse-live.js").Options} Options */
/** @typedef {import("./sse-live.js").Queue} Queue */
/** @typedef {import("./sse-live.js").SendOptions} SendOptions */
/** @typedef {{id: string, type: string, channel?: string, data: any, as: string, at: number}} Written what is kept in a storage */
/**
 * @typedef {Written & {queue: Queue, size: number, timeoutMs: number, resolve: (data: any) => void, reject: (error: SSELiveError) => void,
 *   isFound: boolean, carrier: object | null, attempt: AbortController, isUnknown: boolean, failures: number,
 *   timer?: ReturnType<typeof setTimeout>}} Message `isFound`: in the storage, where a page before this one left it; `carrier`: what it is under way by
 */
/** @typedef {{error?: string, detail?: string, data?: any, csrf_token?: string}} Answer */

const TIMEOUT_MS = 10_000;
/** As the server takes them. */
const MESSAGE_MAX_BYTES = 64 * 1024;
/** What waits to be sent or answered: so many messages, so many bytes of data, and so long. */
const QUEUE_MESSAGES = 100;
const QUEUE_BYTES = 1024 * 1024;
const QUEUE_MS = 24 * 3_600_000;
/** So many are under way over a WebSocket at once: half of what the server lets wait. */
const UNDER_WAY = 20;
/** The wait before a message is sent again, where the server says no other. */
const RETRY_MS = 1_000;
const MAX_RETRY_MS = 30_000;
/** A handler that failed is asked so often, with a queue. */
const FAILURES = 3;

/** A WebSocket that is not open after so long, in ms, never will be: something in between does not know it. */
const OPEN_MS = 2_500;
/** One that breaks within so long, in ms, breaks young; so often in a row, and there is no other. */
const YOUNG_MS = 5_000;
const YOUNG_BREAKS = 2;
/** A WebSocket that is left waits so long, in ms, for the answers that it owes. */
const LINGER_MS = 2_000;

const POST = {};

/**
 * What the browser may deny, such as a storage: undefined then.
 * @template T
 * @param {() => T} run
 */
function attempt(run) {
  try { return run(); } catch { /* denied, or full */ }
}

/** 128 random bits; crypto.randomUUID() needs https. */
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Why a message has no answer. */
export class SSELiveError extends Error {
  name = "SSELiveError";

  /**
   * @param {string} error as the server calls it; or `outcome_unknown`, `unreachable`, `queue_full`, `expired`, `closed`
   * @param {object} [more]
   * @param {string} [more.detail] @param {number} [more.status] @param {boolean} [more.isTemporary] @param {string} [more.id]
   */
  constructor(error, { detail = error, status = 0, isTemporary = false, id = "" } = {}) {
    super(detail);
    /** For programs. */ this.error = error;
    /** Of the answer; 0 where none came. */ this.status = status;
    /** Whether the same message, with the same id, may fare better later. */ this.isTemporary = isTemporary;
    /** The message's. */ this.id = id;
  }
}

/** Sends the messages of one stream. */
export class Sender {
  #live;
  #options;
  /** All that are not answered, in order. @type {Message[]} */ #messages = [];
  /** The present WebSocket. @type {SocketSource | null} */ #socket = null;
  #Socket;
  #csrfToken;
  /** Waits in a row. */ #waits = 0;
  /** The wait before anything is sent again. @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** Whether the server told that wait. */ #isTold = false;
  #hasSent = false;
  #youngBreaks = 0;
  /** Whether the present attempt to open a WebSocket goes on beside a stream that lives. */ #isTrial = false;
  #ended = new AbortController();

  /** @param {SSELive} live @param {Options} options the stream's own, as they are now */
  constructor(live, options) {
    this.#live = live;
    this.#options = options;
    this.#csrfToken = options.csrfToken;
    const sender = this;
    this.#Socket = /** @type {any} */ (class extends SocketSource {
      /** @param {string} url */
      constructor(url) { super(sender, url); }
    });
    this.#messages = this.#stored.map((written) => this.#message(written, { queue: "storage" }));
    live.addEventListener("connected", () => this.#connected());
    globalThis.addEventListener?.("online", () => this.#wake(), { signal: this.#ended.signal });
    if (live.state === "connected") this.#connected();
  }

  get #isOver() { return this.#ended.signal.aborted; }

  get #key() { return `sse-live:queue ${this.#options.persistKey}`; }

  /** @param {Written} written @param {SendOptions} options @param {boolean} [isFound] @returns {Message} */
  #message(written, { queue = "none", timeoutMs = TIMEOUT_MS }, isFound = queue === "storage") {
    const size = new TextEncoder().encode(JSON.stringify(written.data)).length;
    return { ...written, queue, size, timeoutMs, isFound, resolve() {}, reject() {}, carrier: null, attempt: new AbortController(), isUnknown: false,
      failures: 0 };
  }

  /** @param {string} type @param {any} data the sender's own @param {SendOptions} [options] @returns {Promise<any>} */
  async send(type, data, { channel, id = newId(), timeoutMs, queue = this.#options.queue } = {}) {
    const written = { id, type, channel, data, as: this.#live.sendsAs, at: Date.now() };
    const message = this.#message(written, { queue, timeoutMs }, false);
    const bytes = this.#messages.reduce((sum, { size }) => sum + size, message.size);
    /** @type {Promise<any>} */ const answer = new Promise((resolve, reject) => Object.assign(message, { resolve, reject }));
    if (this.#isOver) this.#refuse(message, "closed");
    else if (message.size > MESSAGE_MAX_BYTES) this.#refuse(message, "too_large", { status: 413 });
    else if (this.#messages.length >= QUEUE_MESSAGES || bytes > QUEUE_BYTES) this.#refuse(message, "queue_full", { isTemporary: true });
    else {
      this.#messages.push(message);
      this.#keep(message);
      if (message.queue === "none") message.timer = setTimeout(() => this.#timeOut(message), message.timeoutMs);
      this.#pump();
      if (!this.#hasSent) {
        this.#hasSent = true;
        if (this.#live.state === "connected") this.#upgradeIfWished();
      }
    }
    return answer;
  }

  /** The stream is over. @param {string} reason */
  end(reason) {
    this.#ended.abort();
    clearTimeout(this.#timer);
    // What is in the storage is the next page's; not so where this visitor may not be here any more.
    if (!["closed", "token_expired"].includes(reason)) attempt(() => sessionStorage.removeItem(this.#key));
    const waiting = this.#messages.filter(({ carrier }) => !carrier);
    this.#messages = this.#messages.filter(({ carrier }) => carrier);
    for (const message of waiting) this.#refuse(message, "closed", { detail: reason, isTemporary: true });
  }

  /** The stream is there, and says whose messages it takes. */
  #connected() {
    const as = this.#live.sendsAs;
    for (const message of as ? [...this.#messages] : []) {
      if (message.carrier) continue;
      if (!message.as && !message.isFound) {
        message.as = as;
        this.#keep(message);
      }
      if (message.as !== as) this.#settle(message, "other_user", { status: 409 });
    }
    this.#upgradeIfWished();
    this.#wake();
  }

  #wake() {
    if (!this.#isTold) this.#waitIsOver();
  }

  #waitIsOver() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isTold = false;
    this.#pump();
  }

  /** Sends what may be sent now. */
  #pump() {
    if (this.#timer || this.#isOver) return;
    const carrier = this.#socket ?? POST;
    for (const message of [...this.#messages]) {
      if (message.carrier) continue;
      // One at a time by POST, and of those that are sent again if need be: none may overtake another. At a change of carrier
      // the next waits until those under way are answered.
      const underWay = this.#messages.filter(({ carrier }) => carrier);
      const isAlone = carrier === POST || message.queue !== "none";
      if (underWay.length >= (isAlone ? 1 : UNDER_WAY) || underWay.some((other) => other.carrier !== carrier || other.queue !== "none")) return;
      // Whose it is must be known.
      if (message.queue !== "none" && (!message.as || message.as !== this.#live.sendsAs)) return;
      if (Date.now() - message.at > QUEUE_MS) {
        this.#settle(message, "expired");
        continue;
      }
      message.carrier = carrier;
      message.attempt = new AbortController();
      if (message.queue !== "none") message.timer = setTimeout(() => this.#timeOut(message), message.timeoutMs);
      const { id, type, channel, data, as } = message;
      const body = JSON.stringify({ id, type, channel, data, as: as || undefined, client_id: this.#live.clientId || undefined });
      if (carrier === POST) this.#post(message, body, message.attempt.signal);
      else this.#socket?.say(body);
    }
  }

  /** @param {Message} message @param {string} body @param {AbortSignal} signal */
  async #post(message, body, signal) {
    let status = 0;
    let after = "";
    /** @type {Answer} */ let said = {};
    for (const isLast of [false, true]) {
      const token = this.#csrfToken;
      try {
        const answer = await fetch(this.#live.url, {
          method: "POST", body, signal, cache: "no-store", redirect: "manual",
          headers: { "Content-Type": "application/json", Accept: "application/json", ...token && { "X-CSRFToken": token } },
          credentials: this.#options.withCredentials ? "include" : "same-origin",
        });
        status = answer.status;
        after = answer.headers.get("Retry-After") ?? "";
        said = await answer.json();
      } catch { /* no network; or not our server's answer, but that of something in between */ }
      if (signal.aborted) return;
      if (said?.error !== "csrf" || !said.csrf_token || isLast) break;
      this.#csrfToken = said.csrf_token;
    }
    const isOurs = status && (typeof said?.error === "string" || status === 200 && said && "data" in said);
    this.#answered(message, isOurs ? status : 0, isOurs ? said : {}, 1000 * +after || Date.parse(after) - Date.now());
  }

  /**
   * @param {Message} message
   * @param {number} status 0 where no answer of the server's came
   * @param {Answer} said
   * @param {number} toldMs the wait, where the server tells it; NaN
   */
  #answered(message, status, { error = "unreachable", detail, data }, toldMs) {
    const isQueued = message.queue !== "none";
    clearTimeout(isQueued ? message.timer : undefined);
    message.carrier = null;
    message.isUnknown ||= !status;
    if (status === 200) {
      this.#waits = 0;
      this.#settle(message, "", { data });
      return this.#pump();
    }
    const hasFailed = error === "server_error" && ++message.failures >= FAILURES;
    const isTemporary = !hasFailed && (status < 400 || [408, 425, 429].includes(status) || status >= 500 || error === "csrf" || error === "running");
    // An answer may have been lost; but where there is no network, none is awaited.
    const isLost = !status && globalThis.navigator?.onLine !== false;
    if (isTemporary && !this.#isOver && (isQueued || isLost || error === "running")) return this.#waitFor(toldMs);
    this.#waits = 0;
    this.#settle(message, error, { detail, status, isTemporary: isTemporary && error !== "server_error" });
    this.#pump();
  }

  /** @param {number} toldMs NaN for a wait of our own */
  #waitFor(toldMs) {
    clearTimeout(this.#timer);
    this.#isTold = toldMs > 0;
    const waitMs = this.#isTold ? toldMs * (1 + Math.random() / 4) : Math.min(MAX_RETRY_MS, RETRY_MS * 1.5 ** this.#waits++) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#waitIsOver(), waitMs);
  }

  /** No answer in time. @param {Message} message */
  #timeOut(message) {
    message.isUnknown ||= Boolean(message.carrier);
    message.attempt.abort();
    message.carrier = null;
    if (message.queue !== "none" && !this.#isOver) return this.#waitFor(NaN);
    this.#settle(message, message.isUnknown ? "outcome_unknown" : "unreachable", { isTemporary: true });
    this.#pump();
  }

  /** @param {Message} message @param {string} error "" for none @param {any} [more] */
  #settle(message, error, { data, ...more } = {}) {
    this.#messages = this.#messages.filter((other) => other !== message);
    clearTimeout(message.timer);
    this.#forget(message);
    if (error) return this.#refuse(message, error, more);
    message.resolve(data);
    this.#tell(message, { data });
  }

  /** @param {Message} message @param {string} error @param {any} [more] */
  #refuse(message, error, more) {
    const { id } = message;
    const reason = new SSELiveError(error, { ...more, id });
    clearTimeout(message.timer);
    message.reject(reason);
    this.#tell(message, { error, detail: reason.message, status: reason.status, isTemporary: reason.isTemporary });
  }

  /** To the page, which may be another one than that which wrote the message. @param {Message} message @param {any} answer */
  #tell({ id, type, channel }, answer) {
    this.#live.dispatchEvent(new MessageEvent("answer", { data: { to: id, type, channel, ...answer } }));
  }

  // The storage, which another stream of this tab may write to

  /** @returns {Written[]} */
  get #stored() {
    return attempt(() => Array.from(JSON.parse(sessionStorage.getItem(this.#key) ?? "[]"))) ?? [];
  }

  set #stored(kept) {
    attempt(() => kept.length ? sessionStorage.setItem(this.#key, JSON.stringify(kept)) : sessionStorage.removeItem(this.#key));
  }

  /** @param {Message} message */
  #keep({ queue, id, type, channel, data, as, at }) {
    if (queue !== "storage") return;
    const kept = this.#stored;
    const place = kept.findIndex((other) => other.id === id);
    kept.splice(place < 0 ? kept.length : place, 1, { id, type, channel, data, as, at });
    this.#stored = kept;
  }

  /** @param {Message} message */
  #forget({ queue, id }) {
    if (queue === "storage") this.#stored = this.#stored.filter((other) => other.id !== id);
  }

  // The WebSocket

  get #noSocketKey() { return `sse-live:no-socket ${new URL(this.#live.url).origin}`; }

  /** The stream goes on over a WebSocket: beside the present connection, until that one is not needed any more. */
  upgrade() {
    const isGivenUp = this.#youngBreaks >= YOUNG_BREAKS || attempt(() => sessionStorage.getItem(this.#noSocketKey));
    // One that is shared is not for this page alone.
    const { EventSource } = this.#options;
    const isShared = Boolean(/** @type {any} */ (EventSource)?.reconnects);
    if (!globalThis.WebSocket || isGivenUp || isShared || EventSource === this.#Socket) return;
    this.#isTrial = this.#live.state === "connected";
    this.#live.use(this.#Socket);
  }

  #upgradeIfWished() {
    const { transport } = this.#options;
    if (transport === "websocket" || transport === "auto" && this.#hasSent) this.upgrade();
  }

  #giveUp() {
    this.#youngBreaks = YOUNG_BREAKS;
    attempt(() => sessionStorage.setItem(this.#noSocketKey, "1"));
  }

  /** It carries the stream now. @param {SocketSource} socket @param {any} frame */
  opened(socket, { cookies }) {
    this.#socket = socket;
    this.#isTrial = false;
    if (!cookies) return;
    // A WebSocket cannot bring them.
    fetch(this.#live.url, { method: "HEAD", cache: "no-store", credentials: this.#options.withCredentials ? "include" : "same-origin" }).catch(() => {});
  }

  /** Whether an answer is still awaited over it. @param {SocketSource} socket */
  isAwaited(socket) { return this.#messages.some(({ carrier }) => carrier === socket); }

  /** Nothing more is sent over it; its answers may come. @param {SocketSource} socket */
  left(socket) {
    if (this.#socket === socket) this.#socket = null;
  }

  /** No answers will come over it: what was unanswered is sent again, first. @param {SocketSource} socket */
  lost(socket) {
    this.left(socket);
    for (const message of this.#messages) {
      if (message.carrier !== socket) continue;
      message.carrier = null;
      message.isUnknown = true;
      if (message.queue !== "none") clearTimeout(message.timer);
      if (this.#isOver) this.#settle(message, "outcome_unknown", { isTemporary: true });
    }
    this.#pump();
  }

  /** @param {SocketSource} socket @param {Answer & {to: string, status?: number, retry?: number}} answer */
  answer(socket, { to, status = 200, retry = NaN, ...said }) {
    const message = this.#messages.find(({ id, carrier }) => id === to && carrier === socket);
    if (message) this.#answered(message, said.error ? status : 200, said, retry);
    socket.closeIfLeft();
  }

  /**
   * One ended by itself. Gives whether the stream is to go on without.
   * @param {boolean} wasOpen
   * @param {number} ageMs
   */
  broke(wasOpen, ageMs) {
    if (!wasOpen) {
      // Beside a stream that lives, it is not the network. Otherwise the next stream that lives tries once more.
      if (this.#isTrial) this.#giveUp();
      this.#isTrial = false;
      return true;
    }
    this.#youngBreaks = ageMs < YOUNG_MS ? this.#youngBreaks + 1 : 0;
    if (this.#youngBreaks < YOUNG_BREAKS) return false;
    this.#giveUp();
    return true;
  }
}

/** A WebSocket as SSELive knows an EventSource. */
class SocketSource {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;

  readyState = SocketSource.CONNECTING;
  /** @type {((event: {data: string, lastEventId: string}) => void) | null} */ onmessage = null;
  /** @type {((event: {isAlone?: boolean}) => void) | null} */ onerror = null;

  #sender;
  /** @type {WebSocket | undefined} */ #socket;
  #lastEventId = "";
  #openedAt = 0;
  #isLeft = false;
  /** Until it is open, then until it is closed. @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /** @param {Sender} sender @param {string} url */
  constructor(sender, url) {
    this.#sender = sender;
    const address = new URL(url);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = this.#socket = attempt(() => new WebSocket(address.href));
    this.#timer = setTimeout(() => this.#broke(), socket ? OPEN_MS : 0);
    if (!socket) return;  // not allowed here
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.readyState = SocketSource.OPEN;
      this.#openedAt = performance.now();
    };
    socket.onmessage = ({ data }) => {
      for (const line of data.split("\n")) if (line) this.#hear(line);
    };
    socket.onclose = () => this.#broke();
  }

  /** @param {string} line */
  #hear(line) {
    const frame = JSON.parse(line);
    if (frame.type === "answer") return this.#sender.answer(this, frame);
    this.#lastEventId = frame.id ?? this.#lastEventId;
    if (frame.type === "connected" && this.onmessage) this.#sender.opened(this, frame);
    this.onmessage?.({ data: line, lastEventId: this.#lastEventId });
  }

  /** @param {string} text */
  say(text) { this.#socket?.send(text); }

  /** It ended, or never began. */
  #broke() {
    const { onerror } = this;
    const wasOpen = this.readyState === SocketSource.OPEN;
    this.readyState = SocketSource.CONNECTING;
    this.#end();
    if (onerror) onerror({ isAlone: this.#sender.broke(wasOpen, performance.now() - this.#openedAt) });
  }

  #end() {
    clearTimeout(this.#timer);
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
    this.#sender.lost(this);
  }

  close() {
    this.readyState = SocketSource.CLOSED;
    this.#isLeft = true;
    clearTimeout(this.#timer);
    this.#sender.left(this);
    this.#timer = setTimeout(() => this.#end(), LINGER_MS);
    this.closeIfLeft();
  }

  closeIfLeft() {
    if (this.#isLeft && !this.#sender.isAwaited(this)) this.#end();
  }
}
