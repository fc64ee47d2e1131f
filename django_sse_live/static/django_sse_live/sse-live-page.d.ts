export type Request = {
    name: string;
    grant: () => void;
    lose: () => void;
};
declare class Channel {
    name: string;
    /** @type {((event: {data: any}) => void) | null} */ onmessage: ((event: {
        data: any;
    }) => void) | null;
    /** @param {string} name */
    constructor(name: string);
    /** @param {any} message */
    postMessage(message: any): void;
    close(): void;
}
/** The `means` of `shared()`. */
export declare const means: {
    locks: any;
    BroadcastChannel: typeof Channel;
};
export {};
