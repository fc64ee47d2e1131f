"""Jobs in real pages, in three engines: each shows what was written, whatever happens to its network and server."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.backends.redis_process import RedisProcess
from tests.live.browser import jobs
from tests.live.browser.drivers import until
from tests.live.browser.test_suite import ENGINES, driven
from tests.live.browser.work.producer import text_of
from tests.runserver import Runserver


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runserver]:
    """A site of one process, which does the work too."""
    with jobs.site(tmp_path_factory.mktemp("work")) as server:
        yield server


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


def begin(server: Runserver, key: str, count: int = 100, rate: float = 100) -> dict[str, str]:
    order = {"key": key, "count": count, "rate": rate}
    job: dict[str, str] = httpx.post(f"{server.url}/start/", json=order).raise_for_status().json()
    return job


@pytest.fixture(params=ENGINES)
def browser(request: pytest.FixtureRequest, work: Runserver, tmp_path: Path) -> Iterator[jobs.Browser]:
    browser = jobs.Browser(work.url)
    with driven(request.param, browser.blank, tmp_path, request):
        print(browser.wait()["agent"])
        yield browser
    browser.end()


@pytest.mark.needs("redis")
@pytest.mark.parametrize("engine", ENGINES)
def test_every_page_shows_what_was_written(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The long form: python -m tests.live.browser.jobs, or SSE_LIVE_JOB_MOMENTS=300."""
    seed = int.from_bytes(os.urandom(3), "big")
    print(f"seed {seed}")
    moments = int(os.environ.get("SSE_LIVE_JOB_MOMENTS", "6"))
    answers = jobs.play(lambda url: driven(engine, url, tmp_path, request), tmp_path, moments, seed)
    assert answers.pages


@pytest.mark.parametrize("options", ["", "&share", "&alone"])
def test_two_jobs_in_several_elements_and_tabs(browser: jobs.Browser, work: Runserver, key: str, options: str) -> None:
    keys = {begin(work, each, rate=60)["id"]: each for each in (key, f"{key} too")}
    browser.open(*keys, options=options)
    for act in ("twin", "tab", "move", "twin"):
        browser.do(act)
    shown = browser.settled("finished")
    assert len(shown) == 6
    for each in shown:
        jobs.assert_shows([each], text_of(keys[each["id"]], 100))
        assert each["said"] == "Finished" and not each["streams"]
    browser.do("reload")
    assert {each["shown"] for each in browser.settled("finished")} == {text_of(each, 100) for each in keys.values()}


def test_stop(browser: jobs.Browser, work: Runserver, key: str) -> None:
    job = begin(work, key, count=100_000, rate=50)
    browser.open(job["id"])
    browser.do("tab")
    browser.do("stop")
    shown = browser.settled("cancelled")
    assert {each["said"] for each in shown} == {"Stopped"}

    def written() -> str:
        text: str = httpx.get(f"{work.url}/written/", params={"job": job["id"]}).json()["text"]
        return text

    def is_whole() -> bool:
        return {each["text"] for each in browser.settled("cancelled")} == {written()}

    until(is_whole, 20, "the last words")
    assert written() and text_of(key, 100_000).startswith(written())
    browser.do("reload")
    until(is_whole, 20, "the last words, after a reload")


def test_an_element_that_comes_by_a_patch_or_as_markup(browser: jobs.Browser, work: Runserver, key: str) -> None:
    job = begin(work, key)
    browser.open()
    browser.do("live")
    httpx.post(f"{work.url}/patch/", json={"job": job["id"]}).raise_for_status()
    browser.do("fetch", url=f"/element/?job={job['id']}")
    shown = browser.settled("finished", count=2)
    jobs.assert_shows(shown, text_of(key, 100))


def test_a_region_that_is_fetched_anew_leaves_the_job_alone(browser: jobs.Browser, work: Runserver, key: str) -> None:
    job = begin(work, key)
    browser.open(job["id"])
    browser.do("mark")
    for _ in range(5):
        httpx.post(f"{work.url}/refresh/").raise_for_status()
        time.sleep(0.1)
    (shown,) = browser.settled("finished")
    jobs.assert_shows([shown], text_of(key, 100))
    assert shown["marked"]


def test_a_script_watches_without_an_element(browser: jobs.Browser, work: Runserver, key: str) -> None:
    for options in ("", "&alone"):
        job = begin(work, f"{key}{options}")
        browser.open(options=options)
        told = browser.do("watch", **job)
        assert told == {"text": text_of(f"{key}{options}", 100), "result": {"count": 100}, "progress": 1}


@pytest.mark.needs("redis")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_producer_that_is_killed_is_lost_on_every_page(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with RedisProcess() as redis, jobs.site(tmp_path, redis.url) as server:
        browser = jobs.Browser(server.url)
        with driven(engine, browser.blank, tmp_path, request):
            browser.wait()
            producer = jobs.Producer(server, "killed", count=100_000, rate=100)
            browser.open(producer.job)
            for act in ("tab", "twin"):
                browser.do(act)
            browser.settled("running")
            began = time.monotonic()
            producer.kill()
            shown = browser.settled("lost", seconds=90)  # the lease has 18; a slow machine's browser says it late
            print(f"lost after {time.monotonic() - began:.1f} s")
        browser.end()
    assert {each["said"] for each in shown} == {"Interrupted"} and len(shown) == 3


def test_who_joins_at_the_end_gets_the_text_once(work: Runserver, key: str) -> None:
    count = 2_000
    text = text_of(key, count)
    job = begin(work, key, count=count + 1, rate=1_000)
    got, length = 0, 0
    until(
        lambda: len(httpx.get(f"{work.url}/written/", params={"job": job["id"]}).json()["text"]) >= len(text),
        30,
        "the end",
    )
    with httpx.stream(
        "GET", f"{work.url}/events/", params={"token": job["token"], "format": "envelope"}, timeout=20
    ) as answer:
        for line in answer.iter_lines():
            got += len(line.encode()) + 1
            if '"sse.job"' in line:
                length = json.loads(line.removeprefix("data: "))["data"]["length"]
                break
    assert length >= len(text.encode("utf-16-le")) // 2
    print(f"{got} bytes for a text of {len(text.encode())}")
    assert got <= 1.05 * len(text.encode()) + 1024
    # Who loads the page after that gets it in the page, and opens no stream.
    until(
        lambda: "Finished" in (page := httpx.get(f"{work.url}/", params={"job": job["id"], "alone": ""}).text) and page,
        30,
        "the end",
    )
    page = httpx.get(f"{work.url}/", params={"job": job["id"], "alone": ""}).text
    assert "<sse-live\n" not in page
