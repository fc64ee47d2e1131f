"""Outbox: from publish() to the Redis stream, in order, whether Redis is there or not.

While it is there, whoever publishes sends, under one lock, with a short wait for the answer. When that fails the event
goes to a bounded buffer, and one thread, which may wait longer, connects again and sends what is there; then publishers
send again. So a save waits for no connection, and for one answer for SEND_SECONDS at the most.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal

from ..events import NOW_PREFIX, RESERVED_PREFIX, Event
from ..hub.hub import LOST_EVENTS
from .outage import Outage
from .redis_entries import FIELD, SEAM, encode_entry, read_id
from .redis_server import UNAVAILABLE, Connection, RedisServer, ask, transaction, wait_at_most

logger: logging.Logger = logging.getLogger("django_sse_live")

SEND_SECONDS: Final = 0.05  # what a save may wait for an answer
FLUSH_SECONDS: Final = 2.0  # what the thread may wait for one
RETRY_SECONDS: Final = (0.05, 1.0)  # the thread's first and longest pause between two attempts
BATCH: Final = SEAM  # events in one round trip
NOW_LENGTH: Final = 500  # of the stream of what is worth nothing later; what a worker missed there is asked for again
KEPT: Final = 1_000  # control events that a full buffer does not give up

WhenFull = Literal["drop_oldest", "drop_newest"]


class _Parcel:
    """An event on its way. It is numbered when it is taken out of the waiting line, so in the order of sending."""

    __slots__ = ("event", "sequence", "is_sent")

    def __init__(self, event: Event) -> None:
        self.event: Event = event
        self.sequence: int = 0
        self.is_sent: bool = False


class Outbox:
    """One per process. send() from any thread; every attribute is changed under the lock alone, but for the waiting
    line, to which anyone may append."""

    def __init__(
        self,
        server: RedisServer,
        stream: str,
        now_stream: str,
        max_length: int,
        outage: Outage,
        *,
        max_events: int,
        max_bytes: int,
        when_full: WhenFull,
        exit_seconds: float,
    ) -> None:
        self.dropped: int = 0  # events given up, since the start
        self.epoch = ""  # of the stream, once somebody has asked for it
        self._server = server
        self._stream = stream
        self._now_stream = now_stream
        self._max_length = max_length
        self._outage = outage
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._when_full = when_full
        self._exit_seconds = exit_seconds
        self._publisher = secrets.token_hex(6)
        self._sequence = 0
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[_Parcel] = deque()
        self._is_sending = False
        self._connection: Connection = None  # set while publishers may send: the buffer is empty then
        self._has_failed = False  # since the buffer was last empty: nobody waits for the thread
        self._flushing: list[_Parcel] = []  # in the thread's hands
        self._kept: deque[_Parcel] = deque()  # control events saved from a full buffer
        self._buffer: deque[_Parcel] = deque()
        self._buffer_bytes = 0
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()
        atexit.register(self._at_exit)

    @property
    def buffered(self) -> int:
        return len(self._flushing) + len(self._kept) + len(self._buffer)

    def enqueue(self, event: Event) -> _Parcel:
        """Take a place in the order, without waiting for anything; to be followed by send()."""
        parcel = _Parcel(event)
        self._waiting.append(parcel)
        return parcel

    def send(self, parcel: _Parcel) -> None:
        """Send it, and whatever waits before it; or leave it to the thread."""
        with self._lock:
            if self._is_sending:
                return  # this very thread, interrupted by a signal handler or a finalizer: the loop below goes on
            self._is_sending = True
            try:
                while self._waiting:
                    self._send_waiting()
            finally:
                self._is_sending = False
            if not parcel.is_sent and not self._has_failed:
                # The first connection is being made. Whoever ends right after this should have been heard.
                self._changed.wait_for(lambda: parcel.is_sent or self._has_failed, SEND_SECONDS)

    @property
    def is_cut_off(self) -> bool:
        """Whether send() would do no more than put the event into the buffer."""
        return self._has_failed

    def close(self) -> None:
        """Give what is there a moment to get out, then stop."""
        atexit.unregister(self._at_exit)
        self._at_exit(0.5)

    # What publishers do, under the lock

    def _send_waiting(self) -> None:
        batch: list[_Parcel] = []
        while self._waiting and len(batch) < BATCH:
            parcel = self._waiting.popleft()
            self._sequence += 1
            parcel.sequence = self._sequence
            batch.append(parcel)
        if self._connection is not None:
            try:
                self._write(self._connection, batch)
                return
            except UNAVAILABLE as error:
                logger.debug("Sending to Redis failed, the buffer takes over: %r", error)
                self._disconnect(self._connection)
                self._connection = None
                self._has_failed = True
        for parcel in batch:
            self._keep(parcel)
        self._start_thread()

    def _keep(self, parcel: _Parcel) -> None:
        """Into the buffer; past its bounds something is given up, and a control event stands in its place."""
        if self._has_failed and parcel.event.type.startswith(NOW_PREFIX):
            return  # when Redis is back, that moment is over
        self._buffer.append(parcel)
        self._buffer_bytes += parcel.event.size
        while len(self._buffer) > self._max_events or self._buffer_bytes > self._max_bytes:
            if self._when_full == "drop_oldest":
                is_done = self._drop_oldest()
            else:
                is_done = self._drop_newest()
            if is_done:
                break

    def _drop_oldest(self) -> bool:
        marker = self._take(self._buffer.popleft()) if self._buffer[0].event.type == LOST_EVENTS else None
        if not self._buffer:
            return True
        oldest = self._take(self._buffer.popleft())
        if oldest.event.type.startswith(RESERVED_PREFIX) and len(self._kept) < KEPT:
            if marker is not None:  # what is sent first must have the lower number
                marker.sequence, oldest.sequence = oldest.sequence, marker.sequence
            self._kept.append(oldest)
        else:
            self._count_dropped()
            if marker is None:
                marker = _Parcel(Event(("sse.control",), LOST_EVENTS, "{}"))
            marker.sequence = oldest.sequence
        if marker is not None:
            self._buffer.appendleft(marker)
            self._buffer_bytes += marker.event.size
        return len(self._buffer) <= 2

    def _drop_newest(self) -> bool:
        newest = self._take(self._buffer.pop())
        if newest.event.type.startswith(RESERVED_PREFIX) and len(self._buffer) < self._max_events + KEPT:
            self._buffer.append(newest)
            self._buffer_bytes += newest.event.size
            return True
        self._count_dropped()
        if not self._buffer or self._buffer[-1].event.type != LOST_EVENTS:
            marker = _Parcel(Event(("sse.control",), LOST_EVENTS, "{}"))
            marker.sequence = newest.sequence
            self._buffer.append(marker)
            self._buffer_bytes += marker.event.size
        return True

    def _take(self, parcel: _Parcel) -> _Parcel:
        self._buffer_bytes -= parcel.event.size
        return parcel

    def _count_dropped(self) -> None:
        if not self.dropped:
            logger.error(
                "The buffer of broadcasts that wait for Redis is full (BUFFER_EVENTS %d, BUFFER_BYTES %d): events are "
                "given up (%s), and clients will be told by a reset.",
                self._max_events,
                self._max_bytes,
                self._when_full,
            )
        self.dropped += 1

    def _start_thread(self) -> None:
        if self._thread is not None or self._is_closed.is_set():
            return
        self._thread = threading.Thread(target=self._flush, name="sse-live-flush", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is shutting down: _at_exit() sends it
            self._thread = None

    # What the thread does

    def _flush(self, until: float = float("inf")) -> None:
        connection: Connection = None
        pause, longest = RETRY_SECONDS
        while True:
            try:
                if connection is None:
                    connection = self._server.connect(FLUSH_SECONDS)
                    wait_at_most(connection, FLUSH_SECONDS)
                while self._next_batch():
                    self._write(connection, self._flushing)
                    pause = RETRY_SECONDS[0]
                if self._hand_over(connection):
                    return
            except Exception as error:  # this thread must not end while something waits for it
                self._disconnect(connection)
                connection = None
                if self._fail(error) and not isinstance(error, UNAVAILABLE):
                    logger.exception("Sending to the SSE stream failed.")
                if self._is_closed.wait(pause) or time.monotonic() > until:
                    break
                pause = min(2 * pause, longest)
        with self._lock:
            self._thread = None
            self._changed.notify_all()

    def _next_batch(self) -> bool:
        """What was under way when the last attempt failed, else the next that are waiting."""
        with self._lock:
            if self._flushing and self._flushing[0].is_sent:
                self._flushing = []
            if not self._flushing:
                source = self._kept or self._buffer
                while source and len(self._flushing) < BATCH:
                    parcel = source.popleft()
                    if source is self._buffer:
                        self._take(parcel)
                    self._flushing.append(parcel)
            return bool(self._flushing)

    def _hand_over(self, connection: Connection) -> bool:
        """From now on publishers send, unless something has come meanwhile."""
        with self._lock:
            if self._kept or self._buffer:
                return False
            self._thread = None
            self._has_failed = False
            if self._is_closed.is_set():
                self._disconnect(connection)
            else:
                wait_at_most(connection, SEND_SECONDS)
                self._connection = connection
            self._changed.notify_all()
        self._outage.works(self)
        return True

    def _fail(self, error: BaseException) -> bool:
        with self._lock:
            self._has_failed = True
            self._changed.notify_all()
        return self._outage.fails(self, error)

    # What both do

    def _write(self, connection: Connection, batch: Sequence[_Parcel]) -> None:
        """XADD them; all or none, so that the sequences in the stream only grow."""
        commands: list[tuple[Any, ...]] = []
        for parcel in batch:
            to = self._stream, "MAXLEN", "~", self._max_length
            if parcel.event.type.startswith(NOW_PREFIX):
                to = self._now_stream, "MAXLEN", "~", NOW_LENGTH
            commands.append(("XADD", *to, "*", FIELD, encode_entry(parcel.event, self._publisher, parcel.sequence)))
        ids = ask(connection, commands) if len(batch) == 1 else ask(connection, transaction(*commands))[-1]
        with self._lock:
            for parcel, entry_id in zip(batch, ids, strict=True):
                if isinstance(entry_id, Exception):
                    raise entry_id
                parcel.event.stamp(self.epoch, read_id(entry_id))
                parcel.is_sent = True
            self._changed.notify_all()

    def _disconnect(self, connection: Connection) -> None:
        if connection is not None:
            try:
                connection.disconnect()
            except UNAVAILABLE as error:
                logger.debug("Closing a connection to Redis: %r", error)

    # The end of the process

    def _at_exit(self, seconds: float | None = None) -> None:
        if os.getpid() != self._pid:
            return  # a child of the process that this outbox belongs to
        with self._lock:
            if not self._is_sending:
                while self._waiting and not self._is_closed.is_set():
                    self._send_waiting()
            if self.buffered:
                self._start_thread()
        until = time.monotonic() + (self._exit_seconds if seconds is None else seconds)
        with self._lock:
            if self._thread is not None:
                self._changed.wait_for(lambda: not self.buffered, max(0.0, until - time.monotonic()))
        if self.buffered and self._thread is None and not self._is_closed.is_set():
            self._flush(until)  # no thread could be started: this one does its work
        self._is_closed.set()
        with self._lock:
            left = self.buffered
            self._disconnect(self._connection)
            self._connection = None
        self._outage.forget(self)
        if left:
            logger.error("%d SSE broadcasts are lost: Redis did not come back before this process ended.", left)
