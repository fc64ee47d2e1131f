"""What the bus must show, row by row. Each gives one line that says what was seen, or raises AssertionError."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.live.bus import losses
from tests.live.bus.stage import (
    RedisProcess,
    bus_lines,
    caught_up,
    faults,
    followers,
    on_redis,
    publishers,
    workers,
)
from tests.live.harness import Server, until
from tests.live.harness.servers import FOUR


async def order(*, worker_count: int, clients: int, rate: float, seconds: float) -> str:
    """Several publishers, several workers: nothing lost, nothing doubled, one order."""
    with RedisProcess() as redis:
        sse_live = on_redis(redis.url)
        async with workers(worker_count, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(3, rate, seconds, **sse_live) as processes:
                for process in processes:
                    await process.end()
            ended = time.monotonic()
            await caught_up(everyone, processes)
            late = time.monotonic() - ended
            assert not (found := faults([f.heard for f in everyone], processes)), found[:3]
            assert not any(follower.told for follower in everyone)
            total = sum(process.report["count"] for process in processes)
            return (
                f"{worker_count} workers, {clients} clients, {total} events from 3 processes in {seconds:g} s: "
                f"0 lost, 0 doubled, 1 order; the last was with everyone {late:.1f} s after the end"
            )


async def resume(*, worker_count: int, clients: int, hops: int, rate: float) -> str:
    """Clients whose connection breaks and who go on at another worker."""
    with RedisProcess() as redis:
        sse_live = on_redis(redis.url)
        random = Random(1)
        async with workers(worker_count, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(1, rate, 600, **sse_live) as processes:
                for _ in range(hops):
                    before = [follower.count for follower in everyone]
                    for follower in everyone:
                        follower.hop(follower.at + random.randrange(1, worker_count))
                    await until(lambda before=before: all(f.count > b for f, b in zip(everyone, before, strict=True)))
                await processes[0].end(now=True)
            await caught_up(everyone, processes)
            assert not (found := faults([f.heard for f in everyone], processes)), found[:3]
            assert not any(follower.told for follower in everyone)
            return (
                f"{clients} clients went on at another of {worker_count} workers {hops} times, {rate:g} events/s: exact"
            )


async def rolling(*, worker_count: int, clients: int, rate: float) -> str:
    """A deploy: each worker in turn is ended and begun anew."""
    with RedisProcess() as redis:
        sse_live = on_redis(redis.url)
        async with workers(worker_count, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(1, rate, 600, **sse_live) as processes:
                for server in servers:
                    await server.stop()
                    await server.begin()
                await until(lambda: all(follower.is_connected for follower in everyone))
                await processes[0].end(now=True)
            await caught_up(everyone, processes)
            assert not (found := faults([f.heard for f in everyone], processes)), found[:3]
            assert not any(follower.told for follower in everyone)
            noise = [line for server in servers for line in server.noise()]
            assert not noise, noise[:5]
            count = processes[0].report["count"]
            return f"{worker_count} workers restarted in turn, {clients} clients, {count} events: 0 lost, no reset"


async def _lost_and_found(redis: RedisProcess, servers: list[Server]) -> None:
    """Every worker has said once that Redis is away and once that it is back."""
    await until(lambda: all(bus_lines(s) == (1, 1) for s in servers), say=lambda: [bus_lines(s) for s in servers])
    noise = [line for s in servers for line in s.noise(besides=lambda line: "SSE bus lost" in line)]
    assert not noise, noise[:5]


async def killed(*, clients: int, rate: float, away: float) -> str:
    """kill -9 of Redis, which comes back with what it had written down."""
    with RedisProcess(aof=True) as redis:
        sse_live = on_redis(redis.url)
        async with workers(2, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(1, rate, away + 4, **sse_live) as processes:
                await until(lambda: all(follower.count > rate / 2 for follower in everyone))
                redis.kill()
                await asyncio.sleep(away)  # the length of the outage is what is played, not a thing waited for
                redis.start()
                await processes[0].end()
            await caught_up(everyone, processes)
            assert not (found := faults([f.heard for f in everyone], processes)), found[:3]
            assert not any(follower.told for follower in everyone)
            assert all(follower.connects == 0 for follower in everyone), "a worker has let go of its clients"
            await _lost_and_found(redis, servers)
            report = processes[0].report
            return (
                f"Redis killed, back with its AOF after {away:g} s, {rate:g} events/s: {report['count']} events, "
                f"0 lost, in order; slowest commit {report['slowest_ms']} ms; one WARNING and one INFO in each worker"
            )


async def emptied(*, clients: int) -> str:
    """Redis comes back without its data."""
    with RedisProcess() as redis:
        sse_live = on_redis(redis.url)
        async with workers(2, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(1, 20, 1.0, **sse_live) as processes:
                await processes[0].end()
                await caught_up(everyone, processes)
            redis.kill()
            redis.start()
            await until(lambda: all(follower.told for follower in everyone))
            before = [follower.count for follower in everyone]
            async with publishers(1, 20, 1.0, **sse_live) as processes:
                await processes[0].end()
            count = processes[0].report["count"]
            await until(lambda: all(f.count == b + count for f, b in zip(everyone, before, strict=True)))
            assert {follower.told for follower in everyone} == {1}, sorted(f.told for f in everyone)
            await _lost_and_found(redis, servers)
            return f"Redis back without its data, {clients} clients: exactly one reset each, then {count} events live"


async def flushed(*, clients: int) -> str:
    """FLUSHALL while everyone is connected: no connection breaks, and still everyone is told."""
    with RedisProcess() as redis:
        sse_live = on_redis(redis.url)
        async with workers(2, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(1, 20, 0.5, **sse_live) as processes:
                await processes[0].end()
                await caught_up(everyone, processes)
            redis.command("FLUSHALL")
            await until(lambda: all(follower.told for follower in everyone))
            before = [follower.count for follower in everyone]
            async with publishers(1, 20, 0.5, **sse_live) as processes:
                await processes[0].end()
            count = processes[0].report["count"]
            await until(lambda: all(f.count == b + count for f, b in zip(everyone, before, strict=True)))
            assert {follower.told for follower in everyone} == {1}, sorted(f.told for f in everyone)
            return f"FLUSHALL, {clients} clients: exactly one reset each, then live"


async def paused(*, clients: int, rate: float, away: float, slowest_ms: float) -> str:
    """SIGSTOP: Redis takes connections and answers nothing."""
    with RedisProcess() as redis:
        sse_live = on_redis(redis.url)
        async with workers(2, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(1, rate, away + 3, **sse_live) as processes:
                await until(lambda: all(follower.count > 10 for follower in everyone))
                redis.pause()
                await asyncio.sleep(away)
                redis.resume()
                await processes[0].end()
            await caught_up(everyone, processes)
            assert not (found := faults([f.heard for f in everyone], processes)), found[:3]
            assert not any(follower.told for follower in everyone)
            report = processes[0].report
            assert report["slowest_ms"] < slowest_ms, report
            return (
                f"Redis paused for {away:g} s, {rate:g} events/s: slowest commit {report['slowest_ms']} ms, "
                f"{report['count']} events, 0 lost, 0 doubled"
            )


async def overflow(*, clients: int) -> str:
    """More is broadcast while Redis is away than the buffer holds: what is given up is told."""
    with RedisProcess() as redis:
        sse_live = on_redis(redis.url, BUFFER_EVENTS=50)
        async with workers(1, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(1, 100, 3, **sse_live) as processes:
                await until(lambda: all(follower.count > 10 for follower in everyone))
                redis.pause()
                await asyncio.sleep(1.5)
                redis.resume()
                report = await processes[0].end()
            await until(lambda: all(f.heard[-1] == processes[0].last for f in everyone))
            assert report["dropped"] > 0
            assert {follower.told for follower in everyone} == {1}
            assert processes[0].errors.count("buffer of broadcasts") == 1, processes[0].errors
            for follower in everyone:
                assert list(follower.heard) == sorted(set(follower.heard))
                # A reset leads to the newest event: what was in the buffer may be behind it already.
                assert report["count"] - len(follower.heard) <= report["dropped"] + 50
            return f"buffer of 50 overrun: {report['dropped']} events given up, each of {clients} clients got one reset"


async def connections(*, clients: int) -> str:
    """How many connections to Redis a worker has, with few and with many clients."""
    with RedisProcess() as redis:
        sse_live = on_redis(redis.url)
        async with workers(2, **sse_live) as servers:
            counts = []
            for count in (2, clients):
                async with followers(servers, count):
                    for server in servers:
                        await server.get("/publish/?count=3")
                    listed = redis.command("CLIENT", "LIST").decode()
                    counts.append(sum("cmd=client" not in line for line in listed.splitlines() if " cmd=" in line))
            assert counts[0] == counts[1] == 4, counts
            return (
                f"2 workers that serve and broadcast: {counts[0]} connections with 2 clients and with {clients}: "
                "2 each, one that reads and one that sends"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    run: Callable[..., Awaitable[str]]
    long: dict[str, Any] = field(default_factory=dict)  # what docs/backends.md quotes
    short: dict[str, Any] = field(default_factory=dict)  # what CI runs


ROWS = {
    "order": Row(
        run=order,
        long={"worker_count": 4, "clients": 1000, "rate": 200, "seconds": 60},
        short={"worker_count": 3, "clients": 60, "rate": 200, "seconds": 3},
    ),
    "resume": Row(
        run=resume,
        long={"worker_count": 4, "clients": 50, "hops": 20, "rate": 100},
        short={"worker_count": 2, "clients": 20, "hops": 6, "rate": 100},
    ),
    "rolling": Row(
        run=rolling,
        long={"worker_count": 4, "clients": 500, "rate": 50},
        short={"worker_count": 2, "clients": 40, "rate": 50},
    ),
    "killed": Row(
        run=killed,
        long={"clients": 100, "rate": 100, "away": 5},
        short={"clients": 20, "rate": 100, "away": 1},
    ),
    "emptied": Row(run=emptied, long={"clients": 200}, short={"clients": 20}),
    "flushed": Row(run=flushed, long={"clients": 200}, short={"clients": 20}),
    "paused": Row(
        run=paused,
        long={"clients": 100, "rate": 100, "away": 10, "slowest_ms": 100},
        short={"clients": 20, "rate": 100, "away": 1.5, "slowest_ms": 1500},  # nothing waited for Redis
    ),
    "overflow": Row(run=overflow, long={"clients": 50}, short={"clients": 10}),
    "connections": Row(run=connections, long={"clients": 1000}, short={"clients": 60}),
    "failover": Row(
        run=losses.failover,
        long={"planned": True, "clients": 20, "rate": 5, "seconds": 40, "count": 3},
        short={"planned": True, "clients": 4, "rate": 10, "seconds": 15, "count": 1},
    ),
    "unplanned": Row(
        run=losses.failover,
        long={"planned": False, "clients": 20, "rate": 5, "seconds": 40, "count": 3},
        short={"planned": False, "clients": 4, "rate": 10, "seconds": 18, "count": 1},
    ),
    "sigterm": Row(
        run=losses.sigterm_with_a_buffer,
        long={"servers": [*FOUR, "uvicorn-2", "gunicorn"]},
        short={"servers": ["uvicorn"]},
    ),
    "full": Row(run=losses.full, long={"clients": 50}, short={"clients": 5}),
    "far_back": Row(
        run=losses.far_back,
        long={"events": 100_000, "old_ids": 63, "within_seconds": 3},
        short={"events": 12_000, "old_ids": 20, "within_seconds": 20},
    ),
    "edge": Row(
        run=losses.edge,
        long={"times": 300, "rate": 100, "history": 10_000},
        short={"times": 10, "rate": 100, "history": 300},
    ),
}
