// Fetches the page as the server draws it now, and has its regions taken from it. Loaded at the first reset of a page with regions,
// or at the first `refresh`. Knows when to ask and what an answer is worth; nothing of how a region is taken.
//
// One fetch at a time; what is asked for meanwhile is one more. What an answer is worth:
//   the page                               its regions are taken, with the patches that it does not know; one that it lacks stays
//   the page of an earlier position        from a cache, or a worker that lags: asked for once more past every cache, then taken
//   no network, 408, 425, 429, 5xx, 15 s   asked for again, with the stream's waits
//   another status, a redirect elsewhere   nothing changes but that the page is stale, and says so, until a later fetch succeeds
// A visitor who has gone elsewhere meanwhile gets the regions of that page, or, where the element is gone, nothing.

/** A fetch gets no longer than this, in ms. */
const FETCH_MS = 15_000;
/** Pages that all fetch because of one event spread that over no less than this, in ms. */
const SPREAD_MS = 300;
/** For so long after a click, a choice or a submit, in ms, a refresh is taken for what comes of it. */
const ACT_MS = 3_000;
/** The waits before it is asked for again: those of the stream, in ms. */
const RETRY_MS = 2_000;
const MAX_RETRY_MS = 30_000;
const RETRY_GROWTH = 1.5;
const CONTROL = "input, textarea, select";

/**
 * @typedef {import("./sse-live.js").SSELiveElement} Host
 * @typedef {import("./sse-live-patch.js").Entry} Entry
 *
 * @typedef {object} Page what sse-live-patch.js lends
 * @property {Host} host where the last frame came from
 * @property {string} position of that frame
 * @property {boolean} isReset whether it is a reset that nobody has answered yet
 * @property {() => Promise<typeof import("./sse-live-refresh.js")>} load this file
 * @property {Set<string>} wanted the regions that are to be fetched, by id
 * @property {WeakMap<Element, string>} positions up to where a region was fetched
 * @property {Set<Entry>} journal the patches of the last minute
 * @property {MutationObserver} observer looks for regions that are not of our making
 * @property {(patch: Entry["patch"], root: Document) => any} perform
 * @property {(old: Element, fresh: Element) => Element} become
 * @property {(fresh: Element) => Element} prepared
 * @property {(element: Element) => void} announce
 * @property {{createHTML: (html: string) => any}} policy
 * @property {(control: Element) => boolean} isChanged
 */

/** @type {Page} */
let page;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
let isFetching = false;
/** Fetches that failed, one after the other. */
let failures = 0;
/** What a final answer has left as it was: the next fetch, whatever it is for, is for it too. @type {string[]} */
let refused = [];
/** When the visitor did something last. This file may have been loaded because of it. */
let actedAt = navigator.userActivation?.isActive ? performance.now() : -Infinity;
for (const type of ["click", "change", "submit"]) addEventListener(type, () => { actedAt = performance.now(); }, { capture: true });

document.addEventListener("visibilitychange", () => {
  if (page.wanted.size && !timer) fetchWanted();
});

/** Fetches what is wanted, soon. @param {Page} lent */
export function refresh(lent) {
  const { isReset, host } = page = lent;
  page.isReset = false;
  if (isReset && host.getAttribute("reset") === "reload" && mayReload()) location.reload();
  if (isReset || !hasActed()) return fetchIn(spreadMs());
  clearTimeout(timer);
  fetchWanted();
}

const hasActed = () => performance.now() - actedAt < ACT_MS;

const spreadMs = () => Math.random() * Math.max(SPREAD_MS, page.host.live?.spreadMs ?? 0);

/** @param {number} ms */
function fetchIn(ms) {
  if (page.wanted.size && !isFetching) timer ??= setTimeout(fetchWanted, ms);
}

/** Once for each reset: a page that came by a reload and is reset at once came from a cache, or begins too far back. */
function mayReload() {
  const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  const isAgain = page.host.live?.stats.connects === 1 && navigation.type === "reload";
  const isTyped = document.querySelector("[contenteditable]") || [...document.querySelectorAll(CONTROL)].some(page.isChanged);
  return !isAgain && !isTyped;
}

/** The visitor's page, without the place in it. */
const here = () => location.href.split("#")[0];

async function fetchWanted() {
  timer = undefined;
  if (isFetching || document.hidden || !page.wanted.size) return;  // the end of that fetch asks again, and so does a page that is seen
  const { host, position } = page;
  const regions = [...new Set([...page.wanted, ...refused])];
  const url = here();
  const began = performance.now();
  page.wanted.clear();
  isFetching = true;
  const answer = await ask(url, position);
  isFetching = false;
  if (host.live && here() !== url) wantAgain(regions, 0);
  else if (host.live && answer === null) wantAgain(regions, failures++ ? Math.random() * Math.min(MAX_RETRY_MS, RETRY_MS * RETRY_GROWTH ** failures) : RETRY_MS);
  else if (host.live) {
    failures = 0;
    refused = typeof answer === "number" ? regions : [];
    host.toggleAttribute("stale", typeof answer === "number");
    if (typeof answer === "number") sayStale(host, answer);
    else if (answer) take(regions, answer, position, began);
  }
  // What was asked for meanwhile.
  if (hasActed() && !timer) fetchWanted();
  else fetchIn(spreadMs());
}

/** @param {Host} host @param {number} status */
function sayStale(host, status) {
  const detail = { type: "stale", data: { status }, id: page.position };
  host.dispatchEvent(new CustomEvent("sse:stale", { bubbles: true, composed: true, detail }));
}

/** @param {string[]} regions @param {number} ms */
function wantAgain(regions, ms) {
  for (const region of regions) page.wanted.add(region);
  fetchIn(ms);
}

/** @param {Document} answer */
const positionOf = (answer) => answer.querySelector("sse-live")?.getAttribute("last-event-id") ?? "";

/** @param {string} id @param {string} other */
const isAtOrBefore = (id, other) => /** @type {any} */ (page.host.live)?.constructor.isAtOrBefore(id, other);

/** Whether an answer stands before what it was asked for because of, or is of another epoch. @param {Document} answer @param {string} position */
const isOlder = (answer, position) => position && positionOf(answer) && !isAtOrBefore(position, positionOf(answer));

/**
 * The page; or the status of an answer that is final; or null where it may be asked for again.
 * @param {string} url @param {string} position what it is asked for because of
 */
async function ask(url, position) {
  /** @type {RequestInit} */
  const options = { cache: "no-store", headers: { Accept: "text/html", "SSE-Live": "refresh" }, signal: AbortSignal.timeout(FETCH_MS) };
  const pastCaches = new URL(url);
  pastCaches.searchParams.set("sse-live", `${Math.random()}`);
  try {
    let answer;
    for (const href of [url, pastCaches.href]) {
      // A redirect to another site looks like no network, unless it is not followed.
      const response = await fetch(href, options).catch(() => fetch(href, { ...options, redirect: "manual" }));
      const { status, ok, redirected } = response;
      if (!ok || redirected && new URL(response.url).pathname !== pastCaches.pathname) {
        return [408, 425, 429].includes(status) || status >= 500 ? null : status;
      }
      answer = new DOMParser().parseFromString(page.policy.createHTML(await response.text()), "text/html");
      if (!isOlder(answer, position)) break;
    }
    return answer;
  } catch {
    return null;
  }
}

/**
 * Takes regions from an answer, after that was told what it does not know yet.
 * @param {string[]} regions @param {Document} answer
 * @param {string} position what it was asked for because of @param {number} began when
 */
function take(regions, answer, position, began) {
  const { wanted, journal, observer, positions, perform, become, prepared, announce } = page;
  const shown = positionOf(answer);
  const before = [...wanted];
  for (const { patch, id, at } of journal) {
    if (!isAtOrBefore(id, shown) && (isAtOrBefore(shown, id) || at >= began)) perform(patch, answer);
  }
  // Another answer of this kind would lack the same again.
  if (isOlder(answer, position)) wanted.clear();
  for (const region of before) wanted.add(region);
  for (const id of regions) {
    const region = document.getElementById(id);
    const fresh = answer.getElementById(id);
    if (!region || !fresh) continue;
    positions.set(region, shown);
    announce(become(region, prepared(fresh)));
  }
  observer.takeRecords();
}
