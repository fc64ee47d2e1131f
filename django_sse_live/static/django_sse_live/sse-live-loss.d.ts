/**
 * Asks why a stream was refused, which EventSource does not tell. The reason is `refused` if the answer is not django-sse-live's.
 * @param {string} url
 * @param {{withCredentials?: boolean, logger?: Pick<Console, "warn"> | null} | boolean} [options] cookies also to another origin; true is
 *   what a page from before an update says for that
 * @returns {Promise<{reason: string, status?: number, isFinal?: boolean, waitMs?: number}>}
 */
export declare function refusal(url: string, options?: {
    withCredentials?: boolean;
    logger?: Pick<Console, "warn"> | null;
} | boolean): Promise<{
    reason: string;
    status?: number;
    isFinal?: boolean;
    waitMs?: number;
}>;
/** Logs a hint once for each stream. @param {string} name in HINTS @param {object} live @param {Pick<Console, "warn"> | null} [logger] */
export declare function hint(name: string, live: object, logger?: Pick<Console, "warn"> | null): void;
/**
 * How long a network path lets a connection be silent. It holds for one network. The rule:
 *
 * 1. A connection that breaks after a silence of at least 3 s, its longest so far, was perhaps cut for it. Two in a row after
 *    about the same silence (within 15 %) certainly were: that is the path's limit, and heartbeats are asked for at three
 *    quarters of it.
 * 2. A connection that falls silent without breaking counts as cut after two thirds of its heartbeat interval: the path
 *    forgot it at an unknown time. So two in a row halve the interval.
 */
export declare class Path {
    #private;
    /** The silence after which it cuts, in ms. */ limitMs: number;
    /** @param {number} silentMs the silence before the connection broke @param {number} borneMs its longest silence before that */
    broke(silentMs: number, borneMs: number): void;
}
