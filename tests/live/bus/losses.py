"""More rows: Redis acknowledges and loses, is full, or is asked for what lies far back; processes end without it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio

from tests.live.bus.stage import Follower, Publisher, RedisProcess, followers, on_redis, publishers, workers
from tests.live.harness import Server, until
from tests.live.harness.clients import Crowd


@asynccontextmanager
async def sentinels(count: int) -> AsyncIterator[tuple[RedisProcess, RedisProcess, list[RedisProcess]]]:
    """(master, replica, those who watch them), once they know each other."""
    async with AsyncExitStack() as stack:
        master = stack.enter_context(RedisProcess())
        replica = stack.enter_context(RedisProcess(arguments=("--replicaof", f"127.0.0.1 {master.port}")))
        await until(lambda: b"master_link_status:up" in replica.command("INFO REPLICATION"))
        watching = []
        for _ in range(count):
            process = RedisProcess()
            config = Path(process.directory.name, "sentinel.conf")
            config.write_text(  # noqa: ASYNC240
                f"port {process.port}\nbind 127.0.0.1\nsentinel monitor live 127.0.0.1 {master.port} {count // 2 + 1}\n"
                "sentinel down-after-milliseconds live 1500\nsentinel failover-timeout live 6000\n"
            )
            process._arguments = [str(config), "--sentinel"]
            watching.append(stack.enter_context(process))
        for process in watching:
            await until(lambda p=process: str(replica.port).encode() in p.command("SENTINEL REPLICAS live"), 30)
            await until(
                lambda p=process: p.command("SENTINEL SENTINELS live").count(b"runid") >= count - 1,
                30,
            )
        yield master, replica, watching


def silently_lost(follower: Follower, published: Publisher) -> int:
    """How many numbers one client neither heard nor, by a reset, was told of."""
    missing = set(range(published.first, published.last + 1)) - set(follower.heard)
    return 0 if follower.told else len(missing)


async def failover(*, planned: bool, clients: int, rate: float, seconds: float, count: int) -> str:
    """Sentinel makes the replica the master; the old one goes on for a while and believes to be it."""
    async with sentinels(count) as (master, replica, watching):
        where = ",".join(f"127.0.0.1:{process.port}" for process in watching)
        sse_live = on_redis(f"redis+sentinel://{where}/live")
        async with workers(2, **sse_live) as servers, followers(servers, clients) as everyone:
            async with publishers(1, rate, seconds, **sse_live) as [publisher]:
                await until(lambda: all(follower.count > rate for follower in everyone))
                if planned:
                    assert watching[0].command("SENTINEL FAILOVER live")[:3] == b"+OK"
                else:
                    master.pause()
                promoted = str(replica.port).encode()
                ask = "SENTINEL GET-MASTER-ADDR-BY-NAME live"
                await until(lambda: promoted in watching[0].command(ask), 30)
                if not planned:
                    await asyncio.sleep(3)  # longer than a worker waits for an answer
                    master.resume()
                await publisher.end()
            await until(
                lambda: all(follower.count and follower.heard[-1] == publisher.last for follower in everyone),
                30,
                say=lambda: [(list(follower.heard[-3:]), publisher.last) for follower in everyone],
            )
            lost = [silently_lost(follower, publisher) for follower in everyone]
            told = [follower.told for follower in everyone]
            missing = [publisher.report["count"] - len(set(follower.heard)) for follower in everyone]
            assert not any(lost), (lost, told)
            return (
                f"{'planned' if planned else 'unplanned'}, {rate:g} events/s for {seconds:g} s, {clients} clients: "
                f"0 lost in silence, at the most {max(missing)} of {publisher.report['count']} events not heard, "
                f"{min(told)} to {max(told)} resets each"
            )


async def sigterm_with_a_buffer(*, servers: list[str]) -> str:
    """Redis is away, three saves are answered, the server is told to stop; then Redis is back."""
    said = []
    for name in servers:
        with RedisProcess(aof=True) as process:
            server = await Server.start(name, **on_redis(process.url))
            try:
                await server.get("/publish/?count=1")
                await until(lambda p=process: p.command("XLEN sse_live") == b":1\r\n")
                process.kill()
                await server.get("/publish/?count=3")
                stopping = asyncio.create_task(server.stop())
                await asyncio.sleep(1)
                process.start()
                took = await stopping
                await until(
                    lambda p=process: p.command("XLEN sse_live") == b":4\r\n",
                    say=lambda n=name, p=process: f"{n}: {p.command('XLEN sse_live')!r}",
                )
                said.append(f"{name} {took:.1f} s")
            finally:
                await server.kill()
    return f"3 saves in the buffer at SIGTERM, Redis back after 1 s: all of them sent ({', '.join(said)})"


async def full(*, clients: int) -> str:
    """maxmemory is reached, with noeviction; then there is room again."""
    with RedisProcess(arguments=("--maxmemory-policy", "noeviction")) as process:
        sse_live = on_redis(process.url)
        async with workers(1, **sse_live) as [old], followers([old], clients) as everyone:
            await old.get("/publish/?from=1&count=500&size=1000")
            process.command("CONFIG SET maxmemory 1")
            await old.get("/publish/?from=501&count=500&size=1000")
            async with workers(1, **sse_live) as [new], followers([new], clients) as later:
                await old.get("/publish/?from=1001&count=10")
                await until(lambda: all(follower.count >= 1010 for follower in everyone))
                await until(lambda: all(follower.count >= 10 for follower in later))
                kept = int(process.command("XLEN sse_live")[1:])
                process.command("CONFIG SET maxmemory 0")
                await old.get("/publish/?from=1011&count=10")
                await until(lambda: all(follower.count >= 1020 for follower in everyone))
            assert all(list(follower.heard) == list(range(1, 1021)) for follower in everyone)
            assert not any(follower.told for follower in [*everyone, *later])
            assert kept < 1000
            return (
                f"full after 500 of 1,020 events: all heard by {clients} clients, no reset, a worker that began "
                f"meanwhile serves; {kept} entries of 1,010 kept"
            )


async def far_back(*, events: int, old_ids: int, within_seconds: float) -> str:
    """Many clients come back at once with ids of long ago, each with another."""
    with RedisProcess() as process:
        client = redis.asyncio.Redis(port=process.port)
        async with workers(1, MAX_CLIENTS_PER_USER=None, **on_redis(process.url)) as [server]:
            first = await Crowd.open(server, 1)
            for begin in range(0, events, 5_000):
                await server.get(f"/publish/?from={begin + 1}&count={min(5_000, events - begin)}")
            epoch = (await client.get("{sse_live}:epoch")).decode()
            step = events // 2 // old_ids
            entries = await client.xrange("sse_live", count=events // 2)
            ids = [f"{epoch}:{entries[number * step][0].decode()}" for number in range(old_ids)]
            began = time.monotonic()
            old = [asyncio.create_task(Crowd.open(server, 1, headers={"Last-Event-ID": id}, at_once=1)) for id in ids]
            await asyncio.sleep(0.05)
            opening = time.monotonic()
            honest = await Crowd.open(server, 1)
            took = time.monotonic() - opening
            crowds = await asyncio.gather(*old)
            all_took = time.monotonic() - began
            resets = sum(crowd[0].resets for crowd in crowds)
            for crowd in [first, honest, *crowds]:
                crowd.close()
        await client.aclose()
        assert took < within_seconds, took
        return (
            f"{old_ids} different old ids at once, {events:,} events: one without an id opens in {took:.2f} s, the "
            f"last of them in {all_took:.1f} s, {resets} by a reset"
        )


async def edge(*, times: int, rate: float, history: int) -> str:
    """Clients come back with an id from beyond their worker's log, while the log is full and events go on coming."""
    with RedisProcess() as process:
        client = redis.asyncio.Redis(port=process.port)
        sse_live: dict[str, Any] = {**on_redis(process.url), "HISTORY_EVENTS": history}
        async with workers(1, **sse_live) as [server]:
            first = await Crowd.open(server, 1)
            for begin in range(0, history * 2, 5_000):
                await server.get(f"/publish/?from={begin + 1}&count={min(5_000, history * 2 - begin)}")
            epoch = (await client.get("{sse_live}:epoch")).decode()
            await server.get(f"/publish/steadily/?rate={rate:g}")
            resets = gaps = 0
            for _ in range(times):
                entries = await client.xrevrange("sse_live", count=int(history * 1.3))
                last_id = entries[-1][0].decode()
                crowd = await Crowd.open(server, 1, headers={"Last-Event-ID": f"{epoch}:{last_id}"}, keep=True)
                want = len(entries) - 1
                await until(lambda c=crowd, w=want: c[0].resets or len(c[0].numbers) >= w)
                resets += bool(crowd[0].resets)
                newer = [json.loads(entry[1][b"event"].split(b"\n")[1])["n"] for entry in entries[-2::-1]]
                gaps += not crowd[0].resets and list(crowd[0].numbers[:want]) != newer
                crowd.close()
            await server.get("/publish/stop/")
            first.close()
        await client.aclose()
        assert not resets and not gaps, (resets, gaps)
        return f"resumed from beyond a log of {history:,} {times} times at {rate:g} events/s: 0 resets, 0 gaps"
