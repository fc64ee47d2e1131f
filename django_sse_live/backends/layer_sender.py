"""LayerSender: what this process broadcasts, on its way to the channel layer. Knows nothing of who listens."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import threading
import time
from collections import deque
from concurrent.futures import Future, wait
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from channels.layers import InMemoryChannelLayer

from ..events import Event
from ..hub.registry import open_hubs
from .cancellation import within

if TYPE_CHECKING:
    from .channel_layer import ChannelLayerBackend

logger: logging.Logger = logging.getLogger("django_sse_live")

GROUP: Final = "sse_live"
TYPE: Final = "sse.live"  # Channels asks every message for a type
LAYER_SECONDS: Final = 5.0  # how long the layer may take for anything but receiving
WAITING: Final = 1_000  # events that the layer has not taken yet; past it, the newest are lost, and that is told
MARK_SECONDS: Final = (1.0, 10.0, 60.0)  # how long after its last event a publisher says where it stands
RETRY_SECONDS: Final = (0.1, 2.0)


class LayerSender:
    """What this process broadcasts, in order. One task, on a loop of its own in a thread of its own: most callers have
    no loop, or one that ends soon. enqueue() from any thread."""

    def __init__(self, backend: ChannelLayerBackend) -> None:
        self.dropped: int = 0
        self.is_slow: bool = False  # somebody has waited in vain since the layer last took an event
        self._backend = backend
        self._publisher = secrets.token_hex(6)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._sequence = 0  # of the newest event
        self._waiting: deque[tuple[int, Event, Future[None]]] = deque()
        self._is_running = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent_at = 0.0  # monotonic; of the newest event that the layer has taken
        atexit.register(self._at_exit)

    @property
    def buffered(self) -> int:
        return len(self._waiting)

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller would wait for itself."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def enqueue(self, event: Event) -> Future[None]:
        """Done when the layer has taken it."""
        sent: Future[None] = Future()
        with self._lock:
            self._sequence += 1  # also for one that is dropped: its number will be missed
            loop = self._find_loop()
            if loop is None or len(self._waiting) >= WAITING:
                if loop is not None:
                    self._count_dropped()
                sent.set_result(None)
                return sent
            self._waiting.append((self._sequence, event, sent))
            if not self._is_running:
                self._is_running = True
                loop.call_soon_threadsafe(self._begin)
        return sent

    def _count_dropped(self) -> None:
        if not self.dropped:
            logger.error("The channel layer takes no more: events are given up, and clients will be told by a reset.")
        self.dropped += 1

    def _find_loop(self) -> asyncio.AbstractEventLoop | None:
        """Where to send from. The in-memory layer reaches this process alone, and works on the loop of who receives."""
        if isinstance(self._backend.layer, InMemoryChannelLayer):
            loops = [hub.loop for hub in open_hubs() if not hub.loop.is_closed()]
            if self._loop not in loops:
                self._loop = loops[0] if loops else None
                self._is_running = False
            return self._loop
        if self._thread is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run_loop, args=[self._loop], name="sse-live-layer", daemon=True)
            self._thread.start()
        return self._loop

    def _begin(self) -> None:
        assert self._loop is not None
        task = Context().run(self._loop.create_task, self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        pause, longest = RETRY_SECONDS
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    sequence = self._sequence
                    break
                sequence, event, sent = self._waiting[0]
            message = {
                "type": TYPE,
                "from": self._publisher,
                "seq": sequence,
                "since": self._since(),
                "channels": list(event.channels),
                "event": event.type,
                "data": event.payload,
                "text": event.is_text,
            }
            try:
                await self._send(message)
            except Exception as error:  # a layer raises whatever its server's library does
                self._backend.outage.fails(self, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            self._backend.outage.works(self)
            pause = RETRY_SECONDS[0]
            self.is_slow = False
            self._sent_at = time.monotonic()
            self._waiting.popleft()
            if not sent.done():
                sent.set_result(None)
        for seconds in MARK_SECONDS:
            await asyncio.sleep(max(0.0, self._sent_at + seconds - time.monotonic()))
            if self._is_running or self._sequence != sequence:
                return
            await self._mark()

    async def _mark(self) -> None:
        """Say which number was the last, for those who missed it and would wait for the next to notice."""
        mark = {"type": TYPE, "from": self._publisher, "seq": self._sequence, "since": self._since(), "mark": True}
        try:
            await self._send(mark)
        except Exception as error:
            logger.debug("The channel layer did not take a mark: %r", error)

    def _since(self) -> float:
        """Seconds since the event before was sent."""
        return round(time.monotonic() - self._sent_at, 3) if self._sent_at else 0.0

    async def _send(self, message: dict[str, Any]) -> None:
        layer = self._backend.layer
        await within(LAYER_SECONDS, layer.group_send(GROUP, message))
        if isinstance(layer, InMemoryChannelLayer):
            for hub in open_hubs():
                if hub.loop is not self._loop and not hub.loop.is_closed():
                    hub.deliver(_nothing)  # wakes a loop that does not know yet that there is a message

    def _at_exit(self, seconds: float = LAYER_SECONDS) -> None:
        if os.getpid() != self._pid or self._thread is None or self._loop is None:
            return
        with self._lock:
            waiting = [sent for _, _, sent in self._waiting]
        left = wait(waiting, seconds).not_done
        if left:
            logger.error("%d SSE broadcasts are lost: the channel layer did not take them in time.", len(left))
        elif self._sent_at:
            wait([asyncio.run_coroutine_threadsafe(self._mark(), self._loop)], 0.5)

    def close(self) -> None:
        atexit.unregister(self._at_exit)
        self._at_exit(0.5)
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1)
            self._thread = None


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()  # layers that keep connections for a loop let go of them here


def _nothing() -> None:
    pass
