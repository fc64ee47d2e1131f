export type SSELive = import("./sse-live.js").SSELive;
export type SSELiveClass = typeof import("./sse-live.js").SSELive;
export type Member = {
    id: string;
    position: string;
    channels: string[];
    parameters: [string, string][];
    isHidden: boolean;
};
export type Sent = {
    frame: any;
    id: string;
};
export type Means = {
    locks: Pick<LockManager, "request" | "query">;
    BroadcastChannel: new (name: string) => any;
};
/**
 * An `EventSource` for {@link SSELive}'s options that shares one connection between the tabs of this origin. Where the
 * browser has no Web Locks or no BroadcastChannel (they need https or localhost), or denies them, it is the browser's own
 * `EventSource`.
 *
 * @param {SSELiveClass} Live
 * @param {object} options
 * @param {string} options.group tabs share within a group: a name that is different for each user
 * @param {string[]} [options.channels] what the token of this tab grants; those in its url need not be repeated
 * @param {Means} [options.means] other locks and channels than the browser's
 * @returns {typeof EventSource}
 */
export declare function shared(Live: SSELiveClass, { group, channels, means }: {
    group: string;
    channels?: string[];
    means?: Means;
}): typeof EventSource;
/**
 * What makes the one connection of an element's tabs, where it has `share`, or of it and the other elements of its page with the
 * same stream, which go on by it too. Nothing for an element that is the only one.
 * @param {SSELiveClass} Live
 * @param {HTMLElement} host
 * @param {() => Promise<{means: Means}>} load what is needed where the browser's means reach too far
 * @returns {Promise<typeof EventSource | undefined>}
 */
export declare function join(Live: SSELiveClass, host: HTMLElement, load: () => Promise<{
    means: Means;
}>): Promise<typeof EventSource | undefined>;
