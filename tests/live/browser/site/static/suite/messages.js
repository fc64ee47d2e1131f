// What a page heard and was answered, and the sockets it opened.
window.heard = [];
window.answers = [];
window.sockets = 0;
document.addEventListener("sse:note", ({ detail }) => heard.push(detail.data));
document.addEventListener("sse:answer", ({ detail }) => answers.push(detail.data.error ?? detail.data.data.count));
window.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    window.sockets += 1;
  }
};

/** Streams that go over to a WebSocket while events come; gives, for each, what is wrong with the numbers that it heard. */
window.upgrade = async (path, SSELive, csrfToken) => {
  const numbers = [];
  const live = new SSELive(path, { transport: "auto", csrfToken, logger: null });
  live.on("tick", (n) => numbers.push(n));
  const { promise: connected, resolve } = Promise.withResolvers();
  live.on("connected", ({ client_id }) => {
    if (connections.push(client_id) === 1) resolve();
    else upgraded.resolve();
  });
  const connections = [];
  const upgraded = Promise.withResolvers();
  await connected;
  // At any moment between two events.
  await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 40));
  await live.send("note", "up", { channel: new URL(path, location).searchParams.get("channel") });
  await Promise.race([upgraded.promise, new Promise((resolve) => setTimeout(resolve, 10_000))]);
  const before = numbers.length;
  for (let waits = 0; numbers.length < before + 5 && waits < 200; waits += 1) await new Promise((resolve) => setTimeout(resolve, 25));
  live.close();
  const gaps = numbers.slice(1).filter((n, at) => n !== numbers[at] + 1);
  return { connections: connections.length, gaps, heard: numbers.length, after: numbers.length - before };
};
