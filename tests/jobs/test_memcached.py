"""memcached as the cache of jobs: no more than strings by a key, whole seconds, and a megabyte at the most."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_sse_live import afind_job, astart_job, find_job, start_job
from django_sse_live.conf import live_settings
from tests.backends.redis_process import RedisProcess, free_port
from tests.jobs.conftest import until
from tests.jobs.test_processes import producer
from tests.jobs.test_watching import watch

MEMCACHED = shutil.which("memcached")
pytestmark = pytest.mark.skipif(MEMCACHED is None, reason="memcached is not on this machine")


@pytest.fixture(scope="module")
def memcached() -> Iterator[str]:
    pytest.importorskip("pymemcache")
    assert MEMCACHED is not None
    port = free_port()
    process = subprocess.Popen([MEMCACHED, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "nobody"])
    try:
        until(lambda: _answers(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def caches(memcached: str, settings: Any) -> dict[str, Any]:
    given = {"default": {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "LOCATION": memcached}}
    settings.CACHES = given
    return given


def test_a_text_of_the_longest_length_is_kept() -> None:
    job = start_job(owner="7 ö", key="with spaces, and ö")
    text = "😀" * (live_settings().job_text_max_bytes // 4)
    job.write(text)
    assert job.finish({"a": 1})
    found = find_job(owner="7 ö", key="with spaces, and ö")
    assert found is not None and (found.state, found.text, found.result) == ("finished", text, {"a": 1})


def test_of_those_who_start_one_key_one_runs_and_the_first_end_wins() -> None:
    for number in range(5):
        with ThreadPoolExecutor(8) as pool:
            jobs = [each.result() for each in [pool.submit(start_job, key=f"k {number}") for _ in range(8)]]
        (job,) = [each for each in jobs if each.is_new]
        assert {each.id for each in jobs} == {job.id}
        found = find_job(job.id)
        assert found is not None and found.cancel() and not job.finish()


@pytest.mark.needs("redis")
async def test_a_command_streams_to_pages_and_is_stopped(caches: dict[str, Any], settings: Any) -> None:
    with RedisProcess() as redis:
        path = "django_sse_live.backends.redis_streams.RedisStreamsBackend"
        settings.SSE_LIVE = {"BACKEND": path, "OPTIONS": {"URL": redis.url}}
        given = {"CACHES": caches, "SSE_LIVE": settings.SSE_LIVE}
        body = "job = start_job(key='k')\nfor t in tokens(): job.write(t)\njob.finish({'a': 1})"
        async with producer(body, given) as (process, job), watch(job.token) as page:
            await page.until("finished")
            await process.end()
        assert page.text == "".join(f"{n} 😀" for n in range(300)) and page.gaps == 0
        second = await astart_job(key="k")
        assert second.is_new
        found = await afind_job(second.id)
        assert found is not None and await found.acancel()
