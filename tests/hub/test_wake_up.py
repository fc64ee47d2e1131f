"""The wake-up: what comes close together goes out together, and a fan-out lets the rest of the loop run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.test import override_settings

from django_sse_live import abroadcast
from django_sse_live.hub import heartbeat
from django_sse_live.hub.clients import Client
from django_sse_live.hub.fan_out import WAKE_SLICE, FanOut
from django_sse_live.hub.hub import Hub
from django_sse_live.wire import Form

from .conftest import Connect, Reader, until


@contextmanager
def iterations() -> Iterator[list[int]]:
    """Counts, in its one item, how often the loop has gone round."""
    loop = asyncio.get_running_loop()
    count = [0]

    def tick() -> None:
        nonlocal handle
        count[0] += 1
        handle = loop.call_soon(tick)

    handle = loop.call_soon(tick)
    try:
        yield count
    finally:
        handle.cancel()


async def many(connect: Connect, count: int) -> list[Reader]:
    readers = [connect("a") for _ in range(count)]
    await until(lambda: all(reader.chunks and reader.client.is_waiting for reader in readers))
    return readers


class TestCoalescing:
    async def test_it_keeps_the_order_and_loses_nothing(self, connect: Connect) -> None:
        reader = connect("a")
        await reader.until(lambda reader: bool(reader.chunks))
        for number in range(1000):
            await abroadcast("a", "n", number)
            if number % 7 == 0:
                await asyncio.sleep(0)
        await reader.until(lambda reader: len(reader.data("n")) >= 1000)
        assert reader.data("n") == [str(number) for number in range(1000)]

    async def test_a_burst_goes_out_in_few_writes(self, connect: Connect) -> None:
        reader = connect("a")
        await reader.until(lambda reader: bool(reader.chunks))
        for number in range(200):
            await abroadcast("a", "n", number)
        await reader.until(lambda reader: len(reader.data("n")) == 200)
        assert len(reader.chunks) <= 3, "connected, and one or two batches"

    async def test_clients_at_one_place_get_the_same_bytes(self, connect: Connect) -> None:
        first, second = await many(connect, 2)
        for number in range(20):
            await abroadcast("a", "n", number)
        for reader in (first, second):
            await reader.until(lambda reader: len(reader.data("n")) == 20)
        assert first.chunks[-1] is second.chunks[-1], "joined once, and shared"

    @pytest.mark.parametrize("form", ["named", "envelope"])
    async def test_users_with_a_channel_of_their_own_share_what_is_common(self, connect: Connect, form: Form) -> None:
        first, second = connect("user:1", "all", form=form), connect("user:2", "all", form=form)
        await until(lambda: bool(first.chunks and second.chunks))
        await abroadcast("all", "n", 1)
        await until(lambda: len(first.chunks) == len(second.chunks) == 2)
        assert first.chunks[-1] is second.chunks[-1]

    async def test_an_event_on_several_channels_names_to_each_only_its_own(self, connect: Connect) -> None:
        first, second = (connect("all", own, form="envelope") for own in ("user:1", "user:2"))
        alone = connect("all", form="envelope")
        await until(lambda: all(len(reader.chunks) == 1 for reader in (first, second, alone)))
        await abroadcast(["all", "user:1", "staff"], "n", 1)
        await until(lambda: all(len(reader.chunks) == 2 for reader in (first, second, alone)))
        assert b'"channels":["all","user:1"]' in first.chunks[-1]
        assert b'"channels":["all"]' in second.chunks[-1]
        assert b'"channels":["all"]' in alone.chunks[-1]

    async def test_a_quiet_channel_does_not_wait_for_a_busy_one(self, connect: Connect) -> None:
        busy, quiet = connect("a"), connect("b")
        await until(lambda: bool(busy.chunks and quiet.chunks))
        await abroadcast("a", "first")
        await busy.until(lambda reader: "first" in reader.types())
        with iterations() as count:
            await abroadcast("a", "rests")
            await abroadcast("b", "goes")
            while "goes" not in quiet.types():
                await asyncio.sleep(0)
            assert count[0] < 20, "at once: the channel beside it rests, not this one"
        await busy.until(lambda reader: "rests" in reader.types())

    async def test_who_comes_while_a_channel_rests_misses_nothing_and_hears_nothing_twice(
        self, connect: Connect
    ) -> None:
        early = connect("a")
        await early.until(lambda reader: bool(reader.chunks))
        await abroadcast("a", "n", 1)
        await early.until(lambda reader: reader.data("n") == ["1"])
        await abroadcast("a", "n", 2)
        await asyncio.sleep(0)
        late = connect("a")
        await late.until(lambda reader: bool(reader.chunks))
        await abroadcast("a", "n", 3)
        await until(lambda: "3" in early.data("n") and "3" in late.data("n"))
        assert early.data("n") == ["1", "2", "3"]
        assert late.data("n") == ["3"]


class TestSlices:
    async def test_other_callbacks_run_while_many_are_woken(self, connect: Connect) -> None:
        readers = await many(connect, 6 * WAKE_SLICE)
        await abroadcast("a", "n", 1)
        served = await self.served_per_iteration(readers)
        assert sum(served) == len(readers)
        assert max(served) <= WAKE_SLICE
        assert len(served) >= 6

    async def test_a_sweep_is_sliced_too(self, hub: Hub, connect: Connect) -> None:
        readers = await many(connect, 6 * WAKE_SLICE)
        for reader in readers:
            reader.client.heartbeat_due = True
        hub.fan_out.wake([reader.client for reader in readers])
        served = await self.served_per_iteration(readers)
        assert sum(served) == len(readers)
        assert max(served) <= WAKE_SLICE
        assert all("heartbeat" in reader.types() for reader in readers)

    async def test_what_is_no_event_is_sliced_too(self, hub: Hub, connect: Connect) -> None:
        readers = await many(connect, 6 * WAKE_SLICE)
        hub.tell("a", "presence_joined", '{"user":"7"}', is_needed=True)
        served = await self.served_per_iteration(readers)
        assert sum(served) == len(readers)
        assert max(served) <= WAKE_SLICE
        assert all("presence_joined" in reader.types() for reader in readers)

    async def test_a_sweep_of_all_clients_at_once_misses_none(
        self, hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(heartbeat, "SWEEP_SLICE", 10)
        woken: list[int] = []
        wake = FanOut.wake

        def counting(fan_out: FanOut, clients: list[Client]) -> None:
            woken.append(len(clients))
            wake(fan_out, clients)

        monkeypatch.setattr(FanOut, "wake", counting)
        with override_settings(SSE_LIVE={"HEARTBEAT_SECONDS": 0.3}):
            readers = await many(connect, 35)
            await until(lambda: all("heartbeat" in reader.types() for reader in readers))
        assert max(woken) <= 10

    async def test_what_comes_during_a_fan_out_is_in_it_or_in_the_next(self, connect: Connect) -> None:
        readers = await many(connect, 4 * WAKE_SLICE)
        await abroadcast("a", "n", 1)
        await until(lambda: any(reader.data("n") for reader in readers))
        await abroadcast("a", "n", 2)
        await until(lambda: all(len(reader.data("n")) == 2 for reader in readers))
        assert all(reader.data("n") == ["1", "2"] for reader in readers)

    async def served_per_iteration(self, readers: list[Reader]) -> list[int]:
        """How many readers got something in each round of the loop, until all of them have."""
        before = sum(len(reader.chunks) for reader in readers)
        counts: list[int] = []
        seen = 0
        while seen < len(readers):
            await asyncio.sleep(0)
            now = sum(len(reader.chunks) for reader in readers) - before
            if now > seen:
                counts.append(now - seen)
                seen = now
        return counts


async def test_heartbeats_of_clients_at_one_place_are_one_object(hub: Hub, connect: Connect) -> None:
    readers = await many(connect, 3)
    for reader in readers:
        reader.client.heartbeat_due = True
    hub.fan_out.wake([reader.client for reader in readers])
    await until(lambda: all("heartbeat" in reader.types() for reader in readers))
    assert len({id(reader.chunks[-1]) for reader in readers}) == 1, "encoded once, sent to all"
