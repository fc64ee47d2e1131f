"""The first moment of a stream: what it missed is read without a place in line, within a time and a budget."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.test import override_settings

from django_sse_live import abroadcast, stream_position
from django_sse_live.asgi import live_application
from django_sse_live.backends import running_hub
from django_sse_live.backends.base import HistoryUnavailable
from django_sse_live.backends.memory import MemoryBackend
from django_sse_live.events import Event, format_id
from django_sse_live.http import catching_up
from django_sse_live.hub.hub import Hub
from tests.http.test_handoff import Connection
from tests.live.harness import until
from tests.visitors import Visitor


@pytest.fixture
def beyond_the_log(settings: Any) -> str:
    """An id that only the bus could still serve."""
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"], "HISTORY_EVENTS": 1, "MAX_OPENING": 1}
    return stream_position()


async def evict() -> None:
    """The log's beginning, and with it what a client with that id missed."""
    for number in range(3):
        await abroadcast("news", "said", number)


async def test_a_bus_that_is_slow_holds_up_nobody_else_s_opening(
    beyond_the_log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def history(self: Any, hub: Any, channels: Any, after: int) -> None:
        asked.set()
        await answer.wait()

    monkeypatch.setattr(MemoryBackend, "history", history)
    application = live_application(get_asgi_application())
    await evict()
    waiting = Connection("/news/", headers=((b"last-event-id", beyond_the_log.encode()),))
    task = asyncio.ensure_future(application(waiting.scope, waiting.messages.get, waiting.send))
    await until(asked.is_set)
    async with Connection("/news/").opened(application):
        pass
    answer.set()
    await until(lambda: waiting.is_open)
    waiting.messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(task, 60)


async def test_a_client_that_leaves_while_the_bus_is_asked_is_gone(
    beyond_the_log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = asyncio.Event()
    asked = asyncio.Event()

    async def history(self: Any, hub: Any, channels: Any, after: int) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    monkeypatch.setattr(MemoryBackend, "history", history)
    monkeypatch.setattr("django_sse_live.http.catching_up.HISTORY_SECONDS", 0.1)
    await evict()
    async with Visitor("/news/").listen(last_event_id=beyond_the_log) as stream:
        (goodbye,) = await stream.rest()
    assert goodbye.json["reason"] == "not_ready" and goodbye.json["reconnect"] is True
    assert asked.is_set() and cancelled.is_set()


async def test_a_client_that_is_ahead_of_its_worker_comes_back_where_the_bus_does_not_answer(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def has_reached(self: Any, hub: Any, position: int) -> bool:
        raise HistoryUnavailable("the database is away")

    monkeypatch.setattr(MemoryBackend, "has_reached", has_reached)
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"]}
    log = running_hub().log
    async with Visitor("/news/").listen(last_event_id=format_id(log.epoch, log.head + 1)) as stream:
        (goodbye,) = await stream.rest()
    assert goodbye.json["reason"] == "not_ready" and goodbye.json["reconnect"] is True
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def missed(address: str, last_id: str) -> list[str]:
    """What an address is told first: connected, or goodbye with its reason."""
    visitor = Visitor("/news/", scope={"client": (address, 1)})
    async with visitor.listen(last_event_id=last_id) as stream:
        message = await stream.next()
        return [message.type, message.json.get("reason", "")]


@override_settings(SSE_LIVE={"PUBLIC_CHANNELS": ["news"]})
async def test_one_address_has_a_budget_of_replayed_bytes_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stream_position()
    await abroadcast("news", "said", "x" * 90_000)
    assert await missed("8.8.8.8", before) == ["connected", ""]
    event = running_hub().log.read(("news",), 0)[-1]
    monkeypatch.setattr(catching_up, "ADDRESS_MAX_BYTES", 2 * event.size)
    assert await missed("8.8.8.8", before) == ["connected", ""]
    assert await missed("8.8.8.8", before) == ["goodbye", "replay_limit"]
    assert await missed("8.8.8.8", stream_position()) == ["connected", ""], "what costs nothing is given"
    assert await missed("9.9.9.9", before) == ["connected", ""], "another address has its own"
    assert await missed("10.0.0.1", before) == ["connected", ""]


@override_settings(SSE_LIVE={"PUBLIC_CHANNELS": ["news"], "HISTORY_EVENTS": 20})
async def test_what_is_held_since_the_view_counts_as_all_that_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catching_up, "ADDRESS_MAX_BYTES", 25_000)
    running_hub()
    await abroadcast("news", "said", "before")
    position = stream_position()
    for _ in range(18):  # the log is about to evict the first of them
        await abroadcast("news", "said", "x" * 1000)
    await until(lambda: running_hub().log.head_id == stream_position())
    assert await missed("8.8.8.8", position) == ["connected", ""]
    assert await missed("8.8.8.8", position) == ["goodbye", "replay_limit"]


async def test_what_the_bus_has_given_is_charged_for_as_much_as_it_was(
    beyond_the_log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def history(self: Any, hub: Any, channels: Any, after: int) -> list[Event]:
        event = Event(("news",), "said", f'"{"x" * 2_000_000}"')
        event.stamp(hub.log.epoch, after + 1)
        return [event, *hub.log.read(channels, hub.log.evicted_to)]

    monkeypatch.setattr(MemoryBackend, "history", history)
    await evict()
    monkeypatch.setattr(catching_up, "ADDRESS_MAX_BYTES", 9_000_000)  # such an event counts twice its length
    assert await missed("8.8.8.8", beyond_the_log) == ["connected", ""]
    assert await missed("8.8.8.8", beyond_the_log) == ["connected", ""]
    assert await missed("8.8.8.8", beyond_the_log) == ["goodbye", "replay_limit"]
    assert await missed("9.9.9.9", beyond_the_log) == ["connected", ""], "another address has its own"


def test_a_budget_begins_anew_with_each_minute_and_forgets() -> None:
    now = [100.0]
    budget = catching_up.ReplayBudget(lambda: now[0])
    most = catching_up.ADDRESS_MAX_BYTES
    assert budget.take("a", most + 1, is_private=False), "one replay is never too large"
    assert not budget.take("a", 1, is_private=False)
    assert budget.take("b", most, is_private=False) and not budget.take("b", 1, is_private=False)
    assert budget.take("proxy", most, is_private=True) and budget.take("proxy", most, is_private=True)
    now[0] += 61
    assert budget.take("a", 1, is_private=False)
    assert len(budget._spent) == 1


async def test_while_a_new_worker_s_log_is_filled_nobody_holds_a_place_or_a_thread(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"], "MAX_OPENING": 1}
    hub = running_hub()
    waiting: list[Hub] = []
    filled = Hub.filled

    async def noted(self: Hub) -> None:
        waiting.append(self)
        await filled(self)

    monkeypatch.setattr(Hub, "filled", noted)
    hub.begin_filling()
    application = live_application(get_asgi_application())
    streams = [Connection("/news/") for _ in range(3)]
    tasks = [asyncio.ensure_future(application(one.scope, one.messages.get, one.send)) for one in streams]
    await until(lambda: len(waiting) == 3)
    await until(lambda: not any(thread.name.startswith("sse-live-opening") for thread in threading.enumerate()))
    hub.adopt(hub.log.copy())
    await until(lambda: all(one.is_open for one in streams))
    for one in streams:
        one.messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def test_a_client_that_was_refused_in_the_view_does_not_open_without_its_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter(["not_ready"])
    monkeypatch.setattr(Hub, "refusal", lambda self, client: next(answers, None))
    async with Visitor("/snapshot/").listen() as stream:
        (goodbye,) = await stream.rest()
    assert (goodbye.type, goodbye.json["reason"]) == ("goodbye", "not_ready")
