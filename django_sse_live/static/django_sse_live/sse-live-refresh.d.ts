export type Host = import("./sse-live.js").SSELiveElement;
export type Entry = import("./sse-live-patch.js").Entry;
export type Page = {
    /**
     * where the last frame came from
     */
    host: Host;
    /**
     * of that frame
     */
    position: string;
    /**
     * whether it is a reset that nobody has answered yet
     */
    isReset: boolean;
    /**
     * this file
     */
    load: () => Promise<typeof import("./sse-live-refresh.js")>;
    /**
     * the regions that are to be fetched, by id
     */
    wanted: Set<string>;
    /**
     * up to where a region was fetched
     */
    positions: WeakMap<Element, string>;
    /**
     * the patches of the last minute
     */
    journal: Set<Entry>;
    /**
     * looks for regions that are not of our making
     */
    observer: MutationObserver;
    perform: (patch: Entry["patch"], root: Document) => any;
    become: (old: Element, fresh: Element) => Element;
    prepared: (fresh: Element) => Element;
    announce: (element: Element) => void;
    policy: {
        createHTML: (html: string) => any;
    };
    isChanged: (control: Element) => boolean;
};
/** Fetches what is wanted, soon. @param {Page} lent */
export declare function refresh(lent: Page): void;
