// What a lost connection says: that the server refused it, and why; or that the path cuts what idles. Loaded at the first loss, and
// by a page that stays: when it is needed the site may be down.

/** A question why the stream was refused gets no longer than this, in ms. */
const QUESTION_MS = 10_000;

/**
 * Why was a stream refused? EventSource does not say. The reason is `refused` where that is no word of our server.
 * @param {string} url
 * @param {boolean} [withCredentials] also to another origin
 * @returns {Promise<{reason: string, status?: number, isFinal?: boolean, waitMs?: number}>}
 */
export async function refusal(url, withCredentials) {
  const answer = await fetch(url, {
    method: "HEAD", cache: "no-store", headers: { Accept: "text/event-stream" },
    credentials: withCredentials ? "include" : "same-origin", signal: AbortSignal.timeout(QUESTION_MS),
  }).catch(() => undefined);
  // No network, or no server: wait, as for any loss.
  if (!answer) return { reason: "lost" };
  const { status, headers, redirected } = answer;
  if (status === 204) return { reason: "closed", status, isFinal: true };
  const isTemporary = [408, 425, 429].includes(status) || status >= 500 && status !== 501;
  if (!isTemporary && (status >= 400 || redirected)) {
    const error = headers.get("SSE-Live-Error");
    return { reason: error || "refused", status, isFinal: Boolean(error) };
  }
  const after = headers.get("Retry-After");
  const waitMs = after ? 1000 * +after || Date.parse(after) - Date.now() : NaN;
  return { reason: isTemporary ? "unavailable" : "lost", waitMs: waitMs > 0 ? waitMs * (1 + Math.random() / 4) : undefined };
}

/** To the developer. @type {Record<string, string>} */
const HINTS = {
  buffered: "No word from the stream yet: is it buffered? docs/deploy/proxies.md",
  cached: "Reloaded, and still too old: is this page cached?",
  streams: "Five streams over HTTP/1.1: six stop the site. Let tabs share one: share=True",
};
/** Which were given, for each stream. @type {WeakMap<object, Set<string>>} */
const given = new WeakMap();

/** Once for each stream. @param {string} name in HINTS @param {object} live @param {Pick<Console, "warn"> | null} [logger] */
export function hint(name, live, logger) {
  /** @type {any} */ const [navigation] = performance.getEntriesByType?.("navigation") ?? [];
  const names = given.get(live) ?? new Set();
  if (names.has(name) || name === "streams" && !/^http\/1/.test(navigation?.nextHopProtocol)) return;
  given.set(live, names.add(name));
  logger?.warn(HINTS[name]);
}

/**
 * What a path does to silence, as long as it is the same network. The rule:
 *
 * 1. A connection that breaks after a silence of at least 3 s, longer than any that it had borne, was perhaps cut for it.
 *    Two in a row after about the same silence (within 15 %) were: that is the path's limit, and three quarters of it are
 *    asked for.
 * 2. A connection that falls silent without breaking counts as cut after two thirds of its interval: the path forgot it,
 *    nobody knows when. So two in a row halve the interval.
 */
export class Path {
  /** The silence at which it cuts. */ limitMs = Infinity;
  /** After what silence the last connection was perhaps cut. */ #suspectMs = 0;

  /** @param {number} silentMs the silence before the connection broke @param {number} borneMs the longest that it had borne */
  broke(silentMs, borneMs) {
    if (silentMs < 3_000 || silentMs < 0.9 * borneMs) return;
    const isAgain = Math.abs(silentMs - this.#suspectMs) <= 0.15 * this.#suspectMs;
    if (isAgain) this.limitMs = Math.min(this.limitMs, silentMs, this.#suspectMs);
    this.#suspectMs = silentMs;
  }
}
