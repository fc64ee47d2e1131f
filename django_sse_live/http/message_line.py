"""The line of messages: MAX_RUNNING_MESSAGES run at a time, one of each sender. And the rate that a sender may send at.

A sender is only a key here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, OrderedDict, deque
from typing import Final

from ..conf import live_settings
from .refusals import Refused

RATE_PER_SECOND: Final = 20
RATE_BURST: Final = 40
WAITING_PER_SENDER_MAX: Final = 40
WAITING_MAX: Final = 1024  # of all senders together; each has at most 64 KiB

Sender = tuple[str, str]  # the sender's key and address

_Turns = deque["asyncio.Future[None]"]


def _too_many(detail: str) -> Refused:
    return Refused(429, "too_many_messages", detail, {"Retry-After": "1"})


class MessageLine:
    """The line of one loop, touched on it alone. While other addresses wait, no address gets more than half of the
    places: it may take another only if at least as many are free as it holds."""

    def __init__(self) -> None:
        self._running: set[Sender] = set()
        self._held: Counter[str] = Counter()  # places by address
        self._waiting: OrderedDict[Sender, _Turns] = OrderedDict()  # the next sender first
        self._count = 0  # waiting messages

    async def enter(self, sender: Sender) -> None:
        """Wait for a place, behind earlier messages of the same sender. Raises Refused."""
        if self.is_free(sender):
            self._take(sender)
            return
        turns = self._waiting.setdefault(sender, deque())
        if len(turns) >= WAITING_PER_SENDER_MAX or self._count >= WAITING_MAX:
            if not turns:
                del self._waiting[sender]
            raise _too_many("Too many messages wait to be handled. Send fewer at once, or try again later.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turns.append(turn)
        self._count += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(sender)
            raise

    def is_free(self, sender: Sender) -> bool:
        """Whether enter() would not wait."""
        return sender not in self._waiting and self._has_room(sender)

    def leave(self, sender: Sender) -> None:
        """Give the place back."""
        self._running.discard(sender)
        self._held[sender[1]] -= 1
        if not self._held[sender[1]]:
            del self._held[sender[1]]
        while (other := next(filter(self._has_room, self._waiting), None)) is not None:
            turns = self._waiting.pop(other)
            turn = turns.popleft()
            self._count -= 1
            if turns:
                self._waiting[other] = turns  # behind the other senders
            if not turn.done():
                self._take(other)
                turn.set_result(None)

    def _has_room(self, sender: Sender) -> bool:
        free = live_settings().max_running_messages - len(self._running)
        return free > 0 and sender not in self._running and self._held[sender[1]] <= free

    def _take(self, sender: Sender) -> None:
        self._running.add(sender)
        self._held[sender[1]] += 1


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
