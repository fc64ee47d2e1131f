"""Jobs whose producer is another process than the worker that has the pages: a command, a task, one that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import cache

from django_sse_live import Job, abroadcast, adisconnect_clients, afind_job, astart_job, start_job
from django_sse_live.testing import StreamClient
from tests.backends.redis_process import RedisProcess
from tests.backends.test_processes import SETUP
from tests.jobs.conftest import WITHIN_SECONDS, until
from tests.jobs.test_watching import watch

ROOT = Path(__file__).resolve().parents[2]
BODY = """
import os, time
from django_sse_live import find_job, start_job
def tokens():
    for n in range(300):
        yield f"{n} \\N{GRINNING FACE}"
        time.sleep(0.002)
"""


@pytest.fixture(params=["redis", "layer", "sqlite"])
def bus(request: pytest.FixtureRequest, redis: RedisProcess, tmp_path: Path, settings: Any) -> dict[str, Any]:
    """Settings of both processes: the bus that is named, and a cache in Redis."""
    redis.command("FLUSHALL")
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis.url}
    given: dict[str, Any] = {"CACHES": {"default": cache}}
    if request.param == "redis":
        path = "django_sse_live.backends.redis_streams.RedisStreamsBackend"
        given["SSE_LIVE"] = {"BACKEND": path, "OPTIONS": {"URL": redis.url}}
    elif request.param == "layer":
        given["SSE_LIVE"] = {"BACKEND": "django_sse_live.backends.channel_layer.ChannelLayerBackend"}
        given["CHANNEL_LAYERS"] = {
            "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis.url]}}
        }
    else:  # nothing but the cache in common: a bus that carries no deltas to other processes
        given["SSE_LIVE"] = {}
    for name, value in given.items():
        setattr(settings, name, value)
    return given


class Producer:
    def __init__(self, body: str, settings: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SETUP + BODY + body, json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
        )

    async def end(self) -> str:
        out, _ = await asyncio.to_thread(self.process.communicate, timeout=60)
        assert self.process.returncode == 0
        return out


@asynccontextmanager
async def producer(body: str, settings: dict[str, Any]) -> AsyncIterator[tuple[Producer, Job]]:
    """A script, and the job of the key "k" that it has begun."""
    made = Producer(body, settings)
    try:
        job = None
        while job is None:
            assert made.process.poll() in (None, 0)
            await asyncio.sleep(0.02)
            job = await afind_job(key="k")
        yield made, job
    finally:
        made.process.kill()
        await asyncio.to_thread(made.process.wait)


@pytest.fixture
def uncarried(request: pytest.FixtureRequest, bus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not bus["SSE_LIVE"]:
        from django_sse_live.backends.memory import MemoryBackend

        monkeypatch.setattr(MemoryBackend, "carries_deltas", False)


pytestmark = [pytest.mark.needs("redis"), pytest.mark.usefixtures("uncarried")]


async def test_a_command_streams_to_pages_of_a_worker(bus: dict[str, Any]) -> None:
    body = """
from django.core.cache import cache
job = start_job(key='k')
while not cache.get('watched'): time.sleep(0.01)
for t in tokens(): job.write(t)
job.finish({'a': 1})
"""
    async with producer(body, bus) as (process, job), watch(job.token) as page:
        await page.frame()
        await cache.aset("watched", True)
        data = await page.until("finished")
        await process.end()
    assert page.text == "".join(f"{n} 😀" for n in range(300))
    assert data["result"] == {"a": 1} and page.gaps == 0
    if bus["SSE_LIVE"]:
        assert len(page.frames) > 2


async def test_a_page_stops_a_command(bus: dict[str, Any]) -> None:
    body = """
job = start_job(key='k')
while not job.is_cancelled:
    job.write("x")
    time.sleep(0.01)
print(job.finish())
"""
    client = StreamClient()
    async with producer(body, bus) as (process, job), watch(job.sign(may_stop=True), client) as page:
        await page.frame()
        query = {"token": job.sign(may_stop=True)}
        assert await client.send("sse.job.stop", channel=job.channel, query=query) == {"state": "cancelled"}
        await page.until("cancelled")
        assert await process.end() == "False\n"
    found = await afind_job(job.id)
    assert found is not None and found.state == "cancelled"


async def test_pages_are_told_that_a_killed_producer_is_lost(bus: dict[str, Any]) -> None:
    body = "job = start_job(key='k')\njob.write('abc')\ntime.sleep(3600)"
    async with producer(body, bus) as (process, job), watch(job.token) as page:
        while page.text != "abc":
            await page.frame()
        process.process.send_signal(signal.SIGKILL)
        async with watch(job.token) as other:
            for each in (page, other):
                while "lost" not in each.states:
                    event = await each.stream.next("sse.job", timeout=60)
                    each.states.append(event.data["state"])
        second = await astart_job(key="k")
        assert second.is_new and second.id != job.id


async def test_a_command_that_ends_without_an_end_is_lost_at_once_with_its_text(bus: dict[str, Any]) -> None:
    body = """
job = start_job(key='k')
while not find_job(key='k').text:
    job.write('abc')
    time.sleep(0.5)
job.write('def')
"""
    async with producer(body, bus) as (process, job):
        await process.end()
        found = await job.arefresh()
        assert found.state == "lost" and found.text.endswith("def")


UVICORN = """
import threading, uvicorn
from django_sse_live import astart_job
from django_sse_live.backends import running_hub
def write(job):
    job.write("abc")
    threading.Event().wait()
async def app(scope, receive, send):
    await receive()
    running_hub()  # as the first stream of a worker does
    await astart_job(key="k", run=write)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
uvicorn.run(app, port=0, log_level="error")
"""


async def test_what_a_worker_of_uvicorn_runs_in_a_thread_is_lost_at_once_when_the_worker_ends(
    bus: dict[str, Any],
) -> None:
    """Uvicorn ends by the signal itself, once it has shut down."""
    async with producer(UVICORN, bus) as (script, job):
        while (await job.arefresh()).text != "abc":
            await asyncio.sleep(0.02)
        script.process.terminate()
        assert await asyncio.to_thread(script.process.wait, 60) == -signal.SIGTERM
        assert (await job.arefresh()).state == "lost"


async def test_a_worker_of_tasks_takes_what_a_view_has_begun(bus: dict[str, Any]) -> None:
    job = await astart_job(key="k")
    body = "job = find_job(key='k').take()\nfor t in tokens(): job.write(t)\njob.finish()"
    async with watch(job.token) as page, producer(body, bus) as (process, _):
        await page.until("finished")
        await process.end()
        assert page.text == "".join(f"{n} 😀" for n in range(300))


CELERY = """
import time
from celery import Celery
from django_sse_live import find_job
app = Celery("tests", broker=%(broker)r, set_as_current=True)
@app.task(name="work")
def work(id):
    job = find_job(id).take()
    for n in range(100):
        job.write(f"{n} ")
        time.sleep(0.005)
    job.finish()
app.worker_main(["worker", "--pool", %(pool)r, "--concurrency", "1", "--loglevel", "WARNING", "-n", "jobs@localhost"])
"""


@pytest.mark.parametrize("pool", ["solo", "prefork"])
async def test_a_celery_worker(bus: dict[str, Any], redis: RedisProcess, celery: Any, pool: str) -> None:
    if not bus["SSE_LIVE"] or "CHANNEL_LAYERS" in bus:
        pytest.skip("one bus is enough")
    broker = redis.url.replace("/0", "/1")
    worker = Producer(CELERY % {"broker": broker, "pool": pool}, bus)
    try:
        job = await astart_job(key="k")
        app = celery.Celery("tests", broker=broker)
        async with watch(job.token) as page:
            await asyncio.to_thread(app.send_task, "work", [job.id])
            await page.until("finished")
        assert page.text == "".join(f"{n} " for n in range(100))
    finally:
        worker.process.terminate()
        await asyncio.to_thread(worker.process.wait, 30)


def test_djangos_own_tasks(settings: Any) -> None:
    tasks = pytest.importorskip("django.tasks")
    settings.TASKS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}
    job = start_job()
    tasks.task(work).enqueue(job.id)
    until(lambda: job.refresh().state == "finished")
    assert job.text == "done"


def work(id: str) -> None:
    from django_sse_live import find_job

    job = find_job(id)
    assert job is not None
    job.take().write("done")
    job.finish()


async def test_a_sync_view_in_a_thread_of_asgi_begins_one() -> None:
    """Whose thread ends with its request: the job goes on."""
    job = await sync_to_async(start_job, thread_sensitive=False)(run=lambda job: job.write("x"))
    async with watch(job.token) as page:
        await page.until("finished")
    assert page.text == "x"


async def test_running_jobs_take_no_event_of_who_is_away_and_no_revocation_waits(
    bus: dict[str, Any], settings: Any, transactional_db: None
) -> None:
    """200 jobs, whose deltas are many times what the history holds."""
    settings.SSE_LIVE = {**bus["SSE_LIVE"], "PUBLIC_CHANNELS": ["c"], "HISTORY_EVENTS": 20}
    jobs = [await astart_job() for _ in range(200)]
    async with StreamClient().stream("/events/", {"channel": "c"}) as stream:
        await abroadcast("c", "one", {})
        first = await stream.next("one")
    for _ in range(40):
        for job in jobs:
            job.write("x" * 20)
        await asyncio.sleep(0.05)
    await abroadcast("c", "two", {})
    async with StreamClient().stream("/events/", {"channel": "c", "last_event_id": first.id}) as stream:
        assert (await stream.next()).type == "two"
        for job in jobs:
            job.write("x")
        began = time.monotonic()
        await adisconnect_clients(client_id=stream.client_id)
        while (await stream.next()).type != "goodbye":
            pass
        assert time.monotonic() - began < WITHIN_SECONDS
