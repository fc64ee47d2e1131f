"""Counts: what a hub has done so far, in plain ints, so that counting costs a delivered event next to nothing.

Written on the hub's loop alone; read from any thread. Nothing here knows who reads it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

LATENCY_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# The names of Counts: of its ints, and of what is counted by a word besides.
SUMS: Final = (
    "opened", "published", "received", "delivered", "replayed", "heartbeats", "bytes", "signals_dropped", "messages",
    "tickets",
)  # fmt: skip
BY_REASON: Final = ("closed", "refused", "resets", "answers", "messages_refused", "tickets_refused")


class Latency:
    """A histogram: for each bound of LATENCY_SECONDS, how many observations were at most that, and more than the bound
    before it; the last is for those above them all. And their sums."""

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
    """Everything only grows."""

    __slots__ = (*SUMS, *BY_REASON, "latency", "message_seconds")

    def __init__(self) -> None:
        self.opened: int = 0  # streams
        self.closed: Counter[str] = Counter()  # streams, by CloseReason
        self.refused: Counter[str] = Counter()  # requests for a stream, by CloseReason or Refused.error
        self.tickets: int = 0  # streams that were let in by their ticket
        self.tickets_refused: Counter[str] = Counter()  # tickets that were of no use, by reason: Django was asked
        self.published: int = 0  # events that this process has handed to the bus; counted by the registry
        self.received: int = 0  # events that the bus has handed to the hub
        self.delivered: int = 0  # events handed to the server, once for each stream; replayed ones included
        self.replayed: int = 0  # of these, events from before their stream was opened
        self.resets: Counter[str] = Counter()  # streams told that they have missed events, by reason
        self.heartbeats: int = 0
        self.bytes: int = 0  # of the bodies of all streams, as handed to the server
        self.signals_dropped: int = 0  # signals that were not sent, since their receivers are too slow
        self.messages: int = 0  # that browsers have sent
        self.answers: Counter[str] = Counter()  # what their handlers answered, by status
        self.messages_refused: Counter[str] = Counter()  # messages that were given to no handler, by Refused.error
        self.message_seconds: Latency = Latency()  # how long handlers ran
        # From the moment in an event's id to when the server had been handed it for every client that was waiting for
        # it: the oldest event of each fan-out of a channel.
        self.latency: Latency = Latency()

    def add(self, other: Counts) -> None:
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in BY_REASON:
            getattr(self, name).update(dict(getattr(other, name)))  # a copy first: its hub may be counting
        self.latency.add(other.latency)
        self.message_seconds.add(other.message_seconds)
