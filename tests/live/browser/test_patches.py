"""Patches, in three engines: what they do to a page, and that a page is right after any history."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.browser import histories
from tests.live.browser.drivers import until
from tests.live.browser.test_suite import ENGINES, driven
from tests.runserver import Runserver


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runserver]:
    """A site whose pages are live."""
    directory = tmp_path_factory.mktemp("pages")
    server = Runserver("tests.live.browser.pages.settings", directory, PAGES_DATABASE=str(directory / "db.sqlite3"))
    server.manage("migrate", "--verbosity=0", "--run-syncdb")
    server.start()
    yield server
    server.kill()


def report_of(server: Runserver, run: str, seconds: float) -> dict:
    """What the page of this run has found out."""
    deadline = time.monotonic() + seconds
    while True:
        reports = httpx.get(f"{server.url}/report/").json()["reports"]
        if found := [each for each in reports if each["run"] == run]:
            return found[0]
        assert time.monotonic() < deadline, "The page did not come to its end."
        time.sleep(0.5)


@pytest.mark.parametrize("engine", ENGINES)
def test_patches_do_what_they_say(
    engine: str, pages: Runserver, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = uuid.uuid4().hex
    with driven(engine, f"{pages.url}/suite/?run={run}", tmp_path, request):
        report = report_of(pages, run, 300)
    print(report["agent"])
    for result in report["results"]:
        print(f"{result['ms']:6} ms  {result['name']}: {result['error'] or 'ok'}")
    assert report["results"]
    assert [result for result in report["results"] if result["error"]] == []


@pytest.mark.parametrize("path", ["/board/", "/cached/"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_page_is_right_after_any_history(
    engine: str, path: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The long form: python -m tests.live.browser.histories, or SSE_LIVE_HISTORY_ACTS=1000."""
    seed = int.from_bytes(os.urandom(3), "big")
    print(f"seed {seed}")
    acts = int(os.environ.get("SSE_LIVE_HISTORY_ACTS", "40"))
    history = histories.play(lambda url: driven(engine, url, tmp_path, request), tmp_path, path, acts, seed)
    assert history.compared


def test_a_composition_goes_on(chromium: Any, pages: Runserver) -> None:
    """An input method's text, under way while the row around it is replaced, its region refreshed and reset."""
    page = chromium.new_page()
    page.goto(f"{pages.url}/suite/?only=nothing")
    until(lambda: page.evaluate("document.title") == "done", 10, "the suite's end")
    page.evaluate("""async () => {
        const { patch } = await import("/static/django_sse_live/sse-live-patch.js");
        const { SSELive } = await import("/static/django_sse_live/sse-live.js");
        const load = () => import("/static/django_sse_live/sse-live-refresh.js");
        const policy = trustedTypes.createPolicy("test", { createHTML: (html) => html });
        const html = (n) => `<div id="d" data-sse-live data-n="${n}"><p>${n}</p>
            <ul id="l"><li><input name="t"></li></ul></div>`;
        document.querySelector("#place").innerHTML = policy.createHTML(html(0));
        const host = document.createElement("div");
        host.live = { constructor: SSELive, spreadMs: 0, stats: { connects: 2 } };
        document.body.append(host);
        let number = 0;
        window.change = (change) => patch({ patch: change }, `e:1-${++number}`, host, load);
        window.fetch = async (url) => Object.defineProperty(
            new Response(`<sse-live last-event-id="e:1-${number}"></sse-live>${html(number)}`), "url", { value: url });
        window.html = html;
        window.events = [];
        for (const type of ["compositionstart", "compositionend", "blur"])
            document.querySelector("#place input").addEventListener(type, () => events.push(type));
    }""")
    devtools = page.context.new_cdp_session(page)
    page.focus("#place input")
    for text in ("に", "にほ", "にほん"):
        devtools.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})
        page.evaluate("change({ action: 'replace', target: 'd', html: html('patched') })")
        page.evaluate("change({ action: 'refresh', target: 'd' })")
        until(lambda: page.evaluate("document.querySelector('#d').dataset.n") != "patched", 10, "the refresh")
        page.evaluate("change()")
        page.evaluate("change({ action: 'append', target: 'l', html: `<li id='n${events.length}'>more</li>` })")
    devtools.send("Input.insertText", {"text": "日本"})
    assert page.input_value("#place input") == "日本"
    assert page.evaluate("events") == ["compositionstart", "compositionend"]
    page.close()


def test_a_page_that_insists_is_reloaded_once_for_each_reset(chromium: Any, tmp_path: Path) -> None:
    from playwright.sync_api import Error

    def seen(expression: str) -> Any:
        """None in the midst of a navigation."""
        try:
            return page.evaluate(expression)
        except Error:
            return None

    def loaded() -> float:
        until(lambda: seen("document.querySelector('sse-live')?.live?.state") == "connected", 30, "connected")
        at: float = page.evaluate("performance.timeOrigin")
        return at

    page = chromium.new_page()
    with histories.site(tmp_path) as server:
        # Also where the page always begins too far back: one reload, then its regions are fetched.
        page.goto(f"{server.url}/board/?reset=reload&since=0old:1-0")
        until(lambda: seen("performance.getEntriesByType('navigation')[0]?.type") == "reload", 30, "a reload")
        first = loaded()
        page.wait_for_timeout(3_000)
        assert page.evaluate("performance.timeOrigin") == first
        page.goto(f"{server.url}/board/?reset=reload")
        for _ in range(2):
            before = loaded()
            server.kill()
            server.start()
            until(lambda before=before: seen("performance.timeOrigin") not in (None, before), 30, "a reload")
        before = loaded()
        # What is typed is not lost: the regions are fetched instead.
        page.fill("#typing", "half a sentence")
        server.kill()
        server.manage(
            "shell", "-c", "from tests.live.browser.pages.models import *; Note.objects.create(text='new', list='b')"
        )
        server.start()
        until(lambda: "new" in page.inner_text("#list-b"), 30, "the region")
        assert (page.evaluate("performance.timeOrigin"), page.input_value("#typing")) == (before, "half a sentence")
    page.close()
