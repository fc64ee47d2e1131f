// The admin's "Live connections": draws what the workers report, as `sse:worker` events of the page's own stream.
// The page has every word, in its language; Intl formats numbers and ages.

const REPORT_MS = 2000;  // how often the workers report
const GONE_MS = 3.5 * REPORT_MS;  // a worker that is silent for this long is gone
const SAMPLES = 60;
const QUERY_MAX_LENGTH = 2000;  // of a url's query, which servers and proxies bound
const LINE_SAMPLES = 15;  // fewer draw no line

const root = /** @type {HTMLElement} */ (document.getElementById("sse-live"));
const words = /** @type {Record<string, string>} */ (root.dataset);
const language = document.documentElement.lang || undefined;

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} text @param {Record<string, unknown>} values */
const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (_, name) => String(values[name]));

const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
/** @param {number} value per second */
const perSecond = (value) => (value < 10 ? tenths : whole).format(value);
/** @param {string} unit @param {number} value */
const inUnit = (unit, value) =>
  new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "narrow", maximumFractionDigits: 0 }).format(value);

/** @param {number} since seconds since 1970 @param {number} now */
function age(since, now) {
  const seconds = Math.max(0, Math.floor(now - since));
  for (const [length, unit] of /** @type {[number, string][]} */ ([[86400, "day"], [3600, "hour"], [60, "minute"]])) {
    if (seconds >= length) return inUnit(unit, Math.floor(seconds / length));
  }
  return inUnit("second", seconds);
}

/** @param {number} count */
function size(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  let at = 0;
  for (; count >= 1000 && at < units.length - 1; at++) count /= 1000;
  return inUnit(units[at], count);
}

/** @param {Element} node @param {string} text */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const canHover = matchMedia("(hover: hover)");  // a touched row would count as pointed at until the next touch

/** Rows by key. A row that stays is changed in place, and keeps focus and selection. While the pointer or the focus is on a row,
 * no row comes, goes or moves, so that a click never meets another row. */
class Table {
  /** @type {Map<string, HTMLElement>} */ #rows = new Map();

  /** @param {string} table @param {string} template */
  constructor(table, template) {
    this.body = /** @type {HTMLElement} */ (element(table).querySelector("tbody"));
    this.template = /** @type {HTMLTemplateElement} */ (element(template));
    for (const type of ["pointerleave", "focusout"]) this.body.addEventListener(type, scheduleDraw);
  }

  get isHeld() {
    return (canHover.matches && this.body.matches(":hover")) || this.body.querySelector(":focus-visible") !== null;
  }

  /** @param {[string, any][]} items key and item, in order @param {(row: HTMLElement, item: any) => void} draw */
  show(items, draw) {
    const keys = new Set(items.map(([key]) => key));
    const isHeld = this.isHeld;
    for (const [key, row] of this.#rows) {
      row.classList.toggle("gone", !keys.has(key));
      if (!keys.has(key)) say(cell(row, "age"), words.gone);
    }
    if (isHeld && this.#rows.size) {
      for (const [key, item] of items) {
        const row = this.#rows.get(key);
        if (row) draw(row, item);
      }
      return;
    }
    for (const [key, row] of this.#rows) {
      if (!keys.has(key)) {
        row.remove();
        this.#rows.delete(key);
      }
    }
    items.forEach(([key, item], at) => {
      let row = this.#rows.get(key);
      if (!row) {
        row = /** @type {HTMLElement} */ (/** @type {Element} */ (this.template.content.firstElementChild).cloneNode(true));
        this.#rows.set(key, row);
      }
      if (this.body.children[at] !== row) this.body.insertBefore(row, this.body.children[at] ?? null);
      draw(row, item);
    });
  }
}

/** @param {HTMLElement} row @param {string} name */
const cell = (row, name) => /** @type {HTMLElement} */ (row.querySelector(`[data-cell=${name}]`));

class Line {
  /** @type {number[]} */ #samples = [];

  /** @param {string} figure @param {(value: number) => string} format */
  constructor(figure, format) {
    this.figure = element(figure);
    this.line = element(`${figure}-line`);
    this.format = format;
  }

  /** @param {number} value */
  add(value) {
    this.#samples = [...this.#samples, value].slice(-SAMPLES);
    say(this.figure, this.format(value));
    const highest = Math.max(1, ...this.#samples);
    const first = SAMPLES - this.#samples.length;
    if (this.#samples.length < LINE_SAMPLES) return;  // a dash at the edge says nothing
    const points = this.#samples.map((sample, at) => `${((first + at) * 100) / (SAMPLES - 1)},${23 - (22 * sample) / highest}`);
    this.line.setAttribute("points", points.join(" "));
  }
}

/** @typedef {{ report: any, at: number, deliveries: number, events: number, isKnown: boolean }} Worker  its rates are known from the second report on */
/** @type {Map<string, Worker>} */
const workers = new Map();
/** @type {Map<string, { name: string, url: string | null } | null>} */
const users = new Map();

const workerTable = new Table("sse-workers", "sse-worker-row");
const clientTable = new Table("sse-clients", "sse-client-row");
const jobTable = new Table("sse-jobs", "sse-job-row");
const lines = { streams: new Line("sse-streams", whole.format), rate: new Line("sse-rate", perSecond), events: new Line("sse-events", perSecond) };

document.addEventListener("sse:worker", (event) => {
  const report = /** @type {CustomEvent} */ (event).detail.data;
  const before = workers.get(report.id);
  const seconds = before ? report.at - before.report.at : 0;
  /** @param {string} name */
  const rate = (name) => (before && seconds > 0 ? Math.max(0, (report[name] - before.report[name]) / seconds) : 0);
  if (before && seconds < 1) Object.assign(before, { report: { ...before.report, matches: report.matches, matching: report.matching, jobs: report.jobs } });
  else workers.set(report.id, { report, at: Date.now(), deliveries: rate("delivered"), events: rate("received"), isKnown: Boolean(before) });
  scheduleDraw();
});

let isDrawDue = false;
function scheduleDraw() {
  if (isDrawDue) return;
  isDrawDue = true;
  setTimeout(() => {
    isDrawDue = false;
    draw();
  }, 100);
}

/** The whole site's events: over a bus each worker gets every event, whichever process published it. */
function eventsPerSecond() {
  const all = [...workers.values()];
  const rates = all.map(({ events }) => events);
  return all.some(({ report }) => report.bus.is_shared) ? Math.max(...rates) : rates.reduce((total, rate) => total + rate, 0);
}

/** @param {(worker: Worker) => number} value */
const sum = (value) => [...workers.values()].reduce((total, worker) => total + value(worker), 0);

/** @param {Record<string, number>} counts by reason */
const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

setInterval(() => {
  for (const [id, worker] of workers) if (Date.now() - worker.at > GONE_MS) workers.delete(id);
  draw();
  if (!workers.size) return;
  lines.streams.add(sum(({ report }) => report.streams));
  if (![...workers.values()].some(({ isKnown }) => isKnown)) return;
  lines.rate.add(sum(({ deliveries }) => deliveries));
  lines.events.add(eventsPerSecond());
}, REPORT_MS);

function draw() {
  const reports = [...workers.values()].map(({ report }) => report).sort((a, b) => a.started_at - b.started_at);
  if (!reports.length) return;
  say(lines.streams.figure, whole.format(sum(({ report }) => report.streams)));
  say(element("sse-lagging"), whole.format(sum(({ report }) => report.lagging)));
  say(element("sse-refused"), whole.format(sum(({ report }) => total(report.refused))));
  say(element("sse-messages"), whole.format(sum(({ report }) => report.messages ?? 0)));
  say(element("sse-messages-refused"), whole.format(sum(({ report }) => total(report.messages_refused ?? {}))));
  workerTable.show(reports.map((report) => [report.id, report]), drawWorker);
  const clients = reports.flatMap((report) => report.matches.map((/** @type {any} */ client) => ({ ...client, at: report.at, worker: report.id })));
  clients.sort((a, b) => b.connected_at - a.connected_at || (a.id < b.id ? -1 : 1));
  clientTable.show(clients.map((client) => [client.id, client]), drawClient);
  const jobs = jobsOf(reports);
  element("sse-jobs-module").hidden = !jobs.length;
  jobTable.show(jobs.map((job) => [job.id, job]), drawJob);
  say(element("sse-held"), clientTable.isHeld ? words.held : "");
  const matching = reports.reduce((total, report) => total + report.matching, 0);
  say(element("sse-shown"), fill(words.shown, { shown: whole.format(clients.length), all: whole.format(matching) }));
  learnNames([...clients.map(({ user }) => user), ...jobs.map(({ owner }) => owner)]);
}

/** @param {HTMLElement} row @param {any} report */
function drawWorker(row, report) {
  say(cell(row, "name"), `${report.id} · ${report.host}:${report.pid}`);
  say(cell(row, "state"), words[report.state]);
  say(cell(row, "age"), age(report.started_at, report.at));
  say(cell(row, "streams"), whole.format(report.streams));
  say(cell(row, "rate"), perSecond(workers.get(report.id)?.deliveries ?? 0));
  say(cell(row, "bytes"), size(report.bytes));
  say(cell(row, "log"), `${whole.format(report.log.events)} · ${size(report.log.bytes)}`);
  const bus = report.bus.backend.replace(/Backend$/, "");
  const state = report.bus.is_available ? words.up : words.down;
  say(cell(row, "bus"), report.bus.is_shared ? fill(state, { bus }) : words.alone);
  row.classList.toggle("warns", !report.bus.is_available);
}

/** @param {HTMLElement} row @param {any} client */
function drawClient(row, client) {
  drawUser(cell(row, "user"), client.user);
  const address = cell(row, "address");
  say(address, client.carrier === "WebSocket" ? `${client.address} · WebSocket` : client.address);
  address.title = client.agent;
  say(cell(row, "age"), age(client.connected_at, client.at));
  drawChannels(cell(row, "channels"), client);
  say(cell(row, "lag"), whole.format(client.lag));
  say(cell(row, "last"), client.last ? `${client.last.type}, ${age(client.last.at, client.at)}` : "–");
  say(cell(row, "events"), whole.format(client.events));
  say(cell(row, "bytes"), size(client.bytes));
  say(cell(row, "worker"), client.worker);
  row.classList.toggle("warns", client.lag > 0 && client.sending_seconds >= 1);
  const [one, all] = /** @type {NodeListOf<HTMLButtonElement>} */ (row.querySelectorAll("button"));
  if (one) {
    one.value = client.id;
    all.value = client.user ?? "";
    all.hidden = client.user === null;
    const name = cell(row, "user").textContent;
    nameButton(one, [name, client.address, client.id]);
    nameButton(all, [name]);
  }
}

/** Every worker knows every job, and its own watchers of it. @param {any[]} reports */
function jobsOf(reports) {
  const jobs = new Map();
  for (const report of reports) {
    for (const job of report.jobs ?? []) {
      const { watchers = 0, length = -1 } = jobs.get(job.id) ?? {};
      jobs.set(job.id, { ...(job.length >= length ? job : jobs.get(job.id)), watchers: watchers + job.watchers });
    }
  }
  return [...jobs.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** @param {HTMLElement} row @param {any} job */
function drawJob(row, job) {
  drawUser(cell(row, "user"), job.owner);
  say(cell(row, "job"), job.label || job.id.slice(0, 8));
  cell(row, "job").title = job.id;
  say(cell(row, "age"), words[job.state] ?? job.state);
  say(cell(row, "progress"), job.progress === null ? "–" : percent.format(job.progress));
  say(cell(row, "length"), whole.format(job.length));
  say(cell(row, "watchers"), whole.format(job.watchers));
  const button = row.querySelector("button");
  if (button) {
    button.value = job.id;
    nameButton(button, [cell(row, "user").textContent, cell(row, "job").textContent]);
  }
}

/** Labels a button with its own words, then whom it concerns: a screen reader reads one button out alone.
 * @param {HTMLButtonElement} button @param {(string | null)[]} whom */
function nameButton(button, whom) {
  const text = `${button.textContent}: ${whom.filter(Boolean).join(", ")}`;
  if (button.getAttribute("aria-label") !== text) button.setAttribute("aria-label", text);
}

/** @param {HTMLElement} where @param {string | null} pk */
function drawUser(where, pk) {
  const user = pk === null ? null : users.get(pk);
  const text = pk === null ? words.anonymous : user?.name ?? pk;
  if (where.textContent === text && where.dataset.url === (user?.url ?? "")) return;
  where.dataset.url = user?.url ?? "";
  if (user?.url) {
    const link = document.createElement("a");
    link.href = user.url;
    link.textContent = text;
    where.replaceChildren(link);
  } else {
    where.textContent = text;
  }
}

/** @param {HTMLElement} where @param {any} client */
function drawChannels(where, client) {
  const names = [...client.channels];
  if (client.more_channels) names.push(fill(words.more, { count: client.more_channels }));
  const key = names.join("\n");
  if (where.dataset.key === key) return;
  where.dataset.key = key;
  where.replaceChildren(...names.map((name) => Object.assign(document.createElement("span"), { textContent: name })));
}

/** @param {(string | null)[]} pks */
async function learnNames(pks) {
  const query = new URLSearchParams();
  for (const pk of new Set(pks)) if (pk !== null && !users.has(pk) && query.toString().length < QUERY_MAX_LENGTH) query.append("user", pk);
  const unknown = query.getAll("user");
  if (!unknown.length) return;
  for (const pk of unknown) users.set(pk, null);
  const response = await fetch(`${words.namesUrl}?${query}`).catch(() => null);
  if (!response?.ok) {
    for (const pk of unknown) users.delete(pk);  // asked for again at the next report
    return;
  }
  for (const [pk, user] of Object.entries(await response.json())) users.set(pk, user);
  draw();
}

// Actions are sent without leaving the page, so that the charts go on.
for (const form of /** @type {NodeListOf<HTMLFormElement>} */ (document.querySelectorAll("form.sse-act"))) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement | null} */ (event.submitter);
    const question = { user: words.confirmUser, client: words.confirmClient, job: words.confirmJob }[button?.name ?? ""];
    if (question && !confirm(`${question}\n${(button?.getAttribute("aria-label") ?? "").replace(/^[^:]*: /, "")}`)) return;
    const body = new FormData(form);
    if (button?.name) body.set(button.name, button.value);
    const said = element("sse-said");
    try {
      const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
      said.textContent = (await response.json()).message;
      said.classList.toggle("failed", !response.ok);
    } catch {
      said.textContent = words.failed;
      said.classList.add("failed");
    }
  });
}
