"""Push: a send that is done on the spot, from the fan-out, and not in the stream's own task.

Most sends wait for nothing: the bytes go to the transport, and that is all. To wake a task for that costs a future, a
turn of the loop and a switch; and what ten thousand tasks allocate to wait again is work for the garbage collector at
each event. So the fan-out runs the server's send() itself, as the stream's task would: as that task, in its context.
The task sleeps on; it is woken for what has to be waited for.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # documented in "Extending", Task lifetime support
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType
from typing import Any

from .servers import UNSENT_BYTES, breathe

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Push:
    """To be made in the stream's task, and called on its loop outside of any task."""

    __slots__ = ("_context", "_copy", "_loop", "_send", "_task")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        task: Any = asyncio.current_task()
        self._task: asyncio.Task[Any] | None = task
        # Before Python 3.12 a task does not give its own away: a send runs in a copy, to its end.
        self._copy: Context | None = None if hasattr(task, "get_context") else copy_context()
        self._context: Context = self._copy or task.get_context()

    def __call__(self, chunk: bytes) -> Awaitable[None] | None:
        """What the task must await before anything else is sent; None when the chunk is gone."""
        try:
            sending = self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            if type(sending) is not CoroutineType or self._task is None:
                return sending
            waits_for = self._begin(sending)
        except StopIteration:
            if len(chunk) <= UNSENT_BYTES:
                return None
            sending = breathe()
            waits_for = sending.send(None)
        except (Exception, asyncio.CancelledError) as error:
            return _Rest(error=error)
        return _Rest(sending, waits_for, context=self._copy)

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> Any:
        """Run it, as the stream's task, up to its first wait."""
        assert self._task is not None
        _enter_task(self._loop, self._task)
        try:
            return self._context.run(coroutine.send, None)
        finally:
            _leave_task(self._loop, self._task)


class _Rest:
    """What is left of a coroutine that has run up to its first wait, or what it raised. It may be dropped: nobody is
    told of a coroutine never awaited, or of an error never seen."""

    __slots__ = ("_context", "_coroutine", "_error", "_waits_for")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None] | None = None,
        waits_for: Any = None,
        error: BaseException | None = None,
        *,
        context: Context | None = None,  # to be run in, if that is not the task's
    ) -> None:
        self._context = context
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        if self._error is not None:
            raise self._error
        assert self._coroutine is not None
        send: Callable[[Any], Any] = self._coroutine.send
        throw: Callable[[BaseException], Any] = self._coroutine.throw
        if self._context is not None:
            run: Any = self._context.run
            send, throw = partial(run, send), partial(run, throw)
        waits_for = self._waits_for
        while True:
            try:
                try:
                    value = yield waits_for
                except BaseException as error:
                    waits_for = throw(error)
                else:
                    waits_for = send(value)
            except StopIteration:
                return
