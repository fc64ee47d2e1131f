"""One address that connects as often as it can: how many streams it gets, and how others fare meanwhile.

python -m tests.live.access.flood uvicorn [--count 10000] [--limit 100]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from tests.live.harness import Crowd, Server, raise_descriptor_limit


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--limit", type=int, default=100)
    options = parser.parse_args()
    raise_descriptor_limit()
    # The visitors' addresses are those of X-Forwarded-For, so that others can come from elsewhere.
    server = Server(options.server, MAX_CLIENTS_PER_ADDRESS=options.limit, PROXY_COUNT=1)
    async with server:
        flood_headers, other_headers = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
        before = await server.state(collect=True)
        began = time.monotonic()
        flooding = asyncio.ensure_future(
            Crowd.open(server, options.count, headers=flood_headers, wait=False, at_once=500)
        )
        waits = []
        while not flooding.done() or len(waits) < 5:
            asked = time.monotonic()
            other = await Crowd.open(server, 1, headers=other_headers)
            waits.append(time.monotonic() - asked)
            other.close()
            await asyncio.sleep(0.2)
        crowd = await flooding
        await crowd.all(lambda client: client.connected or client.goodbyes or client.is_gone, 120)
        seconds = time.monotonic() - began
        after = await server.state(collect=True)
        retries = [client.retry_ms for client in crowd if client.goodbyes]
        print(
            f"{options.server}: of {options.count:,} from one address {crowd.count(lambda c: c.connected)} got one, "
            f"{len(retries)} a goodbye with a retry of {min(retries)}-{max(retries)} ms, in {seconds:.0f} s; meanwhile "
            f"another address waited {statistics.median(waits) * 1000:.0f} ms for its stream, "
            f"{max(waits) * 1000:.0f} at the most; {after['clients']} clients, "
            f"{after['os_threads'] - before['os_threads']:+d} threads, "
            f"{(after['rss_kib'] - before['rss_kib']) / 1024:+.0f} MiB; lines above INFO: {len(server.noise())}"
        )


if __name__ == "__main__":
    asyncio.run(main())
