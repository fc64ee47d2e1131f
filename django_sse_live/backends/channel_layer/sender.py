"""LayerSender: this process's events on their way to the channel layer. Listeners are unknown here."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
import time
from collections import deque
from concurrent.futures import Future, wait
from typing import Any, Final

from ...events import Event
from ...exits import ExitWork, is_interpreter_ending
from ...green_threads import are_threads_green
from ..cancellation import within
from ..outage import Outage
from .layer import DELTAS_GROUP, GROUP, LAYER_SECONDS, MESSAGE_TYPE, RETRY_SECONDS, MakeLayer

logger: logging.Logger = logging.getLogger("django_sse_live")

WAITING_EVENTS_MAX: Final = 1_000  # waiting for the layer; beyond it the newest are dropped, and clients get a reset
MARK_SECONDS: Final = (1.0, 10.0, 60.0)  # how long after its last event a publisher repeats that one's number
DELTAS_SECONDS: Final = 0.5
LARGE_BYTES: Final = 512 * 1024  # only a larger event may be what the layer does not take …
TRIES_MAX: Final = 5  # … and is given up after this many
BURST_EVENTS: Final = 50  # without a pause of a second: may have filled a listener's channel
LAST_MARKS_PAUSES: Final = (0.25, 0.75)  # seconds; after a burst, a process that exits repeats its mark


class LayerSender:
    """This process's events, in order. One task sends them, on its own loop in its own thread, since most callers have
    no loop, or one that ends soon. enqueue() may be called from any thread, and may interrupt itself (a finalizer, a
    signal handler): only the task gives numbers."""

    def __init__(self, make_layer: MakeLayer, outage: Outage) -> None:
        self.dropped: int = 0
        self.is_slow: bool = False  # a caller has waited in vain since the layer last took an event
        self._make_layer = make_layer
        self._outage = outage
        self._publisher = secrets.token_hex(6)
        self._pid = os.getpid()
        self._waiting: deque[tuple[Event, Future[None]]] = deque()
        self._skips_number = False  # an event was dropped, so its number stays unused
        self._lock = threading.RLock()  # guards the start of the thread
        self._thread: threading.Thread | None = None
        self._is_closed = False
        # Touched by the task alone:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._layer: Any = None
        self._news: asyncio.Event = asyncio.Event()
        self._is_sending = True  # the task will look at the queue by itself
        self._sequence = 0  # of the last event that the layer has taken
        self._sent_at = 0.0  # monotonic time of that event
        self._burst = 0  # events sent since the last pause of a second
        self._exit = ExitWork(self._end_process, lambda: self._thread is not None or bool(self._waiting))

    @property
    def buffered(self) -> int:
        return len(self._waiting)

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller would wait for itself."""
        return threading.current_thread() is self._thread

    def enqueue(self, event: Event) -> Future[None]:
        """Queue an event. The future is done once the layer has taken it, or it is dropped."""
        self._exit.watch_signals()
        sent: Future[None] = Future()
        if len(self._waiting) >= WAITING_EVENTS_MAX or not self._is_started():
            self._drop()
            sent.set_result(None)
            return sent
        self._waiting.append((event, sent))
        if not self._is_sending:
            self._wake()
        return sent

    def send_deltas(self, event: Event) -> None:
        """Send deltas of jobs apart from events, without order and numbers. Given up if it takes long."""
        message = {"type": MESSAGE_TYPE, "channels": list(event.channels), "event": event.type, "data": event.payload}
        if not self._is_started() or self._thread is None or self.is_this_thread:
            return
        until = time.monotonic() + DELTAS_SECONDS
        while self._layer is None and time.monotonic() < until:
            time.sleep(0.005)  # until the thread has begun
        loop = self._loop
        if loop is None or self._outage.is_on:
            return
        try:
            sending = asyncio.run_coroutine_threadsafe(self._send_deltas(message), loop)
        except RuntimeError:  # closed meanwhile
            return
        if wait([sending], DELTAS_SECONDS).not_done:
            sending.cancel()

    async def _send_deltas(self, message: dict[str, Any]) -> None:
        try:
            await self._layer.group_send(DELTAS_GROUP, message)
        except Exception as error:  # layers raise any exception of their server's library
            logger.debug("The channel layer does not take deltas of jobs: %r", error)

    def _is_started(self) -> bool:
        """Whether queued events will be sent: by the thread, or, if the process may have no more threads now, by one
        that the next event starts."""
        if self._thread is not None or self._is_closed or are_threads_green():
            return self._thread is not None and not self._is_closed
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_loop, name="sse-live-layer", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    self._thread = None
                    if is_interpreter_ending(error):
                        self._is_closed = True
                        return False
                    self._outage.fails(self, error)  # queued events are sent with the next one
        return True

    def _drop(self) -> None:
        if not self.dropped and not self._is_closed:
            reason = "cannot be used under gevent or eventlet" if are_threads_green() else "takes no more"
            logger.error("The channel layer %s: events are dropped, and clients will be told by a reset.", reason)
        self.dropped += 1
        self._skips_number = True

    def _wake(self) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # closed meanwhile
            pass

    def _run_loop(self) -> None:
        asyncio.run(self._run())  # also ends what layers keep for a loop

    # On the loop

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._layer = self._make_layer()
        while not self._is_closed:
            self._is_sending = True
            self._news.clear()
            while self._waiting and not self._is_closed:
                await self._send_first()
            self._is_sending = False
            if not self._waiting:  # checked again: an event may have been queued before that was set
                await self._rest()

    async def _send_first(self) -> None:
        event, sent = self._waiting[0]
        if self._skips_number:
            self._skips_number = False
            self._sequence += 1
        message = {
            "seq": self._sequence + 1,
            "channels": list(event.channels),
            "event": event.type,
            "data": event.payload,
            "text": event.is_text,
            "patch": event.patch,
        }
        pause, longest = RETRY_SECONDS
        tries = 1
        while not await self._send(message):
            is_suspect = tries >= TRIES_MAX and event.data_bytes > LARGE_BYTES
            if is_suspect and await self._send_mark():  # others are taken, and must not wait behind it
                self.dropped += 1
                logger.error(
                    "The channel layer never takes an SSE event of %d bytes: it is given up, and clients will be told "
                    "by a reset.",
                    event.data_bytes,
                )
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            tries += 1
        self._sequence += 1
        self._sent_at = time.monotonic()
        self._burst += 1
        self.is_slow = False
        self._waiting.popleft()
        if sent.set_running_or_notify_cancel():
            sent.set_result(None)

    async def _rest(self) -> None:
        """Wait until there is something to send. Meanwhile repeat the last number, so that listeners notice a lost last
        event; again if the layer does not answer."""
        for seconds in MARK_SECONDS:
            if self._sequence and await self._has_news(self._sent_at + seconds - time.monotonic()):
                return
            self._burst = 0
            while self._sequence and not await self._send_mark():
                if await self._has_news(RETRY_SECONDS[1]):
                    return
        await self._has_news(None)

    async def _has_news(self, seconds: float | None) -> bool:
        try:
            await asyncio.wait_for(self._news.wait(), None if seconds is None else max(0.0, seconds))
        except asyncio.TimeoutError:
            return False
        return True

    async def _send_mark(self) -> bool:
        return await self._send({"seq": self._sequence, "mark": True})

    async def _send(self, message: dict[str, Any]) -> bool:
        """Send a message. False if the layer does not take it. ``since``: seconds since the layer took the event
        before."""
        since = round(time.monotonic() - self._sent_at, 3) if self._sent_at else 0.0
        whole = {"type": MESSAGE_TYPE, "from": self._publisher, "since": since, **message}
        try:
            await within(LAYER_SECONDS, self._layer.group_send(GROUP, whole))
        except Exception as error:  # layers raise any exception of their server's library
            self._outage.fails(self, error)
            return False
        self._outage.works(self)
        return True

    # The end

    def _end_process(self) -> None:
        self._is_started()  # if no thread could be started so far
        if self._send_rest(LAYER_SECONDS):
            self._say_last_number()
            if self._burst >= BURST_EVENTS:  # full channels took no mark: they may once they are read
                for pause in LAST_MARKS_PAUSES:
                    time.sleep(pause)
                    self._say_last_number()

    def _send_rest(self, seconds: float) -> bool:
        left = wait([sent for _, sent in self._waiting.copy()], seconds).not_done
        if left:
            logger.error("%d SSE broadcasts are lost: the channel layer did not take them in time.", len(left))
        return not left

    def _say_last_number(self) -> None:
        if self._loop is not None and self._sequence:
            wait([asyncio.run_coroutine_threadsafe(self._send_mark(), self._loop)], 0.5)

    def close(self) -> None:
        self._exit.cancel()
        if self._is_closed or os.getpid() != self._pid:
            return
        if self._thread is not None and not self.is_this_thread and self._send_rest(0.5):
            self._say_last_number()
        self._is_closed = True
        self._wake()
        if self._thread is not None and self._thread.is_alive() and not self.is_this_thread:
            self._thread.join(1)  # one that another thread just starts cannot be joined: it ends by itself
