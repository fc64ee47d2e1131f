"""Refreshes: pages that fetch themselves anew after a patch or a reset, one after the other.

A thousand pages may ask at once, and Django takes a thread and Python's lock to draw each. Pages that wait in line take
neither, so other visitors are answered as before. A page that takes long waits for something, such as a database: the
next one is drawn beside it. A page that finds no place in time is told to ask again, before it gives up by itself: it
would be drawn in vain.
"""

from __future__ import annotations

import asyncio
from typing import Final

from .handoff import Handoff
from .types import Scope, Send

REFRESH_SECONDS: Final = 0.05  # after so long the next page of the worker no longer waits for this one
WAIT_SECONDS: Final = 10.0  # sse-live-refresh.js gives up after 15 s, and the page must be drawn by then


def is_refresh(scope: Scope) -> bool:
    """Whether <sse-live> fetches its page anew."""
    return scope["method"] == "GET" and (b"sse-live", b"refresh") in scope["headers"]


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
