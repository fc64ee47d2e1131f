// Messages to the server, by POST or over a WebSocket, in order; the queue of those that cannot be sent now; and the WebSocket as an
// EventSource, which carries the stream too.
// It uses SSELive's public interface. The meaning of messages is unknown here.
//
// A message keeps its id when it is sent again, and the server handles each id once. So in doubt a message is sent again.

/** @typedef {import("./sse-live.js").SSELive} SSELive */
/** @typedef {import("./sse-live.js").Options} Options */
/** @typedef {import("./sse-live.js").Queue} Queue */
/** @typedef {import("./sse-live.js").SendOptions} SendOptions */
/** @typedef {{id: string, type: string, channel?: string, data: any, as: string, at: number}} Written a message in a storage */
/**
 * @typedef {Written & {queue: Queue, size: number, timeoutMs: number, resolve: (data: any) => void, reject: (error: SSELiveError) => void,
 *   isFound: boolean, carrier: object | null, attempt: AbortController, isUnknown: boolean, failures: number,
 *   timer?: ReturnType<typeof setTimeout>}} Message `isFound`: left in the storage by an earlier page; `carrier`: what it is being sent by
 */
/** @typedef {{error?: string, detail?: string, data?: any, csrf_token?: string}} Answer */

const TIMEOUT_MS = 10_000;
/** The server's limit. */
const MESSAGE_MAX_BYTES = 64 * 1024;
/** Limits of unanswered messages: their number. The next two: their bytes of data, and how long they are kept. */
const QUEUE_MESSAGES = 100;
const QUEUE_BYTES = 1024 * 1024;
const QUEUE_MS = 24 * 3_600_000;
/** At most this many are under way over a WebSocket: half of what the server queues. */
const UNDER_WAY = 20;
/** The wait before a message is sent again, unless the server tells another. */
const RETRY_MS = 1_000;
const MAX_RETRY_MS = 30_000;
/** A queued message whose handler fails is sent this often. */
const FAILURES = 3;

/** A WebSocket that is not open after this long, in ms, never will be: a proxy does not know WebSockets. */
const OPEN_MS = 2_500;
/** A WebSocket that breaks within this time, in ms, breaks young. The next: after this many in a row, no other is opened. */
const YOUNG_MS = 5_000;
const YOUNG_BREAKS = 2;
/** A WebSocket that is no longer used waits this long, in ms, for its open answers. */
const LINGER_MS = 2_000;

/** The longest timer, in ms: longer ones fire at once. */
const MAX_MS = 2 ** 31 - 1;

const POST = {};

/**
 * Runs what the browser may deny, such as using a storage. Undefined if it does.
 * @template T
 * @param {() => T} run
 */
function attempt(run) {
  try { return run(); } catch { /* denied, or full */ }
}

/** @param {() => void} run @param {number} ms */
const after = (run, ms) => setTimeout(run, Math.min(ms, MAX_MS));

/** 128 random bits; crypto.randomUUID() needs https. */
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Why a message has no answer. */
export class SSELiveError extends Error {
  name = "SSELiveError";

  /**
   * @param {string} error the server's word, or `outcome_unknown`, `unreachable`, `queue_full`, `expired`, `closed`
   * @param {object} [more]
   * @param {string} [more.detail] @param {number} [more.status] @param {boolean} [more.isTemporary] @param {string} [more.id]
   */
  constructor(error, { detail = error, status = 0, isTemporary = false, id = "" } = {}) {
    super(detail);
    /** A word for programs. */ this.error = error;
    /** The answer's; 0 without an answer. */ this.status = status;
    /** Whether the same message, with the same id, may succeed later. */ this.isTemporary = isTemporary;
    /** Of the message. */ this.id = id;
  }
}

/** Sends the messages of one stream. */
export class Sender {
  #live;
  #options;
  /** The unanswered messages, in order. @type {Message[]} */ #messages = [];
  /** The current WebSocket. @type {SocketSource | null} */ #socket = null;
  #Socket;
  #csrfToken;
  /** Waits in a row. */ #waits = 0;
  /** The wait before messages are sent again. @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** Whether the server has set that wait. */ #isTold = false;
  #hasSent = false;
  #youngBreaks = 0;
  /** Whether a WebSocket is being opened beside a working stream. */ #isTrial = false;
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
      if (message.queue === "none") message.timer = after(() => this.#timeOut(message), message.timeoutMs);
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
    // The next page sends what is in the storage, unless this visitor is no longer allowed here.
    if (!["closed", "token_expired"].includes(reason)) attempt(() => sessionStorage.removeItem(this.#key));
    const waiting = this.#messages.filter(({ carrier }) => !carrier);
    this.#messages = this.#messages.filter(({ carrier }) => carrier);
    for (const message of waiting) this.#refuse(message, "closed", { detail: reason, isTemporary: true });
  }

  /** The stream is connected, and names the user whose messages it takes. */
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

  /** Sends the messages that may be sent now. */
  #pump() {
    if (this.#timer || this.#isOver) return;
    const carrier = this.#socket ?? POST;
    for (const message of [...this.#messages]) {
      if (message.carrier) continue;
      // By POST, and of queued messages, only one is under way at a time, so that none overtakes another. At a change of carrier
      // the next waits until those under way are answered.
      const underWay = this.#messages.filter(({ carrier }) => carrier);
      const isAlone = carrier === POST || message.queue !== "none";
      if (underWay.length >= (isAlone ? 1 : UNDER_WAY) || underWay.some((other) => other.carrier !== carrier || other.queue !== "none")) return;
      // The user of a queued message must be known.
      if (message.queue !== "none" && (!message.as || message.as !== this.#live.sendsAs)) return;
      if (Date.now() - message.at > QUEUE_MS) {
        this.#settle(message, "expired");
        continue;
      }
      message.carrier = carrier;
      message.attempt = new AbortController();
      if (message.queue !== "none") message.timer = after(() => this.#timeOut(message), message.timeoutMs);
      const { id, type, channel, data, as } = message;
      const body = JSON.stringify({ id, type, channel, data, as: as || undefined, client_id: this.#live.clientId || undefined });
      if (carrier === POST) this.#post(message, body, message.attempt.signal);
      else this.#socket?.say(body);
    }
  }

  /** @param {Message} message @param {string} body @param {AbortSignal} signal */
  async #post(message, body, signal) {
    let status = 0;
    let retryAfter = "";
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
        retryAfter = answer.headers.get("Retry-After") ?? "";
        said = await answer.json();
      } catch { /* no network, or the answer of a proxy */ }
      if (signal.aborted) return;
      if (said?.error !== "csrf" || !said.csrf_token || isLast) break;
      this.#csrfToken = said.csrf_token;
    }
    const isOurs = status && (typeof said?.error === "string" || status === 200 && said && "data" in said);
    this.#answered(message, isOurs ? status : 0, isOurs ? said : {}, 1000 * +retryAfter || Date.parse(retryAfter) - Date.now());
  }

  /**
   * @param {Message} message
   * @param {number} status 0 without an answer of the server
   * @param {Answer} said
   * @param {number} toldMs the wait that the server tells, or NaN
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
    // The answer may have been lost; without a network none was on its way.
    const isLost = !status && globalThis.navigator?.onLine !== false;
    if (isTemporary && !this.#isOver && (isQueued || isLost || error === "running")) return this.#waitFor(toldMs);
    this.#waits = 0;
    this.#settle(message, error, { detail, status, isTemporary: isTemporary && error !== "server_error" });
    this.#pump();
  }

  /** @param {number} toldMs NaN: choose the wait here */
  #waitFor(toldMs) {
    clearTimeout(this.#timer);
    this.#isTold = toldMs > 0;
    const waitMs = this.#isTold ? toldMs * (1 + Math.random() / 4) : Math.min(MAX_RETRY_MS, RETRY_MS * 1.5 ** this.#waits++) * (0.5 + Math.random() / 2);
    this.#timer = after(() => this.#waitIsOver(), waitMs);
  }

  /** No answer came in time. @param {Message} message */
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

  /** Tells the page, which may not be the one that wrote the message. @param {Message} message @param {any} answer */
  #tell({ id, type, channel }, answer) {
    this.#live.dispatchEvent(new MessageEvent("answer", { data: { to: id, type, channel, ...answer } }));
  }

  // The storage, which other streams of this tab may write to

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

  /** Moves the stream to a WebSocket, which opens beside the current connection until that one is no longer needed. */
  upgrade() {
    const isGivenUp = this.#youngBreaks >= YOUNG_BREAKS || attempt(() => sessionStorage.getItem(this.#noSocketKey));
    // A shared stream does not belong to this page alone.
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

  /** The WebSocket carries the stream now. @param {SocketSource} socket @param {any} frame */
  opened(socket, { cookies }) {
    this.#socket = socket;
    this.#isTrial = false;
    if (!cookies) return;
    // A WebSocket cannot set cookies.
    fetch(this.#live.url, { method: "HEAD", cache: "no-store", credentials: this.#options.withCredentials ? "include" : "same-origin" }).catch(() => {});
  }

  /** Whether a WebSocket still owes an answer. @param {SocketSource} socket */
  isAwaited(socket) { return this.#messages.some(({ carrier }) => carrier === socket); }

  /** Sends nothing more over a WebSocket; its answers may still come. @param {SocketSource} socket */
  left(socket) {
    if (this.#socket === socket) this.#socket = null;
  }

  /** A WebSocket is gone: its unanswered messages are sent again, first. @param {SocketSource} socket */
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
   * A WebSocket ended by itself. Returns whether the stream goes on without WebSockets.
   * @param {boolean} wasOpen
   * @param {number} ageMs
   */
  broke(wasOpen, ageMs) {
    if (!wasOpen) {
      // Beside a working stream, the network is not the cause. Otherwise the next working stream tries again.
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

/** A WebSocket with the interface of an EventSource. */
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
  /** The time limit to open, then to close. @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /** @param {Sender} sender @param {string} url */
  constructor(sender, url) {
    this.#sender = sender;
    const address = new URL(url);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = this.#socket = attempt(() => new WebSocket(address.href));
    this.#timer = setTimeout(() => this.#broke(), socket ? OPEN_MS : 0);
    if (!socket) return;  // the browser does not allow it
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
    try {
      this.onmessage?.({ data: line, lastEventId: this.#lastEventId });
    } catch (error) { reportError(error); }  // of the page's own code, which costs no other frame
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
