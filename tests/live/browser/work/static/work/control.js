// Does to a page what it is told from outside the site, which is cut off and killed meanwhile; and says what its jobs show.
const control = `http://127.0.0.1:${new URLSearchParams(location.search).get("control")}`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const problems = [];
for (const type of ["error", "unhandledrejection", "securitypolicyviolation"]) {
  addEventListener(type, (event) => problems.push(`${type} ${event.message ?? event.reason ?? event.violatedDirective}`));
}

const policy = window.trustedTypes?.createPolicy("control", { createHTML: (html) => html });
const parse = (html) => new DOMParser().parseFromString(policy?.createHTML(html) ?? html, "text/html");

const place = document.querySelector("#place");
const frames = () => [...place.querySelectorAll("iframe")];
const jobs = () => [document, ...frames().map((each) => each.contentDocument)].flatMap((page) => [...page?.querySelectorAll("sse-live-job") ?? []]);
/** What has ended before the page was drawn needs no script. */
const stateOf = (it) => {
  const [shown, said] = ["text", "status"].map((name) => it.querySelector(`[data-job=${name}]`).textContent);
  const { id, state, text } = it.job ?? { id: it.getAttribute("job"), state: it.getAttribute("state"), text: shown };
  return { id, state, text, shown, said, marked: it.marked, streams: it.querySelectorAll("sse-live").length, connection: it.querySelector("sse-live")?.live?.state };
};

const acts = {
  reload() { location.reload(); },
  open({ url }) { location.href = url; },
  /** A second tab. */
  tab() {
    const frame = document.createElement("iframe");
    frame.src = location.href.replace(/control=\d+/, "");
    place.append(frame);
  },
  /** The eldest of those goes. */
  untab() { frames()[0]?.remove(); },
  /** The element once more on this page. */
  twin() { place.append(place.querySelector("sse-live-job").cloneNode(true)); },
  /** The element is put elsewhere. */
  move() { place.append(place.querySelector("sse-live-job")); },
  async stop() {
    const button = place.querySelector("[data-job=stop]");
    for (let waits = 0; button.hidden && waits < 200; waits += 1) await sleep(50);
    button.click();
  },
  /** Known again by this. */
  mark() { place.querySelector("sse-live-job").marked = true; },
  async live() {
    for (let waits = 0; !document.querySelector("sse-live[state=connected]") && waits < 200; waits += 1) await sleep(50);
  },
  /** Put in as markup, whose scripts do not run. */
  async fetch({ url }) { document.body.append(...parse(await (await fetch(url)).text()).body.children); },
  async watch({ token, id }) {
    const { SSELive } = await import("/static/django_sse_live/sse-live.js");
    const live = document.querySelector("sse-live")?.live ?? new SSELive("/events/?channel=news");
    const it = await live.job(token, id);
    while (it.job.state !== "finished") await new Promise((resolve) => it.addEventListener("sse:job", resolve, { once: true }));
    it.remove();
    const { text, result, progress } = it.job;
    return { text, result, progress };
  },
  /** Waits until every job has come to a state, at most so long; frames that could not be loaded are loaded again. */
  async settled({ states, seconds, count }) {
    for (const start = performance.now(); performance.now() - start < 1000 * seconds; await sleep(100)) {
      const all = jobs().map(stateOf);
      const hasFrames = frames().every((each) => each.contentDocument?.querySelector("sse-live-job"));
      if (hasFrames && all.length >= count && all.every(({ state }) => states.includes(state))) break;
      for (const each of frames()) if (each.contentDocument?.readyState === "complete" && !each.contentDocument.querySelector("sse-live-job")) each.contentWindow.location.replace(each.src);
    }
    return { jobs: jobs().map(stateOf), frames: frames().length, problems: problems.splice(0) };
  },
};

for (let result = { agent: navigator.userAgent }; ;) {
  const order = JSON.parse((await (await fetch(`${control}/`, { method: "POST", body: JSON.stringify(result) })).json()).act);
  result = await acts[order.act](order) ?? {};
  // The next page goes on.
  if (["reload", "open"].includes(order.act)) await sleep(1e9);
}
