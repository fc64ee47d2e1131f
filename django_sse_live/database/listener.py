"""Listener and FileWatch: how a process learns that there are new events.

On PostgreSQL by LISTEN, as long as notifications arrive: a pooler in transaction mode accepts LISTEN and delivers none.
Otherwise by polling; on SQLite the files are looked at before the table is.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Final

from django.db import OperationalError

from .dialects.base import Dialect, Status
from .dialects.postgresql import PostgreSQL
from .dialects.sqlite import SQLite
from .reader import Reader
from .session import Session

logger: logging.Logger = logging.getLogger("django_sse_live")

LISTENING_LOOK_SECONDS: Final = 1.1  # between two looks while LISTEN works; each is one query
POLL_SECONDS: Final = 0.1
SQLITE_POLL_SECONDS: Final = 0.05  # each look is a look at a file
PROOF_INTERVAL_SECONDS: Final = 10.0  # between two notifications to itself
PROOF_TIMEOUT_SECONDS: Final = 2.0
FILE_LOOK_SECONDS: Final = 1.0  # at the latest, the table of SQLite is read after this long
FILE_CLOCK_TICK_NS: Final = 20_000_000

_PROOF: Final = "proof:"
_DELTAS_TEXT: Final = "jobs"


class Listener:
    """Touched in the bus thread alone."""

    def __init__(self, dialect: Dialect, may_listen_through_pooler: bool) -> None:
        self._dialect = dialect
        self._may_listen_through_pooler = may_listen_through_pooler
        self.listens: bool = False  # notifications arrive, and the session's descriptor wakes this process
        self.has_deltas: bool = True  # another process has written some
        self._has_warned = False
        self._told = 0  # the greatest head that another process has told, in the epoch being read
        self._proof = ""  # the notification to itself that is on its way
        self._proof_at = 0.0  # when it was sent, or is to be sent

    @property
    def look_seconds(self) -> float:
        if self.listens:
            return LISTENING_LOOK_SECONDS
        return POLL_SECONDS if self._dialect.gives_positions else SQLITE_POLL_SECONDS

    def begin(self, session: Session) -> None:
        """Start over with a new connection."""
        self.listens = False
        self.has_deltas = True  # some may have been told meanwhile
        self._told = 0
        self._proof, self._proof_at = "", 0.0

    def hear(self, session: Session, reader: Reader) -> bool:
        """Read the notifications; True if one tells of unread events. Begins to LISTEN once there is a hub."""
        if not isinstance(self._dialect, PostgreSQL):
            return False
        dialect, now = self._dialect, time.monotonic()
        if not self.listens:
            if not reader.hubs or now < self._proof_at:
                return False
            if not self._may_listen_through_pooler and not session.is_direct:
                self._warn("there is a pooler between it and the server")
                self._proof_at = float("inf")
                return False
            dialect.listen(session)
            self.listens = True
            self._proof_at = now
        has_news = False
        for text in session.take_notifications():
            if text.startswith(_PROOF):
                if text == self._proof:
                    self._proof, self._proof_at = "", now + PROOF_INTERVAL_SECONDS
                continue
            if text == _DELTAS_TEXT:
                self.has_deltas = has_news = True
                continue
            epoch, _, number = text.partition(":")
            if epoch != reader.stored_epoch:
                has_news = True
            elif int(number) > reader.number:
                has_news, self._told = True, max(self._told, int(number))
        if self._proof and now > self._proof_at + PROOF_TIMEOUT_SECONDS:
            self.listens = False
            self._proof, self._proof_at = "", float("inf")
            self._warn("a notification to itself does not arrive")
        elif not self._proof and now >= self._proof_at:
            self._proof, self._proof_at = _PROOF + secrets.token_hex(8), now
            dialect.notify(session, self._proof)
        return has_news

    def take_told(self) -> int:
        """The greatest head told since the last call; 0 if none was, or only of another epoch."""
        told, self._told = self._told, 0
        return told

    def tell(self, session: Session, status: Status) -> None:
        """Tell the other processes that there are events up to the head."""
        if isinstance(self._dialect, PostgreSQL):
            self._dialect.notify(session, f"{status.epoch}:{status.head}")

    def tell_deltas(self, session: Session) -> None:
        """Tell the other processes that there are new deltas of jobs."""
        if isinstance(self._dialect, PostgreSQL):
            self._dialect.notify(session, _DELTAS_TEXT)

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "LISTEN does not work over the connection of the SSE bus: %s. It looks for events every %d ms instead. "
                "Poolers in transaction mode, such as PgBouncer, do not pass notifications on: add an alias to "
                'DATABASES that leads to the server itself, and name it in SSE_LIVE["OPTIONS"]["LISTEN_DATABASE"].',
                why,
                POLL_SECONDS * 1000,
            )


class FileWatch:
    """Whether a SQLite database may have changed, by the times of its files. It takes no lock. Touched in the bus
    thread alone."""

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
            self._look_at = time.monotonic() + FILE_LOOK_SECONDS
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
