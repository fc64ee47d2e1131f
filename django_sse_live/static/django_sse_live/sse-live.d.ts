/// <reference types="./sse-live-jsx.d.ts" preserve="true" />
/**
 * Whether the event id `id` is at or before `other`. Only ids of one epoch can be compared.
 * @param {string} id
 * @param {string} other
 * @param {boolean} [isAcrossEpochs] compare ids of different epochs by their times, as well as can be
 */
export declare function isAtOrBefore(id: string, other: string, isAcrossEpochs?: boolean): boolean;
/**
 * The position after a frame. Only a reset takes it back.
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
     * `connected`, `lost`, `silent`, `offline`, `woke`, `unavailable`, `closed`, the reason of a goodbye, or why
     * the stream was refused: the server's word, such as `token_expired` or `forbidden`; `refused` without one
     */
    reason: string;
    /**
     * of the answer, if the server refused the stream
     */
    status?: number;
};
export type Options = {
    /**
     * a signed subscription, which each connection replaces by a fresh one; or a
     * function that returns one, called before each connection
     */
    token?: string | (() => Promise<string>);
    /**
     * the position after which to begin; by default, now
     */
    lastEventId?: string;
    /**
     * `localStorage` or `sessionStorage`: keeps the position there, so that the next page gets the
     * events in between
     */
    persist?: Storage | null;
    /**
     * the name there; by default the url's path and its channels
     */
    persistKey?: string;
    /**
     * the channels that the token grants, for that name
     */
    channels?: string[];
    /**
     * called when events are lost for
     * good: fetch the state anew
     */
    onReset?: (data: any, event: MessageEvent) => void;
    /**
     * called with every frame, of any type
     */
    onEvent?: (data: any, event: MessageEvent, frame: any) => void;
    /**
     * where `stats` are posted when the page is left, as JSON
     */
    statsUrl?: string | URL;
    /**
     * true: a visible page uses the server's heartbeat interval, a hidden one four times
     * that, and both a shorter one on a path that cuts idle connections (see sse-live-loss.js); "path": hidden pages are not
     * different; false: always the server's interval
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
     * for messages whose `send` names none
     */
    queue?: Queue;
    /**
     * Django's, for messages by POST; without it, the first message costs one more request
     */
    csrfToken?: string;
    /**
     * the url of sse-live-socket.js, if it is not beside this file
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
     * logs each event at the level "info" instead of "debug"
     */
    logEvents?: boolean;
    /**
     * the console; null for silence
     */
    logger?: (Pick<Console, "info" | "warn"> & Partial<Pick<Console, "debug">>) | null;
    /**
     * a replacement. With a static `reconnects` it recovers from errors by itself; an error
     * with `isAlone` makes the browser's own take its place
     */
    EventSource?: typeof EventSource;
};
export type Queue = "none" | "memory" | "storage";
export type SendOptions = {
    /**
     * a channel that the page may hear
     */
    channel?: string;
    /**
     * for the answer; with a queue, for each attempt. 10,000 by default
     */
    timeoutMs?: number;
    queue?: Queue;
    /**
     * of a message whose outcome is unknown, to send it again; it is handled only once
     */
    id?: string;
};
/**
 * @typedef {"connecting" | "connected" | "reconnecting" | "disconnected"} State
 *
 * @typedef {object} Change the data of `statechange`
 * @property {State} state
 * @property {State} previous
 * @property {string} reason `connected`, `lost`, `silent`, `offline`, `woke`, `unavailable`, `closed`, the reason of a goodbye, or why
 * the stream was refused: the server's word, such as `token_expired` or `forbidden`; `refused` without one
 * @property {number} [status] of the answer, if the server refused the stream
 *
 * @typedef {object} Options
 * @property {string | (() => Promise<string>)} [token] a signed subscription, which each connection replaces by a fresh one; or a
 *   function that returns one, called before each connection
 * @property {string} [lastEventId] the position after which to begin; by default, now
 * @property {Storage | null} [persist] `localStorage` or `sessionStorage`: keeps the position there, so that the next page gets the
 *   events in between
 * @property {string} [persistKey] the name there; by default the url's path and its channels
 * @property {string[]} [channels] the channels that the token grants, for that name
 * @property {(data: any, event: MessageEvent) => void} [onReset] called when events are lost for
 *   good: fetch the state anew
 * @property {(data: any, event: MessageEvent, frame: any) => void} [onEvent] called with every frame, of any type
 * @property {string | URL} [statsUrl] where `stats` are posted when the page is left, as JSON
 * @property {boolean | "path"} [adaptive] true: a visible page uses the server's heartbeat interval, a hidden one four times
 *   that, and both a shorter one on a path that cuts idle connections (see sse-live-loss.js); "path": hidden pages are not
 *   different; false: always the server's interval
 * @property {boolean} [withCredentials] send cookies to another origin too
 * @property {"sse" | "websocket" | "auto"} [transport] "websocket": over a WebSocket, if one opens; "auto": from the first message
 *   on. "sse" by default
 * @property {Queue} [queue] for messages whose `send` names none
 * @property {string} [csrfToken] Django's, for messages by POST; without it, the first message costs one more request
 * @property {string} [socketSrc] the url of sse-live-socket.js, if it is not beside this file
 * @property {number} [retryMs] the first wait before a new connection; by default the server's
 * @property {number} [maxRetryMs] the longest such wait
 * @property {boolean} [logEvents] logs each event at the level "info" instead of "debug"
 * @property {(Pick<Console, "info" | "warn"> & Partial<Pick<Console, "debug">>) | null} [logger] the console; null for silence
 * @property {typeof EventSource} [EventSource] a replacement. With a static `reconnects` it recovers from errors by itself; an error
 *   with `isAlone` makes the browser's own take its place
 *
 * @typedef {"none" | "memory" | "storage"} Queue for messages that cannot be sent now: none, one that ends with the page, or one that
 *   survives a reload
 *
 * @typedef {object} SendOptions
 * @property {string} [channel] a channel that the page may hear
 * @property {number} [timeoutMs] for the answer; with a queue, for each attempt. 10,000 by default
 * @property {Queue} [queue]
 * @property {string} [id] of a message whose outcome is unknown, to send it again; it is handled only once
 */
/**
 * A live stream. Dispatches each event of the stream as a `MessageEvent` of its type, with the decoded `data` and
 * the `lastEventId`; `stale` for a reset that a reload did not mend; and `statechange`, whose data is a {@link Change}.
 *
 *     const live = new SSELive("/events/?channel=comments");
 *     live.on("new_comment", (comment) => show(comment));
 *
 * It has at most two connections: the current one, whose frames are delivered, and the next one, which is not heard before its first
 * frame. Then that becomes the current one, the old one is closed, and events that both bring are delivered once.
 *
 * | | current | next | timers |
 * |---|---|---|---|
 * | `connecting`, `reconnecting`: opens | – | yes | watch |
 * | … waits, or asks for a token | – | – | retry |
 * | … asks why it was refused | – | – | none: the question has a time limit |
 * | … is prerendered, frozen, or in the back/forward cache | – | – | none: the page's events go on |
 * | `reconnecting`, since the browser says that it is offline | yes | now and then | watch, retry |
 * | `connected` | yes | – | watch, renewal |
 * | … renews its connection | yes | yes | watch |
 * | … the old one has ended as announced | – | yes | watch, renewal: until then the state does not change |
 * | `disconnected`: refused by a proxy or the like | – | now and then | retry |
 * | `disconnected` for good | – | – | none |
 *
 * Only #connect() makes a connection, and only #shut() ends one. Only #become() changes the state, as a method's last step.
 */
export declare class SSELive extends EventTarget {
    #private;
    static isAtOrBefore: typeof isAtOrBefore;
    static moved: typeof moved;
    /** Called at each `reset`: events are lost for good, so fetch the state anew. */
    onReset: ((data: any, event: MessageEvent) => void) | undefined;
    /** The time, in ms, over which this worker's pages spread a fetch that one event causes in all of them, as the server last said. */
    spreadMs: number;
    /**
     * Connects at once.
     * @param {string | URL} url of the stream, with its `channel` parameters if it has any
     * @param {Options} [options]
     */
    constructor(url: string | URL, options?: Options);
    /** @returns {State} */
    get state(): State;
    /** When the last frame of any type came, in ms since 1970. */
    get lastHeartbeat(): number;
    /** The position up to which events have been delivered; "" before the first is known. */
    get lastEventId(): any;
    /** The server's id of the current connection. */
    get clientId(): string;
    /** Whether other tabs or elements may use its connection. */
    get isShared(): boolean;
    /** The stream's url, with the freshest token. */
    get url(): string;
    /** A digest of the user that the server knows this page's visitor as; "" before it is known. */
    get sendsAs(): string;
    /** Figures of the stream so far: times in ms, and reconnects by reason. */
    get stats(): {
        connects: number;
        events: number;
        missedHeartbeats: number;
        lastRecoveryMs: number;
        longestRecoveryMs: number;
        reconnects: Record<string, number>;
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
     * @param {(data: T, event: MessageEvent<T>) => void} callback as given to `on`
     */
    off<T = any>(type: string, callback: (data: T, event: MessageEvent<T>) => void): this;
    /**
     * Sends a message, after earlier ones, and returns the answer's data. Rejects with an `SSELiveError`, whose `error`, `status` and
     * `isTemporary` tell why; `outcome_unknown` if no answer came in time.
     * @param {string} type
     * @param {any} [data] anything that JSON can express
     * @param {SendOptions} [options]
     * @returns {Promise<any>}
     */
    send(type: string, data?: any, options?: SendOptions): Promise<any>;
    /**
     * A job to watch and to stop, for scripts: an element that shows nothing, dispatches `sse:job`, and ends with its `remove()`.
     * @param {string} token @param {string} id
     * @returns {Promise<import("./sse-live-job.js").SSELiveJobElement>}
     */
    job(token: string, id: string): Promise<import("./sse-live-job.js").SSELiveJobElement>;
    /** Switches to another `EventSource`, without a break. @param {typeof globalThis.EventSource} EventSource */
    use(EventSource: typeof globalThis.EventSource): void;
    /** Ends the stream for good. */
    close(): void;
    /**
     * Watches for a silent stream: checks at least every 30 s, and takes it for dead after two intervals without a frame. Every
     * connection starts it by itself.
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
 * "local" or "session"; `transport`, `queue` and `csrf-token`; words for the four states, `text-connecting` and so on, English by
 * default. With `share`, a name that is different for each user, the tabs of that name share one connection. `channels` has the
 * channels that the token grants, one a line. It sets `state`, and `stale` if the page could not be brought up to date. A change of
 * `src` or `channels` begins another stream; so does a `last-event-id` that goes back.
 */
export declare class SSELiveElement extends SSELiveElement_base {
    #private;
    static observedAttributes: string[];
    /** The stream, once connected. @type {SSELive | null} */ live: SSELive | null;
    connectedCallback(): Promise<void>;
    /** Moving an element disconnects it and connects it again, as Turbo does a permanent one: that must not cost the stream. */
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
