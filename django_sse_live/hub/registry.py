"""The one registry of hubs: the loops of this process that serve streams. An event reaches all of them through it.

Every function except count() and count_refused() may be called from any thread. A signal handler or a finalizer that
broadcasts may interrupt this very code: broadcasting takes no lock, and the lock for all else is re-entrant.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..events import Event
from .counts import Counts
from .failures import guarded
from .hub import Hub

Part = TypeVar("Part")


class _Tally:
    """An int that any thread may increase, without a lock: next() of a count cannot be interrupted."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self._looks = 0

    def add(self) -> None:
        next(self._count)

    def value(self) -> int:
        """Only with the registry's lock held."""
        value = next(self._count) - self._looks
        self._looks += 1
        return value


class _Registry:
    def __init__(self, when_published: tuple[Callable[[], None], ...] = ()) -> None:
        self.lock = threading.RLock()
        self.hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self.others = Counts()  # of closed hubs, and of work without a hub
        self.published = _Tally()  # events that this process handed to the bus
        self.when_published = when_published
        self.parts: dict[type, Any] = {}  # state that other modules keep for this process, by class


# By process id: a fork begins without hubs, since its parent's loops do not run in it. Not every fork runs Python's
# hooks, so no hook is used.
_registries: Final[dict[int, _Registry]] = {}


def _here() -> _Registry:
    registry = _registries.get(os.getpid())
    return registry if registry is not None else _begin()


def _begin() -> _Registry:
    pid = os.getpid()
    before = next(reversed(_registries.values()), None)
    registry = _registries.setdefault(pid, _Registry(() if before is None else before.when_published))
    for other in [other for other in _registries if other != pid]:
        _registries.pop(other, None)
    return registry


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread; None if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def find_hub(loop: asyncio.AbstractEventLoop) -> Hub | None:
    return _here().hubs.get(loop)


def add_hub(hub: Hub) -> None:
    """Register a hub. Hubs that only ask other workers something stay out: no stream may open on them."""
    if not hub.keeps_history:
        return
    registry = _here()
    with registry.lock:
        for loop in [loop for loop in registry.hubs if loop.is_closed()]:
            closed = registry.hubs.pop(loop, None)
            if closed is not None:
                registry.others.add(closed.counts)
        registry.hubs[hub.loop] = hub


def remove_hub(hub: Hub) -> None:
    registry = _here()
    with registry.lock:
        if registry.hubs.get(hub.loop) is hub:
            del registry.hubs[hub.loop]
            registry.others.add(hub.counts)


def open_hubs() -> list[Hub]:
    return list(_here().hubs.values())


def deliver_to_hubs(item: Event) -> None:
    """Hand an event to every hub of this process. Hubs with a closed loop are dropped, so that no save fails on one."""
    for hub in open_hubs():
        if not hub.deliver_if_open(item):
            remove_hub(hub)


def when_published(callback: Callable[[], None]) -> None:
    """Call this, in any thread, each time this process hands an event to the bus. Internal."""
    registry = _here()
    if callback not in registry.when_published:
        registry.when_published += (callback,)


def count_published() -> None:
    """Count an event that this process handed to the bus."""
    registry = _here()
    registry.published.add()
    for callback in registry.when_published:
        guarded(callback)


def count_of_published() -> int:
    """The number of events that this process handed to the bus."""
    registry = _here()
    with registry.lock:
        return registry.published.value()


def process_part(kind: type[Part]) -> Part:
    """The state that another module keeps for this process; made on first use."""
    registry = _here()
    with registry.lock:
        if kind not in registry.parts:
            registry.parts[kind] = kind()
        part: Part = registry.parts[kind]
        return part


def count(add: Callable[[Counts], None]) -> None:
    """Count something that happened on the running loop."""
    registry = _here()
    hub = registry.hubs.get(asyncio.get_running_loop())
    if hub is not None:
        add(hub.counts)
    else:
        with registry.lock:
            add(registry.others)


def count_refused(error: str) -> None:
    """Count a request on the running loop that got no stream."""
    count(lambda counts: counts.refused.update((error,)))


def count_message_refused(error: str) -> None:
    """Count a message on the running loop that no handler got."""
    count(lambda counts: counts.messages_refused.update((error,)))


def process_counts() -> Counts:
    """The sums of all hubs of this process."""
    registry = _here()
    total = Counts()
    with registry.lock:
        total.add(registry.others)
        total.published = registry.published.value()
        hubs = list(registry.hubs.values())
    for hub in hubs:
        total.add(hub.counts)
    return total


def forget_hubs() -> None:
    """Start over, for another backend."""
    before = _here()
    _registries[os.getpid()] = _Registry(before.when_published)
