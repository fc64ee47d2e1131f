export type Host = import("./sse-live.js").SSELiveElement;
export type Entry = import("./sse-live-patch.js").Entry;
export type Page = {
    /**
     * the element that got the last frame
     */
    host: Host;
    /**
     * of that frame
     */
    position: string;
    /**
     * whether it is a reset without a fetch yet
     */
    isReset: boolean;
    /**
     * this file
     */
    load: () => Promise<typeof import("./sse-live-refresh.js")>;
    /**
     * ids of the regions to fetch
     */
    wanted: Set<string>;
    /**
     * the position at which a region was fetched
     */
    positions: WeakMap<Element, string>;
    /**
     * the patches of the last minute
     */
    journal: Set<Entry>;
    /**
     * looks for regions that other code adds
     */
    observer: MutationObserver;
    perform: (patch: Entry["patch"], root: Document) => any;
    become: (old: Element, fresh: Element) => Element;
    prepared: (fresh: Element) => Element;
    announce: (element: Element) => void;
    policy: {
        createHTML: (html: string) => any;
    };
    /**
     * whether the visitor has changed a control
     */
    isChanged: (control: Element) => any;
};
/** Fetches the wanted regions, soon. @param {Page} lent */
export declare function refresh(lent: Page): void;
