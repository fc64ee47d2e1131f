"""Turns: threads of this process that tell of one row do so one after the other.

Each reads the row after its own commit, and draws it before it publishes. Without turns a thread with a slow template
could publish the older row after another has published the newer one, and pages would keep the older. On the database
bus, events of a transaction have their order from their INSERT and need no turn.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final

LOCKS: Final = 64  # rows share them
TURN_SECONDS: Final = 1.0  # how long a save waits for the template of another; then it goes on, whatever the order


class RowTurns:
    """The turns of one process. Re-entrant: a template, a finalizer or a signal handler may save the same row."""

    def __init__(self) -> None:
        self._locks = [threading.RLock() for _ in range(LOCKS)]
        self._last: list[object] = [None] * LOCKS  # whose turn it was last

    @contextmanager
    def turn(self, row: Hashable, who: object) -> Iterator[bool]:
        """``who``: stands for the transaction. Yields whether another one had a turn since its last one: what it has
        read of the row then may be old."""
        place = hash(row) % LOCKS
        lock = self._locks[place]
        has_lock = lock.acquire(timeout=TURN_SECONDS)
        try:
            is_after_another = self._last[place] is not who
            self._last[place] = who
            yield is_after_another
        finally:
            if has_lock:
                lock.release()
