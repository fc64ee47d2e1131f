// What patches do to a page, in the page itself; in every browser the same. Reports to the site that the page came from.
import { SSELive } from "/static/django_sse_live/sse-live.js";
import { patch } from "/static/django_sse_live/sse-live-patch.js";

const TIMEOUT_MS = 20_000;
const tests = [];
const test = (name, run) => tests.push({ name, run });

// ---- what the tests stand on

const policy = window.trustedTypes?.createPolicy("suite", { createHTML: (html) => html });
const trusted = (html) => policy?.createHTML(html) ?? html;

function equal(actual, expected, what = "value") {
  const [a, e] = [actual, expected].map((value) => JSON.stringify(value));
  if (a !== e) throw new Error(`${what}: ${a}, expected ${e}`);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition, what) {
  for (const start = performance.now(); ;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() - start > TIMEOUT_MS / 2) throw new Error(`in vain: ${what ?? condition}`);
    await sleep(10);
  }
}

const place = document.querySelector("#place");
const byId = (id) => document.getElementById(id);

/** The page shows this; the parser puts no element of the suite's own into it. */
function show(html) {
  place.innerHTML = trusted(html);
  return place.firstElementChild;
}

/** Without white space between elements, without marks that go by themselves. */
const markup = (element) => element.outerHTML.replace(/ data-sse-live-new=""/g, "").replace(/>\s+</g, "><").trim();

let host;
let heard;
let sequence = 0;
const nextId = () => `e:1000-${++sequence}`;

function freshHost(attributes = {}) {
  host?.remove();
  host = document.createElement("div");
  host.live = { constructor: SSELive, spreadMs: 0, stats: { connects: 2 } };
  for (const [name, value] of Object.entries(attributes)) host.setAttribute(name, value);
  document.body.append(host);
}

const load = () => import("/static/django_sse_live/sse-live-refresh.js");
const send = (change, id = nextId()) => patch({ type: "note", patch: change }, id, host, load);
const reset = (id = nextId()) => patch({ type: "reset" }, id, host, load);
const put = (action, target, html) => send({ action, target, html });

/** What the site answers to a fetch of this page: each answer once, the last one for all that come after. */
let answers = [];
let asked = [];
window.fetch = async (href, { headers, redirect, signal }) => {
  asked.push({ href, headers, redirect });
  const answer = answers.length > 1 ? answers.shift() : answers[0];
  if (answer.wait) await answer.wait;
  if (answer.isForeign && redirect === "manual") return { type: "opaqueredirect", status: 0, ok: false, url: href };
  if (signal.aborted || answer.isLost || answer.isForeign) throw new TypeError("no network");
  const html = answer.page?.(`e:1000-${sequence}`) ?? answer.html ?? "";
  const response = new Response(html, { status: answer.status ?? 200 });
  if (answer.redirected) Object.defineProperty(response, "redirected", { value: true });
  Object.defineProperty(response, "url", { value: answer.redirected ?? href });
  return response;
};
const page = (html, position = "") => ({
  page: (now) => `<!DOCTYPE html><title>x</title><sse-live last-event-id="${position || now}"></sse-live>${html}`,
});

/** Every change of the page from now on. */
function watch(root = place) {
  const records = [];
  const observer = new MutationObserver((more) => records.push(...more));
  observer.observe(root, { attributes: true, characterData: true, childList: true, subtree: true });
  return () => {
    records.push(...observer.takeRecords());
    return records.length;
  };
}

const problems = [];
for (const type of ["error", "unhandledrejection", "securitypolicyviolation"]) {
  addEventListener(type, (event) => problems.push(`${type} ${event.message ?? event.reason ?? event.violatedDirective}`));
}
for (const level of ["error", "warn"]) console[level] = (...words) => problems.push(words.join(" "));

/** What is forgotten after a minute is forgotten at the end of a test. */
const forgotten = [];
const { setTimeout: later } = window;
window.setTimeout = (run, ms) => ms === 60_000 ? forgotten.push(run) : later(run, ms);

// ---- inserting, replacing, removing

test("append and prepend put new ones last and first", async () => {
  const list = show(`<ol id="l"><li id="a">a</li></ol>`);
  put("append", "l", `<li id="b">b</li>`);
  put("prepend", "l", `<li id="c">c</li>`);
  equal([...list.children].map(({ id }) => id), ["c", "a", "b"]);
});

test("before and after put new ones beside the target", async () => {
  const list = show(`<ol id="l"><li id="a">a</li><li id="z">z</li></ol>`);
  put("before", "z", `<li id="b">b</li>`);
  put("after", "a", `<li id="c">c</li><li id="d">d</li>`);
  equal([...list.children].map(({ id }) => id), ["a", "c", "d", "b", "z"]);
});

test("replace, update and remove do as they are called", async () => {
  const list = show(`<ol id="l"><li id="a">a</li><li id="b">b</li></ol>`);
  put("replace", "a", `<li id="a" class="x">A</li>`);
  put("update", "b", `<i>B</i> and text`);
  equal(markup(list), `<ol id="l"><li id="a" class="x">A</li><li id="b"><i>B</i> and text</li></ol>`);
  send({ action: "remove", target: "a" });
  put("replace", "b", `<li id="c">one</li><li id="d">two</li>`);
  equal(markup(list), `<ol id="l"><li id="c">one</li><li id="d">two</li></ol>`);
});

test("what the page lacks is no error", async () => {
  const list = show(`<ol id="l"><li id="a">a</li></ol>`);
  for (const action of ["append", "prepend", "before", "after", "replace", "update", "remove", "refresh"]) put(action, "nowhere", `<li id="a">b</li>`);
  equal(markup(list), `<ol id="l"><li id="a">a</li></ol>`);
});

test("an id is no selector", async () => {
  const list = show(`<ol id="a.b"><li id="1 > 2">a</li></ol>`);
  put("append", "a.b", `<li id="x:y">b</li>`);
  send({ action: "remove", target: "1 > 2" });
  put("replace", "x:y", `<li id="x:y">c</li>`);
  equal(list.textContent, "c");
});

test("what is there already is replaced, and put where a new one goes", async () => {
  const list = show(`<ol id="l"><li id="a">a</li><li id="b">b</li></ol>`);
  put("append", "l", `<li id="a">A</li>`);
  equal(markup(list), `<ol id="l"><li id="b">b</li><li id="a">A</li></ol>`);
  put("prepend", "l", `<li id="a">A</li>`);
  equal([...list.children].map(({ id }) => id), ["a", "b"]);
});

test("what stands in another list moves", async () => {
  show(`<ol id="l"><li id="a">a</li><li id="b">b</li></ol><ol id="m"></ol>`);
  put("append", "m", `<li id="a">a</li>`);
  equal([byId("l").textContent, byId("m").textContent, document.querySelectorAll("#a").length], ["b", "a", 1]);
});

test("rows go to the body of a table, and SVG is SVG", async () => {
  show(`<table id="t"><thead><tr><th>h</th></tr></thead><tbody><tr id="r1"><td>1</td></tr></tbody></table><svg id="s"><g id="g"></g></svg>`);
  put("append", "t", `<tr id="r2"><td>2</td></tr>`);
  put("replace", "r1", `<tr id="r1"><td>one</td></tr>`);
  equal(byId("t").tBodies[0].textContent, "one2");
  equal(byId("t").tBodies.length, 1);
  put("append", "g", `<circle id="c" r="1"/><text id="x">t</text>`);
  equal([byId("c").namespaceURI, byId("c").constructor.name, byId("g").children.length], ["http://www.w3.org/2000/svg", "SVGCircleElement", 2]);
  put("append", "g", `<foreignObject id="f"></foreignObject>`);
  put("append", "f", `<p id="p">HTML</p>`);
  equal(byId("p").constructor.name, "HTMLParagraphElement");
  put("replace", "c", `<circle id="c" r="2"/>`);
  equal([byId("c").constructor.name, byId("c").getAttribute("r")], ["SVGCircleElement", "2"]);
});

test("a form whose controls are named as properties of a form is changed, refreshed and removed", async () => {
  const named = ["id", "remove", "attributes", "children"].map((name) => `<button name="${name}"></button>`).join("");
  const form = (id, text) => `<form id="${id}" data-sse-live class="${text}">${named}<p>${text}</p></form>`;
  const both = (text) => `<div id="d">${form("f", text)}${form("g", text)}</div>`;
  show(both("1"));
  answers = [page(both("2"))];
  reset();
  await until(() => byId("d").textContent === "22");
  put("replace", "f", form("f", "3"));
  equal([byId("d").textContent, byId("f").className], ["32", "3"]);
  send({ action: "remove", target: "f" });
  put("append", "g", `<p id="p">new</p>`);
  equal(byId("d").textContent, "2new");
  byId("d").setAttribute("data-sse-live-limit", "1");
  put("append", "d", form("h", "4"));
  equal(byId("d").textContent, "4");
});

test("one more row of a list costs no more time for each row, however long the list is", () => {
  const rows = (count) => Array.from({ length: count }, (_, index) => `<li id="r${index}">${index}</li>\n`).join("");
  /** The least of four times, in ms, for five rows each. */
  const cost = (count) => {
    show(`<ol id="l">${rows(count)}</ol>`);
    return Math.min(...[0, 1, 2, 3].map((turn) => {
      const start = performance.now();
      for (let each = 0; each < 5; each++) put("append", "l", `<li id="new${turn}-${each}">new</li>`);
      return performance.now() - start;
    }));
  };
  // 32 times as many rows: 32 times the time, where comparing each with each takes 1,000 times.
  const [few, many] = [Math.max(cost(500), 2), cost(16_000)];
  equal(many < 32 * 16 * few, true, `${few} ms for 500 rows, ${many} ms for 16,000`);
});

test("options go to a select, a table without a body gets one", async () => {
  show(`<select id="s"><option>1</option></select><table id="t"></table>`);
  put("append", "s", `<option id="o">2</option>`);
  put("append", "t", `<tr id="r"><td>2</td></tr>`);
  equal([byId("s").options.length, byId("t").tBodies[0].rows.length], [2, 1]);
});

test("more than the list's limit goes, at the other end", async () => {
  const list = show(`<ol id="l" data-sse-live data-sse-live-limit="2"><li id="a">a</li><li id="b">b</li></ol>`);
  put("append", "l", `<li id="c">c</li>`);
  equal(list.textContent, "bc");
  put("prepend", "l", `<li id="d">d</li>`);
  equal(list.textContent, "db");
  put("replace", "d", `<li id="d">D</li>`);
  equal(list.textContent, "Db");
});

test("the limit of a table is that of its body", async () => {
  show(`<table id="t" data-sse-live data-sse-live-limit="2"><tbody><tr id="a"><td>a</td></tr><tr id="b"><td>b</td></tr></tbody></table>`);
  put("append", "t", `<tr id="c"><td>c</td></tr>`);
  equal(byId("t").textContent, "bc");
});

test("a removal from a full list refreshes its region, one from another does not", async () => {
  const list = show(`<ol id="l" data-sse-live data-sse-live-limit="3"><li id="a">a</li><li id="b">b</li><li id="c">c</li></ol>`);
  answers = [page(`<ol id="l" data-sse-live data-sse-live-limit="3"><li id="a">a</li><li id="c">c</li><li id="d">d</li></ol>`, "e:9000-0")];
  send({ action: "remove", target: "b" });
  await until(() => list.textContent === "acd");
  answers = [page(`<ol id="l" data-sse-live data-sse-live-limit="4"><li id="a">a</li></ol>`, "e:9000-0")];
  list.setAttribute("data-sse-live-limit", "4");
  send({ action: "remove", target: "c" }, "e:9001-0");
  await sleep(400);
  equal([list.textContent, asked.length], ["ad", 1]);
});

test("who has the last one taken away asks what stands there now", async () => {
  const list = show(`<ol id="l" data-sse-live><li id="a">a</li></ol>`);
  answers = [page(`<ol id="l" data-sse-live><li>Nothing here.</li></ol>`, "e:9000-0")];
  send({ action: "remove", target: "a" });
  await until(() => list.textContent === "Nothing here.");
});

test("the word for an empty list counts as none, and is there while there is nothing else", async () => {
  const list = show(`<ol id="l" data-sse-live data-sse-live-limit="1"><li id="e" data-sse-live-empty>Nothing yet</li></ol>`);
  put("append", "l", `<li id="a">a</li>`);
  equal([byId("e").hidden, list.children.length], [true, 2]);
  list.setAttribute("data-sse-live-limit", "9");
  send({ action: "remove", target: "a" });
  equal([byId("e").hidden, list.children.length], [false, 1]);
});

test("new elements are marked for a second, changed ones are not", async () => {
  show(`<ol id="l"><li id="a">a</li></ol>`);
  put("append", "l", `<li id="b">b</li>`);
  put("replace", "a", `<li id="a">A</li>`);
  equal([byId("b").hasAttribute("data-sse-live-new"), byId("a").hasAttribute("data-sse-live-new")], [true, false]);
  await until(() => !byId("b").hasAttribute("data-sse-live-new"));
});

test("sse:patched comes from each, and bubbles", async () => {
  show(`<ol id="l"><li id="a">a</li></ol>`);
  put("append", "l", `<li id="b">b</li><li id="c">c</li>`);
  put("update", "a", `x`);
  send({ action: "remove", target: "a" });
  equal(heard, ["b", "c", "a", "l"]);
});

test("htmx is told of new elements", async () => {
  const told = [];
  window.htmx = { process: (element) => told.push(element.id) };
  show(`<ol id="l"><li id="a">a</li></ol>`);
  put("append", "l", `<li id="b">b</li>`);
  put("replace", "a", `<li id="a">A</li>`);
  delete window.htmx;
  equal(told, ["b", "a"]);
});

test("an element whose id is htmx is not taken for htmx", async () => {
  const list = show(`<ol id="htmx"><li id="a">a</li></ol>`);
  put("append", "htmx", `<li id="b">b</li>`);
  equal(list.textContent, "ab");
});

test("autofocus takes the focus from nobody; forms get the page's own token", async () => {
  show(`<ol id="l"></ol>`);
  put("append", "l", `<li id="a"><form><input type="hidden" name="csrfmiddlewaretoken" value=""><input id="i" autofocus></form></li>`);
  await sleep(50);
  equal([document.activeElement === byId("i"), byId("i").hasAttribute("autofocus")], [false, false]);
  equal(byId("a").querySelector("[name=csrfmiddlewaretoken]").value, document.querySelector("body > form [name=csrfmiddlewaretoken]").value);
});

test("hostile markup does nothing", async () => {
  show(`<ol id="l"></ol>`);
  window.harm = 0;
  put("append", "l", `<li id="a">&lt;img src=x onerror="harm++"&gt; &lt;/template&gt; <a href="#">javascript:harm++</a></li>`);
  put("append", "l", `<li id="b"><script>harm++<\/script><script src="/static/pages/harm.js"><\/script></template><svg><script>harm++<\/script></svg></li>`);
  put("update", "b", `<iframe></iframe><script>harm++<\/script>`);
  await sleep(100);
  equal([window.harm, byId("a").querySelector("img")], [0, null]);
});

test("patches up to the page's own position are not applied", async () => {
  const list = show(`<ol id="l"></ol>`);
  freshHost({ "last-event-id": "e:5-2" });
  send({ action: "append", target: "l", html: `<li id="a">a</li>` }, "e:5-2");
  send({ action: "append", target: "l", html: `<li id="b">b</li>` }, "e:5-3");
  send({ action: "append", target: "l", html: `<li id="c">c</li>` }, "f:1-0");
  equal(list.textContent, "bc");
});

test("equal markup is not touched", async () => {
  const list = show(`<ol id="l"><li id="a" class="x">a</li></ol>`);
  const [a] = list.children;
  const changes = watch();
  put("replace", "a", `<li id="a" class="x">a</li>`);
  put("append", "l", `<li id="a" class="x">a</li>`);
  equal([list.children[0] === a, changes()], [true, 0]);
});

// ---- what comes later

test("the last minute's patches are applied to a region that comes later", async () => {
  show(`<div id="d"></div>`);
  put("append", "l", `<li id="b">b</li>`);
  put("replace", "a", `<li id="a">A</li>`);
  put("append", "other", `<li id="c">c</li>`);
  byId("d").innerHTML = trusted(`<ol id="l" data-sse-live><li id="a">a</li></ol><ol id="other"></ol>`);
  await until(() => byId("l").textContent === "Ab");
  equal(byId("other").textContent, "c", "what comes with it");
});

test("what has left a region that comes later for another place is not there twice", async () => {
  show(`<ol id="l"></ol><div id="d"></div>`);
  send({ action: "append", target: "l", id: "a", from: "m", html: `<li id="a">a</li>` });
  send({ action: "append", target: "nowhere", id: "b", from: "m", html: `<li id="b">b</li>` });
  byId("d").innerHTML = trusted(`<ol id="m" data-sse-live><li id="a">a</li><li id="b">b</li><li id="c">c</li></ol>`);
  await until(() => byId("m").textContent === "c");
  equal(byId("l").textContent, "a");
});

test("what a region that comes later has had, and another place has now, stays there", async () => {
  show(`<div id="d"><ol id="l" data-sse-live></ol></div><ol id="m" data-sse-live><li id="b">b</li></ol>`);
  send({ action: "append", target: "l", id: "a", html: `<li id="a">a</li>` });
  send({ action: "append", target: "m", id: "a", from: "l", html: `<li id="a">a</li>` });
  byId("d").replaceChildren();
  byId("d").innerHTML = trusted(`<ol id="l" data-sse-live></ol>`);
  await sleep(50);
  equal([byId("l").textContent, byId("m").textContent], ["", "ba"]);
});

test("what moves to a place that the page lacks goes", async () => {
  const list = show(`<ol id="l"><li id="a">a</li><li id="b">b</li></ol>`);
  send({ action: "append", target: "nowhere", id: "a", from: "l", html: `<li id="a">a</li>` });
  put("append", "nowhere", `<li id="b">b</li>`);
  equal(list.textContent, "b");
});

test("a region that comes later and is replaced then is not one that comes later again", async () => {
  show(`<div id="d"></div>`);
  for (const n of [1, 2]) put("replace", "l", `<ol id="l" data-sse-live>${n}</ol>`);
  byId("d").innerHTML = trusted(`<ol id="l" data-sse-live>0</ol>`);
  await until(() => byId("l").textContent === "2");
  const changes = watch();
  await sleep(50);
  equal(changes(), 0);
});

test("a region that comes after a reset, and was rendered before, is fetched", async () => {
  show(`<div id="d"></div>`);
  answers = [page(`<ol id="l" data-sse-live>2</ol>`)];
  reset();
  await sleep(500);
  byId("d").innerHTML = trusted(`<ol id="l" data-sse-live>1</ol>`);
  await until(() => byId("l").textContent === "2");
});

test("the patches of a page that the visitor has left are not applied to regions of the next one, nor to what it fetches", async () => {
  show(`<ol id="l" data-sse-live></ol>`);
  put("append", "l", `<li id="a">a</li>`);
  put("append", "elsewhere", `<li id="b">b</li>`);
  freshHost();
  show(`<ol id="l" data-sse-live></ol><ol id="elsewhere" data-sse-live></ol><p id="q" data-sse-live>1</p>`);
  await sleep(50);
  equal([byId("l").textContent, byId("elsewhere").textContent], ["", ""]);
  // From a cache: older than the patches.
  answers = [page(`<ol id="l" data-sse-live></ol><ol id="elsewhere" data-sse-live></ol><p id="q" data-sse-live>2</p>`, "e:1-0")];
  reset();
  await until(() => byId("q").textContent === "2");
  equal([byId("l").textContent, byId("elsewhere").textContent], ["", ""]);
});

test("a region of our own is not one that comes later", async () => {
  show(`<div id="d"></div>`);
  put("update", "d", `<ol id="l" data-sse-live></ol>`);
  put("append", "l", `<li id="a">a</li>`);
  put("replace", "l", `<ol id="l" data-sse-live class="x"></ol>`);
  await sleep(50);
  equal(markup(byId("d")), `<div id="d"><ol id="l" data-sse-live="" class="x"></ol></div>`);
});

// ---- what the visitor has in hand

/** Rows with a form each; the first one's text is being changed. */
const row = (id, text = id, more = "") => `<li id="${id}"><p>${text}</p>${more}<form><input name="text" value="${text}"><label><input type="checkbox" name="done"></label></form></li>`;

test("what is typed stays where it is: focus, caret, and the element itself", async () => {
  show(`<ol id="l" data-sse-live>${row("a")}${row("b")}</ol>`);
  const input = byId("a").querySelector("input");
  let blurs = 0;
  input.addEventListener("blur", () => blurs++);
  input.focus();
  input.value = "typing";
  input.setSelectionRange(2, 4);
  put("replace", "a", row("a", "new", "<p>more</p>"));
  put("append", "l", row("a", "newer", "<p>more</p>"));
  put("append", "l", row("c"));
  equal([...byId("l").children].map(({ id }) => id), ["b", "a", "c"]);
  equal([byId("a").querySelector("p").textContent, byId("a").querySelectorAll("p").length], ["newer", 2]);
  equal([byId("a").querySelector("input") === input, document.activeElement === input, blurs], [true, true, 0]);
  equal([input.value, input.selectionStart, input.selectionEnd], ["typing", 2, 4]);
});

test("what was changed stays without focus too, in a reset as well", async () => {
  show(`<ol id="l" data-sse-live>${row("a")}${row("b")}</ol><form id="f" data-sse-live><textarea></textarea><select><option>1</option><option>2</option></select>
    <input><input type="radio" name="r" value="1" checked><input type="radio" name="r" value="2"></form>`);
  const box = byId("b").querySelector("[name=done]");
  box.checked = true;
  const [textarea, select, input, , radio] = byId("f").elements;
  textarea.value = "typed";
  select.selectedIndex = 1;
  input.value = "also";
  radio.checked = true;
  const list = `<ol id="l" data-sse-live>${row("c")}${row("b", "B")}</ol>`;
  answers = [page(`${list}<form id="f" data-sse-live><p>said</p><textarea></textarea><select><option>1</option><option>2</option></select><p>in between</p>
    <input><input type="radio" name="r" value="1" checked><input type="radio" name="r" value="2"></form>`)];
  reset();
  await until(() => byId("c"));
  equal([byId("b").querySelector("[name=done]") === box, box.checked, byId("b").querySelector("p").textContent], [true, true, "B"]);
  equal([byId("f").elements[0] === textarea, textarea.value, select.isConnected, select.value, input.isConnected, input.value], [true, "typed", true, "2", true, "also"]);
  equal([radio.isConnected, radio.checked, byId("f").querySelectorAll("p").length], [true, true, 2]);
  equal(byId("a"), null);
});

test("a choice or a text that the server has too follows the server from then on, focused or not", async () => {
  const item = (done, title, size, state) => `<li id="a"><form><label><input type="checkbox" name="done" ${done ? "checked" : ""}> done</label>
    <input name="title" value="${title}"><textarea name="more">${title}</textarea>
    <select name="size">${["s", "m", "l"].map((each) => `<option ${each === size ? "selected" : ""}>${each}</option>`).join("")}</select>
    ${["x", "y", "z"].map((each) => `<label><input type="radio" name="state" value="${each}" ${each === state ? "checked" : ""}> ${each}</label>`).join("")}</form></li>`;
  const shown = () => {
    const { done, title, more, size, state } = byId("a").querySelector("form").elements;
    return [done.checked, title.value, more.value, size.value, state.value];
  };
  const choose = (title) => {
    const { done, title: text, more, size, state } = byId("a").querySelector("form").elements;
    done.focus();
    done.checked = true;
    text.value = more.value = title;
    size.value = "l";
    state.value = "y";
    return done;
  };
  for (const way of ["replace", "reset"]) {
    const list = (...values) => `<ol id="l" data-sse-live>${item(...values)}</ol>`;
    const save = async (...values) => {
      answers = [page(list(...values))];
      const count = heard.length;
      if (way === "replace") put("replace", "a", item(...values));
      else reset();
      await until(() => heard.length > count);
    };
    show(list(false, "old", "s", "x"));
    const box = choose("mine");
    await save(false, "other", "m", "x");
    equal(shown(), [true, "mine", "mine", "l", "y"], "what is not saved");
    await save(true, "mine", "l", "y");
    equal([shown(), document.activeElement === box, box.defaultChecked], [[true, "mine", "mine", "l", "y"], true, true], "what is saved");
    await save(false, "theirs", "m", "z");
    equal([shown(), document.activeElement === box], [[false, "theirs", "theirs", "m", "z"], true], "what another has saved after that");
    box.blur();
  }
});

test("a control that is named as a form's method is changed and kept as any other", async () => {
  const inner = (n) => `<p>${n}</p><input type="reset" name="reset" value="Reset"><input id="reset" name="append">`;
  show(`<form id="f">${inner(1)}</form>`);
  byId("reset").value = "typed";
  put("replace", "f", `<form id="f">${inner(2)}</form>`);
  equal([byId("f").textContent, byId("reset").value, byId("f").querySelectorAll("input").length], ["2", "typed", 2]);
});

test("attributes with names that only a parser accepts change with the rest", async () => {
  const html = (n) => `<li id="a" @click="like(${n})" [n]="${n}" (n)="${n}"><p>${n}</p><input></li>`;
  show(`<ol id="l">${html(1)}</ol>`);
  const input = place.querySelector("input");
  input.value = "typed";
  put("replace", "a", html(2));
  equal([place.querySelector("input") === input, byId("a").textContent], [true, "2"]);
  equal(["@click", "[n]", "(n)"].map((name) => byId("a").getAttribute(name)), ["like(2)", "2", "2"]);
});

test("a form that shows errors stays with what it shows, in a reset and a refresh", async () => {
  const form = (id, more, errors, attribute, value) => `<form id="${id}" ${more}>${errors}<textarea name="text" ${attribute}>${value}</textarea></form>`;
  const html = (n, ...said) => `<div id="d" data-sse-live><p>${n}</p>${form("f", "", ...said)}</div>${form("g", "data-sse-live", ...said)}`;
  let n = 1;
  for (const said of [[`<ul class="errorlist"><li>Too fast</li></ul>`, "", "typed"], ["<b>Too fast</b>", `aria-invalid="true"`, "typed"]]) {
    show(html(n, ...said));
    const shown = ["f", "g"].map((id) => byId(id).textContent);
    for (const start of [reset, () => ["g", "d"].forEach((target) => send({ action: "refresh", target }))]) {
      answers = [page(html(++n, "", "", ""))];
      start();
      await until(() => byId("d").textContent.startsWith(n));
      equal(["f", "g"].map((id) => byId(id).textContent), shown);
    }
    // The page's own script has found nothing wrong any more.
    for (const error of place.querySelectorAll(".errorlist, [aria-invalid]")) error.matches("ul") ? error.remove() : error.removeAttribute("aria-invalid");
    answers = [page(html(++n, "", "", "new"))];
    reset();
    await until(() => byId("d").textContent === `${n}new`);
    equal(byId("g").textContent, "new");
  }
});

test("a control is known by its name where its id changed, and by its place where it has neither", async () => {
  show(`<div id="d"><form><div><input id="x1" name="x"></div></form><div><input></div></div>`);
  const [named, nameless] = byId("d").querySelectorAll("input");
  named.value = "named";
  nameless.value = "nameless";
  put("replace", "d", `<div id="d"><p>!</p><form><div class="wrong"><b>no</b></div><div><input id="x2" name="x"></div></form><div class="error">oh</div><div><input></div></div>`);
  equal([named.isConnected, nameless.isConnected, named.value, nameless.value], [true, true, "named", "nameless"]);
  equal(byId("d").querySelectorAll("input").length, 2);
});

test("a control that changes its id and its place is known by its name", async () => {
  const inner = (...names) => `<form>${names.map((name) => `<div><input id="i${Math.random()}" name="${name}"></div>`).join("")}</form>`;
  show(`<div id="d">${inner("x", "y")}</div>`);
  const y = byId("d").querySelector("[name=y]");
  y.value = "for y";
  put("update", "d", inner("y", "w", "x"));
  equal([...byId("d").querySelectorAll("input")].map(({ name, value }) => `${name} ${value}`), ["y for y", "w ", "x "]);
  equal(y.isConnected, true);
});

test("a row that goes does not leave what was typed to another", async () => {
  show(`<ol id="l" data-sse-live>${row("a")}${row("b")}</ol>`);
  byId("a").querySelector("input").value = "typed";
  answers = [page(`<ol id="l" data-sse-live>${row("c")}${row("b")}</ol>`)];
  reset();
  await until(() => byId("c"));
  equal([byId("c").querySelector("input").value, byId("a")], ["c", null]);
});

test("open dialogs, details and popovers stay open, and what is in them changes", async () => {
  const inner = (text) => `<details id="t"><summary>s</summary><p>${text}</p></details><dialog id="g"><p>${text}</p></dialog><div id="v" popover><p>${text}</p></div>`;
  show(`<div id="d" data-sse-live>${inner("one")}</div>`);
  byId("t").open = true;
  byId("g").showModal();
  byId("v").showPopover?.();
  const [t, g, v] = ["t", "g", "v"].map(byId);
  put("update", "d", inner("two"));
  answers = [page(`<div id="d" data-sse-live>${inner("three")}</div>`)];
  reset();
  await until(() => byId("d").textContent.includes("three"));
  equal([byId("t") === t, t.open, byId("g") === g, g.matches(":modal"), byId("v") === v, v.showPopover ? v.matches(":popover-open") : true], Array(6).fill(true));
  equal(byId("d").textContent, "sthreethreethree");
  g.close();
});

test("details that the visitor has closed stay closed, wherever the server draws them open; new ones are as they are drawn", async () => {
  const details = (text, more = "open") => `<details ${more}><summary>s</summary><p>${text}</p></details>`;
  show(`<ol id="l" data-sse-live><li id="a">${details("one")}</li><li id="b"><div>${details("one", 'id="d" open')}</div></li></ol>`);
  for (const each of place.querySelectorAll("details")) each.open = false;
  put("replace", "a", `<li id="a">${details("two")}</li>`);
  put("replace", "d", details("two", 'id="d" open'));
  answers = [page(`<ol id="l" data-sse-live><li id="a">${details("three")}</li><li id="b"><div>${details("three", 'id="d" open')}</div></li><li id="c">${details("three")}</li></ol>`)];
  reset();
  await until(() => byId("c"));
  equal([...place.querySelectorAll("details")].map(({ open, textContent }) => [open, textContent]), [[false, "sthree"], [false, "sthree"], [true, "sthree"]]);
});

test("what is typed stays where the new markup wraps its control otherwise, until it is not changed any more", async () => {
  const bare = (value) => `<input name="text" value="${value}">`;
  const wrappings = [bare, (value) => `<label>Text ${bare(value)}</label>`, (value) => `<div><p>${bare(value)}</p></div>`];
  for (const before of wrappings) {
    for (const after of wrappings.filter((each) => each !== before)) {
      show(`<form id="f">${before("old")}</form>`);
      const input = place.querySelector("input");
      input.focus();
      input.value = "typed";
      put("update", "f", `<b>x</b>${after("new")}`);
      equal([place.querySelector("input") === input, document.activeElement === input, input.value, place.querySelectorAll("input").length], [true, true, "typed", 1]);
      equal(Boolean(place.querySelector("b")), true);
      input.value = input.defaultValue;
      input.blur();
      put("update", "f", after("newer"));
      equal(markup(byId("f")), `<form id="f">${after("newer")}</form>`);
    }
  }
});

test("an editable element with focus, what is scrolled, and what is to be kept stay", async () => {
  const inner = (text) => `<div id="w"><p contenteditable="true">${text}</p></div><div class="scroller" id="s"><div class="tall">${text}</div></div><div data-sse-live-keep><b>${text}</b></div>`;
  const style = new CSSStyleSheet();
  style.replaceSync(".scroller { height: 50px; overflow: auto } .tall { height: 900px }");
  document.adoptedStyleSheets = [style];
  show(`<div id="d">${inner("one")}</div>`);
  const edited = place.querySelector("[contenteditable]");
  edited.focus();
  edited.append("!");
  byId("s").scrollTop = 200;
  const kept = place.querySelector("[data-sse-live-keep]");
  put("update", "d", `<i>x</i>${inner("two")}`);
  equal([place.querySelector("[contenteditable]") === edited, document.activeElement === edited, edited.textContent], [true, true, "one!"]);
  equal([byId("s").scrollTop, byId("s").textContent, place.querySelector("[data-sse-live-keep]") === kept, kept.textContent], [200, "two", true, "one"]);
});

test("what is chosen in a select stays chosen while its options come, go, are renamed and are put in another order", async () => {
  const option = (value, text = value, more = "") => `<option id="o${value}" value="${value}"${more}>${text}</option>`;
  const select = (options, more = "") => `<form id="f"><select id="s" data-sse-live${more}>${options}</select></form>`;
  const chosen = () => [...byId("s").selectedOptions].map(({ value }) => value).join();
  const texts = () => [...byId("s").options].map(({ text }) => text).join();
  for (const group of [(options) => options, (options) => `<optgroup id="g" label="g">${options}</optgroup>`]) {
    show(select(group(option(1, "1", " selected") + option(2))));
    byId("s").value = "2";
    put("replace", "o2", option(2, "two"));
    equal([chosen(), texts()], ["2", "1,two"], "renamed");
    put("prepend", byId("g") ? "g" : "s", option(2, "too"));
    equal([chosen(), texts()], ["2", "too,1"], "moved");
    put("replace", "o1", option(1, "one", " selected"));
    put("append", "s", option(3, "3", " selected"));
    equal([chosen(), texts()], ["2", "too,one,3"], "beside one that the server has selected");
    put("update", "s", `<option value="0">0</option><option value="1">1</option><option value="2">II</option>`);
    equal([chosen(), texts()], ["2", "0,1,II"], "without ids");
    answers = [page(select(option(5) + option(2, "zwei") + option(1)))];
    send({ action: "refresh", target: "s" });
    await until(() => texts() === "5,zwei,1");
    equal(chosen(), "2", "after a refresh");
    put("remove", "o2");
    equal(chosen(), "5", "gone");
  }
  show(select(option(1, "1", " selected") + option("") + option(2) + option(3), " multiple"));
  for (const each of byId("s").options) each.selected = each.value > 1;
  put("replace", "o2", option(2, "two"));
  put("replace", "o1", option(1, "one", " selected"));
  equal([chosen(), texts()], ["2,3", "one,,two,3"], "several");
  for (const each of byId("s").options) each.selected = false;
  put("replace", "o2", option(2, "II", " selected"));
  equal(chosen(), "", "none");
});

test("a select without a choice of the visitor's has what the server selects", async () => {
  const option = (value, more = "") => `<option id="o${value}" value="${value}"${more}>${value}</option>`;
  show(`<select id="s">${option(1)}${option(2)}</select>`);
  put("replace", "o2", option(2, " selected"));
  equal(byId("s").value, "2");
  byId("s").value = "1";
  put("update", "s", option(1, " selected") + option(2));
  equal(byId("s").value, "1", "the server has the visitor's choice");
  put("update", "s", option(1) + option(2, " selected"));
  equal(byId("s").value, "2", "somebody else's choice after that");
});

test("a focused button gets its new words and keeps the focus; selected text stays selected", async () => {
  show(`<div id="d"><button>Like (1)</button><p>some text</p><i>1</i></div>`);
  const button = place.querySelector("button");
  button.focus();
  put("replace", "d", `<div id="d"><button>Like (2)</button><p>some text</p><i>1</i></div>`);
  equal([document.activeElement === button, button.textContent], [true, "Like (2)"]);
  button.blur();
  getSelection().selectAllChildren(place.querySelector("p"));
  put("replace", "d", `<div id="d"><button>Like (2)</button><p>some text</p><i>2</i></div>`);
  equal([getSelection().toString(), place.querySelector("i").textContent], ["some text", "2"]);
  getSelection().removeAllRanges();
});

test("the row being edited does not fall off a full list", async () => {
  show(`<ol id="l" data-sse-live data-sse-live-limit="2">${row("a")}${row("b")}</ol>`);
  byId("a").querySelector("input").value = "typed";
  for (const id of ["c", "d"]) put("append", "l", row(id));
  equal([...byId("l").children].map(({ id }) => id), ["a", "c", "d"]);
  byId("a").querySelector("input").value = "a";
  put("append", "l", row("e"));
  equal([...byId("l").children].map(({ id }) => id), ["d", "e"]);
});

test("a row that is typed in and moves to another list stays, with its new content", async () => {
  show(`<ol id="l">${row("a")}${row("b")}</ol><ol id="m"></ol>`);
  const input = byId("a").querySelector("input");
  input.value = "typed";
  put("append", "m", row("a", "new"));
  equal([byId("a").parentNode.id, byId("a").querySelector("p").textContent, byId("a").contains(input), input.value], ["l", "new", true, "typed"]);
  input.value = input.defaultValue;
  put("append", "m", row("a", "newer"));
  equal([byId("a").parentNode.id, byId("a").querySelector("p").textContent, byId("l").children.length], ["m", "newer", 1]);
});

test("remove removes it, whatever it holds", async () => {
  show(`<ol id="l">${row("a")}${row("b")}</ol>`);
  byId("a").querySelector("input").focus();
  send({ action: "remove", target: "a" });
  equal(byId("a"), null);
});

test("what is held keeps its place among elements that are put in another order", async () => {
  show(`<ol id="l" data-sse-live>${["a", "b", "c", "d"].map((id) => row(id)).join("")}</ol>`);
  const input = byId("c").querySelector("input");
  input.focus();
  let blurs = 0;
  input.addEventListener("blur", () => blurs++);
  for (const order of ["dcba", "cabd", "abdc"]) {
    answers = [page(`<ol id="l" data-sse-live>${[...order].map((id) => row(id)).join("")}</ol>`)];
    reset();
    await until(() => [...byId("l").children].map(({ id }) => id).join("") === order, order);
  }
  equal([blurs, document.activeElement === input], [0, true]);
});

test("all that the visitor has in hand stays through 200 patches, a refresh and a reset", async () => {
  const style = new CSSStyleSheet();
  style.replaceSync(".scroller { height: 50px; overflow: auto } .tall { height: 900px }");
  document.adoptedStyleSheets = [style];
  const html = (n) => `<div id="d" data-sse-live data-n="${n}"><p>${n}</p><div><form><input name="text" value="text"><textarea name="more">more</textarea>
    <select name="one"><option>1</option><option>2</option></select><select multiple><option>1</option><option>2</option></select>
    <label><input type="checkbox" name="box"> ${n}</label><input type="range"><input></form></div>
    <details><summary>s ${n}</summary><p>${n}</p></details><dialog>${n}</dialog><div popover>${n}</div><div class="scroller"><p class="tall">${n}</p></div>
    <ol id="l">${["a", "b"].map((id) => row(id, id, `<i>${n}</i>`)).join("")}</ol></div>`;
  show(html(0));
  const d = byId("d");
  const form = d.querySelector("form");
  const [text, more, one, many, box, range, nameless] = form.elements;
  const [details, dialog, popover, scroller] = ["details", "dialog", "[popover]", ".scroller"].map((each) => d.querySelector(each));
  const edited = byId("a").querySelector("input");
  more.value = "typed before";
  one.selectedIndex = 1;
  many.options[0].selected = true;
  box.checked = true;
  range.value = 70;
  nameless.value = "without a name";
  edited.value = "the very row";
  details.open = true;
  dialog.show();
  popover.showPopover?.();
  scroller.scrollTop = 300;
  text.focus();
  text.value = "being typed";
  text.setSelectionRange(3, 5, "backward");
  const lost = [];
  for (const type of ["blur", "close"]) d.addEventListener(type, ({ target }) => lost.push(`${type} ${target.localName} ${target.name}`), true);
  const everything = () => [
    [text, more, one, many, box, range, nameless, details, dialog, popover, scroller, edited].every((each) => each.isConnected && d.contains(each)),
    document.activeElement === text, text.value, text.selectionStart, text.selectionEnd, text.selectionDirection,
    more.value, one.value, many.selectedOptions.length, box.checked, range.value, nameless.value, edited.value,
    details.open, dialog.open, popover.showPopover ? popover.matches(":popover-open") : true, scroller.scrollTop, lost.join(), byId("a").contains(edited),
  ];
  const before = everything();
  for (let n = 1; n <= 200; n++) {
    if (n % 4 === 0) put("replace", "d", html(n));
    else if (n % 4 === 1) put("append", "l", row(`n${n}`));
    else if (n % 4 === 2) put("replace", "a", row("a", "a", `<i>${n}</i>`));
    else put("prepend", "l", row("a", "a", `<i>${n}</i>`));
  }
  equal(everything(), before, "after 200 patches");
  for (const [name, start] of [["refresh", () => send({ action: "refresh", target: "d" })], ["reset", reset]]) {
    answers = [page(html(name))];
    start();
    await until(() => d.dataset.n === name, name);
    equal(everything(), before, `after a ${name}`);
    equal([d.querySelector("p").textContent, details.textContent, dialog.textContent, byId("l").children.length], [name, `s ${name}${name}`, name, 2]);
  }
});

// ---- reset and refresh

const simple = (text) => `<p id="r" data-sse-live>${text}</p>`;

test("a reset fetches the page once, as a refresh, and takes every region", async () => {
  show(`${simple("1")}<p id="q" data-sse-live>1</p><p id="n">1</p>`);
  answers = [page(`${simple("2")}<p id="q" data-sse-live class="c">2</p><p id="n">2</p>`)];
  reset();
  await until(() => byId("q").textContent === "2");
  equal([byId("r").textContent, byId("n").textContent, byId("q").className], ["2", "1", "c"]);
  equal(asked.map(({ headers }) => headers["SSE-Live"]), ["refresh"]);
  equal(heard.sort(), ["q", "r"]);
});

test("a reset that changes nothing touches nothing", async () => {
  const html = `<div id="d" data-sse-live class="x"><h2>h</h2><!-- c --><table><tbody><tr id="t1"><td>1</td></tr></tbody></table> text
    ${row("a")}<details><summary>s</summary></details><form><input type="hidden" name="csrfmiddlewaretoken" value="one"><input autofocus></form><noscript><b>x</b></noscript>
    <p data-sse-live-empty hidden>none</p><select><option>1</option><option selected>2</option></select><textarea>
two</textarea></div>`;
  show(html);
  const element = byId("a").querySelector("input");
  element.value = "typed";
  place.querySelector("details").open = true;
  const changes = watch();
  answers = [page(html.replace('value="one"', 'value="two"'))];
  reset();
  await until(() => heard.length);
  equal(changes(), 0);
});

test("no network, 503, 429: it is asked for again; anything that is final ends it, and is said", async () => {
  for (const trouble of [{ isLost: true }, { status: 503 }, { status: 429 }]) {
    show(simple("1"));
    answers = [trouble, ...trouble.isLost ? [trouble] : [], page(simple("2"))];
    reset();
    await until(() => byId("r").textContent === "2", JSON.stringify(trouble));
  }
  for (const trouble of [{ status: 404 }, { status: 403 }, { isForeign: true }, { html: simple("2"), redirected: `${location.origin}/login/` }]) {
    show(simple("1"));
    answers = [trouble];
    const before = asked.length;
    reset();
    await until(() => host.hasAttribute("stale"));
    await sleep(400);
    equal([byId("r").textContent, asked.length - before], ["1", trouble.isForeign ? 2 : 1]);
    answers = [page(simple("3"))];
    reset();
    await until(() => byId("r").textContent === "3");
    equal(host.hasAttribute("stale"), false);
  }
  equal(heard.filter((each) => each === "stale").length, 4);
});

test("what was refused is fetched with the next that is asked for; the page is stale until then", async () => {
  show(`${simple("1")}<p id="q" data-sse-live>1</p>`);
  answers = [{ status: 403 }];
  reset();
  await until(() => host.hasAttribute("stale"));
  answers = [page(`${simple("2")}<p id="q" data-sse-live>2</p>`)];
  send({ action: "refresh", target: "q" });
  await until(() => !host.hasAttribute("stale"));
  equal([byId("r").textContent, byId("q").textContent], ["2", "2"]);
});

test("a redirect to another place of the same path is followed", async () => {
  show(simple("1"));
  answers = [{ ...page(simple("2")), redirected: `${location.href}&x=1` }];
  reset();
  await until(() => byId("r").textContent === "2");
});

test("an older answer is asked for once more, past every cache, and then taken", async () => {
  for (const position of ["e:1-0", "old:9999999-0"]) {
    show(simple("1"));
    asked = [];
    answers = [page(simple("2"), position), page(simple("3"), position)];
    reset("e:1000000-0");
    await until(() => byId("r").textContent === "3");
    await sleep(400);
    equal([asked.length, new URL(asked[1].href).searchParams.has("sse-live")], [2, true]);
  }
});

test("an answer that stays older is no reason to ask again and again", async () => {
  const list = show(`<ol id="l" data-sse-live data-sse-live-limit="2"><li id="a">a</li><li id="b">b</li></ol>`);
  answers = [page(list.outerHTML, "e:1-0")];
  send({ action: "remove", target: "b" }, "e:1000000-0");
  await until(() => asked.length === 2);
  await sleep(900);
  equal([asked.length, list.textContent], [2, "a"]);
});

test("a region that the answer lacks stays", async () => {
  show(`${simple("1")}<p id="q" data-sse-live>1</p>`);
  answers = [page(simple("2"))];
  reset();
  await until(() => byId("r").textContent === "2");
  equal(byId("q").textContent, "1");
});

test("patches that an answer does not know are in it, and show no flicker", async () => {
  show(`<ol id="l" data-sse-live><li id="a">a</li></ol>`);
  let go;
  const early = nextId();
  answers = [{ ...page(`<ol id="l" data-sse-live><li id="b">b</li></ol>`, early), wait: new Promise((resolve) => { go = resolve; }) }];
  reset(early);
  await until(() => asked.length);
  put("append", "l", `<li id="c">c</li>`);
  put("replace", "b", `<li id="b">B</li>`);
  const c = byId("c");
  go();
  await until(() => byId("b"));
  equal([byId("l").textContent, byId("c") === c], ["Bc", true]);
});

test("a patch that a fetched region shows already does not take it back", async () => {
  show(`<ol id="l" data-sse-live></ol>`);
  answers = [page(`<ol id="l" data-sse-live><li id="a">new</li></ol>`, "e:1000-900000")];
  reset();
  await until(() => byId("a"));
  send({ action: "append", target: "l", html: `<li id="a">old</li>` }, "e:1000-899999");
  equal(byId("l").textContent, "new");
});

test("a refresh takes one region, and many at once are one fetch and one more", async () => {
  show(`${simple("1")}<p id="q" data-sse-live>1</p>`);
  let go;
  answers = [{ ...page(`${simple("2")}<p id="q" data-sse-live>2</p>`, "e:9000-0"), wait: new Promise((resolve) => { go = resolve; }) }, page(simple("3"), "e:9999-0")];
  for (let n = 0; n < 50; n++) send({ action: "refresh", target: "r" });
  await until(() => asked.length);
  for (let n = 0; n < 50; n++) send({ action: "refresh", target: "r" }, `e:9001-${n}`);
  go();
  await until(() => byId("r").textContent === "3");
  await sleep(400);
  equal([byId("q").textContent, asked.length], ["1", 2]);
});

test("a refresh that follows what the visitor did is made at once, others within the spread", async () => {
  show(simple("1"));
  host.live.spreadMs = 1e9;
  answers = [page(simple("2"), "e:9000-0")];
  send({ action: "refresh", target: "r" });
  await sleep(400);
  equal(asked.length, 0);
  byId("r").click();
  send({ action: "refresh", target: "r" });
  await until(() => byId("r").textContent === "2");
});

test("a hidden page waits until it is seen", async () => {
  show(simple("1"));
  answers = [page(simple("2"), "e:9000-0")];
  Object.defineProperty(document, "hidden", { value: true, configurable: true });
  send({ action: "refresh", target: "r" });
  await sleep(500);
  equal(asked.length, 0);
  delete document.hidden;
  document.dispatchEvent(new Event("visibilitychange"));
  await until(() => byId("r").textContent === "2");
});

test("an element that has left the page asks for nothing more", async () => {
  show(simple("1"));
  answers = [{ status: 503 }];
  reset();
  await until(() => asked.length);
  host.live = null;
  await sleep(2500);
  equal(asked.length <= 2, true, `${asked.length} asked`);
});

test("an element that has gone leaves its fetch to another one, if the page has one", async () => {
  for (const goes of [() => {}, () => until(() => asked.length)]) {
    show(simple("1"));
    freshHost();
    asked = [];
    let go;
    answers = [{ ...page(simple("2"), "e:9000-0"), wait: new Promise((resolve) => { go = resolve; }) }];
    send({ action: "refresh", target: "r" });
    const other = document.body.appendChild(document.createElement("sse-live"));
    other.live = { ...host.live, close() {} };
    await goes();
    host.live = null;
    go();
    await until(() => byId("r").textContent === "2");
    other.remove();
  }
});

test("what was fetched for a page that the visitor has left is fetched again for the next one, which may be newer", async () => {
  show(simple("1"));
  let go;
  answers = [{ ...page(simple("2")), wait: new Promise((resolve) => { go = resolve; }) }, page(simple("2")), page(simple("3"))];
  reset();
  await until(() => asked.length);
  const other = document.body.appendChild(document.createElement("sse-live"));
  other.live = { ...host.live, close() {} };
  host.live = null;
  show(simple("2.5"));
  const texts = [];
  const observer = new MutationObserver(() => texts.push(byId("r").textContent));
  observer.observe(byId("r"), { characterData: true, childList: true, subtree: true });
  go();
  await until(() => byId("r").textContent === "3");
  observer.disconnect();
  equal(texts, ["3"]);
  other.remove();
});

test("a visitor who has gone on within the page gets what is there", async () => {
  const before = location.href;
  show(simple("1"));
  let go;
  answers = [{ ...page(simple("2"), "e:9000-0"), wait: new Promise((resolve) => { go = resolve; }) }, page(simple("3"), "e:9000-0")];
  reset();
  await until(() => asked.length);
  history.replaceState(null, "", `${before}&page=2`);
  go();
  await until(() => byId("r").textContent === "3");
  history.replaceState(null, "", before);
});

// ---- run and report

async function run({ name, run }) {
  const start = performance.now();
  freshHost();
  heard = [];
  asked = [];
  answers = [{ status: 404 }];
  problems.length = 0;
  let error = null;
  try {
    await Promise.race([run(), sleep(TIMEOUT_MS).then(() => { throw new Error("took too long"); })]);
    await sleep(0);
    equal(problems, [], "problems");
  } catch (problem) {
    error = `${problem.message ?? problem}`;
  }
  host.live = null;
  place.replaceChildren();
  for (const forget of forgotten.splice(0)) forget();
  return { name, error, ms: Math.round(performance.now() - start) };
}

document.addEventListener("sse:patched", ({ target }) => heard.push(target.id));
document.addEventListener("sse:stale", () => heard.push("stale"));
const parameters = new URLSearchParams(location.search);
const wanted = parameters.get("only");
const results = [];
for (const each of tests) if (!wanted || each.name.includes(wanted)) results.push(await run(each));
const request = new XMLHttpRequest();
request.open("POST", "/report/");
request.send(JSON.stringify({ run: parameters.get("run"), agent: navigator.userAgent, results }));
document.title = "done";
