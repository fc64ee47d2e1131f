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
 * An `EventSource` for {@link SSELive}'s options, with one connection for all tabs of this origin. It is the browser's own
 * `EventSource` if Web Locks or BroadcastChannel are missing (they need https or localhost) or denied.
 *
 * @param {SSELiveClass} Live
 * @param {object} options
 * @param {string} options.group the name of the tabs that share: different for each user
 * @param {string[]} [options.channels] that this tab's token grants; those in its url need not be repeated
 * @param {Means} [options.means] locks and channels other than the browser's
 * @returns {typeof EventSource}
 */
export declare function shared(Live: SSELiveClass, { group, channels, means }: {
    group: string;
    channels?: string[];
    means?: Means;
}): typeof EventSource;
/**
 * The `EventSource` of an element that shares its connection: with other tabs if it has `share`, else with the page's other elements
 * of the same stream, which switch to it too. Undefined for a single element.
 * @param {SSELiveClass} Live
 * @param {HTMLElement} host
 * @param {() => Promise<{means: Means}>} load loads locks and channels within one page
 * @returns {Promise<typeof EventSource | undefined>}
 */
export declare function join(Live: SSELiveClass, host: HTMLElement, load: () => Promise<{
    means: Means;
}>): Promise<typeof EventSource | undefined>;
