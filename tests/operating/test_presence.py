"""Who hears a channel, on whichever worker; who came and who went."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_sse_live import apresence, presence
from django_sse_live.hub.hub import Hub
from django_sse_live.presence_worker import Presence
from django_sse_live.signals import presence_joined, presence_left
from tests.hub.conftest import until
from tests.operating.conftest import Connect


@pytest.fixture(autouse=True)
def rooms(settings: Any) -> None:
    settings.SSE_LIVE = {"PRESENCE_CHANNELS": ["room.*"], "PRESENCE_GRACE_SECONDS": 0}


@pytest.fixture
async def told() -> AsyncIterator[list[tuple[str, str, str]]]:
    """What the signals said: (joined or left, channel, user)."""
    said: list[tuple[str, str, str]] = []

    async def joined(channel: str, user_pk: str, **_: Any) -> None:
        said.append(("joined", channel, user_pk))

    async def left(channel: str, user_pk: str, **_: Any) -> None:
        said.append(("left", channel, user_pk))

    presence_joined.connect(joined)
    presence_left.connect(left)
    yield said
    presence_joined.disconnect(joined)
    presence_left.disconnect(left)


async def test_users_are_present_as_long_as_one_of_their_streams_is_open(connect: Connect, told: list[Any]) -> None:
    assert await apresence("room.7") == set()
    tabs = [connect("room.7", user_pk="1"), connect("room.7", "room.8", user_pk="1")]
    connect("room.7", user_pk="2")
    connect("room.7")  # nobody
    await until(lambda: presence("room.7") == {"1", "2"} and presence("room.8") == {"1"})
    await tabs[0].leave()
    await tabs[1].leave()
    await until(lambda: presence("room.7") == {"2"} and presence("room.8") == set())
    await until(lambda: len(told) == 5)
    assert sorted(told) == [
        *[("joined", "room.7", "1"), ("joined", "room.7", "2"), ("joined", "room.8", "1")],
        *[("left", "room.7", "1"), ("left", "room.8", "1")],
    ]


async def test_who_hears_the_channel_hears_who_comes_and_goes(connect: Connect) -> None:
    watcher = connect("room.7", user_pk="1")
    await until(lambda: watcher.data("presence_joined") == ['{"user": "1"}'])
    other = connect("room.7", user_pk="2")
    await until(lambda: watcher.data("presence_joined")[1:] == ['{"user": "2"}'])
    await other.leave()
    await until(lambda: watcher.data("presence_left") == ['{"user": "2"}'])


async def test_who_comes_back_at_once_has_not_left(settings: Any, connect: Connect, told: list[Any]) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_GRACE_SECONDS": 60}
    first = connect("room.7", user_pk="1")
    await until(lambda: len(told) == 1)
    await first.leave()
    assert presence("room.7") == {"1"}
    again = connect("room.7", user_pk="1")
    await until(lambda: again.client.is_open)
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_GRACE_SECONDS": 0}
    await again.leave()
    await until(lambda: presence("room.7") == set())
    await until(lambda: len(told) == 2)
    assert told == [("joined", "room.7", "1"), ("left", "room.7", "1")]


async def test_a_worker_that_stops_does_not_say_that_its_users_left(
    settings: Any, hub: Hub, connect: Connect, told: list[Any]
) -> None:
    """They are about to come back on another."""
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_GRACE_SECONDS": 0}
    reader = connect("room.7", user_pk="1")
    await until(lambda: len(told) == 1)
    hub.shut_down()
    await reader.done()
    for _ in range(200):
        await asyncio.sleep(0)
    assert told == [("joined", "room.7", "1")] and presence("room.7") == {"1"}


async def test_channels_that_no_pattern_names_cost_nothing_and_say_so(hub: Hub, connect: Connect) -> None:
    reader = connect("news", user_pk="1")
    await until(lambda: reader.client.is_open)
    with pytest.raises(ValueError, match="PRESENCE_CHANNELS"):
        presence("news")
    assert hub.parts[Presence]._here == {}


async def test_without_the_setting_nobody_is_looked_after(settings: Any) -> None:
    from django_sse_live.backends import running_hub
    from django_sse_live.hub.registry import forget_hubs

    settings.SSE_LIVE = {}
    forget_hubs()
    assert Presence not in running_hub().parts


async def test_a_sync_view_asks_from_its_thread(connect: Connect) -> None:
    connect("room.7", user_pk="1")
    await until(lambda: presence("room.7") == {"1"})
    assert await sync_to_async(presence)("room.7") == {"1"}


async def test_a_sync_view_of_a_new_worker_whose_bus_is_away_gets_what_is_known_here(
    hub: Hub, connect: Connect
) -> None:
    connect("room.7", user_pk="1")
    await until(lambda: presence("room.7") == {"1"})
    hub.parts[Presence].knows.clear()  # as before the others have answered
    assert await sync_to_async(presence)("room.7") == {"1"}


def test_a_process_that_serves_nobody_asks_without_harm() -> None:
    from django_sse_live.hub.registry import forget_hubs

    forget_hubs()
    assert presence("room.7") == set()


# Other workers, as this one hears of them.


def hear(hub: Hub, **said: Any) -> None:
    hub.parts[Presence]._hear(json.loads(json.dumps(said)))


async def test_a_user_who_is_on_two_workers_joins_and_leaves_once(hub: Hub, connect: Connect, told: list[Any]) -> None:
    hear(hub, worker="other", number=4, here={"room.7": ["1"]})
    mine = connect("room.7", user_pk="1")
    await until(lambda: mine.client.is_open)
    await mine.leave()
    await until(lambda: hub.parts[Presence]._members[hub.id].number == 2)
    assert told == [] and presence("room.7") == {"1"}
    hear(hub, worker="other", number=5, went=["room.7", "1"])
    assert presence("room.7") == set()
    assert told == []  # the other worker tells


async def test_the_latest_of_the_dead_are_remembered(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_sse_live.presence_worker.DEAD_WORKERS_MAX", 3)
    workers = [f"worker-{number}" for number in range(5)]
    for worker in workers:
        hear(hub, worker=worker, number=1, born=0, here={})
        hear(hub, dead=worker, number=1, by="another")
    for user, worker in enumerate(workers):  # what each said before it died, heard late
        hear(hub, worker=worker, number=1, born=0, here={"room.7": [str(user)]})
    assert presence("room.7") == {"0", "1"}


async def test_a_missed_announcement_is_asked_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Presence, "_publish", lambda self, said: asked.append(said))
    hear(hub, worker="other", number=4, here={"room.7": ["1"]})
    hear(hub, worker="other", number=6, came=["room.7", "3"])
    assert asked == [{"ask": "other"}] and presence("room.7") == {"1"}
    hear(hub, worker="other", number=6, here={"room.7": ["1", "2", "3"]})
    assert presence("room.7") == {"1", "2", "3"}
    hear(hub, worker="other", number=5, came=["room.7", "2"])  # late: known already
    hear(hub, worker="unknown", number=3, alive=True)
    assert asked == [{"ask": "other"}, {"ask": "unknown"}]


async def test_after_a_crash_its_users_have_left(settings: Any, hub: Hub, connect: Connect, told: list[Any]) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_SECONDS": 0.1}
    connect("room.7", user_pk="2")
    hear(hub, worker="zzz", number=1, here={"room.7": ["1", "2"]})
    await until(lambda: ("left", "room.7", "1") in told)
    assert presence("room.7") == {"2"}
    assert ("left", "room.7", "2") not in told


async def test_a_worker_that_serves_nobody_notices_a_crash_too_and_leaves_the_telling_to_others(
    settings: Any, hub: Hub, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_SECONDS": 0.1}
    said: list[Any] = []
    monkeypatch.setattr(Presence, "_publish", lambda self, announcement: said.append(announcement))
    assert await apresence("room.7") == set()
    part = hub.parts[Presence]
    for worker in ("one", "another"):
        hear(hub, worker=worker, number=1, here={"room.7": ["1"]})
        assert presence("room.7") == {"1"}
        await until(lambda: presence("room.7") == set())
        await until(lambda: not part._ticks_at)  # as long as nobody is known
    assert told == [] and said == []


async def test_after_a_pause_nobody_is_taken_for_dead(settings: Any, hub: Hub, connect: Connect) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_SECONDS": 0.1}
    reader = connect("room.7", user_pk="2")
    await until(lambda: reader.client.is_open)
    hear(hub, worker="zzz", number=1, here={"room.7": ["1"]})
    member = hub.parts[Presence]._members["zzz"]
    first = member.expires_at
    time.sleep(0.5)  # noqa: ASYNC251 - the whole loop is paused
    await until(lambda: member.expires_at > first)
    assert presence("room.7") == {"1", "2"}


async def test_whose_worker_was_taken_for_dead_joins_again_when_it_is_back(
    hub: Hub, connect: Connect, told: list[Any]
) -> None:
    connect("room.7", "room.8", user_pk="1")
    await until(lambda: len(told) == 2)
    hear(hub, worker="other", number=1, here={"room.8": ["1"]})
    told.clear()
    hear(hub, by="other", dead=hub.id, number=2)
    hear(hub, by="another", dead=hub.id, number=2)
    assert presence("room.7") == set()
    await until(lambda: presence("room.7") == {"1"})
    hear(hub, by="slow", dead=hub.id, number=2)  # it has announced itself since
    assert presence("room.7") == {"1"}
    connect("room.7", user_pk="2")
    await until(lambda: ("joined", "room.7", "2") in told)
    assert told[0] == ("joined", "room.7", "1") and len(told) == 2  # nobody was told that they left room.8


async def test_a_worker_that_missed_that_it_was_taken_for_dead_is_told_again(
    settings: Any, hub: Hub, connect: Connect, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_SECONDS": 0.1}
    connect("room.7", user_pk="2")
    hear(hub, worker="zzz", number=1, here={"room.7": ["1"]})
    await until(lambda: ("left", "room.7", "1") in told)
    said: list[Any] = []
    monkeypatch.setattr(Presence, "_publish", lambda self, announcement: said.append(announcement))
    hear(hub, worker="zzz", number=1, alive=True)
    assert said == [{"ask": "zzz"}]
    hear(hub, worker="zzz", number=1, born=0, here={"room.7": ["1"]})
    assert said[1:] == [{"dead": "zzz", "number": 1, "by": hub.id}] and presence("room.7") == {"2"}
    hear(hub, worker="zzz", number=2, born=2, here={"room.7": ["1"]})
    assert presence("room.7") == {"1", "2"}
    assert told.count(("joined", "room.7", "1")) == 0  # it tells that itself


async def test_while_the_bus_is_away_nobody_is_taken_for_dead(
    settings: Any, hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_SECONDS": 0.1}
    monkeypatch.setattr("django_sse_live.backends.memory.MemoryBackend.is_available", False)
    reader = connect("room.7", user_pk="2")
    await until(lambda: reader.client.is_open)
    hear(hub, worker="zzz", number=1, here={"room.7": ["1"]})
    member = hub.parts[Presence]._members["zzz"]
    first = member.expires_at
    await until(lambda: member.expires_at > first + 0.5)
    assert presence("room.7") == {"1", "2"}


@pytest.mark.needs("redis")
async def test_across_workers_and_after_a_kill() -> None:
    from tests.operating.site.__main__ import site

    async with site(2, PRESENCE_CHANNELS=["room.*"], PRESENCE_GRACE_SECONDS=0, PRESENCE_SECONDS=0.5) as here:
        first, second = here.servers

        async def present(server: Any) -> set[str]:
            return set(await server.get_json("/presence/?channel=room.7"))

        async def both(users: set[str]) -> None:
            async def so() -> bool:
                return await present(first) == await present(second) == users

            await asyncio.wait_for(_poll(so), 20)

        from tests.live.harness import Crowd

        ada = await Crowd.open(first, 1, "/events/?channel=room.7", headers=here.headers("ada"), keep=True)
        berta = await Crowd.open(second, 1, "/events/?channel=room.7", headers=here.headers("berta"))
        await both({"2", "3"})
        await second.kill()

        async def ada_alone() -> bool:
            return await present(first) == {"2"}

        await asyncio.wait_for(_poll(ada_alone), 20)
        await ada.all(lambda client: client.body.count("presence_left") == 1)
        assert ada[0].body.count("event: presence_joined") == 2
        berta.close()


@pytest.mark.needs("redis")
@pytest.mark.parametrize("bus", ["redis_streams.RedisStreamsBackend", "channel_layer.ChannelLayerBackend"])
async def test_of_a_worker_that_is_paused_and_goes_on(bus: str) -> None:
    from tests.live.harness import Crowd
    from tests.operating.site.__main__ import site

    def told(what: str, user: int, times: int) -> Callable[[Any], bool]:
        frame = f'event: presence_{what}\ndata: {{"user": "{user}"}}\n'
        return lambda client: client.body.count(frame) == times

    async with site(2, bus, PRESENCE_CHANNELS=["room.*"], PRESENCE_GRACE_SECONDS=0, PRESENCE_SECONDS=0.5) as here:
        first, second = here.servers

        async def come(server: Any, name: str) -> Crowd:
            return await Crowd.open(server, 1, "/events/?channel=room.7", headers=here.headers(name), keep=True)

        ada = await come(first, "ada")
        await ada.all(told("joined", 2, 1))
        berta = await come(second, "berta")
        await ada.all(told("joined", 3, 1))
        second.signal(SIGSTOP)
        await ada.all(told("left", 3, 1))
        second.signal(SIGCONT)
        await ada.all(told("joined", 3, 2))
        carl = await come(second, "carl")
        for crowd in (ada, berta):
            await crowd.all(told("joined", 4, 1))
            await crowd.all(told("joined", 3, 2))
            await crowd.all(told("left", 3, 1))
            await crowd.all(told("left", 2, 0))
        for crowd in (ada, berta, carl):
            crowd.close()


async def _poll(condition: Any) -> None:
    while not await condition():
        await asyncio.sleep(0.05)
