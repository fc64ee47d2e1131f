"""Who comes and goes is told to those who hear the channel, and stands in no history."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from django_sse_live import abroadcast, apresence, presence
from django_sse_live import presence as _function  # the package's attribute is the function
from django_sse_live.backends import get_backend, replace_backend, running_hub
from django_sse_live.backends.base import Backend
from django_sse_live.events import parse_id
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.reading import NEEDED_FRAMES_MAX
from django_sse_live.hub.registry import forget_hubs, open_hubs
from django_sse_live.presence import _on_a_loop_of_its_own
from django_sse_live.presence_changes import CHANGES_MAX, CHANNELS_MAX, Change, RecentChanges
from django_sse_live.presence_worker import ANNOUNCE, Presence
from tests.backends.redis_process import RedisProcess
from tests.hub.conftest import Reader, drained, until
from tests.operating.conftest import Connect

assert callable(_function)


@pytest.fixture(autouse=True)
def rooms(settings: Any) -> None:
    settings.SSE_LIVE = {"PRESENCE_CHANNELS": ["room.*"], "PRESENCE_GRACE_SECONDS": 0, "MAX_CLIENTS_PER_USER": None}


def say(hub: Hub, type: str, user: str, channel: str = "room.7") -> None:
    hub.handlers[ANNOUNCE]({"told": type, "channel": channel, "user": user})


async def test_users_who_come_and_go_push_no_event_out_of_the_history(
    settings: Any, hub: Hub, connect: Connect
) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "HISTORY_EVENTS": 10}
    before = parse_id(get_backend().position())
    await abroadcast("news", "n", 1)
    await drained(hub)
    watcher = connect("room.7", user_pk="0")
    for number in range(1, 31):
        visitor = connect("room.7", user_pk=str(number))
        await until(lambda: len(presence("room.7")) == 2)
        await visitor.leave()
        await until(lambda: presence("room.7") == {"0"})
    await until(lambda: len(watcher.data("presence_left")) == 30)
    assert watcher.data("presence_left") == [f'{{"user": "{number}"}}' for number in range(1, 31)]
    late = connect("news", last_id=before)
    await late.until(lambda reader: reader.data("n") == ["1"])
    assert "reset" not in late.types()
    assert "id:" not in watcher.text.split("presence_left")[1], "they have no place in the order"


async def test_after_a_break_a_client_hears_what_changed_meanwhile(hub: Hub, connect: Connect) -> None:
    await abroadcast("room.7", "n", 1)
    await drained(hub)
    first = connect("room.7", user_pk="1")
    await first.until(lambda reader: bool(reader.data("presence_joined")))
    place = parse_id(first.ids()[0])
    say(hub, "presence_joined", "2")
    await abroadcast("room.7", "n", 2)
    await until(lambda: hub.log.count(("room.7",), place[1] if place else 0) == 1)
    say(hub, "presence_left", "2")
    say(hub, "presence_joined", "9", "room.8")
    again = connect("room.7", user_pk="1", last_id=place)
    await again.until(lambda reader: "n" in reader.types())
    assert [(kind, json.loads(text)["user"]) for kind, text in _told(again)][-2:] == [
        ("presence_joined", "2"),
        ("presence_left", "2"),
    ]
    fresh = connect("room.7", user_pk="1")
    await until(lambda: fresh.client.is_open)
    assert ("presence_joined", "9") not in [(kind, json.loads(text)["user"]) for kind, text in _told(again)]
    assert _told(fresh) == []


def _told(reader: Reader) -> list[tuple[str, str]]:
    parts = [part for part in reader.text.split("\n\n") if part.startswith("event: presence_")]
    return [(part.split("\n")[0][7:], part.split("data: ")[1]) for part in parts]


async def test_who_came_back_after_more_changes_than_are_known_is_told_by_a_reset(hub: Hub, connect: Connect) -> None:
    await abroadcast("room.7", "n", 1)
    await drained(hub)
    place = parse_id(hub.log.head_id)
    await until(lambda: hub.parts[Presence].knows.is_set())
    for number in range(CHANGES_MAX + 1):
        say(hub, "presence_joined", str(number))
    again = connect("room.7", last_id=place)
    await again.until(lambda reader: "reset" in reader.types())
    other = connect("room.8", last_id=place)
    await until(lambda: other.client.is_open)
    await abroadcast("room.8", "n", 2)
    await other.until(lambda reader: "n" in reader.types())
    assert "reset" not in other.types(), "another channel's changes are its own"


async def test_a_client_that_does_not_read_is_told_that_it_missed_some(hub: Hub, connect: Connect) -> None:
    slow = connect("room.7")
    await until(lambda: bool(slow.chunks) and slow.client.is_waiting)
    slow.stop_reading()
    await abroadcast("room.7", "n", 1)
    await until(lambda: bool(slow.client.sending_since))
    for number in range(NEEDED_FRAMES_MAX):
        say(hub, "presence_joined", str(number))
    assert len(slow.client._frames) == NEEDED_FRAMES_MAX and slow.client.cursor >= 0
    say(hub, "presence_left", "1")
    say(hub, "presence_left", "2")
    assert len(slow.client._frames) == NEEDED_FRAMES_MAX, "bounded"
    slow.go_on_reading()
    await slow.until(lambda reader: "reset" in reader.types())
    assert len(_told(slow)) == NEEDED_FRAMES_MAX


def test_changes_are_bounded_for_each_channel_and_in_all() -> None:
    changes = RecentChanges()
    changes.add("e", "quiet", Change(5, "presence_joined", "1"))
    for number in range(10_000):
        changes.add("e", "loud", Change(number, "presence_joined", str(number)))
    assert changes.since("e", "quiet", 5) == [Change(5, "presence_joined", "1")]
    assert changes.since("e", "quiet", 6) == []
    assert changes.since("e", "loud", 9_000) is None
    kept = changes.since("e", "loud", 9_950)
    assert kept is not None and len(kept) == 50
    for number in range(CHANNELS_MAX):
        changes.add("e", f"other.{number}", Change(10_000, "presence_joined", "1"))
    assert len(changes._by_channel) == CHANNELS_MAX
    assert changes.since("e", "loud", 9_999) is None, "it is not known any more what changed there"
    assert changes.since("e", "loud", 10_000) == []
    assert changes.since("f", "quiet", 0) == []
    changes.add("f", "quiet", Change(1, "presence_left", "1"))
    assert changes.since("f", "quiet", 0) == [Change(1, "presence_left", "1")]


# Where this process serves nobody

Make = Callable[[], Backend]


@pytest_asyncio.fixture
async def make(redis: RedisProcess) -> AsyncIterator[Make]:
    from django_sse_live.backends.redis.backend import RedisStreamsBackend

    made: list[Backend] = []
    name = f"presence-{uuid.uuid4().hex}"

    def make() -> Backend:
        made.append(RedisStreamsBackend({"URL": redis.url, "STREAM": name}))
        return made[-1]

    forget_hubs()
    before = replace_backend(make())
    yield make
    for backend in made:
        await asyncio.to_thread(backend.close)
    replace_backend(before)
    forget_hubs()


@pytest.fixture(scope="module")
def redis() -> Any:
    with RedisProcess() as process:
        yield process


@pytest.mark.needs("redis")
async def test_the_others_are_asked_without_a_hub_and_without_the_history(make: Make, redis: RedisProcess) -> None:
    backend = get_backend()
    hub = running_hub()
    await hub.filled()
    connected = Reader(_client(hub))
    await until(lambda: presence("room.7") == {"1"})
    for number in range(2_000):
        backend.publish(_event(number))
    await until(lambda: len(hub.log) >= 1_000)
    reads = _history_reads(redis)
    replace_backend(make())  # as another process has it
    looks = 0
    for _ in range(3):
        told: set[str] = set()
        while told != {"1"}:  # it waits for half a second, in which a slow machine may not answer
            looks += 1
            told = await asyncio.to_thread(_on_a_loop_of_its_own, "room.7")
    assert _history_reads(redis) - reads <= 3 * looks, "three looks at where the streams end, each"
    assert open_hubs() == [hub]
    assert not [thread for thread in threading.enumerate() if thread.name == "sse-live-presence"]
    replace_backend(backend)
    await connected.leave()


async def test_a_coroutine_of_a_loop_that_serves_no_streams_makes_no_hub() -> None:
    forget_hubs()
    assert await apresence("room.7") == set()
    assert open_hubs() == []


def _client(hub: Hub) -> Any:
    from tests.clients import make_client

    return make_client(hub, ("room.7",), user_pk="1")


def _event(number: int) -> Any:
    from django_sse_live.events import Event

    return Event(("news",), "n", json.dumps(number))


def _history_reads(redis: RedisProcess) -> int:
    found = redis.command("INFO commandstats").decode()
    lines = [line for line in found.splitlines() if line.startswith("cmdstat_xrevrange")]
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines)
