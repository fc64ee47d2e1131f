"""Outbox: from publish() to the Redis stream, in order and once, whether Redis is there or not.

While Redis answers quickly, the publishing thread sends, under one lock, and waits at most SEND_SECONDS for the answer.
If that fails, the event goes to a bounded buffer. One thread, which may wait longer, connects again and sends the
buffer. So a save never waits for a connection.

If Redis loses acknowledged events (a failover, a restart from an older state), they are sent again. stream_writer.py
says how an event whose answer was lost is added only once.
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
from .buffer import Buffer, Parcel, Recent, WhenFull, lost_marker
from .server import UNAVAILABLE, Client, close_client
from .stream import RedisStream
from .stream_writer import BATCH_EVENTS, StreamWriter

logger: logging.Logger = logging.getLogger("django_sse_live")

SEND_SECONDS: Final = 0.05  # a save waits this long for an answer
NEAR_SECONDS: Final = 0.02  # if answers take longer, only the thread sends
FLUSH_SECONDS: Final = 2.0  # the thread waits this long for an answer
SLOWEST_BYTES_PER_SECOND: Final = 256 * 1024  # what waits for an answer gets more time, by its size
LARGE_BYTES: Final = 512 * 1024  # only a larger event may be what Redis, or a proxy before it, does not take
TRIES_MAX: Final = 5  # to send such an event, before it is given up: the others wait behind it
RETRY_SECONDS: Final = (0.05, 1.0)  # the thread's first and longest pause between two attempts
CONFIRM_SECONDS: Final = 1.0  # between two checks that acknowledged events are still there
NEAR_TRIES_MAX: Final = 3
NEAR_AGAIN_SECONDS: Final = 5.0  # before a server that was too far is tried again


class Outbox:
    """The outbox of one process. send() may be called from any thread. Attributes are changed under the lock alone,
    except the waiting line, to which any thread may append. Order of sending: unanswered, buffer, waiting."""

    def __init__(
        self, stream: RedisStream, *, max_events: int, max_bytes: int, when_full: WhenFull, exit_seconds: float
    ) -> None:
        self._stream = stream
        self._exit_seconds = exit_seconds
        self._writer = StreamWriter(stream)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # something was sent, or failed
        self._must_look = threading.Event()  # the thread has something to do
        self._waiting: deque[Parcel] = deque()
        self._is_sending = False
        self._client: Client = None  # set while publishers send by themselves
        self._address: object = None  # of that client's server, if it may move
        self._is_away = False  # an attempt has failed since the buffer was last empty: nobody waits for the thread
        self._is_far = False  # Redis is there, but too slow: the thread sends
        self._near_again_at = 0.0  # monotonic
        self._unanswered: list[Parcel] = []  # sent, with numbers, without an answer yet
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
        """Whether send() only puts the event into the buffer. While the thread sends, send() also waits if the buffer
        fills faster than it empties: nothing is dropped while Redis takes events."""
        if self._client is not None:
            return False
        return self._is_away or (self._is_far and not self._buffer.is_half_full)

    def enqueue(self, event: Event) -> Parcel:
        """Take a place in the order, without waiting. To be followed by send()."""
        parcel = Parcel(event)
        self._waiting.append(parcel)
        return parcel

    def send(self, parcel: Parcel) -> None:
        """Send this event and those before it, or leave them to the thread."""
        self.watch_signals()
        with self._lock:
            if self._is_sending:
                return  # this thread, interrupted by a signal handler or a finalizer: the loop below goes on
            self._is_sending = True
            try:
                while self._waiting:
                    self._send_waiting()
            finally:
                self._is_sending = False
            if not (parcel.is_sent or self.is_quick or self._is_closed):
                # The thread is connecting. The event should be sent even if the process ends right after this call.
                self._changed.wait_for(lambda: parcel.is_sent or self.is_quick, SEND_SECONDS)

    def close(self) -> None:
        """Give queued events a moment to be sent, then stop."""
        self._exit.cancel()
        self._end(0.5)
        with self._lock:
            self._is_closed = True
            close_client(self._client)
            self._client = None
        self._must_look.set()
        self._stream.outage.forget(self)

    # Publishers, under the lock

    def _send_waiting(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_EVENTS))]
        client = self._client
        if client is None:
            for parcel in batch:
                if self._is_away and parcel.event.is_of_now:
                    parcel.is_sent = True  # it is worthless once Redis is back
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
            except BaseException:  # raised by a signal handler: a task's time limit, Ctrl-C
                self._stop_direct(redis.ConnectionError("the caller was interrupted"))
                self._start_thread()
                raise
        self._start_thread()

    def _stop_direct(self, error: Exception) -> None:
        """Let the thread send from now on. It reconnects at once after a closed connection; a server that does not
        answer counts as away."""
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

    # The thread

    def _run(self, until: float | None = None) -> None:
        """Work until nothing is left. ``until``: a monotonic time limit, in the thread that ends the process."""
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
                        self._give_up_refused(client)
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
            except Exception as error:  # the thread must not end while events wait for it
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
        """A client, and whether publishers may use it. Events without an answer get more time."""
        if not self._unanswered and (near := self._open_near()) is not None:
            return near, True
        size = sum(parcel.event.data_bytes for parcel in self._unanswered)
        return self._connect(FLUSH_SECONDS + size / SLOWEST_BYTES_PER_SECOND), False

    def _open_near(self) -> Client:
        """A client that answers fast enough for a save to wait; None if it is too slow."""
        if self._is_closed or time.monotonic() < self._near_again_at:
            return None
        client: Client = None
        try:
            client = self._connect(SEND_SECONDS)
            for _ in range(NEAR_TRIES_MAX):  # one answer may be late because of this machine
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
        # asked before connecting, since it may move meanwhile
        self._address = server.address() if server.may_move else None
        return server.connect(answer_seconds)

    def _is_empty(self, near: Client) -> bool:
        """Whether nothing is left. Redis is then back, and publishers send by themselves if it is near."""
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
        """Whether there is nothing to send or to confirm. The next event then starts another thread."""
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
        """Check that the server is still the right one, and still has what it acknowledged."""
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
        """Send again what was acknowledged lately and is missing. If everything is gone, nothing is sent: the stream
        was made anew, and its readers give their clients a reset."""
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
        """Take the batch whose last attempt failed, or the next waiting events. False if there are none."""
        with self._lock:
            while self._buffer and len(self._unanswered) < BATCH_EVENTS:
                self._unanswered.append(self._buffer.take())
            return bool(self._unanswered)

    def _give_up_refused(self, client: Client) -> None:
        """If Redis has refused a large first event again and again, and takes others, put a marker in its place."""
        first = self._unanswered[0]
        if first.event.data_bytes <= LARGE_BYTES:
            return
        if first.tries:
            self._writer.keep_number(client)  # raises if Redis takes nothing: then the last try does not count
        if first.tries >= TRIES_MAX:
            marker = lost_marker()
            marker.number = first.number
            with self._lock:
                self._unanswered[0] = marker
                self._buffer.dropped += 1
                first.is_sent = True
            logger.error(
                "Redis does not take an SSE event of %d bytes: it is given up, and clients will be told by a reset.",
                first.event.data_bytes,
            )
        first.tries += 1

    def _write(self, client: Client) -> None:
        """Send the unanswered events, in order."""
        if any(parcel.event.is_of_now for parcel in self._unanswered):
            now = [parcel for parcel in self._unanswered if parcel.event.is_of_now]
            self._unanswered = [parcel for parcel in self._unanswered if not parcel.event.is_of_now]
            for parcel in now:  # never sent twice, whatever happens
                parcel.is_sent = True
            self._writer.add_now(client, now)
        while self._unanswered:
            self._add(client, self._writer.next_batch(self._unanswered))

    def _add(self, client: Client, batch: list[Parcel]) -> None:
        """Add one batch, all of it or nothing, so that the numbers in the stream only grow."""
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
        """Whether a former master may have given the last acknowledgements."""
        return self._stream.server.may_move and bool(self._recent)

    def _end(self, seconds: float | None = None) -> None:
        """Wait until everything is sent, within a limit. Lost events are logged."""
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
            self._run(until)  # no thread could be started: this one does the work
        if self.buffered:
            logger.error("%d SSE broadcasts are lost: Redis was not back before this process ended.", self.buffered)
