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
    /** A word for programs. */ error: string;
    /** The answer's; 0 without an answer. */ status: number;
    /** Whether the same message, with the same id, may succeed later. */ isTemporary: boolean;
    /** Of the message. */ id: string;
    name: string;
    /**
     * @param {string} error the server's word, or `outcome_unknown`, `unreachable`, `queue_full`, `expired`, `closed`
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
    /** Moves the stream to a WebSocket, which opens beside the current connection until that one is no longer needed. */
    upgrade(): void;
    /** The WebSocket carries the stream now. @param {SocketSource} socket @param {any} frame */
    opened(socket: SocketSource, { cookies }: any): void;
    /** Whether a WebSocket still owes an answer. @param {SocketSource} socket */
    isAwaited(socket: SocketSource): boolean;
    /** Sends nothing more over a WebSocket; its answers may still come. @param {SocketSource} socket */
    left(socket: SocketSource): void;
    /** A WebSocket is gone: its unanswered messages are sent again, first. @param {SocketSource} socket */
    lost(socket: SocketSource): void;
    /** @param {SocketSource} socket @param {Answer & {to: string, status?: number, retry?: number}} answer */
    answer(socket: SocketSource, { to, status, retry, ...said }: Answer & {
        to: string;
        status?: number;
        retry?: number;
    }): void;
    /**
     * A WebSocket ended by itself. Returns whether the stream goes on without WebSockets.
     * @param {boolean} wasOpen
     * @param {number} ageMs
     */
    broke(wasOpen: boolean, ageMs: number): boolean;
}
/** A WebSocket with the interface of an EventSource. */
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
