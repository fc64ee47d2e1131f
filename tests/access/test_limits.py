"""One client must not be able to take the worker down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User

from django_sse_live.backends import running_hub
from django_sse_live.identity import address_group
from tests.access.conftest import answer, logged_in
from tests.visitors import Visitor


def at(address: str | None) -> Visitor:
    return Visitor(scope={"client": (address, 50_000) if address is not None else None})


async def is_sent_away(visitor: Visitor, query: str = "channel=news", **headers: str) -> bool:
    async with visitor.listen(query, **headers) as stream:
        first = await stream.next()
        if first.type == "goodbye":
            assert first.json["reason"] == "too_many_clients"
            assert first.json["reconnect"] is True
            assert 1000 <= first.json["retry"] == stream.retry_ms
            assert await stream.rest() == []
        return first.type == "goodbye"


class TestPerUser:
    async def test_the_one_too_many_is_asked_to_come_back(self, user: User, other_user: User, settings: Any) -> None:
        settings.SSE_LIVE = {"MAX_CLIENTS_PER_USER": 1, "PUBLIC_CHANNELS": ["news"]}
        visitor = await logged_in(user)
        async with visitor.listen() as stream:
            await stream.next()
            assert await is_sent_away(visitor)
            assert await answer(visitor, "", accept="*/*") == "429 too_many_clients"
            assert await answer(visitor, "", "HEAD") == "429 too_many_clients"
            assert not await is_sent_away(await logged_in(other_user))
            assert not await is_sent_away(Visitor())
        assert not await is_sent_away(visitor)

    async def test_those_that_open_at_the_same_time_count_too(self, user: User, settings: Any) -> None:
        settings.SSE_LIVE = {"MAX_CLIENTS_PER_USER": 3}
        visitor = await logged_in(user)
        outcomes: list[bool] = []
        decided = asyncio.Event()

        async def open_one() -> None:
            async with visitor.listen() as stream:
                outcomes.append((await stream.next()).type == "connected")
                if len(outcomes) == 10:
                    decided.set()
                await decided.wait()

        await asyncio.gather(*[open_one() for _ in range(10)])
        assert sorted(outcomes) == [False] * 7 + [True] * 3


class TestPerAddress:
    async def test_off_unless_configured(self) -> None:
        async with at("192.0.2.1").listen("channel=news"):
            assert not await is_sent_away(at("192.0.2.1"))

    async def test_a_socket_without_an_address_has_no_limit(self, settings: Any) -> None:
        settings.SSE_LIVE = {"MAX_CLIENTS_PER_ADDRESS": 1, "PUBLIC_CHANNELS": ["news"]}
        async with at(None).listen("channel=news") as stream:
            await stream.next()
            assert not await is_sent_away(at(None))

    @pytest.mark.parametrize(
        ("count", "header", "address"),
        [
            (1, "198.51.100.7", "198.51.100.7"),
            (1, "1.1.1.1, 198.51.100.7", "198.51.100.7"),  # the visitor wrote the first one
            (2, "198.51.100.7, 10.0.0.2", "198.51.100.7"),
            (2, "1.1.1.1, 198.51.100.7,10.0.0.2", "198.51.100.7"),
            (2, "10.0.0.2", "10.0.0.1"),  # not the way through both proxies
            (1, "", "10.0.0.1"),
            (1, "1.1.1.1, ", "10.0.0.1"),
            (0, "198.51.100.7", "10.0.0.1"),
            (1, "x" * 1000, "x" * 64),
        ],
    )
    async def test_behind_proxies(self, settings: Any, count: int, header: str, address: str) -> None:
        settings.SSE_LIVE = {"PROXY_COUNT": count, "PUBLIC_CHANNELS": ["news"]}
        async with at("10.0.0.1").listen("channel=news", x_forwarded_for=header) as stream:
            await stream.next()
            (client,) = running_hub().clients
            assert client.address == address

    @pytest.mark.parametrize(
        ("one", "other", "are_the_same"),
        [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
            ("fe80::1%eth0", "fe80::2%eth0", True),
            ("not:an:address", "not:an:address2", False),
        ],
    )
    def test_one_home_of_ipv6_is_one_address(self, one: str, other: str, are_the_same: bool) -> None:
        assert (address_group(one) == address_group(other)) is are_the_same

    async def test_nothing_is_counted_for_ever(self, settings: Any) -> None:
        async with at("2001:db8::1").listen("channel=news") as stream:
            await stream.next()
            registry = running_hub().clients
            assert registry._per_address
        assert not registry._per_address
        assert not registry._by_session._found
        assert not registry._by_user._found


async def test_one_address_that_connects_all_the_time_gets_no_more_than_its_share(settings: Any) -> None:
    settings.SSE_LIVE = {"MAX_CLIENTS_PER_ADDRESS": 10, "PUBLIC_CHANNELS": ["news"]}
    greedy: list[str] = []
    all_answered, stop = asyncio.Event(), asyncio.Event()

    async def connect() -> None:
        async with at("192.0.2.1").listen("channel=news") as stream:
            greedy.append((await stream.next()).type)
            if len(greedy) == 300:
                all_answered.set()
            await stop.wait()

    tasks = [asyncio.ensure_future(connect()) for _ in range(300)]
    try:
        await asyncio.wait_for(all_answered.wait(), 20)
        assert greedy.count("connected") == 10
        assert not await is_sent_away(at("192.0.2.2"))
    finally:
        stop.set()
        await asyncio.gather(*tasks)
