"""Servers that stop: told to, or killed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from signal import SIGTERM

from tests.live.faults.report import Row, first_lines
from tests.live.harness import Browser, Crowd, Server, until


async def make_stuck(server: Server, count: int) -> Crowd:
    """Clients that stop reading, each with another amount on its way to it: from what the kernel's buffers still hold
    to far more than they and the server's own hold together."""
    workers = 2 if server.name.endswith("-2") else 1
    stuck = await Crowd.open(server, count, "/events/?channel=stuck", receive_buffer=4096)
    published: dict[int, int] = {}
    for number, client in enumerate(stuck):
        client.stop_reading()
        # 8 MiB altogether: whoever stopped first has all of it before it, whoever stops last only a part.
        while len(published) < workers or min(published.values()) < (number + 1) * 64 / count:
            pid = (await server.get_json("/publish/?channel=stuck&size=131072"))["pid"]
            published[pid] = published.get(pid, 0) + 1
    return stuck


async def sigterm(name: str, *, clients: int = 1000, stuck: int = 20) -> Row:
    row = Row("SIGTERM", name, f"{clients:,} streams, {stuck} of them not reading")
    async with Server(name, HEARTBEAT_SECONDS=5, MAX_OPENING=64) as server:
        stopped = await make_stuck(server, stuck) if stuck else None
        crowd = await Crowd.open(server, clients - stuck)
        if stopped is not None:
            await until(lambda: server.count("SSE client connected") >= clients)
        try:
            took = await server.stop(SIGTERM, seconds=15)
        except AssertionError:
            took = float("inf")
        await asyncio.sleep(0)
        told = crowd.count(lambda client: client.goodbyes == 1 and client.is_ended)
        spread = [client.retry_ms for client in crowd]
        noise = server.noise()
        row.figures = {
            "gone in": f"{took:.2f} s",
            "told goodbye": f"{told:,} of {len(crowd):,} that read",
            "come back within": f"{min(spread) / 1000:.1f}–{max(spread) / 1000:.1f} s",
            "lines above INFO": len(noise),
        }
        row.measure(took < 2, f"took {took:.1f} s")
        row.require(told == len(crowd), f"{len(crowd) - told} were told nothing")
        row.require(not noise, first_lines(noise))
    return row


async def kill(name: str, *, clients: int = 500, down_seconds: float = 3) -> Row:
    """SIGKILL, and some seconds later a new process on the same port, while pages do what sse-live.js does."""
    row = Row("kill -9 and restart", name, f"{clients} pages, {down_seconds:g} s without a server")
    server = Server(name)
    browsers = [Browser(server.port) for _ in range(clients)]
    try:
        await server.begin()
        for browser in browsers:
            browser.start()
        await until(lambda: all(browser.is_open for browser in browsers), 60)
        await server.get("/publish/?from=1&count=10")
        await until(lambda: all(len(browser.numbers) == 10 for browser in browsers))
        await server.kill()
        await asyncio.sleep(down_seconds)
        await server.begin()
        back_since = time.monotonic()
        await until(lambda: all(browser.is_open for browser in browsers), 90, say="some have not come back")
        all_back = time.monotonic()
        await server.get("/publish/?from=11&count=10")
        await until(lambda: all(browser.numbers[-1:] == [20] for browser in browsers))
        came_back = [browser.came_back_at[0] for browser in browsers]
        # The last few, whose jitter sent them far away, would make the mean say nothing about the others.
        most = sorted(came_back)[: int(clients * 0.95)]
        busiest = max(Counter(int(at - most[0]) for at in most).values())
        mean = len(most) / max(1.0, most[-1] - most[0])
        told = sum(browser.resets == 1 or browser.resumed == 1 for browser in browsers)
        exact = sum(browser.numbers == [*range(1, 21)] for browser in browsers)
        noise = server.noise()
        row.figures = {
            "back": f"{sum(browser.is_open for browser in browsers)} of {clients}",
            "after": f"{min(came_back) - back_since:.1f}–{all_back - back_since:.1f} s",
            "95 % of them within": f"{most[-1] - most[0]:.1f} s",
            "busiest second": f"{busiest}, {busiest / mean:.1f}× the mean of those",
            "of all": f"{busiest * max(1.0, max(came_back) - most[0]) / clients:.1f}×",
            "told reset, or resumed": f"{told} of {clients}",
            "heard every event that there was": exact,
            "lines above INFO": len(noise),
        }
        row.measure(busiest <= 3 * mean, "they came back all at once")
        row.require(told == clients, "not everybody was told")
        row.require(exact == clients, "events were lost")
        row.require(not noise, first_lines(noise))
    finally:
        await asyncio.gather(*(browser.stop() for browser in browsers))
        await server.kill()
    return row
