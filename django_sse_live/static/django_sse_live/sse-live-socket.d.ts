export type SSELive = import("./sse-live.js").SSELive;
export type Options = import("./sse-live.js").Options;
export type Queue = import("./sse-live.js").Queue;
export type SendOptions = import("./sse-live.js").SendOptions;
export type Written = {
    id: string;
    type: string;
    channel?: string;
    data: any;
    as: string;
    at: number;
};
export type Message = Written & {
    queue: Queue;
    size: number;
    timeoutMs: number;
    resolve: (data: any) => void;
    reject: (error: SSELiveError) => void;
    isFound: boolean;
    carrier: object | null;
    attempt: AbortController;
    isUnknown: boolean;
    failures: number;
    timer?: ReturnType<typeof setTimeout>;
};
export type Answer = {
    error?: string;
    detail?: string;
    data?: any;
    csrf_token?: string;
};
/** Why a message has no answer. */
export declare class SSELiveError extends Error {
    /** For programs. */ error: string;
    /** Of the answer; 0 where none came. */ status: number;
    /** Whether the same message, with the same id, may fare better later. */ isTemporary: boolean;
    /** The message's. */ id: string;
    name: string;
    /**
     * @param {string} error as the server calls it; or `outcome_unknown`, `unreachable`, `queue_full`, `expired`, `closed`
     * @param {object} [more]
     * @param {string} [more.detail] @param {number} [more.status] @param {boolean} [more.isTemporary] @param {string} [more.id]
     */
    constructor(error: string, { detail, status, isTemporary, id }?: {
        detail?: string;
        status?: number;
        isTemporary?: boolean;
        id?: string;
    });
}
/** Sends the messages of one stream. */
export declare class Sender {
    #private;
    /** @param {SSELive} live @param {Options} options the stream's own, as they are now */
    constructor(live: SSELive, options: Options);
    /** @param {string} type @param {any} data the sender's own @param {SendOptions} [options] @returns {Promise<any>} */
    send(type: string, data: any, { channel, id, timeoutMs, queue }?: SendOptions): Promise<any>;
    /** The stream is over. @param {string} reason */
    end(reason: string): void;
    /** The stream goes on over a WebSocket: beside the present connection, until that one is not needed any more. */
    upgrade(): void;
    /** It carries the stream now. @param {SocketSource} socket @param {any} frame */
    opened(socket: SocketSource, { cookies }: any): void;
    /** Whether an answer is still awaited over it. @param {SocketSource} socket */
    isAwaited(socket: SocketSource): boolean;
    /** Nothing more is sent over it; its answers may come. @param {SocketSource} socket */
    left(socket: SocketSource): void;
    /** No answers will come over it: what was unanswered is sent again, first. @param {SocketSource} socket */
    lost(socket: SocketSource): void;
    /** @param {SocketSource} socket @param {Answer & {to: string, status?: number, retry?: number}} answer */
    answer(socket: SocketSource, { to, status, retry, ...said }: Answer & {
        to: string;
        status?: number;
        retry?: number;
    }): void;
    /**
     * One ended by itself. Gives whether the stream is to go on without.
     * @param {boolean} wasOpen
     * @param {number} ageMs
     */
    broke(wasOpen: boolean, ageMs: number): boolean;
}
/** A WebSocket as SSELive knows an EventSource. */
declare class SocketSource {
    #private;
    static CONNECTING: number;
    static OPEN: number;
    static CLOSED: number;
    readyState: number;
    /** @type {((event: {data: string, lastEventId: string}) => void) | null} */ onmessage: ((event: {
        data: string;
        lastEventId: string;
    }) => void) | null;
    /** @type {((event: {isAlone?: boolean}) => void) | null} */ onerror: ((event: {
        isAlone?: boolean;
    }) => void) | null;
    /** @param {Sender} sender @param {string} url */
    constructor(sender: Sender, url: string);
    /** @param {string} text */
    say(text: string): void;
    close(): void;
    closeIfLeft(): void;
}
export {};
