"""Namespaces: where one process serves several tenants, which of them a request or a broadcast belongs to.

Asks the project's NAMESPACE; knows nothing of what is scoped by the answer. Without NAMESPACE everything is in the one
namespace "", and no name changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from django.http import HttpRequest

from .callables import call
from .conf import live_settings
from .events import Event, refuse_reserved
from .identity import scope_name, validate_namespace
from .savepoints import undone_if_it_fails

_used: Final[ContextVar[str | None]] = ContextVar("django_sse_live.namespace", default=None)


@contextmanager
def use_namespace(namespace: str) -> Iterator[None]:
    """Everything that is broadcast, signed, disconnected or asked for inside the block belongs to this namespace.

    For code that NAMESPACE cannot tell the tenant of by itself: a task, a command, a coroutine. Works in both kinds of
    code, and in what they call.
    ``namespace``: as NAMESPACE would return it.
    TypeError or ValueError for what cannot be a namespace.
    """
    token = _used.set(validate_namespace(namespace))
    try:
        yield
    finally:
        _used.reset(token)


def current_namespace(request: HttpRequest | None = None) -> str:
    """The namespace of a request or, without one, of the running code: that of use_namespace(), else NAMESPACE(None).

    "" without NAMESPACE. What NAMESPACE raises is raised here; TypeError or ValueError for a bad answer.
    """
    ask = live_settings().namespace
    if ask is None:
        return ""
    if request is None:
        used = _used.get()
        if used is not None:
            return used
        with undone_if_it_fails():  # of somebody's transaction, perhaps
            return validate_namespace(ask(None))
    return validate_namespace(ask(request))


async def request_namespace(request: HttpRequest) -> str:
    """current_namespace(request) for a coroutine, where NAMESPACE may be async too."""
    ask = live_settings().namespace
    return "" if ask is None else validate_namespace(await call(ask, request))


def scope_channels(names: tuple[str, ...]) -> tuple[str, ...]:
    """The channels of the running code's namespace that have these names."""
    if live_settings().namespace is None:
        return names
    namespace = current_namespace()
    return tuple([scope_name(namespace, name) for name in names])


def scope_event(event: Event) -> None:
    """Give an event of the project's to the running code's namespace, unless it has one. ValueError for a channel of
    those that workers tell each other by."""
    if event.is_control or event.namespace:
        return
    refuse_reserved(event.channels)
    event.channels = scope_channels(event.channels)


def namespace_condition(*, by_user: bool = False) -> dict[str, str]:
    """What Client.matches() is asked besides, so that a disconnect stays within the running code's namespace.

    ``by_user``: it is about a user, who with SHARED_USERS is the same in every namespace.
    """
    settings = live_settings()
    if settings.namespace is None or (by_user and settings.shared_users):
        return {}
    return {"namespace": current_namespace()}
