// One connection for all tabs: an EventSource whose stream one tab holds and passes on to the others.
// It knows Web Locks and BroadcastChannel; SSELive keeps the one real stream alive.
//
// Every tab is a member. The one that holds the lock is also the leader: it keeps one stream, for the channels of all members, and a
// buffer of its frames. A member says hello with its position. The leader answers with the frames after it, from the buffer or by
// going back with the stream; from then on the member gets each frame as it comes. When the leader goes, the lock passes on, and
// all members say hello to the next one. In doubt a frame is sent again, and members drop the ones they know: nothing is lost, and
// nothing is heard twice. A member that cannot share is told to open its own stream: the browser denies sharing, or all members'
// channels together are too many for one stream.

/** @typedef {import("./sse-live.js").SSELive} SSELive */
/** @typedef {typeof import("./sse-live.js").SSELive} SSELiveClass */
/** @typedef {{id: string, position: string, channels: string[], parameters: [string, string][], isHidden: boolean}} Member */
/** @typedef {{frame: any, id: string}} Sent */
/** @typedef {{locks: Pick<LockManager, "request" | "query">, BroadcastChannel: new (name: string) => any}} Means */

/** A leader that does not answer a hello within this time, in ms, hangs: another tab takes its lock. */
const ANSWER_MS = 5_000;
/** A member without a stream asks again this often, in ms, in case its leader hangs. */
const ASK_AGAIN_MS = 15_000;
/** A new leader waits at most this long, in ms, for the members' hellos. */
const ROLL_CALL_MS = 1_000;
/** A leader opens its stream this many times without a wait, for new members. The next: then once in this many ms. */
const OPENS_AT_ONCE = 5;
const REOPEN_MS = 3_000;
/** Frames that a leader keeps for tabs that come late. */
const BUFFER_FRAMES = 1_000;

/** Statuses that mean too many channels, or too long a url. */
const TOO_MUCH = new Set([400, 414, 431]);

/** The url's parameters that may differ between tabs that share. */
const OWN_PARAMETERS = new Set(["channel", "token", "last_event_id", "heartbeat"]);

/**
 * An `EventSource` for {@link SSELive}'s options, with one connection for all tabs of this origin. It is the browser's own
 * `EventSource` if Web Locks or BroadcastChannel are missing (they need https or localhost) or denied.
 *
 * @param {SSELiveClass} Live
 * @param {object} options
 * @param {string} options.group the name of the tabs that share: different for each user
 * @param {string[]} [options.channels] that this tab's token grants; those in its url need not be repeated
 * @param {Means} [options.means] locks and channels other than the browser's
 * @returns {typeof EventSource}
 */
export function shared(Live, { group, channels = [], means }) {
  if (!group) throw new TypeError('shared() needs a group that is different for each user: shared(SSELive, { group: "user 7" })');
  try {
    means ??= { locks: navigator.locks, BroadcastChannel };
    means.locks.query;
    new means.BroadcastChannel(group).close();
  } catch {
    return globalThis.EventSource;
  }
  return /** @type {any} */ (class extends SharedEventSource {
    /** @param {string} url @param {EventSourceInit} [init] */
    constructor(url, init) { super(Live, group, channels, url, init, means); }
  });
}

/**
 * The `EventSource` of an element that shares its connection: with other tabs if it has `share`, else with the page's other elements
 * of the same stream, which switch to it too. Undefined for a single element.
 * @param {SSELiveClass} Live
 * @param {HTMLElement} host
 * @param {() => Promise<{means: Means}>} load loads locks and channels within one page
 * @returns {Promise<typeof EventSource | undefined>}
 */
export async function join(Live, host, load) {
  const address = (/** @type {Element} */ it) => new URL(it.getAttribute("src") ?? "", document.baseURI).href.split("?")[0] + it.getAttribute("share");
  /** @type {any[]} */ const elements = [...document.querySelectorAll("sse-live")];
  const group = host.getAttribute("share");
  const peers = elements.filter((it) => it !== host && "live" in it && address(it) === address(host));
  if (!group && !peers.length) return;
  const { means } = group ? { means: undefined } : await load();
  const sharedBy = (/** @type {Element} */ it) => shared(Live, { group: group ?? "page", channels: it.getAttribute("channels")?.split("\n"), means });
  for (const it of peers) if (it.live && !it.live.isShared) it.live.use(sharedBy(it));
  return sharedBy(host);
}

class SharedEventSource {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  static reconnects = true;

  readyState = SharedEventSource.CONNECTING;
  /** @type {((event: {data: string, lastEventId: string}) => void) | null} */ onmessage = null;
  /** @type {((event: {reason?: string, isAlone?: boolean}) => void) | null} */ onerror = null;

  #id = `${Math.random()}`;
  #SSELive;
  #url;
  #channels;
  #withCredentials;
  #position;
  /** The latest leader's term: what an earlier leader says, perhaps after a long sleep, is ignored. */ #term = 0;
  /** The leader's stream that this member is in. */ #stream = "";
  /** @type {Leader | null} */ #leader = null;
  #ended = new AbortController();
  #isPresent = false;
  /** Ends the wait for the lead. The next: ends the lead itself. */ #turn = new AbortController();
  /** @type {() => void} */ #resign = () => {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #answerTimer;

  /**
   * @param {SSELiveClass} Live
   * @param {string} group
   * @param {string[]} channels
   * @param {string} url
   * @param {EventSourceInit} [init]
   * @param {any} [means]
   */
  constructor(Live, group, channels, url, { withCredentials = false } = {}, { locks, BroadcastChannel } = /** @type {any} */ ({})) {
    /** @type {Means["locks"]} */ this.locks = locks;
    this.#SSELive = Live;
    this.#url = new URL(url);
    this.#withCredentials = withCredentials;
    const parameters = [...this.#url.searchParams];
    this.#channels = [...channels, ...this.#url.searchParams.getAll("channel")];
    this.#position = this.#url.searchParams.get("last_event_id") ?? "";
    const common = parameters.filter(([name]) => !OWN_PARAMETERS.has(name)).sort();
    this.name = `sse-live:${JSON.stringify([group, this.#url.origin + this.#url.pathname, common])}`;
    this.bus = new BroadcastChannel(this.name);
    this.bus.onmessage = (/** @type {any} */ { data }) => this.#hear(data);
    // Held while this tab lives, which tells leaders that it does: so it must be held before any hello.
    this.#hold(`${this.name}/${this.#id}`, () => {
      this.#isPresent = true;
      this.#queue();
      this.#hello();
    }, { signal: this.#ended.signal });
  }

  close() {
    this.readyState = SharedEventSource.CLOSED;
    clearTimeout(this.#answerTimer);
    this.#endLead();
    this.#turn.abort();
    this.#ended.abort();
    this.bus.close();
  }

  get #isClosed() { return this.readyState === SharedEventSource.CLOSED; }

  /**
   * Holds a lock until this source is closed, `whenHeld`'s argument is called, or the lock is stolen.
   * @param {string} name
   * @param {(release: () => void) => void} whenHeld
   * @param {LockOptions} options
   */
  #hold(name, whenHeld, options) {
    return this.locks.request(name, options, () => new Promise((/** @type {any} */ release) => {
      if (this.#isClosed) return release();
      this.#ended.signal.addEventListener("abort", release);
      whenHeld(release);
    })).catch(({ name }) => { if (name !== "AbortError") this.#stayAlone(); });
  }

  /** Waits in line for the lead. With `steal`, takes it from a leader that hangs. */
  async #queue({ steal = false } = {}) {
    this.#turn.abort();
    const turn = this.#turn = new AbortController();
    const whenHeld = (/** @type {() => void} */ release) => {
      this.#resign = release;
      this.#lead();
    };
    await this.#hold(this.name, whenHeld, steal ? { steal } : { signal: turn.signal });
    if (this.#isClosed || turn !== this.#turn) return;
    // Another tab took this one for dead, or it resigned.
    this.#endLead();
    this.#queue();
  }

  #endLead() {
    this.#leader?.close();
    this.#leader = null;
  }

  #lead() {
    // Later than every leader this tab knows, and than the clock.
    const term = Math.max(Date.now(), this.#term) + Math.random();
    this.#leader = new Leader(this.#SSELive, this, term, this.#url, this.#withCredentials);
    this.say({ type: "leader", term });
  }

  /** To every tab, this one included. @param {any} message */
  say(message) {
    if (this.#isClosed) return;
    this.bus.postMessage(message);
    this.#hear(message);
  }

  #hello() {
    clearTimeout(this.#answerTimer);
    const due = Date.now() + ANSWER_MS;
    this.#answerTimer = setTimeout(() => {
      // If the timer is late, this tab hung, and the answer may have arrived.
      if (Date.now() > due + ANSWER_MS) this.#hello();
      else this.#queue({ steal: true });
    }, ANSWER_MS);
    const parameters = [...this.#url.searchParams].filter(([name]) => name === "channel" || name === "token");
    const member = { id: this.#id, position: this.#position, channels: this.#channels, parameters,
      isHidden: document.hidden };
    this.say({ type: "hello", member });
  }

  /** @param {any} message */
  #hear(message) {
    if (this.#isClosed || !this.#isPresent) return;
    const { type, to, term, stream } = message;
    if (type === "hello") return this.#leader?.hear(message.member);
    if (term < this.#term) return;
    if (term > this.#term) {
      this.#term = term;
      this.#stream = "";
      if (this.#leader && this.#leader.term < term) this.#endLead();
      if (to !== this.#id) this.#hello();
    }
    if (to && to !== this.#id) return;
    if (type === "noted") this.#askAgainIn(ASK_AGAIN_MS);
    else if (type === "welcome") this.#welcome(message);
    else if (type === "back" && stream === this.#stream) this.#connected(message.connected);
    else if (type === "frame" && stream === this.#stream) this.#receive(message);
    else if (type === "lost") this.#fail(SharedEventSource.CONNECTING, message.reason);
    else if (type === "ended") this.#fail(SharedEventSource.CLOSED);
    else if (type === "alone") this.#stayAlone();
  }

  /** @param {number} ms */
  #askAgainIn(ms) {
    clearTimeout(this.#answerTimer);
    if (this.readyState !== SharedEventSource.OPEN) this.#answerTimer = setTimeout(() => this.#hello(), ms);
  }

  /** @param {{stream: string, connected: any, head: string, reset: string, missed: Sent[]}} message */
  #welcome({ stream, connected, head, reset, missed }) {
    this.#stream = stream;
    this.#position ||= head;
    this.#connected(connected);
    if (reset) this.#receive({ frame: { type: "reset", reason: "history_expired" }, id: reset });
    for (const sent of missed) this.#receive(sent);
  }

  /** @param {any} connected */
  #connected(connected) {
    this.readyState = SharedEventSource.OPEN;
    clearTimeout(this.#answerTimer);
    const { searchParams } = this.#url;
    const tokens = searchParams.has("token") ? connected.tokens[tokenKey(this.#channels)] ?? [] : [];
    if (tokens.length) searchParams.delete("token");
    for (const token of tokens) searchParams.append("token", token);
    this.#emit({ ...connected, tokens, token: tokens[0] ?? null }, this.#position);
  }

  /** @param {Sent & {isForAll?: boolean}} sent */
  #receive({ frame, id, isForAll = true }) {
    if (this.#isClosed) return;
    if (frame.type !== "reset" && frame.type !== "heartbeat" && this.#SSELive.isAtOrBefore(id, this.#position)) return;
    this.#position = this.#SSELive.moved(this.#position, frame, id);
    if (isForAll || frame.channels.some((/** @type {string} */ channel) => this.#channels.includes(channel))) {
      this.#emit(frame, id);
    }
  }

  /**
   * As from an EventSource of the browser, an error of the page's own code costs no other frame, and no other tab.
   * @param {any} frame @param {string} id
   */
  #emit(frame, id) {
    try {
      this.onmessage?.({ data: JSON.stringify(frame), lastEventId: id });
    } catch (error) { reportError(error); }
  }

  /** @param {number} readyState @param {string} [reason] why the leader's stream was lost */
  #fail(readyState, reason) {
    const { onerror } = this;
    if (readyState === SharedEventSource.CLOSED) this.close();
    this.readyState = readyState;
    if (readyState === SharedEventSource.CONNECTING) this.#askAgainIn(ASK_AGAIN_MS);
    onerror?.({ reason });
  }

  /** Has the page open a stream for this tab alone. */
  #stayAlone() {
    this.onerror?.({ isAlone: true });
  }

  /** Goes to the end of the line: this page is hidden, where timers run late, and another one is visible. */
  yield() {
    this.#endLead();
    this.#resign();
  }
}

/** Equal for tabs whose tokens grant the same channels: one of their tokens is enough. @param {string[]} channels */
const tokenKey = (channels) => JSON.stringify([...new Set(channels)].sort());

/** The number of the members' channels and tokens. @param {Member[]} members */
const size = (members) => new Set(members.flatMap(({ channels }) => [...channels, tokenKey(channels)])).size;

/** Holds the one stream. */
class Leader {
  /** @type {Map<string, Member>} */ #members = new Map();
  /** Ids of the members that the current stream was opened for. @type {Set<string>} */ #asked = new Set();
  /** Ids of the members in the current stream. @type {Set<string>} */ #inside = new Set();
  /** Channels named by living members, and by members at the current stream's opening. @type {Set<string>} */ #named = new Set();
  /** The current stream's tokens, for each set of channels. @type {Map<string, string[]>} */ #tokens = new Map();
  /** The most that one stream's members may ask for together, by size(): less than what was refused. */ #most = Infinity;
  /** @type {SSELive | null} */ #live = null;
  #stream = "";
  #streams = 0;
  /** The current stream's `connected` frame; null before it. @type {any} */ #connected = null;
  /** @type {Sent[]} */ #buffer = [];
  /** The buffer has every event after this position. The next: the last position. */ #floor = "";
  #head = "";
  /** The last id of this connection, which EventSource repeats for a frame without one. */ #lastId = "";
  /** Where the stream was before it went back for a member. */ #backFrom = "";
  #isClosed = false;
  #isOpening = false;
  #isStale = false;
  /** The time used up by its openings, REOPEN_MS each; in ms of performance.now(). */ #usedUntil = 0;
  /** @type {(() => void) | null} */ #hearRollCall = null;

  /**
   * @param {SSELiveClass} Live
   * @param {SharedEventSource} tab
   * @param {number} term
   * @param {URL} url
   * @param {boolean} withCredentials
   */
  constructor(Live, tab, term, url, withCredentials) {
    this.SSELive = Live;
    this.tab = tab;
    this.term = term;
    this.url = new URL(url);
    for (const name of OWN_PARAMETERS) this.url.searchParams.delete(name);
    this.withCredentials = withCredentials;
    this.#open();
  }

  close() {
    this.#isClosed = true;
    this.#live?.close();
  }

  /** @param {any} message */
  #say(message) {
    if (!this.#isClosed) this.tab.say({ ...message, term: this.term, stream: this.#stream });
  }

  /** A hello. @param {Member} member */
  hear(member) {
    this.#members.set(member.id, member);
    for (const channel of member.channels) this.#named.add(channel);
    this.#inside.delete(member.id);
    this.#say({ type: "noted", to: member.id });
    const present = this.#present();
    this.#hearRollCall?.();
    if (this.#isOpening) this.#isStale ||= !this.#hearRollCall;
    else if (document.hidden && !member.isHidden && !this.#connected) this.tab.yield();
    else if (!this.#live) this.#open();
    else if (this.#connected && this.#covers(member)) this.#welcome(member);
    else if (this.#connected) present.then(() => this.#admit(member));
  }

  /** Opens the stream anew for a member that it does not cover, if one stream can serve all living members. @param {Member} member */
  #admit(member) {
    if (this.#isClosed || this.#isOpening || !this.#connected || this.#asked.has(member.id)) return;
    if (this.#fitting().includes(member)) this.#open();
  }

  /** Whether the stream has what a member asks for, or was opened for it already: asking again would not help. */
  #covers(/** @type {Member} */ { id, channels, parameters }) {
    return this.#asked.has(id) || channels.every((channel) => this.#connected.channels.includes(channel))
      && (this.#tokens.has(tokenKey(channels)) || !parameters.some(([name]) => name === "token"));
  }

  /** The members that one stream can serve, oldest first, this tab's own before all; the others are sent away. */
  #fitting() {
    /** @type {Member[]} */ const fitting = [];
    for (const member of this.#members.values()) {
      if (!fitting.length || size([...fitting, member]) <= this.#most) fitting.push(member);
      else {
        this.#members.delete(member.id);
        this.#say({ type: "alone", to: member.id });
      }
    }
    return fitting;
  }

  /** Opens a new stream for the members that are there, in place of the one before. */
  async #open() {
    if (this.#isOpening) return;
    this.#isOpening = true;
    const now = performance.now();
    this.#usedUntil = Math.max(this.#usedUntil, now) + REOPEN_MS;
    const waitMs = this.#usedUntil - now - OPENS_AT_ONCE * REOPEN_MS;
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    do {
      this.#isStale = false;
      await this.#rollCall();
      if (this.#isClosed) return;
    } while (this.#isStale);
    this.#isOpening = false;
    const stream = this.#stream = `${this.term}/${++this.#streams}`;
    this.#live?.close();
    this.#connected = null;
    this.#inside.clear();
    const members = this.#fitting();
    const position = this.#earliest(members);
    this.#backFrom = position === this.#head ? "" : this.#head;
    this.#head ||= position;
    this.#buffer = [];
    this.#floor = position;
    const live = this.#live = new this.SSELive(this.#union(members), {
      lastEventId: position, adaptive: "path", logger: null, withCredentials: this.withCredentials,
      onEvent: (data, { lastEventId }, frame) => { if (stream === this.#stream) this.#receive(frame, lastEventId); },
    });
    live.on("statechange", ({ state, reason, status }) => {
      if (stream !== this.#stream || state === "connected") return;
      this.#connected = null;
      if (TOO_MUCH.has(status) && members.length > 1) {
        this.#most = size(members) - 1;
        this.#usedUntil = 0;  // without a wait, since each opening has fewer members
        this.#open();
      } else this.#say(state === "disconnected" ? { type: "ended" } : { type: "lost", reason });
    });
  }

  /** Waits for the hellos of living tabs, and forgets the members of tabs that are gone. */
  async #rollCall() {
    const present = await this.#present();
    await new Promise((/** @type {any} */ resolve) => {
      const timer = setTimeout(resolve, ROLL_CALL_MS);
      this.#hearRollCall = () => {
        if (![...present].every((id) => this.#members.has(id))) return;
        clearTimeout(timer);
        resolve();
      };
      this.#hearRollCall();
    });
    this.#hearRollCall = null;
  }

  /** The ids of the living tabs. Other members are forgotten. */
  async #present() {
    const prefix = `${this.tab.name}/`;
    const members = [...this.#members.keys()];  // a member that comes during the query is not among them
    const { held = [] } = await this.tab.locks.query();
    const present = new Set(held.flatMap(({ name = "" }) => name.startsWith(prefix) ? [name.slice(prefix.length)] : []));
    for (const id of members) if (!present.has(id)) this.#members.delete(id);
    return present;
  }

  /**
   * The position that serves all members. If they come from several epochs, the latest one counts; members of the others get a
   * reset.
   * @param {Member[]} members
   */
  #earliest(members) {
    const positions = [this.#head, ...members.map(({ position }) => position)].filter(Boolean);
    // 0 is a position too, before the first event. A stream that is opened without a position begins after it.
    const milliseconds = (/** @type {string} */ id) => +(/:(\d+)-/.exec(id)?.[1] ?? -1);
    const latest = positions.reduce((a, b) => milliseconds(b) > milliseconds(a) ? b : a, "");
    return positions.reduce((a, b) => this.SSELive.isAtOrBefore(b, a) ? b : a, latest);
  }

  /** @param {Member[]} members */
  #union(members) {
    const url = new URL(this.url);
    const channels = new Set();
    this.#tokens.clear();
    this.#asked = new Set(members.map(({ id }) => id));
    this.#named = new Set(members.flatMap((member) => member.channels));
    for (const member of members) {
      const tokens = member.parameters.flatMap(([name, value]) => name === "token" ? [value] : []);
      if (tokens.length) this.#tokens.set(tokenKey(member.channels), tokens);
      for (const [name, value] of member.parameters) if (name === "channel") channels.add(value);
    }
    for (const channel of channels) url.searchParams.append("channel", channel);
    for (const token of [...this.#tokens.values()].flat()) url.searchParams.append("token", token);
    return url;
  }

  /** @param {any} frame @param {string} id */
  #receive(frame, id) {
    const { type } = frame;
    if (type === "connected") return this.#nowConnected(frame, id);
    if (type === "goodbye") {
      // Members need not know that a stream is renewed, only that it is over.
      if (frame.reconnect === false) this.#say({ type: "frame", frame, id: "" });
      return;
    }
    if (type === "reset") {
      if (this.#backFrom) return this.#couldNotGoBack();
      this.#buffer = [];
      this.#floor = id;
    } else if (id === this.#lastId) id = "";  // of a snapshot: not buffered, and no position
    else if (type !== "heartbeat") {
      this.#buffer.push({ frame, id });
      if (this.#buffer.length > BUFFER_FRAMES) this.#floor = /** @type {Sent} */ (this.#buffer.shift()).id;
    }
    this.#lastId = id || this.#lastId;
    this.#head = id || this.#head;
    this.#backFrom = "";
    for (const member of this.#members.values()) {
      if (this.#inside.has(member.id)) member.position = this.SSELive.moved(member.position, frame, id);
    }
    this.#say({ type: "frame", frame, id, isForAll: this.#isForAll(frame) });
  }

  /**
   * Whether a frame is for every tab: its channel is fixed by the url, or the user's own. If the server does not tell those
   * channels, they are the ones that no tab named.
   */
  #isForAll({ channels = /** @type {string[]} */ ([]) }) {
    const own = this.#connected?.own ?? [];
    return !channels.length || channels.some((/** @type {string} */ channel) => own.includes(channel) || !this.#named.has(channel));
  }

  /** @param {any} frame @param {string} id */
  #nowConnected(frame, id) {
    this.#floor ||= id;
    this.#head ||= id;
    this.#lastId = id;
    this.#renewTokens(frame);
    this.#connected = { ...frame, tokens: Object.fromEntries(this.#tokens) };
    if ([...this.#members.values()].some((member) => !this.#covers(member))) return this.#open();
    this.#say({ type: "back", connected: this.#connected });
    for (const member of this.#members.values()) {
      if (this.#inside.has(member.id)) this.#giveTokens(member);
      else this.#welcome(member);
    }
  }

  /** Replaces old tokens by fresh ones, if the server tells which is which. @param {any} frame */
  #renewTokens({ token, tokens = token ? [token] : [] }) {
    if (tokens.length !== [...this.#tokens.values()].flat().length) return;
    const fresh = [...tokens];
    for (const [key, old] of this.#tokens) this.#tokens.set(key, fresh.splice(0, old.length));
  }

  /** Gives a member its fresh tokens, with which the next stream is opened. @param {Member} member */
  #giveTokens(member) {
    const others = member.parameters.filter(([name]) => name !== "token");
    const tokens = this.#tokens.get(tokenKey(member.channels));
    if (!tokens || others.length === member.parameters.length) return;
    member.parameters = [...others, ...tokens.map((token) => /** @type {[string, string]} */ (["token", token]))];
  }

  /** Lets a member into the stream, with the frames it missed. @param {Member} member */
  #welcome(member) {
    const { isAtOrBefore } = this.SSELive;
    const { id, position } = member;
    const isCovered = !position || isAtOrBefore(this.#floor, position);
    if (!isCovered && isAtOrBefore(position, this.#floor)) return this.#open();
    this.#inside.add(id);
    this.#giveTokens(member);
    member.position = isCovered ? position || this.#head : this.#head;
    const missed = position && isCovered ? this.#buffer.filter((sent) => !isAtOrBefore(sent.id, position)) : [];
    this.#say({ type: "welcome", to: id, connected: this.#connected, head: this.#head, reset: isCovered ? "" : this.#head,
      missed: missed.map((sent) => ({ ...sent, isForAll: this.#isForAll(sent.frame) })) });
  }

  /** The stream went back for members, but what they missed is gone: only they get a reset. */
  #couldNotGoBack() {
    this.#stream = "";  // the frames that follow come again, after those members got their reset
    for (const member of this.#members.values()) {
      if (this.SSELive.isAtOrBefore(this.#backFrom, member.position)) continue;
      // An id of no epoch, which gets a reset.
      member.position = "gone";
    }
    this.#open();
  }
}
