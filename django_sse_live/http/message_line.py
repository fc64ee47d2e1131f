"""The line of messages: MAX_RUNNING_MESSAGES run at a time, one of each sender. And the rate that a sender may send at.

A sender is only a key here.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

from ..conf import live_settings
from .line import Key, Line, Place
from .refusals import Refused

RATE_PER_SECOND: Final = 20
RATE_BURST: Final = 40
WAITING_PER_SENDER_MAX: Final = 40
WAITING_MAX: Final = 1024  # of all senders together, half of it of one address; each has at most 64 KiB


def _too_many(detail: str) -> Refused:
    return Refused(429, "too_many_messages", detail, {"Retry-After": "1"})


class MessageLine(Line):
    """The line of the messages of one loop: one message of each sender has a place, and few may wait."""

    def __init__(self) -> None:
        super().__init__(lambda: live_settings().max_running_messages)

    async def enter(self, address: str, sender: str = "") -> Place:
        """Wait for a place, behind earlier messages of the same sender. Raises Refused."""
        if not self.is_free(address, sender):
            of_sender = len(self._waiting.get((address, sender), ()))
            of_address = sum(len(turns) for (other, _), turns in self._waiting.items() if other == address)
            if (
                of_sender >= WAITING_PER_SENDER_MAX
                or of_address >= WAITING_MAX // 2
                or sum(map(len, self._waiting.values())) >= WAITING_MAX
            ):
                raise _too_many("Too many messages wait to be handled. Send fewer at once, or try again later.")
        return await super().enter(address, sender)

    def _has_room(self, key: Key) -> bool:
        return not self._held[key] and super()._has_room(key)


class MessageRate:
    """The rates of one process: each sender has a bucket of RATE_BURST, filled with RATE_PER_SECOND."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key → what was left, and when

    def take(self, key: str) -> None:
        """Take one from the sender's bucket. Raises Refused if it is empty."""
        now = time.monotonic()
        with self._lock:
            left, at = self._buckets.pop(key, (float(RATE_BURST), now))
            left = min(RATE_BURST, left + RATE_PER_SECOND * (now - at))
            self._buckets[key] = max(left - 1, 0.0) if left >= 1 else left, now
            # A sender that has been silent for this long has a full bucket again.
            full_before = now - RATE_BURST / RATE_PER_SECOND
            while next(iter(self._buckets.values()))[1] < full_before:
                self._buckets.popitem(last=False)
        if left < 1:
            raise _too_many(f"At most {RATE_PER_SECOND} messages a second are taken, and {RATE_BURST} at once.")
