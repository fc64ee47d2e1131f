// As a page that uses these libraries would do it.
import { SSELive } from "/static/django_sse_live/sse-live.js";
import { connectStreamSource } from "/static/vendor/turbo/turbo.es2017-esm.js";

document.addEventListener("alpine:init", () => {
  Alpine.data("comments", () => ({
    last: "",
    init() { document.addEventListener("sse:new_comment", ({ detail }) => { this.last = detail.type; }); },
  }));
});

// A stream is an EventTarget, and events of the type `message` are what Turbo listens for.
const channel = new URLSearchParams(location.search).get("channel");
const live = new SSELive(`/events/?channel=${channel}`);
connectStreamSource(live);
live.on("connected", () => { document.body.dataset.turbo = "connected"; });
