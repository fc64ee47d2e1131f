"""One client, one filter, one receiver that fails: the others are served, and nobody stays for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_sse_live import abroadcast, adisconnect_clients
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from tests.clients import make_client

from .conftest import Connect, until


class Broken(Exception):
    pass


def breaks(*_: Any, **__: Any) -> Any:
    raise Broken


class BrokenWriter:
    def has_room(self) -> bool:
        return True

    def write(self, chunk: bytes) -> None:
        raise Broken


@pytest.fixture
def broken_filter() -> Iterator[None]:
    logger = logging.getLogger("django_sse_live")
    level = logger.level
    logger.addFilter(breaks)
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(level)
    logger.removeFilter(breaks)


async def test_a_log_filter_that_raises_keeps_nobody_out_and_nobody_in(
    broken_filter: None, hub: Hub, connect: Connect
) -> None:
    reader = connect("a")
    await reader.until(lambda reader: bool(reader.chunks))
    assert len(hub.clients) == 1
    await abroadcast("a", "t", 1)
    await reader.until(lambda reader: reader.data("t") == ["1"])
    await reader.leave()
    assert len(hub.clients) == 0 and not hub.heartbeat._wheel and hub.fan_out.count_clients(("a",)) == 0


async def test_an_observer_that_raises_does_neither(hub: Hub, connect: Connect, caplog: Any) -> None:
    class Observer:
        joined = left = staticmethod(breaks)

    hub.observers.insert(0, Observer())
    reader = connect("a")
    await reader.until(lambda reader: bool(reader.chunks))
    await reader.leave()
    assert len(hub.clients) == 0
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2


@override_settings(SSE_LIVE={"HEARTBEAT_SECONDS": 0.3})
async def test_one_client_that_fails_in_the_sweep_costs_the_others_nothing(
    hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [connect("a") for _ in range(5)]
    await until(lambda: len(hub.clients) == 5)
    monkeypatch.setattr(Client, "grow_old", breaks)
    readers[2].client.ends_at = 0.0
    await until(lambda: all(reader.types().count("heartbeat") >= 2 for reader in readers if reader is not readers[2]))
    monkeypatch.undo()
    readers[2].client.ends_at = 0.0  # it is looked at again, too
    await readers[2].done()


@override_settings(SSE_LIVE={"SEND_TIMEOUT_SECONDS": 0.5})
async def test_an_abort_that_fails_ends_its_own_stream_alone(hub: Hub, connect: Connect) -> None:
    readers = [connect("a") for _ in range(4)]
    await until(lambda: all(reader.chunks for reader in readers))
    for reader in readers[:3]:
        reader.client.abort = breaks
        reader.stop_reading()
    await abroadcast("a", "t", 1)
    await until(lambda: len(hub.clients) == 1)
    await readers[3].until(lambda reader: reader.data("t") == ["1"])


async def test_one_client_that_fails_in_the_fan_out_ends_alone(hub: Hub, connect: Connect) -> None:
    first = connect("a")
    await until(lambda: first.client.is_waiting)
    client = make_client(hub)
    client.open()
    while client.take():
        pass
    client.writer = BrokenWriter()
    waiter = client.wait()
    last = connect("a")
    await until(lambda: last.client.is_waiting)
    await abroadcast("a", "t", 1)
    await until(lambda: first.data("t") == last.data("t") == ["1"])
    with pytest.raises(Broken):  # the task that streams is told
        await waiter
    client.leave("error")
    await abroadcast("a", "t", 2)
    await until(lambda: last.data("t") == ["1", "2"])


async def test_one_client_that_fails_to_end_leaves_the_others_ended(
    hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [connect("a") for _ in range(4)]
    await until(lambda: len(hub.clients) == 4)
    end = Client.end

    def fails_for_one(client: Client, *arguments: Any, **named: Any) -> None:
        if client is readers[1].client:
            raise Broken
        end(client, *arguments, **named)

    monkeypatch.setattr(Client, "end", fails_for_one)
    await adisconnect_clients(channel="a")
    await until(lambda: len(hub.clients) == 1)
    monkeypatch.undo()


async def test_the_whole_hub_is_made_before_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from django_sse_live.backends import running_hub
    from django_sse_live.hub.hub import hub_opened
    from django_sse_live.hub.registry import find_hub
    from django_sse_live.workers import Worker

    async def on_another_loop() -> None:
        hub_opened.connect(breaks)
        try:
            with pytest.raises(Broken):
                running_hub()
        finally:
            hub_opened.disconnect(breaks)
        assert find_hub(asyncio.get_running_loop()) is None
        hub = running_hub()
        assert hub.parts[Worker].hub is hub
        client = make_client(hub)
        client.open()
        assert client.is_open
        client.leave()

    await asyncio.to_thread(asyncio.run, on_another_loop())
