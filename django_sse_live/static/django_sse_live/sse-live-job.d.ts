export type JobState = "running" | "finished" | "failed" | "cancelled" | "expired" | "lost";
export type Job = {
    id: string;
    state: JobState;
    text: string;
    /**
     * from 0 to 1; undefined if unknown
     */
    progress?: number;
    /**
     * what is being done
     */
    label?: string;
    /**
     * of a finished job
     */
    result?: any;
    /**
     * of a failed job, for the visitor
     */
    error?: string;
};
export type Told = Job & {
    job: string;
    n: number;
    offset: number;
    length: number;
};
declare const SSELiveJobElement_base: {
    new (): HTMLElement;
    prototype: HTMLElement;
};
/**
 * `<sse-live-job job="5f…"><sse-live src="/events/" token="…" channels="sse.job.5f…" hidden></sse-live>…</sse-live-job>`: a job, as
 * `{% sse_live_job %}` draws it. Its parts have `data-job`: `text`, `progress` (a <progress>), `label`, `status`, `error` and `stop`
 * (a button); each may be missing. After each change an event `sse:job` bubbles from it, with `detail = {type, data}`, whose data is
 * a {@link Job}. It sets `state`, and removes the inner <sse-live> when nothing more can come.
 *
 * Attributes: `job`, its id; `may-stop`; words for each state, `text-running` and so on, and `text-unstopped` for a failed Stop.
 */
export declare class SSELiveJobElement extends SSELiveJobElement_base {
    #private;
    /** @type {Job} */ job: Job;
    connectedCallback(): void;
    /**
     * Stops the job, and returns the state after that. Rejects with an `SSELiveError` if it is refused, or no answer comes.
     * @returns {Promise<JobState>}
     */
    stop(): Promise<JobState>;
    /** @param {any} event */
    handleEvent({ type, target, detail }: any): void;
}
/**
 * `live.job()`: a job for scripts, an element that shows nothing. `remove()` ends it.
 * @param {import("./sse-live.js").SSELive} live a stream of the same url
 * @param {string} token
 * @param {string} id
 * @returns {SSELiveJobElement}
 */
export declare function watch(live: import("./sse-live.js").SSELive, token: string, id: string): SSELiveJobElement;
export {};
