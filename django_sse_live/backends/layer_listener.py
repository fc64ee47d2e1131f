"""LayerListener: what this process hears of the channel layer. Knows nothing of who sends but their numbers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..events import Event, make_position, position_milliseconds
from ..hub.hub import Hub
from ..hub.log import EventLog
from .cancellation import within
from .layer_sender import GROUP, LAYER_SECONDS, RETRY_SECONDS

if TYPE_CHECKING:
    from .channel_layer import ChannelLayerBackend

logger: logging.Logger = logging.getLogger("django_sse_live")

REJOIN_SECONDS: Final = 30.0  # how often a hub says that it is still in the group: layers forget, and lose their data
PUBLISHERS: Final = 10_000  # of whom the last number is remembered


class LayerListener:
    """What this process hears of the layer, on the loop of one hub. Layers do not let two loops of one process
    receive; the hubs of further loops are served from here. Ends with its loop: the backend puts another in its place,
    which begins with a reset for all of ``hubs``."""

    def __init__(self, backend: ChannelLayerBackend, loop: asyncio.AbstractEventLoop, hubs: list[Hub]) -> None:
        self._backend = backend
        self.loop: asyncio.AbstractEventLoop = loop
        self._lock = threading.Lock()  # around what concerns more than one loop: the next three
        self._hubs = hubs
        self._position = 0
        self._is_listening = False
        self._epoch = secrets.token_hex(4)
        self._listening_since = 0.0  # monotonic
        self._last: OrderedDict[str, int] = OrderedDict()  # publisher → number, the longest silent first
        # In a context of its own: this is called while some request is handled, which must not live as long.
        self._task = Context().run(loop.create_task, self._run())
        self._task.add_done_callback(lambda _: backend.outage.forget(self))

    @property
    def is_over(self) -> bool:
        """From any thread."""
        return self.loop.is_closed() or self._task.done()

    def stop(self) -> None:
        """From any thread."""
        if not self.is_over:
            try:
                self.loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:  # closed meanwhile
                pass

    def open_hubs(self) -> list[Hub]:
        """From any thread."""
        with self._lock:
            return [hub for hub in self._hubs if not hub.loop.is_closed()]

    def add(self, hub: Hub) -> None:
        """On the hub's loop."""
        with self._lock:
            self._hubs.append(hub)
            if self._is_listening:
                hub.deliver(partial(self._begin_log, self._position, hub))

    def _begin_log(self, position: int, hub: Hub) -> None:
        hub.adopt(EventLog(self._epoch, position))

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
                if rejoining is not None and not self.loop.is_closed():
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
            self._is_listening = True
            self._lose()  # whatever was sent while nobody listened here

    def _lose(self) -> None:
        self._position += 1
        self._deliver(partial(self._begin_log, self._position))

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
