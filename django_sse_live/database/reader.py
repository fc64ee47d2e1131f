"""Reader: hands the rows of the table to the hubs of this process, each event once, in the order of positions."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from ..conf import live_settings
from ..events import ENDS, LOST_EVENTS, Event, format_id, make_position
from ..hub.hub import Hub
from ..hub.log import EventLog
from ..hub.recent_ends import Revocations, kept_milliseconds
from .dialects.base import READ_AT_ONCE, Dialect, Status
from .rows import CONTROL_KEY, Decoder, Row
from .session import Session

logger: logging.Logger = logging.getLogger("django_sse_live")

CONTROL_EVENTS_MAX: Final = 20_000  # read for the tickets of a new worker; it refuses older tickets


class Reader:
    """Touched in the bus thread alone, except ``known_id``, hand_on() and stamp()."""

    def __init__(self, dialect: Dialect) -> None:
        self.known_id: str | None = None  # the hubs were handed every event up to it; None without hubs
        self.hubs: list[Hub] = []  # those that get events
        self.number: int = 0  # the last position read, as the table has it
        self.identity: str = ""  # of the server
        self.stored_epoch: str = ""  # of the stream's row
        self.told: int = 0  # the head that other processes were last told
        self.decoder: Decoder = Decoder()
        self._dialect = dialect
        self._epoch = ""  # of the hubs' ids: the row's and the server's as one
        self._position = 0  # of the last event read, with its time
        self._is_known = False  # whether this connection is known to lead to where that event is

    def epoch_of(self, status: Status) -> str:
        """One epoch made of the stream's and the server's."""
        text = f"{status.epoch}\0{self.identity}"
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def id_of(self, status: Status) -> str:
        return format_id(self.epoch_of(status), make_position(status.milliseconds, status.head))

    def begin(self, session: Session) -> None:
        """Start over with a new connection, which may lead to another server or file."""
        self.identity = self._dialect.identity(session)
        self._is_known = False

    def hand_on(self, event: Event) -> None:
        """Hand every hub an event without a position. From any thread."""
        for hub in self.hubs:
            hub.deliver_if_open(event)

    def stamp(self, event: Event, position: int) -> None:
        """Give an event its id, as the hubs have ids. From any thread."""
        event.stamp(self._epoch, position)

    def forget_closed(self) -> None:
        """Drop the hubs whose loops are closed."""
        if any(hub.loop.is_closed() for hub in self.hubs):
            self.hubs = [hub for hub in self.hubs if not hub.loop.is_closed()]
            if not self.hubs:
                self.known_id = None

    def look(self, session: Session, status: Status) -> Status:
        """Read the new events. Clients get a reset if the stream or the server is another one, was restored to an
        earlier state, or has trimmed unread events."""
        if self.epoch_of(status) == self._epoch and self._has_gone_back(session, status):
            logger.info("The SSE stream in the database has gone back: every client is told by a reset.")
            self._dialect.begin_epoch(session, status.epoch)
            status = self._dialect.status(session) or status
        if self.epoch_of(status) != self._epoch or status.trimmed > self.number:
            logger.info("The SSE stream in the database does not go on where it was: every client is told by a reset.")
            self._begin(session, status, self.hubs, self._position)
            return status
        while self.number < status.head:
            rows = self._dialect.after(session, self.number, status.head)
            if len(rows) < min(READ_AT_ONCE, status.head - self.number):
                now = self._dialect.status(session) or status
                if now.trimmed > self.number:  # trimmed since then, while this process stood still
                    return self.look(session, now)
            self._hand_on(rows)
            if len(rows) < READ_AT_ONCE:
                break
        self.number = max(self.number, status.head)
        return status

    def _has_gone_back(self, session: Session, status: Status) -> bool:
        """Whether events that were read are not there: in a backup, or in a replica that was behind. Others may be in
        their place by now, but with other times."""
        if self._is_known or status.head < self.number:
            return status.head < self.number
        self._is_known = True
        return any(row.position != self._position for row in self._dialect.after(session, self.number - 1, self.number))

    def read_to(self, session: Session, number: int) -> bool:
        """Read the new events up to a head that another process told. False, and nothing is handed on, if rows are
        missing: positions have no gaps, so the rows are complete if they are as many as the numbers."""
        if not self.hubs or not 0 < number - self.number <= READ_AT_ONCE:
            return False
        rows = self._dialect.after(session, self.number, number)
        if len(rows) < number - self.number:
            return False
        self._hand_on(rows)
        return True

    def _hand_on(self, rows: Sequence[Row]) -> None:
        # All rows are decoded before the first event wakes a loop: that loop would compete with this thread for the
        # GIL.
        events = [event for row in rows if (event := self.decoder.decode(row, self._epoch)) is not None]
        for hub in self.hubs:
            for event in events:
                hub.deliver_if_open(event)
        for last in rows[-1:]:
            self.number, self._position = last.number, last.position
            self.known_id = format_id(self._epoch, last.position)

    # First fill, and each new epoch

    def fill(self, session: Session, status: Status, hubs: Collection[Hub]) -> None:
        """Give new hubs their log. From here on they get events."""
        if hubs:
            if self.hubs and self.epoch_of(status) == self._epoch:
                self._fill(session, status, hubs, None)
            else:
                self._begin(session, status, [*self.hubs, *hubs], None)
            self.hubs = [*self.hubs, *(hub for hub in hubs if hub not in self.hubs)]

    def _begin(self, session: Session, status: Status, hubs: Collection[Hub], before: int | None) -> None:
        # After a restore the time of the last event may not be that of the stream's row.
        last = self._dialect.after(session, status.head - 1, status.head)
        number, position = status.head, make_position(status.milliseconds, status.head)
        self.number, self._epoch, self.stored_epoch = number, self.epoch_of(status), status.epoch
        self.told = max(self.told, number)
        try:
            self._fill(session, status, hubs, before)
        except BaseException:
            self._epoch = ""  # the hubs do not know yet: the next look begins anew
            raise
        self._position = last[0].position if last else position
        self.known_id = format_id(self._epoch, position)

    def _fill(self, session: Session, status: Status, hubs: Collection[Hub], before: int | None) -> None:
        """Give hubs a log. ``before``: hubs that already ran obey the control events after this position, in whatever
        epoch that was: positions begin with the time. None: new hubs obey none, since those in the table are long
        past."""
        revocations, now = None, 0
        if any(hub.keeps_history for hub in hubs):
            rows, floor, is_complete = self._read_tail(session, status)
            revocations, now = self._read_revocations(session, status), self._dialect.now(session)
        else:
            rows, floor, is_complete = [], make_position(status.milliseconds, self.number), False
        events = [event for row in rows if (event := self.decoder.decode(row, self._epoch)) is not None]
        late: list[Event] = []
        if before is not None:
            late = [event for event in events if _is_obeyed(event) and event.position > before]
        for hub in hubs:
            log = EventLog(self._epoch, floor, complete=is_complete)
            for event in events:
                if not event.is_control:
                    log.append(event)
                elif event.type == LOST_EVENTS:
                    log.restart(self._epoch, event.position)
            head = make_position(status.milliseconds, self.number)
            log.skip_to(rows[-1].position if rows else head)
            known = None if revocations is None else revocations.copy()
            hub.set_clock(now)
            hub.deliver_if_open(partial(hub.adopt, log, known))
            for event in late:
                hub.deliver_if_open(event)

    def _read_revocations(self, session: Session, status: Status) -> Revocations:
        """The revocations of the last day, or as far back as tickets live: the control events, found by their channel.
        Each was committed with what caused it, so they need no other store."""
        oldest = self._dialect.now(session) - kept_milliseconds()
        since = 0
        if status.trimmed:
            rows = self._dialect.after(session, status.trimmed, self.number)
            since = make_position(rows[0].milliseconds if rows else status.milliseconds, status.trimmed)
        found: list[tuple[int, Any]] = []
        for row in self._dialect.newest_of_channel(session, CONTROL_KEY, self.number, CONTROL_EVENTS_MAX + 1):
            if len(found) == CONTROL_EVENTS_MAX or row.milliseconds < oldest:
                since = row.position
                break
            event = self.decoder.decode(row, self._epoch)
            if event is not None and event.type in ENDS:
                found.append((event.position, event.data))
        return Revocations(since, found)

    def _read_tail(self, session: Session, status: Status) -> tuple[list[Row], int, bool]:
        """The newest rows that were read, oldest first; a position after which they are complete; whether nothing was
        ever before them."""
        settings = live_settings()
        rows: list[Row] = []  # newest first
        size, number = 0, self.number
        oldest = self._dialect.now(session) - int(settings.history_seconds * 1000)
        while True:
            chunk = self._dialect.before(session, number)
            for row in chunk:
                size += 2 * len(row.body) + 512
                is_full = len(rows) >= settings.history_events or size > settings.history_bytes
                if is_full or row.milliseconds < oldest:
                    return rows[::-1], row.position, False
                rows.append(row)
            if len(chunk) < READ_AT_ONCE:
                break
            number = chunk[-1].number - 1
        if status.trimmed == 0:
            return rows[::-1], rows[-1].position - 1 if rows else 0, True
        if not rows:
            return [], make_position(status.milliseconds, self.number), False
        return rows[::-1], rows[-1].position - 1, False


def _is_obeyed(event: Event) -> bool:
    return event.is_control and not event.is_of_now
