"""Line: lets MAX_OPENING requests at a time open a stream. Messages, and pages that refresh, have a line of their own.

While Django handles the request, an opening stream takes a thread. Thousands of browsers that come back together would
take thousands of threads. A request is in one of these states:

passing   It asks for no stream, has a body, or its url is not known to lead to a stream: it holds no place. If its view
          is an EventStreamView after all, the view enters the line, since the whole request has arrived by then.
waiting   In line, by its address: the addresses take turns. It holds nothing but its connection.
inside    It holds a place, for at most PLACE_SECONDS. A request that takes longer goes on, and its place is free.
pausing   It has given its place back while it waits for something that takes no thread, and enters again.
out       Its response has begun, or it has ended. Its stream reads the log and the bus without a place.

An address may take another place only if at least as many are free as it holds, so it never has more than half of them
and one. A flood from few addresses delays only itself, and an address that stands for all visitors (a proxy that
PROXY_COUNT does not count) still has half of the places.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PLACE_SECONDS: Final = 10.0

Key = tuple[str, str]  # address and sender


class Line:
    """The line of one loop, touched on it alone."""

    def __init__(self, places: Callable[[], int], place_seconds: float = float("inf")) -> None:
        """``places``: returns the number of places; called each time. ``place_seconds``: how long one may be held."""
        self._loop = asyncio.get_running_loop()
        self._places = places
        self._place_seconds = place_seconds
        self._inside: dict[Place, None] = {}  # the oldest first
        self._held: Counter[str | Key] = Counter()  # places by address, and by address and sender
        self._waiting: OrderedDict[Key, deque[asyncio.Future[Place]]] = OrderedDict()  # the next key first
        self._timer: asyncio.TimerHandle | None = None  # runs while any request waits: when the next place expires

    async def enter(self, address: str, sender: str = "") -> Place:
        """Wait for a place. The senders of an address, if it has several, take turns as addresses do."""
        key = address, sender
        if self.is_free(address, sender):
            return self._give_place(key)
        turn: asyncio.Future[Place] = self._loop.create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        self._admit()  # a place may have expired unnoticed
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                turn.result().leave()
            raise

    def is_free(self, address: str, sender: str = "") -> bool:
        """Whether enter() would not wait."""
        key = address, sender
        return key not in self._waiting and self._has_room(key)

    def remove(self, place: Place) -> None:
        """Called by a place that is given back."""
        if place in self._inside:
            self._take_back(place)
            self._admit()

    def _has_room(self, key: Key) -> bool:
        free = self._places() - len(self._inside)
        return free > 0 and self._held[key[0]] <= free

    def _give_place(self, key: Key) -> Place:
        place = Place(self, key, self._loop.time() + self._place_seconds)
        self._inside[place] = None
        self._held.update((key, key[0]))
        return place

    def _take_back(self, place: Place) -> None:
        del self._inside[place]
        for name in (place.key, place.key[0]):
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]

    def _admit(self) -> None:
        """Give free and expired places to waiting requests."""
        now = self._loop.time()
        while (oldest := next(iter(self._inside), None)) is not None and oldest.ends_at <= now:
            self._take_back(oldest)
        # Without a free place nobody has room, and ten thousand may wait.
        while len(self._inside) < self._places() and (key := next(filter(self._has_room, self._waiting), None)):
            turns = self._waiting.pop(key)
            turn = turns.popleft()
            if turns:
                self._waiting[key] = turns  # behind the others
            if not turn.done():
                turn.set_result(self._give_place(key))
        if self._timer is None and self._waiting and (ends_at := next(iter(self._inside)).ends_at) < float("inf"):
            self._timer = self._loop.call_at(ends_at, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._admit()


@dataclass(slots=True, eq=False)
class Place:
    """A place in a line."""

    line: Line
    key: Key
    ends_at: float  # loop time

    def leave(self) -> None:
        """Give the place back. May be called twice, and after it expired."""
        self.line.remove(self)
