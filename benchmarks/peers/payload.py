"""What every Python peer publishes: a number, the time, and as much padding as was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

_tasks: set[asyncio.Task[None]] = set()


def start_publishing(query: Mapping[str, str], send: Callable[[dict[str, Any]], Awaitable[None] | None]) -> None:
    """Call ``send`` with each event's data, in a task of the running loop. ``hz`` 0: as fast as it goes."""
    task = asyncio.get_running_loop().create_task(
        _publish(int(query["events"]), float(query["hz"]), int(query["bytes"]), send)
    )
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _publish(events: int, hz: float, size: int, send: Callable[[dict[str, Any]], Awaitable[None] | None]) -> None:
    padding = "x" * size
    for number in range(events):
        sending = send({"at": [number, time.monotonic_ns()], "padding": padding})
        if sending is not None:
            await sending
        await asyncio.sleep(1 / hz if hz else 0)
