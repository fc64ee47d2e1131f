// node read.mjs READER URL: prints `ready` when the stream is connected, then [type, data, id] for each event, and ends
// with the event `end`. READER is one of the keys below.
import { createRequire } from "node:module";

const TYPES = ["connected", "note", "with space", "end"];
const [, , reader, url] = process.argv;

function take(type, data, id) {
  if (type === "heartbeat") return;
  const line = type === "connected" ? "ready" : JSON.stringify([type, data, id]);
  process.stdout.write(`${line}\n`, () => type === "end" && process.exit());
}

const listen = (source) => {
  for (const type of TYPES) source.addEventListener(type, ({ data, lastEventId }) => take(type, data, lastEventId));
};

const readers = {
  async "eventsource"() {
    const { EventSource } = await import("eventsource");
    listen(new EventSource(url));
  },

  async "eventsource-parser"() {
    const { createParser } = await import("eventsource-parser");
    const parser = createParser({ onEvent: ({ event, data, id }) => take(event, data, id) });
    const answer = await fetch(url, { headers: { Accept: "text/event-stream" } });
    for await (const text of answer.body.pipeThrough(new TextDecoderStream())) parser.feed(text);
  },

  async "reconnecting-eventsource"() {
    const { EventSource } = await import("eventsource");
    const { default: Reconnecting } = createRequire(import.meta.url)("reconnecting-eventsource");
    listen(new Reconnecting(url, { eventSourceClass: EventSource }));
  },

  async "fetch-event-source"() {
    globalThis.window = globalThis;  // it is made for pages
    const { fetchEventSource } = createRequire(import.meta.url)("@microsoft/fetch-event-source");
    await fetchEventSource(url, { openWhenHidden: true, onmessage: ({ event, data, id }) => take(event, data, id) });
  },
};

await readers[reader]();
