"""broadcast() and its kin: from the caller to the backend, after the commit.

Everything is validated and encoded here, at the call, so that an error points at the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.dispatch import Signal
from django.http import HttpRequest
from django.template.loader import render_to_string

from .backends import get_backend, publish_event
from .conf import live_settings
from .events import (
    DISCONNECT,
    Event,
    control_event,
    plain_text,
    validate_channels,
    validate_name,
    validate_type,
)
from .hub.registry import count_published
from .identity import scope_name, session_digest, user_channel, user_pk
from .namespaces import current_namespace, namespace_condition, scope_event
from .wire import encode_json

logger: logging.Logger = logging.getLogger("django_sse_live")

# For capture_broadcasts(): the connection may belong to another thread, where django.db.connections does not show it.
publication_waits: Signal = Signal()  # connection, publication


def broadcast(
    channel: str | Iterable[str], type: str, data: Any = None, *, on_commit: bool = True, using: str | None = None
) -> None:
    """Send an event to every client of a channel, after the current transaction commits; at once outside one.

    ``channel``: a name, or several: a client that hears more than one of them gets the event once.
    ``type``: the event's name, such as ``"new_comment"``.
    ``data``: anything that JSON_ENCODER encodes.
    ``on_commit``: False sends now, even inside a transaction.
    ``using``: the database whose commit is awaited.
    TypeError or ValueError, naming channel and type, for what cannot be sent. TransactionManagementError where
    ``transaction.set_autocommit(False)`` is in force, outside ``atomic()``: Django tells nobody of the commit there.
    """
    send_event(_json_event(channel, type, data), on_commit, using)


async def abroadcast(channel: str | Iterable[str], type: str, data: Any = None) -> None:
    """broadcast() from a coroutine; now, since a coroutine is never inside a transaction."""
    event = _json_event(channel, type, data)
    await asend_event(event)


def broadcast_text(
    channel: str | Iterable[str], type: str, text: str, *, on_commit: bool = True, using: str | None = None
) -> None:
    """Send text as it is, such as a fragment of HTML for htmx or Turbo. As the standard has it, every line break
    arrives as LF. Arguments and errors as for broadcast()."""
    send_event(_text_event(channel, type, text), on_commit, using)


def broadcast_template(
    channel: str | Iterable[str],
    type: str,
    template_name: str,
    context: Mapping[str, Any] | None = None,
    *,
    request: HttpRequest | None = None,
    on_commit: bool = True,
    using: str | None = None,
) -> None:
    """Render a template once, now, and send it as broadcast_text() does. It has the language and the time zone that are
    active now, such as those of the visitor whose request it is: set others by override() around it."""
    rendered = render_to_string(template_name, dict(context or {}), request=request)
    broadcast_text(channel, type, rendered, on_commit=on_commit, using=using)


def send_to_user(user: Any, type: str, data: Any = None, *, on_commit: bool = True, using: str | None = None) -> None:
    """broadcast() to one user, who hears it in every tab: ``user`` is a saved user or a primary key."""
    broadcast(user_channel(user), type, data, on_commit=on_commit, using=using)


async def asend_to_user(user: Any, type: str, data: Any = None) -> None:
    """send_to_user() from a coroutine; now."""
    await abroadcast(user_channel(user), type, data)


def disconnect_clients(
    *,
    user: Any = None,
    channel: str | None = None,
    client_id: str | None = None,
    session_key: str | None = None,
    on_commit: bool = True,
    using: str | None = None,
) -> None:
    """End the streams that meet every given condition, on every worker, with a goodbye that is final. Not a ban.

    It keeps its place among the broadcasts: what was broadcast before it is heard first, and inside a transaction it
    waits for the commit, as they do. A rollback leaves the streams open.

    ``user``: a saved user or a primary key.
    ``on_commit``: False ends them now, even inside a transaction.
    ``using``: the database whose commit is awaited.
    ValueError if no condition is given: that would end everything. TypeError or ValueError for a bad one.
    """
    send_event(_disconnect_event(user, channel, client_id, session_key), on_commit, using)


async def adisconnect_clients(
    *, user: Any = None, channel: str | None = None, client_id: str | None = None, session_key: str | None = None
) -> None:
    """disconnect_clients() from a coroutine; now."""
    await get_backend().apublish(_disconnect_event(user, channel, client_id, session_key))


def stream_position() -> str:
    """The id of the newest event now. Taken before a page's query and given to ``{% sse_live … since=position %}``, it
    closes the gap between that query and the page's first connect."""
    return get_backend().position()


def send_event(event: Event, on_commit: bool = True, using: str | None = None) -> None:
    """Publish a validated event after the commit, or now. Where the bus has a part in the transaction, errors of its
    database leave this function: the transaction is broken then. ValueError for one over EVENT_MAX_BYTES."""
    _check_size(event)
    scope_event(event)
    publish = Publication(event)
    if event.finish is not None:
        event.finish = _within_bound(event.finish)
    if on_commit:
        alias = DEFAULT_DB_ALIAS if using is None else using
        connection = connections[alias]
        # Asked first: outside atomic() transaction.on_commit() would open a connection, and from a coroutine raise.
        if connection.in_atomic_block:
            publish.enlisted = get_backend().enlist(event, alias)
            transaction.on_commit(publish, using=alias, robust=True)
            publication_waits.send(sender=None, connection=connection, publication=publish)
            return
        # The attributes, as get_autocommit() would connect. A control event is better early than never.
        if connection.connection is not None and not connection.autocommit and not publish.is_control:
            raise transaction.TransactionManagementError(
                f"{event.type!r} cannot wait for the commit: the autocommit of database {alias!r} is off. Put what it "
                "belongs to into transaction.atomic(), or broadcast with on_commit=False once it is committed."
            )
    publish()


async def asend_event(event: Event) -> None:
    """Publish a validated event from a coroutine; now. ValueError for one over EVENT_MAX_BYTES."""
    _check_size(event)
    scope_event(event)
    count_published()
    await get_backend().apublish(event)


class Publication:
    """An event that is published when it is called, such as after a commit; once, as captureOnCommitCallbacks() of
    Django's TestCase leaves in the queue what it has called."""

    def __init__(self, event: Event) -> None:
        # Django before 6.1 names a callback that failed by this, and fails itself where there is none. A class's own is
        # not seen on its instances.
        self.__qualname__ = "broadcast"
        self.is_control: bool = event.is_control
        self.enlisted: Callable[[], None] | None = None  # what Backend.enlist() gave: the event is the bus's already
        self._event = event
        self._is_done = False
        # Held from the look at a row until its event is published: see row_turns.py.
        self._turn: Callable[[], AbstractContextManager[Any]] = getattr(event.finish, "turn", nullcontext)

    def __call__(self) -> None:
        if self._is_done:
            return
        if self.enlisted is not None:
            self._count()
            self.enlisted()
            return
        with self._turn():
            if self.complete():
                self._count()
                publish_event(self._event)

    def _count(self) -> None:
        self._is_done = True
        if not self.is_control:
            count_published()

    def complete(self) -> bool:
        """Complete the event by what is known only after the commit. False if it is not to be published."""
        if not self._is_done:
            self._is_done = not self._event.complete()
        return not self._is_done


def _json_event(channel: str | Iterable[str], type: str, data: Any) -> Event:
    channels, type = validate_channels(channel), validate_type(type)
    try:
        payload = encode_json(data, live_settings().json_encoder)
    except (TypeError, ValueError, RecursionError) as error:
        raise _explained(error, channels, type, "is not JSON-able") from error
    return Event(channels, type, payload)


def _text_event(channel: str | Iterable[str], type: str, text: str) -> Event:
    channels, type = validate_channels(channel), validate_type(type)
    if not isinstance(text, str):
        raise TypeError(
            f"The text of {type!r} on {', '.join(channels)} must be a str, not {text.__class__.__name__}. "
            "For other data use broadcast()."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _explained(error, channels, type, "has no UTF-8 form") from error
    return Event(channels, type, plain_text(text), is_text=True)


def _check_size(event: Event) -> None:
    most = live_settings().event_max_bytes
    if event.data_bytes > most:
        raise ValueError(
            f"The event {event.type!r} on channel {', '.join(map(repr, event.names))} has {event.data_bytes:,} bytes; "
            f'SSE_LIVE["EVENT_MAX_BYTES"] is {most:,}. Send what the page needs to ask for the rest, such as an id.'
        )


def _within_bound(finish: Callable[[Event], bool]) -> Callable[[Event], bool]:
    """``finish`` and a check of the size: an event that has become too large is logged. It is sent as the refresh that
    it was until then, or not at all. The bus may call it too."""

    def finish_and_check(event: Event) -> bool:
        refresh = event.patch
        if not finish(event):
            return False
        try:
            _check_size(event)
        except ValueError:
            does = "is not told to its pages" if refresh is None else "is fetched by its pages"
            logger.exception("A saved row %s.", does)
            event.patch = refresh
            if event.data_bytes > live_settings().event_max_bytes:
                event.payload = "null"
            return refresh is not None
        return True

    return finish_and_check


def _explained(error: Exception, channels: tuple[str, ...], type: str, problem: str) -> Exception:
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(
        f"The data of event {type!r} on channel {', '.join(map(repr, channels))} {problem}: {error}. "
        'Send plain values, or set SSE_LIVE["JSON_ENCODER"].'
    )


def _disconnect_event(user: Any, channel: str | None, client_id: str | None, session_key: str | None) -> Event:
    conditions = namespace_condition(by_user=user is not None)
    if user is not None:
        conditions["user_pk"] = user_pk(user)
    if channel is not None:
        conditions["channel"] = scope_name(current_namespace(), validate_name("channel", channel))
    for name, value in (("client_id", client_id), ("session_key", session_key)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"disconnect_clients() needs {name} as a str, not {type(value).__name__}.")
    if client_id is not None:
        conditions["client_id"] = client_id
    if session_key is not None:
        conditions["session"] = session_digest(session_key)
    if conditions.keys() <= {"namespace"}:
        raise ValueError(
            "disconnect_clients() needs at least one condition: user=…, channel=…, client_id=… or session_key=…."
        )
    return control_event(DISCONNECT, conditions)
