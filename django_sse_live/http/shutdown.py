"""Graceful stop: a worker says goodbye on every stream before the server's own signal handler runs."""

from __future__ import annotations

import os
import signal
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from ..hub.hub import Hub
from ..hub.registry import open_hubs

STREAMS_POLL_SECONDS: Final = 0.02
STOP_SECONDS: Final = 8.0  # the most a stop waits, whatever holds a loop up


def stop_gracefully(hub: Hub) -> None:
    """On SIGTERM and SIGINT, say goodbye on every stream before the server's own handler runs. Message handlers have
    the same time to end.

    Otherwise every server but Daphne would wait for streams that never end. Python lets only the main thread set a
    handler; in other threads (Django's autoreloader) the process ends without waiting anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if isinstance(before, StopHandler) and before.pid == os.getpid():
            continue
        if before is not None and before != signal.SIG_IGN:  # None: set by C code, and not callable from Python
            signal.signal(number, StopHandler(hub.loop, before))


class StopHandler:
    """A signal handler: ends the streams, then calls the one it replaced."""

    def __init__(self, loop: AbstractEventLoop, before: Any) -> None:
        self.pid: int = os.getpid()
        # The handler before it: the server's.
        self.before: Any = before.before if isinstance(before, StopHandler) else before
        self._loop = loop
        self._is_under_way = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        hubs = open_hubs()
        for hub in hubs:
            _on_loop(hub.loop, hub.shut_down)
        if self._is_under_way or self._loop.is_closed() or not any(hub.clients or hub.busy for hub in hubs):
            self._pass_on(number, frame)
            return
        self._is_under_way = True
        until = self._loop.time() + STOP_SECONDS
        _on_loop(self._loop, lambda: self._wait(number, frame, until))

    def _wait(self, number: int, frame: FrameType | None, until: float) -> None:
        until = min(until, max((hub.waits_until for hub in open_hubs()), default=0.0) + STREAMS_POLL_SECONDS)
        if self._loop.time() < until and any(hub.clients or hub.busy for hub in open_hubs()):
            self._loop.call_later(STREAMS_POLL_SECONDS, self._wait, number, frame, until)
        else:
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if callable(self.before):
            self.before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # in this thread, which may block it until everything is sent


def _on_loop(loop: AbstractEventLoop, function: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # closed: it has no clients
        pass
