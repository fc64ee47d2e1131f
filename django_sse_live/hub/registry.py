"""The one registry of hubs: which loops of this process serve streams, and how an event reaches all of them.

Every function but count_refused() may be called from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from django.dispatch import Signal

from ..events import Event
from .counts import Counts
from .hub import Hub

# The one registry of hubs, and what was counted by those that are gone, or where there is none. A fork starts with an
# empty one: the loops of its parent do not run in it.
_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
_others = Counts()
_lock = threading.Lock()

event_published: Final = Signal()  # in whatever thread. For the rooms of this house alone


def find_hub(loop: asyncio.AbstractEventLoop) -> Hub | None:
    return _hubs.get(loop)


def add_hub(hub: Hub) -> None:
    with _lock:
        for loop in [loop for loop in _hubs if loop.is_closed()]:
            _others.add(_hubs.pop(loop).counts)
        _hubs[hub.loop] = hub


def open_hubs() -> list[Hub]:
    return list(_hubs.values())


def deliver_to_hubs(item: Event) -> None:
    """Hand an event to every hub of this process. One whose loop has been closed is forgotten: no save fails on it."""
    for hub in open_hubs():
        try:
            hub.deliver(item)
        except RuntimeError:
            if not hub.loop.is_closed():
                raise
            with _lock:
                if _hubs.pop(hub.loop, None) is not None:
                    _others.add(hub.counts)


def count_published() -> None:
    """From any thread: this process has handed an event to the bus."""
    with _lock:
        _others.published += 1
    if event_published.receivers:
        event_published.send_robust(sender=None)


def count_refused(error: str) -> None:
    """A request on the running loop gets no stream."""
    hub = _hubs.get(asyncio.get_running_loop())
    if hub is not None:
        hub.counts.refused[error] += 1
    else:
        with _lock:
            _others.refused[error] += 1


def process_counts() -> Counts:
    """From any thread: what this process has done, all of its hubs together."""
    total = Counts()
    with _lock:
        total.add(_others)
        hubs = open_hubs()
    for hub in hubs:
        total.add(hub.counts)
    return total


def forget_hubs() -> None:
    global _lock, _others
    _lock = threading.Lock()
    _hubs.clear()
    _others = Counts()
