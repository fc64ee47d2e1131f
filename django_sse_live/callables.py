"""Whether a function of the project takes what it will be called with.

Asked where the function is given: a mistake is told there and then, not at the first save or message.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

_OPTIONS: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    from annotationlib import Format

    # An annotation may name what is imported for type checkers alone, or is defined further below.
    _OPTIONS["annotation_format"] = Format.FORWARDREF


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature; None where Python knows none, as of some builtins."""
    try:
        return inspect.signature(function, **_OPTIONS)
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
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise TypeError(f"{place} must be a sync function {wanted}: a save calls it, and awaits nothing.")
    if not takes(function, *arguments):
        raise TypeError(f"{place} must be a function {wanted}; this one takes {signature_of(function)}.")
