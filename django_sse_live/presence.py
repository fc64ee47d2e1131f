"""presence(): which users hear a channel now, on any worker. For channels that PRESENCE_CHANNELS names.

How workers know it of each other: presence_worker.py.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from .backends import get_backend
from .conf import live_settings
from .events import control_event, validate_name
from .hub.hub import Hub, hub_opened
from .hub.log import EventLog
from .hub.registry import find_hub, open_hubs, running_loop
from .namespaces import scope_channels
from .presence_worker import ANNOUNCE, ANSWER_SECONDS, Announcement, Presence, is_watched


def presence(channel: str) -> set[str]:
    """The primary keys, as text, of the users who hear a channel now, on any worker. Anonymous clients do not count.

    If this process serves no streams, it asks the others, which takes half a second. A worker that has just started and
    cannot reach its bus yet knows of its own streams alone.

    ValueError for a channel that no pattern in PRESENCE_CHANNELS matches.
    """
    scoped = _scoped(channel)
    part = _of_this_process()
    if part is None:
        return _on_a_loop_of_its_own(scoped)
    if not part.knows.is_set() and running_loop() is not part.hub.loop:  # which must not wait for itself
        waiting = asyncio.run_coroutine_threadsafe(part.knows.wait(), part.hub.loop)
        try:
            waiting.result(2 * ANSWER_SECONDS)
        except FutureTimeout:  # its bus is away, or its loop is busy
            waiting.cancel()
    return part.users(scoped)


async def apresence(channel: str) -> set[str]:
    """presence() from a coroutine."""
    scoped = _scoped(channel)
    hub = find_hub(asyncio.get_running_loop())
    part = _of_this_process() if hub is None else hub.parts.get(Presence)
    if part is None and hub is not None:  # the setting was changed after this hub was made: in a test
        part = Presence(hub)
    if part is None:
        return await asyncio.to_thread(_on_a_loop_of_its_own, scoped)
    if part.hub is hub:
        await part.knows.wait()
    return part.users(scoped)


def _of_this_process() -> Presence | None:
    for hub in open_hubs():
        part: Presence | None = hub.parts.get(Presence)
        if part is not None and hub.loop.is_running():
            return part
    return None


def _on_a_loop_of_its_own(channel: str) -> set[str]:
    """Ask the other workers, where this process serves no streams. Not on the caller's loop, if it has one: the backend
    lets go of what it makes for the question when the loop is closed."""
    if not get_backend().carries_reports:
        return set()
    with ThreadPoolExecutor(1, "sse-live-presence") as thread:
        return thread.submit(asyncio.run, _ask(channel)).result()


async def _ask(channel: str) -> set[str]:
    hub = Hub(asyncio.get_running_loop(), EventLog("0"), keeps_history=False)
    here: dict[str, set[str]] = {}  # worker → primary keys

    def hear(said: Announcement) -> None:
        if "here" in said:
            here[said["worker"]] = set(said["here"].get(channel, ()))

    hub.handlers[ANNOUNCE] = hear
    backend = get_backend()
    backend.attach(hub)
    await hub.filled()
    await backend.apublish(control_event(ANNOUNCE, {"ask": ""}))
    await asyncio.sleep(ANSWER_SECONDS)
    return set().union(*here.values())


def _scoped(channel: str) -> str:
    """The channel with its namespace. ValueError for one whose users are not known."""
    if not is_watched(validate_name("channel", channel)):
        raise ValueError(
            f'Who hears {channel!r} is not known: no pattern of SSE_LIVE["PRESENCE_CHANNELS"] matches it. '
            f'For example: "PRESENCE_CHANNELS": [{channel!r}].'
        )
    (scoped,) = scope_channels((channel,))
    return scoped


def _add_to_hub(*, hub: Hub, **_: Any) -> None:
    if live_settings().presence_channels:
        Presence(hub)


def connect() -> None:
    """Called once, when the app is ready."""
    hub_opened.connect(_add_to_hub, dispatch_uid="django_sse_live.presence")
