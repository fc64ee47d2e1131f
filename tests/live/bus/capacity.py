"""What one Redis and one worker can carry: the figures behind docs/backends.md.

python -m tests.live.bus.capacity

Redis: CPU time per event, with more and more readers that do nothing else. This app: how fast one process broadcasts,
and how fast a worker takes events in.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
import threading
import time
from typing import Any

import django
from django.conf import settings

from django_sse_live.backends.redis.stream import FIRST_LINE
from django_sse_live.backends.redis.stream_writer import ADD
from tests.backends.redis_process import RedisProcess
from tests.live.harness import until

SECONDS = 4.0
RATE = 500
PAYLOAD = '{"id": 7, "text": "' + "x" * 180 + '"}'


async def reader(port: int, stream: str, *, is_whole: bool) -> None:
    """XREAD as a worker does it, and nothing else. ``is_whole``: and what it asks besides with each read, whether what
    it read before is still there."""
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    last, ids = b"$", []
    try:
        while True:
            name = stream.encode()
            words = [b"EVAL", FIRST_LINE.encode(), b"1", name, last if ids else b"0-1"] if is_whole else [b"PING"]
            outgoing.write(
                b"XREAD COUNT 100 BLOCK 2000 STREAMS %s {%s}:now %s 0\r\nGET {%s}:epoch\r\n" % (name, name, last, name)
                + b"*%d\r\n" % len(words)
                + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
            )
            answer = b""
            # There is no epoch here. Then comes PONG, or the first line of what was read, or nothing.
            while not re.search(rb"\$-1\r\n(\+PONG|\$-1|\$\d+\r\n[^\r]*)\r\n$", answer):
                answer += await incoming.read(2**20)
            ids = re.findall(rb"\r\n(\d+-\d+)\r\n", answer)
            last = ids[-1] if ids else last
    finally:
        outgoing.close()


def cpu_seconds(redis: RedisProcess) -> float:
    text = redis.command("INFO CPU").decode()
    return sum(float(re.search(rf"used_cpu_{kind}:([\d.]+)", text)[1]) for kind in ("sys", "user"))


async def redis_cost(readers: int, *, is_whole: bool = True) -> float:
    """Redis's CPU in µs per event, with that many readers."""
    import redis as redis_py

    with RedisProcess() as redis:
        stream = "s" + secrets.token_hex(3)
        tasks = [asyncio.create_task(reader(redis.port, stream, is_whole=is_whole)) for _ in range(readers)]
        await asyncio.sleep(0.2)
        client: Any = redis_py.asyncio.Redis(port=redis.port)
        count = int(SECONDS * RATE)
        before, began = cpu_seconds(redis), time.monotonic()
        for number in range(count):
            keys = stream, "number", "revoked", "times"
            rest = 100_000, 0, 0, number + 1, 60_000, "[]", f"{number}\n{PAYLOAD}"
            await client.execute_command("EVAL", ADD, len(keys), *keys, *rest)
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        cost = (cpu_seconds(redis) - before) / count * 1e6
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()
        return cost


def publish(count: int) -> None:
    from django_sse_live import broadcast_text

    for _ in range(count):
        broadcast_text("c", "t", PAYLOAD, on_commit=False)


async def app_speed(url: str) -> None:
    from django_sse_live import stream_position
    from django_sse_live.backends import get_backend, running_hub

    count = 4000
    publish(1)
    await until(lambda: get_backend().buffered == 0)
    for threads in (1, 4):
        began = time.perf_counter()
        workers = [threading.Thread(target=publish, args=[count // threads]) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        took = time.perf_counter() - began
        print(f"one process, {threads} thread(s): {count / took:,.0f} broadcasts/s, {took / count * 1e6:.0f} µs each")
    began = time.perf_counter()
    hub = running_hub()
    await hub.filled()
    took = time.perf_counter() - began
    print(f"a new worker fills its log with {len(hub.log)} events in {took * 1000:.0f} ms")
    cpu = time.process_time()
    publisher = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.live.bus.capacity", url, str(count))
    await publisher.wait()
    await until(lambda: hub.log.head_id == stream_position())
    print(
        f"a worker without clients takes events in for {(time.process_time() - cpu) / count * 1e6:.0f} µs of CPU each"
    )


def set_up(url: str) -> None:
    settings.configure(
        SECRET_KEY="only for tests",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_sse_live"],
        SSE_LIVE={
            "BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend",
            "OPTIONS": {"URL": url},
            "HISTORY_EVENTS": 5000,
        },
    )
    django.setup()


def main() -> None:
    if len(sys.argv) == 3:  # another process of this measurement
        set_up(sys.argv[1])
        publish(int(sys.argv[2]))
        return
    with RedisProcess() as redis:
        set_up(redis.url)
        for readers in (0, 1, 8, 32):
            print(f"Redis, {readers} readers: {asyncio.run(redis_cost(readers)):.0f} µs of CPU per event of 200 bytes")
            if readers:
                cost = asyncio.run(redis_cost(readers, is_whole=False))
                print(f"the same, if they did not ask whether what they read before is still there: {cost:.0f} µs")
        asyncio.run(app_speed(redis.url))


if __name__ == "__main__":
    main()
