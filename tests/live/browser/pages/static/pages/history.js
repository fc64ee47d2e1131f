// Hides the page, brings a region into it late, and compares it with a freshly loaded one, as it is told from outside the site:
// the site itself is cut off and killed meanwhile.
const control = `http://127.0.0.1:${new URLSearchParams(location.search).get("control")}`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const problems = [];
for (const type of ["error", "unhandledrejection", "securitypolicyviolation"]) {
  addEventListener(type, (event) => problems.push(`${type} ${event.message ?? event.reason ?? event.violatedDirective}`));
}
const { error } = console;
console.error = (...words) => { problems.push(words.join(" ")); error(...words); };

const regionsOf = (page) => [...page.querySelectorAll("[data-sse-live]")].map((region) => {
  const copy = region.cloneNode(true);
  for (const each of copy.querySelectorAll("[data-sse-live-new]")) each.removeAttribute("data-sse-live-new");
  for (const each of copy.querySelectorAll("[name=csrfmiddlewaretoken]")) each.removeAttribute("value");
  for (const each of copy.querySelectorAll("[data-sse-live-empty][hidden]")) each.remove();
  return copy.outerHTML.replace(/ data-sse-live-new=""/g, "").replace(/\s+/g, " ").replace(/> </g, "><");
});

const policy = window.trustedTypes?.createPolicy("history", { createHTML: (html) => html });
const parse = (html) => new DOMParser().parseFromString(policy?.createHTML(html) ?? html, "text/html");

/** The text of a page, however long it takes until one is there. */
async function text(url) {
  for (;;) {
    try {
      const answer = await fetch(url, { cache: "no-store" });
      if (answer.ok) return await answer.text();
    } catch { /* cut off */ }
    await sleep(100);
  }
}

const acts = {
  hidden() { show(true); },
  seen() { show(false); },
  async bring() {
    // As htmx would, and slowly.
    const slot = document.querySelector("#slot");
    slot.replaceChildren();
    const late = parse(await text("/later/"));
    await sleep(Math.random() * 400);
    slot.replaceChildren(...late.body.children);
  },
  async compare() {
    const differences = [];
    const { live } = document.querySelector("sse-live");
    // The waits of a stream, and of a fetch after it, are up to 30 s.
    for (const start = performance.now(); performance.now() - start < 100_000; await sleep(250)) {
      const fresh = regionsOf(parse(await text(`${location.pathname}?fresh=${Math.random()}`)));
      const own = regionsOf(document);
      differences.length = 0;
      for (const [number, region] of fresh.entries()) if (region !== own[number]) differences.push({ is: own[number], right: region });
      const isStale = document.querySelector("sse-live").hasAttribute("stale");
      if (isStale) await fetch("/act/", { method: "POST", body: JSON.stringify({ act: "refresh", seed: 1 }) });
      if (!differences.length && !isStale) break;
    }
    return { differences, problems: problems.splice(0), state: live.state, stats: live.stats };
  },
};

function show(isHidden) {
  Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
  Object.defineProperty(document, "visibilityState", { value: isHidden ? "hidden" : "visible", configurable: true });
  document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
}

for (let result = { agent: navigator.userAgent }; ;) {
  const order = await (await fetch(`${control}/`, { method: "POST", body: JSON.stringify(result) })).json();
  result = await acts[order.act]() ?? {};
}
