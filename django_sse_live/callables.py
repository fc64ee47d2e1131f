"""The project's functions: whether one takes what it will be called with, and how a coroutine calls it.

The first is asked where the function is given: a mistake is told there and then, not at the first save or message.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

Result = TypeVar("Result")

_OPTIONS: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    from annotationlib import Format

    # An annotation may name what is imported for type checkers alone, or is defined further below.
    _OPTIONS["annotation_format"] = Format.FORWARDREF


def is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature, of a decorated function that of its wrapper, which may give more on; None where Python knows
    none, as of some builtins."""
    try:
        return inspect.signature(function, follow_wrapped=False, **_OPTIONS)
    except (TypeError, ValueError):
        return None


def takes(function: Callable[..., Any], *arguments: str) -> bool:
    """Whether a function can be called with so many arguments, by position. True where it cannot be known."""
    signature = signature_of(function)
    try:
        if signature is not None:
            signature.bind(*arguments)
    except TypeError:
        return False
    return True


def check_sync(place: str, function: Any, *arguments: str) -> None:
    """TypeError, which begins with ``place``, for what is no sync function of these arguments."""
    wanted = f"({', '.join(arguments)})"
    if not callable(function):
        raise TypeError(f"{place} must be a function {wanted}, not {type(function).__name__}.")
    if is_async(function):
        raise TypeError(f"{place} must be a sync function {wanted}: a save calls it, and awaits nothing.")
    if not takes(function, *arguments):
        raise TypeError(f"{place} must be a function {wanted}; this one takes {signature_of(function)}.")


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call code of the project, sync or async. Sync code runs in the request's own thread."""
    if is_async(function):
        return await function(*args)
    result = await sync_to_async(function)(*args)
    return await result if inspect.isawaitable(result) else result


async def call_for_items(function: Callable[..., Any], *args: Any) -> Any:
    """The same for code that returns several things. A queryset or a generator queries the database while it is
    iterated, which is as forbidden on the loop as sync code."""
    items = await call(function, *args)
    if isinstance(items, AsyncIterable):  # includes querysets
        return [item async for item in items]
    return await sync_to_async(lambda: list(items))() if isinstance(items, Iterator) else items


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run a function in a thread of asyncio's, such as one that asks a cache. The cache may be in a database: the
    thread's connections are closed."""

    def run() -> Result:
        try:
            return function(*arguments)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)
