"""Parcels: the events of publish() on their way into the table, in order and bounded.

They wait here while the database is away. After a broken INSERT the table is searched first, so that no event is
inserted twice.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from concurrent.futures import Future
from typing import Final

from django.db import DataError

from ..events import LOST_EVENTS, Event, control_event
from .dialects.base import Dialect
from .rows import NewRow, encode_row
from .session import Session

logger: logging.Logger = logging.getLogger("django_sse_live")

BUFFER_EVENTS: Final = 10_000
BUFFER_BYTES: Final = 16 * 1024 * 1024
BATCH_EVENTS: Final = 100  # in one transaction, …
BATCH_BYTES: Final = 1024 * 1024  # … as far as they fit in here
LARGE_BYTES: Final = 512 * 1024  # only a larger event may be what broke its INSERT
BREAKS_MAX: Final = 5  # of the INSERT of such an event, before it is given up: the others wait behind it


class _Parcel:
    __slots__ = ("row", "size", "is_control", "future", "breaks")

    def __init__(self, event: Event, token: str) -> None:
        self.row: NewRow = encode_row(event, token)
        self.size: int = len(self.row.body)
        self.is_control: bool = event.is_control
        self.future: Future[None] = Future()
        self.breaks: int = 0  # of its INSERT

    def settle(self) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(None)


class Parcels:
    """add() from any thread; insert() in the bus thread."""

    def __init__(self, dialect: Dialect) -> None:
        self.dropped: int = 0  # events dropped since the start
        self.last_id: int = 0  # the greatest id known to be committed
        self._dialect = dialect
        self._publisher = secrets.token_hex(6)  # with a number: a token that no two rows share
        self._number = 0
        self._lock = threading.RLock()  # guards what follows; no foreign code runs under it
        self._waiting: deque[_Parcel] = deque()
        self._bytes = 0
        self._has_dropped = False

        self._max_bytes = 0  # of a row's body; 0: not known yet
        self._uncertain: list[_Parcel] = []  # parcels whose INSERT may or may not have been committed
        self._uncertain_after = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._uncertain)

    def add(self, event: Event) -> Future[None]:
        """Queue an event. The future is done once it is inserted, cancelled if it is dropped."""
        with self._lock:
            self._number += 1
            parcel = _Parcel(event, f"{self._publisher}.{self._number}")
            self._waiting.append(parcel)
            self._bytes += parcel.size
            while len(self._waiting) > BUFFER_EVENTS or self._bytes > BUFFER_BYTES:
                if not self._drop_first():
                    break
        return parcel.future

    def _drop_first(self) -> bool:
        """Drop the oldest event that is not a control event. False if there is none."""
        for parcel in self._waiting:
            if not parcel.is_control:
                self._waiting.remove(parcel)
                self._bytes -= parcel.size
                self.dropped += 1
                self._has_dropped = True
                parcel.future.cancel()
                return True
        return False

    def begin(self) -> None:
        """Start over with a new connection, whose server may take less."""
        self._max_bytes = 0

    def insert(self, session: Session) -> bool:
        """Insert everything that waits. True if there was anything."""
        if not len(self):
            return False
        if not self._max_bytes:
            with session.cursor() as cursor:
                self._max_bytes = self._dialect.body_max_bytes(cursor)
        self._settle_uncertain(session)
        has_inserted = False
        while batch := self._take_batch():
            batch = [parcel for parcel in batch if self._fits(parcel)]
            self._uncertain, self._uncertain_after = batch, self.last_id
            ids = self._insert(session, batch) if batch else []
            self._uncertain = []
            for parcel in batch:
                parcel.settle()
            self.last_id = max([self.last_id, *ids])
            has_inserted = True
        return has_inserted

    def _take_batch(self) -> list[_Parcel]:
        with self._lock:
            batch: list[_Parcel] = []
            size = 0
            while self._waiting and len(batch) < BATCH_EVENTS and size < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                size += batch[-1].size
            self._bytes -= size
            if batch and self._has_dropped:
                self._has_dropped = False
                batch.insert(0, _Parcel(control_event(LOST_EVENTS, {}), secrets.token_hex(8)))
        return batch

    def _fits(self, parcel: _Parcel) -> bool:
        """False, and the event is lost, if the database does not take it. MySQL ends the connection over such an
        INSERT, and nothing would tell that from an outage, after which it is tried again."""
        if parcel.size <= self._max_bytes:
            return True
        self.dropped += 1
        logger.error("The database does not take an SSE event of %d bytes; it is lost.", parcel.size)
        parcel.settle()
        return False

    def _insert(self, session: Session, batch: list[_Parcel]) -> list[int]:
        try:
            with session.transaction(self._dialect.begin), session.cursor() as cursor:
                return self._dialect.insert(cursor, [parcel.row for parcel in batch])
        except DataError:
            if len(batch) > 1:  # one of them is too large for the database: the others must not wait for it
                return [id for parcel in batch for id in self._insert(session, [parcel])]
            self.dropped += 1
            logger.exception("The database does not take an SSE event of %d bytes; it is lost.", batch[0].size)
            return []

    def _settle_uncertain(self, session: Session) -> None:
        """After a broken INSERT: queue again what the table does not have, the last one first. They are searched for
        one by one: together they may be more than a server takes in one statement."""
        while self._uncertain:
            parcel = self._uncertain[-1]
            parcel.breaks += 1
            if parcel.breaks > BREAKS_MAX and parcel.size > LARGE_BYTES:
                self._give_up(parcel)
            elif parcel.size <= self._max_bytes and self._dialect.is_inserted(
                session, parcel.row.body, self._uncertain_after
            ):
                parcel.settle()
            else:
                with self._lock:
                    self._waiting.appendleft(parcel)
                    self._bytes += parcel.size
            self._uncertain.pop()

    def _give_up(self, parcel: _Parcel) -> None:
        """What lies between may take less than the server, and ends the connection over each INSERT."""
        with self._lock:
            self.dropped += 1
            self._has_dropped = True
        logger.error(
            "%d times the connection has ended over the INSERT of an SSE event of %d bytes: the event is lost, and "
            "clients will be told by a reset.",
            BREAKS_MAX,
            parcel.size,
        )
        parcel.settle()
