// The project's only script: what the page does with the events that <sse-live> hands it.
//
// It does not mind an event whose effect the page already shows: elements are known by their ids. Effects take turns, so that
// an event that arrives while the lists are fetched anew is not overwritten by them.

const byId = (id) => document.getElementById(id);

/** Puts `html` in the place of the element that has its id, or first in the list if there is none. */
function show(list, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const element = template.content.firstElementChild;
  const present = byId(element.id);
  if (present) {
    present.replaceWith(element);
  } else {
    element.classList.add("arrived");
    list.prepend(element);
  }
}

/** What was missed cannot be had (the server restarted, or the break was long): fetch the page, and take its lists. */
async function takeListsAnew() {
  const answer = await fetch(location.pathname).catch(() => null);
  if (!answer?.ok) {
    setTimeout(() => inTurn(takeListsAnew), 2000);
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["comments", "mentions"]) {
    const fresh = page.getElementById(id);
    if (fresh) byId(id)?.replaceChildren(...fresh.children);
  }
}

const effects = {
  new_comment: ({ html }) => show(byId("comments"), html),
  comment_updated: ({ id, html }) => byId(`comment-${id}`) && show(byId("comments"), html),
  comment_deleted: ({ id }) => byId(`comment-${id}`)?.remove(),
  notification: ({ html }) => byId("mentions") && show(byId("mentions"), html),
  reset: takeListsAnew,
};

let turn = Promise.resolve();
function inTurn(effect, data) {
  turn = turn.then(() => effect(data)).catch(console.error);
}

for (const [type, effect] of Object.entries(effects)) {
  document.addEventListener(`sse:${type}`, (event) => inTurn(effect, event.detail.data));
}
