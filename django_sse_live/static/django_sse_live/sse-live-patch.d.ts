export type Patch = {
    action: string;
    target?: any;
    id?: string;
    html?: string;
    from?: string;
};
export type Entry = {
    patch: Patch;
    id: string;
    host: Host;
    at: number;
};
export type Host = import("./sse-live.js").SSELiveElement;
export type Root = {
    getElementById(id: string): Element | null | undefined;
    querySelectorAll(selector: string): Iterable<Element>;
};
/**
 * Brings the page up to date with a frame: one that has a patch, or a `reset`.
 * @param {{patch?: Patch}} frame
 * @param {string} id the frame's position
 * @param {Host} host the element that got it
 * @param {() => Promise<typeof import("./sse-live-refresh.js")>} load loads sse-live-refresh.js
 */
export declare function patch({ patch }: {
    patch?: Patch;
}, id: string, host: Host, load: () => Promise<typeof import("./sse-live-refresh.js")>): Promise<void> | undefined;
