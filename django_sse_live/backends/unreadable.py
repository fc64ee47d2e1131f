"""Unreadable: what stands on a bus and is no event of ours, or a malformed one. It is passed over, and counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from typing import Final

logger: logging.Logger = logging.getLogger("django_sse_live")

LOGGED_MAX: Final = 10  # that are named in the log by one process; the others are counted
# What reading it raises, whatever it is.
MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Unreadable:
    """Of one backend and process. From any thread."""

    def __init__(self, what: str) -> None:
        self.count: int = 0
        self._what = what  # it is, for the log
        self._logged: set[Hashable] = set()
        self._lock = threading.Lock()

    def pass_over(self, name: Hashable, error: Exception) -> None:
        """``name``: stands for it alone, as it may be read again. What is not named in the log is counted each time."""
        with self._lock:
            if name in self._logged:
                return
            self.count += 1
            if len(self._logged) >= LOGGED_MAX:
                return
            self._logged.add(name)
            rest = " Further ones are counted only." if len(self._logged) == LOGGED_MAX else ""
        logger.warning("%s %s is passed over: %.200r.%s", self._what, name, error, rest)
