from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest import IsolatedAsyncioTestCase

import pytest
from channels.layers import InMemoryChannelLayer
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


@contextmanager
def hub_elsewhere(backend: Backend, end: Callable[[asyncio.AbstractEventLoop], None]) -> Iterator[None]:
    """A hub in a thread with a loop of its own, which ends by ``end`` with the block."""
    loop = asyncio.new_event_loop()
    filled = threading.Event()

    async def open_hub() -> None:
        hub = Hub(loop, EventLog("0"))
        backend.attach(hub)
        await hub.filled()
        filled.set()

    def run() -> None:
        opening = loop.create_task(open_hub())
        loop.run_forever()
        opening.cancel()
        end(loop)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        filled.wait(1)  # or not at all, without a bus
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def end_properly(loop: asyncio.AbstractEventLoop) -> None:
    """As asyncio.run() does."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def end_abruptly(loop: asyncio.AbstractEventLoop) -> None:
    """No task hears of it."""
    loop.close()


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

    async def test_the_loop_that_heard_the_layer_ends_and_another_goes_on(self) -> None:
        await self._lose_the_first_loop(end_properly)

    async def _lose_the_first_loop(self, end: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        backend = self.process()
        elsewhere = hub_elsewhere(backend, end)
        await asyncio.to_thread(elsewhere.__enter__)
        hub, second = [await self.open_hub(backend) for _ in range(2)]
        clients = [self._client(hub), self._client(second)]
        await asyncio.to_thread(elsewhere.__exit__, None, None, None)
        await backend.apublish(self.event("nobody listens"))
        for client in clients:
            await self.until(lambda client=client: self._was_told(client))
        await backend.apublish(self.event("again"))
        await self.until(lambda: self.heard(hub)[-1:] == self.heard(second)[-1:] == ["again"])
        self.assertTrue(backend.is_available)


class InMemoryLayerTests(LayerSuite, IsolatedAsyncioTestCase):
    layer = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1000}}

    def test_an_alias_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="default"):
            ChannelLayerBackend({"LAYER": "other"})

    async def test_the_loop_that_heard_the_layer_is_closed_under_it_and_another_goes_on(self) -> None:
        await self._lose_the_first_loop(end_abruptly)


class LayerAway(InMemoryChannelLayer):  # type: ignore[misc]
    is_away: ClassVar[bool]

    async def new_channel(self, prefix: str = "specific") -> str:
        if self.is_away:
            raise ConnectionError("no server")
        return await super().new_channel(prefix)  # type: ignore[no-any-return]


class LayerAwayTests(IsolatedAsyncioTestCase):
    async def test_an_outage_does_not_outlast_the_loop_that_noticed_it(self) -> None:
        with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": f"{__name__}.LayerAway"}}):
            for end in (end_properly, end_abruptly):
                LayerAway.is_away = True
                forget_hubs()
                backend = ChannelLayerBackend({})
                elsewhere = hub_elsewhere(backend, end)
                await asyncio.to_thread(elsewhere.__enter__)
                assert not backend.is_available
                if end is end_abruptly:  # nothing is known of it before somebody else looks
                    hub = Hub(asyncio.get_running_loop(), EventLog("0"))
                    backend.attach(hub)
                    LayerAway.is_away = False
                await asyncio.to_thread(elsewhere.__exit__, None, None, None)
                await until(lambda backend=backend: backend.is_available)
                await asyncio.to_thread(backend.close)
        forget_hubs()


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
