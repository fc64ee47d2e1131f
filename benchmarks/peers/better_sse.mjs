// better-sse over node:http: one channel, to which every session is registered.
import http from "node:http";
import { createRequire } from "node:module";
import { setImmediate, setTimeout } from "node:timers/promises";

const [port, modules] = process.argv.slice(2);
const { createChannel, createSession } = createRequire(modules)("better-sse");
const channel = createChannel();

async function publish(query) {
  const hz = Number(query.get("hz"));
  const padding = "x".repeat(Number(query.get("bytes")));
  for (let number = 0; number < Number(query.get("events")); number++) {
    channel.broadcast({ at: [number, Number(process.hrtime.bigint())], padding });
    await (hz ? setTimeout(1000 / hz) : setImmediate());
  }
}

http
  .createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    if (url.pathname === "/publish") {
      response.writeHead(204).end();
      publish(url.searchParams);
    } else {
      channel.register(await createSession(request, response));
    }
  })
  .listen(Number(port), "127.0.0.1", 4096);
