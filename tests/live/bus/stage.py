"""What the rows are played with: workers on one bus, processes that broadcast, and clients that come back."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from tests.backends.redis_process import RedisProcess
from tests.live.harness import Server, until
from tests.live.harness.clients import Client
from tests.live.harness.servers import ROOT

REDIS = "django_sse_live.backends.redis_streams.RedisStreamsBackend"
SPACING = 10_000_000  # between the numbers of two publishers


def on_redis(url: str, **options: Any) -> dict[str, Any]:
    return {"BACKEND": REDIS, "OPTIONS": {"URL": url, **options}}


@asynccontextmanager
async def workers(count: int, **sse_live: Any) -> AsyncIterator[list[Server]]:
    """That many Uvicorn processes, each on a port of its own, so that a test can say who is served where."""
    servers = [Server("uvicorn", **{"RETRY_MS": 100, **sse_live}) for _ in range(count)]
    try:
        await asyncio.gather(*(server.begin() for server in servers))
        yield servers
    finally:
        for server in servers:
            await server.kill()


class Publisher:
    """A process of publisher.py."""

    def __init__(self, index: int, rate: float, seconds: float, **sse_live: Any) -> None:
        self.first = index * SPACING + 1
        self.report: dict[str, Any] = {}
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.live.project.settings",
            "PYTHONPATH": str(ROOT),
            "LIVE_SSE": json.dumps(sse_live),
        }
        self._command = [sys.executable, "-m", "tests.live.bus.publisher", str(rate), str(seconds), str(self.first)]
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.errors = ""

    async def begin(self) -> None:
        """It has broadcast its first event."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE
        )
        assert self._process.stdout is not None
        await self._process.stdout.readline()

    async def end(self, *, now: bool = False) -> dict[str, Any]:
        """What it says when its time is over; ``now``: it is."""
        assert self._process is not None
        out, errors = await self._process.communicate(b"stop\n" if now else None)
        self.errors = errors.decode()
        assert self._process.returncode == 0, self.errors
        self.report = json.loads(out.splitlines()[-1])
        return self.report

    @property
    def last(self) -> int:
        return self.first + int(self.report["count"]) - 1


@asynccontextmanager
async def publishers(count: int, rate: float, seconds: float, **sse_live: Any) -> AsyncIterator[list[Publisher]]:
    """Together they broadcast ``rate`` events per second."""
    processes = [Publisher(index, rate / count, seconds, **sse_live) for index in range(1, count + 1)]
    try:
        await asyncio.gather(*(process.begin() for process in processes))
        yield processes
    finally:
        for process in processes:
            if process._process is not None and process._process.returncode is None:
                process._process.kill()
                await process._process.wait()


class Follower:
    """A client that comes back, as a browser does: with the last id that it saw, to the server it is sent to."""

    def __init__(self, servers: list[Server], at: int) -> None:
        self.servers = servers
        self.at = at
        self.numbers = array("L")
        self.resets = 0
        self.connects = 0
        self.is_done = False
        self.client: Client | None = None
        self._last_id = ""
        self._random = Random(at)
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.is_done:
            server = self.servers[self.at % len(self.servers)]
            headers = {"Accept": "text/event-stream"}
            if self._last_id:
                headers["Last-Event-ID"] = self._last_id
            gone: asyncio.Future[None] = loop.create_future()
            client = Client("/ticks/", headers)
            client.on_gone = lambda _, gone=gone: gone.done() or gone.set_result(None)
            sock = socket.socket()
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, ("127.0.0.1", server.port))
                await loop.create_connection(lambda client=client: client, sock=sock)
            except OSError:
                sock.close()
                self.at += 1  # as a load balancer would
                await asyncio.sleep(0.05)
                continue
            self.client = client
            while not gone.done() and not client.is_ended:
                await asyncio.wait([gone], timeout=0.05)
            client.close()
            self._keep(client)
            if not self.is_done:
                await asyncio.sleep(self._random.random() * 0.1)

    def _keep(self, client: Client) -> None:
        self.numbers.extend(client.numbers)
        self.resets += client.resets
        self.connects += bool(client.connected)
        self._last_id = client.last_id or self._last_id
        self.client = None

    @property
    def heard(self) -> array[int]:
        return self.numbers + self.client.numbers if self.client is not None else self.numbers

    @property
    def count(self) -> int:
        return len(self.numbers) + (len(self.client.numbers) if self.client is not None else 0)

    @property
    def told(self) -> int:
        """How many resets it got."""
        return self.resets + (self.client.resets if self.client is not None else 0)

    @property
    def is_connected(self) -> bool:
        return self.client is not None and self.client.connected > 0

    def hop(self, to: int) -> None:
        """The network breaks, and the next connection leads to another worker."""
        self.at = to
        if self.client is not None:
            self.client.reset()

    async def end(self) -> None:
        self.is_done = True
        if self.client is not None:
            self.client.close()
        await self._task


@asynccontextmanager
async def followers(servers: list[Server], count: int) -> AsyncIterator[list[Follower]]:
    """Spread over the workers, and connected."""
    everyone: list[Follower] = []
    try:
        for begun in range(0, count, 50):
            everyone += [Follower(servers, at) for at in range(begun, min(begun + 50, count))]
            await until(lambda here=everyone: all(follower.is_connected for follower in here), 30)
        yield everyone
    finally:
        await asyncio.gather(*(follower.end() for follower in everyone))


def faults(heard: Iterable[array[int]], published: list[Publisher]) -> list[str]:
    """What is wrong with what these heard: each must have every number of each publisher once and in order, and all of
    them the same order."""
    found: list[str] = []
    first: array[int] | None = None
    for numbers in heard:
        if first is None:
            first = numbers
        elif numbers == first:
            continue
        else:
            found.append("two clients heard different orders")
        for publisher in published:
            own = [number for number in numbers if publisher.first <= number < publisher.first + SPACING]
            expected = range(publisher.first, publisher.last + 1)
            if own == list(expected):
                continue
            lost, doubled = len(set(expected) - set(own)), len(own) - len(set(own))
            found.append(f"of {len(expected)} events {lost} were lost and {doubled} doubled, or the order was wrong")
    return found


async def caught_up(everyone: list[Follower], published: list[Publisher], seconds: float = 60) -> None:
    total = sum(int(publisher.report["count"]) for publisher in published)
    await until(
        lambda: all(follower.count >= total for follower in everyone),
        seconds,
        say=lambda: f"{sum(f.count < total for f in everyone)} of {len(everyone)} have not heard {total} events",
    )


def bus_lines(server: Server) -> tuple[int, int]:
    """How often its log says that the bus was lost, and that it is back."""
    return server.count("SSE bus lost"), server.count("SSE bus is back")


__all__ = [
    "Follower", "Publisher", "RedisProcess", "bus_lines", "caught_up", "faults", "followers", "on_redis", "publishers",
    "workers",
]  # fmt: skip
