"""Deltas of jobs: a table of their own, apart from the project's transactions.

Touched in the bus thread alone, except put(). The hubs of this process got its own deltas before; only those of other
processes are read here. A row that commits late, behind a higher id, is never read: watchers find its text in the
cache.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from django.db import OperationalError, ProgrammingError

from ..backends.unreadable import MALFORMED
from ..events import CONTROL_CHANNEL, Event, received_event
from .dialects.base import Dialect
from .problems import explained
from .session import Session

logger: logging.Logger = logging.getLogger("django_sse_live")

WAITING_MAX: Final = 100  # batches that wait for their INSERT; beyond it the oldest are dropped
READ_AT_ONCE: Final = 200
DELTAS_KEPT_MS: Final = 10_000
ROWS_MAX: Final = 20_000
TRIM_SECONDS: Final = 2.0


class Deltas:
    def __init__(self, dialect: Dialect, alias: str) -> None:
        self.is_off: bool = not dialect.stores_worker_events  # also where the table is missing
        self._dialect = dialect
        self._alias = alias
        self._publisher = secrets.token_hex(6)
        self._waiting: deque[bytes] = deque(maxlen=WAITING_MAX)
        self._last = -1  # id of the last row read; -1: none yet
        self._epoch = ""  # of the stream, when that was read
        self._trim_at = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, event: Event) -> None:
        """Queue a batch for its INSERT. From any thread."""
        if not self.is_off:
            self._waiting.append(f"{json.dumps([self._publisher, event.type])}\n{event.payload}".encode())

    def work(self, session: Session, epoch: str, hand_on: Callable[[Event], None] | None) -> bool:
        """Insert the queued batches; pass those of other processes to ``hand_on``. True if any was inserted.
        ``epoch``: of the stream; with another one, ids may have begun anew."""
        if self.is_off:
            return False
        if epoch != self._epoch:
            # What may be read a second time is told by its offsets.
            self._last = 0 if self._epoch else -1
            self._epoch = epoch
        try:
            has_inserted = self._insert(session)
            if hand_on is not None:
                self._read(session, hand_on)
            return has_inserted
        except (ProgrammingError, OperationalError) as error:
            if isinstance(error, ProgrammingError) or "sse_live_job_delta" in str(error):
                self.is_off = True
                logger.warning(
                    "Deltas of jobs do not reach other processes by the database: they look into the cache. %s",
                    explained(error, self._alias),
                )
                return False
            raise

    def _insert(self, session: Session) -> bool:
        has_inserted = False
        while self._waiting:
            session.run(
                f"INSERT INTO sse_live_job_delta (milliseconds, body) VALUES ({self._dialect.now_sql}, %s)",
                [self._waiting.popleft()],
            )
            has_inserted = True
        now = time.monotonic()
        if has_inserted and now >= self._trim_at:
            self._trim_at = now + TRIM_SECONDS
            session.run(
                f"DELETE FROM sse_live_job_delta WHERE milliseconds < {self._dialect.now_sql} - %s", [DELTAS_KEPT_MS]
            )
            ((last,),) = session.query("SELECT coalesce(max(id), 0) FROM sse_live_job_delta")
            session.run("DELETE FROM sse_live_job_delta WHERE id < %s", [last - ROWS_MAX])
        return has_inserted

    def _read(self, session: Session, hand_on: Callable[[Event], None]) -> None:
        if self._last < 0:
            ((self._last,),) = session.query("SELECT coalesce(max(id), 0) FROM sse_live_job_delta")
            return
        rows = session.query(
            f"SELECT id, body FROM sse_live_job_delta WHERE id > %s ORDER BY id LIMIT {READ_AT_ONCE}", [self._last]
        )
        for id, body in rows:
            self._last = id
            try:
                line, _, payload = bytes(body).decode().partition("\n")
                publisher, type = json.loads(line)
                if publisher != self._publisher:
                    hand_on(received_event([CONTROL_CHANNEL], type, payload))
            except MALFORMED as error:
                logger.debug("A delta of a job cannot be read: %r", error)
