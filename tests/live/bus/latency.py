"""From the broadcast in one process to the client of another: this app beside channels_redis and django-eventstream.

python -m tests.live.bus.latency --peers /path/to/python-with-the-peers [--clients 100] [--events 200] [--rounds 3]

The peers need: channels channels_redis django-eventstream uvicorn uvloop httptools redis.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
from array import array

from tests.backends.redis_process import RedisProcess, free_port
from tests.live.harness import until
from tests.live.harness.clients import Client, percentile
from tests.live.harness.servers import ROOT

RATE = 20.0


async def measure(site: str, python: str, redis: RedisProcess, clients: int, events: int) -> tuple[list[float], int]:
    """(the delays in seconds, of every event at every client; how many never came)"""
    port = free_port()
    environment = {**os.environ, "SITE": site, "REDIS_PORT": str(redis.port), "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(  # noqa: ASYNC220
        [
            *(python, "-m", "uvicorn", "--port", str(port), "--log-level", "warning", "--lifespan", "off"),
            "tests.live.bus.latency_site:application",
        ],
        env=environment,
        cwd=ROOT,
    )
    crowd: list[Client] = []
    try:
        loop = asyncio.get_running_loop()

        async def answers() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                return False

        await until(answers, 60)
        for _ in range(clients):
            client = Client("/events/", {"Accept": "text/event-stream"})
            client.delays = array("d")
            await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
            crowd.append(client)
        await until(lambda: all(client.received for client in crowd), 30)
        publisher = await asyncio.create_subprocess_exec(
            python, "-m", "tests.live.bus.latency_site", str(events), str(RATE), env=environment, cwd=ROOT
        )
        assert await publisher.wait() == 0
        try:
            await until(lambda: all(len(client.numbers) > events for client in crowd), 5)
        except AssertionError:
            pass  # counted below
        delays = [delay for client in crowd for delay in (client.delays or [])[1:]]
        return delays, clients * (events + 1) - sum(len(client.numbers) for client in crowd)
    finally:
        for client in crowd:
            client.close()
        server.kill()
        server.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.live.bus.latency")
    parser.add_argument("--peers", help="a Python that has the peers installed")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sites = {"ours": sys.executable}
    if arguments.peers:
        sites |= {"channels": arguments.peers, "eventstream": arguments.peers}
    delays: dict[str, list[float]] = {site: [] for site in sites}
    missing = dict.fromkeys(sites, 0)
    with RedisProcess() as redis:
        for _ in range(arguments.rounds):
            for site, python in sites.items():
                more, lost = await measure(site, python, redis, arguments.clients, arguments.events)
                delays[site] += more
                missing[site] += lost
    load = os.getloadavg()[0]
    print(f"{arguments.clients} clients, {arguments.rounds} × {arguments.events} events at {RATE:g}/s, load {load:.1f}")
    for site, values in delays.items():
        print(
            f"{site:12} p50 {percentile(values, 0.5) * 1000:6.2f} ms   p99 {percentile(values, 0.99) * 1000:6.2f} ms   "
            f"not delivered {missing[site]}"
        )


if __name__ == "__main__":
    asyncio.run(main())
