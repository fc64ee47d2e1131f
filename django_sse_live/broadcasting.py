"""broadcast() and its kin: from the caller to the backend, after the commit.

Everything is validated and encoded here, at the call, so that an error points at the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.dispatch import Signal
from django.http import HttpRequest
from django.template.loader import render_to_string

from .backends import get_backend
from .conf import live_settings
from .events import (
    CONTROL_CHANNEL,
    RESERVED_PREFIX,
    Event,
    encode_json,
    validate_channels,
    validate_name,
    validate_type,
)
from .hub.hub import DISCONNECT
from .hub.registry import count_published
from .identity import session_digest, user_channel, user_pk

# For captures: the connection may be one of another thread, and so none that django.db.connections shows them.
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
    count_published()
    await get_backend().apublish(event)


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
    """Render a template once, now, and send it as broadcast_text() does."""
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
) -> None:
    """End the streams that meet every given condition, on every worker, with a goodbye that is final. Not a ban.

    ``user``: a saved user or a primary key. ValueError if no condition is given: that would end everything.
    """
    get_backend().publish(_disconnect_event(user, channel, client_id, session_key))


async def adisconnect_clients(
    *,
    user: Any = None,
    channel: str | None = None,
    client_id: str | None = None,
    session_key: str | None = None,
) -> None:
    """disconnect_clients() from a coroutine."""
    await get_backend().apublish(_disconnect_event(user, channel, client_id, session_key))


def stream_position() -> str:
    """The id of the newest event now. Taken before a page's query and given to ``{% sse_live … since=position %}``, it
    closes the gap between that query and the page's first connect."""
    return get_backend().position()


def send_event(event: Event, on_commit: bool = True, using: str | None = None) -> None:
    publish = Publication(event)
    if on_commit:
        alias = DEFAULT_DB_ALIAS if using is None else using
        connection = connections[alias]
        # Asked first: outside atomic() transaction.on_commit() would open a connection, and from a coroutine raise.
        if connection.in_atomic_block:
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


class Publication:
    """An event that is published when it is called, such as after a commit; once, as captureOnCommitCallbacks() of
    Django's TestCase leaves in the queue what it has called."""

    def __init__(self, event: Event) -> None:
        # Django before 6.1 names a callback that failed by this, and fails itself where there is none. A class's own is
        # not seen on its instances.
        self.__qualname__ = "broadcast"
        self.is_control: bool = event.type.startswith(RESERVED_PREFIX)
        self._event = event
        self._is_published = False

    def __call__(self) -> None:
        if self._is_published:
            return
        self._is_published = True
        if not self.is_control:
            count_published()
        get_backend().publish(self._event)


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
            f"The text of {type!r} on {', '.join(channels)} must be a str, not {_class_name(text)}. "
            "For other data use broadcast()."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _explained(error, channels, type, "has no UTF-8 form") from error
    return Event(channels, type, str(text), is_text=True)


def _explained(error: Exception, channels: tuple[str, ...], type: str, problem: str) -> Exception:
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(
        f"The data of event {type!r} on channel {', '.join(map(repr, channels))} {problem}: {error}. "
        'Send plain values, or set SSE_LIVE["JSON_ENCODER"].'
    )


def _class_name(value: object) -> str:
    return value.__class__.__name__


def _disconnect_event(user: Any, channel: str | None, client_id: str | None, session_key: str | None) -> Event:
    conditions: dict[str, str] = {}
    if user is not None:
        conditions["user_pk"] = user_pk(user)
    if channel is not None:
        conditions["channel"] = validate_name("channel", channel)
    if client_id is not None:
        conditions["client_id"] = client_id
    if session_key is not None:
        conditions["session"] = session_digest(session_key)
    if not conditions:
        raise ValueError(
            "disconnect_clients() needs at least one condition: user=…, channel=…, client_id=… or session_key=…."
        )
    return Event((CONTROL_CHANNEL,), DISCONNECT, json.dumps(conditions))
