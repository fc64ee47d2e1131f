"""The thread of a request's sync code, and when it ends. The one place that knows how asgiref keeps it.

Django runs each ASGI request inside asgiref's ThreadSensitiveContext: its sync code has one thread, which lives as long
as the request, with the database connections that were opened in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import connections

IDLE_THREADS_MAX: Final = 4  # kept for the next streams to open


class _Thread(ThreadPoolExecutor):
    """One thread, lent to one request at a time."""

    is_ended = False

    def __init__(self) -> None:
        super().__init__(1, "sse-live-opening")


class OpeningThreads:
    """Threads of one loop, lent to one request after the other: Django would start and end one for each."""

    def __init__(self) -> None:
        self._idle: list[_Thread] = []
        self._end_with_loop: AsyncGenerator[None, None] | None = None

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[None]:
        """The sync code that is called within has this thread, and no other request has."""
        if self._end_with_loop is None:
            self._end_with_loop = _until_loop_ends(self._idle)
            await anext(self._end_with_loop)
        thread = self._idle.pop() if self._idle else _Thread()
        is_idle = False
        try:
            async with _sync_code_in(thread):
                yield
                is_idle = True  # else the thread may still be at work for a request that was cancelled
        finally:
            if is_idle and not thread.is_ended and len(self._idle) < IDLE_THREADS_MAX:
                self._idle.append(thread)
            else:
                _end(thread)


def has_request_thread() -> bool:
    """Whether sync code of the running request has a thread of its own: not under WSGI, nor in Django's test client,
    where it has the caller's."""
    return SyncToAsync.thread_sensitive_context.get(None) is not None


def release_request_thread() -> None:
    """End the thread of the request that is being handled, with its database connections: nothing sync is left to do.

    Sync code that runs in this request later gets a new thread. An executor that somebody else has given to the context
    is left alone.
    """
    context: Any = SyncToAsync.thread_sensitive_context.get(None)
    executor: Any = None if context is None else SyncToAsync.context_to_thread_executor.get(context)
    if executor is None or (getattr(context, "_executor", None) is not None and not isinstance(executor, _Thread)):
        return
    del SyncToAsync.context_to_thread_executor[context]
    _end(executor)


@asynccontextmanager
async def _sync_code_in(thread: _Thread) -> AsyncIterator[None]:
    # Not ThreadSensitiveContext(executor=…) of asgiref 3.13: that goes before a caller who waits in async_to_sync(). A
    # test has its open transaction there, and another thread's connection does not see it.
    async with ThreadSensitiveContext() as context:
        executors: Any = SyncToAsync.context_to_thread_executor
        executors[context] = thread
        try:
            yield
        finally:
            if executors.get(context) is thread:
                del executors[context]  # else asgiref would end it


def _end(executor: Any) -> None:
    """Once it has done what it has been given, and without waiting for that."""
    if isinstance(executor, _Thread):
        if executor.is_ended:
            return
        executor.is_ended = True
    executor.submit(connections.close_all)
    executor.shutdown(wait=False)


async def _until_loop_ends(idle: list[_Thread]) -> AsyncGenerator[None, None]:
    # asyncio closes the generators of a loop that ends: loop.shutdown_asyncgens(). A finalizer would run during a
    # garbage collection, which may come while this very thread holds the lock of all executors.
    try:
        yield
    finally:
        for thread in idle:
            _end(thread)
