"""Patches: what changes on a page, said by the server: an action, the id of an element, and markup.

A patch rides on an event, beside its data. Nothing here knows of models or of hubs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import Any, Final, Literal, get_args

from asgiref.sync import sync_to_async

from .broadcasting import asend_event, send_event
from .events import Event, plain_text, validate_channels, validate_type
from .rendering import render_for_everyone
from .wire import encode_json

Action = Literal["append", "prepend", "before", "after", "replace", "update", "remove", "refresh"]

ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
INSERTING: Final = frozenset({"append", "prepend", "before", "after"})
WITHOUT_MARKUP: Final = frozenset({"remove", "refresh"})
PATCH_TYPE: Final = "patch"  # of an event that is nothing but its patch

# https://html.spec.whatwg.org/multipage/syntax.html#void-elements
_VOID: Final = frozenset("area base br col embed hr img input link meta source track wbr".split())
# https://html.spec.whatwg.org/multipage/syntax.html#optional-tags
_ENDS_BY_ITSELF: Final = frozenset(
    "li dt dd p rt rp optgroup option colgroup caption thead tbody tfoot tr td th".split()
)


def broadcast_patch(
    channel: str | Iterable[str],
    action: Action,
    target: str,
    *,
    html: str | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    type: str = PATCH_TYPE,
    on_commit: bool = True,
    using: str | None = None,
) -> None:
    """Change an element of every page that hears a channel, after the current transaction commits; at once outside one.

    ``action``: ``"append"``, ``"prepend"``, ``"before"`` and ``"after"`` insert markup; ``"replace"`` puts it in the
    place of the element, ``"update"`` in the place of its children; ``"remove"`` takes the element away; ``"refresh"``
    lets each page fetch the element anew, with the rights of its own visitor.
    ``target``: the id of the element, without ``#``. A page that does not have it is left as it is.
    ``html`` or ``template`` with ``context``: the markup, for all but ``remove`` and ``refresh``. A template is
    rendered once, now, for everybody: without a request, in LANGUAGE_CODE and TIME_ZONE.
    ``type``: the event's name, for scripts of the page; its data is null.
    ``on_commit``, ``using``: as for broadcast().
    TypeError or ValueError for what cannot be: an unknown action, no markup where some is needed, inserted markup with
    a root that has no id, a template that asks for what differs from viewer to viewer.
    """
    send_event(_patch_event(channel, action, target, html, template, context, type), on_commit, using)


async def abroadcast_patch(
    channel: str | Iterable[str],
    action: Action,
    target: str,
    *,
    html: str | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    type: str = PATCH_TYPE,
) -> None:
    """broadcast_patch() from a coroutine; now, since a coroutine is never inside a transaction."""
    arguments = (channel, action, target, html, template, context, type)
    # In a thread, as a template may ask the database.
    event = _patch_event(*arguments) if template is None else await sync_to_async(_patch_event)(*arguments)
    await asend_event(event)


def _patch_event(
    channel: str | Iterable[str],
    action: Action,
    target: str,
    html: str | None,
    template: str | None,
    context: Mapping[str, Any] | None,
    type: str,
) -> Event:
    channels, type = validate_channels(channel), validate_type(type)
    if action not in ACTIONS:
        raise ValueError(f"The action is {action!r}; it must be one of {', '.join(map(repr, ACTIONS))}.")
    target = validate_target(target)
    given = [name for name, value in (("html", html), ("template", template)) if value is not None]
    if action in WITHOUT_MARKUP:
        if given or context is not None:
            raise ValueError(f"The action {action!r} takes no markup; leave out html, template and context.")
        return Event(channels, type, "null", patch=encode_patch(action, target))
    if len(given) != 1:
        raise ValueError(f"The action {action!r} needs markup: html=… or template=…, one of them.")
    if template is not None:
        html = render_for_everyone(template, context or {})
    elif context is not None:
        raise ValueError("context is for a template; there is none.")
    if not isinstance(html, str):
        raise TypeError(f"html must be a str, not {html.__class__.__name__}.")
    if action in INSERTING:
        for name, id in root_elements(html):
            if not id:
                raise ValueError(
                    f"The markup for {action!r} on {target!r} has a root without an id ({name}). Each root that is "
                    'inserted needs one, so that it is not inserted twice, and can be changed and removed: <li id="…">.'
                )
    return Event(channels, type, "null", patch=encode_patch(action, target, html=html))


def validate_target(target: object) -> str:
    """The id of an element, as plain text. TypeError or ValueError says what is wrong with it."""
    if not isinstance(target, str):
        raise TypeError(f"The target must be the id of an element, a str, not {target.__class__.__name__}: {target!r}.")
    target = plain_text(target)
    if not target or target.startswith("#") or target.split() != [target]:
        raise ValueError(
            f'The target must be the id of an element, without "#" and white space, such as "comments"; not {target!r}.'
        )
    return target


def encode_patch(
    action: str, target: str, *, id: str | None = None, html: str | None = None, moved_from: str | None = None
) -> str:
    """The patch as JSON text. ``id``: of the element that the markup is, where it is one. ``moved_from``: where that
    stood until now; it goes from there on a page that lacks the target."""
    patch = {"action": action, "target": target}
    if id is not None:
        patch["id"] = id
    if moved_from is not None:
        patch["from"] = moved_from
    if html is not None:
        patch["html"] = plain_text(html)
    return encode_json(patch, json.JSONEncoder)


class _Roots(HTMLParser):
    """Finds the elements and texts that have no parent. ``id`` is None for an element without one, and for text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(html)
        self.is_cut = self.rawdata.startswith("<")  # inside of a tag or a comment
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.open and self.open[-1] == tag and tag in _ENDS_BY_ITSELF:
            self.open.pop()
        if not self.open:
            self.found.append((tag, dict(attrs).get("id")))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:  # as in SVG; elsewhere browsers take it for a start tag
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self.open and data.strip():
            self.found.append(("text", None))


def root_elements(html: str) -> list[tuple[str, str | None]]:
    """(tag, id) of each root of some markup; ``("text", None)`` for text that stands in no element.

    ValueError for markup that ends early: a tag, comment or element that is not closed.
    """
    roots = _Roots(html)
    unclosed = [tag for tag in roots.open if tag not in _ENDS_BY_ITSELF]
    if roots.is_cut or unclosed:
        what = f"<{unclosed[-1]}> is not closed" if unclosed else "a tag or comment is not closed"
        raise ValueError(f"The markup ends early: {what}.")
    return roots.found
