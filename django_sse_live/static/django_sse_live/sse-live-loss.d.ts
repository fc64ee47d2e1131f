/**
 * Why was a stream refused? EventSource does not say. The reason is `refused` where that is no word of our server.
 * @param {string} url
 * @param {boolean} [withCredentials] also to another origin
 * @returns {Promise<{reason: string, status?: number, isFinal?: boolean, waitMs?: number}>}
 */
export declare function refusal(url: string, withCredentials?: boolean): Promise<{
    reason: string;
    status?: number;
    isFinal?: boolean;
    waitMs?: number;
}>;
/** Once for each stream. @param {string} name in HINTS @param {object} live @param {Pick<Console, "warn"> | null} [logger] */
export declare function hint(name: string, live: object, logger?: Pick<Console, "warn"> | null): void;
/**
 * What a path does to silence, as long as it is the same network. The rule:
 *
 * 1. A connection that breaks after a silence of at least 3 s, longer than any that it had borne, was perhaps cut for it.
 *    Two in a row after about the same silence (within 15 %) were: that is the path's limit, and three quarters of it are
 *    asked for.
 * 2. A connection that falls silent without breaking counts as cut after two thirds of its interval: the path forgot it,
 *    nobody knows when. So two in a row halve the interval.
 */
export declare class Path {
    #private;
    /** The silence at which it cuts. */ limitMs: number;
    /** @param {number} silentMs the silence before the connection broke @param {number} borneMs the longest that it had borne */
    broke(silentMs: number, borneMs: number): void;
}
