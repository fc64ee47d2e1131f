"""The task and the thread of a message. It waits for its place in the line, then runs to its end, even if the sender
leaves.

The content of messages is unknown here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from ..hub.hub import Hub
from ..hub.registry import count_message_refused
from .line import Key
from .message_line import MessageLine
from .refusals import Refused
from .threads import OpeningThreads


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a browser: 200 and ``{"id", "data"}``, or another status and ``{"error", "detail"}``."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)  # of the HTTP response


def refusal(refused: Refused) -> Answer:
    count_message_refused(refused.error)
    return Answer(refused.status, {"error": refused.error, "detail": refused.detail}, refused.headers)


class Messages:
    """The messages of one hub: the line, and the threads lent to handlers."""

    def __init__(self) -> None:
        self.line: MessageLine = MessageLine()
        self.threads: OpeningThreads = OpeningThreads()
        self.tasks: set[asyncio.Task[Answer]] = set()
        self.posted: dict[str, str] = {}  # POSTs that wait or run: entry → digest


@asynccontextmanager
async def lend(threads: OpeningThreads) -> AsyncIterator[None]:
    """Lend a thread. Its database connections are cared for as those of a request."""
    async with threads.lend():
        await sync_to_async(close_old_connections)()
        try:
            yield
        finally:
            await sync_to_async(close_old_connections)()


async def in_turn(
    hub: Hub,
    parts: Messages,
    sender: Key,
    work: Callable[[], Awaitable[Answer]],
    when_done: Callable[[], Any],
    *,
    in_request_thread: bool = False,
) -> Answer:
    """``in_request_thread``: the work runs in the thread of the request that waits for it, which ends with that."""
    try:
        place = await parts.line.enter(*sender)
    except BaseException:
        when_done()
        raise

    async def run() -> Answer:
        try:
            return await work()
        except Refused as refused:
            return refusal(refused)
        finally:
            hub.busy -= 1
            place.leave()
            when_done()

    hub.busy += 1
    task = hub.loop.create_task(run())
    parts.tasks.add(task)
    task.add_done_callback(parts.tasks.discard)
    try:
        return await asyncio.shield(task)
    finally:
        if in_request_thread and not task.done():  # the sender has left
            await asyncio.wait([task])
