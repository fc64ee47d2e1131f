"""ChannelLayerBackend: any Django Channels layer as the bus. At most once, and nothing is kept.

One channel of the layer for each process that serves streams, and one group for all of them. Layers drop messages where
a receiver is slow, and forget group members; so publishers number what they send, and say how long ago they sent the
one before: who misses a number tells every client by a reset. Ids are each process's own, and mean nothing to another.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextvars import Context
from functools import partial
from typing import Any, ClassVar, Final

from django.core.exceptions import ImproperlyConfigured

from ..events import Event, make_position, position_milliseconds
from ..hub.hub import Hub
from ..hub.log import EventLog
from ..hub.registry import add_hub, open_hubs
from .base import Backend
from .cancellation import within
from .outage import Outage

try:
    from channels.layers import InMemoryChannelLayer, channel_layers
except ImportError as _error:
    raise ImproperlyConfigured(
        f'ChannelLayerBackend needs Channels ({_error}). Install it: pip install "django-sse-live[channels]".'
    ) from _error

logger: logging.Logger = logging.getLogger("django_sse_live")

GROUP: Final = "sse_live"
TYPE: Final = "sse.live"  # Channels asks every message for a type
SEND_SECONDS: Final = 0.05  # how long a save waits for the layer to take an event
LAYER_SECONDS: Final = 5.0  # how long the layer may take for anything but receiving
WAITING: Final = 1_000  # events that the layer has not taken yet; past it, the newest are lost, and that is told
REJOIN_SECONDS: Final = 30.0  # how often a hub says that it is still in the group: layers forget, and lose their data
MARK_SECONDS: Final = (1.0, 10.0, 60.0)  # how long after its last event a publisher says where it stands
RETRY_SECONDS: Final = (0.1, 2.0)
PUBLISHERS: Final = 10_000  # of whom the last number is remembered


class ChannelLayerBackend(Backend):
    """OPTIONS: ``{"LAYER": "default"}``, an alias of CHANNEL_LAYERS."""

    reaches_other_processes = True
    option_names: ClassVar[frozenset[str]] = frozenset({"LAYER"})

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.alias: str = options.get("LAYER", "default")
        if self.alias not in channel_layers.configs:
            known = ", ".join(map(repr, channel_layers.configs)) or "nothing"
            raise ImproperlyConfigured(
                f'SSE_LIVE["OPTIONS"]["LAYER"] is {self.alias!r}; it must be one of CHANNEL_LAYERS, which has {known}.'
            )
        self.outage: Outage = Outage(f"channel layer {self.alias!r}")
        self._sender = _Sender(self)
        self._ear: _Ear | None = None

    @property
    def layer(self) -> Any:
        return channel_layers[self.alias]

    @property
    def is_available(self) -> bool:
        return not self.outage.is_on

    @property
    def outages(self) -> int:
        return self.outage.count

    @property
    def buffered(self) -> int:
        return self._sender.buffered

    @property
    def dropped(self) -> int:
        return self._sender.dropped

    def publish(self, event: Event) -> None:
        sent = self._sender.enqueue(event)
        if not self._sender.is_slow and not self._sender.is_this_thread:
            # Past that, it goes out as soon as the layer takes it, and nobody else waits until then.
            self._sender.is_slow = bool(wait([sent], SEND_SECONDS).not_done)

    async def apublish(self, event: Event) -> None:
        sent = self._sender.enqueue(event)
        if not self._sender.is_slow:
            _, late = await asyncio.wait([asyncio.wrap_future(sent)], timeout=SEND_SECONDS)
            self._sender.is_slow = bool(late)

    def attach(self, hub: Hub) -> None:
        hub.begin_filling()
        add_hub(hub)
        if self._ear is None or self._ear.is_over:
            self._ear = _Ear(self, hub.loop)
        self._ear.add(hub)

    def position(self) -> str:
        """Nothing: the stream may be served by another worker, to which the ids of this one mean nothing."""
        return ""

    def known_position(self) -> str:
        return self.position()

    def close(self) -> None:
        if self._ear is not None:
            self._ear.stop()
        self._sender.close()


class _Sender:
    """What this process broadcasts, in order. One task, on a loop of its own in a thread of its own: most callers have
    no loop, or one that ends soon. enqueue() from any thread."""

    def __init__(self, backend: ChannelLayerBackend) -> None:
        self.dropped = 0
        self.is_slow = False  # somebody has waited in vain since the layer last took an event
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


class _Ear:
    """What this process hears of the layer, on the loop of its first hub. Layers do not let two loops of one process
    receive; the hubs of further loops are served from here."""

    def __init__(self, backend: ChannelLayerBackend, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self._loop = loop
        self._lock = threading.Lock()  # around what concerns more than one loop: the next three
        self._hubs: list[Hub] = []
        self._position = 0
        self._is_listening = False
        self._epoch = secrets.token_hex(4)
        self._listening_since = 0.0  # monotonic
        self._last: OrderedDict[str, int] = OrderedDict()  # publisher → number, the longest silent first
        # In a context of its own: this is called while some request is handled, which must not live as long.
        self._task = Context().run(loop.create_task, self._run())

    @property
    def is_over(self) -> bool:
        """From any thread."""
        return self._loop.is_closed() or self._task.done()

    def stop(self) -> None:
        """From any thread."""
        if not self.is_over:
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:  # closed meanwhile
                pass

    def add(self, hub: Hub) -> None:
        """On the hub's loop."""
        with self._lock:
            self._hubs.append(hub)
            if self._is_listening:
                self._fill(hub)

    def _fill(self, hub: Hub) -> None:
        log = EventLog(self._epoch, self._position)
        hub.deliver(lambda: hub.adopt(log))

    def _deliver(self, item: Event | Callable[[Hub], None]) -> None:
        """To every hub, with the lock held."""
        for hub in list(self._hubs):
            try:
                hub.deliver(item if isinstance(item, Event) else partial(item, hub))
            except RuntimeError:
                if not hub.loop.is_closed():
                    raise
                self._hubs.remove(hub)

    async def _run(self) -> None:
        pause, longest = RETRY_SECONDS
        while True:
            rejoining: asyncio.Task[None] | None = None
            try:
                layer = self._backend.layer
                channel = await within(LAYER_SECONDS, layer.new_channel())
                await within(LAYER_SECONDS, layer.group_add(GROUP, channel))
                self._begin()
                self._backend.outage.works(self)
                pause = RETRY_SECONDS[0]
                rejoining = asyncio.get_running_loop().create_task(self._rejoin(layer, channel))
                while True:
                    self._hear(await within(None, layer.receive(channel)))
            except Exception as error:  # a layer raises whatever its server's library does
                self._backend.outage.fails(self, error)
            finally:
                if rejoining is not None:
                    rejoining.cancel()
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _rejoin(self, layer: Any, channel: str) -> None:
        every = min(REJOIN_SECONDS, getattr(layer, "group_expiry", 86_400) / 4)
        while True:
            await asyncio.sleep(every)
            try:
                await within(LAYER_SECONDS, layer.group_add(GROUP, channel))
            except Exception as error:  # receiving fails too, and tells
                logger.debug("Joining the channel layer's group again failed: %r", error)

    def _begin(self) -> None:
        self._listening_since = time.monotonic()
        self._last.clear()
        with self._lock:
            if self._is_listening:
                self._lose()  # whatever was sent while nobody listened here
            else:
                self._is_listening = True
                for hub in self._hubs:
                    self._fill(hub)

    def _lose(self) -> None:
        self._position += 1
        position = self._position
        self._deliver(lambda hub: hub.restart(self._epoch, position))

    def _hear(self, message: Mapping[str, Any]) -> None:
        publisher, number = message["from"], message["seq"]
        is_mark = message.get("mark", False)
        before = number if is_mark else number - 1  # what should have been heard by now
        last = self._last.get(publisher)
        if last is None:
            # Of one that is new here, nothing was missed if the one before was sent when nobody listened yet.
            is_missed = before > 0 and message["since"] < time.monotonic() - self._listening_since
        elif number <= last:
            return  # sent again, since the layer's answer was lost; or a mark of what is known
        else:
            is_missed = before > last
        self._last[publisher] = number
        self._last.move_to_end(publisher)
        if len(self._last) > PUBLISHERS:
            self._last.popitem(last=False)
        with self._lock:
            if is_missed:
                self._lose()
            if not is_mark:
                event = Event(tuple(message["channels"]), message["event"], message["data"], is_text=message["text"])
                milliseconds = time.time_ns() // 1_000_000
                fresh = milliseconds > position_milliseconds(self._position)
                self._position = make_position(milliseconds, 0) if fresh else self._position + 1
                event.stamp(self._epoch, self._position)
                self._deliver(event)


def _nothing() -> None:
    pass
