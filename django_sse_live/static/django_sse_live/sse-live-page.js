// Locks and channels within one page: its elements share one stream with them, as tabs do with the browser's own.
// Only what sse-live-share.js uses of Web Locks (https://w3c.github.io/web-locks/) and BroadcastChannel.

/** @typedef {{name: string, grant: () => void, lose: () => void}} Request */

/** For each name, the request that holds it, then those that wait. @type {Map<string, Request[]>} */
const lines = new Map();
/** @type {Set<Channel>} */
const channels = new Set();

const aborted = () => new DOMException("aborted", "AbortError");

/** @param {Request} request */
function leave(request) {
  const line = lines.get(request.name) ?? [];
  const place = line.indexOf(request);
  if (place < 0) return;
  line.splice(place, 1);
  if (!line.length) lines.delete(request.name);
  else if (!place) line[0].grant();
}

/**
 * @param {string} name
 * @param {LockOptions} options
 * @param {() => Promise<any>} run
 * @returns {Promise<any>}
 */
function request(name, { signal, steal = false }, run) {
  return new Promise((resolve, reject) => {
    let isHeld = false;
    const request = {
      name,
      lose: () => reject(aborted()),
      grant: () => {
        isHeld = true;
        queueMicrotask(async () => {
          resolve(await run());
          leave(request);
        });
      },
    };
    if (signal?.aborted) return reject(aborted());
    signal?.addEventListener("abort", () => {
      if (isHeld) return;
      leave(request);
      reject(aborted());
    });
    const line = lines.get(name) ?? [];
    lines.set(name, line);
    if (steal) line.shift()?.lose();
    line[steal ? "unshift" : "push"](request);
    if (line[0] === request) request.grant();
  });
}

const query = async () => ({ held: [...lines.keys()].map((name) => ({ name })) });

class Channel {
  /** @type {((event: {data: any}) => void) | null} */ onmessage = null;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
    channels.add(this);
  }

  /** @param {any} message */
  postMessage(message) {
    const data = structuredClone(message);
    for (const other of channels) {
      if (other !== this && other.name === this.name) queueMicrotask(() => channels.has(other) && other.onmessage?.({ data }));
    }
  }

  close() { channels.delete(this); }
}

/** The `means` of `shared()`. */
export const means = { locks: /** @type {any} */ ({ request, query }), BroadcastChannel: Channel };
