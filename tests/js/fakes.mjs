// What the browser would give: an EventSource whose server is the test, a page, a clock.
import { mock } from "node:test";

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
    define("document", { baseURI: "http://localhost/", get hidden() { return page.isHidden; } });
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
    mock.timers.tick(ms);
  }
}

export class FakeStorage {
  #items = new Map();
  getItem(key) { return this.#items.get(key) ?? null; }
  setItem(key, value) { this.#items.set(key, value); }
  keys() { return [...this.#items.keys()]; }
}

/** Time passes in steps, so that the clock is right whenever a timer fires. */
export function pass(ms) {
  for (; ms > 0; ms -= 1000) mock.timers.tick(Math.min(ms, 1000));
}

/** Before each test: no connection yet, no page, and a clock that only the test moves. */
export function resetFakes() {
  mock.restoreAll();
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_764_150_000_000 });
  FakeEventSource.forget();
}
