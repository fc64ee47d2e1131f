// Why a connection was lost: the server refused it, or the network path cuts idle connections. Loaded at the first loss, or earlier
// by a page that stays open, since the site may be down when it is needed.

/** Time limit, in ms, of the request that asks why a stream was refused. */
const QUESTION_MS = 10_000;

/**
 * Asks why a stream was refused, which EventSource does not tell. The reason is `refused` if the answer is not django-sse-live's.
 * @param {string} url
 * @param {{withCredentials?: boolean, logger?: Pick<Console, "warn"> | null} | boolean} [options] cookies also to another origin; true is
 *   what a page from before an update says for that
 * @returns {Promise<{reason: string, status?: number, isFinal?: boolean, waitMs?: number}>}
 */
export async function refusal(url, options) {
  const { withCredentials = options === true, logger } = Object(options);
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
    if (error) logger?.warn(`Stream refused: ${status} ${error}`);
    return { reason: error || "refused", status, isFinal: Boolean(error) };
  }
  const after = headers.get("Retry-After");
  const waitMs = after ? 1000 * +after || Date.parse(after) - Date.now() : NaN;
  return { reason: isTemporary ? "unavailable" : "lost", waitMs: waitMs > 0 ? waitMs * (1 + Math.random() / 4) : undefined };
}

/** Texts for the developer. @type {Record<string, string>} */
const HINTS = {
  buffered: "No word from the stream yet: is it buffered? docs/deploy/proxies.md",
  cached: "Reloaded, and still too old: is this page cached? Have workers no bus? docs/howto/scale.md",
  streams: "Five streams over HTTP/1.1: six stop the site. Let tabs share one: share=True",
};
/** The hints given for each stream. @type {WeakMap<object, Set<string>>} */
const given = new WeakMap();

/** Logs a hint once for each stream. @param {string} name in HINTS @param {object} live @param {Pick<Console, "warn"> | null} [logger] */
export function hint(name, live, logger) {
  /** @type {any} */ const [navigation] = performance.getEntriesByType?.("navigation") ?? [];
  const names = given.get(live) ?? new Set();
  if (names.has(name) || name === "streams" && !/^http\/1/.test(navigation?.nextHopProtocol)) return;
  given.set(live, names.add(name));
  logger?.warn(HINTS[name]);
}

/**
 * How long a network path lets a connection be silent. It holds for one network. The rule:
 *
 * 1. A connection that breaks after a silence of at least 3 s, its longest so far, was perhaps cut for it. Two in a row after
 *    about the same silence (within 15 %) certainly were: that is the path's limit, and heartbeats are asked for at three
 *    quarters of it.
 * 2. A connection that falls silent without breaking counts as cut after two thirds of its heartbeat interval: the path
 *    forgot it at an unknown time. So two in a row halve the interval.
 */
export class Path {
  /** The silence after which it cuts, in ms. */ limitMs = Infinity;
  /** The silence before the last connection was perhaps cut. */ #suspectMs = 0;

  /** @param {number} silentMs the silence before the connection broke @param {number} borneMs its longest silence before that */
  broke(silentMs, borneMs) {
    if (silentMs < 3_000 || silentMs < 0.9 * borneMs) return;
    const isAgain = Math.abs(silentMs - this.#suspectMs) <= 0.15 * this.#suspectMs;
    if (isAgain) this.limitMs = Math.min(this.limitMs, silentMs, this.#suspectMs);
    this.#suspectMs = silentMs;
  }
}
