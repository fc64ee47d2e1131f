"""Writers: all writers of a process, and the thread that gathers what they write.

Who may touch what: see jobs/__init__.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from django.db import close_old_connections, connections, reset_queries

from ..backends import get_backend
from ..events import CONTROL_CHANNEL, Event
from ..exits import ExitWork
from ..hub.failures import guarded, report_failure
from ..wire import compact_json
from .records import DELTAS, End, State, end_key, end_of, lease_key, next_key, watched_key
from .store import JobStore, job_store
from .writer import Writer

logger: logging.Logger = logging.getLogger("django_sse_live")

GATHER_SECONDS: Final = 0.05
STORE_SECONDS: Final = 0.5  # between two writes of a job's state
LOOK_SECONDS: Final = 0.5  # between two queries of the cache for ends and stops
LEASE_RENEW_SECONDS: Final = 5.0  # between two renewals of the leases, which also tell hubs which jobs run
LINGER_SECONDS: Final = 1.0  # how long the thread waits for another job
EXIT_SECONDS: Final = 2.0  # how long a process that exits waits for the running round
BATCH_CHARACTERS: Final = 64 * 1024  # of deltas in one message on the bus


class Writers:
    """The writers of one process."""

    def __init__(self) -> None:
        self.started: int = 0  # jobs since the process started
        self.ended: Counter[str] = Counter()  # by state
        self._lock = threading.RLock()  # guards the next two
        self._writers: dict[Writer, None] = {}
        self._thread: threading.Thread | None = None
        self._rounds = threading.RLock()  # one round, or one end, at a time, so that deltas go out in order
        self._news = threading.Event()
        self._look_at = self._beat_at = 0.0
        self._has_failed = self._has_warned = False
        self._exit = ExitWork(self.abandon, lambda: bool(self._writers))
        self.watch_signals: Callable[[], None] = self._exit.watch_signals

    def add(self, writer: Writer) -> None:
        writer.gatherer = self
        try:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="sse-live-jobs", daemon=True)
                    thread.start()
                    self._thread = thread
                self._writers[writer] = None
                self.started += 1
        except RuntimeError:  # the process may have no more threads
            self.abandon([writer])
            raise
        self.watch_signals()
        self._news.set()

    @property
    def count(self) -> int:
        """The number of jobs that this process writes now."""
        return len(self._writers)

    def warn(self, text: str) -> None:
        """Log a warning, once for each process."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning(text)

    def poke(self) -> None:
        if not self._news.is_set():
            self._news.set()

    def _remove(self, writer: Writer, state: str) -> None:
        with self._lock:
            if writer in self._writers:
                self.ended[state] += 1
            self._writers.pop(writer, None)

    # The thread

    def _run(self) -> None:
        idle_at = 0.0
        while True:
            self._news.wait(LOOK_SECONDS)
            time.sleep(GATHER_SECONDS)
            self._news.clear()
            try:
                with self._rounds:
                    self._round()
                self._has_failed = False
            except Exception:  # the cache is away or full: the leases lapse unless it is back in time
                if not self._has_failed:
                    self._has_failed = True
                    report_failure("The state of jobs cannot be written; it is tried again.")
                guarded(close_old_connections)
            reset_queries()  # a cache in a database: no request ends here, and DEBUG would keep each stored text
            if self._writers:
                idle_at = 0.0
                continue
            idle_at = idle_at or time.monotonic() + LINGER_SECONDS
            with self._lock:
                if not self._writers and time.monotonic() >= idle_at:
                    self._thread = None
                    connections.close_all()  # of a cache in a database
                    return

    def _round(self) -> None:
        with self._lock:
            writers = list(self._writers)
        if not writers:
            return
        now = time.monotonic()
        is_beat = now >= self._beat_at
        self._publish(said for writer in writers if (said := writer.take(must=is_beat)) is not None)
        store = job_store()
        try:
            self._store(store, [writer for writer in writers if now - writer.stored_at >= STORE_SECONDS])
        finally:  # a cache that is full still renews leases and tells of stops
            if is_beat or now >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                self._look(store, writers, is_beat)
        if is_beat:
            self._beat_at = now + LEASE_RENEW_SECONDS

    def _store(self, store: JobStore, writers: Iterable[Writer]) -> None:
        due = [writer for writer in writers if writer.record.n != writer.stored_n]
        if without_text := [writer for writer in due if not writer.record.length]:
            values = store.standing(writer.record for writer in without_text)
            due = [writer for writer in due if writer.record.length or not _is_taken(writer, values)]
        if not due:
            return
        store.put(writer.record for writer in due)
        now = time.monotonic()
        for writer in due:
            writer.stored_at = now
            writer.stored_n, writer.stored_length = writer.record.n, writer.record.length

    def _look(self, store: JobStore, writers: list[Writer], is_beat: bool) -> None:
        """Find the jobs that were stopped, have another writer, or are watched by nobody."""
        values = store.standing(writer.record for writer in writers)
        now = time.monotonic()
        for writer in writers:
            record = writer.record
            if writer.over:
                continue
            end, lease = values.get(end_key(record.id)), values.get(lease_key(record.id))
            if end is None and self._is_alone(writer, values, now):
                end = store.end(record.id, End("cancelled"), record.ttl_seconds)
            if end is not None and not isinstance(end, End):
                end = end_of(end)
            if end is not None and end.state == "cancelled":
                writer.end = end
                self._finish(store, writer, f"job {record.id} has been stopped", is_cancelled=True)
            elif end is not None or next_key(record.id) in values or lease not in (None, writer.lease):
                writer.give_up(f"job {record.id} has another writer", is_cancelled=next_key(record.id) in values)
                self._remove(writer, "taken")
            else:
                if lease is None:
                    store.lease_again(record.id, writer.lease)
                soon = min(LEASE_RENEW_SECONDS, record.ttl_seconds / 4)
                if is_beat or now - writer.renewed_at > soon:
                    store.renew(record, lease=is_beat, state=now - writer.stored_at > soon)
                    writer.renewed_at = now

    def _is_alone(self, writer: Writer, values: dict[str, Any], now: float) -> bool:
        """Whether nobody has watched for too long. The cache keeps a watcher's note for half of that time; the other
        half is waited for here, since the cache may lose a note."""
        seconds = writer.record.alone_seconds
        if seconds is None or watched_key(writer.record.id) in values:
            writer.alone_at = now
            return False
        return now - writer.alone_at >= seconds / 2

    def _finish(self, store: JobStore, writer: Writer, why: str, *, is_cancelled: bool = False) -> None:
        """Send the last frame of a job whose end is stored, under the lock of rounds."""
        assert writer.end is not None
        writer.close(why, is_cancelled=is_cancelled)
        self._send_last(store, writer, writer.end.state)

    def _send_last(self, store: JobStore, writer: Writer, state: State) -> None:
        said = writer.take(state, must=True)
        try:
            self._publish([said] if said is not None else [])
            try:
                self._store(store, [writer])
                store.release(writer.record.id)
            except Exception:
                report_failure("The last that was written to job %s cannot be stored.", writer.record.id)
        finally:  # no sooner: a process that exits waits for it
            self._remove(writer, state)

    def _publish(self, said: Iterable[dict[str, Any]]) -> None:
        batch: list[str] = []
        size = 0
        for frame in said:
            text = compact_json(frame)
            if batch and size + len(text) > BATCH_CHARACTERS:
                publish_frames(batch)
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        if batch:
            publish_frames(batch)

    # Ends, in the producer's thread

    def end(self, writer: Writer, end: End) -> bool:
        """End a job. False if it had ended before. If the cache raises, the error is raised and the job goes on."""
        with self._rounds:
            if writer.over:
                return writer.end is end
            store = job_store()
            writer.close(f"job {writer.record.id} is {end.state}")
            try:
                said = writer.take()  # the text is stored before anybody can see the end
                self._publish([said] if said is not None else [])
                self._store(store, [writer])
                writer.end = store.end(writer.record.id, end, writer.record.ttl_seconds)
            except BaseException:
                writer.reopen()
                raise
            is_cancelled = writer.end.state == "cancelled"
            self._finish(store, writer, writer.over, is_cancelled=is_cancelled)
            # The cache may have taken it before, and not answered; of two who cancel, the second did not.
            return writer.end is end or (writer.end == end and not is_cancelled)

    def abandon(self, writers: Iterable[Writer] | None = None) -> None:
        """Give up jobs without an end: their text is kept, and pages see them as lost."""
        if not self._rounds.acquire(timeout=EXIT_SECONDS):
            return  # the cache does not answer: the leases lapse
        try:
            with self._lock:
                some = list(self._writers if writers is None else writers)
            store = job_store()
            try:
                values = store.standing(writer.record for writer in some)
            except Exception:  # the cache is away: what comes next says so
                values = {}
            for writer in some:
                if writer.over:
                    continue
                if _is_taken(writer, values):
                    writer.give_up(f"job {writer.record.id} has another writer")
                    self._remove(writer, "taken")
                    continue
                writer.give_up(f"job {writer.record.id} is lost, as its process ends")
                self._send_last(store, writer, "lost")
        finally:
            self._rounds.release()


def _is_taken(writer: Writer, values: dict[str, Any]) -> bool:
    """Whether another writer has the job or has ended it: it may have stored more than this one."""
    id = writer.record.id
    return values.get(lease_key(id), writer.lease) != writer.lease or (end_key(id) in values and not writer.over)


def publish_frames(frames: list[str]) -> None:
    get_backend().publish_deltas(Event((CONTROL_CHANNEL,), DELTAS, f'{{"jobs":[{",".join(frames)}]}}'))
