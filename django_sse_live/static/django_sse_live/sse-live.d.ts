/// <reference types="./sse-live-jsx.d.ts" preserve="true" />
/**
 * Whether the event id `id` stands at or before `other`. Only ids of one epoch can be compared.
 * @param {string} id
 * @param {string} other
 * @param {boolean} [isAcrossEpochs] by their times alone, which is as much as anyone can tell
 */
export declare function isAtOrBefore(id: string, other: string, isAcrossEpochs?: boolean): boolean;
/**
 * A position after a frame: it never goes back, but for a reset.
 * @param {string} position
 * @param {{type: string}} frame
 * @param {string} id the frame's; "" for one without
 */
declare function moved(position: string, { type }: {
    type: string;
}, id: string): string;
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
     * a signed subscription, and the fresh one that each connection brings takes
     * its place; or a function that is asked for one before each connection
     */
    token?: string | (() => Promise<string>);
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
     * those that the token grants, for that name
     */
    channels?: string[];
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
     * a visible page takes the server's own interval, a hidden one asks for four times that,
     * both for less on a path that cuts what idles (see sse-live-loss.js); "path": whether the page is hidden does not matter;
     * false: the server's interval always
     */
    adaptive?: boolean | "path";
    /**
     * send cookies to another origin too
     */
    withCredentials?: boolean;
    /**
     * "websocket": over a WebSocket, if one opens; "auto": from the first message
     * on. "sse" by default
     */
    transport?: "sse" | "websocket" | "auto";
    /**
     * of messages for which `send` names none
     */
    queue?: Queue;
    /**
     * Django's, which messages by POST need; without one, the first costs one request more
     */
    csrfToken?: string;
    /**
     * where sse-live-socket.js is, if not beside this file
     */
    socketSrc?: string;
    /**
     * the first wait before a new connection; by default the server's
     */
    retryMs?: number;
    /**
     * the longest such wait
     */
    maxRetryMs?: number;
    /**
     * a line at the console's level "info" for each event, not "debug"
     */
    logEvents?: boolean;
    /**
     * the console; null for silence
     */
    logger?: (Pick<Console, "info" | "warn"> & Partial<Pick<Console, "debug">>) | null;
    /**
     * one that sets its static `reconnects` comes back from an error by itself; where
     * the error says `isAlone`, the browser's own takes its place
     */
    EventSource?: typeof EventSource;
};
export type Queue = "none" | "memory" | "storage";
export type SendOptions = {
    /**
     * one that the page may hear
     */
    channel?: string;
    /**
     * for an answer; with a queue, for each attempt. 10,000 by default
     */
    timeoutMs?: number;
    queue?: Queue;
    /**
     * that of a message whose outcome is unknown, to send it again: it is handled once
     */
    id?: string;
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
 * @property {string | (() => Promise<string>)} [token] a signed subscription, and the fresh one that each connection brings takes
 *   its place; or a function that is asked for one before each connection
 * @property {string} [lastEventId] the position after which events are wanted; by default, from now on
 * @property {Storage | null} [persist] `localStorage` or `sessionStorage`: keep the position there, so that the next page
 *   gets what was missed in between
 * @property {string} [persistKey] under which name; by default the url's path and its channels
 * @property {string[]} [channels] those that the token grants, for that name
 * @property {(data: any, event: MessageEvent) => void} [onReset] events were lost that cannot be had again:
 *   fetch the state anew
 * @property {(data: any, event: MessageEvent, frame: any) => void} [onEvent] called with every frame, whatever its type
 * @property {string | URL} [statsUrl] where `stats` are posted when the page is left, as JSON
 * @property {boolean | "path"} [adaptive] a visible page takes the server's own interval, a hidden one asks for four times that,
 *   both for less on a path that cuts what idles (see sse-live-loss.js); "path": whether the page is hidden does not matter;
 *   false: the server's interval always
 * @property {boolean} [withCredentials] send cookies to another origin too
 * @property {"sse" | "websocket" | "auto"} [transport] "websocket": over a WebSocket, if one opens; "auto": from the first message
 *   on. "sse" by default
 * @property {Queue} [queue] of messages for which `send` names none
 * @property {string} [csrfToken] Django's, which messages by POST need; without one, the first costs one request more
 * @property {string} [socketSrc] where sse-live-socket.js is, if not beside this file
 * @property {number} [retryMs] the first wait before a new connection; by default the server's
 * @property {number} [maxRetryMs] the longest such wait
 * @property {boolean} [logEvents] a line at the console's level "info" for each event, not "debug"
 * @property {(Pick<Console, "info" | "warn"> & Partial<Pick<Console, "debug">>) | null} [logger] the console; null for silence
 * @property {typeof EventSource} [EventSource] one that sets its static `reconnects` comes back from an error by itself; where
 *   the error says `isAlone`, the browser's own takes its place
 *
 * @typedef {"none" | "memory" | "storage"} Queue of messages that cannot be sent now: none, one that ends with the page, or one that
 *   a reload of the page does not end
 *
 * @typedef {object} SendOptions
 * @property {string} [channel] one that the page may hear
 * @property {number} [timeoutMs] for an answer; with a queue, for each attempt. 10,000 by default
 * @property {Queue} [queue]
 * @property {string} [id] that of a message whose outcome is unknown, to send it again: it is handled once
 */
/**
 * A live stream. Dispatches each event of the stream as a `MessageEvent` of its type, with the decoded `data` and
 * the `lastEventId`; `stale`, where a reset came that a reload had not mended; and `statechange`, whose data is a {@link Change}.
 *
 *     const live = new SSELive("/events/?channel=comments");
 *     live.on("new_comment", (comment) => show(comment));
 *
 * Two connections at the most: the present one, whose frames are heard, and the next one, of which nothing counts before its
 * first word. Then it is the present one, the old one is closed, and what both bring is heard once.
 *
 * | | present | next | timers |
 * |---|---|---|---|
 * | `connecting`, `reconnecting`: opens | – | yes | watch |
 * | … waits, or asks for a token | – | – | retry |
 * | … asks why it was refused | – | – | none: the question has a time limit |
 * | … is prerendered, frozen, or in the back/forward cache | – | – | none: the page's events go on |
 * | `reconnecting`, since the browser says that it is offline | yes | now and then | watch, retry |
 * | `connected` | yes | – | watch, renewal |
 * | … renews its connection | yes | yes | watch |
 * | … the old one has ended as it had said | – | yes | watch, renewal: how long that is not shown |
 * | `disconnected`: refused by something in between | – | now and then | retry |
 * | `disconnected` for good | – | – | none |
 *
 * #connect() alone makes a connection and #shut() alone ends one; #become() alone changes the state, as a method's last step.
 */
export declare class SSELive extends EventTarget {
    #private;
    static isAtOrBefore: typeof isAtOrBefore;
    static moved: typeof moved;
    /** Called at each `reset`: events were lost that cannot be had again, so fetch the state anew. */
    onReset: ((data: any, event: MessageEvent) => void) | undefined;
    /** Over how many ms the pages of this worker are to spread what they all fetch because of one event, as the server said last. */
    spreadMs: number;
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
    get lastEventId(): any;
    /** The server's name for the present connection. */
    get clientId(): string;
    /** Whether its connection may be others' too. */
    get isShared(): boolean;
    /** The stream's url, with the freshest token. */
    get url(): string;
    /** A digest of whom the server takes this page's visitor for; "" before it is known. */
    get sendsAs(): string;
    /** How the stream fared so far: times in ms, and reconnects counted by their reason. */
    get stats(): {
        connects: number;
        reconnects: Record<string, number>;
        events: number;
        missedHeartbeats: number;
        lastRecoveryMs: number;
        longestRecoveryMs: number;
        connectedMs: number;
        heartbeatMs: number;
    };
    /**
     * @template [T=any]
     * @param {string} type an event's type, or `statechange`
     * @param {(data: T, event: MessageEvent<T>) => void} callback
     */
    on<T = any>(type: string, callback: (data: T, event: MessageEvent<T>) => void): this;
    /**
     * @template [T=any]
     * @param {string} type
     * @param {(data: T, event: MessageEvent<T>) => void} callback what was given to `on`
     */
    off<T = any>(type: string, callback: (data: T, event: MessageEvent<T>) => void): this;
    /**
     * Sends a message, after those before it, and gives the answer's data. Rejects with an `SSELiveError`, whose `error`, `status` and
     * `isTemporary` say why there is none; `outcome_unknown` where none came in time.
     * @param {string} type
     * @param {any} [data] anything that JSON can say
     * @param {SendOptions} [options]
     * @returns {Promise<any>}
     */
    send(type: string, data?: any, options?: SendOptions): Promise<any>;
    /**
     * A job to watch and to stop, for scripts: an element that shows nothing, says `sse:job`, and ends with its `remove()`.
     * @param {string} token @param {string} id
     * @returns {Promise<import("./sse-live-job.js").SSELiveJobElement>}
     */
    job(token: string, id: string): Promise<import("./sse-live-job.js").SSELiveJobElement>;
    /** Goes on by another `EventSource`, without a break. @param {typeof globalThis.EventSource} EventSource */
    use(EventSource: typeof globalThis.EventSource): void;
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
 * Attributes: `src`; `token`, `last-event-id`, `stats-url`, `with-credentials` and `log-events` as in {@link Options}; `persist`,
 * "local" or "session"; `transport`, `queue` and `csrf-token`; the words for the four states, `text-connecting` and so on, English by default. With `share`, a name that
 * is different for each user, the tabs of that name share one connection, and `channels` names those that the token grants, one a
 * line. It sets `state`, and `stale` where the page could not be brought up to date. Where `src` or `channels` change, the stream
 * is another one.
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
    /**
     * As {@link SSELive.send}; waits for the stream to begin.
     * @param {string} type @param {any} [data] @param {SendOptions} [options]
     * @returns {Promise<any>}
     */
    send(type: string, data?: any, options?: SendOptions): Promise<any>;
}
export {};
