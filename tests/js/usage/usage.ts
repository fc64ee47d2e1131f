// How a TypeScript project uses the client: never run, only checked.
import { SSELive, type Change } from "django-sse-live";
import { shared } from "django-sse-live/share";
import { SSELiveError } from "django-sse-live/socket";

interface Comment {
  id: number;
}

const live = new SSELive("/events/", {
  token: "…",
  persist: localStorage,
  onReset: () => console.log("fetch it anew"),
  logEvents: true,
  EventSource: shared(SSELive, { group: "user 7", channels: ["comments"] }),
});
new SSELive("/events/", { token: async () => "…" }).on<Comment>("new_comment", (comment) => console.log(comment.id)).close();
live
  .on("new_comment", (comment: Comment, event) => console.log(comment.id, event.lastEventId))
  .on("statechange", ({ state, reason }: Change) => console.log(state, reason));
const state: "connecting" | "connected" | "reconnecting" | "disconnected" = live.state;
const recovery: number = live.stats.longestRecoveryMs;
console.log(state, recovery);
live
  .send("typing", null, { channel: "room.1", timeoutMs: 5_000, queue: "storage" })
  .catch((error) => console.log(error instanceof SSELiveError && error.isTemporary && error.status));
new SSELive("/events/", { transport: "auto", queue: "memory", csrfToken: "…" });
live.job("token", "id").then((job) => job.addEventListener("sse:job", () => console.log(job.job.state === "failed", job.job.text.length)));
live.close();

// @ts-expect-error: a group is needed
shared(SSELive, {});
// @ts-expect-error: not an option
new SSELive("/events/", { tokens: [] });
