"""The one registry of hubs: which loops of this process serve streams, and how an event reaches all of them.

Every function but count() and count_refused() may be called from any thread. A signal handler or a finalizer that
broadcasts may interrupt this very code: on the way of a broadcast no lock is taken, and the lock of the rest is
re-entrant.
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
    """An int that grows from any thread, and while it grows: next() of a count cannot be interrupted."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self._looks = 0

    def add(self) -> None:
        next(self._count)

    def value(self) -> int:
        """With the registry's lock held."""
        value = next(self._count) - self._looks
        self._looks += 1
        return value


class _Registry:
    def __init__(self, when_published: tuple[Callable[[], None], ...] = ()) -> None:
        self.lock = threading.RLock()
        self.hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self.others = Counts()  # counted by hubs that are gone, or where there is none
        self.published = _Tally()  # events that this process has handed to the bus
        self.when_published = when_published
        self.parts: dict[type, Any] = {}  # what other modules keep for this process, by its class


# By pid: a fork begins without hubs, since the loops of its parent do not run in it. It is known by its pid and not by
# a hook, since not every fork runs Python's hooks.
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
    """The loop that runs in this thread, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def find_hub(loop: asyncio.AbstractEventLoop) -> Hub | None:
    return _here().hubs.get(loop)


def add_hub(hub: Hub) -> None:
    """Let it be found. Not one that only asks the other workers something: no stream is to be opened on it."""
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
    """Hand an event to every hub of this process. One whose loop has been closed is forgotten: no save fails on it."""
    for hub in open_hubs():
        try:
            hub.deliver(item)
        except RuntimeError:
            if not hub.loop.is_closed():
                raise
            remove_hub(hub)


def when_published(callback: Callable[[], None]) -> None:
    """Have it called, in any thread, each time this process hands an event to the bus. Internal."""
    registry = _here()
    if callback not in registry.when_published:
        registry.when_published += (callback,)


def count_published() -> None:
    """This process has handed an event to the bus."""
    registry = _here()
    registry.published.add()
    for callback in registry.when_published:
        guarded(callback)


def count_of_published() -> int:
    """How many events this process has handed to the bus."""
    registry = _here()
    with registry.lock:
        return registry.published.value()


def process_part(kind: type[Part]) -> Part:
    """What another module keeps for this process; made when it is first asked for."""
    registry = _here()
    with registry.lock:
        if kind not in registry.parts:
            registry.parts[kind] = kind()
        part: Part = registry.parts[kind]
        return part


def count(add: Callable[[Counts], None]) -> None:
    """Add something that has happened on the running loop."""
    registry = _here()
    hub = registry.hubs.get(asyncio.get_running_loop())
    if hub is not None:
        add(hub.counts)
    else:
        with registry.lock:
            add(registry.others)


def count_refused(error: str) -> None:
    """A request on the running loop gets no stream."""
    count(lambda counts: counts.refused.update((error,)))


def count_message_refused(error: str) -> None:
    """A message on the running loop is given to no handler."""
    count(lambda counts: counts.messages_refused.update((error,)))


def process_counts() -> Counts:
    """What this process has done, all of its hubs together."""
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
    """Begin anew, where another backend takes over."""
    before = _here()
    _registries[os.getpid()] = _Registry(before.when_published)
