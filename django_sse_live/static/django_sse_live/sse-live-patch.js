// Applies patches: changes of the page that the server sends. <sse-live> loads this file at the first patch, or at the first heartbeat
// or reset of a page with regions. It knows a patch's wire form and the page. Streams, fetching and the page's meaning are unknown here.
//
// - A patch names an element by its id, and an action. It may change that element, its children, the siblings where it is put, and
//   elements elsewhere whose id it brings.
// - A region is an element with an id and `data-sse-live`. It can be taken from a freshly fetched page.
// - An element that the visitor is using (`isHeld`) is never detached: the page changes around it. It goes if the new markup has no
//   place for it, or by `remove`. Elements whose content stays the same are not touched at all.
// - The patches of the last minute are kept, for elements that come into the page later and were rendered before them.

/** Patches are kept for this long, in ms. The next: at most this many. */
const JOURNAL_MS = 60_000;
const JOURNAL = 500;
/** How long a new element is marked as new, in ms. */
const NEW_MS = 1_000;

const REGION = "[data-sse-live][id]";
const EMPTY = "data-sse-live-empty";
const NEW = "data-sse-live-new";
const CONTROL = "input, textarea, select";
const KEEP = "[data-sse-live-keep], sse-live";
/** Inside `:is`, a browser ignores `:popover-open` if it does not know it. */
const HELD = `:is(${KEEP}, [open], :popover-open)`;
const TOKEN = "[name=csrfmiddlewaretoken]";

/**
 * @typedef {{action: string, target?: any, id?: string, html?: string, from?: string}} Patch
 * @typedef {{patch: Patch, id: string, host: Host, at: number}} Entry
 * @typedef {import("./sse-live.js").SSELiveElement} Host
 * @typedef {{getElementById(id: string): Element | null | undefined, querySelectorAll(selector: string): Iterable<Element>}} Root
 */

/**
 * A document in which nothing runs, loads or is upgraded.
 * @type {Document}
 */
const inert = document.implementation.createHTMLDocument("");

/** @type {{createHTML(html: string): any}} */
let policy = { createHTML: (html) => html };
policy = /** @type {any} */ (window).trustedTypes?.createPolicy("sse-live", policy) ?? policy;

// A form's control may be named as a property of the form: a hidden `id`, a button `remove`. So neither is used, nor
// `children` or `attributes`.

/** @param {any} node @returns {string} */
const idOf = (node) => node.getAttribute?.("id") ?? "";

/** Attributes that do not count as content, and the elements where they do not. */
const MUTE = [["autofocus"], ["nonce"], [NEW], ["value", TOKEN], ["hidden", `[${EMPTY}]`]];

/** A node's markup without what does not count as content. @param {Node} node */
function markup(node) {
  const box = inert.createElement("div");
  box.append(inert.importNode(node, true));
  for (const each of box.querySelectorAll("noscript")) each.textContent = "";  // text in a page, elements in what was parsed
  for (const [name, where = `[${name}]`] of MUTE) for (const each of box.querySelectorAll(where)) each.removeAttribute(name);
  return box.innerHTML;
}

/** Prepares new markup: it takes no focus, and its forms get the page's own CSRF token. @template {ParentNode} T @param {T} root */
function prepared(root) {
  for (const each of root.querySelectorAll("[autofocus]")) each.removeAttribute("autofocus");
  /** @type {any} */
  const token = document.querySelector(`${TOKEN}:not([value=""])`);
  for (const each of /** @type {any} */ (token ? root.querySelectorAll(TOKEN) : [])) each.value = token.value;
  return root;
}

/** Parses markup for a place in `parent`. @param {string} html @param {any} parent */
function parsed(html, parent) {
  /** A template, which takes table rows and cells too. @type {any} */
  const box = inert.createElementNS(parent.namespaceURI, /xhtml/.test(parent.namespaceURI) ? "template" : parent.localName);
  box.innerHTML = policy.createHTML(html);
  return prepared(box.content ?? box);
}

// ---- what the visitor is using

/** A control's state and values. @param {any} control @returns {any[]} */
const contentOf = ({ value, checked, selectedOptions = [{ value }] }) => [checked, ...[...selectedOptions].map(({ value }) => value)];

/** The content of a control that the visitor has changed. @param {any} control */
function isChanged(control) {
  const copy = document.createElement("form").appendChild(control.cloneNode(true));
  copy.id = copy.name = "";  // else it may be the form's property `reset`
  copy.form.reset();
  return contentOf(copy).join() !== contentOf(control).join() && contentOf(control);
}

/** Whether the visitor is using an element: focused, typed, chosen, opened, scrolled or selected; or the page says to keep it. @param {Element} element */
function isHeld(element) {
  return element === document.activeElement || element.matches(HELD) || (element.matches(CONTROL) ? isChanged(element)
    : element.scrollTop || element.scrollLeft || !getSelection()?.isCollapsed && getSelection()?.containsNode(element, true));
}

/** @param {any} node @returns {boolean} */
const holds = (node) => node.matches && document.contains(node) && [node, ...node.querySelectorAll("*")].some(isHeld);

/** The key of a node by its first descendant with an id, or a name. @param {string} name @returns {(node: any) => any} */
const byFirst = (name) => (node) =>
  node.getAttribute(name) || node.querySelector(`[${name}]`)?.getAttribute(name);

/**
 * Keys that find a node again in other markup, the surest first: its content, its id; without an id, an id or a name in it, and its
 * place among similar nodes. A control may change its id.
 * @type {((node: any) => any)[]}
 */
const KEYS = [
  markup, idOf,
  ...[byFirst("id"), byFirst("name"), (/** @type {any} */ node) => node.nodeName + node.querySelector(CONTROL)?.localName]
    .map((by) => (/** @type {any} */ node) => node.matches?.(`:not([id]), ${CONTROL}`) && by(node)),
];

// ---- changing the page into other markup

/** The node that replaces `old`: `old` itself, changed, if it must not be detached. @param {any} old @param {any} fresh */
function renewed(old, fresh) {
  if (old.matches(`${KEEP}, [contenteditable]`) && isHeld(old)) return old;
  // A choice or a text that the server has too is not kept: else it would hide what others save after that. So is a box without a
  // choice, focused or not.
  if (old.matches(CONTROL) && contentOf(old).join() !== contentOf(fresh).join() && (/box|radio/.test(old.type) ? isChanged : isHeld)(old)) return old;
  // An element without an id is only structure: it stays if it holds elements with one.
  // So does an element with a <details>, which the visitor may have closed.
  if (old.nodeName === fresh.nodeName && (holds(old) || old.matches("details") || old.querySelector("details") || !idOf(old) && old.querySelector("[id]"))) {
    if (old.matches("input")) old.checked = fresh.checked;
    return become(old, fresh);
  }
  return holds(old) ? old : fresh;
}

/** @param {any} old @param {any} fresh */
function become(old, fresh) {
  for (const name of old.getAttributeNames()) if (!fresh.hasAttribute(name) && name !== "open" && name !== NEW) old.removeAttribute(name);
  // setAttribute() refuses names such as `@click`.
  for (const name of fresh.getAttributeNames()) if (name !== "open" && old.getAttribute(name) !== fresh.getAttribute(name)) old.setAttributeNode(fresh.getAttributeNode(name).cloneNode());
  fill(old, [...fresh.childNodes]);
  return old;
}

/**
 * Makes `nodes` the children of `parent`. Its own children among them stay as they are; the others replace the children they match.
 * @param {any} parent @param {any[]} nodes
 */
function fill(parent, nodes) {
  const select = parent.closest("select");
  const content = select && isChanged(select);
  const stay = new Set(nodes);  // a list may be long
  const pairs = new Map();
  const fresh = nodes.filter((node) => node.parentNode !== parent);
  for (const node of fresh) if (idOf(node)) node.toggleAttribute(NEW, !document.getElementById(idOf(node)));
  const olds = [...parent.childNodes].filter((node) => !stay.has(node));
  for (const by of KEYS) {
    const keys = olds.map(by);
    for (const node of fresh.filter((node) => !pairs.has(node))) {
      const at = keys.indexOf(by(node) || 0);
      if (at < 0) continue;
      keys.splice(at, 1);
      const [old] = olds.splice(at, 1);
      pairs.set(node, by === markup ? old : renewed(old, node));
      stay.add(pairs.get(node));
    }
  }
  for (const node of [...parent.childNodes]) if (!stay.has(node)) node.parentNode?.removeChild(node);
  let next = parent.firstChild;
  for (const each of nodes) {
    const node = pairs.get(each) ?? each;
    // A held node stays where it is, and later nodes are put after it.
    if (node !== next && (node.parentNode !== parent || !holds(node))) parent.insertBefore(node, next);
    next = node.nextSibling;
  }
  // Options come, go and are replaced. What the visitor has chosen stays chosen.
  if (content) for (const each of select.options) each.selected = content.includes(each.value);
  for (const each of parent.querySelectorAll(`[${EMPTY}]`)) each.toggleAttribute("hidden", !!rowsOf(each.parentNode)[0]);
  for (const node of fresh.filter((node) => node.matches && document.contains(node))) {
    /** @type {any} */ (window).htmx?.process?.(node);  // an element with that id is a property of the window too
    setTimeout(() => node.removeAttribute(NEW), NEW_MS);
  }
}

// ---- patches

/** @param {any} list */
const rowsOf = (list) => [...list.childNodes].filter((node) => node.matches?.(`:not([${EMPTY}])`));

/** Applies a patch to the page, a part of it, or a fetched page. @param {Patch} patch @param {Root} root @returns {any} */
function perform({ action, target, html = "", id, from }, root) {
  if (action === "reset") for (const each of root.querySelectorAll(REGION)) page.wanted.add(idOf(each));
  const element = root.getElementById(target);
  // An element that was moved to a missing target is removed.
  if (!element) return from && perform({ action: "remove", target: /** @type {string} */ (id) }, root);
  if (action === "refresh") return page.wanted.add(target);
  /** @type {any} */
  let list = /append|prepend|update/.test(action) ? element : element.parentNode;
  const content = parsed(html, list);
  if (list.createTBody && content.firstElementChild?.matches("tr")) list = list.tBodies[0] ?? list.createTBody();

  const nodes = [...content.children].filter((node) => {
    const old = root.getElementById(idOf(node));
    if (!old || old.parentNode === list) return true;
    // What the visitor is using is changed where it is.
    return !(holds(old) ? renewed(old, node) : perform({ action: "remove", target: idOf(node) }, root));
  });
  const ids = nodes.map(idOf);
  const children = [...list.childNodes].filter((node) => node === element || !idOf(node) || !ids.includes(idOf(node)));
  // A list's index among its own children is -1.
  const at = action === "append" ? children.length : children.indexOf(element) + +/prepend|after/.test(action);
  children.splice(at, +/^re/.test(action), ...nodes);

  // A table has the limit of rows for its body.
  const limit = +list.closest("[data-sse-live-limit], :not(tbody)").getAttribute("data-sse-live-limit") || Infinity;
  const before = rowsOf(list).length;
  fill(list, action === "update" ? [...content.childNodes] : children);
  const rows = rowsOf(list);
  if (/prepend|before/.test(action)) rows.reverse();
  for (const node of /replace|update/.test(action) ? [] : rows.splice(0, rows.length - limit)) if (!holds(node)) node.parentNode?.removeChild(node);
  // Only the server knows the next row of a limited list, or the text of an empty one.
  const region = list.closest(REGION);
  if (region && action === "remove" && (before >= limit || !list.firstElementChild)) page.wanted.add(idOf(region));
  if (!ids.length) announce(list);
  for (const id of ids) announce(root.getElementById(id));
}

/** Tells the page that an element has changed. In a fetched page nothing listens. @param {Element | null | undefined} element */
function announce(element) {
  element?.dispatchEvent(new CustomEvent("sse:patched", { bubbles: true, detail: { id: page.position } }));
}

// ---- memory

/** The position at which a region was fetched. @type {WeakMap<any, string>} */
const positions = new WeakMap();
/** The patches of the last minute. @type {Set<Entry>} */
const journal = new Set();
/** What sse-live-refresh.js gets from this file. @type {import("./sse-live-refresh.js").Page} */
const page = /** @type {any} */ ({ wanted: new Set(), positions, journal, perform, become, prepared, announce, policy, isChanged });

/** Looks for regions that other code brings into the page, perhaps rendered before the patches of the last minute. */
const observer = page.observer = new MutationObserver((records) => {
  const querySelectorAll = (/** @type {string} */ selector) => [...document.querySelectorAll(selector)].filter((each) =>
    records.some(({ addedNodes }) => [...addedNodes].some((node) => node.contains(each))));
  const getElementById = (/** @type {string} */ id) => querySelectorAll(`[id="${CSS.escape(id)}"]`)[0];
  // An element that has gone was another page's, whose regions may have the same ids.
  for (const entry of journal) if (!entry.host.isConnected) journal.delete(entry);
  if (querySelectorAll(REGION)[0]) for (const { patch } of journal) {
    perform(patch, { getElementById, querySelectorAll });
    // Nodes that replaced an added node are added too.
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
 * @param {string} id the frame's position
 * @param {Host} host the element that got it
 * @param {() => Promise<typeof import("./sse-live-refresh.js")>} load loads sse-live-refresh.js
 */
export function patch({ patch = { action: "reset" } }, id, host, load) {
  const { isAtOrBefore } = /** @type {any} */ (host.live).constructor;
  const isReset = patch.action === "reset";
  if (!isReset && isAtOrBefore(id, host.getAttribute("last-event-id"))) return;
  Object.assign(page, { position: id, host, load, isReset });
  const entry = { patch, id, host, at: performance.now() };
  if (journal.add(entry).size > JOURNAL) journal.delete([...journal][0]);
  setTimeout(() => {
    journal.delete(entry);
    if (!journal.size) observer.disconnect();
  }, JOURNAL_MS);
  if (!isAtOrBefore(id, positions.get(document.getElementById(patch.target)?.closest(REGION)))) perform(patch, document);
  observer.takeRecords();
  observer.observe(document, { childList: true, subtree: true });
  return refresh();
}
