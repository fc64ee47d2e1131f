"""Libraries that swallow a cancellation: who waits for them ends all the same."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from channels.layers import BaseChannelLayer
from django.test import override_settings

from django_sse_live.backends import cancellation
from django_sse_live.backends.cancellation import within
from django_sse_live.backends.channel_layer import ChannelLayerBackend
from django_sse_live.backends.redis import reader
from django_sse_live.backends.redis_streams import RedisStreamsBackend
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from tests.backends.redis_process import RedisProcess
from tests.live.harness import until


async def swallow_cancellation() -> None:
    """What asyncio's timeouts and redis-py's connections can make of one that comes at a bad moment."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise TimeoutError("Timeout reading from 127.0.0.1:6379") from None


class DeafLayer(BaseChannelLayer):
    """Nothing ever comes, and a cancellation of the wait for it is taken for a timeout."""

    receivers: ClassVar[list[str]] = []

    async def new_channel(self, prefix: str = "deaf") -> str:
        return f"{prefix}!1"

    async def group_add(self, group: str, channel: str) -> None:
        pass

    async def receive(self, channel: str) -> Any:
        self.receivers.append(channel)
        await swallow_cancellation()


async def end_like_asyncio_run() -> None:
    """What asyncio.run() does at its end, but for the patience."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=60)
        assert not pending


async def test_a_loop_can_close_while_a_channel_layer_is_listened_to() -> None:
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": f"{__name__}.DeafLayer"}}):
        backend = ChannelLayerBackend({})
        hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        backend.attach(hub)
        await until(lambda: DeafLayer.receivers)
        await end_like_asyncio_run()
        backend.close()


@pytest.mark.needs("redis")
@pytest.mark.parametrize("made_of_it", ["an error", "an answer"])
async def test_a_loop_can_close_while_redis_is_read(monkeypatch: pytest.MonkeyPatch, made_of_it: str) -> None:
    is_reading = asyncio.Event()

    async def deaf(*_: Any) -> Any:
        is_reading.set()
        with suppress(*(() if made_of_it == "an error" else (TimeoutError,))):
            await swallow_cancellation()

    with RedisProcess() as redis:
        backend = RedisStreamsBackend({"URL": redis.url})
        monkeypatch.setattr(reader.Reader, "_read_next", deaf)
        backend.attach(Hub(asyncio.get_running_loop(), EventLog("0")))
        await asyncio.wait_for(is_reading.wait(), 60)
        await end_like_asyncio_run()
        await asyncio.to_thread(backend.close)


async def test_a_result_an_error_and_a_timeout_come_out() -> None:
    async def result() -> int:
        return 7

    async def error() -> None:
        raise ValueError("7")

    assert await within(10, result()) == 7
    with pytest.raises(ValueError, match="7"):
        await within(None, error())
    with pytest.raises(asyncio.TimeoutError, match=r"no answer within 0\.01 s"):
        await within(0.01, asyncio.sleep(10))


async def test_work_that_loses_a_cancellation_and_goes_on_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_AGAIN_SECONDS", 0.01)

    async def go_on() -> None:
        for _ in range(2):
            with suppress(TimeoutError):
                await swallow_cancellation()
        await asyncio.Event().wait()

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, go_on())
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_what_the_abandoned_work_raises_is_nobodys_news(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "asyncio"):
        with pytest.raises(asyncio.TimeoutError):
            await within(0.01, swallow_cancellation())
        await until(lambda: len(asyncio.all_tasks()) == 1)
    assert not caplog.records
