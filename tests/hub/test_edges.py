"""Where the log is about to evict what a client is to be replayed; and how often a client is reset."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_sse_live.events import Event
from django_sse_live.hub import reading
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from tests.clients import make_client
from tests.live.harness import until


def event(position: int, channel: str = "a") -> Event:
    made = Event((channel,), "t", json.dumps(position))
    made.stamp("e", position)
    return made


async def filled(count: int) -> Hub:
    hub = Hub(asyncio.get_running_loop(), EventLog("e", complete=True))
    await add(hub, range(1, count + 1))
    return hub


async def add(hub: Hub, positions: Any) -> None:
    for position in positions:
        hub.deliver(event(position))
    await until(lambda: hub.log.head == positions[-1])
    hub._evict()


def lose(hub: Hub) -> None:
    """Events are missing after the head."""
    hub.restart(hub.log.epoch, hub.log.head + 1)


def taken(client: Client) -> str:
    text = b""
    while chunk := client.take():
        text += chunk
    return text.decode()


def data(text: str) -> list[int]:
    return [int(part.partition("data: ")[2]) for part in text.split("\n\n") if "event: t\n" in part]


class TestReplays:
    @pytest.fixture(autouse=True)
    def short(self) -> Iterator[None]:
        with override_settings(SSE_LIVE={"HISTORY_EVENTS": 100}):
            yield

    async def test_one_from_the_backend_goes_on_past_the_edge_of_the_log(self) -> None:
        hub = await filled(300)
        assert hub.log.evicted_to == 200
        client = make_client(hub, last_id=("e", 50))
        assert client.needs_history
        client.replay([event(position) for position in range(51, 201)])
        await add(hub, range(301, 321))  # while the snapshot is made, and the headers are sent
        client.open()
        text = taken(client)
        assert "event: reset" not in text and data(text) == list(range(51, 321))
        client.leave()

    async def test_the_backend_may_give_more_than_was_asked(self) -> None:
        hub = await filled(300)
        client = make_client(hub, last_id=("e", 190))
        client.replay([event(position) for position in range(191, 206)])
        client.open()
        assert data(taken(client)) == list(range(191, 301))
        client.leave()

    async def test_one_from_the_backend_comes_behind_what_is_held_already(self) -> None:
        hub = await filled(300)
        client = make_client(hub, last_id=("e", 201))
        await add(hub, range(301, 501))  # while the snapshot is made: the log evicts what came after its making, too
        assert client.needs_history
        client.replay([event(position) for position in range(client.cursor + 1, 401)])
        client.open()
        text = taken(client)
        assert "event: reset" not in text and data(text) == list(range(202, 501))
        client.leave()

    async def test_one_that_the_log_still_has_is_not_lost_before_the_stream_opens(self) -> None:
        hub = await filled(300)
        client = make_client(hub, last_id=("e", 201))
        assert not client.needs_history
        await add(hub, range(301, 321))
        client.open()
        text = taken(client)
        assert '"resumed":true' in text and data(text) == list(range(202, 321))
        client.leave()

    async def test_one_is_read_on_while_the_log_moves(self) -> None:
        hub = await filled(300)
        client = make_client(hub, last_id=("e", 150))
        client.replay([event(position) for position in range(151, 201)])
        client.open()
        assert client.take()  # connected
        await add(hub, range(301, 391))
        text = taken(client)
        assert "event: reset" not in text and data(text) == list(range(151, 391))
        client.leave()

    async def test_a_client_far_from_the_edge_shares_what_others_read(self) -> None:
        hub = await filled(300)
        clients = [make_client(hub, last_id=("e", 280)) for _ in range(2)]
        for client in clients:
            client.open()
            client.take()
        first, second = [client.take() for client in clients]
        assert first is second
        for client in clients:
            client.leave()

    async def test_what_is_held_counts_as_replayed(self) -> None:
        hub = await filled(300)
        client = make_client(hub, last_id=("e", 201))
        client.open()
        taken(client)
        assert hub.counts.replayed == hub.counts.delivered == client.events_sent == 99
        client.leave()


class TestBeginnings:
    async def test_a_client_that_brings_no_id_is_not_reset_for_a_log_that_is_filled_meanwhile(self) -> None:
        hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        hub.begin_filling()
        client = make_client(hub)
        hub.adopt(EventLog("e", 7))
        client.open()
        text = taken(client)
        assert "event: reset" not in text and "id: e:0-7\n" in text
        client.leave()

    async def test_a_stop_lets_go_of_who_waits_for_the_log(self) -> None:
        hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        hub.begin_filling()
        client = make_client(hub)
        waiting = asyncio.ensure_future(hub.filled(60))
        await asyncio.sleep(0)
        hub.shut_down()
        await asyncio.wait_for(waiting, 30)
        await asyncio.wait_for(hub.filled(60), 30)
        assert hub.refusal(client) == "shutdown"
        hub.adopt(EventLog("e", 7))  # in spite of it
        assert hub.refusal(client) == "shutdown"

    async def test_one_with_a_snapshot_is_told_that_it_may_be_old(self) -> None:
        hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        client = make_client(hub)
        client.initial = [b"data: snapshot\n\n"]
        hub.adopt(EventLog("e", 7))
        client.open()
        assert "event: reset" in taken(client)
        client.leave()


class TestResets:
    async def test_a_client_gets_one_a_second_at_the_most_and_the_last_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = await filled(1)
        monkeypatch.setattr(reading, "RESET_SECONDS", 0.5)
        client = make_client(hub)
        chunks: list[tuple[float, str]] = []

        async def read() -> None:
            client.open()
            while True:
                while chunk := client.take():
                    chunks.append((hub.loop.time(), chunk.decode()))
                await client.wait()

        task = asyncio.create_task(read())
        await until(lambda: client.is_waiting)
        for _ in range(50):
            lose(hub)
            await asyncio.sleep(0)
        await add(hub, range(hub.log.head + 1, hub.log.head + 3))

        def resets() -> list[float]:
            return [at for at, text in chunks if "event: reset" in text]

        await until(lambda: len(resets()) == 2)
        first, second = resets()
        assert second - first >= 0.5
        assert f"id: {hub.log.head_id}\nevent: reset" in chunks[-1][1] or "event: heartbeat" in chunks[-1][1]
        assert data("".join(text for _, text in chunks)) == [], "the second stands for them"
        assert hub.counts.resets["history_expired"] == 2
        task.cancel()
        client.leave()

    async def test_while_it_waits_it_costs_no_work(self, caplog: pytest.LogCaptureFixture) -> None:
        hub = await filled(1)
        client = make_client(hub)
        client.open()
        taken(client)
        lose(hub)
        taken(client)
        lose(hub)
        for _ in range(5):
            assert client.take() is None
        client.heartbeat_due = True
        assert client.take() is None, "no heartbeat: it would say that everything has been served"
        assert sum(map(len, hub.heartbeat._wheel.values())) == 1
        client.leave()
        assert not hub.heartbeat._wheel and not [r for r in caplog.records if r.levelno >= logging.ERROR]
