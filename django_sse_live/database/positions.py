"""Positions: when this process gives some, and from which id on it looks for events that have none.

From the first one on, they must be given in the order of ids: an event that was inserted before another, and is
committed, comes before it. But while a transaction is open for an hour, PostgreSQL's index keeps an hour's entries of
events that have long had their position. So each process remembers up to which id everything is *settled*: whoever
could have taken such an id has committed or rolled back, and all that was committed has its position.
"""

from __future__ import annotations

import time
from random import random
from typing import Final

from .dialects.base import PENDING_SECONDS, Dialect, Status
from .session import Session

LOOK_AT_PENDING_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 1.0
LED_SECONDS: Final = 0.025
LED_BUSY_SECONDS: Final = 0.08  # who gives many at once rests longer
FOLLOW_SECONDS: Final = 0.015  # between two looks of who leaves it to another, to twice that; …
FOLLOW_BUSY_SECONDS: Final = 0.06  # … where there are so many events that the other has no reason to end
BUSY_PER_SECOND: Final = 250
RATE_SECONDS: Final = 0.05
LEADER_LOOKS: Final = 3
OTHERS_SECONDS: Final = 1.0
SETTLED_EVENTS: Final = 1_000  # fewer are not worth the question


class Positions:
    """Touched in the bus thread alone."""

    def __init__(self, dialect: Dialect) -> None:
        self.has_pending: bool = False  # SQLite: an event that is waited for
        self._dialect = dialect
        self._pending_since: dict[int, float] = {}  # id → monotonic
        self._look_at_pending_at = 0.0
        self._settled = 0
        self._candidate: tuple[int, frozenset[str]] | None = None  # an id, and who might have taken lower ones then
        self._settle_at = 0.0

        # Of several processes that commit events one gives the positions, as long as it goes on to find some; the
        # others look from time to time whether it does. All of this saves work alone: the lock is the stream's row's.
        self.again_at: float = float("inf")  # when to look again, though nobody has asked
        self.follows: bool = False  # as of the last look
        self.leaves_until: float = 0.0  # what this process commits before that is left to the other
        self.is_busy: bool = False  # events come faster than BUSY_PER_SECOND
        self._rate_head = 0  # RATE_SECONDS ago
        self._rate_at = 0.0
        self._leads = False
        self._looks_left = 0  # that may find nothing, until a leader is none
        self._head = 0  # that this process wrote last
        self._others_until = 0.0  # others are taken to give, too
        self._took = 0.0  # seconds, of giving

    def status(self, session: Session, after_id: int = 0) -> Status:
        """The stream's; made, where there is none."""
        while True:
            status = self._dialect.status(session, after_id)
            if status is not None:
                return status
            self._dialect.make_stream(session)

    def give(self, session: Session, *, is_asked: bool, is_due: bool) -> Status:
        """To what has none, and the status then. ``is_asked``: events have been committed just now; ``is_due``: it is
        time to look whether some were left without. Else the status alone."""
        now = time.monotonic()
        self.follows = False
        if is_asked or is_due:
            self.again_at = float("inf")
        if not self._dialect.gives_positions:
            found = self.status(session)
            self.has_pending = found.has_pending
            return found
        status: Status | None = None
        has_others = now < self._others_until
        if not is_asked or (has_others and not self._leads):
            status = self.status(session, self._settled)
            self.follows = has_others and status.head != self._head and status.age < self._led_ms
        if status is not None and not status.has_waiting:
            self._pending_since.clear()
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
    def _led_ms(self) -> float:
        """Positions that were given so long ago are those of a giver that is at work."""
        return 1000 * max(LED_BUSY_SECONDS if self.is_busy else LED_SECONDS, 4 * self._took)

    def _give(self, session: Session, now: float) -> Status:
        if now >= self._look_at_pending_at:
            self._look_at_pending_at = now + LOOK_AT_PENDING_SECONDS
            ids = self._dialect.pending(session, self._settled)
            self._pending_since = {id: self._pending_since.get(id, now) for id in ids}
        late = [id for id, since in self._pending_since.items() if since < now - PENDING_SECONDS]
        while (status := self._dialect.give(session, self._settled, late)) is None:
            self._dialect.make_stream(session)
        self._took += (time.monotonic() - now - self._took) / 4
        self._looks_left = LEADER_LOOKS if status.given_after is not None else self._looks_left - 1
        if status.given_after is not None:
            if status.given_after != self._head and self._head:
                self._others_until = now + OTHERS_SECONDS
                self._leads = random() < 0.5  # of two that both see the other, one steps back soon
            else:
                self._leads = True
            self._head = status.head
        elif self._looks_left <= 0:
            self._leads = False
        # Once more after the commit: who came meanwhile has found the lock taken, and relies on it. And again while
        # others leave their events to this process.
        if (status.given_after is not None and status.has_waiting) or (
            self._leads and self._looks_left > 0 and now < self._others_until
        ):
            self.again_at = now
        elif status.has_waiting and not status.has_pending:  # the lock is taken, by one that may have stopped
            self.again_at = now + FOLLOW_SECONDS * (1 + random())
        return status

    def _settle(self, session: Session, status: Status) -> None:
        dialect = self._dialect
        if status.last_id < self._settled:  # a flush has begun again with the ids
            self._settled, self._candidate = 0, None
        if self._candidate is None:
            if status.last_id > self._settled + SETTLED_EVENTS:
                writers = dialect.writers(
                    session
                )  # asked after the id: who has taken a lower one is among them, or done
                self._candidate = None if writers is None else (status.last_id, writers)
            return
        id, writers_then = self._candidate
        writers = dialect.writers(session)
        if writers is not None and writers_then.isdisjoint(writers):
            self._settled = dialect.settled(session, self._settled, id)
            self._candidate = None
