"""Counts: what a hub has done so far, in plain ints, so that counting costs almost nothing.

Written on the hub's loop alone; read from any thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Final

LATENCY_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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


@dataclass(slots=True, eq=False)
class Counts:
    """All numbers only grow."""

    opened: int = 0  # streams
    closed: Counter[str] = field(default_factory=Counter)  # streams, by CloseReason
    refused: Counter[str] = field(default_factory=Counter)  # requests for a stream, by CloseReason or Refused.error
    tickets: int = 0  # streams let in by their ticket
    tickets_refused: Counter[str] = field(default_factory=Counter)  # useless tickets, by reason; Django was asked
    published: int = 0  # events that this process handed to the bus; counted by the registry
    received: int = 0  # events that the bus handed to the hub
    delivered: int = 0  # events handed to the server, once for each stream; replayed ones included
    replayed: int = 0  # of these, events from before their stream was opened
    resets: Counter[str] = field(default_factory=Counter)  # streams that got a reset, by reason
    heartbeats: int = 0
    bytes: int = 0  # of the bodies of all streams, as handed to the server
    signals_dropped: int = 0  # signals dropped because receivers are too slow
    messages: int = 0  # sent by browsers
    answers: Counter[str] = field(default_factory=Counter)  # of handlers, by status
    messages_refused: Counter[str] = field(default_factory=Counter)  # messages that no handler got, by Refused.error
    message_seconds: Latency = field(default_factory=Latency)  # running time of handlers
    # From the time in an event's id until the server has it for every waiting client. Measured for the oldest event
    # of each fan-out of a channel.
    latency: Latency = field(default_factory=Latency)

    def add(self, other: Counts) -> None:
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in BY_REASON:
            getattr(self, name).update(dict(getattr(other, name)))  # copied first: the hub may be counting
        self.latency.add(other.latency)
        self.message_seconds.add(other.message_seconds)


# The names of the plain ints, and of the counters by a word.
SUMS: Final = tuple(each.name for each in fields(Counts) if each.default == 0)
BY_REASON: Final = tuple(each.name for each in fields(Counts) if each.default_factory is Counter)
