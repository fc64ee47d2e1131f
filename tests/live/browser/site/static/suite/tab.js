// What a page heard, and as which client it holds its locks.
window.heard = [];
window.states = [];
for (const type of ["tick", "reset", "note"]) {
  document.addEventListener(`sse:${type}`, ({ detail }) => heard.push(type === "tick" ? detail.data : type));
}
document.addEventListener("sse:statechange", ({ detail }) => states.push(detail.data.state));

window.lockClient = (async () => {
  const name = `who ${Math.random()}`;
  return navigator.locks.request(name, async () => {
    const { held } = await navigator.locks.query();
    return held.find((lock) => lock.name === name).clientId;
  });
})();
