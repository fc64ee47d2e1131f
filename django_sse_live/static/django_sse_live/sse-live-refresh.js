// Fetches the page anew and updates its regions from the answer. Loaded at the first heartbeat or reset of a page with
// regions, or at the first `refresh`. It knows when to fetch, and what an answer is good for; sse-live-patch.js knows how to update a region.
//
// One fetch at a time; requests during a fetch make one more. What becomes of an answer:
//   the page                               its regions are used, with the patches that are newer; a region that it lacks stays
//   the page of an earlier position        from a cache, or a worker that lags: fetched once more past every cache, then used
//   no network, 408, 425, 429, 5xx, 15 s   fetched again, after the stream's waits
//   another status, a redirect elsewhere   the page is marked as stale until a later fetch succeeds
// If the visitor has gone to another page meanwhile, that page's regions are updated; without an element there, nothing is.

/** Time limit of a fetch, in ms. */
const FETCH_MS = 15_000;
/** Pages that fetch because of one event spread their fetches over at least this, in ms. */
const SPREAD_MS = 300;
/** A refresh this soon after a click, a choice or a submit, in ms, counts as its result, and is not delayed. */
const ACT_MS = 3_000;
/** The first wait before another fetch, in ms, as the stream's. */
const RETRY_MS = 2_000;
const MAX_RETRY_MS = 30_000;
const RETRY_GROWTH = 1.5;
const KEEP = "data-sse-live-keep";

/**
 * @typedef {import("./sse-live.js").SSELiveElement} Host
 * @typedef {import("./sse-live-patch.js").Entry} Entry
 *
 * @typedef {object} Page what sse-live-patch.js passes
 * @property {Host} host the element that got the last frame
 * @property {string} position of that frame
 * @property {boolean} isReset whether it is a reset without a fetch yet
 * @property {() => Promise<typeof import("./sse-live-refresh.js")>} load this file
 * @property {Set<string>} wanted ids of the regions to fetch
 * @property {WeakMap<Element, string>} positions the position at which a region was fetched
 * @property {Set<Entry>} journal the patches of the last minute
 * @property {MutationObserver} observer looks for regions that other code adds
 * @property {(patch: Entry["patch"], root: Document) => any} perform
 * @property {(old: Element, fresh: Element) => Element} become
 * @property {(fresh: Element) => Element} prepared
 * @property {(element: Element) => void} announce
 * @property {{createHTML: (html: string) => any}} policy
 * @property {(control: Element) => any} isChanged whether the visitor has changed a control
 */

/** @type {Page} */
let page;
/** @type {ReturnType<typeof setTimeout> | null | undefined} */
let timer;
let isFetching = false;
/** Failed fetches in a row. */
let failures = 0;
/** Regions that a final answer left unchanged: the next fetch includes them. @type {string[]} */
let refused = [];
/** When the visitor last did something, which may be why this file was loaded. */
let actedAt = navigator.userActivation?.isActive ? performance.now() : -ACT_MS;
for (const type of ["click", "change", "submit"]) addEventListener(type, () => { actedAt = performance.now(); }, true);

document.addEventListener("visibilitychange", () => {
  if (page?.wanted.size && !timer) fetchWanted();
});

/** Fetches the wanted regions, soon. @param {Page} lent */
export function refresh(lent) {
  const { isReset, host } = page = lent;
  page.isReset = false;
  if (isReset && host.getAttribute("reset") === "reload" && mayReload()) location.reload();
  if (!isReset && hasActed()) {
    clearTimeout(/** @type {any} */ (timer));
    fetchWanted();
  } else fetchIn(spreadMs());
}

const hasActed = () => performance.now() - actedAt < ACT_MS;

const spreadMs = () => Math.random() * Math.max(page.host.live?.spreadMs ?? 0, SPREAD_MS);

/** @param {number} ms */
function fetchIn(ms) {
  if (page.wanted.size && !isFetching) timer ??= setTimeout(fetchWanted, ms);
}

/** Once for each reset: a page that was just reloaded and gets a reset came from a cache, or begins too far back. */
function mayReload() {
  const [{ type }] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  return !(page.host.live?.stats.connects === 1 && type === "reload") && !document.querySelector("[contenteditable]") && ![...document.querySelectorAll("input, textarea, select")].some(page.isChanged);
}

async function fetchWanted() {
  timer = null;
  if (isFetching || document.hidden || !page.wanted.size) return;  // called again when that fetch ends, or the page is shown
  const { position, host } = page;
  const regions = [...new Set([...page.wanted, ...refused])];
  const [url] = location.href.split("#");
  const began = performance.now();
  page.wanted.clear();
  isFetching = true;
  /** @type {any} */ const answer = await ask(url, position);
  isFetching = false;
  // An element that has gone, such as that of a finished job or of the page before, leaves the fetch to another one.
  const next = [host, .../** @type {any} */ (document.querySelectorAll("sse-live"))].find(({ live }) => live);
  if (!next) return;
  page.host = next;
  const isLeft = next !== host || location.href.split("#")[0] !== url;
  if (isLeft || answer === null) {
    for (const region of regions) page.wanted.add(region);
    fetchIn(isLeft ? 0 : failures++ ? Math.random() * Math.min(MAX_RETRY_MS, RETRY_MS * RETRY_GROWTH ** failures) : RETRY_MS);
  } else {
    failures = 0;
    refused = answer.body ? [] : regions;
    if (host.toggleAttribute("stale", !answer.body)) {
      host.dispatchEvent(new CustomEvent("sse:stale", { bubbles: true, composed: true, detail: { type: "stale", data: { status: answer }, id: page.position } }));
    } else take(regions, answer, position, began);
  }
  // Regions that were asked for meanwhile.
  if (hasActed() && !timer) fetchWanted();
  else fetchIn(spreadMs());
}

/** @param {Document} answer */
const positionOf = (answer) => answer.querySelector("sse-live")?.getAttribute("last-event-id") ?? "";

/** @param {string} id @param {string} other */
const isAtOrBefore = (id, other) => /** @type {any} */ (page.host.live)?.constructor.isAtOrBefore(id, other);

/** Whether an answer is older than the position that caused the fetch, or of another epoch. @param {Document} answer @param {string} position */
const isOlder = (answer, position) => position && positionOf(answer) && !isAtOrBefore(position, positionOf(answer));

/**
 * Fetches the page. Returns it; or the status of a final answer; or null if it may be fetched again.
 * @param {string} url @param {string} position which caused the fetch
 */
async function ask(url, position) {
  /** @type {RequestInit} */
  const options = { cache: "no-store", headers: { Accept: "text/html", "SSE-Live": "refresh" }, signal: AbortSignal.timeout(FETCH_MS) };
  const pastCaches = new URL(url);
  pastCaches.searchParams.set("sse-live", /** @type {any} */ (Math.random()));
  try {
    let answer;
    for (const href of [url, pastCaches.href]) {
      // A redirect to another site looks like a network error, unless it is not followed.
      const response = await fetch(href, options).catch(() => fetch(href, { ...options, redirect: "manual" }));
      const { status, redirected } = response;
      if (!response.ok || redirected && new URL(response.url).pathname !== pastCaches.pathname) {
        return /408|425|429|5../.test(/** @type {any} */ (status)) ? null : status;
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
 * Updates regions from an answer, after newer patches were applied to that.
 * @param {string[]} regions @param {Document} answer
 * @param {string} position which caused the fetch @param {number} began when it began
 */
function take(regions, answer, position, began) {
  const { journal, observer, positions, perform, become, prepared, announce } = page;
  const shown = positionOf(answer);
  const wanted = new Set(page.wanted);
  for (const { patch, id, at } of journal) {
    if (!isAtOrBefore(id, shown) && (isAtOrBefore(shown, id) || at >= began)) perform(patch, answer);
  }
  // Another answer of this kind would be just as old.
  if (isOlder(answer, position)) page.wanted = wanted;
  // The page may be the answer to a form with errors. Then what was typed is the form's default, and an answer to GET lacks it.
  const forms = [...document.querySelectorAll(".errorlist, [aria-invalid=true]")].map((error) => error.closest(`form:not([${KEEP}])`));
  for (const form of forms) form?.toggleAttribute(KEEP, true);
  for (const id of regions) {
    const region = document.getElementById(id);
    const fresh = answer.getElementById(id);
    if (fresh && region && !region.hasAttribute(KEEP)) {
      positions.set(region, shown);
      announce(become(region, prepared(fresh)));
    }
  }
  for (const form of forms) form?.removeAttribute(KEEP);
  observer.takeRecords();
}
