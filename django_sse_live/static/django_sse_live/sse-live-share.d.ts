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
/**
 * An `EventSource` for {@link SSELive}'s options that shares one connection between the tabs of this origin. Where the
 * browser has no Web Locks or no BroadcastChannel (they need https or localhost), it is the browser's own `EventSource`.
 *
 * @param {SSELiveClass} Live
 * @param {object} options
 * @param {string} options.group tabs share within a group: a name that is different for each user
 * @param {string[]} [options.channels] what the token of this tab grants; those in its url need not be repeated
 * @returns {typeof EventSource}
 */
export declare function shared(Live: SSELiveClass, { group, channels }: {
    group: string;
    channels?: string[];
}): typeof EventSource;
