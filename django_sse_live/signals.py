"""Django signals: one that comes in, five that go out.

``live_event.send(sender=Comment, channel="comments", type="new_comment", data={...})`` broadcasts, with the arguments
of broadcast(), without importing it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import connections
from django.dispatch import Signal

live_event: Signal = Signal()  # in: channel, type, data=None, on_commit=True, using=None

client_connected: Signal = Signal()  # out: client
client_disconnected: Signal = Signal()  # out: client; client.close_reason says why
event_broadcast: Signal = Signal()  # out: event, client_count
presence_joined: Signal = Signal()  # out: channel, user_pk (text); on one worker, whichever tells
presence_left: Signal = Signal()  # out: the same


class Outgoing:
    """What one hub has to tell by signals: each in its turn, in the order in which it happened.

    Idle: nothing waits, and there is neither a task nor a thread. Telling: one task sends one signal at a time; all of
    their sync receivers run in one thread, which is made for the first of them and ends with the task. Ended: the task
    was cancelled, as the loop ends; what waits, and what still comes, is told to nobody.

    Touched on the hub's loop alone; close_all() alone runs in the thread, whose connections it closes. A receiver that
    fails is logged by Django (logger ``django.dispatch``) and harms nobody else.
    """

    __slots__ = ("_is_telling", "_spawn", "_waiting")

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._spawn = spawn
        self._waiting: deque[tuple[Context, Signal, dict[str, Any]]] = deque()
        self._is_telling = False  # and for ever, once it has ended

    def send(self, signal: Signal, arguments: dict[str, Any]) -> None:
        self._waiting.append((copy_context(), signal, arguments))
        if not self._is_telling:
            self._is_telling = True
            self._spawn(self._tell())

    async def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        executors = SyncToAsync.context_to_thread_executor
        thread = ThreadSensitiveContext()
        try:
            while self._waiting:
                context, signal, arguments = self._waiting.popleft()
                # Where it happened within a request, that request's thread would live as long as its stream.
                context.run(SyncToAsync.thread_sensitive_context.set, thread)
                # A task of its own: a receiver that raises CancelledError ends no more than that.
                sending = context.run(loop.create_task, signal.asend_robust(sender=None, **arguments))
                await asyncio.wait([sending])
                if thread in executors:
                    executors[thread].submit(connections.close_all)
            self._is_telling = False
        finally:
            executor = executors.pop(thread, None)
            if executor is not None:
                executor.submit(connections.close_all)
                executor.shutdown(wait=False)
