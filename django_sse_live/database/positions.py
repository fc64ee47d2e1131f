"""Positions: when this process gives positions, and from which id on it looks for events without one.

Positions are given in the order of ids: of two committed events, the one that was inserted first comes first. A
transaction that stays open for an hour makes PostgreSQL's index keep the entries of that hour's events, long after they
got their position. So each process remembers up to which id everything is *settled*: the transactions that took such
ids are over, and every committed event has its position.
"""

from __future__ import annotations

import time
from random import random
from typing import Final

from .dialects.base import Dialect, Status
from .session import Session

PENDING_SECONDS: Final = 2.0  # pending events are sent as they were inserted if none is completed for this long, …
PENDING_SECONDS_MAX: Final = 10.0  # … and after this long in any case, since others wait behind them
LOOK_AT_PENDING_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 1.0
LEADER_FRESH_SECONDS: Final = 0.025  # positions younger than this are those of a leader at work
LEADER_FRESH_BUSY_SECONDS: Final = 0.08  # the same where events come fast
FOLLOW_SECONDS: Final = 0.015  # a follower's pause between two looks, at least; at most twice that
FOLLOW_BUSY_SECONDS: Final = 0.06  # the same where events come fast, and the leader has no reason to stop
BUSY_PER_SECOND: Final = 250
RATE_SECONDS: Final = 0.05
LEADER_EMPTY_LOOKS_MAX: Final = 3
OTHER_GIVERS_SECONDS: Final = 1.0
SETTLED_EVENTS_MIN: Final = 1_000  # a smaller span is not worth the query


class Positions:
    """Touched in the bus thread alone."""

    def __init__(self, dialect: Dialect) -> None:
        self.has_pending: bool = False  # SQLite: some event waits for its process to complete it
        self._dialect = dialect
        self._pending: list[int] = []  # ids, when they were last looked at
        self._first_pending = -1  # the first of them; on SQLite the event before it
        self._first_since = 0.0  # since when it is the first
        self._last_then = -1  # the last of them at that moment
        self._awaited = -1  # the last of those that are awaited …
        self._awaited_since = 0.0  # … since then
        self._look_at_pending_at = 0.0
        self._settled = -1  # -1: not known yet
        # An id, and the transactions that may have taken lower ones.
        self._candidate: tuple[int, frozenset[str]] | None = None
        self._settle_at = 0.0

        # Of several processes that commit events one leads: it gives positions as long as it finds some. The others
        # follow: they only look whether it does. This saves work, no more; the lock of the stream's row keeps the
        # order.
        self.again_at: float = float("inf")  # when to look again without being asked
        self.follows: bool = False  # whether this process followed at the last look
        self.leaves_until: float = 0.0  # events that this process commits before then are left to the leader
        self.is_busy: bool = False  # events come faster than BUSY_PER_SECOND
        self._rate_head = 0  # the head RATE_SECONDS ago
        self._rate_at = 0.0
        self._leads = False
        self._looks_left = 0  # a leader stops after this many looks that find nothing
        self._head = 0  # the last head that this process wrote
        self._others_until = 0.0  # until then, other processes are taken to give positions too
        self._took = 0.0  # average seconds that giving takes

    def status(self, session: Session) -> Status:
        """The stream's status. Makes the stream's row if it is missing."""
        while True:
            status = self._dialect.status(session, self._settled)
            if status is not None:
                return status
            self._dialect.make_stream(session)

    def give(self, session: Session, *, is_asked: bool, is_due: bool) -> Status:
        """Give positions if it is this process's turn. Returns the status after it. ``is_asked``: events were just
        committed; ``is_due``: it is time to look for events that were left without one."""
        now = time.monotonic()
        self.follows = False
        if is_asked or is_due:
            self.again_at = float("inf")
        if not self._dialect.gives_positions:
            found = self._whole(session, now)
            self.has_pending = found.has_pending
            return found
        status: Status | None = None
        has_others = now < self._others_until
        if not is_asked or (has_others and not self._leads):
            status = self.status(session)
            self.follows = has_others and status.head != self._head and status.age < self._leader_fresh_ms
        if status is not None and not status.has_waiting:
            self.again_at = float("inf")
        elif status is not None and (self.follows or not (is_asked or is_due)):
            if is_asked or is_due:
                self.again_at = now + self._follow_seconds
        else:
            status = self._give(session, now)
        self.leaves_until = now + self._follow_seconds if self.follows else 0.0
        self._measure(status, now)
        if now >= self._settle_at:
            self._settle_at = now + SETTLE_SECONDS
            self._settle(session, status)
        return status

    @property
    def _follow_seconds(self) -> float:
        return (FOLLOW_BUSY_SECONDS if self.is_busy else FOLLOW_SECONDS) * (1 + random())

    def _measure(self, status: Status, now: float) -> None:
        if now >= self._rate_at + RATE_SECONDS:
            self.is_busy = status.head - self._rate_head >= BUSY_PER_SECOND * (now - self._rate_at)
            self._rate_head, self._rate_at = status.head, now

    @property
    def _leader_fresh_ms(self) -> float:
        """A leader is at work if the last positions are younger than this."""
        return 1000 * max(LEADER_FRESH_BUSY_SECONDS if self.is_busy else LEADER_FRESH_SECONDS, 4 * self._took)

    def _give(self, session: Session, now: float) -> Status:
        if now >= self._look_at_pending_at:
            self._look_at_pending_at = now + LOOK_AT_PENDING_SECONDS
            self._pending = self._dialect.pending(session, self._settled)
        until = self._late_until(min(self._pending), max(self._pending), now) if self._pending else -1
        late = [id for id in self._pending if id <= until]
        while (status := self._dialect.give(session, self._settled, late)) is None:
            self._dialect.make_stream(session)
        self._took += (time.monotonic() - now - self._took) / 4
        self._looks_left = LEADER_EMPTY_LOOKS_MAX if status.given_after is not None else self._looks_left - 1
        if status.given_after is not None:
            if status.given_after != self._head and self._head:
                self._others_until = now + OTHER_GIVERS_SECONDS
                self._leads = random() < 0.5  # two leaders that see each other: one of them steps back soon
            else:
                self._leads = True
            self._head = status.head
        elif self._looks_left <= 0:
            self._leads = False
        # Look once more after the commit: processes that found the lock taken rely on it. Look again while others leave
        # their events to this process.
        if (status.given_after is not None and status.has_waiting) or (
            self._leads and self._looks_left > 0 and now < self._others_until
        ):
            self.again_at = now
        elif status.has_waiting and not status.has_pending:  # the lock is taken, by a process that may have stopped
            self.again_at = now + FOLLOW_SECONDS * (1 + random())
        return status

    def _late_until(self, first: int, last: int, now: float) -> int:
        """The last id whose process is no longer waited for; -1 if there is none. A process completes its events in the
        order of ids, which takes long where they are thousands: it is at work as long as the first one changes."""
        if first != self._first_pending:
            self._first_pending, self._first_since, self._last_then = first, now, last
        if first >= self._awaited:
            self._awaited, self._awaited_since = last, now
        if self._awaited_since < now - PENDING_SECONDS_MAX:
            return self._awaited
        return self._last_then if self._first_since < now - PENDING_SECONDS else -1

    def _whole(self, session: Session, now: float) -> Status:
        """SQLite: the status, with a head before the first pending event."""
        status = self.status(session)
        if status.last_id < self._settled:  # a flush has reset the ids
            self._settled = -1
        elif status.has_pending and (until := self._late_until(status.head, status.last_id, now)) >= 0:
            self._settled = until
            return self.status(session)
        self._settled = max(self._settled, status.head)
        return status

    def _settle(self, session: Session, status: Status) -> None:
        dialect = self._dialect
        if status.last_id < self._settled:  # a flush has reset the ids
            self._settled, self._candidate = 0, None
        if self._candidate is None:
            if status.last_id > self._settled + SETTLED_EVENTS_MIN:
                # Asked after the id: a transaction that took a lower one is among them, or over.
                writers = dialect.writers(session)
                self._candidate = None if writers is None else (status.last_id, writers)
            return
        id, writers_then = self._candidate
        writers = dialect.writers(session)
        if writers is not None and writers_then.isdisjoint(writers):
            self._settled = dialect.settled(session, self._settled, id)
            self._candidate = None
