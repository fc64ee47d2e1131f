"""FileWatch: whether anything can have changed in a SQLite database, by the times of its files, without a lock."""

from __future__ import annotations

import time
from typing import Final

from django.db import OperationalError

from .dialects.base import Dialect
from .dialects.sqlite import SQLite
from .session import Session

LOOK_SECONDS: Final = 1.0  # a look in between only where the files say so
TICK_NS: Final = 20_000_000


class FileWatch:
    """Touched in the bus thread alone."""

    def __init__(self) -> None:
        self._times: tuple[int, ...] = ()
        self._look_at = 0.0

    def begin(self) -> None:
        """Over a new connection."""
        self._times, self._look_at = (), 0.0

    def is_unchanged(self, session: Session, dialect: Dialect, last_id: int, must_look: bool) -> bool:
        """By the times of the files, and by one step into the table; never, where it must be looked at, or is another
        database. OperationalError if the path leads elsewhere."""
        if not isinstance(dialect, SQLite):
            return False
        if must_look or time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            return False
        if session.has_moved():
            raise OperationalError("the file of the database is another one")
        times = session.file_times()
        if times == self._times:
            return True
        # What is written within one tick of the file system's clock has one time: such a one is looked at again.
        is_old = max(times[::2], default=0) < time.time_ns() - TICK_NS
        self._times = times if is_old else ()
        return dialect.last_id(session) == last_id
