// Changes the page as the server says. <sse-live> loads this file when the first patch comes, or the first reset of a page with
// regions. Knows a patch's wire form and the page; nothing of streams, of fetching, or of what the page shows.
//
// - A patch names an element by its id, and says what becomes of it. It may touch that element, its children, the siblings among
//   which it is put, and what has the id of something it brings and stands elsewhere.
// - A region is an element with an id and `data-sse-live`: it can be taken from the page as the server draws it now.
// - What the visitor has in hand (`isHeld`) is never detached: what is around it changes. It goes when the new markup has no place
//   for it, and by `remove`. What says the same already is not touched at all.
// - The patches of the last minute are kept, for what comes into the page later and was rendered before them.

/** Patches are kept for so long, in ms, and so many. */
const JOURNAL_MS = 60_000;
const JOURNAL = 500;
/** How long what is new is marked so, in ms. */
const NEW_MS = 1_000;

const REGION = "[data-sse-live][id]";
const EMPTY = "data-sse-live-empty";
const NEW = "data-sse-live-new";
const CONTROL = "input, textarea, select";
const KEEP = "[data-sse-live-keep], sse-live";
/** A browser that knows no popovers is forgiving inside of `:is`. */
const HELD = `:is(${KEEP}, details[open], dialog[open], :popover-open)`;
const TOKEN = "[name=csrfmiddlewaretoken]";

/**
 * @typedef {{action: string, target?: any, id?: string, html?: string, from?: string}} Patch
 * @typedef {{patch: Patch, id: string, at: number}} Entry
 * @typedef {import("./sse-live.js").SSELiveElement} Host
 * @typedef {{getElementById(id: string): Element | null | undefined, querySelectorAll(selector: string): Iterable<Element>}} Root
 */

/**
 * Nothing that stands in it runs, loads or is upgraded.
 * @type {Document}
 */
const inert = document.implementation.createHTMLDocument("");

/** @type {{createHTML(html: string): any}} */
const rules = { createHTML: (html) => html };
/** @type {typeof rules} */
const policy = /** @type {any} */ (window).trustedTypes?.createPolicy("sse-live", rules) ?? rules;

/** A form's `id` may be a control of that name. @param {any} node @returns {string} */
const idOf = (node) => node.getAttribute?.("id") ?? "";

/** What says nothing of an element's content: attributes, and where. */
const MUTE = [["autofocus"], ["nonce"], [NEW], ["value", TOKEN], ["hidden", `[${EMPTY}]`]];

/** A node's markup, as far as it says something. @param {Node} node */
function markup(node) {
  const box = inert.createElement("div");
  box.append(inert.importNode(node, true));
  for (const each of box.querySelectorAll("noscript")) each.textContent = "";  // text in a page, elements in what was parsed
  for (const [name, where = `[${name}]`] of MUTE) for (const each of box.querySelectorAll(where)) each.removeAttribute(name);
  return box.innerHTML;
}

/** Takes the focus from nobody, and has the page's own token in its forms. @template {ParentNode} T @param {T} root */
function prepared(root) {
  for (const each of root.querySelectorAll("[autofocus]")) each.removeAttribute("autofocus");
  /** @type {HTMLInputElement | null} */
  const token = document.querySelector(`${TOKEN}:not([value=""])`);
  if (token) for (const each of root.querySelectorAll(TOKEN)) each.setAttribute("value", token.value);
  return root;
}

/** Markup that is to stand in `parent`. @param {string} html @param {Element} parent */
function parsed(html, parent) {
  /** A template takes rows and cells as well. @type {any} */
  const box = inert.createElementNS(parent.namespaceURI, parent instanceof HTMLElement ? "template" : parent.localName);
  box.innerHTML = policy.createHTML(html);
  return prepared(box.content ?? box);
}

// ---- what the visitor has in hand

/** @param {any} control */
const contentOf = ({ value, checked, options = [] }) => [value, checked, ...[...options].map((each) => each.selected)].join();

/** Whether a control holds something else than what the server put there. @param {Element} control */
function isChanged(control) {
  const form = document.createElement("form");
  const copy = form.appendChild(control.cloneNode(true));
  form.reset();
  return contentOf(copy) !== contentOf(control);
}

/** Focus; what was typed, chosen, opened, scrolled or selected; and what the page says is to be kept. @param {Element} element */
function isHeld(element) {
  if (element === document.activeElement || element.matches(HELD)) return true;
  if (element.matches(CONTROL)) return isChanged(element);
  const selection = /** @type {Selection} */ (getSelection());
  return element.scrollTop || element.scrollLeft || !selection.isCollapsed && selection.containsNode(element, true);
}

/** @param {any} node @returns {boolean} */
const holds = (node) => node.matches && node.ownerDocument === document && [node, ...node.querySelectorAll("*")].some(isHeld);

/** By the first thing in it that has an id, or a name. @param {string} name @returns {(node: any) => any} */
const byFirst = (name) => (node) => {
  const first = node.matches(`[${name}]`) ? node : node.querySelector(`[${name}]`);
  return first?.getAttribute(name);
};

/**
 * How a node is known again in other markup, the surest way first: by what it says, by its id; then, where it has none, by what
 * is in it, and by its place among its like. A control may change its id.
 * @type {((node: any) => any)[]}
 */
const KEYS = [
  markup, idOf,
  ...[byFirst("id"), byFirst("name"), (/** @type {any} */ node) => node.nodeName + node.querySelector(CONTROL)?.localName]
    .map((by) => (/** @type {any} */ node) => node.matches?.(`:not([id]), ${CONTROL}`) && by(node)),
];

// ---- how the page becomes what other markup is

/** What takes the place of `old`, which says something else: itself, where it must not be detached. @param {any} old @param {any} fresh */
function renewed(old, fresh) {
  if (old.matches(`${CONTROL}, ${KEEP}, [contenteditable]`) && isHeld(old)) return old;
  // An element without an id is mere structure: it stays for the sake of those in it that have one.
  // So does what holds a <details>, which the visitor may have closed.
  const stays = holds(old) || old.matches("details") || old.querySelector(idOf(old) ? "details" : "details, [id]");
  if (stays && old.nodeName === fresh.nodeName) return become(old, fresh);
  return holds(old) ? old : fresh;
}

/** @param {any} old @param {any} fresh */
function become(old, fresh) {
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== NEW && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  fill(old, [...fresh.childNodes]);
  return old;
}

/**
 * Makes `nodes` the children of `parent`: its own stay as they are, others take the place of those that they stand for.
 * @param {any} parent @param {any[]} nodes
 */
function fill(parent, nodes) {
  const fresh = nodes.filter((node) => node.parentNode !== parent);
  const added = fresh.filter((node) => idOf(node) && !document.getElementById(idOf(node)));
  const olds = [...parent.childNodes].filter((node) => !nodes.includes(node));
  const pairs = new Map();
  for (const by of KEYS) {
    const keys = olds.map(by);
    for (const node of fresh.filter((each) => !pairs.has(each))) {
      const at = keys.indexOf(by(node) || 0);
      if (at < 0) continue;
      keys.splice(at, 1);
      const [old] = olds.splice(at, 1);
      pairs.set(node, by === markup ? old : renewed(old, node));
    }
  }
  const children = nodes.map((node) => pairs.get(node) ?? node);
  for (const node of [...parent.childNodes]) if (!children.includes(node)) node.remove();
  let next = parent.firstChild;
  for (const node of children) {
    // What is held stays where it is, and what comes after it is put there.
    if (node !== next && (node.parentNode !== parent || !holds(node))) parent.insertBefore(node, next);
    next = node.nextSibling;
  }
  for (const empty of parent.querySelectorAll(`[${EMPTY}]`)) empty.toggleAttribute("hidden", !!rowsOf(empty.parentNode).length);
  if (parent.ownerDocument !== document) return;
  for (const node of parent.children) {
    if (fresh.includes(node)) /** @type {any} */ (window).htmx?.process(node);
    if (!added.includes(node)) continue;
    node.setAttribute(NEW, "");
    setTimeout(() => node.removeAttribute(NEW), NEW_MS);
  }
}

// ---- patches

/** @param {any} list */
const rowsOf = (list) => [...list.children].filter((row) => !row.hasAttribute(EMPTY));

/** Does what a patch says, in the page, a part of it, or an answer. @param {Patch} patch @param {Root} root @returns {any} */
function perform({ action, target, html = "", id, from }, root) {
  if (action === "reset") for (const { id } of root.querySelectorAll(REGION)) page.wanted.add(id);
  const element = root.getElementById(target);
  // What has left for an element that is not there is gone.
  if (!element) return from && perform({ action: "remove", target: /** @type {string} */ (id) }, root);
  if (action === "refresh") return page.wanted.add(target);
  /** @type {any} */
  let list = /append|prepend|update/.test(action) ? element : element.parentNode;
  const content = parsed(html, list);
  if (list.createTBody && content.firstElementChild?.matches("tr")) list = list.tBodies[0] ?? list.createTBody();

  const nodes = [...content.children].filter((node) => {
    const old = root.getElementById(idOf(node));
    if (!old || old.parentNode === list) return true;
    if (!holds(old)) perform({ action: "remove", target: old.id }, root);
    return !old.isConnected;
  });
  const ids = nodes.map(idOf);
  const children = [...list.childNodes].filter((node) => node === element || !ids.includes(idOf(node) || "-"));
  // Of a list itself, the place among its children is -1.
  const at = action === "append" ? children.length : children.indexOf(element) + (/prepend|after/.test(action) ? 1 : 0);
  children.splice(at, /replace|remove/.test(action) ? 1 : 0, ...nodes);

  // A table says for its body at how many rows the page cuts it.
  const limit = +list.closest("[data-sse-live-limit], :not(tbody)").getAttribute("data-sse-live-limit") || Infinity;
  const before = rowsOf(list).length;
  fill(list, action === "update" ? [...content.childNodes] : children);
  const rows = rowsOf(list);
  if (/prepend|before/.test(action)) rows.reverse();
  const over = /replace|update/.test(action) ? 0 : rows.length - limit;
  for (const each of rows.filter((row, index) => index < over && !holds(row))) each.remove();
  // What follows in a list that was cut, or says that there is nothing, only the server knows.
  const region = action === "remove" && (before >= limit || !list.children.length) && list.closest(REGION);
  if (region) page.wanted.add(region.id);
  for (const each of ids.length ? ids.map((id) => root.getElementById(id)) : [list]) announce(each);
}

/** In an answer nobody listens. @param {Element | null | undefined} element */
function announce(element) {
  element?.dispatchEvent(new CustomEvent("sse:patched", { bubbles: true, detail: { id: page.position } }));
}

// ---- what is remembered

/** Up to where a region was fetched. @type {WeakMap<any, string>} */
const positions = new WeakMap();
/** The patches of the last minute. @type {Set<Entry>} */
const journal = new Set();
/** What the file that fetches is lent. @type {import("./sse-live-refresh.js").Page} */
const page = /** @type {any} */ ({ wanted: new Set(), positions, journal, perform, become, prepared, announce, policy, isChanged });

/** Looks for regions that others bring into the page: they may have been rendered before the patches of the last minute. */
const observer = page.observer = new MutationObserver((records) => {
  const isAdded = (/** @type {Element} */ element) =>
    records.some(({ addedNodes }) => [...addedNodes].some((node) => node.contains(element)));
  const querySelectorAll = (/** @type {string} */ selector) => [...document.querySelectorAll(selector)].filter(isAdded);
  const getElementById = (/** @type {string} */ id) => querySelectorAll(`[id="${CSS.escape(id)}"]`)[0];
  for (const { patch } of querySelectorAll(REGION)[0] ? journal : []) {
    perform(patch, { getElementById, querySelectorAll });
    // What has taken the place of what came has come too.
    records.push(...observer.takeRecords());
  }
  refresh();
});

async function refresh() {
  if (page.isReset || page.wanted.size) (await page.load()).refresh(page);
}

/**
 * Brings the page up to date with a frame: one that has a patch, or a `reset`.
 * @param {{patch?: Patch}} frame
 * @param {string} id its position
 * @param {Host} host where it came from
 * @param {() => Promise<typeof import("./sse-live-refresh.js")>} load the file that fetches
 */
export function patch({ patch = { action: "reset" } }, id, host, load) {
  const { isAtOrBefore } = /** @type {any} */ (host.live).constructor;
  const isReset = patch.action === "reset";
  if (!isReset && isAtOrBefore(id, host.getAttribute("last-event-id"))) return;
  Object.assign(page, { position: id, host, load, isReset });
  const entry = { patch, id, at: performance.now() };
  if (journal.add(entry).size > JOURNAL) journal.delete([...journal][0]);
  setTimeout(() => {
    journal.delete(entry);
    if (!journal.size) observer.disconnect();
  }, JOURNAL_MS);
  const region = document.getElementById(patch.target)?.closest(REGION);
  if (!isAtOrBefore(id, positions.get(region))) perform(patch, document);
  observer.takeRecords();
  observer.observe(document, { childList: true, subtree: true });
  return refresh();
}
