"""EventLog: the events that a worker remembers, in order, within bounds.

It knows events and positions; clients are unknown here. It belongs to one loop (or one lock): it is not thread-safe.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Final

from ..conf import live_settings
from ..events import Event, format_id

READ_EVENTS: Final = 1_000  # one read returns at most this many
LANE_BYTES: Final = 400  # rough cost of a channel with events, without the events
SLICE_CHANNELS: Final = 64  # channels of one event that are added in one step
UNREAD_SECONDS: Final = 1.0  # clients that are up to date may not have read younger events yet
FORGET_SLICE_CHANNELS: Final = 5_000  # evicted channels that are forgotten in one step
EVICTED_CHANNELS_MAX: Final = 10_000  # channels whose last evicted position is kept by name; all others share one floor


class _Lane:
    """The events of one channel: two parallel lists, whose first ``start`` items are dropped."""

    __slots__ = ("positions", "events", "start")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.events: list[Event | None] = []
        self.start = 0

    def append(self, event: Event) -> None:
        self.positions.append(event.position)
        self.events.append(event)

    def drop_first(self) -> None:
        self.events[self.start] = None
        self.start += 1
        if self.start > 32 and self.start * 2 > len(self.positions):
            del self.positions[: self.start], self.events[: self.start]
            self.start = 0

    def after(self, position: int) -> list[Event]:
        first = bisect_right(self.positions, position, self.start)
        return self.events[first : first + READ_EVENTS]  # type: ignore[return-value]


class EventLog:
    """Ordered, and bounded by events, bytes and age (HISTORY_EVENTS, HISTORY_BYTES, HISTORY_SECONDS).

    A reader gives a position and channels, and gets the events after it. Evictions are known by channel, so that
    traffic on other channels causes no reset for the reader of a quiet one.
    """

    __slots__ = (
        "epoch", "head", "evicted_to", "bytes", "_lanes", "_order", "_evicted", "_floor", "_is_complete", "_clock",
    )  # fmt: skip

    def __init__(
        self, epoch: str, head: int = 0, *, complete: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self.restart(epoch, head, complete=complete)

    def restart(self, epoch: str, head: int, *, complete: bool = False) -> None:
        """Forget everything. A reader behind ``head`` has lost events; unless the log is ``complete``: then no event
        came before it, and a reader at 0 has lost none."""
        self.epoch: str = epoch
        self.head: int = head  # position of the newest event, or where the log began
        self._lanes: dict[str, _Lane] = {}
        self._order: deque[tuple[Event, float, int]] = deque()  # event, monotonic time of arrival, size
        self.bytes: int = 0
        self._evicted: dict[str, int] = {}  # channel -> last evicted position; in order of eviction
        self._floor = head  # the last evicted position of channels that are not in _evicted
        self._is_complete = complete  # nothing was evicted but what _evicted says
        self.evicted_to: int = self._floor  # no event after this position was evicted on any channel

    def copy(self) -> EventLog:
        """A log of the same event objects with bookkeeping of its own, for another owner."""
        twin = EventLog(self.epoch, self.head, clock=self._clock)
        for channel, lane in self._lanes.items():
            twin._lanes[channel] = twin_lane = _Lane()
            twin_lane.positions, twin_lane.events = lane.positions[lane.start :], lane.events[lane.start :]
        twin._order, twin.bytes = self._order.copy(), self.bytes
        twin._evicted, twin._floor, twin.evicted_to = self._evicted.copy(), self._floor, self.evicted_to
        twin._is_complete = self._is_complete
        return twin

    def __len__(self) -> int:
        return len(self._order)

    @property
    def head_id(self) -> str:
        return format_id(self.epoch, self.head)

    def append(self, event: Event) -> bool:
        """Append an event. False, without effect, if it is not newer than the head: it was seen before."""
        if event.position <= self.head:
            return False
        for _ in self.append_in_slices(event):
            pass
        return True

    def append_in_slices(self, event: Event) -> Iterator[None]:
        """Append an event that is newer than the head, some channels in each step: it may have ten thousand. The head
        moves last, and makes it readable. Nothing else may be appended meanwhile."""
        lanes = self._lanes
        made = 0
        for number, channel in enumerate(event.channels, 1):
            lane = lanes.get(channel)
            if lane is None:
                lane = lanes[channel] = _Lane()
                made += 1
            lane.append(event)
            if not number % SLICE_CHANNELS:
                yield
        size = event.size
        self._order.append((event, self._clock(), size))
        self.bytes += size + made * LANE_BYTES
        self.head = event.position

    def skip_to(self, position: int) -> None:
        """Move the head past something that clients do not get."""
        self.head = max(self.head, position)

    def last_position(self, channel: str) -> int:
        """Position of the newest readable event of a channel; 0 if there is none."""
        lane = self._lanes.get(channel)
        return lane.positions[-1] if lane is not None else 0

    def with_news(self, channels: Iterable[str], after: int) -> tuple[str, ...]:
        """The channels that have events after the position."""
        lanes = self._lanes
        return tuple(
            [name for name in channels if (lane := lanes.get(name)) is not None and lane.positions[-1] > after]
        )

    def lost(self, channels: Iterable[str], after: int) -> bool:
        """Whether an event of these channels after the position was evicted."""
        if after >= self.evicted_to:
            return False
        evicted, floor = self._evicted, self._floor
        if not after and self._is_complete:
            floor = 0
        return any(after < evicted.get(channel, floor) for channel in channels)

    def count(self, channels: Iterable[str], after: int) -> int:
        """The number of events of these channels after the position, each counted once."""
        found = [
            lane.positions[bisect_right(lane.positions, after, lane.start) :]
            for channel in channels
            if (lane := self._lanes.get(channel)) is not None and lane.positions[-1] > after
        ]
        return len(found[0]) if len(found) == 1 else len(set().union(*found))

    def newest(self, channels: Iterable[str], up_to: int) -> Event | None:
        """The last readable event of these channels up to the position."""
        found: Event | None = None
        for channel in channels:
            lane = self._lanes.get(channel)
            if lane is not None:
                at = bisect_right(lane.positions, up_to, lane.start) - 1
                if at >= lane.start and (found is None or lane.positions[at] > found.position):
                    found = lane.events[at]
        return found

    def read(self, channels: Iterable[str], after: int) -> list[Event]:
        """The first events of these channels after the position, in order, each once; at most READ_EVENTS."""
        lanes = [
            lane
            for channel in channels
            if (lane := self._lanes.get(channel)) is not None and lane.positions[-1] > after
        ]
        if not lanes:
            return []
        if len(lanes) == 1:
            events = lanes[0].after(after)
        else:
            parts = [lane.after(after) for lane in lanes]
            if sum(map(len, parts)) > 2 * READ_EVENTS:
                # Sorted no further than is given: who hears fifty channels reads on and on.
                parts = [list(islice(merge(*parts, key=attrgetter("position")), READ_EVENTS))]
            merged = {event.position: event for part in parts for event in part}
            events = [merged[position] for position in sorted(merged)[:READ_EVENTS]]
        if events and events[-1].position > self.head:  # one that is being appended
            events.pop()
        return events

    def evict(self, slack: int = 1) -> None:
        """Drop events beyond the bounds. With ``slack`` 2, only those beyond twice the bounds and older than
        UNREAD_SECONDS, which leaves room for unread events. The newest of those is always kept."""
        settings = live_settings()
        max_events, max_bytes = slack * settings.history_events, slack * settings.history_bytes
        kept, seconds = 0, settings.history_seconds
        if slack > 1:
            kept, seconds = 1, max(slack * seconds, UNREAD_SECONDS)
        order = self._order
        while len(order) > kept and (len(order) > max_events or self.bytes > max_bytes):
            self._evict_first()
        oldest = self._clock() - seconds
        while len(order) > kept and order[0][1] < oldest:
            self._evict_first()

    def _evict_first(self) -> None:
        event, _, size = self._order.popleft()
        self.bytes -= size
        self.evicted_to = event.position
        for channel in event.channels:
            lane = self._lanes[channel]
            lane.drop_first()
            if lane.start == len(lane.positions):
                del self._lanes[channel]
                self.bytes -= LANE_BYTES
            self._evicted.pop(channel, None)
            self._evicted[channel] = event.position

    @property
    def must_forget(self) -> bool:
        """Whether forget() is due. Readers that are up to date should be moved to the head first."""
        return len(self._evicted) > EVICTED_CHANNELS_MAX + FORGET_SLICE_CHANNELS

    def forget(self, up_to: int) -> None:
        """Forget by channel what was evicted longest ago, up to that position: the floor rises."""
        evicted = self._evicted
        while len(evicted) > EVICTED_CHANNELS_MAX and evicted[channel := next(iter(evicted))] <= up_to:
            self._floor = evicted.pop(channel)
            self._is_complete = False

    def is_about_to_evict(self, position: int) -> bool:
        """Whether events after that position are among the next to be evicted, and the bounds are near."""
        order = self._order
        if not order or position >= order[len(order) // 8][0].position:
            return False
        settings = live_settings()
        return (
            len(order) > 0.75 * settings.history_events
            or self.bytes > 0.75 * settings.history_bytes
            or order[0][1] < self._clock() - 0.75 * settings.history_seconds
        )
