"""History: the events that a client missed and that its worker's log has evicted, read from the table by channel.

Many clients come back together after a long break: an answer serves others with the same channels for a moment.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final, NamedTuple

from ..events import Event
from .dialects.base import Dialect, Status
from .reader import Reader
from .rows import NUMBER_MASK, channel_key
from .session import Session

REPLAY_EVENTS: Final = 5_000  # one client is sent at most this many; beyond it a reset is cheaper
REPLAY_BYTES: Final = 4 * 1024 * 1024
KEPT_SECONDS: Final = 10.0  # an answer serves others this long
ANSWERS_KEPT_MAX: Final = 32


class _Answer(NamedTuple):
    epoch: str
    after: int  # the answer holds every event of the channels after this position of the table, …
    until: int
    events: list[Event]
    at: float  # monotonic


class History:
    """Touched in the bus thread alone."""

    def __init__(self, dialect: Dialect, reader: Reader) -> None:
        self._dialect = dialect
        self._reader = reader
        self._answers: OrderedDict[tuple[str, ...], _Answer] = OrderedDict()

    def read(
        self, epoch: str, channels: tuple[str, ...], after: int, until: int, session: Session, status: Status
    ) -> tuple[list[Event], int] | None:
        """The events of these channels after one position of the table up to another, and the position up to which they
        are complete. None if some are gone, or they are too many."""
        if self._reader.epoch_of(status) != epoch or after < status.trimmed:
            return None
        until = min(until, status.head)
        now = time.monotonic()
        answer = self._answers.get(channels)
        if (
            answer is None
            or answer.epoch != epoch
            or answer.at < now - KEPT_SECONDS
            or not (answer.after <= after and until <= answer.until)
        ):
            events = self._read(session, epoch, channels, after, until)
            if events is None:
                return None
            answer = _Answer(epoch, after, until, events, now)
            self._answers.pop(channels, None)
            self._answers[channels] = answer  # the newest last
            if len(self._answers) > ANSWERS_KEPT_MAX:
                self._answers.popitem(last=False)
        return [event for event in answer.events if after < event.position & NUMBER_MASK <= until], until

    def forget(self) -> None:
        """Drop the answers that serve nobody any more: together they may have a hundred megabytes."""
        before = time.monotonic() - KEPT_SECONDS
        while self._answers and next(iter(self._answers.values())).at < before:
            self._answers.popitem(last=False)

    def _read(
        self, session: Session, epoch: str, channels: tuple[str, ...], after: int, until: int
    ) -> list[Event] | None:
        keys = sorted(set(map(channel_key, channels)))
        found = self._dialect.of_channels(session, keys, after, until, REPLAY_EVENTS + 1, REPLAY_BYTES)
        if found is None:
            return None
        rows, has_lost = found
        if has_lost or len(rows) > REPLAY_EVENTS or sum(len(row.body) for row in rows) > REPLAY_BYTES:
            return None
        status = self._dialect.status(session)
        if status is None or after < status.trimmed:
            return None  # trimmed while it was read
        heard = frozenset(channels)
        decode = self._reader.decoder.decode
        events = [event for row in rows if (event := decode(row, epoch)) is not None]
        return [event for event in events if not event.is_control and not heard.isdisjoint(event.channels)]
