"""What jobs cost: ``python -m benchmarks jobs``.

Three figures. What write() costs its caller, at 1,000 writes a second. What the cache is asked with 1,000 watchers of
one job. And the CPU of a chat of 200 running jobs, each watched by two pages, at 30 tokens a second, beside an ASGI
generator by hand that sends the same tokens to as many streams, on Uvicorn. Two more by ``--only``: jobs_others.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "token "
TOKENS_PER_SECOND = 30
JOBS = 200
WATCHERS = 2
TICK = os.sysconf("SC_CLK_TCK")


def configure(redis: str | None, **more: Any) -> None:
    """``more``: settings; of INSTALLED_APPS and SSE_LIVE what is added."""
    import django
    from django.conf import settings
    from django.urls import include, path

    urls = types.ModuleType("jobs_urls")
    sys.modules["jobs_urls"] = urls
    memory = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000}}
    given: dict[str, Any] = {"CACHES": {"default": memory}}
    if redis:
        bus = "django_sse_live.backends.redis_streams.RedisStreamsBackend"
        given["SSE_LIVE"] = {"BACKEND": bus, "OPTIONS": {"URL": redis}, "MAX_CLIENTS_PER_USER": None}
        given["CACHES"] = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis}}
    given["SSE_LIVE"] = {**given.get("SSE_LIVE", {}), **more.pop("SSE_LIVE", {})}
    apps = ["django.contrib.contenttypes", "django.contrib.auth", *more.pop("INSTALLED_APPS", []), "django_sse_live"]
    settings.configure(
        SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="jobs_urls", INSTALLED_APPS=apps, **given, **more
    )
    django.setup()
    urls.urlpatterns = [path("events/", include("django_sse_live.urls"))]  # type: ignore[attr-defined]


# What write() costs


def measure_writes(seconds: float) -> None:
    """1,000 writes a second, each in its own moment, in this process."""
    from django_sse_live import start_job

    job = start_job()
    costs = []
    begin = time.perf_counter()
    for number in range(int(1000 * seconds)):
        while time.perf_counter() < begin + number / 1000:
            time.sleep(0.0002)
        before = time.perf_counter()
        job.write(TOKEN)
        costs.append(time.perf_counter() - before)
    job.finish()
    costs.sort()
    mean = sum(costs) / len(costs)
    print(
        json.dumps(
            {
                "mean_us": round(1e6 * mean, 1),
                "median_us": round(1e6 * costs[len(costs) // 2], 1),
                "p99_us": round(1e6 * costs[int(len(costs) * 0.99)], 1),
            }
        )
    )


# What the cache is asked


def _counted(method: Any, asked: Counter[str]) -> Any:
    """The method of a cache, counted where it is not called by another one."""

    def call(self: Any, *args: Any, **named: Any) -> Any:
        is_outermost = not getattr(self, "_is_counted", False)
        self._is_counted = True
        try:
            asked[method.__name__] += is_outermost
            return method(self, *args, **named)
        finally:
            if is_outermost:
                self._is_counted = False

    return call


def measure_cache(seconds: float, watchers: int) -> None:
    from django.core.cache import caches

    from django_sse_live import start_job
    from django_sse_live.testing import StreamClient

    asked: Counter[str] = Counter()
    cache_class = type(caches["default"])
    for name in ("get", "get_many", "set", "set_many", "add", "touch", "delete"):
        setattr(cache_class, name, _counted(getattr(cache_class, name), asked))

    async def watch(token: str, until: asyncio.Event) -> None:
        async with StreamClient().stream("/events/", {"token": token}):
            await until.wait()

    async def run() -> None:
        job = start_job()
        over = asyncio.Event()
        tasks = []
        began = time.monotonic()
        asked.clear()
        for _ in range(watchers):  # they come and write while the job runs
            tasks.append(asyncio.create_task(watch(job.token, over)))
            job.write(TOKEN)
            await asyncio.sleep(seconds / 2 / watchers)
        joined, joining = Counter(asked), time.monotonic() - began
        asked.clear()
        began = time.monotonic()
        while time.monotonic() < began + seconds / 2:
            job.write(TOKEN)
            await asyncio.sleep(1 / TOKENS_PER_SECOND)
        watching = time.monotonic() - began
        rates = {
            when: {name: round(count / length, 2) for name, count in sorted(counts.items())}
            for when, counts, length in (("joining", joined, joining), ("watching", Counter(asked), watching))
        }
        print(json.dumps(rates))
        over.set()
        await asyncio.gather(*tasks)
        job.finish()

    asyncio.run(run())


# A chat


def application() -> Any:
    """What Uvicorn serves: jobs, or the generator by hand."""
    if os.environ["JOBS_BENCH"] == "by hand":
        return by_hand
    configure(os.environ.get("JOBS_BENCH_REDIS"))
    from django.core.asgi import get_asgi_application

    from django_sse_live import Job, astart_job
    from django_sse_live.asgi import live_application

    live = live_application(get_asgi_application())

    async def run(job: Job) -> None:
        while True:
            await job.awrite(TOKEN)
            await asyncio.sleep(1 / TOKENS_PER_SECOND)

    async def start(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/start/":
            await live(scope, receive, send)
            return
        jobs = []
        for _ in range(JOBS):
            job = await astart_job()
            task = asyncio.create_task(run(job))
            jobs.append((job.token, task))
        start.tasks = jobs  # type: ignore[attr-defined]
        body = json.dumps([token for token, _ in jobs]).encode()
        await answer(send, body)

    return start


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def by_hand(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["path"] == "/start/":
        await answer(send, json.dumps([str(n) for n in range(JOBS)]).encode())
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    while True:
        body = f"data: {json.dumps({'text': TOKEN})}\n\n".encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(1 / TOKENS_PER_SECOND)


@contextmanager
def server(kind: str, redis: str | None, *, factory: str = "jobs", **more: str) -> Iterator[tuple[int, int]]:
    """Its port and its pid. ``more``: of its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    environment = {**os.environ, "JOBS_BENCH": kind, "PYTHONPATH": str(ROOT), **more}
    if redis:
        environment["JOBS_BENCH_REDIS"] = redis
    command = [sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.{factory}:application", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning"], env=environment, cwd=ROOT)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("The server has not begun.") from None
                time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


async def get(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def measure_chat(kind: str, seconds: float, redis: str | None) -> dict[str, float]:
    with server(kind, redis) as (port, pid):
        tokens = await start(port)
        counted = [0, 0]

        async def read(token: str) -> None:
            stream, _ = await get(port, f"/events/?token={token}&format=envelope")
            while chunk := await stream.read(65536):
                counted[0] += len(chunk)
                counted[1] += chunk.count(b"token ")

        tasks = [asyncio.create_task(read(token)) for token in tokens for _ in range(WATCHERS)]
        await asyncio.sleep(3)
        before, characters, began = cpu_seconds(pid), counted[1], time.monotonic()
        await asyncio.sleep(seconds)
        spent, elapsed = cpu_seconds(pid) - before, time.monotonic() - began
        for task in tasks:
            task.cancel()
        tokens_per_s = round((counted[1] - characters) / elapsed)
        return {"cpu_percent": round(100 * spent / elapsed, 1), "tokens_per_s": tokens_per_s}


async def start(port: int) -> list[str]:
    """The tokens of the jobs that the server has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /start/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    found: list[str] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks jobs", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--redis", help="the URL of a server to measure with, beside memory")
    parser.add_argument("--only", choices=("writes", "cache", "chat", "others", "killed"))
    parser.add_argument("--part", choices=("writes", "cache", "produce"), help="internal: in a process of its own")
    options = parser.parse_args(arguments)
    if options.part == "produce" or options.only in ("others", "killed"):
        from . import jobs_others  # which needs httpx

        if options.part:
            jobs_others.produce(options.redis)
        else:
            jobs_others.run(options.only, options.seconds, options.redis)
        return 0
    if options.part:
        configure(options.redis)
        if options.part == "writes":
            measure_writes(options.seconds)
        else:
            measure_cache(options.seconds, options.watchers)
        return 0
    for part in ("writes", "cache"):
        if options.only in (None, part):
            for redis in [None, options.redis] if options.redis else [None]:
                command = [sys.executable, "-m", "benchmarks", "jobs", "--part", part]
                command += ["--seconds", str(options.seconds), "--watchers", str(options.watchers)]
                command += ["--redis", redis] if redis else []
                found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
                print(f"{part}, {'Redis' if redis else 'memory'}: {found.strip()}")
    if options.only in (None, "chat"):
        for kind, redis in (("by hand", None), ("jobs", None), *([("jobs", options.redis)] if options.redis else [])):
            measured = asyncio.run(measure_chat(kind, options.seconds, redis))
            print(f"chat, {kind}{', Redis' if redis else ''}: {json.dumps(measured)}")
    return 0
