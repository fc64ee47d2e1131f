"""The server's own send(), for a stream that Django itself sends."""

from __future__ import annotations

import sys
from typing import Any, Final

from django.core.handlers.asgi import ASGIHandler

FRAMES_MAX: Final = 10  # between the stream's iterator and Django's handler: one, and those of middleware


def find_send() -> Any:
    """The send() of the ASGIHandler that iterates over the calling iterator; None if not found.

    A response does not know its connection, but pace and the end of a worker must be asked of the server, through its
    send(). live_application knows it anyway.
    """
    frame: Any = sys._getframe(1)
    for _ in range(FRAMES_MAX):
        if frame is None:
            return None
        if frame.f_code is ASGIHandler.send_response.__code__:
            return frame.f_locals.get("send")
        frame = frame.f_back
    return None
