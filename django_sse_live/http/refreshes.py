"""Refreshes: pages that fetch themselves anew because of a patch or a reset, few of them at a time.

A thousand pages may ask at once, each for what Django takes a thread and Python's lock to draw. Those that wait in
line take neither, so that visitors who ask for something else meanwhile are answered as before. A page that finds no
place in time is told to come again, before it gives up by itself: it would be drawn for nobody.
"""

from __future__ import annotations

import asyncio
from typing import Final

from .handoff import Handoff
from .types import Scope, Send

PLACES: Final = 4  # on each worker; one address has three of them at most
WAIT_SECONDS: Final = 10.0  # sse-live-refresh.js gives up after 15, in which the page is to be drawn too


def is_refresh(scope: Scope) -> bool:
    """Whether <sse-live> asks for its page anew."""
    return scope["method"] == "GET" and (b"sse-live", b"refresh") in scope["headers"]


async def finds_place(handoff: Handoff) -> bool:
    """Wait for a place in the line that the handoff was given."""
    try:
        await asyncio.wait_for(handoff.enter_line(), WAIT_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):  # two classes until Python 3.11
        return False
    return True


async def say_later(send: Send) -> None:
    """Answer a page that found no place. It asks again after a wait, as it does of any server that is busy."""
    await send({"type": "http.response.start", "status": 503, "headers": [(b"cache-control", b"no-store")]})
    await send({"type": "http.response.body", "body": b""})
