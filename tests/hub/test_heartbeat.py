"""The sweep: heartbeats for who is due, an end for sends that hang and for streams that are old enough."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator

import pytest
from django.test import override_settings

from django_sse_live import abroadcast, abroadcast_patch, stream_position
from django_sse_live.hub.heartbeat import TICK_SECONDS
from django_sse_live.hub.hub import Hub
from tests.clients import make_client

from .conftest import Connect, drained, until


class TestHeartbeats:
    @pytest.fixture(autouse=True)
    def often(self) -> Iterator[None]:
        with override_settings(SSE_LIVE={"HEARTBEAT_SECONDS": 0.3}):
            yield

    async def test_every_client_hears_them_again_and_again(self, connect: Connect) -> None:
        readers = [connect("a"), connect("b", form="envelope")]
        await until(lambda: all(reader.text.count('"type":"heartbeat"') >= 2 for reader in readers))
        assert readers[0].types() == ["connected", *["heartbeat"] * (len(readers[0].types()) - 1)]
        assert "event:" not in readers[1].text

    async def test_one_says_how_far_its_client_was_served(self, hub: Hub, connect: Connect) -> None:
        reader = connect("quiet")
        await reader.until(lambda reader: bool(reader.chunks))
        await abroadcast("loud", "n")
        await drained(hub)
        await reader.until(lambda reader: reader.ids()[-1] == stream_position())
        assert reader.types()[-1] == "heartbeat"

    async def test_it_says_over_how_long_the_pages_of_this_worker_are_to_spread_a_fetch(self, connect: Connect) -> None:
        """30 ms for each stream; in the forms of our own client alone."""
        readers = [connect("a", form="envelope"), connect("a", form="envelope"), connect("a")]
        for reader in readers[:2]:
            await reader.until(lambda reader: bool(re.search('"heartbeat".*"spread":90', reader.text)))
        await readers[2].until(lambda reader: "heartbeat" in reader.types())
        assert '"connected"' in readers[0].text and '"spread":' in readers[0].chunks[0].decode()
        assert "spread" not in readers[2].text

    async def test_a_patch_says_so_too_as_more_pages_may_have_come_since_the_last_one(self, connect: Connect) -> None:
        readers = [connect("a", form="envelope") for _ in range(3)]
        for reader in readers:
            await reader.until(lambda reader: bool(reader.chunks))
        await abroadcast_patch("a", "refresh", "list")
        await abroadcast("a", "plain")
        await readers[0].until(lambda reader: '"plain"' in reader.text)
        frames = [line for line in readers[0].text.splitlines() if '"channels":["a"],"data"' in line]
        assert ['"spread":90' in frame for frame in frames] == [True, False]

    async def test_last_ping_is_when_the_last_one_was_handed_over(self, connect: Connect) -> None:
        reader = connect("a")
        await reader.until(lambda reader: "heartbeat" in reader.types())
        assert reader.client.last_ping > reader.client.connected_at

    async def test_only_who_is_due_hears_one(self, connect: Connect) -> None:
        often, rarely = connect("a"), connect("a", heartbeat_seconds=60)
        await often.until(lambda reader: reader.types().count("heartbeat") >= 3)
        assert rarely.types() == ["connected"]

    async def test_a_client_that_is_busy_gets_it_afterwards(self, connect: Connect) -> None:
        reader = connect("a")
        await reader.until(lambda reader: bool(reader.chunks))
        reader.stop_reading()
        await abroadcast("a", "n", 1)
        await until(lambda: reader.client.heartbeat_due)
        reader.go_on_reading()
        await reader.until(lambda reader: reader.types() == ["connected", "n", "heartbeat"])


@override_settings(SSE_LIVE={"SEND_TIMEOUT_SECONDS": 0.5})
async def test_a_send_that_hangs_ends_the_stream_with_one_line(
    connect: Connect, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, healthy = connect("a"), connect("a")
    await until(lambda: bool(stuck.chunks and healthy.chunks))
    aborted = asyncio.Event()
    stuck.client.abort = aborted.set
    stuck.stop_reading()
    with caplog.at_level(logging.INFO, "django_sse_live"):
        await abroadcast("a", "n", 1)
        await asyncio.wait_for(aborted.wait(), 60)
    assert stuck.client.close_reason == "send_timeout"
    assert hub.clients.get(stuck.client.id) is None
    assert [line for line in caplog.messages if "has not read" in line and stuck.client.id in line]
    await abroadcast("a", "n", 2)
    await healthy.until(lambda reader: reader.data("n") == ["1", "2"])
    assert hub.heartbeat._timer is not None  # also if both were looked at in one tick


@override_settings(SSE_LIVE={"MAX_AGE_SECONDS": None, "HEARTBEAT_SECONDS": 0.3})
async def test_without_a_maximum_a_stream_lives_on(connect: Connect) -> None:
    reader = connect("a")
    await reader.until(lambda reader: reader.types().count("heartbeat") >= 2)
    assert reader.client.ends_at == float("inf")


@override_settings(SSE_LIVE={"HISTORY_SECONDS": 0.2})
async def test_the_log_forgets_what_is_too_old_while_nothing_happens(hub: Hub, connect: Connect) -> None:
    connect("a")
    await abroadcast("a", "n")
    await until(lambda: len(hub.log) > 0)
    await until(lambda: len(hub.log) == 0)


async def test_a_server_that_tells_by_no_signal_is_asked_on_each_sweep(hub: Hub, connect: Connect) -> None:
    reader = connect("a")
    await reader.until(lambda reader: bool(reader.chunks))
    hub.must_close = lambda: True
    await reader.done()
    assert '"reason":"shutdown"' in reader.text


async def test_no_client_no_timer(hub: Hub, connect: Connect) -> None:
    reader = connect("a")
    await reader.until(lambda reader: bool(reader.chunks))
    assert hub.heartbeat._timer is not None
    await reader.leave()
    assert hub.heartbeat._timer is None
    assert not hub.heartbeat._wheel
    assert TICK_SECONDS <= 1


@override_settings(SSE_LIVE={"MAX_AGE_SECONDS": 1000})
async def test_streams_of_one_moment_do_not_all_end_at_one_moment(hub: Hub) -> None:
    clients = [make_client(hub) for _ in range(300)]
    now = hub.loop.time()
    for client in clients:
        client.open()
    ages = [client.ends_at - now for client in clients]
    assert 900 <= min(ages) < 920 and 1080 < max(ages) <= 1110, "ten percent less or more"
    for client in clients:
        client.leave()
