"""Job: the object that a project works with, in any process. Each method that asks the cache has an async twin."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, Final

from ..callables import in_thread
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


async def read_job(id: str) -> Found | None:
    """What the cache has of a job, without any check of permission."""
    return (await in_thread(job_store().read, [id])).get(id)


class Job:
    """One long piece of work, as it was when it was found; refresh() reads it anew. Only the caller that started it, or
    took it, may write.

    Methods of a writer raise JobOver once the job has ended or has another writer, and PermissionError for other
    callers. Text that is written after a cancellation is dropped silently; ``is_cancelled`` is True within half a
    second.
    """

    def __init__(self, record: Record, end: End | None, state: State, writer: Writer | None = None) -> None:
        self.is_new: bool = writer is not None  # this call has begun the job, so its caller does the work
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

    # Its state

    @property
    def id(self) -> str:
        """32 hexadecimal digits. Knowing them gives no permission."""
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
        """running, finished, failed, cancelled, expired, or lost (its producer has been silent for 20 s)."""
        writer = self._in_charge
        if writer is None:
            return self._state
        return "running" if writer.end is None else writer.end.state

    @property
    def text(self) -> str:
        writer = self._in_charge
        return self._record.text if writer is None else writer.text

    @property
    def fraction(self) -> float | None:
        """The last value given to progress(): 0 to 1, or None."""
        return self._record.progress

    @property
    def label(self) -> str:
        return self._record.label

    @property
    def result(self) -> Any:
        """The value given to finish(), as plain JSON."""
        end = self._ended
        return None if end is None else end.result

    @property
    def error(self) -> str:
        """The message given to fail()."""
        end = self._ended
        return "" if end is None else end.error

    @property
    def _ended(self) -> End | None:
        writer = self._in_charge
        return self._end if writer is None else writer.end

    @property
    def _in_charge(self) -> Writer | None:
        """The writer of this object, if what it says counts, and not what the cache has."""
        return None if self._writer is None or self._writer.is_given_up else self._writer

    @property
    def is_cancelled(self) -> bool:
        """Whether the producer should stop. A plain attribute, kept up to date by a thread: reading it costs
        nothing."""
        return self.state == "cancelled" or (self._writer is not None and self._writer.is_cancelled)

    @property
    def token(self) -> str:
        """A signed token to watch the job. A job's owner must be logged in to use it, and may stop the job; without an
        owner, anybody who has the token may watch, and not stop it."""
        return sign_job(self.channel, self.namespace, owner=self.owner, may_stop=self.owner is not None)

    def sign(self, *, may_stop: bool = False, max_age: float | None = None) -> str:
        """A token that lets anybody who has it watch. ``max_age``: seconds, by default TOKEN_MAX_AGE_SECONDS."""
        return sign_job(self.channel, self.namespace, may_stop=may_stop, max_age=max_age)

    # For its producer

    def write(self, text: str) -> None:
        """Append text. Touches neither the cache nor the bus: it takes microseconds.

        TypeError for anything but a str, ValueError if the text would exceed JOB_TEXT_MAX_BYTES.
        """
        if not isinstance(text, str):
            raise TypeError(f"A job's text is a str, not {type(text).__name__}. Decode bytes incrementally.")
        writer = self.writer
        if writer.write(text):
            writer.gatherer.poke()

    def progress(self, fraction: float | None, label: str | None = None) -> None:
        """Set the fraction done, 0 to 1 or None if unknown, and a label of a few words. Raises ValueError for another
        number, or a label of more than 200 characters."""
        if fraction is not None and (
            isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1
        ):
            raise ValueError(f"Progress is a number from 0 to 1, such as 0.4, or None; not {fraction!r}.")
        writer = self.writer
        writer.progress(fraction, None if label is None else _text("label", label, LABEL_MAX_CHARACTERS))
        writer.gatherer.poke()

    def finish(self, result: Any = None) -> bool:
        """End the job well. Returns False if it was cancelled before. If the cache raises, the error is raised and the
        job goes on. ``result``: JSON-able, at most 64 KiB, for the pages."""
        return self._finish(End("finished", result=_plain(result)))

    def fail(self, message: str) -> bool:
        """End the job as failed. ``message``: shown to visitors, so never an exception's own text."""
        return self._finish(End("failed", error=_text("message", message, ERROR_MAX_CHARACTERS)))

    def cancel(self) -> bool:
        """Stop the job, from any process. Returns False if it had ended before; that end stands."""
        if self._writer is not None and not self._writer.over:
            return self._writer.gatherer.end(self._writer, End("cancelled"))
        return self._stop() == "cancelled"

    def _stop(self) -> State:
        store, end = job_store(), End("cancelled")
        found = store.read([self.id]).get(self.id)
        if found is None:
            self._state = "expired"
        elif found.end is None and store.end(self.id, end, found.record.ttl_seconds) is end:
            record = self._record = found.record
            self._end, self._state = end, "cancelled"
            # No text, and no length: its writer may still send more.
            said = {**record.frame("cancelled", 0, ""), "length": 0}
            publish_frames([compact_json({**said, "namespace": record.namespace, "owner": record.owner})])
        else:
            self.refresh()
        return self.state

    def _finish(self, end: End) -> bool:
        writer = self.writer
        if writer.over and not writer.is_cancelled:
            raise JobOver(writer.over)
        return writer.gatherer.end(writer, end)

    @property
    def writer(self) -> Writer:
        """Internal. Raises PermissionError if this object may not write."""
        writer = self._writer
        if writer is None or self._pid != os.getpid():
            raise PermissionError(
                f"Job {self.id} is written by another process, or by the caller that began it. Ask job.is_new before "
                "doing the work, or job.take() it."
            )
        return writer

    # For any process

    def refresh(self) -> Job:
        """Read the job's state from the cache again. Returns itself."""
        found = job_store().read([self.id]).get(self.id)
        if self._in_charge is not None:
            return self
        if found is None:
            self._state = "expired"
        else:
            self._record, self._end, self._state = found.record, found.end, found.state
        return self

    def take(self) -> Job:
        """Move the right to write to this process: for a task that got the id from the caller that started the job.
        Returns itself.

        JobOver if the job has ended.
        ValueError if it has text, whose end this process cannot know.
        RuntimeError in a transaction of the database that holds the cache.
        """
        store = job_store()
        found = store.read([self.id]).get(self.id)
        if found is None or found.end is not None:
            raise JobOver(f"job {self.id} is {'expired' if found is None else found.state}")
        if found.record.length:
            raise ValueError(f"Job {self.id} has been begun by another writer. Start one anew: start_job().")
        found.record.n += 1_000_000  # above any number that its writer until now may still send
        self._writer = Writer(found.record, store.take(self.id))
        self._record, self._pid = found.record, os.getpid()
        process_part(Writers).add(self._writer)
        return self

    async def awrite(self, text: str) -> None:
        """write() from a coroutine: it does not block, and lets other tasks run."""
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
        value = str(value)  # a gettext_lazy() string
    if len(value) > most:
        raise ValueError(f"The {name} of a job has at most {most} characters; this one has {len(value)}.")
    return value.encode("utf-8", "replace").decode()


def _plain(result: Any) -> Any:
    try:
        text = encode_json(result, live_settings().json_encoder)
    except TypeError as error:
        raise TypeError(f"The result of a job is not JSON-able: {error}. Give plain values, such as a link.") from error
    if len(text.encode()) > RESULT_MAX_BYTES:
        raise ValueError(
            f"The result of a job has at most {RESULT_MAX_BYTES} bytes as JSON: finish it with a link to the rest."
        )
    return json.loads(text)
