"""What a producer may do, and what becomes of it: start_job(), find_job() and Job, in one process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone, translation
from django.utils.translation import gettext

from django_sse_live import Job, JobOver, afind_job, astart_job, find_job, start_job
from django_sse_live.backends.memory import MemoryBackend
from django_sse_live.checks import check_jobs_cache
from django_sse_live.hub.registry import process_part
from django_sse_live.jobs import running, writers
from django_sse_live.jobs.records import Record, from_unit, name_key, units
from django_sse_live.jobs.store import JobStore
from django_sse_live.jobs.writers import Writers
from tests.jobs.conftest import until


def stored(job: Job) -> Job:
    found = find_job(job.id)
    assert found is not None
    return found


# The start


def test_a_job_is_found_by_its_id_and_by_its_key() -> None:
    job = start_job(owner=7, key="a")
    assert job.is_new and job.state == "running"
    for found in (find_job(job.id), find_job(owner="7", key="a")):
        assert found is not None and found.id == job.id and not found.is_new
    assert find_job(owner=8, key="a") is None and find_job(key="a") is None and find_job("0" * 32) is None


def test_who_starts_a_running_job_joins_it_and_may_not_write() -> None:
    job = start_job(owner=7, key="a")
    joined = start_job(owner=7, key="a")
    assert (joined.id, joined.is_new) == (job.id, False)
    with pytest.raises(PermissionError, match="is_new"):
        joined.write("x")
    assert start_job(owner=8, key="a").is_new and start_job(owner=7).is_new and start_job(owner=7).is_new


def test_after_its_end_a_key_begins_anew_and_find_job_finds_the_newest() -> None:
    first = start_job(key="a")
    first.write("one")
    first.finish()
    second = start_job(key="a")
    assert second.is_new and second.id != first.id and second.text == ""
    second.cancel()
    third = start_job(key="a")
    found = find_job(key="a")
    assert found is not None and found.id == third.id
    assert (stored(first).state, stored(first).text, stored(second).state) == ("finished", "one", "cancelled")


def test_of_many_who_start_one_key_at_one_moment_one_runs() -> None:
    for round in range(5):
        barrier = threading.Barrier(8)

        def start(barrier: threading.Barrier = barrier, key: str = f"k{round}") -> Job:
            barrier.wait()
            return start_job(key=key)

        for _ in range(2):  # the second time, in the place of one that has ended
            with ThreadPoolExecutor(8) as pool:
                jobs = [future.result() for future in [pool.submit(start) for _ in range(8)]]
            assert len({job.id for job in jobs}) == 1
            new = [job for job in jobs if job.is_new]
            assert len(new) == 1
            new[0].finish()


def test_a_lapsed_lease_is_lost_and_the_next_start_is_new_and_ends_the_one_before() -> None:
    job = start_job(key="a")
    job.write("x")
    until(lambda: stored(job).text == "x")
    cache.delete(f"sse_live.job.{job.id}.lease")  # as if its process had been paused for long
    second = start_job(key="a")
    assert second.is_new and second.id != job.id
    until(lambda: job.is_cancelled)
    job.write("dropped")
    assert stored(second).text == "" and stored(job).state == "lost"


def test_a_producer_whose_lease_lapsed_goes_on_where_nobody_took_its_place() -> None:
    job = start_job(key="a")
    cache.delete(f"sse_live.job.{job.id}.lease")
    assert stored(job).state == "lost"
    until(lambda: stored(job).state == "running")
    job.write("on")
    assert job.finish() and stored(job).text == "on"


def test_a_cache_that_loses_everything_gets_it_again() -> None:
    job = start_job(key="a")
    job.write("abc")
    until(lambda: stored(job).text == "abc")
    cache.clear()
    until(lambda: (found := find_job(key="a")) is not None and found.state == "running" and found.text == "abc")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"owner": AnonymousUser()}, "None"),
        ({"key": ""}, "1 to 500"),
        ({"key": "k" * 501}, "1 to 500"),
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"ttl_seconds": "1h"}, "ttl_seconds"),
        ({"cancel_when_alone_seconds": 4}, "cancel_when_alone_seconds"),
    ],
)
def test_bad_arguments_begin_nothing(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        start_job(**arguments)
    assert not cache._cache  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="run"):
        start_job(run="f")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a function of the job"):
        start_job(run=lambda: None)  # type: ignore[arg-type,misc]
    for generator in (yields, ayields):
        with pytest.raises(TypeError, match=r"a generator.*job\.write\(\)"):
            start_job(run=generator)
    with pytest.raises(TypeError, match="key"):
        start_job(key=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an id, or a key"):
        find_job()
    with pytest.raises(TypeError, match=r"such as job\.id, not UUID"):
        find_job(uuid4())  # type: ignore[arg-type]


def yields(job: Job) -> Iterator[str]:
    yield "x"


async def ayields(job: Job) -> AsyncIterator[str]:
    yield "x"


def test_a_cache_that_cannot_hold_jobs_says_so(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    with pytest.raises(ImproperlyConfigured, match="JOBS_CACHE"):
        start_job()


def test_a_cache_that_cannot_keep_a_key_from_running_twice_says_so(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_part(Writers), "_has_warned", False)  # by another test
    path = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": path, "LOCATION": str(tmp_path)}}
    for _ in range(2):
        start_job().finish()
    assert caplog.text.count("'default' is in files") == 1


def test_a_cache_with_little_room_says_so_before_jobs_push_each_other_out(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_part(Writers), "_has_warned", False)  # by another test
    locmem = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "small"}
    settings.CACHES = {"default": {**locmem, "OPTIONS": {"MAX_ENTRIES": 20}}}
    for _ in range(10):
        start_job().finish()
    for _ in range(5):
        start_job()
    assert "MAX_ENTRIES" not in caplog.text
    for _ in range(3):
        start_job()
    assert caplog.text.count("'default' has room for 20 entries") == 1


@pytest.mark.parametrize(
    ("cache_path", "problem"),
    [("dummy.DummyCache", "E011"), ("locmem.LocMemCache", "E012"), ("db.DatabaseCache", "W017")],
)
def test_checks_of_the_cache(settings: Any, cache_path: str, problem: str) -> None:
    pytest.importorskip("channels")
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{cache_path}", "LOCATION": "table"}}
    settings.SSE_LIVE = {"JOBS_CACHE": "default"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MemoryBackend, "reaches_other_processes", True)
        assert [message.id for message in check_jobs_cache(None)] == [f"sse_live.{problem}"]
    settings.SSE_LIVE = {}
    assert check_jobs_cache(None) == []


def test_a_job_does_not_begin_in_a_transaction_of_the_database_that_has_its_cache(
    settings: Any, transactional_db: None
) -> None:
    """It would be known to nobody until the commit, and the thread that writes its text would wait for that, too."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "job_cache"}}
    call_command("createcachetable", verbosity=0)
    store, record = JobStore("default"), Record("5f" * 16, "", "7", 60, None, "name")
    begun: list[str | None] = []
    with transaction.atomic():
        with pytest.raises(RuntimeError, match=r"'default'.*on_commit"):
            start_job(owner=7, key="a")
        transaction.on_commit(lambda: begun.append(store.claim(record, None)))
    assert begun != [None] and find_job(owner=7, key="a") is None
    found = find_job(record.id)
    assert found is not None and found.state == "running"
    with transaction.atomic(), pytest.raises(RuntimeError, match="on_commit"):
        found.take()


def test_of_two_who_start_a_key_whose_last_job_has_expired_one_runs(settings: Any, transactional_db: None) -> None:
    """Wherever the second comes between two queries of the first: Django's database cache deletes what it finds
    expired by its key alone, though another process has added it anew meanwhile."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "job_cache"}}
    call_command("createcachetable", verbosity=0)
    store = JobStore("default")

    def begin(id: str) -> bool:
        before = store.current("name")
        return before is None and store.claim(Record(id * 32, "", "7", 60, None, "name"), None) is not None

    for moment in range(100):
        cache.clear()
        cache.set(name_key("name"), "c" * 32)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE job_cache SET expires = %s", ["2000-01-01 00:00:00"])
        second: list[bool] = []
        queries = 0

        def interrupt(execute: Any, *query: Any, moment: int = moment, second: list[bool] = second) -> Any:
            nonlocal queries
            result = execute(*query)
            queries += 1
            if queries > moment and not second and not connection.in_atomic_block:
                second.append(False)
                second[0] = begin("b")
            return result

        with connection.execute_wrapper(interrupt):
            first = begin("a")
        if not second:
            break
        assert [first, *second].count(True) == 1, moment
        assert store.current("name") == ("a" if first else "b") * 32
    assert moment > 5


# The text


def test_text_and_progress_are_stored_soon_and_at_the_end_at_once() -> None:
    job = start_job()
    job.write("Hello ")
    job.progress(0.4, "Parsing")
    until(lambda: stored(job).text == "Hello ")
    found = stored(job)
    assert (found.state, found.fraction, found.label) == ("running", 0.4, "Parsing")
    job.write("world")
    assert job.finish({"url": "/7/"})
    found = stored(job)
    assert (found.state, found.text, found.result) == ("finished", "Hello world", {"url": "/7/"})
    assert (job.state, job.text, job.result) == ("finished", "Hello world", {"url": "/7/"})


def test_half_characters() -> None:
    job = start_job()
    for text in ("a\0", "\ud83d", "\ude00b", "\ud83d", "x", "\ude00", "\ud83d"):
        job.write(text)
    job.finish()
    assert stored(job).text == "a\ufffd😀b\ufffdx\ufffd\ufffd"


def test_offsets_are_utf16_code_units() -> None:
    assert (units("aä😀"), from_unit("a😀b", 3), from_unit("abc", 1)) == (4, "b", "bc")


def test_what_may_not_be_written_changes_nothing(settings: Any) -> None:
    settings.SSE_LIVE = {"JOB_TEXT_MAX_BYTES": 10}
    job = start_job()
    job.write("12345678")
    with pytest.raises(ValueError, match="JOB_TEXT_MAX_BYTES"):
        job.write("äö")
    job.write("90")
    with pytest.raises(TypeError, match="bytes"):
        job.write(b"x")  # type: ignore[arg-type]
    for fraction in (1.01, -0.1, float("nan"), True, "half"):
        with pytest.raises(ValueError, match="0 to 1"):
            job.progress(fraction)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="200"):
        job.progress(0.5, "x" * 201)
    with pytest.raises(TypeError, match=r"result of a job is not JSON-able.*object"):
        job.finish(object())
    with pytest.raises(ValueError, match="result"):
        job.finish("x" * 70_000)
    with pytest.raises(ValueError, match="message"):
        job.fail("x" * 2001)
    assert (job.state, job.text, job.fraction, job.label) == ("running", "1234567890", None, "")


# The end


def test_the_first_end_wins_and_later_ones_change_nothing() -> None:
    job = start_job()
    job.write("x")
    assert job.finish(1)
    assert stored(job).cancel() is False
    for act in (lambda: job.write("y"), lambda: job.progress(1), lambda: job.fail("no"), lambda: job.finish(2)):
        with pytest.raises(JobOver, match="finished"):
            act()
    found = stored(job)
    assert (found.state, found.text, found.result, job.is_cancelled) == ("finished", "x", 1, False)


def test_fail_shows_what_it_was_given() -> None:
    job = start_job()
    job.fail("The file is too large.")
    assert (stored(job).state, stored(job).error) == ("failed", "The file is too large.")


def test_who_is_stopped_knows_within_a_second_before_the_first_token_and_between_two() -> None:
    for texts in ([], ["one"]):
        job = start_job()
        for text in texts:
            job.write(text)
        assert stored(job).cancel()
        assert stored(job).state == "cancelled"
        until(lambda job=job: job.is_cancelled)  # type: ignore[misc]
        job.write("dropped")
        job.progress(0.5)
        assert job.finish({"a": 1}) is False and job.fail("no") is False
        found = stored(job)
        assert (found.state, found.text, found.result) == ("cancelled", "".join(texts), None)


def test_what_was_written_before_the_producer_heard_of_the_stop_is_kept() -> None:
    job = start_job()
    stored(job).cancel()
    job.write("late")
    until(lambda: job.is_cancelled and stored(job).text == "late")
    job.write("dropped")
    assert job.text == "late"


def test_a_stop_that_races_with_the_end_has_one_winner() -> None:
    for _ in range(20):
        job = start_job()
        stopper = stored(job)
        with ThreadPoolExecutor(2) as pool:
            cancelled, finished = pool.submit(stopper.cancel), pool.submit(job.finish)
        assert cancelled.result() != finished.result()
        assert stored(job).state == ("finished" if finished.result() else "cancelled")


def test_an_end_that_the_cache_does_not_take_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    job = start_job()
    job.write("x")
    with monkeypatch.context() as patched:

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("away")

        patched.setattr(type(cache._connections["default"]), "add", fail)  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="away"):
            job.finish()
    assert job.state == "running"
    job.write("y")
    assert job.finish() and stored(job).text == "xy"


def test_who_refreshes_a_job_while_its_end_is_stored_leaves_it_to_its_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    job = start_job()
    end = JobStore.end

    def end_later(store: JobStore, *arguments: Any) -> Any:
        assert job.refresh().state == "running"
        return end(store, *arguments)

    monkeypatch.setattr(JobStore, "end", end_later)
    job.write("x")
    assert job.finish({"n": 1})
    assert (job.state, job.text, job.result) == ("finished", "x", {"n": 1})
    with pytest.raises(JobOver, match="finished"):
        job.write("y")


def test_an_end_that_the_cache_takes_without_an_answer_stands_and_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    job = start_job()
    caches = type(cache._connections["default"])  # type: ignore[attr-defined]
    add = caches.add

    def take(*arguments: Any, **named: Any) -> None:
        add(*arguments, **named)
        raise OSError("no answer")

    with process_part(Writers)._rounds:  # the gathering thread does not find it meanwhile
        with monkeypatch.context() as patched:
            patched.setattr(caches, "add", take)
            with pytest.raises(OSError, match="no answer"):
                job.finish({"n": 1})
        assert job.finish({"n": 1})
    assert (stored(job).state, stored(job).result) == ("finished", {"n": 1})


def test_a_cache_whose_client_sends_again_what_was_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time it is there already: add() returns False for its own entry."""
    caches = type(cache._connections["default"])  # type: ignore[attr-defined]
    add = caches.add
    monkeypatch.setattr(caches, "add", lambda *given, **named: add(*given, **named) and False)
    job = start_job(key="a")
    assert job.is_new and stored(job).state == "running"
    other = start_job(key="a")
    assert not other.is_new and other.id == job.id
    assert job.finish()
    again = start_job(key="a")
    assert again.is_new and again.id != job.id and stored(again).cancel()


def test_a_start_that_the_cache_takes_without_an_answer_leaves_no_job_that_seems_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caches = type(cache._connections["default"])  # type: ignore[attr-defined]
    add = caches.add

    def take(*arguments: Any, **named: Any) -> None:
        add(*arguments, **named)
        raise OSError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(caches, "add", take)
        with pytest.raises(OSError, match="no answer"):
            start_job(key="a")
    job = start_job(key="a")
    assert job.is_new
    assert not start_job(key="a").is_new


def test_an_expired_job() -> None:
    job = start_job(ttl_seconds=1)
    found = stored(job)
    job.finish()
    until(lambda: find_job(job.id) is None)
    assert found.refresh().state == "expired" and found.cancel() is False


def test_a_running_job_does_not_expire_though_it_is_silent() -> None:
    job = start_job(key="a", ttl_seconds=1)
    until(lambda: job._writer is not None and job._writer.renewed_at > job._writer.stored_at + 1.5)
    assert start_job(key="a").id == job.id and stored(job).state == "running"


def test_a_state_that_the_cache_does_not_take_costs_no_lease_and_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a Redis that is full, or a memcached for which it is too large."""
    monkeypatch.setattr(writers, "LEASE_RENEW_SECONDS", 0.1)
    job, other = start_job(), start_job()
    renewed: set[str] = set()

    def put(self: JobStore, records: Any) -> None:
        raise OSError("OOM command not allowed when used memory > 'maxmemory'")

    monkeypatch.setattr(JobStore, "put", put)
    monkeypatch.setattr(JobStore, "renew", lambda self, record, **_: renewed.add(record.id))
    job.write("x")
    until(lambda: process_part(Writers)._has_failed)
    renewed.clear()
    until(lambda: renewed == {job.id, other.id})
    stored(other).cancel()
    until(lambda: other.is_cancelled)


# Hands


def test_the_right_to_write_moves() -> None:
    job = start_job(owner=7, key="a")
    taken = stored(job).take()
    taken.write("mine")
    until(lambda: job._writer is not None and job._writer.over)
    with pytest.raises(JobOver, match="another writer"):
        job.write("not any more")
    assert not job.is_cancelled
    taken.finish({"n": 1})
    assert (stored(job).state, stored(job).text) == ("finished", "mine")
    assert job.refresh() is job and (job.state, job.text, job.result) == ("finished", "mine", {"n": 1})
    with pytest.raises(JobOver, match="another writer"):
        job.write("not any more")
    with pytest.raises(JobOver, match="finished"):
        stored(job).take()


def test_who_took_a_job_and_ended_it_at_once_keeps_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    job = start_job()
    here, there = process_part(Writers), Writers()
    with here._rounds:  # this process has not stored yet what it says before the task begins
        job.progress(0, "Queued")
        monkeypatch.setattr("django_sse_live.jobs.job.process_part", lambda kind: there)
        taken = stored(job).take()
        taken.write("mine")
        taken.progress(1, "Done")
        taken.finish()
    until(lambda: job._writer is not None and job._writer.over)
    assert (stored(job).state, stored(job).text, stored(job).label) == ("finished", "mine", "Done")


def test_a_process_that_ends_gives_up_no_job_that_another_has_just_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    job = start_job()
    here, there = process_part(Writers), Writers()
    with here._rounds:  # it has not seen yet that the job is taken
        monkeypatch.setattr("django_sse_live.jobs.job.process_part", lambda kind: there)
        taken = stored(job).take()
        here.abandon()
        assert stored(job).state == "running"
        assert job.is_cancelled and not here._writers, "nothing is left for its thread to do"
    taken.finish()
    assert stored(job).state == "finished"


def test_a_job_that_has_text_is_not_taken() -> None:
    job = start_job()
    job.write("x")
    until(lambda: stored(job).text)
    with pytest.raises(ValueError, match="begun by another"):
        stored(job).take()


# run=


def test_the_connections_of_a_coroutine_without_a_hub_are_cared_for_when_it_has_ended(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    cared_for: list[int] = []

    def use() -> None:
        connection.ensure_connection()
        used.append(threading.get_ident())
        monkeypatch.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", care)

    def care(self: BaseDatabaseWrapper) -> None:
        cared_for.append(threading.get_ident())

    async def run(job: Job) -> None:
        await sync_to_async(use)()

    start_job(run=run)
    until(lambda: cared_for)
    assert cared_for[0] == used[0]


def test_a_function_runs_in_a_thread_and_what_it_returns_is_the_result() -> None:
    job = start_job(run=lambda job: job.write("x") or {"n": 1})
    until(lambda: job.state == "finished")
    assert (stored(job).text, stored(job).result) == ("x", {"n": 1})


def test_what_it_raises_is_logged_and_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def run(job: Job) -> None:
        raise RuntimeError("password is 123")

    job = start_job(run=run)
    until(lambda: job.state == "failed")
    assert "123" not in stored(job).error and stored(job).error and "password is 123" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, KeyboardInterrupt])
def test_a_function_that_exits_its_thread_has_failed_too(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def run(job: Job) -> None:
        job.write("x")
        raise error

    async def arun(job: Job) -> None:
        run(job)

    jobs = [start_job(run=run), start_job(run=arun)]
    for job in jobs:
        until(lambda job=job: job.state == "failed")  # type: ignore[misc]
        assert stored(job).text == "x" and job.id in caplog.text


class Writes:
    async def __call__(self, job: Job, text: str = "x") -> str:
        await job.awrite(text)
        return "done"


@pytest.mark.parametrize(
    "run", [Writes(), lambda job: Writes()(job), partial(Writes(), text="x")], ids=["object", "lambda", "partial"]
)
def test_any_callable_of_a_coroutine_runs(run: Any) -> None:
    job = start_job(run=run)
    until(lambda: job.state == "finished")
    assert (stored(job).text, stored(job).result) == ("x", "done")


def test_a_coroutine_runs_where_no_loop_does() -> None:
    async def run(job: Job) -> None:
        await asyncio.sleep(0)
        await job.awrite("x")
        await job.afinish("done")

    job = start_job(run=run)
    until(lambda: job.state == "finished")
    assert (stored(job).text, stored(job).result) == ("x", "done")


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "coroutine"])
def test_it_speaks_the_language_of_the_visitor_who_began_it_and_has_their_time_zone(is_async: bool) -> None:
    def run(job: Job) -> None:
        job.progress(None, f"{gettext('Yes')} {timezone.get_current_timezone_name()}")
        raise ValueError

    async def arun(job: Job) -> None:
        run(job)

    with translation.override("de"), timezone.override("Asia/Tokyo"):
        job = start_job(run=arun if is_async else run)
        failed = gettext("This did not work. Please try again.")
    until(lambda: job.state == "failed")
    assert (stored(job).label, stored(job).error) == ("Ja Asia/Tokyo", failed)


def test_who_joins_does_not_run_it_and_a_place_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "RUNNING_MAX", 1)
    go, ran = threading.Event(), []

    def run(job: Job) -> None:
        ran.append(job.id)
        go.wait(60)

    job = until(lambda: _start_or_none("a", run))  # once what ran before has left its place
    with pytest.raises(RuntimeError, match="1 jobs run"):
        start_job(key="b", run=run)
    assert find_job(key="b") is None
    go.set()
    until(lambda: job.state == "finished")
    second = until(lambda: _start_or_none("c", run))
    until(lambda: second.state == "finished")
    assert ran == [job.id, second.id]


@pytest.mark.parametrize("name", ["sse-live-jobs", "sse-live-job"])
def test_where_no_thread_can_be_started_for_now_nothing_has_begun_and_later_ones_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(running, "RUNNING_MAX", 1)
    until(lambda: not any(thread.name == name for thread in threading.enumerate()))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="can't start"):
            until(lambda: start_job(key="a", run=lambda job: None))
    assert (found := find_job(key="a")) is None or found.state == "lost"
    job = start_job(run=lambda job: job.write("x"))
    until(lambda: job.state == "finished")


def test_where_no_thread_can_be_started_jobs_of_a_loop_that_ends_are_given_up_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name == "sse-live-job-end":
            raise RuntimeError("can't start new thread")
        start(thread)

    job = start_job()
    monkeypatch.setattr(threading.Thread, "start", fails)
    running._abandon({job.writer})
    assert job.refresh().state == "lost"


def _start_or_none(key: str, run: Any) -> Job | None:
    try:
        return start_job(key=key, run=run)
    except RuntimeError:
        return None


async def test_the_async_twins() -> None:
    job = await astart_job(owner=7, key="a")
    await job.awrite("x")
    await job.aprogress(0.5, "half")
    found = await afind_job(owner=7, key="a")
    assert found is not None and await found.acancel()
    assert await job.afail("no") is False
    assert (await found.arefresh()).state == "cancelled"


def test_a_long_job_fills_no_query_log_of_debug(
    transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache in a database is written twice a second, each time with the whole text."""
    settings.DEBUG = True
    monkeypatch.setattr(writers, "STORE_SECONDS", 0.0)
    logged: list[int] = []
    put = JobStore.put

    def put_in_database(self: JobStore, records: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            logged.append(len(connection.queries_log))
            connection.cursor().execute("SELECT 1")
        put(self, records)

    monkeypatch.setattr(JobStore, "put", put_in_database)
    job = start_job()
    for times in range(1, 4):
        job.write("x")
        until(lambda times=times: len(logged) >= times)
    assert set(logged) == {0}
    job.finish()
