"""Inbox: carries work from any thread to a hub's loop, in order, a slice at a time.

Long work is an iterator whose steps are short. Later items wait until it is done, which keeps the order; the rest of
the loop does not wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, TypeAlias

from ..events import Event
from .failures import report_failure

SLICE_SECONDS: Final = 0.004  # the loop is held no longer than this and one step
SLICE_ITEMS: Final = 500  # items taken in one slice
STEPS_AT_A_TIME: Final = 16  # steps of an iterator between two looks at the clock

Work: TypeAlias = Iterator[None]
Item: TypeAlias = Event | Callable[[], Work | None]


class Inbox:
    """put() may be called from any thread; all else runs on the loop."""

    __slots__ = ("_after", "_is_due", "_items", "_loop", "_receive", "_work")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, receive: Callable[[Event], Work | None], after: Callable[[], None]
    ) -> None:
        """``receive``: called with each event. ``after``: called after each slice."""
        self._loop = loop
        self._receive = receive
        self._after = after
        self._items: deque[Item] = deque()  # appended to by any thread
        self._work: Work | None = None  # the unfinished work of the item taken last
        self._is_due = False

    def put(self, item: Item) -> None:
        """Raises RuntimeError if the loop is closed."""
        self._items.append(item)
        if not self._is_due or self._loop.is_closed():
            self._is_due = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_due = False  # before the first popleft(): items appended from here on schedule the next slice
        items, time = self._items, self._loop.time
        until = time() + SLICE_SECONDS
        for _ in range(SLICE_ITEMS):
            if self._work is not None:
                if not _step(self._work):
                    self._work = None
            elif items:
                self._begin(items.popleft())
            else:
                break
            if time() >= until:
                break
        if (self._work is not None or items) and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._drain)
        self._after()

    def _begin(self, item: Item) -> None:
        try:
            self._work = self._receive(item) if isinstance(item, Event) else item()
        except Exception:  # of one item, perhaps from a newer version on another worker: the others go on
            report_failure("An item of a hub's inbox failed: %r", item)


def run_in_slices(loop: asyncio.AbstractEventLoop, work: Work) -> None:
    """Run long work that needs no place in the order of the inbox."""

    def go_on() -> None:
        until = loop.time() + SLICE_SECONDS
        while _step(work):
            if loop.time() >= until:
                loop.call_soon(go_on)
                break

    go_on()


def _step(work: Work) -> bool:
    """Run some steps. False once the work is done."""
    try:
        return len(list(islice(work, STEPS_AT_A_TIME))) == STEPS_AT_A_TIME
    except Exception:
        report_failure("A hub's work was not completed: %r", work)
        return False
