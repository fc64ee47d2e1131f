"""How an exception is reported that must not end the loop that caught it, and which cancellation is one."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

logger: logging.Logger = logging.getLogger("django_sse_live")


def report_failure(message: str, *arguments: object) -> None:
    """Log the exception being handled. If the log itself raises, print it."""
    try:
        logger.exception(message, *arguments)
    except Exception:
        traceback.print_exc()


def guarded(function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Call the function. An exception is reported, not raised."""
    try:
        function(*arguments, **named)
    except Exception:
        report_failure("%r failed.", function)


def is_being_cancelled() -> bool:
    """Whether the running task itself is cancelled, and not only one that it awaited. Not known before Python 3.11:
    True."""
    task: Any = asyncio.current_task()
    return not hasattr(task, "cancelling") or bool(task.cancelling())
