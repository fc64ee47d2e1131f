"""Outbox: from publish() to the Redis stream, in order and once, whether Redis is there or not.

While Redis answers quickly, the publishing thread sends, under one lock, and waits for the answer for SEND_SECONDS at
the most. When that fails the event goes to a bounded buffer, and one thread, which may wait longer, connects again and
sends the buffer. So a save never waits for a connection.

Where Redis goes on with less than it had acknowledged (a failover, a restart from an older state), what is missing is
sent again. How an event whose answer was lost is added once: stream_writer.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import redis

from ...events import Event
from ...exits import ExitWork
from .buffer import Buffer, Parcel, WhenFull
from .recent import Recent
from .server import UNAVAILABLE, Client, close_client
from .stream import RedisStream
from .stream_writer import BATCH_EVENTS, StreamWriter

logger: logging.Logger = logging.getLogger("django_sse_live")

SEND_SECONDS: Final = 0.05  # what a save may wait for an answer
NEAR_SECONDS: Final = 0.02  # a server whose answers take longer is written to by the thread alone
FLUSH_SECONDS: Final = 2.0  # what the thread may wait for one
RETRY_SECONDS: Final = (0.05, 1.0)  # the thread's first and longest pause between two attempts
CONFIRM_SECONDS: Final = 1.0  # how often the thread asks whether what was acknowledged is still there
NEAR_TRIES: Final = 3
NEAR_AGAIN_SECONDS: Final = 5.0  # after which a server that was too far is tried again


class Outbox:
    """One per process. send() from any thread; every attribute is changed under the lock alone, but for the waiting
    line, to which anyone may append. In the order of sending: unanswered, buffer, waiting."""

    def __init__(
        self, stream: RedisStream, *, max_events: int, max_bytes: int, when_full: WhenFull, exit_seconds: float
    ) -> None:
        self._stream = stream
        self._exit_seconds = exit_seconds
        self._writer = StreamWriter(stream)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # something was sent, or could not be
        self._must_look = threading.Event()  # the thread has something to do
        self._waiting: deque[Parcel] = deque()
        self._is_sending = False
        self._client: Client = None  # set while publishers send: nothing waits for the thread then
        self._address: object = None  # of that client's server, where it can move
        self._is_away = False  # an attempt has failed since the buffer was last empty: nobody waits for the thread
        self._is_far = False  # the thread sends though Redis is there
        self._near_again_at = 0.0  # monotonic
        self._unanswered: list[Parcel] = []  # numbered
        self._buffer = Buffer(max_events=max_events, max_bytes=max_bytes, when_full=when_full)
        self._recent = Recent()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._exit = ExitWork(self._end, lambda: bool(self.buffered or self._waiting or self._must_ask_at_exit))
        self.watch_signals: Callable[[], None] = self._exit.watch_signals

    @property
    def buffered(self) -> int:
        return len(self._unanswered) + len(self._buffer)

    @property
    def dropped(self) -> int:
        return self._buffer.dropped

    @property
    def is_quick(self) -> bool:
        """Whether send() would do no more than put the event into the buffer. While the thread sends, it also waits
        where the buffer fills faster than that: nothing is given up while Redis takes it."""
        if self._client is not None:
            return False
        return self._is_away or (self._is_far and not self._buffer.is_half_full)

    def enqueue(self, event: Event) -> Parcel:
        """Take a place in the order, without waiting for anything; to be followed by send()."""
        parcel = Parcel(event)
        self._waiting.append(parcel)
        return parcel

    def send(self, parcel: Parcel) -> None:
        """Send it, and whatever waits before it; or leave it to the thread."""
        self.watch_signals()
        with self._lock:
            if self._is_sending:
                return  # this very thread, interrupted by a signal handler or a finalizer: the loop below goes on
            self._is_sending = True
            try:
                while self._waiting:
                    self._send_waiting()
            finally:
                self._is_sending = False
            if not (parcel.is_sent or self.is_quick or self._is_closed):
                # A connection is being made. A process that ends right after this should have sent its event.
                self._changed.wait_for(lambda: parcel.is_sent or self.is_quick, SEND_SECONDS)

    def close(self) -> None:
        """Give what is there a moment to get out, then stop."""
        self._exit.cancel()
        self._end(0.5)
        with self._lock:
            self._is_closed = True
            close_client(self._client)
            self._client = None
        self._must_look.set()
        self._stream.outage.forget(self)

    # What publishers do, under the lock

    def _send_waiting(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_EVENTS))]
        client = self._client
        if client is None:
            for parcel in batch:
                if self._is_away and parcel.is_of_now:
                    parcel.is_sent = True  # when Redis is back, that moment is over
                else:
                    self._buffer.put(parcel)
        else:
            self._unanswered = batch
            try:
                self._write(client)
                if self._thread is not None:
                    return
            except UNAVAILABLE as error:
                self._stop_direct(error)
        self._start_thread()

    def _stop_direct(self, error: Exception) -> None:
        """The thread sends. It makes a connection that was closed again at once; a server without an answer is away."""
        logger.debug("Sending to Redis is left to the thread: %r", error)
        client, self._client = self._client, None
        self._is_away = self._is_away or not isinstance(error, redis.ConnectionError)
        close_client(client)
        self._must_look.set()

    def _start_thread(self) -> None:
        self._must_look.set()
        if self._thread is not None or self._is_closed:
            return
        self._thread = threading.Thread(target=self._run, name="sse-live-flush", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is shutting down: _end() sends it
            self._thread = None

    # What the thread does

    def _run(self, until: float | None = None) -> None:
        """Until nothing is left to do. ``until``: a monotonic time, where the thread that ends the process does it."""
        client: Client = None
        is_near = False
        pause, longest = RETRY_SECONDS
        while True:
            try:
                if self._client is None:
                    if client is None:
                        client, is_near = self._open()
                        self._reconcile(client)
                    while self._next_batch():
                        self._write(client)
                        pause = RETRY_SECONDS[0]
                        with self._lock:
                            self._is_away, self._is_far = False, True
                    if not is_near and (near := self._open_near()) is not None:
                        close_client(client)
                        client, is_near = near, True
                        self._reconcile(client)
                    if self._is_empty(client if is_near else None):
                        client = None if is_near else client
                if self._is_over() or (until is not None and not self.buffered):
                    break
                if not self._must_look.wait(CONFIRM_SECONDS):
                    self._confirm(client)
                self._must_look.clear()
            except Exception as error:  # this thread must not end while something waits for it
                close_client(client)
                client = None
                if self._fail(error) and not isinstance(error, UNAVAILABLE):
                    logger.exception("Sending to the SSE stream failed.")
                if self._is_closed or (until is not None and time.monotonic() > until):
                    break
                time.sleep(pause)
                pause = min(2 * pause, longest)
        close_client(client)
        with self._lock:
            if self._thread is threading.current_thread():
                self._thread = None
            self._changed.notify_all()

    def _open(self) -> tuple[Client, bool]:
        """A client, and whether publishers may have it. What was not answered before is given more time."""
        if not self._unanswered and (near := self._open_near()) is not None:
            return near, True
        return self._connect(FLUSH_SECONDS), False

    def _open_near(self) -> Client:
        """A client whose answers a save can wait for; None if they take too long."""
        if self._is_closed or time.monotonic() < self._near_again_at:
            return None
        client: Client = None
        try:
            client = self._connect(SEND_SECONDS)
            for _ in range(NEAR_TRIES):  # one answer may be late because of this machine
                began = time.monotonic()
                self._writer.last_number(client)
                if time.monotonic() - began < NEAR_SECONDS:
                    return client
        except redis.TimeoutError as error:
            logger.debug("Redis is far away: %r", error)
        self._near_again_at = time.monotonic() + NEAR_AGAIN_SECONDS
        close_client(client)
        return None

    def _connect(self, answer_seconds: float) -> Client:
        server = self._stream.server
        self._address = server.address() if server.may_move else None  # asked first: it may move while this connects
        return server.connect(answer_seconds)

    def _is_empty(self, near: Client) -> bool:
        """If nothing has come meanwhile: Redis is back, and from now on publishers send, where it is near."""
        with self._lock:
            if self.buffered:
                self._must_look.set()
                return False
            self._is_away, self._is_far = False, near is None
            self._client = near
            self._changed.notify_all()
        self._stream.outage.works(self)
        return True

    def _is_over(self) -> bool:
        """Whether there is nothing to send and nothing to confirm. Then the next that is sent starts another thread."""
        with self._lock:
            if (self._client is None and self.buffered) or (not self._is_closed and self._recent.forget_old()):
                return False
            self._thread = None
            return True

    def _fail(self, error: BaseException) -> bool:
        with self._lock:
            self._is_away = True
            self._changed.notify_all()
        return self._stream.outage.fails(self, error)

    def _confirm(self, client: Client) -> None:
        """Whether the server written to is still the right one, and still has what it acknowledged."""
        with self._lock:
            if not self._recent.forget_old():
                return
        try:
            has_moved = self._stream.server.may_move and self._stream.server.address() != self._address
        except UNAVAILABLE as error:
            logger.debug("Sentinel does not say who the master is: %r", error)
            has_moved = False
        moved = redis.ConnectionError("another server is the master now")
        if client is not None:
            if has_moved:
                raise moved
            self._reconcile(client)
            return
        with self._lock:
            if self._client is not None:
                try:
                    if not has_moved:
                        self._reconcile(self._client)
                    if has_moved or self._unanswered:
                        raise moved
                except UNAVAILABLE as error:
                    self._stop_direct(error)

    def _reconcile(self, client: Client) -> None:
        """What was acknowledged lately, and is not there, is sent again. Nothing, where everything is gone: that is a
        stream begun anew, and its readers tell their clients."""
        if not self._recent:
            return
        last = self._writer.last_number(client)
        with self._lock:
            missing = self._recent.above(last)
            if not missing or client.get(self._stream.epoch_key) is None:
                return
            self._recent.clear()
            self._unanswered = missing + self._unanswered
        logger.info("Redis goes on with less than it had acknowledged: %d broadcasts are sent again.", len(missing))

    def _next_batch(self) -> bool:
        """What was under way when the last attempt failed, else the next that are waiting."""
        with self._lock:
            while self._buffer and len(self._unanswered) < BATCH_EVENTS:
                self._unanswered.append(self._buffer.take())
            return bool(self._unanswered)

    def _write(self, client: Client) -> None:
        """Send the unanswered, in order."""
        if any(parcel.is_of_now for parcel in self._unanswered):
            now = [parcel for parcel in self._unanswered if parcel.is_of_now]
            self._unanswered = [parcel for parcel in self._unanswered if not parcel.is_of_now]
            for parcel in now:  # never again, whatever comes of it
                parcel.is_sent = True
            self._writer.add_now(client, now)
        while self._unanswered:
            self._add(client, self._writer.next_batch(self._unanswered))

    def _add(self, client: Client, batch: list[Parcel]) -> None:
        """One batch; all of it or nothing, so that the numbers in the stream only grow."""
        sizes = self._writer.add(client, batch)
        with self._lock:
            for parcel, size in zip(batch, sizes, strict=True):
                parcel.is_sent = True
                self._recent.add(parcel, size)
            del self._unanswered[: len(batch)]
            self._recent.forget_old()
            self._changed.notify_all()

    # The end of the process

    @property
    def _must_ask_at_exit(self) -> bool:
        """Whether what was just acknowledged may have been by one that is no longer the master."""
        return self._stream.server.may_move and bool(self._recent)

    def _end(self, seconds: float | None = None) -> None:
        """Wait until everything is sent, but not for ever; what is lost is said."""
        until = time.monotonic() + (self._exit_seconds if seconds is None else seconds)
        with self._lock:
            if not self._is_sending:
                while self._waiting and not self._is_closed:
                    self._send_waiting()
        if self._must_ask_at_exit:
            self._confirm(None)
        with self._lock:
            if self.buffered:
                self._start_thread()
            if self._thread is not None:
                self._changed.wait_for(lambda: not self.buffered, max(0.0, until - time.monotonic()))
        if self.buffered and self._thread is None and not self._is_closed:
            self._run(until)  # no thread could be started: this one does its work
        if self.buffered:
            logger.error("%d SSE broadcasts are lost: Redis was not back before this process ended.", self.buffered)
