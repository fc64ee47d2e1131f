"""ChannelLayerBackend: any Django Channels layer as the bus. It delivers at most once, and keeps nothing.

Each process that serves streams has one channel of the layer, and all of them are one group. Layers drop messages for
slow receivers, and forget group members. So publishers number their events, and send the time since their last one: a
process that misses a number gives every client a reset. Ids are made by each process, and mean nothing to another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import wait
from typing import Any, ClassVar, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ...events import Event
from ...green_threads import are_threads_green
from ...hub.hub import Hub
from ...hub.registry import add_hub
from ..base import Backend
from ..outage import Outage
from .listener import LayerListener
from .sender import LayerSender

try:
    from channels.layers import InMemoryChannelLayer
except ImportError as _error:
    raise ImproperlyConfigured(
        f'ChannelLayerBackend needs Channels ({_error}). Install it: pip install "channels>=4.1".'
    ) from _error

SEND_SECONDS: Final = 0.05  # a save waits this long for the layer


class ChannelLayerBackend(Backend):
    """OPTIONS: ``{"LAYER": "default"}``, an alias of CHANNEL_LAYERS."""

    reaches_other_processes = True
    serves_several_loops = False
    option_names: ClassVar[frozenset[str]] = frozenset({"LAYER"})

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.alias: str = options.get("LAYER", "default")
        layers = getattr(settings, "CHANNEL_LAYERS", {})
        if self.alias not in layers:
            known = ", ".join(map(repr, layers)) or "nothing"
            raise ImproperlyConfigured(
                f'SSE_LIVE["OPTIONS"]["LAYER"] is {self.alias!r}; it must be one of CHANNEL_LAYERS, which has {known}.'
            )
        self._layer_class: Any = import_string(layers[self.alias]["BACKEND"])
        self._layer_config: dict[str, Any] = layers[self.alias].get("CONFIG", {})
        if issubclass(self._layer_class, InMemoryChannelLayer):
            raise ImproperlyConfigured(
                f"The channel layer {self.alias!r} is in this process's memory and reaches no other. The memory "
                'backend does that without a layer: set SSE_LIVE["BACKEND"] to '
                '"django_sse_live.backends.memory.MemoryBackend", or the layer to one of Redis.'
            )
        self._outage = Outage(f"channel layer {self.alias!r}")
        self._sender = LayerSender(self._make_layer, self._outage)
        self._listener: LayerListener | None = None  # None before the first hub, and once closed

    def _make_layer(self) -> Any:
        return self._layer_class(**self._layer_config)

    def check_process(self) -> None:
        if are_threads_green():
            raise ImproperlyConfigured(
                "ChannelLayerBackend cannot be used under gevent or eventlet: a channel layer needs an asyncio loop, "
                'which would run in the thread of every greenlet. Set SSE_LIVE["BACKEND"] to '
                '"django_sse_live.backends.redis_streams.RedisStreamsBackend", or start these processes with threads.'
            )

    @property
    def outage(self) -> Outage:
        return self._outage

    @property
    def buffered(self) -> int:
        return self._sender.buffered

    @property
    def dropped(self) -> int:
        return self._sender.dropped

    @property
    def unreadable(self) -> int:
        return self._listener.unreadable if self._listener is not None else 0

    def publish(self, event: Event) -> None:
        sent = self._sender.enqueue(event)
        if not self._sender.is_slow and not self._sender.is_this_thread:
            # After that, it is sent as soon as the layer takes it, and later callers do not wait meanwhile.
            self._sender.is_slow = bool(wait([sent], SEND_SECONDS).not_done)

    def publish_deltas(self, event: Event) -> None:
        self._sender.send_deltas(event)

    def hear_deltas(self, hub: Hub) -> None:
        if self._listener is not None:
            self._listener.hear_deltas()

    async def apublish(self, event: Event) -> None:
        sent = self._sender.enqueue(event)
        if not self._sender.is_slow:
            _, late = await asyncio.wait([asyncio.wrap_future(sent)], timeout=SEND_SECONDS)
            self._sender.is_slow = bool(late)

    def attach(self, hub: Hub) -> None:
        """Raises ImproperlyConfigured if another loop of this process serves streams."""
        before = self._listener
        if before is not None:
            if before.loop is not hub.loop and before.loop.is_running():
                raise ImproperlyConfigured(
                    "ChannelLayerBackend serves the streams of one event loop of a process, and another loop of this "
                    "process serves some already. Give each loop a process of its own, as ASGI servers do, or set "
                    'SSE_LIVE["BACKEND"] to "django_sse_live.backends.redis_streams.RedisStreamsBackend".'
                )
            before.stop()  # its loop has ended, or a test has dropped its hub
        hub.begin_filling()
        add_hub(hub)
        self._listener = LayerListener(self._make_layer, self._outage, hub)

    async def has_reached(self, hub: Hub, position: int) -> bool:
        """No other worker gives ids of this epoch, so one that is ahead was never given."""
        return position <= hub.log.head

    def position(self) -> str:
        """Empty: another worker may serve the stream, and this process's ids mean nothing to it."""
        return ""

    def known_position(self) -> str:
        return self.position()

    def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        self._sender.close()
