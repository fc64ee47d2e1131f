// How a TypeScript project uses the client: never run, only checked.
import { SSELive, type Change } from "django-sse-live";
import { shared } from "django-sse-live/share";

interface Comment {
  id: number;
}

const live = new SSELive("/events/", {
  token: "…",
  persist: localStorage,
  onReset: () => location.reload(),
  EventSource: shared(SSELive, { group: "user 7", channels: ["comments"] }),
});
live
  .on("new_comment", (comment: Comment, event) => console.log(comment.id, event.lastEventId))
  .on("statechange", ({ state, reason }: Change) => console.log(state, reason));
const state: "connecting" | "connected" | "reconnecting" | "disconnected" = live.state;
const recovery: number = live.stats.longestRecoveryMs;
console.log(state, recovery);
live.close();

// @ts-expect-error: a group is needed
shared(SSELive, {});
// @ts-expect-error: not an option
new SSELive("/events/", { tokens: [] });
