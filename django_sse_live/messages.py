"""Messages: what a browser sends, and the functions of the project that answer it.

Knows nothing of how a message came, of hubs, or of what keeps it from running twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.http import HttpRequest

from .callables import call, is_async, takes
from .events import validate_name, validate_type

_WILDCARD: Final = re.compile(r"[*?\[]")

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message, as its handler gets it."""

    id: str  # made by the browser; one that is sent again has the same
    type: str
    channel: str | None  # one that its sender may hear, or none
    data: Any  # whatever JSON the browser sent: nothing has looked at it
    user: Any  # request.user: an AnonymousUser for nobody; None without django.contrib.auth
    client_id: str | None  # of the stream beside it. Over POST it is what the browser says, and proves nothing
    request: HttpRequest


class MessageHandlers:
    """on_message(): the decorator, and what was registered by it."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str | None], Callable[..., Any]] = {}

    def __call__(self, type: str, channel: str | None = None) -> Callable[[Handler], Handler]:
        """Have a function answer the messages of a type: ``handler(message) -> data``, sync or async.

        What it returns is the answer: JSON, at most 64 KiB. PermissionDenied is a 403; ValidationError and ValueError a
        400 with their text; Http404 a 404; every other exception a 500, which is logged and of which the browser is
        told nothing. A sync handler runs in a transaction of each database with ATOMIC_REQUESTS, unless
        ``transaction.non_atomic_requests`` says otherwise of it.

        ``channel``: an fnmatchcase pattern of the channels that it is for, such as ``"room.*"``; without one it takes
        messages on every channel that their sender may hear, and those that name none. Of several handlers that
        with the channel's own name answers, else that with the longest pattern.
        TypeError or ValueError for a bad or reserved type or pattern, or for what is no function of a message;
        ImproperlyConfigured for a second handler.
        """
        if callable(type):
            raise TypeError('on_message needs the type of its messages: write @on_message("typing").')
        validate_type(type)
        if channel is not None:
            validate_name("channel", channel)

        def decorate(handler: Handler) -> Handler:
            if not (callable(handler) and takes(handler, "message")):
                raise TypeError(f"on_message({type!r}) is for a function of the message, not for {handler!r}.")
            self.add(type, channel, handler)
            return handler

        return decorate

    def add(self, type: str, channel: str | None, handler: Callable[..., Any]) -> None:
        """Register a handler, for a reserved type too: this package has some."""
        there = self._handlers.setdefault((type, channel), handler)
        # The same function twice is a module that was imported anew.
        if _name_of(there) != _name_of(handler):
            raise ImproperlyConfigured(
                f"on_message({type!r}, channel={channel!r}) has two handlers: {_name_of(there)} and "
                f"{_name_of(handler)}."
            )
        self._handlers[type, channel] = handler

    def remove(self, handler: Callable[..., Any]) -> None:
        """Take a handler back, at the end of a test."""
        self._handlers = {key: each for key, each in self._handlers.items() if each is not handler}

    def find(self, type: str, channel: str | None) -> Callable[..., Any] | None:
        """The handler of a message, or None."""
        patterns = [
            pattern
            for kind, pattern in self._handlers
            if kind == type and (pattern is None or (channel is not None and fnmatchcase(channel, pattern)))
        ]
        return self._handlers[type, max(patterns, key=_precision)] if patterns else None


def _name_of(handler: Callable[..., Any]) -> str:
    name = getattr(handler, "__qualname__", None)  # of a function or a method; any other callable has none
    return repr(handler) if name is None else f"{handler.__module__}.{name}"


def _precision(pattern: str | None) -> tuple[bool, int]:
    return (False, -1) if pattern is None else (not _WILDCARD.search(pattern), len(pattern))


on_message: Final = MessageHandlers()


async def call_handler(handler: Callable[..., Any], *args: Any) -> Any:
    """Call what is sync in the request's thread, in the transactions that ATOMIC_REQUESTS asks for."""
    return await (handler(*args) if is_async(handler) else call(_call_atomic, handler, args))


def _call_atomic(handler: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    without: Container[str] = getattr(handler, "_non_atomic_requests", ())  # of transaction.non_atomic_requests
    with ExitStack() as blocks:
        for alias, database in connections.settings.items():
            if database["ATOMIC_REQUESTS"] and alias not in without:
                blocks.enter_context(transaction.atomic(using=alias))
        return handler(*args)
