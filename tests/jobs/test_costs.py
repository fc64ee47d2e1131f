"""What jobs cost others: the cache, who joins late, who is away, who logs out."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache.backends.locmem import LocMemCache

from django_sse_live import abroadcast, astart_job
from django_sse_live.jobs import writers
from django_sse_live.jobs.records import state_key
from django_sse_live.jobs.store import JobStore
from django_sse_live.testing import StreamClient, streams
from tests.jobs.conftest import stored, until
from tests.jobs.test_watching import Page, watch

READS, WRITES = ("get", "get_many", "has_key"), ("set", "set_many", "add", "touch", "delete", "delete_many")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the cache was asked by each method, which may call another; "touch KEY": that key was renewed."""
    asked: Counter[str] = Counter()
    depth = 0

    def counted(name: str) -> Any:
        method = getattr(LocMemCache, name)

        def call(self: Any, *args: Any, **named: Any) -> Any:
            nonlocal depth
            asked[name] += depth == 0
            if name == "touch":
                asked[f"touch {args[0]}"] += 1
            depth += 1
            try:
                return method(self, *args, **named)
            finally:
                depth -= 1

        return call

    for name in (*READS, *WRITES):
        monkeypatch.setattr(LocMemCache, name, counted(name))
    return asked


async def test_many_watchers_of_a_busy_job_ask_the_cache_for_little(
    asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 20 reads a second by each hub, and 2.5 writes, also while they join. A state that has just been stored
    is not renewed beside that."""
    beats: list[bool] = []
    renew = JobStore.renew

    def counted_renew(self: JobStore, *args: Any, **named: Any) -> None:
        beats.append(named["lease"])
        renew(self, *args, **named)

    monkeypatch.setattr(JobStore, "renew", counted_renew)
    loop = asyncio.get_running_loop()
    began = loop.time()
    job = await astart_job(owner=7, key="a")
    leave = asyncio.Event()

    async def come() -> None:
        async with watch(job.sign()) as page:
            await page.frame()
            await leave.wait()

    pages = []
    while beats.count(True) < 3:
        if len(pages) < 100:
            pages.append(asyncio.create_task(come()))
        await job.awrite("token ")
        await asyncio.sleep(0.02)
    seconds = loop.time() - began
    reads, writes = (sum(asked[name] for name in names) for names in (READS, WRITES))
    print(f"{reads / seconds:.1f} reads a second, {writes / seconds:.2f} writes")
    assert reads <= 20 * seconds + 10
    assert writes <= 2.5 * seconds + 5  # the start is five
    assert not asked[f"touch {state_key(job.id)}"]
    leave.set()
    await asyncio.gather(*pages)


async def test_a_silent_job_is_renewed(asked: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "LEASE_RENEW_SECONDS", 0.5)
    job = await astart_job()
    await asyncio.to_thread(until, lambda: asked[f"touch {state_key(job.id)}"] > 1)


@pytest.mark.parametrize("format", ["named", "envelope"])
@pytest.mark.parametrize("has_ended", [False, True])
async def test_who_joins_at_the_end_gets_little_more_than_the_text(
    monkeypatch: pytest.MonkeyPatch, format: str, has_ended: bool
) -> None:
    """1.05 times its bytes and 1 KiB, of 2,000 tokens."""
    got = 0
    feed = streams.EventParser.feed

    def counted(self: streams.EventParser, chunk: bytes) -> Any:
        nonlocal got
        got += len(chunk)
        return feed(self, chunk)

    choice = random.Random(7)
    tokens = [choice.choice(["the ", "otter ", "wörd ", "😀 ", "reeds.\n", "<b>", "한국 "]) for _ in range(2000)]
    text = "".join(tokens)
    job = await astart_job()
    for token in tokens:
        job.write(token)
        await asyncio.sleep(0)
    if has_ended:
        await job.afinish()
    await stored(job.id, lambda record: record.text == text)
    monkeypatch.setattr(streams.EventParser, "feed", counted)
    async with StreamClient().stream("/events/", {"token": job.token, "format": format}) as stream:
        said = (await stream.next()).data
        while "text" not in said:  # an envelope, of what the connection begins with and of the frame
            said = said["data"] if said.get("type") == "sse.job" else (await stream.next()).data
    assert said["text"] == text
    print(f"{got} bytes for a text of {len(text.encode())}")
    assert got <= 1.05 * len(text.encode()) + 1024


async def test_who_is_away_while_many_jobs_run_misses_nothing_and_a_logout_does_not_wait(
    settings: Any, transactional_db: None
) -> None:
    """Of this process's bus; of others: test_processes. The deltas are many times what the history holds."""
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["c"], "HISTORY_EVENTS": 20, "HISTORY_BYTES": 64 * 1024}
    locmem = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "large"}
    settings.CACHES = {"default": {**locmem, "OPTIONS": {"MAX_ENTRIES": 10_000}}}
    user = await User.objects.acreate_user("ada", password="x")
    visitor, leaver = StreamClient(), StreamClient()
    await leaver.aforce_login(user)
    jobs = [await astart_job() for _ in range(200)]
    async with visitor.stream("/events/", {"channel": "c"}) as stream:
        await abroadcast("c", "one", {})
        first = await stream.next("one")
    async with leaver.stream("/events/", {"channel": "c"}) as leaving, watch(jobs[0].token) as watcher:
        text = ""
        while text.count("x") < 20:  # tokens, each of which is a delta of each job
            for job in jobs:
                job.write("x" + "-" * 20)
            text = await _grown(watcher, text)
        await leaver.alogout()
        while (await leaving.next()).type != "goodbye":
            pass
        await abroadcast("c", "two", {})
        async with visitor.stream("/events/", {"channel": "c"}, last_id=first.id) as stream:
            assert (await stream.next()).type == "two"


async def _grown(page: Page, text: str) -> str:
    while page.text == text:
        await page.frame()
    return page.text
