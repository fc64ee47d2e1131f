"""FileWatch: whether a SQLite database may have changed, by the times of its files. It takes no lock."""

from __future__ import annotations

import time
from typing import Final

from django.db import OperationalError

from .dialects.base import Dialect
from .dialects.sqlite import SQLite
from .session import Session

LOOK_SECONDS: Final = 1.0  # at the latest, the table is read after this long
FILE_CLOCK_TICK_NS: Final = 20_000_000


class FileWatch:
    """Touched in the bus thread alone."""

    def __init__(self) -> None:
        self._times: tuple[int, ...] = ()
        self._look_at = 0.0

    def begin(self) -> None:
        """Forget what was seen over the connection before."""
        self._times, self._look_at = (), 0.0

    def is_unchanged(self, session: Session, dialect: Dialect, last_id: int, must_look: bool) -> bool:
        """Whether the files and the last id are as before. False where ``must_look``, and for other databases. Raises
        OperationalError if the path leads to another file."""
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
        # Two writes within one tick of the file system's clock have the same time: a young time is not remembered.
        is_old = max(times[::2], default=0) < time.time_ns() - FILE_CLOCK_TICK_NS
        self._times = times if is_old else ()
        return dialect.last_id(session) == last_id
