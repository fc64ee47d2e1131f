"""Outgoing: the public signals of one hub, sent in order, without waiting for receivers.

Touched on the hub's loop alone, except for closing database connections, which runs in the receivers' thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext
from django.db import close_old_connections, connections
from django.dispatch import Signal

from ..signals import event_broadcast
from .counts import Counts

logger: logging.Logger = logging.getLogger("django_sse_live")

SIGNALS_MAX: Final = 10_000  # waiting for their receivers; further ones are dropped and counted
BROADCAST_SIGNALS_MAX: Final = 1_000  # event_broadcast waits behind fewer, since each keeps its event in memory
CONNECTIONS_UNIT_SECONDS: Final = 1.0  # for database connections, the signals of this time are one request
IDLE_SECONDS: Final = 1.0  # the receivers' thread waits this long for another signal, then ends


class Outgoing:
    """States: idle (nothing waits; neither task nor thread), sending (one task sends one signal at a time; one thread
    runs all sync receivers, and lives from the first of them until the task ends), ended (the loop ends and has
    cancelled the task; nothing more is sent).

    Django logs a receiver that fails (logger ``django.dispatch``); others still run. If receivers are too slow, signals
    that find no room are dropped.
    """

    __slots__ = ("_arrival", "_counts", "_is_dropping", "_is_sending", "_spawn", "_waiting")

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None], counts: Counts) -> None:
        self._spawn = spawn
        self._counts = counts
        self._waiting: deque[tuple[Context, Signal, dict[str, Any]]] = deque()
        self._is_sending = False  # stays True once ended
        self._is_dropping = False  # and the log has said so
        self._arrival: asyncio.Future[None] | None = None  # done when a signal comes while the task waits for one

    def send(self, signal: Signal, arguments: dict[str, Any]) -> None:
        if len(self._waiting) >= (BROADCAST_SIGNALS_MAX if signal is event_broadcast else SIGNALS_MAX):
            self._drop()
            return
        self._waiting.append((copy_context(), signal, arguments))
        if not self._is_sending:
            self._is_sending = True
            self._spawn(self._send_all())
        elif self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _drop(self) -> None:
        self._counts.signals_dropped += 1
        if not self._is_dropping:
            self._is_dropping = True
            logger.warning(
                "Receivers of the signals of django_sse_live are too slow: %d signals wait, further ones are dropped.",
                len(self._waiting),
            )

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        executors = SyncToAsync.context_to_thread_executor
        thread = ThreadSensitiveContext()
        unit_ends_at = 0.0
        try:
            while self._waiting or await self._another(thread in executors):
                context, signal, arguments = self._waiting.popleft()
                # Without it, a signal from within a request would use that request's thread, and keep it as long as the
                # stream.
                context.run(SyncToAsync.thread_sensitive_context.set, thread)
                # Nor may it use the thread of a caller in async_to_sync(), which does not wait for the signal.
                context.run(setattr, AsyncToSync.executors, "current", None)
                # In its own task, so that a receiver that raises CancelledError ends only that task.
                sending = context.run(loop.create_task, signal.asend_robust(sender=None, **arguments))
                await asyncio.wait([sending])
                has_failed = sending.cancelled() or _has_failed(sending)
                is_over = not self._waiting or loop.time() >= unit_ends_at
                if thread in executors and (is_over or has_failed):
                    unit_ends_at = loop.time() + CONNECTIONS_UNIT_SECONDS
                    executors[thread].submit(close_old_connections)
            self._is_sending = self._is_dropping = False
        finally:
            executor = executors.pop(thread, None)
            if executor is not None:
                executor.submit(connections.close_all)
                executor.shutdown(wait=False)

    async def _another(self, has_thread: bool) -> bool:
        """Wait for a signal while the thread is kept. False if none comes in time."""
        self._is_dropping = False
        if has_thread:
            self._arrival = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._arrival], timeout=IDLE_SECONDS)
            self._arrival = None
        return bool(self._waiting)


def _has_failed(sending: asyncio.Task[list[tuple[Any, Any]]]) -> bool:
    if (error := sending.exception()) is not None:
        logger.error("A signal of django_sse_live could not be sent.", exc_info=error)
        return True
    return any(isinstance(answer, Exception) for _, answer in sending.result())
