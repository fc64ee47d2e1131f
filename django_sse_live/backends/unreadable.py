"""Unreadable: foreign or malformed entries of a bus. They are skipped and counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from typing import Final

logger: logging.Logger = logging.getLogger("django_sse_live")

LOGGED_MAX: Final = 10  # named in the log of one process; further ones are only counted
# What reading such an entry may raise.
MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Unreadable:
    """The unreadable entries of one backend and process. From any thread."""

    def __init__(self, what: str) -> None:
        self.count: int = 0
        self._what = what  # the kind of entry, for the log
        self._logged: set[Hashable] = set()
        self._lock = threading.Lock()

    def pass_over(self, name: Hashable, error: Exception) -> None:
        """Skip an entry. ``name``: identifies it, as it may be read again. One that the log does not name is counted
        each time."""
        with self._lock:
            if name in self._logged:
                return
            self.count += 1
            if len(self._logged) >= LOGGED_MAX:
                return
            self._logged.add(name)
            rest = " Further ones are counted only." if len(self._logged) == LOGGED_MAX else ""
        logger.warning("%s %s is passed over: %.200r.%s", self._what, name, error, rest)
