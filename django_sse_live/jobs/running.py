"""run=: the work of a job, outside the request that began it.

A coroutine function runs in a task on a hub's loop. Any other function, or any function in a process without a hub,
runs in a thread. Both have the language and the time zone of the code that began the job. When the process ends, both
kinds are marked as lost at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context
from datetime import tzinfo
from inspect import isawaitable
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from ..callables import in_thread, is_async
from ..hub.failures import is_being_cancelled
from ..hub.hub import Hub, hub_ended, hub_opened
from ..hub.registry import open_hubs, process_part, running_loop
from ..namespaces import use_namespace
from .job import Job
from .writer import Writer
from .writers import Writers

logger: logging.Logger = logging.getLogger("django_sse_live")

RUNNING_MAX: Final = 64  # jobs that one process runs at once

Run = Callable[[Job], Any]


class Locale:
    """The language and the time zone of the code that runs as this object is made."""

    def __init__(self) -> None:
        self._language: str | None = translation.get_language()
        self._zone: tzinfo = timezone.get_current_timezone()

    def activate(self) -> None:
        """Have the rest of the running task or thread use them."""
        if self._language is None:
            translation.deactivate_all()
        else:
            translation.activate(self._language)
        timezone.activate(self._zone)


class Running:
    """The jobs that this process runs by run=. Changed under its lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._count = 0
        self._by_hub: dict[Hub, set[Writer]] = {}

    def reserve(self) -> None:
        """Take a place. Raises RuntimeError if there is none."""
        with self._lock:
            if self._count >= RUNNING_MAX:
                raise RuntimeError(
                    f"{RUNNING_MAX} jobs run in this process already: nothing was begun. Give such work to a task "
                    "queue, whose worker calls job.take()."
                )
            self._count += 1

    def release(self) -> None:
        with self._lock:
            self._count -= 1

    def begin(self, job: Job, run: Run) -> None:
        """Begin the work, in the place that reserve() took."""
        hub = _running_hub() if is_async(run) else None
        locale = Locale()
        if hub is None:
            thread = threading.Thread(
                target=self._run_in_thread, args=(job, run, locale), name="sse-live-job", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the process has as many as it may have
                self.release()
                job.writer.gatherer.abandon([job.writer])
                raise
            return
        with self._lock:
            self._by_hub.setdefault(hub, set()).add(job.writer)

        def spawn() -> None:  # in a context of its own, so that the request's does not live as long as the job
            Context().run(hub.spawn, self._run_on_hub(hub, job, run, locale))

        hub.loop.call_soon_threadsafe(spawn)

    async def _run_on_hub(self, hub: Hub, job: Job, run: Run, locale: Locale) -> None:
        locale.activate()
        try:
            with use_namespace(job.namespace):
                result = await run(job)
            await in_thread(_finish, job, result)
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # sys.exit() would end the worker
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():  # the loop ends
                _abandon({job.writer})
                raise
            _report(job)
            await in_thread(_fail, job, _("This did not work. Please try again."))
        finally:
            with self._lock:
                self._by_hub.get(hub, set()).discard(job.writer)
            self.release()
        hub.spawn(_close_old_connections())

    def _run_in_thread(self, job: Job, run: Run, locale: Locale) -> None:
        locale.activate()
        is_coroutine = False
        try:
            with use_namespace(job.namespace):
                result = run(job)
                if is_coroutine := isawaitable(result):  # also of a lambda that calls a coroutine function
                    result = asyncio.run(_until_done(result))
            _finish(job, result)
        except BaseException:  # sys.exit() of a command too: it ends the thread, and nothing else would end the job
            _report(job)
            _fail(job, _("This did not work. Please try again."))
        finally:
            connections.close_all()
            self.release()
        if is_coroutine:
            asyncio.run(_close_old_connections())

    def hub_ended(self, hub: Hub) -> None:
        with self._lock:
            writers = self._by_hub.pop(hub, set())
        _abandon(writers)


def _running_hub() -> Hub | None:
    """The hub of the running loop, or else any whose loop runs."""
    hubs = [hub for hub in open_hubs() if hub.loop.is_running() and not hub.is_closing]
    here = running_loop()
    return next((hub for hub in hubs if hub.loop is here), hubs[0] if hubs else None)


async def _until_done(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _close_old_connections() -> None:
    """Of the one thread in which coroutines outside of requests make their queries. Nobody else cares for them."""
    try:
        await sync_to_async(close_old_connections)()
    except Exception as error:  # of a driver, or of a test that may use no database
        logger.debug("Old database connections could not be closed: %r", error)


def _finish(job: Job, result: Any) -> None:
    """Finish the job with the returned value, unless the function has ended it."""
    if not job.writer.over:
        job.finish(result)


def _report(job: Job) -> None:
    logger.exception("The function that runs job %s failed; pages are told that it failed, and no more.", job.id)


def _fail(job: Job, message: str) -> None:
    if not job.writer.over:
        try:
            job.fail(message)
        except Exception:
            logger.exception("That job %s failed cannot be said: its lease lapses.", job.id)
            job.writer.gatherer.abandon([job.writer])


def _abandon(writers: set[Writer]) -> None:
    """Give up jobs, from their loop. In a thread, as a cache in a database refuses a thread whose loop runs; it is no
    daemon, so that the interpreter waits for it."""

    def abandon() -> None:
        for writer in writers:
            writer.gatherer.abandon([writer])

    def abandon_in_thread() -> None:
        abandon()
        connections.close_all()

    if writers:
        try:
            threading.Thread(target=abandon_in_thread, name="sse-live-job-end").start()
        except RuntimeError:  # the process may have no more threads
            abandon()


def _on_hub_opened(**_: Any) -> None:
    process_part(Writers).watch_signals()  # jobs begin in threads, and only the main thread may watch


def _on_hub_ended(*, hub: Hub, **_: Any) -> None:
    process_part(Running).hub_ended(hub)


def connect() -> None:
    """Called once, when the app is ready."""
    hub_opened.connect(_on_hub_opened, dispatch_uid="django_sse_live.jobs.running")
    hub_ended.connect(_on_hub_ended, dispatch_uid="django_sse_live.jobs")
