"""What running jobs do to others: ``python -m benchmarks jobs --only others`` and ``--only killed``.

``others``: 200 jobs at 20 deltas a second. A client of another channel is away for a minute meanwhile, and resumes;
users log out, until whose streams have ended it is measured; jobs are stopped, until their producers know. With Redis
the jobs are one worker's, the streams and the Stop another's. ``killed``: producers in processes of their own, killed
at any moment of their leases, until the pages are told.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from . import jobs

DELTAS_PER_SECOND = 20
USER = "ada"


# What Uvicorn serves


def application() -> Any:
    jobs.configure(
        os.environ.get("JOBS_BENCH_REDIS"),
        INSTALLED_APPS=["django.contrib.sessions"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["JOBS_BENCH_DATABASE"]}},
        SSE_LIVE={"PUBLIC_CHANNELS": ["c"]},
    )
    from django.contrib.auth import alogin, alogout
    from django.contrib.auth.models import User
    from django.core.asgi import get_asgi_application
    from django.core.management import call_command
    from django.http import JsonResponse
    from django.urls import path

    from django_sse_live import Job, abroadcast, afind_job, astart_job
    from django_sse_live.asgi import live_application

    def prepare() -> None:
        call_command("migrate", verbosity=0)
        User.objects.get_or_create(username=USER)

    with ThreadPoolExecutor(1) as pool:  # a loop runs here
        pool.submit(prepare).result()
    running: dict[str, tuple[Job, asyncio.Task[None]]] = {}

    async def run(job: Job) -> None:
        while not job.is_cancelled:
            await job.awrite(jobs.TOKEN)
            await asyncio.sleep(1 / DELTAS_PER_SECOND)

    async def start(request: Any) -> Any:
        for _ in range(jobs.JOBS):
            job = await astart_job()
            running[job.id] = job, asyncio.create_task(run(job))
        return JsonResponse({"ids": list(running)})

    async def stop(request: Any) -> Any:
        began = time.time()
        job = await afind_job(request.GET["id"])
        assert job is not None
        await job.acancel()
        return JsonResponse({"at": began})

    async def known(request: Any) -> Any:
        job = running[request.GET["id"]][0]
        while not job.is_cancelled:  # noqa: ASYNC110  # an attribute, which a thread sets
            await asyncio.sleep(0.002)
        return JsonResponse({"at": time.time()})

    async def say(request: Any) -> Any:
        await abroadcast("c", request.GET["type"], {})
        return JsonResponse({})

    async def log_in(request: Any) -> Any:
        await alogin(request, await User.objects.aget(username=USER))
        return JsonResponse({})

    async def log_out(request: Any) -> Any:
        await alogout(request)
        return JsonResponse({})

    views = {"start": start, "stop": stop, "known": known, "say": say, "login": log_in, "logout": log_out}
    urls: Any = sys.modules["jobs_urls"]
    urls.urlpatterns += [path(f"{name}/", view) for name, view in views.items()]
    return live_application(get_asgi_application())


# What is measured


async def events(client: httpx.AsyncClient, url: str, **options: Any) -> AsyncIterator[tuple[str, str]]:
    """The type and the id of each event but heartbeats; ("", "") once there is a stream."""
    async with client.stream("GET", url, timeout=120, **options) as answer:
        answer.raise_for_status()
        yield "", ""
        type = id = ""
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                type = value
            elif name == "id":
                id = value
            elif not line:
                if type not in ("", "heartbeat", "connected"):
                    yield type, id
                type = ""


async def measure_others(seconds: float, redis: str | None) -> dict[str, Any]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        more = {"JOBS_BENCH_DATABASE": str(Path(directory, "users.sqlite3"))}
        ports = [
            stack.enter_context(jobs.server("others", redis, factory="jobs_others", **more))[0]
            for _ in range(2 if redis else 1)
        ]
        works, streams = (f"http://127.0.0.1:{port}" for port in (ports[0], ports[-1]))
        async with httpx.AsyncClient(timeout=60) as client:
            ids = (await client.get(f"{works}/start/")).json()["ids"]
            there = events(client, f"{streams}/events/?channel=c")
            await anext(there)
            await client.get(f"{works}/say/?type=one")
            type, last_id = await anext(there)
            assert type == "one"
            await there.aclose()
            began = time.monotonic()
            logouts, stops = [], []
            while time.monotonic() < began + seconds:
                logouts.append(await log_out(works, streams))
                stops.append(await stop(client, works, streams, ids.pop()))
                await asyncio.sleep(1)
            away = time.monotonic() - began
            await client.get(f"{works}/say/?type=two")
            back = events(client, f"{streams}/events/?channel=c", headers={"Last-Event-ID": last_id})
            await anext(back)
            found, _ = await anext(back)
            await back.aclose()
        return {
            "deltas_meanwhile": round(len(ids) * DELTAS_PER_SECOND * away),
            "away_s": round(away),
            "first_that_is_heard": found,
            **{f"{name}_max_ms": round(1000 * max(took)) for name, took in (("logout", logouts), ("stop", stops))},
            "of_each": len(stops),
        }


async def log_out(works: str, streams: str) -> float:
    async with httpx.AsyncClient(timeout=60) as client:
        await client.get(f"{works}/login/")
        there = events(client, f"{streams}/events/?channel=c")
        await anext(there)
        began = time.monotonic()
        leaving = asyncio.create_task(client.get(f"{works}/logout/"))
        async for type, _ in there:
            if type == "goodbye":
                break
        took = time.monotonic() - began
        await there.aclose()
        await leaving
        return took


async def stop(client: httpx.AsyncClient, works: str, streams: str, id: str) -> float:
    known = asyncio.create_task(client.get(f"{works}/known/", params={"id": id}))
    await asyncio.sleep(0.1 + random.random() / 2)
    asked = (await client.get(f"{streams}/stop/", params={"id": id})).json()
    return float((await known).json()["at"] - asked["at"])


def produce(redis: str) -> None:
    """A process that writes until it is killed. Its token is its first line."""
    jobs.configure(redis)
    from django_sse_live import start_job

    job = start_job()
    print(job.token, flush=True)
    while True:
        job.write(jobs.TOKEN)
        time.sleep(1 / DELTAS_PER_SECOND)


async def measure_killed(redis: str, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks", "jobs", "--part", "produce", "--redis", redis]
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        more = {"JOBS_BENCH_DATABASE": str(Path(directory, "users.sqlite3"))}
        port, _ = stack.enter_context(jobs.server("others", redis, factory="jobs_others", **more))

        def spawn() -> subprocess.Popen[str]:
            return subprocess.Popen(command, cwd=jobs.ROOT, stdout=subprocess.PIPE, text=True)

        async def one() -> float:
            process = await asyncio.to_thread(spawn)
            try:
                assert process.stdout is not None
                token = (await asyncio.to_thread(process.stdout.readline)).strip()
                url = f"http://127.0.0.1:{port}/events/"
                async with httpx.AsyncClient() as client:
                    stream = client.stream("GET", url, params={"token": token}, timeout=120)
                    async with stream as answer:
                        killed = asyncio.create_task(kill(process))
                        async for line in answer.aiter_lines():
                            if line.startswith("data: ") and json.loads(line[6:]).get("state") == "lost":
                                return time.monotonic() - await killed
                raise AssertionError("the stream has ended")
            finally:
                process.kill()
                process.wait()

        took = sorted(await asyncio.gather(*[one() for _ in range(count)]))
        return {"lost_after_s": [round(each, 1) for each in took], "max_s": round(took[-1], 2)}


async def kill(process: subprocess.Popen[str]) -> float:
    await asyncio.sleep(3 + 6 * random.random())  # a lease is renewed each 5 s
    process.kill()
    return time.monotonic()


def run(only: str, seconds: float, redis: str | None) -> None:
    if only == "others":
        for url in [None, redis] if redis else [None]:
            measured = asyncio.run(measure_others(seconds, url))
            print(f"others, {'Redis' if url else 'memory'}: {json.dumps(measured)}")
    elif redis is None:
        raise SystemExit("--only killed needs --redis: producers are processes of their own.")
    else:
        print(f"killed, Redis: {json.dumps(asyncio.run(measure_killed(redis, 8)))}")
