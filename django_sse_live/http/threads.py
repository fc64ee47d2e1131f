"""The thread of a request's sync code, and when it ends. The one place that knows how asgiref keeps it.

Django runs each ASGI request in asgiref's ThreadSensitiveContext: its sync code has one thread, which lives as long as
the request, with the database connections opened in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext
from django.db import connections

from ..conf import live_settings

IDLE_THREADS_MAX: Final = 4  # kept for the next opening streams


class _Thread(ThreadPoolExecutor):
    """One thread, lent to one request at a time. At its end it closes its database connections."""

    def __init__(self) -> None:
        super().__init__(1, "sse-live-opening")
        self.is_ended: bool = False
        self._is_used = False

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self._is_used = True
        return super().submit(*args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End it once its queued work is done, without waiting."""
        if self._is_used and not self.is_ended:
            self.submit(connections.close_all)
        self.is_ended = True
        super().shutdown(wait=False)


class OpeningThreads:
    """The threads of one loop, lent to one request after the other: Django would start and end one for each."""

    def __init__(self) -> None:
        self._idle: list[_Thread] = []
        self._end_with_loop: AsyncGenerator[None, None] | None = None

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[None]:
        """Sync code that is called within runs in this thread, which no other request has."""
        if self._end_with_loop is None:
            self._end_with_loop = _until_loop_ends(self._idle)
            await anext(self._end_with_loop)
        thread = self._idle.pop() if self._idle else _Thread()
        is_idle = False
        try:
            async with _sync_code_in(thread):
                yield
                is_idle = True  # otherwise a cancelled request may still use the thread
        finally:
            if is_idle and not thread.is_ended and len(self._idle) < IDLE_THREADS_MAX:
                self._idle.append(thread)
            else:
                thread.shutdown()


def has_request_thread() -> bool:
    """Whether sync code of the running request has a thread of its own. Under WSGI and in Django's test client it has
    the caller's."""
    return SyncToAsync.thread_sensitive_context.get(None) is not None


def has_waiting_caller() -> bool:
    """Whether a thread waits for the running coroutine in async_to_sync(), as under sync middleware: it runs the sync
    code until then, whatever thread is lent."""
    return getattr(AsyncToSync.executors, "current", None) is not None


def release_request_thread() -> None:
    """End the thread of the current request, with its database connections, once no sync code is left to run.

    Later sync code of this request gets a new thread. An executor that other code has set in the context stays.
    """
    context: Any = SyncToAsync.thread_sensitive_context.get(None)
    executor: Any = None if context is None else SyncToAsync.context_to_thread_executor.get(context)
    if executor is None or (getattr(context, "_executor", None) is not None and not isinstance(executor, _Thread)):
        return
    del SyncToAsync.context_to_thread_executor[context]
    if not isinstance(executor, _Thread):
        executor.submit(connections.close_all)
    executor.shutdown(wait=False)


def release_waiting_thread() -> None:
    """release_request_thread(), before a request waits. Not with NAMESPACE set: middleware may have put the tenant into
    the thread's database connection, as that of django-tenants does."""
    if live_settings().namespace is None:
        release_request_thread()


def renew_request_thread() -> None:
    """Give the current request a thread for its later sync code, in the place of one that was released: asgiref's would
    end with its database connections open."""
    context: Any = SyncToAsync.thread_sensitive_context.get(None)
    if context is not None and context not in SyncToAsync.context_to_thread_executor:
        SyncToAsync.context_to_thread_executor[context] = _Thread()


@asynccontextmanager
async def _sync_code_in(thread: _Thread) -> AsyncIterator[None]:
    # Not ThreadSensitiveContext(executor=…) of asgiref 3.13: it takes precedence over a caller that waits in
    # async_to_sync(). A test has its open transaction there, which another thread's connection does not see. Nor
    # entered as a context: inside of another one, such as that of the request which began this task, it has no effect.
    context = ThreadSensitiveContext()
    token = SyncToAsync.thread_sensitive_context.set(context)
    executors: Any = SyncToAsync.context_to_thread_executor
    executors[context] = thread
    try:
        yield
    finally:
        if executors.get(context) is thread:
            del executors[context]
        else:
            release_request_thread()
        SyncToAsync.thread_sensitive_context.reset(token)


async def _until_loop_ends(idle: list[_Thread]) -> AsyncGenerator[None, None]:
    # asyncio closes the generators of an ending loop: loop.shutdown_asyncgens(). A finalizer would run in a garbage
    # collection, perhaps while this thread holds the lock of all executors.
    try:
        yield
    finally:
        for thread in idle:
            thread.shutdown()
