"""Refreshes: pages that fetch themselves anew after a patch or a reset, one after the other.

A thousand pages may ask at once, and Django takes a thread and Python's lock to draw each. Pages that wait in line take
neither, so other visitors are answered as before. A page that takes long may wait for a database, so the next one is
drawn beside it; or it may be much work, so only a few are drawn at once. A page that finds no place in time is told to
ask again, before it gives up by itself: it would be drawn in vain.
"""

from __future__ import annotations

import asyncio
from typing import Final

from .handoff import Handoff
from .line import PLACE_SECONDS, Line, Place
from .types import Scope, Send

REFRESH_SECONDS: Final = 0.05  # after so long the next page of the worker no longer waits for this one
REFRESHES_MAX: Final = 8  # drawn at once by a worker
WAIT_SECONDS: Final = 10.0  # sse-live-refresh.js gives up after 15 s, and the page must be drawn by then


def is_refresh(scope: Scope) -> bool:
    """Whether <sse-live> fetches its page anew."""
    return scope["method"] == "GET" and (b"sse-live", b"refresh") in scope["headers"]


class RefreshLine:
    """The line of pages that refresh, on one loop."""

    def __init__(self) -> None:
        self._drawn = Line(lambda: REFRESHES_MAX, PLACE_SECONDS)
        self._begun = Line(lambda: 1, REFRESH_SECONDS)

    async def enter(self, address: str) -> RefreshPlace:
        """Wait for a place."""
        place = await self._drawn.enter(address)
        try:
            return RefreshPlace(place, await self._begun.enter(address))
        except BaseException:
            place.leave()
            raise


class RefreshPlace:
    """A place in each of the two lines."""

    __slots__ = ("_places",)

    def __init__(self, *places: Place) -> None:
        self._places = places

    def leave(self) -> None:
        """Give the place back. May be called twice, and after it expired."""
        for place in self._places:
            place.leave()


async def finds_place(handoff: Handoff) -> bool:
    """Wait for a place in the handoff's line. False if none came in time."""
    try:
        await asyncio.wait_for(handoff.enter_line(), WAIT_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
        return False
    return True


async def say_later(send: Send) -> None:
    """Answer a page that found no place. It asks again later, as it does if any server is busy."""
    await send({"type": "http.response.start", "status": 503, "headers": [(b"cache-control", b"no-store")]})
    await send({"type": "http.response.body", "body": b""})
