"""Clients that go: by a reset, by thousands, and again and again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress

from tests.live.faults.report import Row, first_lines
from tests.live.harness import Crowd, Server, until
from tests.live.harness.clients import percentile

LEFT = "clients", "tasks", "descriptors"


async def rst(name: str, *, clients: int = 2000, rate: int = 50, seconds: float = 20) -> Row:
    """Half of the clients are reset, one after the other at random moments, while events never pause."""
    row = Row("RST at random moments", name, f"{clients:,} clients, {rate} events/s, half of them reset")
    async with Server(name, MAX_CLIENTS=100_000) as server:
        warm = await Crowd.open(server, 8)
        warm.close()
        await until(lambda: is_empty(server))
        before = await server.state(collect=True)

        crowd = await Crowd.open(server, clients)
        victims = random.sample(crowd.clients, clients // 2)
        survivors = Crowd([client for client in crowd if client not in set(victims)])
        await server.get(f"/publish/steadily/?rate={rate}")
        await survivors.all(lambda client: client.numbers, 60)
        end = time.monotonic() + seconds
        while victims:
            victims.pop().reset()
            # At random moments: the rest of the time is divided among the rest of the victims.
            await asyncio.sleep(random.expovariate(1) * max(0.0, end - time.monotonic()) / (len(victims) + 1))
        published = (await server.get_json("/publish/stop/"))["published"]
        await survivors.all(lambda client: client.numbers and client.numbers[-1] == published, 60)
        faults = survivors.faults(1, published)
        gone = survivors.count(lambda client: not client.is_open)
        survivors.close()
        now = await settled(server, before)
        left = {f"{what} left": max(0, now[what] - before[what]) for what in LEFT}
        noise = server.noise()
        row.figures = {
            "events": published,
            "survivors": f"{len(survivors):,}",
            "lost, doubled or out of order": len(faults),
            "lines above INFO": len(noise),
            **left,
        }
        row.require(not faults and not gone, f"{faults[:3]} {gone} cut off")
        row.require(not noise, first_lines(noise))
        row.require(not any(left.values()), "something is left")
    return row


async def is_empty(server: Server) -> bool:
    return (await server.state())["clients"] == 0


async def settled(server: Server, before: dict[str, int], kinds: Sequence[str] = LEFT) -> dict[str, int]:
    """What a server holds once it holds no more of these kinds than before, or after 30 s.

    The last reading itself: in the next one, the request before it may not have ended.
    """

    async def is_back() -> bool:
        nonlocal now
        now = await server.state(collect=True)
        return all(now[what] <= before[what] for what in kinds)

    now = before
    with suppress(AssertionError):
        await until(is_back, 30)
    return now


async def leak(name: str, *, cycles: int = 20_000, at_once: int = 100) -> Row:
    """Clients come, hear one event, and go: by FIN, by RST, in equal parts."""
    row = Row("leak", name, f"{cycles:,} connects and disconnects")
    async with Server(name, HISTORY_EVENTS=1) as server:
        before = await server.state(collect=True)
        await cycle(server, max(at_once, min(2000, cycles // 5)), at_once)  # everything is imported, every cache full
        start = await settled(server, before)
        quarters = [start]
        for _ in range(4):
            for _ in range(cycles // 4 // min(cycles // 4, 1000)):
                await cycle(server, min(cycles // 4, 1000), at_once)
            quarters.append(await settled(server, start, (*LEFT, "threads")))
        _, _, half, third, end = quarters
        growth = end["rss_kib"] - half["rss_kib"]
        # What is kept of each client grows in every quarter; what is made once, late, in one.
        blocks = min(third["blocks"] - half["blocks"], end["blocks"] - third["blocks"])
        noise = server.noise()
        row.figures = {
            "memory after": f"{end['rss_kib'] / 1024:.1f} MiB",
            "growth of the second half": f"{growth} KiB, {blocks} of Python's blocks a quarter",
            **{what: f"{start[what]} → {end[what]}" for what in ("tasks", "threads", "descriptors")},
            "lines above INFO": len(noise),
        }
        row.measure(growth < 1024, f"grew by {growth} KiB")
        # Memory grows in the allocator's steps; what Python holds is exact. One object kept of each client is a leak.
        row.require(blocks < cycles // 4, f"{blocks} blocks more than {cycles // 4} cycles before")
        for what in (*LEFT, "threads"):
            row.require(end[what] <= start[what], f"{what}: {start[what]} before, {end[what]} after")
        row.require(not noise, first_lines(noise))
    return row


async def cycle(server: Server, count: int, at_once: int) -> None:
    for _ in range(count // at_once):
        crowd = await Crowd.open(server, at_once, at_once=at_once)
        await server.get("/publish/")
        await crowd.all(lambda client: client.numbers)
        crowd.reset(crowd.clients[::2])
        crowd.close(crowd.clients[1::2])
    await until(lambda: is_empty(server))


async def stuck_readers(
    name: str,
    *,
    clients: int = 1000,
    stuck: int = 200,
    rate: int = 20,
    size: int = 10_240,
    seconds: float = 60,
    timeout: float = 10,
) -> Row:
    """Some stop reading. The others must not notice, and those must go."""
    row = Row(
        "reader that stops",
        name,
        f"{stuck} of {clients:,}, events of {size // 1024} KiB at {rate}/s for {seconds:g} s, "
        f"SEND_TIMEOUT_SECONDS {timeout:g}",
    )
    async with Server(name, SEND_TIMEOUT_SECONDS=timeout) as server:
        readers = await Crowd.open(server, clients - stuck, delays=True)
        stopped = await Crowd.open(server, stuck, receive_buffer=4096)
        await server.get(f"/publish/steadily/?rate={rate}&size={size}")
        await asyncio.sleep(seconds / 6)
        before = take_delays(readers)
        rss_before = (await server.state())["rss_kib"]
        for client in stopped:
            client.stop_reading()
        # Until the kernel's buffers are full, then SEND_TIMEOUT_SECONDS: then the connections are gone.
        peak = rss_before
        began = time.monotonic()
        all_ended_after = 0.0
        while time.monotonic() < began + seconds:
            state = await server.state()
            peak = max(peak, state["rss_kib"])
            if not all_ended_after and state["clients"] <= clients - stuck:
                all_ended_after = time.monotonic() - began
            await asyncio.sleep(0.5)
        during = take_delays(readers)
        published = (await server.get_json("/publish/stop/"))["published"]
        await until(lambda: server.count("its stream ends here") >= stuck, 30, say="the stuck have not all been ended")
        await readers.all(lambda client: client.numbers[-1] == published, 60)
        lines = server.count("its stream ends here")
        faults = readers.faults(1, published)
        noise = server.noise()
        p99_before, p99_during = percentile(before, 0.99), percentile(during, 0.99)
        row.figures = {
            "p99 of the others before": f"{p99_before * 1000:.0f} ms",
            "and during": f"{p99_during * 1000:.0f} ms",
            "memory before": f"{rss_before / 1024:.0f} MiB",
            "most": f"{peak / 1024:.0f} MiB",
            "ended with one line": f"{lines} of {stuck}, the last after {all_ended_after:.0f} s",
            "lost": len(faults),
            "lines above INFO": len(noise),
        }
        # 16 MiB of log, twice; and what a server's own buffers hold for each that is stuck
        bound = rss_before + 32 * 1024 + stuck * 512
        row.measure(p99_during <= max(2 * p99_before, 0.05), "p99 more than doubled")
        row.measure(peak <= bound, f"memory passed {bound / 1024:.0f} MiB")
        row.require(lines == stuck, "not one line each")
        row.require(not faults, str(faults[:3]))
        row.require(not noise, first_lines(noise))
    return row


def take_delays(crowd: Crowd) -> list[float]:
    taken = []
    for client in crowd:
        assert client.delays is not None
        taken += client.delays
        del client.delays[:]
    return taken
