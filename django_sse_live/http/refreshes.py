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


class RefreshLine(Line):
    """The line of pages that refresh, on one loop. A page holds a place here while it is drawn. It also holds the only
    place of a second line, for at most REFRESH_SECONDS."""

    def __init__(self) -> None:
        super().__init__(lambda: REFRESHES_MAX, PLACE_SECONDS)
        self._begun = Line(lambda: 1, REFRESH_SECONDS)
        self._begun_places: dict[Place, Place] = {}

    async def enter(self, address: str, sender: str = "") -> Place:
        """Wait for a place in both lines."""
        place = await super().enter(address, sender)
        try:
            self._begun_places[place] = await self._begun.enter(address)
        except BaseException:
            place.leave()
            raise
        return place

    def remove(self, place: Place) -> None:
        begun = self._begun_places.pop(place, None)
        if begun is not None:
            begun.leave()
        super().remove(place)


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
