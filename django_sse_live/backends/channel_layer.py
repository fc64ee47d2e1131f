"""ChannelLayerBackend: any Django Channels layer as the bus. At most once, and nothing is kept.

One channel of the layer for each process that serves streams, and one group for all of them. Layers drop messages where
a receiver is slow, and forget group members; so publishers number what they send, and say how long ago they sent the
one before: who misses a number tells every client by a reset. Ids are each process's own, and mean nothing to another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import wait
from contextvars import Context
from typing import Any, ClassVar, Final

from django.core.exceptions import ImproperlyConfigured

from ..events import Event
from ..hub.hub import Hub
from ..hub.registry import add_hub
from .base import Backend
from .outage import Outage

try:
    from channels.layers import channel_layers

    from .layer_listener import LayerListener
    from .layer_sender import LayerSender
except ImportError as _error:
    raise ImproperlyConfigured(
        f'ChannelLayerBackend needs Channels ({_error}). Install it: pip install "django-sse-live[channels]".'
    ) from _error

SEND_SECONDS: Final = 0.05  # how long a save waits for the layer to take an event
LOOK_SECONDS: Final = 1.0  # how often each hub looks whether somebody still listens to the layer


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
        self._sender = LayerSender(self)
        self._lock = threading.Lock()  # around the next, which hubs on several loops make and replace
        self._listener: LayerListener | None = None  # before the first hub, and once closed

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
        with self._lock:
            if self._listener is None:
                self._listener = LayerListener(self, hub.loop, [])
            self._listener.add(hub)
        self._look_after_listener(hub)

    def _look_after_listener(self, hub: Hub) -> None:
        """On the hub's loop, as long as that runs: the listener's may be closed without a word to the tasks on it. One
        that has ended on this very loop is not begun anew here: its tasks are cancelled when a loop is about to end."""
        with self._lock:
            if self._listener is None:
                return
            if self._listener.is_over and self._listener.loop is not hub.loop:
                self.outage.forget(self._listener)
                self._listener = LayerListener(self, hub.loop, self._listener.open_hubs())
        hub.loop.call_later(LOOK_SECONDS, self._look_after_listener, hub, context=Context())

    def position(self) -> str:
        """Nothing: the stream may be served by another worker, to which the ids of this one mean nothing."""
        return ""

    def known_position(self) -> str:
        return self.position()

    def close(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        self._sender.close()
