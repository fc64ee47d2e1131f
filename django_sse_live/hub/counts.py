"""Counts: what a hub has done so far, in plain ints, so that counting costs almost nothing.

Written on the hub's loop alone; read from any thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

LATENCY_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# The names in Counts: plain ints, and counters by a word.
SUMS: Final = (
    "opened", "published", "received", "delivered", "replayed", "heartbeats", "bytes", "signals_dropped", "messages",
    "tickets",
)  # fmt: skip
BY_REASON: Final = ("closed", "refused", "resets", "answers", "messages_refused", "tickets_refused")


class Latency:
    """A histogram and its sum. For each bound of LATENCY_SECONDS: the number of observations above the bound before and
    up to this one; last, those above all bounds."""

    __slots__ = ("counts", "sums")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(LATENCY_SECONDS) + 1)
        self.sums: list[float] = [0.0] * (len(LATENCY_SECONDS) + 1)

    def observe(self, seconds: float) -> None:
        bucket = bisect_left(LATENCY_SECONDS, seconds)
        self.counts[bucket] += 1
        self.sums[bucket] += seconds

    def add(self, other: Latency) -> None:
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.sums = [mine + more for mine, more in zip(self.sums, other.sums, strict=True)]


class Counts:
    """All numbers only grow."""

    __slots__ = (*SUMS, *BY_REASON, "latency", "message_seconds")

    def __init__(self) -> None:
        self.opened: int = 0  # streams
        self.closed: Counter[str] = Counter()  # streams, by CloseReason
        self.refused: Counter[str] = Counter()  # requests for a stream, by CloseReason or Refused.error
        self.tickets: int = 0  # streams let in by their ticket
        self.tickets_refused: Counter[str] = Counter()  # useless tickets, by reason; Django checked their requests
        self.published: int = 0  # events that this process handed to the bus; counted by the registry
        self.received: int = 0  # events that the bus handed to the hub
        self.delivered: int = 0  # events handed to the server, once for each stream; replayed ones included
        self.replayed: int = 0  # of these, events from before their stream was opened
        self.resets: Counter[str] = Counter()  # streams that got a reset, by reason
        self.heartbeats: int = 0
        self.bytes: int = 0  # of the bodies of all streams, as handed to the server
        self.signals_dropped: int = 0  # signals dropped because receivers are too slow
        self.messages: int = 0  # sent by browsers
        self.answers: Counter[str] = Counter()  # of handlers, by status
        self.messages_refused: Counter[str] = Counter()  # messages that no handler got, by Refused.error
        self.message_seconds: Latency = Latency()  # running time of handlers
        # From the time in an event's id until the server has it for every waiting client. Measured for the oldest event
        # of each fan-out of a channel.
        self.latency: Latency = Latency()

    def add(self, other: Counts) -> None:
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in BY_REASON:
            getattr(self, name).update(dict(getattr(other, name)))  # copied first: the hub may be counting
        self.latency.add(other.latency)
        self.message_seconds.add(other.message_seconds)
