"""What is said of an exception that must not reach the loop that caught it: the others in that loop are served."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

logger: logging.Logger = logging.getLogger("django_sse_live")


def report_failure(message: str, *arguments: object) -> None:
    """Log the exception that is being handled; or print it, where a filter or handler of the log raises one too."""
    try:
        logger.exception(message, *arguments)
    except Exception:
        traceback.print_exc()


def guarded(function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Call it; an exception is reported and goes no further."""
    try:
        function(*arguments, **named)
    except Exception:
        report_failure("%r failed.", function)
