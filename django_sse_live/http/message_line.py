"""The line of messages: which of them run, MAX_RUNNING_MESSAGES at a time and one of each sender; and how many a sender
may send.

Knows senders by a key alone.
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
WAITING_MAX: Final = 1024  # of all senders together: 64 KiB each at the most

Sender = tuple[str, str]  # the sender's key and address

_Turns = deque["asyncio.Future[None]"]


def _too_many(detail: str) -> Refused:
    return Refused(429, "too_many_messages", detail, {"Retry-After": "1"})


class MessageLine:
    """Of one loop, and touched on it alone. No address holds more than half of the places, where another waits: it may
    take one more only while at least as many are free as it holds."""

    def __init__(self) -> None:
        self._running: set[Sender] = set()
        self._held: Counter[str] = Counter()  # places, by address
        self._waiting: OrderedDict[Sender, _Turns] = OrderedDict()  # the next one first
        self._count = 0  # of those that wait

    async def enter(self, sender: Sender) -> None:
        """Wait for a place, behind what the same sender has sent before. Raises Refused."""
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
                self._waiting[other] = turns  # behind the others
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
    """Of one process: a bucket for each sender, which holds RATE_BURST and is filled with RATE_PER_SECOND."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key → what was in it, and when

    def take(self, key: str) -> None:
        """Raises Refused for a sender whose bucket is empty."""
        now = time.monotonic()
        with self._lock:
            left, at = self._buckets.pop(key, (float(RATE_BURST), now))
            left = min(RATE_BURST, left + RATE_PER_SECOND * (now - at))
            self._buckets[key] = max(left - 1, 0.0) if left >= 1 else left, now
            # Who has sent nothing for so long has a full one again.
            full_before = now - RATE_BURST / RATE_PER_SECOND
            while next(iter(self._buckets.values()))[1] < full_before:
                self._buckets.popitem(last=False)
        if left < 1:
            raise _too_many(f"At most {RATE_PER_SECOND} messages a second are taken, and {RATE_BURST} at once.")
