"""A browser that renews its stream has two for a moment, and one place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import override_settings

from django_sse_live.hub.hub import Hub
from tests.clients import make_client
from tests.hub.conftest import Connect, Reader, until


async def connected(reader: Reader) -> dict[str, Any]:
    """What its first frame says."""
    await reader.until(lambda reader: bool(reader.chunks))
    frame: dict[str, Any] = json.loads(reader.text.partition("data: ")[2].partition("\n")[0])
    return frame


async def is_let_in(reader: Reader) -> bool:
    return bool((await connected(reader))["type"] == "connected")


class TestTheEndIsAnnounced:
    async def test_to_our_own_client(self, connect: Connect) -> None:
        reader = connect(form="envelope")
        assert 0.9 * 3600 - 1 <= (await connected(reader))["ends"] <= 1.1 * 3600
        assert reader.client.ends_at < float("inf")

    async def test_as_it_then_comes(self, connect: Connect, hub: Hub) -> None:
        with override_settings(SSE_LIVE={"MAX_AGE_SECONDS": 1}):
            reader = connect(form="envelope")
            began_at = hub.loop.time()
            ends = (await connected(reader))["ends"]
            await reader.done()
        assert hub.loop.time() - began_at >= ends - 0.1
        assert '"reason":"max_age"' in reader.text

    async def test_to_nobody_else(self, connect: Connect) -> None:
        assert "ends" not in await connected(connect())

    async def test_not_where_there_is_none(self, connect: Connect) -> None:
        with override_settings(SSE_LIVE={"MAX_AGE_SECONDS": None}):
            assert "ends" not in await connected(connect(form="envelope"))


class TestOnePlace:
    @pytest.fixture(autouse=True)
    def one_place(self, settings: Any) -> None:
        settings.SSE_LIVE = {"MAX_CLIENTS_PER_USER": 1, "MAX_CLIENTS_PER_ADDRESS": 1}

    who = {"user_pk": "7", "session": "s", "address": "192.0.2.1"}

    async def test_is_enough_for_a_stream_and_its_successor(self, connect: Connect) -> None:
        old = connect(**self.who)
        assert await is_let_in(old)
        new = connect(**self.who, replaces=old.client.id)
        assert await is_let_in(new)
        assert old.client.is_open, "it is for the browser to close it"
        await old.leave()
        assert not await is_let_in(connect(**self.who)), "its place is the successor's now"
        again = connect(**self.who, replaces=new.client.id)
        assert await is_let_in(again), "and so on"
        await new.leave()
        await again.leave()
        assert await is_let_in(connect(**self.who)), "and free in the end"

    async def test_stays_the_old_ones_where_the_new_one_goes_first(self, connect: Connect) -> None:
        old = connect(**self.who)
        assert await is_let_in(old)
        new = connect(**self.who, replaces=old.client.id)
        assert await is_let_in(new)
        await new.leave()
        assert not await is_let_in(connect(**self.who))
        assert await is_let_in(connect(**self.who, replaces=old.client.id))

    async def test_is_shared_by_two_and_no_more(self, connect: Connect) -> None:
        old = connect(**self.who)
        assert await is_let_in(old)
        new = connect(**self.who, replaces=old.client.id)
        assert await is_let_in(new)
        for name in (old.client.id, new.client.id):
            assert not await is_let_in(connect(**self.who, replaces=name))

    @pytest.mark.parametrize("other", [{"user_pk": "8"}, {"session": "t"}, {"address": "192.0.2.9"}, {"user_pk": None}])
    async def test_is_nobody_elses(self, connect: Connect, other: dict[str, Any], hub: Hub) -> None:
        old = connect(**self.who)
        assert await is_let_in(old)
        foreign = connect(**{**self.who, **other}, replaces=old.client.id)
        await connected(foreign)
        assert old.client.is_open
        assert len(hub.clients._pairs) == 0

    async def test_is_not_made_by_the_name_of_nobody(self, connect: Connect) -> None:
        assert await is_let_in(connect(**self.who))
        for name in ("", "0123456789abcdef"):
            assert not await is_let_in(connect(**self.who, replaces=name))


@override_settings(SSE_LIVE={"MAX_CLIENTS": 2})
async def test_a_full_worker_renews_and_has_as_many_places_for_others_meanwhile(connect: Connect, hub: Hub) -> None:
    old = connect()
    assert await is_let_in(old)
    assert await is_let_in(connect(replaces=old.client.id))
    assert len(hub.clients) == 2
    assert await is_let_in(connect())
    assert not await is_let_in(connect())


class TestHowManyStreamsABrowserHas:
    async def test_is_told_to_our_own_client(self, connect: Connect) -> None:
        said = []
        for who in ({"session": "s"}, {"session": "s"}, {"session": "t"}):
            said.append((await connected(connect(form="envelope", address="192.0.2.1", **who))).get("streams", 1))
        assert said == [1, 2, 1]

    async def test_without_a_session_by_its_address(self, connect: Connect) -> None:
        said = [(await connected(connect(form="envelope", address="192.0.2.1"))).get("streams", 1) for _ in range(3)]
        assert said == [1, 2, 3]

    async def test_counts_a_renewal_as_one(self, connect: Connect) -> None:
        old = connect(form="envelope", session="s")
        await connected(old)
        new = connect(form="envelope", session="s", replaces=old.client.id)
        assert "streams" not in await connected(new)


async def test_nothing_is_left_of_those_who_renewed(hub: Hub) -> None:
    clients = [make_client(hub, ("a",), address="192.0.2.1")]
    clients[0].open()
    for _ in range(20):
        clients.append(make_client(hub, ("a",), address="192.0.2.1", replaces=clients[-1].id))
        clients[-1].open()
        clients[-2].leave()
    clients[-1].leave()
    await until(lambda: len(hub.clients) == 0)
    assert not hub.clients._pairs and not hub.clients._doubled
