/**
 * Whether the event id `id` stands at or before `other`. Only ids of one epoch can be compared.
 * @param {string} id
 * @param {string} other
 */
export declare function isAtOrBefore(id: string, other: string): boolean;
/**
 * A position after a frame: it never goes back, but for a reset.
 * @param {string} position
 * @param {{type: string}} frame
 * @param {string} id the frame's; "" for one without
 */
declare function moved(position: string, { type }: {
    type: string;
}, id: string): string;
/**
 * The interval to ask the server for. Proxies and firewalls cut a connection that idles too long for them; hidden pages
 * can do with fewer heartbeats. The rule:
 *
 * 1. A connection that breaks after a silence of at least 3 s, longer than any that it had borne, was perhaps cut for it.
 *    Two in a row after about the same silence (within 15 %) were: that is the path's limit, and three quarters of it are
 *    asked for.
 * 2. A connection that falls silent without breaking counts as cut after two thirds of its interval: the path forgot it,
 *    nobody knows when. So two in a row halve the interval.
 * 3. Otherwise a visible page takes the server's own interval, and a hidden one asks for four times that.
 * 4. On another network all of this is forgotten.
 *
 * The server holds what is asked for within its bounds, and announces what is in force.
 */
export declare class HeartbeatPolicy {
    #private;
    /** The server's own interval; 0 until it is known. */ usualMs: number;
    /** A new connection. @param {number} ms its interval @param {boolean} wasAsked whether that was our wish */
    connected(ms: number, wasAsked: boolean): void;
    /** @param {number} silentMs the silence before a frame */
    heard(silentMs: number): void;
    /** @param {number} silentMs the silence before the connection broke */
    broke(silentMs: number): void;
    /** The connection did not break, but nothing came any more. */
    fellSilent(): void;
    forget(): void;
    /** The interval wanted, in ms; 0 as long as the server's own is not known. @param {boolean} isHidden */
    wish(isHidden: boolean): number;
}
export type State = "connecting" | "connected" | "reconnecting" | "disconnected";
export type Change = {
    state: State;
    previous: State;
    /**
     * `connected`, `lost`, `silent`, `offline`, `woke`, `unavailable`, `closed`, a goodbye's own, or why the
     * stream was refused: `token_expired`, `forbidden` and the like, as the server calls it; `refused` where it does not say
     */
    reason: string;
    /**
     * of the answer, where the server refused the stream
     */
    status?: number;
};
export type Options = {
    /**
     * a signed subscription; the fresh one that each connection brings takes its place
     */
    token?: string;
    /**
     * the position after which events are wanted; by default, from now on
     */
    lastEventId?: string;
    /**
     * `localStorage` or `sessionStorage`: keep the position there, so that the next page
     * gets what was missed in between
     */
    persist?: Storage | null;
    /**
     * under which name; by default the url's path and its channels
     */
    persistKey?: string;
    /**
     * events were lost that cannot be had again:
     * fetch the state anew
     */
    onReset?: (data: any, event: MessageEvent) => void;
    /**
     * called with every frame, whatever its type
     */
    onEvent?: (data: any, event: MessageEvent, frame: any) => void;
    /**
     * where `stats` are posted when the page is left, as JSON
     */
    statsUrl?: string | URL;
    /**
     * see {@link HeartbeatPolicy}; "path": whether the page is hidden does not matter;
     * false: the server's interval always
     */
    adaptive?: boolean | "path";
    /**
     * send cookies to another origin too
     */
    withCredentials?: boolean;
    /**
     * the first wait before a new connection; by default the server's
     */
    retryMs?: number;
    /**
     * the longest such wait
     */
    maxRetryMs?: number;
    /**
     * the console; null for silence
     */
    logger?: Pick<Console, "info" | "warn"> | null;
    /**
     * one that sets its static `reconnects` comes back from an error by itself; where
     * the error says `isAlone`, the browser's own takes its place
     */
    EventSource?: typeof EventSource;
};
/**
 * @typedef {"connecting" | "connected" | "reconnecting" | "disconnected"} State
 *
 * @typedef {object} Change what `statechange` carries
 * @property {State} state
 * @property {State} previous
 * @property {string} reason `connected`, `lost`, `silent`, `offline`, `woke`, `unavailable`, `closed`, a goodbye's own, or why the
 * stream was refused: `token_expired`, `forbidden` and the like, as the server calls it; `refused` where it does not say
 * @property {number} [status] of the answer, where the server refused the stream
 *
 * @typedef {object} Options
 * @property {string} [token] a signed subscription; the fresh one that each connection brings takes its place
 * @property {string} [lastEventId] the position after which events are wanted; by default, from now on
 * @property {Storage | null} [persist] `localStorage` or `sessionStorage`: keep the position there, so that the next page
 *   gets what was missed in between
 * @property {string} [persistKey] under which name; by default the url's path and its channels
 * @property {(data: any, event: MessageEvent) => void} [onReset] events were lost that cannot be had again:
 *   fetch the state anew
 * @property {(data: any, event: MessageEvent, frame: any) => void} [onEvent] called with every frame, whatever its type
 * @property {string | URL} [statsUrl] where `stats` are posted when the page is left, as JSON
 * @property {boolean | "path"} [adaptive] see {@link HeartbeatPolicy}; "path": whether the page is hidden does not matter;
 *   false: the server's interval always
 * @property {boolean} [withCredentials] send cookies to another origin too
 * @property {number} [retryMs] the first wait before a new connection; by default the server's
 * @property {number} [maxRetryMs] the longest such wait
 * @property {Pick<Console, "info" | "warn"> | null} [logger] the console; null for silence
 * @property {typeof EventSource} [EventSource] one that sets its static `reconnects` comes back from an error by itself; where
 *   the error says `isAlone`, the browser's own takes its place
 */
/**
 * A live stream. Dispatches each event of the stream as a `MessageEvent` of its type, with the decoded `data` and
 * the `lastEventId`; and `statechange`, whose data is a {@link Change}.
 *
 *     const live = new SSELive("/events/?channel=comments");
 *     live.on("new_comment", (comment) => show(comment));
 */
export declare class SSELive extends EventTarget {
    #private;
    static isAtOrBefore: typeof isAtOrBefore;
    static moved: typeof moved;
    /** Called at each `reset`: events were lost that cannot be had again, so fetch the state anew. */
    onReset: ((data: any, event: MessageEvent) => void) | undefined;
    /**
     * Connects at once.
     * @param {string | URL} url the stream's, with its `channel` parameters if it has any
     * @param {Options} [options]
     */
    constructor(url: string | URL, options?: Options);
    /** @returns {State} */
    get state(): State;
    /** When the last sign of life came, in ms since 1970; every frame is one. */
    get lastHeartbeat(): number;
    /** The position up to which events have been delivered; "" before the first is known. */
    get lastEventId(): string;
    /** The server's name for the present connection. */
    get clientId(): string;
    /** The stream's url, with the freshest token. */
    get url(): string;
    /** How the stream fared so far: times in ms, and reconnects counted by their reason. */
    get stats(): {
        connects: number;
        events: number;
        missedHeartbeats: number;
        lastRecoveryMs: number;
        longestRecoveryMs: number;
        reconnects: {
            [x: string]: number;
        };
        connectedMs: number;
        heartbeatMs: number;
    };
    /**
     * @param {string} type an event's type, or `statechange`
     * @param {(data: any, event: MessageEvent) => void} callback
     */
    on(type: string, callback: (data: any, event: MessageEvent) => void): this;
    /**
     * @param {string} type
     * @param {(data: any, event: MessageEvent) => void} callback what was given to `on`
     */
    off(type: string, callback: (data: any, event: MessageEvent) => void): this;
    /** Ends the stream for good. */
    close(): void;
    /**
     * Watches for a stream that has fallen silent: looks at least every 30 s, and takes it for dead after two intervals
     * without a frame. Every connection starts it by itself.
     */
    startHeartbeatMonitoring(): void;
}
declare const SSELiveElement_base: {
    new (): HTMLElement;
    prototype: HTMLElement;
};
/**
 * `<sse-live src="/events/?channel=comments">`: a stream for as long as it is in the page, a status light, and every
 * event as a bubbling `CustomEvent` named `sse:<type>`, with `detail = {type, data, id}`.
 *
 * Attributes: `src`; `token`, `last-event-id` and `stats-url` as in {@link Options}; `persist`, "local" or "session"; the words
 * for the four states, `text-connecting` and so on, English by default. With `share`, a name that is different for each user,
 * the tabs of that name share one connection, and `channels` names those that the token grants, one a line. It sets `state`.
 * Where `src` or `channels` change, the stream is another one.
 */
export declare class SSELiveElement extends SSELiveElement_base {
    #private;
    static observedAttributes: string[];
    /** The stream, once connected. @type {SSELive | null} */ live: SSELive | null;
    connectedCallback(): Promise<void>;
    /** Moving an element disconnects it and connects it again at once: that must not cost the stream. */
    disconnectedCallback(): void;
    /** @param {string} name @param {string | null} before @param {string | null} now */
    attributeChangedCallback(name: string, before: string | null, now: string | null): void;
}
export {};
