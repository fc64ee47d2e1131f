// Who is writing, and a form that sends without loading the page. Without this file it is a form like any other.
const live = document.querySelector("sse-live");
const form = document.querySelector("#write");
const refusal = document.querySelector("#refusal");
const writing = document.querySelector("#writing");

const SHOWN_MS = 3_000;
const channel = "comments";

/** The timers of those who write, by name. */
const writers = new Map();
let toldAt = -Infinity;

function show() {
  const names = [...writers.keys()].join(", ");
  writing.textContent = names && `${names} ${writers.size > 1 ? "are" : "is"} writing…`;
}

document.addEventListener("sse:typing", ({ detail: { data } }) => {
  if (data.by === live.live?.clientId) return;
  clearTimeout(writers.get(data.name));
  writers.set(data.name, setTimeout(() => {
    writers.delete(data.name);
    show();
  }, SHOWN_MS));
  show();
});

form.addEventListener("input", () => {
  if (performance.now() - toldAt < SHOWN_MS / 2) return;
  toldAt = performance.now();
  live.send("typing", null, { channel }).catch(() => {});  // nobody misses it
});

/** The text under way: a double click sends it once. */
let sending = null;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = form.elements.text;
  const fields = Object.fromEntries(new FormData(form));
  delete fields.csrfmiddlewaretoken;
  if (fields.text === sending) return;
  sending = fields.text;
  refusal.textContent = "";
  try {
    await live.send("comment", fields, { channel });
    if (text.value === fields.text) text.value = "";
  } catch (error) {
    // The text is still there.
    refusal.textContent = error.isTemporary ? "Not sent: the server cannot be reached. Try again." : error.message;
  }
  if (fields.text === sending) sending = null;
});
