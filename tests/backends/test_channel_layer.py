from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest import IsolatedAsyncioTestCase

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_sse_live.backends.base import Backend
from django_sse_live.backends.channel_layer import ChannelLayerBackend
from django_sse_live.events import Event
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.registry import forget_hubs
from django_sse_live.testing.backends import BackendSuite
from tests.backends.redis_process import RedisProcess
from tests.live.harness import until


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


class LayerSuite(BackendSuite):
    layer: dict[str, Any]

    async def asyncSetUp(self) -> None:
        self._settings = override_settings(CHANNEL_LAYERS={"default": self.layer})
        self._settings.enable()
        await super().asyncSetUp()

    async def asyncTearDown(self) -> None:
        await super().asyncTearDown()
        self._settings.disable()

    def make_backend(self) -> Backend:
        return ChannelLayerBackend({"LAYER": "default"})


class InMemoryLayerTests(LayerSuite, IsolatedAsyncioTestCase):
    layer = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1000}}

    def test_an_alias_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="default"):
            ChannelLayerBackend({"LAYER": "other"})


class OnRedis(LayerSuite):
    layer_class: str
    options: dict[str, Any] = {}

    @pytest.fixture(autouse=True)
    def _redis(self, redis: RedisProcess) -> None:
        self.redis = redis
        redis.command("FLUSHALL")
        self.layer = {"BACKEND": self.layer_class, "CONFIG": {"hosts": [redis.url], **self.options}}

    async def take_bus_away(self) -> None:
        self.redis.pause()

    async def bring_bus_back(self) -> None:
        self.redis.resume()


@pytest.mark.needs("redis")
class RedisLayerTests(OnRedis, IsolatedAsyncioTestCase):
    layer_class = "channels_redis.core.RedisChannelLayer"
    options = {"capacity": 1000}


@pytest.mark.needs("redis")
class RedisPubSubLayerTests(OnRedis, IsolatedAsyncioTestCase):
    layer_class = "channels_redis.pubsub.RedisPubSubChannelLayer"


@pytest.mark.needs("redis")
class ValkeyPubSubLayerTests(OnRedis, IsolatedAsyncioTestCase):
    layer_class = "channels_valkey.pubsub.ValkeyPubSubChannelLayer"


@pytest.mark.needs("redis")
class FullLayerTests(IsolatedAsyncioTestCase):
    """A layer that has room for three messages, and drops the rest."""

    @pytest.fixture(autouse=True)
    def _redis(self, redis: RedisProcess) -> None:
        redis.command("FLUSHALL")
        self.layer = {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [redis.url], "capacity": 3},
        }

    async def test_what_the_layer_drops_is_told_by_a_reset_even_if_nothing_follows(self) -> None:
        with override_settings(CHANNEL_LAYERS={"default": self.layer}):
            forget_hubs()
            backend = ChannelLayerBackend({})
            hub = Hub(asyncio.get_running_loop(), EventLog("0"))
            backend.attach(hub)
            await hub.filled()
            client = Client(hub, ("c",))
            client.open()
            for number in range(40):
                backend.publish(Event(("c",), "t", str(number)))  # on the loop itself, which hears nothing meanwhile
            text = b""

            def is_told() -> bool:
                nonlocal text
                while (body := client.take()) is not None:
                    text += body
                return b"event: reset" in text

            await until(is_told)
            await asyncio.to_thread(backend.close)
            forget_hubs()
            assert text.count(b"event: t\n") < 40
