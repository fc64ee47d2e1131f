"""What ``insert="refresh"`` does to the rest of a site: many open pages, of which each fetches itself anew at a save.

A page here is what sse-live-refresh.js does, in Python: one fetch at a time, those that come meanwhile are one more,
each after a random wait of up to 300 ms or the ``spread`` that the server asks for. Beside them two other views are
asked again and again, from a process of their own: an async one that does nothing, and the page itself, as any visitor
asks for it. Then, as a control, the page is fetched as often and as evenly without any save.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.live.harness import raise_descriptor_limit

from .scenarios import probe
from .servers import HERE, Peer, Server, Workshop, work_directory

SPREAD_MS = 300
STREAM = b"GET /events/?format=envelope HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
FETCH = b"GET /page/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nSSE-Live: refresh\r\n\r\n"
SPREAD = re.compile(rb'"spread":(\d+)')
VIEWS = {"/empty/": "an async view that does nothing", "/page/": "the page itself, for a visitor"}


class Page(asyncio.Protocol):
    """One open page. Reads no more of a frame than it must: what it costs is taken from the server's machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.spread_ms = 0
        self.fetches: list[tuple[float, float]] = []  # from when to when
        self.saves = 0
        self.is_connected = asyncio.Event()
        self._is_wanted = self._is_fetching = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> asyncio.BaseTransport:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)
        transport.write(STREAM)
        await self.is_connected.wait()
        return transport

    def data_received(self, data: bytes) -> None:
        if spreads := SPREAD.findall(data):
            self.spread_ms = int(spreads[-1])
        if not self.is_connected.is_set() and b'"connected"' in data:
            self.is_connected.set()
        if saves := data.count(b'"patch":{'):
            self.saves += saves
            self._want()

    def _want(self) -> None:
        is_first, self._is_wanted = not self._is_wanted, True
        if is_first and not self._is_fetching:
            wait = random.random() * max(SPREAD_MS, self.spread_ms) / 1000
            asyncio.get_running_loop().call_later(wait, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._fetch())

    async def _fetch(self) -> None:
        self._is_wanted, self._is_fetching = False, True
        self.fetches.append(await fetch(self.port))
        self._is_fetching = False
        if self._is_wanted:
            self._is_wanted = False
            self._want()

    @property
    def is_settled(self) -> bool:
        return not self._is_wanted and not self._is_fetching and bool(self.fetches)


async def fetch(port: int) -> tuple[float, float]:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(FETCH)
    answer = await reader.read(-1)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ") and b"row-49" in answer, answer[:300]
    return began, time.monotonic()


async def fetch_evenly(port: int, count: int, seconds: float) -> None:
    """At the moments that ``count`` pages would choose, of which none has heard of a save."""
    fetches = []
    begin = time.monotonic()
    for at in sorted(random.random() * seconds for _ in range(count)):
        await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
        fetches.append(asyncio.ensure_future(fetch(port)))
    await asyncio.gather(*fetches)


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1] * 1e3


class Watch:
    """Asks the other views, each from a process of its own: what the pages cost is not in its times."""

    def __init__(self, port: int, pool: ProcessPoolExecutor) -> None:
        self.port = port
        self.pool = pool

    async def p95(self, seconds: float) -> list[float]:
        loop = asyncio.get_running_loop()
        asked = [
            loop.run_in_executor(self.pool, probe, self.port, seconds, path, pause)
            for path, pause in zip(VIEWS, (0.005, 0.1), strict=True)
        ]
        return [p95(times) for times in await asyncio.gather(*asked)]


async def measure(server: Server, options: argparse.Namespace, pool: ProcessPoolExecutor) -> None:
    watch = Watch(server.port, pool)
    await watch.p95(0.5)
    pages = [Page(server.port) for _ in range(options.pages)]
    streams = await asyncio.gather(*(page.open() for page in pages))
    await asyncio.sleep(2)
    quiet = await watch.p95(options.quiet)
    spent = server.cpu_seconds()
    for _ in range(20):
        await fetch(server.port)
    cost = (server.cpu_seconds() - spent) / 20
    before = server.cpu_seconds()
    began = time.monotonic()
    watching = asyncio.ensure_future(watch.p95(options.seconds))
    await asyncio.to_thread(server.publish, options.saves, options.saves / options.burst, 0)
    while not all(page.is_settled and page.saves == options.saves for page in pages):  # noqa: ASYNC110  # a poll is enough
        await asyncio.sleep(0.2)
    took = time.monotonic() - began
    spent = server.cpu_seconds() - before
    busy = await watching
    fetches = [len(page.fetches) for page in pages]
    watching = asyncio.ensure_future(watch.p95(took))
    await fetch_evenly(server.port, sum(fetches), took)
    control = await watching
    for stream in streams:
        stream.abort()  # type: ignore[attr-defined]
    slowest = max(end - start for page in pages for start, end in page.fetches)
    overlaps = sum(
        first[1] > second[0] for page in pages for first, second in zip(page.fetches, page.fetches[1:], strict=False)
    )
    print(f"| {options.pages:,} pages, {options.saves} saves in {options.burst:g} s, {options.server} | |\n|---|---:|")
    print(f"| a fetch costs the server | {cost * 1e3:.1f} ms |")
    print(f"| the server's `spread` | {max(page.spread_ms for page in pages) / 1000:.1f} s |")
    print(f"| fetches of a page | {min(fetches)} to {max(fetches)}, {sum(fetches):,} in all, {overlaps} while another "
          "was under way |")  # fmt: skip
    print(f"| the slowest fetch | {slowest * 1e3:.0f} ms |")
    print(f"| all were up to date after | {took:.1f} s, with {100 * spent / took:.0f} % of a core |")
    for name, *times in zip(VIEWS.values(), quiet, busy, control, strict=True):
        before_, during, even = times
        print(f"| p95 of {name}: before, during, with as many fetches and no save | {before_:.1f} ms, {during:.1f} ms, "
              f"{even:.1f} ms: {during / before_:.2f} ×, {even / before_:.2f} × |")  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks refresh", description=__doc__)
    parser.add_argument("--server", choices=("uvicorn", "daphne", "hypercorn", "granian"), default="uvicorn")
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--saves", type=int, default=50)
    parser.add_argument("--burst", type=float, default=5, help="seconds in which they are saved (default 5)")
    parser.add_argument("--seconds", type=float, default=25, help="for which other views are asked during that")
    parser.add_argument("--quiet", type=float, default=10, help="and before it")
    parser.add_argument("--cost", type=int, help="REFRESH_COST_MS, if not its default")
    parser.add_argument("--python", type=Path, required=True, help="one that has what is needed")
    options = parser.parse_args(arguments)
    raise_descriptor_limit()
    workshop = Workshop(work_directory(HERE / ".work"), options.python.absolute(), options.server)
    if options.cost is not None:
        workshop.variables["REFRESH_COST_MS"] = str(options.cost)
    peer = Peer("refresh", "a page with a list", "refresh_site:live")
    with workshop.start(peer) as server, ProcessPoolExecutor(len(VIEWS)) as pool:
        asyncio.run(measure(server, options, pool))
    return 0
