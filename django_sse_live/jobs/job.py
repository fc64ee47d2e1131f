"""Job: what the project has in its hands, in whatever process. Each method that asks the cache has an async twin."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from django.db import connections

from ..conf import live_settings
from ..http.tokens import sign_job
from ..hub.registry import process_part
from ..wire import compact_json, encode_json
from .records import End, Found, Record, State, job_channel
from .store import job_store
from .writer import JobOver, Writer
from .writers import Writers, publish_frames

LABEL_MAX_CHARACTERS: Final = 200
ERROR_MAX_CHARACTERS: Final = 2000
RESULT_MAX_BYTES: Final = 64 * 1024

Result = TypeVar("Result")


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """What asks the cache, which may be in a database: the thread's connections are closed behind it."""

    def call() -> Result:
        try:
            return function(*arguments)
        finally:
            connections.close_all()

    return await asyncio.to_thread(call)


async def read_job(id: str) -> Found | None:
    """What the cache has of a job, on whoever's behalf."""
    return (await in_thread(job_store().read, [id])).get(id)


class Job:
    """One long piece of work, as it was when it was found; refresh() looks again. Who started it, or took it, writes.

    Methods of a writer raise JobOver once it has ended or is another's; those of anybody else PermissionError. What is
    written after it was cancelled is dropped in silence: is_cancelled is True then, within half a second.
    """

    def __init__(self, record: Record, end: End | None, state: State, writer: Writer | None = None) -> None:
        self.is_new: bool = writer is not None  # this very call has begun it: whoever did is to do the work
        self._record = record
        self._end = end
        self._state: State = state
        self._writer = writer
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state}>"

    @classmethod
    def of(cls, found: Found) -> Job:
        return cls(found.record, found.end, found.state)

    # What it is

    @property
    def id(self) -> str:
        """32 hexadecimal digits. It gives no right to anything."""
        return self._record.id

    @property
    def channel(self) -> str:
        return job_channel(self.id)

    @property
    def owner(self) -> str | None:
        """The owner's primary key, as text."""
        return self._record.owner

    @property
    def namespace(self) -> str:
        return self._record.namespace

    @property
    def state(self) -> State:
        """running, finished, failed, cancelled, expired, or lost: nobody has said for 20 s that it runs."""
        if self._writer is None or (self._writer.over and self._writer.end is None):
            return self._state
        return "running" if self._writer.end is None else self._writer.end.state

    @property
    def text(self) -> str:
        return self._record.text if self._writer is None else self._writer.text

    @property
    def fraction(self) -> float | None:
        """What progress() was last given: 0 to 1, or None."""
        return self._record.progress

    @property
    def label(self) -> str:
        return self._record.label

    @property
    def result(self) -> Any:
        """What finish() was given, as plain JSON."""
        end = self._ended
        return None if end is None else end.result

    @property
    def error(self) -> str:
        """What fail() was given."""
        end = self._ended
        return "" if end is None else end.error

    @property
    def _ended(self) -> End | None:
        return self._end if self._writer is None else self._writer.end

    @property
    def is_cancelled(self) -> bool:
        """Whether whoever does the work should stop. A plain attribute, kept by a thread: it costs nothing to ask."""
        return self.state == "cancelled" if self._writer is None else self._writer.is_cancelled

    @property
    def token(self) -> str:
        """A signed token to watch it: the owner's, who must be logged in, and may stop it; of a job without an owner,
        anybody's, who may not."""
        return sign_job(self.channel, self.namespace, owner=self.owner, may_stop=self.owner is not None)

    def sign(self, *, may_stop: bool = False, max_age: float | None = None) -> str:
        """A token for whoever it is given to. ``max_age``: seconds, by default TOKEN_MAX_AGE_SECONDS."""
        return sign_job(self.channel, self.namespace, may_stop=may_stop, max_age=max_age)

    # What its producer says

    def write(self, text: str) -> None:
        """Append text. Touches neither the cache nor the bus, and costs microseconds.

        TypeError for anything but a str; ValueError where the text would have more than JOB_TEXT_MAX_BYTES.
        """
        if not isinstance(text, str):
            raise TypeError(f"A job's text is a str, not {type(text).__name__}. Decode bytes incrementally.")
        writer = self.writer
        if writer.write(text):
            writer.home.poke()

    def progress(self, fraction: float | None, label: str | None = None) -> None:
        """How far it is, 0 to 1, or None where nobody knows; and in a few words what it does. ValueError for another
        number, or for more than 200 characters."""
        if fraction is not None and (
            isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1
        ):
            raise ValueError(f"Progress is a number from 0 to 1, such as 0.4, or None; not {fraction!r}.")
        writer = self.writer
        writer.progress(fraction, None if label is None else _text("label", label, LABEL_MAX_CHARACTERS))
        writer.home.poke()

    def finish(self, result: Any = None) -> bool:
        """It has ended well. ``result``: JSON-able, at most 64 KiB, for the pages. Whether this has ended it: False
        where it had been cancelled before. What the cache raises is raised, and the job goes on."""
        return self._finish(End("finished", result=_plain(result)))

    def fail(self, message: str) -> bool:
        """It has failed. ``message``: what visitors are shown; never an exception's own text."""
        return self._finish(End("failed", error=_text("message", message, ERROR_MAX_CHARACTERS)))

    def cancel(self) -> bool:
        """Stop it, from whatever process. Whether this has ended it; what had ended before stays as it was."""
        if self._writer is not None and not self._writer.over:
            return self._writer.home.end(self._writer, End("cancelled"))
        return self._stop() == "cancelled"

    def _stop(self) -> State:
        store, end = job_store(), End("cancelled")
        found = store.read([self.id]).get(self.id)
        if found is None:
            self._state = "expired"
        elif found.end is None and store.end(self.id, end, found.record.ttl_seconds) is end:
            record = self._record = found.record
            self._end, self._state = end, "cancelled"
            # No text, and no length: what its writer has not said yet is still to come.
            said = {**record.frame("cancelled", 0, ""), "length": 0}
            publish_frames([compact_json({**said, "namespace": record.namespace, "owner": record.owner})])
        else:
            self.refresh()
        return self.state

    def _finish(self, end: End) -> bool:
        writer = self.writer
        if writer.over and not writer.is_cancelled:
            raise JobOver(writer.over)
        return writer.home.end(writer, end)

    @property
    def writer(self) -> Writer:
        """Internal. PermissionError where this object may not write."""
        writer = self._writer
        if writer is None or self._pid != os.getpid():
            raise PermissionError(
                f"Job {self.id} is written by another process, or by whoever got it with is_new. Ask job.is_new before "
                "doing the work, or job.take() it."
            )
        return writer

    # In any process

    def refresh(self) -> Job:
        """Look again at what the cache has of it. Itself."""
        found = job_store().read([self.id]).get(self.id)
        if self._writer is not None and (not self._writer.over or self._writer.end is not None):
            return self
        if found is None:
            self._state = "expired"
        else:
            self._record, self._end, self._state = found.record, found.end, found.state
            self._writer = None
        return self

    def take(self) -> Job:
        """The right to write moves to this process: of a task that was handed the id by who started the job. Itself.

        JobOver if it has ended; ValueError if something has been written, whose end this process cannot know;
        RuntimeError in a transaction of the database that has the cache.
        """
        store = job_store()
        found = store.read([self.id]).get(self.id)
        if found is None or found.end is not None:
            raise JobOver(f"job {self.id} is {'expired' if found is None else found.state}")
        if found.record.length:
            raise ValueError(f"Job {self.id} has been begun by another writer. Start one anew: start_job().")
        found.record.n += 1_000_000  # above whatever its writer until now may still say
        self._writer = Writer(found.record, store.take(self.id))
        self._record, self._pid = found.record, os.getpid()
        process_part(Writers).add(self._writer)
        return self

    async def awrite(self, text: str) -> None:
        """write() from a coroutine, which it does not hold up; it lets others run."""
        self.write(text)
        await asyncio.sleep(0)

    async def aprogress(self, fraction: float | None, label: str | None = None) -> None:
        """progress() from a coroutine."""
        self.progress(fraction, label)

    async def afinish(self, result: Any = None) -> bool:
        """finish() from a coroutine."""
        return await in_thread(self.finish, result)

    async def afail(self, message: str) -> bool:
        """fail() from a coroutine."""
        return await in_thread(self.fail, message)

    async def acancel(self) -> bool:
        """cancel() from a coroutine."""
        return await in_thread(self.cancel)

    async def arefresh(self) -> Job:
        """refresh() from a coroutine."""
        return await in_thread(self.refresh)

    async def atake(self) -> Job:
        """take() from a coroutine."""
        return await in_thread(self.take)


def _text(name: str, value: str, most: int) -> str:
    if not isinstance(value, str):
        value = str(value)  # of gettext_lazy()
    if len(value) > most:
        raise ValueError(f"The {name} of a job has at most {most} characters; this one has {len(value)}.")
    return value.encode("utf-8", "replace").decode()


def _plain(result: Any) -> Any:
    text = encode_json(result, live_settings().json_encoder)
    if len(text.encode()) > RESULT_MAX_BYTES:
        raise ValueError(
            f"The result of a job has at most {RESULT_MAX_BYTES} bytes as JSON: finish it with a link to the rest."
        )
    return json.loads(text)
