// <sse-live> and <sse-live-job> where TypeScript reads markup: `document.querySelector("sse-live")`, and JSX.
import type { Options, SSELiveElement } from "./sse-live.js";
import type { JobState, SSELiveJobElement } from "./sse-live-job.js";

type Attribute =
  | "src" | "token" | "last-event-id" | "channels" | "share" | "stats-url" | "csrf-token" | "class" | "className" | "id" | "key" | "slot" | "style"
  | `text-${"connecting" | "connected" | "reconnecting" | "disconnected"}` | `${"light" | "loss" | "share" | "page" | "patch" | "refresh" | "socket" | "job"}-src`;

/** What may be written in the tag; what the page sets by itself (`state`, `stale`) may not. */
export type SSELiveAttributes = { [name in Attribute]?: any } & {
  persist?: "local" | "session";
  reset?: "reload";
  transport?: Options["transport"];
  queue?: Options["queue"];
  "with-credentials"?: boolean | "";
  "log-events"?: boolean | "";
  ref?: any;
};

type JobAttribute = "job" | "class" | "className" | "id" | "key" | "slot" | "style" | "children" | `text-${JobState | "unstopped"}`;

export type SSELiveJobAttributes = { [name in JobAttribute]?: any } & {
  state?: JobState;
  "may-stop"?: boolean | "";
  ref?: any;
};

interface Elements {
  "sse-live": SSELiveAttributes;
  "sse-live-job": SSELiveJobAttributes;
}

declare global {
  interface HTMLElementTagNameMap {
    "sse-live": SSELiveElement;
    "sse-live-job": SSELiveJobElement;
  }
  namespace JSX {
    interface IntrinsicElements extends Elements {}
  }
}

// @ts-ignore: React 19 has a JSX of its own; without React there is no such module.
declare module "react" {
  namespace JSX {
    interface IntrinsicElements extends Elements {}
  }
}
