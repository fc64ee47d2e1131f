// The status light of <sse-live> and its words: drawn into the element, and read out. Loaded unless the element is hidden.
// It knows the four states; streams are unknown here.

/** @typedef {import("./sse-live.js").State} State */

/**
 * The page decides the looks: these are defaults of the custom properties; the parts are `light` and `text`. The light is full,
 * half or empty, so that its state shows without colour.
 */
const STYLE = `
:host { display: inline-block }
:host([hidden]) { display: none }
[part=status] { display: inline-flex; align-items: center; gap: var(--sse-live-gap, .5em) }
[part=light] {
  box-sizing: border-box; width: var(--sse-live-size, .75em); aspect-ratio: 1;
  border: .2em solid var(--colour); border-radius: 50%; forced-color-adjust: none;
  --colour: var(--sse-live-connecting, #bf8700); background: linear-gradient(90deg, var(--colour) 50%, transparent 50%);
}
:host([state=connected]) [part=light] { --colour: var(--sse-live-connected, #2da44e); background: var(--colour) }
:host([state=disconnected]) [part=light] { --colour: var(--sse-live-disconnected, #e5534b); background: none }
@media (prefers-reduced-motion: no-preference) {
  :host([state$=connecting]) [part=light] { animation: wait 1s infinite alternate }
}
@keyframes wait { to { opacity: .35 } }
`;

/** A shorter break, in ms, is not read out. */
const ANNOUNCE_MS = 5_000;

/** @type {Record<State, string>} */
const WORDS = { connecting: "Connecting…", connected: "Live", reconnecting: "Reconnecting…", disconnected: "Disconnected" };

/**
 * Draws the light into an element. Returns a function that shows a state there, or the current state's words again.
 * @param {HTMLElement} host
 * @returns {(state: State) => void}
 */
export function draw(host) {
  const root = host.attachShadow({ mode: "open" });
  try {
    const style = new CSSStyleSheet();  // unlike a <style>, allowed under a strict Content-Security-Policy
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
  } catch { /* a browser without them shows the words */ }
  // Node by node: innerHTML is not allowed where trusted types are required.
  const [status, light, text] = ["status", "light", "text"].map((part) => {
    const span = document.createElement("span");
    span.setAttribute("part", part);
    return span;
  });
  status.setAttribute("role", "status");
  status.append(light, text);
  root.append(status);

  /** The last state that was read out. @type {State | ""} */ let announced = "";
  /** The wait before a break is. @type {ReturnType<typeof setTimeout> | undefined} */ let timer;

  /** @type {State} */ let present;

  /** A break is shown at once, but read out only if it lasts. @param {State} state */
  function show(state) {
    present = state;
    const isQuiet = state === announced || state === "reconnecting" && announced === "connected";
    clearTimeout(timer);
    if (!isQuiet) announced = state;
    else if (state === "reconnecting") {
      timer = setTimeout(() => {
        announced = "";
        show(state);
      }, ANNOUNCE_MS);
    }
    status.setAttribute("aria-live", isQuiet ? "off" : "polite");
    text.textContent = host.getAttribute(`text-${state}`) ?? WORDS[state];
  }
  new MutationObserver(() => show(present)).observe(host, { attributeFilter: Object.keys(WORDS).map((state) => `text-${state}`) });
  return show;
}
