"""Buffer: events that wait for Redis; Recent: events that it has taken. Both have bounds, and neither is thread-safe:
the outbox's lock guards them.

In a full buffer, a control event takes the place of dropped events, and gives every client a reset. This package's own
control events, such as revocations, are not dropped.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Final, Literal

from ...events import LOST_EVENTS, Event, control_event

logger: logging.Logger = logging.getLogger("django_sse_live")

KEPT_CONTROL_EVENTS_MAX: Final = 1_000  # control events that a full buffer still keeps
RECENT_SECONDS: Final = 15.0  # longer than two masters can exist at once
RECENT_EVENTS_MAX: Final = 5_000
RECENT_BYTES_MAX: Final = 8 * 1024 * 1024

WhenFull = Literal["drop_oldest", "drop_newest"]


class Parcel:
    """An event on its way. It gets its number when it is first sent."""

    __slots__ = ("event", "number", "is_sent", "tries")

    def __init__(self, event: Event) -> None:
        self.event: Event = event
        self.number: int = 0
        self.is_sent: bool = False
        self.tries: int = 0  # to send a large one


class Buffer:
    """Events in order: first the control events kept from a full buffer, then the others."""

    def __init__(self, *, max_events: int, max_bytes: int, when_full: WhenFull) -> None:
        self.dropped: int = 0  # events dropped since the start
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._when_full = when_full
        self._kept: deque[Parcel] = deque()
        self._parcels: deque[Parcel] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept) + len(self._parcels)

    @property
    def is_half_full(self) -> bool:
        return len(self._parcels) > self._max_events // 2 or self._bytes > self._max_bytes // 2

    def put(self, parcel: Parcel) -> None:
        """Append an event. Beyond the bounds, something is dropped."""
        self._append(parcel)
        while len(self._parcels) > self._max_events or self._bytes > self._max_bytes:
            if self._drop_oldest() if self._when_full == "drop_oldest" else self._drop_newest():
                break

    def take(self) -> Parcel:
        return self._kept.popleft() if self._kept else self._pop()

    def _drop_oldest(self) -> bool:
        """Drop the oldest event. True if nothing more can be dropped."""
        marker = self._pop() if self._parcels[0].event.type == LOST_EVENTS else None
        oldest = self._pop()
        if oldest.event.is_control and len(self._kept) < KEPT_CONTROL_EVENTS_MAX:
            self._kept.append(oldest)
        else:
            self._count_dropped()
            marker = marker or lost_marker()
        if marker is not None:
            self._append(marker, at_front=True)
        return len(self._parcels) <= 2

    def _drop_newest(self) -> bool:
        newest = self._pop(at_front=False)
        if newest.event.is_control and len(self._parcels) < self._max_events + KEPT_CONTROL_EVENTS_MAX:
            self._append(newest)
            return True
        self._count_dropped()
        if not self._parcels or self._parcels[-1].event.type != LOST_EVENTS:
            self._append(lost_marker())
        return True

    def _append(self, parcel: Parcel, *, at_front: bool = False) -> None:
        (self._parcels.appendleft if at_front else self._parcels.append)(parcel)
        self._bytes += parcel.event.size

    def _pop(self, *, at_front: bool = True) -> Parcel:
        parcel = self._parcels.popleft() if at_front else self._parcels.pop()
        self._bytes -= parcel.event.size
        return parcel

    def _count_dropped(self) -> None:
        if not self.dropped:
            logger.error(
                "The buffer of broadcasts that wait for Redis is full (BUFFER_EVENTS %d, BUFFER_BYTES %d): events are "
                "given up (%s), and clients will be told by a reset.",
                self._max_events,
                self._max_bytes,
                self._when_full,
            )
        self.dropped += 1


def lost_marker() -> Parcel:
    return Parcel(control_event(LOST_EVENTS, {}))


class Recent:
    """What Redis has acknowledged lately, in case it loses some of it."""

    def __init__(self) -> None:
        self._parcels: deque[tuple[float, int, Parcel]] = deque()  # monotonic time, bytes; the oldest first
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._parcels)

    def add(self, parcel: Parcel, size: int) -> None:
        self._parcels.append((time.monotonic(), size, parcel))
        self._bytes += size

    def above(self, number: int) -> list[Parcel]:
        """The events with a greater number."""
        return [parcel for _, _, parcel in self._parcels if parcel.number > number]

    def clear(self) -> None:
        self._parcels.clear()
        self._bytes = 0

    def forget_old(self) -> bool:
        """Drop what is old or too much. False if nothing is left."""
        parcels, oldest = self._parcels, time.monotonic() - RECENT_SECONDS
        while parcels and (
            parcels[0][0] < oldest or len(parcels) > RECENT_EVENTS_MAX or self._bytes > RECENT_BYTES_MAX
        ):
            self._bytes -= parcels.popleft()[1]
        return bool(parcels)
