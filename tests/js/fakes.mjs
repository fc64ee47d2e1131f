// What the browser would give: an EventSource whose server is the test, a page, a clock.
import { mock } from "node:test";

// What takes the time of a file in a browser takes none here.
import "../../django_sse_live/static/django_sse_live/sse-live-light.js";
import "../../django_sse_live/static/django_sse_live/sse-live-loss.js";

export class FakeEventSource {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  /** Every one made since `forget`, oldest first. */
  static made = [];
  static get last() { return this.made.at(-1); }
  static forget() { this.made = []; }

  #lastEventId = "";

  constructor(url, { withCredentials }) {
    Object.assign(this, { url, withCredentials, readyState: 0, onmessage: null, onerror: null });
    FakeEventSource.made.push(this);
  }

  get parameters() { return new URL(this.url).searchParams; }

  /** A frame of the envelope form. As in browsers, the last id of the connection stays until another comes. */
  send(frame, id) {
    this.readyState = 1;
    if (id !== undefined) this.#lastEventId = id;
    this.onmessage?.({ data: JSON.stringify(frame), lastEventId: this.#lastEventId });
  }

  connected(more = {}, id) {
    this.send({ type: "connected", client_id: "c1", channels: ["comments"], heartbeat: 30, resumed: false, token: null, ...more }, id);
  }

  event(type, data, id) {
    this.send({ type, channels: ["comments"], data }, id);
  }

  heartbeat(id) {
    this.send({ type: "heartbeat", timestamp: new Date().toISOString() }, id);
  }

  /** The network broke: a browser would try again by itself. */
  break() {
    this.readyState = 0;
    this.onerror?.({});
  }

  /** The server answered, and not with a stream: a browser gives up. */
  refuse() {
    this.readyState = 2;
    this.onerror?.({});
  }

  close() { this.readyState = 2; }
}

/** A WebSocket whose server is the test. */
export class FakeWebSocket {
  /** Every one made since `forget`, oldest first. */
  static made = [];
  static get last() { return this.made.at(-1); }
  static forget() { this.made = []; }

  /** The messages that were sent over it. */
  sent = [];
  isClosed = false;

  constructor(url) {
    Object.assign(this, { url, onopen: null, onmessage: null, onclose: null });
    FakeWebSocket.made.push(this);
  }

  get parameters() { return new URL(this.url).searchParams; }

  open() { this.onopen?.({}); }

  /** Frames, a line each, in one. */
  say(...frames) { this.onmessage?.({ data: `${frames.map((frame) => JSON.stringify(frame)).join("\n")}\n` }); }

  connected(more = {}) {
    this.open();
    this.say({ type: "connected", client_id: "w1", channels: ["comments"], heartbeat: 30, resumed: true, token: null, as: "u7", ...more });
  }

  event(type, data, id) { this.say({ type, channels: ["comments"], data, id }); }

  /** Of the oldest message that is not answered yet. */
  answer(more = { data: null }) { this.say({ type: "answer", to: this.sent[this.answered++].id, ...more }); }
  answered = 0;

  send(text) { this.sent.push(JSON.parse(text)); }

  /** Denied, if it was not open. */
  break() { this.onclose?.({ code: 1006 }); }

  close() { this.isClosed = true; }
}

/** The page that the stream lives in: window, document and navigator, as far as the client looks at them. */
export class FakePage extends EventTarget {
  isHidden = false;
  isOnline = true;
  beacons = [];

  constructor() {
    super();
    const define = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true });
    const page = this;
    define("addEventListener", this.addEventListener.bind(this));
    define("document", {
      baseURI: "http://localhost/", readyState: "complete", get hidden() { return page.isHidden; },
      createElement: () => new FakeElement(), querySelector: () => null, querySelectorAll: () => [],
    });
    define("navigator", {
      get onLine() { return page.isOnline; },
      sendBeacon: (...beacon) => page.beacons.push(beacon),
    });
  }

  fire(type) { this.dispatchEvent(new Event(type)); }

  hide() {
    this.isHidden = true;
    this.fire("visibilitychange");
  }

  show() {
    this.isHidden = false;
    this.fire("visibilitychange");
  }

  goOffline() {
    this.isOnline = false;
    this.fire("offline");
  }

  goOnline() {
    this.isOnline = true;
    this.fire("online");
  }

  /** The clock goes on, and no timer fires until it is over. */
  sleep(ms) {
    tick(ms);
  }
}

export class FakeStorage {
  #items = new Map();
  getItem(key) { return this.#items.get(key) ?? null; }
  setItem(key, value) { this.#items.set(key, value); }
  removeItem(key) { this.#items.delete(key); }
  keys() { return [...this.#items.keys()]; }
}

/** What has passed since the test began, and what the clock on the wall was moved by, in ms. */
let passed = 0;
let moved = 0;

function tick(ms) {
  passed += ms;
  mock.timers.tick(ms);
}

/** Time passes in steps, so that the clock is right whenever a timer fires. */
export function pass(ms) {
  for (; ms > 0; ms -= 1000) tick(Math.min(ms, 1000));
}

/** Somebody sets the clock on the wall. */
export function moveClock(ms) {
  moved += ms;
}

/** Before each test: no connection yet, no page, and a clock that only the test moves. */
export function resetFakes() {
  mock.restoreAll();
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  passed = moved = 0;
  mock.method(Date, "now", () => 1_764_150_000_000 + passed + moved);
  mock.method(performance, "now", () => passed);
  // https://html.spec.whatwg.org/multipage/timers-and-user-prompts.html: a timeout is a signed 32-bit number
  const { setTimeout } = globalThis;
  mock.method(globalThis, "setTimeout", (run, ms = 0) => setTimeout(run, ms > 2 ** 31 - 1 ? 1 : ms));
  FakeEventSource.forget();
  FakeWebSocket.forget();
}

/** An element, as far as ours needs one; defined before its module is imported. */
export class FakeElement extends EventTarget {
  isConnected = false;
  shadowRoot = null;
  textContent = "";
  children = [];
  #attributes = new Map();
  /** Of its attributes: what is called, and for which. */
  observers = [];

  getAttribute(name) { return this.#attributes.get(name) ?? null; }
  hasAttribute(name) { return this.#attributes.has(name); }
  setAttribute(name, value) { this.#change(name, String(value)); }
  removeAttribute(name) { this.#change(name, null); }

  #change(name, value) {
    const before = this.getAttribute(name);
    if (value === null) this.#attributes.delete(name);
    else this.#attributes.set(name, value);
    for (const [run, names] of this.observers) if (names.includes(name)) run();
    if (this.constructor.observedAttributes?.includes(name)) this.attributeChangedCallback(name, before, value);
  }

  append(...nodes) { this.children.push(...nodes); }

  /** What it stands in: only the attribute that a selector names is looked at. */
  closest() { return this.isConnected && document.isPreview ? {} : null; }

  /** As where trusted types are required. */
  set innerHTML(html) { throw new TypeError("This document requires 'TrustedHTML' assignment."); }

  attachShadow() {
    this.shadowRoot = new FakeElement();
    return this.shadowRoot;
  }

  get text() { return this.textContent || this.children.map(({ text }) => text).join(""); }

  /** Into the page, and out of it. */
  enter() {
    this.isConnected = true;
    return this.connectedCallback();
  }

  leave() {
    this.isConnected = false;
    this.disconnectedCallback();
  }
}

/** The globals that elements need; gives what was defined. */
export function giveDOM() {
  const defined = new Map();
  const define = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  define("HTMLElement", FakeElement);
  define("CSSStyleSheet", class { replaceSync() {} });
  define("MutationObserver", class {
    constructor(run) { this.run = run; }
    observe(element, { attributeFilter }) { element.observers.push([this.run, attributeFilter]); }
  });
  define("CustomEvent", class extends Event {
    constructor(type, { detail, ...init }) {
      super(type, init);
      this.detail = detail;
    }
  });
  define("customElements", {
    get: (name) => defined.get(name),
    define(name, element) {
      if (defined.has(name)) throw new DOMException(`the name "${name}" has already been used`, "NotSupportedError");
      defined.set(name, element);
    },
  });
  return defined;
}
