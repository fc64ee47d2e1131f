// <sse-live-job>: the text and progress of one long piece of work, how it stands, and a button that stops it.
// Knows the frame `sse.job` and the <sse-live> within, through which it hears; nothing of streams, or of what the text means.
//
// - A frame brings a piece of the text and where that begins, in UTF-16 code units. What lies below the length is known already;
//   where a piece lies beyond it, the whole is asked for. So it does not matter how often or from where a piece comes.
// - What is shown are the element's descendants, as the server drew them; text is set as text. Whoever changes them meanwhile,
//   such as a morph with an older state, has them put right before anybody sees it.

/** @typedef {"running" | "finished" | "failed" | "cancelled" | "expired" | "lost"} JobState */
/**
 * @typedef {object} Job what is known of it
 * @property {string} id
 * @property {JobState} state
 * @property {string} text
 * @property {number} [progress] from 0 to 1; undefined where nobody knows
 * @property {string} [label] what is being done
 * @property {any} [result] what it ended with
 * @property {string} [error] why it failed, for the visitor
 *
 * @typedef {Job & {job: string, n: number, offset: number, length: number}} Told what a frame says
 */

/** What is missing is asked for after so long, in ms, if it has not come by itself; then after twice as long, and so on. */
const ASK_MS = 500;

/** No ends: who is lost may come back. */
const OPEN = /run|lost/;
/** More may come: after `cancelled`, what was written before its writer heard of it. */
const UNSETTLED = /run|lost|canc/;

/**
 * `<sse-live-job job="5f…"><sse-live src="/events/" token="…" channels="sse.job.5f…" hidden></sse-live>…</sse-live-job>`: a job, as
 * `{% sse_live_job %}` draws it. Its parts are what has `data-job`: `text`, `progress` (a <progress>), `label`, `status`, `error` and
 * `stop` (a button); it may lack any. An event `sse:job` bubbles from it whenever something has changed, with `detail = {type, data}`,
 * whose data is a {@link Job}. It sets `state`, and takes the inner <sse-live> out when nothing more can come.
 *
 * Attributes: `job`, its id; `may-stop`; and words: one for each state, `text-running` and so on, and `text-unstopped` for a Stop
 * that did not get through.
 */
export class SSELiveJobElement extends (globalThis.HTMLElement ?? Object) {
  /** @type {Job} */ job = { id: "", state: "running", text: "" };
  /** The revision of the state; and whether the text is the server's, not what was drawn. */ #n = -1;
  #isExact = false;
  /** @type {any} */ #stream;
  #isStopping = false;
  /** Why it could not be stopped. */ #refusal = "";
  /** The wait before what is missing is asked for. @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #askMs = ASK_MS;
  #observer = new MutationObserver(() => this.#begin());

  connectedCallback() {
    this.addEventListener("click", this);
    this.#observer.observe(this, { subtree: true, childList: true, characterData: true, attributes: true });
    this.#begin();
  }

  /**
   * Asks for an end; gives the state after it. Rejects with an `SSELiveError` where that is refused, or no answer comes.
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

  /** Or goes on, where something else has changed the element; also as that of another job. */
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
    const isGap = offset > known.length;
    if (!isGap) {
      job.text = known + text.slice(known.length - offset);
      this.#isExact = true;
    }
    // 0: the server's cache has lost what it knew.
    if (OPEN.test(job.state) ? !n || n >= this.#n : n >= this.#n && !OPEN.test(state)) {
      Object.assign(job, { state, progress, label, result, error });
      this.#n = n;
    }
    if (isGap || job.text.length < length) this.#lag();
    else this.#rest();
    this.#change();
  }

  /** Something is missing. It may come by itself, so it is asked for later. */
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
      // Appended: what was there stays selected, and is not laid out anew.
      if (part.firstChild?.length === known.length && words.startsWith(known)) part.firstChild.appendData(words.slice(known.length));
      else part.textContent = words;
      part.hidden = !words;
    }
    const [bar, stop] = ["progress", "stop"].map((name) => this.#part(name));
    if (bar && this.#n >= 0) {
      if (progress === undefined) bar.removeAttribute("value");
      else bar.value = progress;
      // How far it came is worth knowing where it failed.
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

/** How a stream is reached: its attributes. */
const WAY = /src$|^csrf|^share|^with/;

/**
 * `live.job()`: a job for scripts, which shows nothing. `remove()` ends it.
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
  // Not in the body, which others may exchange for that of another page.
  document.documentElement.append(job);
  return job;
}

// A page may load this file under two names, one with a hash: one element is enough.
if (!globalThis.customElements?.get("sse-live-job")) globalThis.customElements?.define("sse-live-job", SSELiveJobElement);
