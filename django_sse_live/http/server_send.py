"""The server's own send(), for a stream that Django itself sends."""

from __future__ import annotations

import sys
from typing import Any, Final

from django.core.handlers.asgi import ASGIHandler

FRAMES_MAX: Final = 10  # between the stream's iterator and Django's handler: one, and some for middleware that wraps it


def find_send() -> Any:
    """Called from an iterator that Django's ASGIHandler iterates: the send() that it was given; None if not found.

    A response is not told which connection it goes out on, and what ASGI leaves open (pace, the end of a worker) is
    asked of the server through its send. live_application has it at hand.
    """
    frame: Any = sys._getframe(1)
    for _ in range(FRAMES_MAX):
        if frame is None:
            return None
        if frame.f_code is ASGIHandler.send_response.__code__:
            return frame.f_locals.get("send")
        frame = frame.f_back
    return None
