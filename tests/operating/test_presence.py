"""Who hears a channel, on whichever worker; who came and who went."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_sse_live import apresence, presence
from django_sse_live.hub.hub import Hub
from django_sse_live.presence import Presence
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


async def test_channels_that_no_pattern_names_cost_nothing_and_say_so(hub: Hub, connect: Connect) -> None:
    reader = connect("news", user_pk="1")
    await until(lambda: reader.client.is_open)
    with pytest.raises(ValueError, match="PRESENCE_CHANNELS"):
        presence("news")
    assert hub.residents[Presence]._here == {}


async def test_without_the_setting_nobody_is_looked_after(settings: Any) -> None:
    from django_sse_live.backends import running_hub
    from django_sse_live.hub.registry import forget_hubs

    settings.SSE_LIVE = {}
    forget_hubs()
    assert running_hub().observers == []


async def test_a_sync_view_asks_from_its_thread(connect: Connect) -> None:
    connect("room.7", user_pk="1")
    await until(lambda: presence("room.7") == {"1"})
    assert await sync_to_async(presence)("room.7") == {"1"}


def test_a_process_that_serves_nobody_asks_without_harm() -> None:
    from django_sse_live.hub.registry import forget_hubs

    forget_hubs()
    assert presence("room.7") == set()


# Other workers, as this one hears of them.


def hear(hub: Hub, **said: Any) -> None:
    hub.residents[Presence]._hear(json.loads(json.dumps(said)))


async def test_a_user_who_is_on_two_workers_joins_and_leaves_once(hub: Hub, connect: Connect, told: list[Any]) -> None:
    hear(hub, worker="other", number=4, here={"room.7": ["1"]})
    mine = connect("room.7", user_pk="1")
    await until(lambda: mine.client.is_open)
    await mine.leave()
    await until(lambda: hub.residents[Presence]._members[hub.id].number == 2)
    assert told == [] and presence("room.7") == {"1"}
    hear(hub, worker="other", number=5, went=["room.7", "1"])
    assert presence("room.7") == set()
    assert told == []  # the other worker tells


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


async def test_while_the_bus_is_away_nobody_is_taken_for_dead(
    settings: Any, hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "PRESENCE_SECONDS": 0.1}
    monkeypatch.setattr("django_sse_live.backends.memory.MemoryBackend.is_available", False)
    reader = connect("room.7", user_pk="2")
    await until(lambda: reader.client.is_open)
    hear(hub, worker="zzz", number=1, here={"room.7": ["1"]})
    member = hub.residents[Presence]._members["zzz"]
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


async def _poll(condition: Any) -> None:
    while not await condition():
        await asyncio.sleep(0.05)
