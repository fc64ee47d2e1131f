"""Recent: what Redis has acknowledged lately, in case it loses some of it.

Not thread-safe: the outbox's lock guards it.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from .buffer import Parcel

RECENT_SECONDS: Final = 15.0  # longer than two masters can exist at once
RECENT_EVENTS_MAX: Final = 5_000
RECENT_BYTES_MAX: Final = 8 * 1024 * 1024


class Recent:
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
