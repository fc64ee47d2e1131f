// <sse-live-job>: the text, the progress and the state of one long piece of work, and a button that stops it.
// It knows the frame `sse.job` and the <sse-live> inside it, which brings the frames. Streams and the text's meaning are unknown here.
//
// - A frame brings a piece of the text and its offset in UTF-16 code units. What is below the known length is dropped; if a piece
//   begins beyond it, the whole text is asked for. So it does not matter how often a piece comes, or from where.
// - The element's descendants show the job, as the server drew them; text is set as text. If other code changes them, such as a
//   morph with an older state, they are corrected before anybody sees it.

/** @typedef {"running" | "finished" | "failed" | "cancelled" | "expired" | "lost"} JobState */
/**
 * @typedef {object} Job a job, as far as it is known
 * @property {string} id
 * @property {JobState} state
 * @property {string} text
 * @property {number} [progress] from 0 to 1; undefined if unknown
 * @property {string} [label] what is being done
 * @property {any} [result] of a finished job
 * @property {string} [error] of a failed job, for the visitor
 *
 * @typedef {Job & {job: string, n: number, offset: number, length: number}} Told the content of a frame
 */

/** Missing text is asked for after this wait, in ms, unless it comes by itself; then after twice as long, and so on. */
const ASK_MS = 500;

/** States that are no end: a lost job may come back. */
const OPEN = /run|lost/;
/** States after which text may come: a cancelled job's writer may have written before it knew. */
const UNSETTLED = /run|lost|canc/;

/**
 * `<sse-live-job job="5f…"><sse-live src="/events/" token="…" channels="sse.job.5f…" hidden></sse-live>…</sse-live-job>`: a job, as
 * `{% sse_live_job %}` draws it. Its parts have `data-job`: `text`, `progress` (a <progress>), `label`, `status`, `error` and `stop`
 * (a button); each may be missing. After each change an event `sse:job` bubbles from it, with `detail = {type, data}`, whose data is
 * a {@link Job}. It sets `state`, and removes the inner <sse-live> when nothing more can come.
 *
 * Attributes: `job`, its id; `may-stop`; words for each state, `text-running` and so on, and `text-unstopped` for a failed Stop.
 */
export class SSELiveJobElement extends (globalThis.HTMLElement ?? Object) {
  /** @type {Job} */ job = { id: "", state: "running", text: "" };
  /** The revision of the state. The next: whether the text is the server's, not only what was drawn. */ #n = -1;
  #isExact = false;
  /** @type {any} */ #stream;
  #isStopping = false;
  /** Why Stop failed. */ #refusal = "";
  /** The wait before missing text is asked for. @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #askMs = ASK_MS;
  #observer = new MutationObserver(() => this.#begin());

  connectedCallback() {
    this.addEventListener("click", this);
    this.#observer.observe(this, { subtree: true, childList: true, characterData: true, attributes: true });
    this.#begin();
  }

  /**
   * Stops the job, and returns the state after that. Rejects with an `SSELiveError` if it is refused, or no answer comes.
   * @returns {Promise<JobState>}
   */
  async stop() {
    const { job } = this;
    if (OPEN.test(job.state) && !this.#isStopping) {
      this.#isStopping = true;
      this.#refusal = "";
      this.#show();
      try {
        const { state } = await this.#send("stop");
        if (OPEN.test(job.state)) job.state = state;
      } catch (/** @type {any} */ error) {
        this.#refusal = error.isTemporary ? this.#word("unstopped") : error.message;
        if (!error.isTemporary) this.removeAttribute("may-stop");
        throw error;
      } finally {
        this.#isStopping = false;
        this.#change();
      }
    }
    return job.state;
  }

  /** @param {any} event */
  handleEvent({ type, target, detail }) {
    if (type === "sse:sse.job") this.#hear(detail.data.data);
    else if (type === "sse:connected") {
      this.#rest();
      this.#lag();
    } else if (target.closest("[data-job=stop]")) this.stop().catch(() => {});
  }

  /** Begins, goes on after other code has changed the element, or begins with another job. */
  #begin() {
    const id = this.getAttribute("job") ?? "";
    if (this.job.id !== id) {
      this.#n = -1;
      this.#isExact = false;
      this.#rest();
    }
    if (this.#n < 0) {
      const [text, label, error] = ["text", "label", "error"].map((name) => this.#part(name)?.textContent ?? "");
      this.job = { id, state: /** @type {any} */ (this.getAttribute("state")) ?? "running", text, label, error };
    }
    const stream = this.querySelector("sse-live");
    if (stream && stream !== this.#stream) this.#lag();
    this.#stream = stream;
    for (const type of ["sse.job", "connected"]) stream?.addEventListener(`sse:${type}`, this);
    this.#show();
  }

  /** @param {Told} told */
  #hear({ job: id, n, offset, text, length, state, progress, label, result, error }) {
    const { job } = this;
    if (id !== job.id) return;
    const known = this.#isExact ? job.text : "";
    const isGap = known.length < offset;
    if (!isGap) {
      job.text = known + text.slice(known.length - offset);
      this.#isExact = true;
    }
    // A judgement or a stop may come from a process that has heard less of the job than this page.
    if (OPEN.test(job.state) ? n >= this.#n || state !== "running" : n >= this.#n && !OPEN.test(state)) {
      Object.assign(job, { state, progress, label, result, error });
      this.#n = n;
    }
    if (isGap || job.text.length < length) this.#lag();
    else this.#rest();
    this.#change();
  }

  /** Text is missing. It may come by itself, so it is asked for later. */
  #lag() {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (!this.isConnected) return;
      if (this.#stream?.live?.state === "connected") this.#send("state").catch(() => {});
      this.#askMs *= 2;
      this.#lag();
    }, this.#askMs);
  }

  #rest() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#askMs = ASK_MS;
  }

  /** @param {string} what @returns {Promise<any>} */
  async #send(what) { return this.#stream.send(`sse.job.${what}`, null, { channel: `sse.job.${this.job.id}`, queue: "none" }); }

  #change() {
    this.#show();
    this.dispatchEvent(new CustomEvent("sse:job", { bubbles: true, detail: { type: "job", data: this.job } }));
  }

  /** @param {string} name @returns {any} */
  #part(name) { return this.querySelector(`[data-job=${name}]`); }

  /** @param {string} name */
  #word(name) { return this.getAttribute(`text-${name}`) ?? name; }

  #show() {
    const { state, text, progress, label = "", error = "" } = this.job;
    const isOpen = OPEN.test(state);
    if (this.getAttribute("state") !== state) this.setAttribute("state", state);
    for (const [name, words] of Object.entries({ text, label, status: this.#word(state), error: error || (isOpen ? this.#refusal : "") })) {
      const part = this.#part(name);
      const known = part?.textContent;
      if (!part || known === words) continue;
      // Appended, so that the text before stays selected, and is not laid out again.
      if (part.firstChild?.length === known.length && words.startsWith(known)) part.firstChild.appendData(words.slice(known.length));
      else part.textContent = words;
      part.hidden = !words;
    }
    const [bar, stop] = ["progress", "stop"].map((name) => this.#part(name));
    if (bar && this.#n >= 0) {
      if (progress === undefined) bar.removeAttribute("value");
      else bar.value = progress;
      // A failed job still shows how far it came.
      bar.hidden = state !== "running" && (state === "finished" || progress === undefined);
    }
    if (stop) {
      const isAside = state !== "running" || !this.hasAttribute("may-stop");
      if (isAside && stop === document.activeElement) this.#part("status")?.focus();
      stop.hidden = isAside;
      stop.setAttribute("aria-disabled", this.#isStopping);
    }
    if (!this.#timer && !UNSETTLED.test(state)) this.#stream?.remove();
    this.#observer.takeRecords();
  }
}

/** The attributes that say how to reach a stream. */
const WAY = /src$|^csrf|^share|^with/;

/**
 * `live.job()`: a job for scripts, an element that shows nothing. `remove()` ends it.
 * @param {import("./sse-live.js").SSELive} live a stream of the same url
 * @param {string} token
 * @param {string} id
 * @returns {SSELiveJobElement}
 */
export function watch(live, token, id) {
  /** @type {any} */ const job = document.createElement("sse-live-job");
  const stream = document.createElement("sse-live");
  const { searchParams } = new URL(live.url);
  for (const name of ["channel", "token"]) searchParams.delete(name);
  const host = [...document.querySelectorAll("sse-live")].find((each) => each.live === live);
  for (const { name, value } of host?.attributes ?? []) if (WAY.test(name)) stream.setAttribute(name, value);
  const [path] = (stream.getAttribute("src") ?? live.url).split("?");
  for (const [name, value] of Object.entries({ src: `${path}?${searchParams}`, token, channels: `sse.job.${id}` })) stream.setAttribute(name, value);
  job.setAttribute("job", id);
  job.hidden = true;
  job.append(stream);
  // Not in the body, which other code may replace by another page's.
  document.documentElement.append(job);
  return job;
}

// A page may load this file under two names, one with a hash: one element is enough.
if (!globalThis.customElements?.get("sse-live-job")) globalThis.customElements?.define("sse-live-job", SSELiveJobElement);
