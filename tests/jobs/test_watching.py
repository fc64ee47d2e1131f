"""What pages hear of a job, who may watch and stop it, and what they are told where they may not."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from asgiref.local import Local
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.db.backends.base.base import BaseDatabaseWrapper
from django.template import engines
from django.utils import translation

from django_sse_live import Job, afind_job, astart_job, broadcast
from django_sse_live.backends import get_backend, replace_backend
from django_sse_live.events import CONTROL_CHANNEL, Event
from django_sse_live.hub.registry import find_hub, forget_hubs, process_part
from django_sse_live.jobs import heard, watching
from django_sse_live.jobs.records import DELTAS
from django_sse_live.jobs.running import Running
from django_sse_live.jobs.store import JobStore
from django_sse_live.jobs.writers import Writers
from django_sse_live.namespaces import use_namespace
from django_sse_live.testing import MessageRefused, Stream, StreamClient, StreamRefused
from tests.jobs.conftest import stored, until
from tests.live.harness import until as until_then


class Page:
    """A page that keeps the rules of the wire: text by offsets, and a question where something is missing."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.text = ""  # as UTF-16
        self.states: list[str] = []
        self.frames: list[dict[str, Any]] = []
        self.gaps = 0

    async def frame(self) -> dict[str, Any]:
        event = await self.stream.next("sse.job", timeout=60)
        data: dict[str, Any] = event.data
        self.frames.append(data)
        self.states.append(data["state"])
        length = len(self.text.encode("utf-16-le")) // 2
        if data["offset"] > length:
            self.gaps += 1
        else:
            self.text += data["text"].encode("utf-16-le")[2 * (length - data["offset"]) :].decode("utf-16-le")
        return data

    async def until(self, state: str) -> dict[str, Any]:
        while True:
            data = await self.frame()
            length = len(self.text.encode("utf-16-le")) // 2
            if data["state"] == state and length >= data["length"]:
                return data


@asynccontextmanager
async def watch(token: str, client: StreamClient | None = None, **query: Any) -> AsyncIterator[Page]:
    async with (client or StreamClient()).stream("/events/", {"token": token, **query}) as stream:
        yield Page(stream)


async def test_who_joins_gets_all_there_is_in_one_frame_and_then_what_is_new() -> None:
    job = await astart_job()
    job.write("😀 Hello ")
    job.progress(0.25, "Reading")
    await stored(job.id, lambda record: record.n == 2)
    async with watch(job.token) as page:
        data = await page.frame()
        assert data == {
            "job": job.id, "n": 2, "offset": 0, "text": "😀 Hello ", "length": 9, "state": "running", "progress": 0.25,
            "label": "Reading",
        }  # fmt: skip
        job.write("world")
        data = await page.frame()
        assert (data["offset"], data["text"], data["length"], data["n"]) == (9, "world", 14, 3)
        await job.afinish({"url": "/7/"})
        data = await page.until("finished")
        assert data["result"] == {"url": "/7/"} and page.text == "😀 Hello world"
    async with watch(job.token) as page:
        data = await page.frame()
        assert (data["text"], data["state"], data["result"]) == ("😀 Hello world", "finished", {"url": "/7/"})


async def test_the_frame_in_the_envelope_and_over_a_websocket() -> None:
    job = await astart_job()
    async with StreamClient().stream("/events/", {"token": job.token, "format": "envelope"}) as stream:
        connected, event = await stream.take(2)
        assert connected.data["channels"] == event.data["channels"] == [job.channel]
        assert (event.data["type"], event.data["data"]["job"]) == ("sse.job", job.id)
    async with watch(job.sign(may_stop=True), StreamClient(transport="websocket")) as page:
        assert page.stream.channels == [job.channel]
        await page.frame()
        assert await page.stream.send("sse.job.stop", channel=job.channel) == {"state": "cancelled"}
        await page.until("cancelled")


async def test_pages_that_come_at_any_moment_have_the_text_that_was_written() -> None:
    """Thousands of tokens are not replayed one by one: who joins late gets about the text's own bytes."""
    job = await astart_job(ttl_seconds=60)
    tokens = [random.Random(n).choice(["tok ", "wörd ", "😀", "\n"]) for n in range(1500)]

    async def come(after: float) -> tuple[str, int]:
        await asyncio.sleep(after)
        async with watch(job.token) as page:
            await page.until("finished")
            return page.text, page.gaps

    pages = [asyncio.create_task(come(n / 20)) for n in range(30)]
    for token in tokens:
        await job.awrite(token)
        await asyncio.sleep(0.001)
    await job.afinish()
    whole = "".join(tokens)
    assert await asyncio.gather(*pages) == [(whole, 0)] * 30
    async with watch(job.token) as page:
        await page.until("finished")
        assert len(page.frames) == 1


async def test_what_the_bus_loses_is_found_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    job = await astart_job()
    backend, lost = get_backend(), iter([False, True, True, False, True] * 100)
    deliver = backend.publish_deltas
    async with watch(job.token) as page:
        await page.frame()
        monkeypatch.setattr(backend, "publish_deltas", lambda event: None if next(lost) else deliver(event))
        for n in range(30):
            job.write(f"{n} ")
            await asyncio.sleep(0.03)
        monkeypatch.setattr(backend, "publish_deltas", lambda event: None)  # its end, too
        await job.afinish()
        await page.until("finished")
        assert page.text == "".join(f"{n} " for n in range(30)) and page.gaps == 0


async def test_a_state_that_is_behind_what_was_heard_is_read_again() -> None:
    job = await astart_job()
    async with watch(job.token) as page:
        await page.frame()
        hub = find_hub(asyncio.get_running_loop())
        assert hub is not None
        said = {"job": job.id, "n": 1, "offset": 5, "text": "xyz", "length": 8, "state": "running"}
        frame = {**said, "namespace": "", "owner": None, "stored": 0}
        hub.deliver(Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": [frame]})))
        await asyncio.sleep(3 * watching.READ_SECONDS)
        job.write("abcdexyz")
        assert (await page.frame())["text"] == "abcdexyz"


async def test_an_end_that_is_heard_while_the_cache_is_read_stays_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before it says that the job runs, or, from a cache that answers key by key, that it is lost."""
    job = await astart_job()
    await job.awrite("x")
    has_read, may_tell, read = threading.Event(), threading.Event(), JobStore.read

    def slow(self: JobStore, ids: Any) -> Any:
        found = read(self, ids)
        has_read.set()
        may_tell.wait(60)
        return found

    monkeypatch.setattr(JobStore, "read", slow)
    async with watch(job.token) as page:
        first = asyncio.create_task(page.frame())
        assert await asyncio.to_thread(has_read.wait, 60)
        await job.afinish({"url": "/7/"})
        may_tell.set()
        data = await first
        assert (data["state"], data.get("result"), data["text"]) == ("finished", {"url": "/7/"}, "x")


async def test_a_page_that_hears_late_of_an_end_which_another_has_seen_misses_no_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = await astart_job()
    await job.awrite("one ")
    async with watch(job.token) as page:
        await page.frame()
        backend, held = get_backend(), list[Event]()
        with monkeypatch.context() as slow:
            slow.setattr(backend, "publish_deltas", held.append)
            await job.awrite("two ")
            await until_then(lambda: bool(held))
            await job.awrite("three")
            await job.afinish()
            async with watch(job.token) as late:
                await late.until("finished")
                assert late.text == "one two three"
        for event in held:
            backend.publish_deltas(event)
        await page.until("finished")
        assert page.text == "one two three"


@pytest.mark.parametrize("carries", [True, False], ids=["the bus loses it", "no bus carries deltas"])
async def test_an_end_that_one_page_found_in_the_cache_is_told_to_the_others(
    carries: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SILENT_SECONDS", 0.2)
    job = await astart_job()
    async with watch(job.token) as page:
        await page.frame()
        backend = get_backend()
        monkeypatch.setattr(backend, "publish_deltas", lambda event: None)
        if not carries:
            monkeypatch.setattr(type(backend), "carries_deltas", property(lambda self: False))
        await job.awrite("text")
        await job.afinish()
        async with watch(job.token) as late:
            await late.until("finished")
            await page.until("finished")
        assert page.text == "text"


async def test_where_no_bus_carries_deltas_pages_read_on_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_backend()), "carries_deltas", False)
    monkeypatch.setattr(type(get_backend()), "publish_deltas", lambda self, event: None)
    job = await astart_job()
    async with watch(job.token) as page:
        await page.frame()
        for n in range(20):
            job.write(f"{n} ")
            await asyncio.sleep(0.1)
        while "5" not in page.text:
            await page.frame()
        await job.afinish()
        await page.until("finished")
        assert page.text == "".join(f"{n} " for n in range(20))
        assert sum(len(frame["text"]) for frame in page.frames) == len(page.text)  # nothing is sent twice


async def test_a_dead_producer_is_lost_and_one_that_comes_back_runs() -> None:
    job = await astart_job()
    job.write("x")
    async with watch(job.token) as page:
        while page.text != "x":
            await page.frame()
        await asyncio.sleep(watching.SILENT_SECONDS)
        writers = job.writer.gatherer
        with writers._rounds:  # it stands still
            cache.delete(f"sse_live.job.{job.id}.lease")
            while page.states[-1] != "lost":
                await page.frame()
        job.write("y")
        await page.until("running")
        assert page.text == "xy"


async def test_a_dead_producer_is_lost_though_its_last_words_were_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what cannot come any more."""
    monkeypatch.setattr(watching, "CACHE_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(heard, "HELD_SECONDS", -1.0)  # a lease lapses after more seconds than deltas are held
    job = await astart_job()
    async with watch(job.token) as page:
        await page.frame()
        monkeypatch.setattr(JobStore, "put", lambda self, records: None)
        job.write("last words")
        while page.text != "last words":
            await page.frame()
        with job.writer.gatherer._rounds:  # it is dead
            cache.delete(f"sse_live.job.{job.id}.lease")
            while page.states[-1] != "lost":
                await page.frame()
        assert page.text == "last words"


async def test_a_state_that_is_gone() -> None:
    job = await astart_job(ttl_seconds=1)
    token = job.token
    await job.afinish()
    await asyncio.to_thread(_until_gone, job.id)
    async with watch(token) as page:
        assert (await page.frame()) == {
            "job": job.id, "n": 0, "offset": 0, "text": "", "length": 0, "state": "expired",
        }  # fmt: skip


def _until_gone(id: str) -> None:
    until(lambda: cache.get(f"sse_live.job.{id}") is None)


async def test_many_who_join_at_once_are_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    job = await astart_job()
    reads: list[list[str]] = []
    read = JobStore.read

    def counted(self: JobStore, ids: Any) -> Any:
        reads.append(list(ids))
        return read(self, reads[-1])

    monkeypatch.setattr(JobStore, "read", counted)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def join() -> None:
        async with watch(job.token) as page:
            await page.frame()
            await asyncio.sleep(0.2)

    await asyncio.gather(*[join() for _ in range(100)])
    assert len(reads) <= 1 + (loop.time() - began) / watching.READ_SECONDS


async def test_a_cache_that_is_away_is_said_once_and_again_the_next_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = await astart_job()
    read, refused, is_away = JobStore.read, list[int](), True

    def read_if_there(self: JobStore, ids: Any) -> Any:
        if is_away:
            refused.append(len(caplog.records))
            raise ConnectionError("the cache is away")
        return read(self, ids)

    monkeypatch.setattr(JobStore, "read", read_if_there)
    for times in (1, 2):
        refused.clear()
        is_away = True
        async with watch(job.token) as page:
            await asyncio.to_thread(until, lambda: len(refused) == 3)
            is_away = False
            await page.frame()
        assert [record.getMessage() for record in caplog.records if record.name == "django_sse_live"] == [
            "The state of jobs cannot be read; it is tried again."
        ] * times


async def test_deltas_push_no_event_out_and_have_no_place_in_the_log(settings: Any) -> None:
    settings.SSE_LIVE = {"HISTORY_EVENTS": 5, "PUBLIC_CHANNELS": ["c"]}
    replace_backend(None)  # the next one's log has nothing of the tests before
    forget_hubs()
    job = await astart_job()
    async with StreamClient().stream("/events/", {"channel": "c"}) as stream:
        broadcast("c", "one", {})
        first = await stream.next("one")
    for _ in range(20):
        job.write("x" * 100)
        await asyncio.sleep(0.06)
    broadcast("c", "two", {})
    async with StreamClient().stream("/events/", {"channel": "c", "last_event_id": first.id}) as stream:
        assert (await stream.next()).type == "two"
    hub = find_hub(asyncio.get_running_loop())
    assert hub is not None and len(hub.log) == 2


async def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["c"]}
    monkeypatch.setattr(watching, "HELD_BYTES", 10_000)
    async with StreamClient().stream("/events/", {"channel": "c"}):
        hub = find_hub(asyncio.get_running_loop())
        assert hub is not None
        part = hub.parts[watching.Watching]
        for n in range(200):
            said = {"job": f"{n % 3:032x}", "n": n, "offset": 100 * n, "text": "x" * 100, "length": 100 * n + 100}
            frame = {**said, "state": "running", "namespace": "", "owner": None, "stored": 0}
            hub.deliver(Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": [frame]})))
            await asyncio.sleep(0)
            assert part._held_bytes <= 10_000
        assert part._held_bytes == sum(job.size for job in part._jobs.values()) > 0


# Who may


@pytest.fixture
def ada(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="x")


@pytest.fixture
def eve(transactional_db: None) -> User:
    return User.objects.create_user("eve", password="x")


async def client_of(user: User | None) -> StreamClient:
    client = StreamClient()
    if user is not None:
        await client.aforce_login(user)
    return client


async def refusal(client: StreamClient, **query: Any) -> str:
    with pytest.raises(StreamRefused) as refused:
        async with client.stream("/events/", query):
            pass
    assert refused.value.status == 403
    return refused.value.error


async def stop(client: StreamClient, job: Job, *, type: str = "sse.job.stop", **query: Any) -> Any:
    return await client.send(type, channel=job.channel, path="/events/", query=query)


async def test_the_owner_watches_by_name_or_token_and_nobody_else(ada: User, eve: User, settings: Any) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["*", "sse.*"], "AUTHORIZE": lambda request, channel: True}
    job = await astart_job(owner=ada)
    job.write("secret")
    owner, other, nobody = await client_of(ada), await client_of(eve), await client_of(None)
    async with owner.stream("/events/", {"channel": job.channel}) as stream:
        assert (await Page(stream).frame())["text"] == "secret"
    async with owner.stream("/events/", {"token": job.token}) as stream:
        assert (await Page(stream).frame())["text"] == "secret"
    for client in (other, nobody):
        assert await refusal(client, channel=job.channel) == "forbidden"
        assert await refusal(client, token=job.token) == "token_of_another_user"
        for type in ("sse.job.stop", "sse.job.state"):
            for query in ({}, {"token": job.token}):
                with pytest.raises(MessageRefused) as refused:
                    await stop(client, job, type=type, **query)
                assert refused.value.status == 403
    assert job.state == "running"
    assert await refusal(owner, channel="sse.job.") == "forbidden"
    assert await refusal(owner, channel=f"sse.job.{uuid4().hex}") == "forbidden"


async def test_of_a_job_without_an_owner_only_a_token_opens_it(ada: User) -> None:
    job = await astart_job()
    client = await client_of(ada)
    assert await refusal(client, channel=job.channel) == "forbidden"
    async with watch(job.token, client) as page:
        await page.frame()
    with pytest.raises(MessageRefused, match="not stop"):
        await stop(client, job, token=job.token)
    assert await stop(await client_of(None), job, token=job.sign(may_stop=True)) == {"state": "cancelled"}


async def test_stop_reaches_every_page_and_the_producer_and_changes_no_end(ada: User) -> None:
    job = await astart_job(owner=ada)
    client = await client_of(ada)
    async with watch(job.token, client) as page:
        await page.frame()
        assert await stop(client, job, token=job.token) == {"state": "cancelled"}
        await page.until("cancelled")
        await asyncio.to_thread(_until_cancelled, job)
    ended = await astart_job(owner=ada)
    await ended.afinish()
    assert await stop(client, ended) == {"state": "finished"}
    cache.delete(f"sse_live.job.{ended.id}")
    with pytest.raises(MessageRefused) as refused:
        await stop(client, ended, token=ended.token)
    assert refused.value.status == 404


async def test_no_page_is_told_that_a_stopped_job_runs() -> None:
    """Though its producer, which has not heard of it yet, writes on."""
    job = await astart_job()
    async with watch(job.token) as page:
        await page.frame()
        found = await afind_job(job.id)
        assert found is not None and await found.acancel()
        job.write("late")
        while page.text != "late":
            await page.frame()
        assert page.states[page.states.index("cancelled") :] == ["cancelled"] * page.states.count("cancelled")


def _until_cancelled(job: Job) -> None:
    until(lambda: job.is_cancelled)


async def test_a_page_that_asks_gets_the_state_again_on_its_stream_and_no_other_page_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = await astart_job()
    job.write("text")
    client = StreamClient()
    async with watch(job.token, client) as page, watch(job.token, client) as other:
        while page.text != "text" or other.text != "text":
            await (page if page.text != "text" else other).frame()
        await asyncio.sleep(watching.ASK_AGAIN_SECONDS)
        answer = await client.send(
            "sse.job.state",
            channel=job.channel,
            path="/events/",
            query={"token": job.token},
            client_id=page.stream.client_id,
        )
        assert answer == {}
        data = await page.frame()
        assert (data["offset"], data["text"]) == (0, "text")
        with pytest.raises(TimeoutError):
            await other.stream.next("sse.job", timeout=0.3)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_tenants_job_is_no_other_tenants(ada: User, settings: Any) -> None:
    def tenant(request: Any) -> str:
        if request is None:
            return ""
        assert User.objects.exists()  # as one who looks the tenant up
        return str(request.headers.get("X-Tenant", ""))

    settings.SSE_LIVE = {"NAMESPACE": tenant}
    with use_namespace("a"):
        job = await astart_job(owner=ada, key="k")
        assert await afind_job(job.id) is not None
    with use_namespace("b"):
        assert await afind_job(job.id) is None and await afind_job(owner=ada, key="k") is None
        assert (await astart_job(owner=ada, key="k")).is_new
    client = await client_of(ada)
    headers = {"X-Tenant": "a"}
    async with client.stream("/events/", {"channel": job.channel}, headers=headers) as stream:
        page = Page(stream)
        await page.frame()
        job.write("a's")
        while page.text != "a's":
            await page.frame()
        answer = await client.send("sse.job.stop", channel=job.channel, headers=headers)
        assert answer == {"state": "cancelled"}
        await page.until("cancelled")
    for query in ({"channel": job.channel}, {"token": job.token}):
        with pytest.raises(StreamRefused) as refused:
            async with client.stream("/events/", query, headers={"X-Tenant": "b"}):
                pass
        assert refused.value.status == 403


async def test_a_tenant_that_middleware_has_set_for_a_coroutine_is_that_of_its_job(settings: Any) -> None:
    current = Local()
    current.tenant = "a"
    settings.SSE_LIVE = {"NAMESPACE": lambda request: current.tenant}
    job = await astart_job(key="k")
    assert job.namespace == "a"
    found = await afind_job(key="k")
    assert found is not None and found.id == job.id
    current.tenant = "b"
    assert await afind_job(job.id) is None


async def test_a_job_that_nobody_watches_is_cancelled_if_it_says_so() -> None:
    job = await astart_job(cancel_when_alone_seconds=5)
    async with watch(job.token) as page:
        await page.frame()
        cache.delete(f"sse_live.job.{job.id}.watched")  # what a cache loses is said again
        await asyncio.sleep(6)
        assert not job.is_cancelled
    await asyncio.to_thread(_until_cancelled, job)
    found = await afind_job(job.id)
    assert found is not None and found.state == "cancelled"


@pytest.mark.parametrize("fails", [False, True])
async def test_the_connections_of_a_coroutine_are_cared_for_when_it_has_ended(
    ada: User, settings: Any, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Else one that has broken once would fail each job after it."""
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["c"]}
    threads: list[int] = []
    cared_for: list[int] = []
    close = BaseDatabaseWrapper.close_if_unusable_or_obsolete

    def care(self: BaseDatabaseWrapper) -> None:
        cared_for.append(threading.get_ident())
        close(self)

    async def run(job: Job) -> int:
        await User.objects.aget()
        threads.append(await sync_to_async(threading.get_ident)())
        monkeypatch.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", care)
        return 1 // (not fails)

    async with StreamClient().stream("/events/", {"channel": "c"}):
        await astart_job(run=run)
        await until_then(lambda: cared_for)
    assert cared_for[0] == threads[0]


async def test_a_coroutine_runs_on_the_hubs_loop_and_outlives_who_began_it(settings: Any) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["c"]}
    loops: list[Any] = []

    async def run(job: Job) -> dict[str, int]:
        loops.append(asyncio.get_running_loop())
        await job.aprogress(None, translation.get_language())
        for n in range(5):
            await job.awrite(f"{n}")
            await asyncio.sleep(0.02)
        return {"n": 5}

    async with StreamClient().stream("/events/", {"channel": "c"}):
        with translation.override("de"):  # the visitor's
            job = await astart_job(run=run)
        async with watch(job.token) as page:
            data = await page.until("finished")
    assert (page.text, data["result"], loops) == ("01234", {"n": 5}, [asyncio.get_running_loop()])
    assert (data["label"], translation.get_language()) == ("de", settings.LANGUAGE_CODE)


@pytest.mark.parametrize("error", [ValueError, SystemExit])
async def test_a_coroutine_that_fails_on_the_hubs_loop_says_so_in_the_language_of_who_began_it(
    settings: Any, error: type[BaseException]
) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["c"]}

    async def run(job: Job) -> None:
        raise error

    async with StreamClient().stream("/events/", {"channel": "c"}):
        with translation.override("de"):
            job = await astart_job(run=run)
            expected = translation.gettext("This did not work. Please try again.")
        async with watch(job.token) as page:
            assert (await page.until("failed"))["error"] == expected


@pytest.mark.skipif(sys.version_info < (3, 11), reason="whose cancellation it is, is not known")
async def test_a_coroutine_that_awaits_what_it_has_cancelled_has_failed(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["c"]}

    async def run(job: Job) -> None:
        inner = asyncio.ensure_future(asyncio.sleep(3600))
        inner.cancel()
        await inner

    async with StreamClient().stream("/events/", {"channel": "c"}):
        job = await astart_job(run=run)
        async with watch(job.token) as page:
            await page.until("failed")
    assert job.id in caplog.text


async def test_who_waits_for_a_job_by_refresh_keeps_no_place_of_it_taken(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["c"]}
    end, begun = JobStore.end, asyncio.get_running_loop().create_future()

    def end_later(store: JobStore, *arguments: Any) -> Any:
        begun.result().refresh()
        return end(store, *arguments)

    async def run(job: Job) -> str:
        await begun
        await job.afinish("done")
        return "said already"

    running = process_part(Running)
    async with StreamClient().stream("/events/", {"channel": "c"}):
        await until_then(lambda: not running._count)  # of other tests
        monkeypatch.setattr(JobStore, "end", end_later)
        job = await astart_job(run=run)
        assert running._count == 1
        begun.set_result(job)
        await until_then(lambda: not running._count)
    assert (job.state, job.result) == ("finished", "done") and job.id not in caplog.text


@pytest.mark.parametrize("kind", ["locmem.LocMemCache", "db.DatabaseCache"])
async def test_what_runs_on_a_worker_that_shuts_down_is_lost_at_once(
    settings: Any, transactional_db: None, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["c"]}
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{kind}", "LOCATION": "job_cache"}}
    await sync_to_async(call_command)("createcachetable", verbosity=0)
    began = asyncio.Event()

    async def run(job: Job) -> None:
        job.write("begun")
        began.set()
        await asyncio.sleep(3600)

    async with StreamClient().stream("/events/", {"channel": "c"}) as stream:
        job = await astart_job(key="k", run=run)
        await began.wait()
        hub = find_hub(asyncio.get_running_loop())
        assert hub is not None
        hub.shut_down()
        assert (await stream.next()).type == "goodbye"
    writers = process_part(Writers)
    await until_then(lambda: not writers.count)
    found = await afind_job(job.id)
    assert found is not None and (found.state, found.text) == ("lost", "begun")
    assert (await astart_job(key="k")).is_new and "cannot be" not in caplog.text


def test_the_element(rf: Any) -> None:
    from django_sse_live import start_job

    job = start_job(owner=7)
    job.write("<b>\n")
    job.progress(0.5, "<i>")

    def draw(tag: str, **user: Any) -> str:
        request = rf.get("/")
        request.user = type("U", (), {"is_authenticated": True, **user})()
        template = engines["django"].from_string("{% load sse_live %}" + tag * 2)
        return str(template.render({"job": job}, request))

    html = draw("{% sse_live_job job %}", pk=7)
    assert html.count('/sse-live.js"') == 1 and html.count("may-stop") == 2 and 'csrf-token="' in html
    assert "&lt;b&gt;\n</pre>" in html and ">&lt;i&gt;</p>" in html and 'value="0.5"' in html
    assert ">Running…</p>" in html and 'state="running"' in html
    html = draw("{% sse_live_job job %}", pk=8)
    assert "may-stop" not in html and "csrf-token" not in html and "<button" not in html
    assert "may-stop" in draw("{% sse_live_job job stop=True %}", pk=8)
    assert "<button" not in draw("{% sse_live_job job stop=False %}", pk=7)
    assert "sse-live-job" not in draw("{% sse_live_job nothing %}", pk=7)
    job.fail("Too <large>")
    html = draw("{% sse_live_job job %}", pk=7)
    assert ">Failed</p>" in html and 'role="alert">Too &lt;large&gt;</p>' in html
