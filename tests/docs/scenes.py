"""What the guides promise, looked at in the project that a newcomer has made by them: over HTTP, or in CHROMIUM."""

from __future__ import annotations

import json
import os
import re
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import OpenerDirector

if TYPE_CHECKING:
    from .newcomer import Newcomer

PATIENCE_SECONDS = 60
USERS = ("otter", "heron")  # the password is the name


@dataclass(frozen=True)
class Guide:
    page: str
    # By the command after which something is looked at; None: after a restart of the server, at the end.
    scenes: Mapping[str | None, Callable[[Newcomer], None]]
    for_others: str | None = None  # what a block says that is for another reader
    typed: str | None = None  # the command that its scene types itself


@contextmanager
def windows(count: int) -> Iterator[list[Any]]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ["CHROMIUM"],
            args=["--no-sandbox"],
            env={**os.environ, "TMPDIR": "/tmp"},  # the path of its socket must be short
        )
        pages = [browser.new_context().new_page() for _ in range(count)]
        for page in pages:
            page.set_default_timeout(PATIENCE_SECONDS * 1000)
        yield pages
        browser.close()


def two_windows(path: str, *, restarts: bool = True) -> Callable[[Newcomer], None]:
    """What is done in one of them is seen in the other, however it comes to hear of it."""

    def scene(newcomer: Newcomer) -> None:
        from playwright.sync_api import expect

        print(f"--- {path}", flush=True)
        url = newcomer.url + path
        with windows(2) as (one, two):
            for window in (one, two):
                window.goto(url)
            rows = two.locator("#comments span")
            before = rows.all_inner_texts()

            def press(button: str, text: str) -> None:
                for window in one.context.pages:
                    window.close()  # to go on in it could break off the page that follows its form
                window = one.context.new_page()
                window.goto(url)
                window.fill("[name=text]", text)
                window.get_by_role("button", name=button).last.click()

            def see(*texts: str) -> None:
                expect(rows).to_have_text([*before, *texts])

            press("Send", "Hello")
            see("Hello")
            press("Change", "Changed")
            see("Changed")
            if restarts:
                two.context.set_offline(True)
                newcomer.restart()
                press("Send", "While it was away")
                two.context.set_offline(False)
                see("Changed", "While it was away")
                press("Delete", "")
                see("Changed")
            press("Delete", "")
            see()

    return scene


def each_of(*scenes: Callable[[Newcomer], None]) -> Callable[[Newcomer], None]:
    def scene(newcomer: Newcomer) -> None:
        for each in scenes:
            each(newcomer)

    return scene


def react(newcomer: Newcomer, url: str = "") -> None:
    """A part of a page follows what is written on the project's own, and goes on after a restart."""
    from playwright.sync_api import expect

    with windows(1) as (window,):
        window.goto(url or newcomer.url)
        for text in ("one", "two"):
            expect(window.get_by_role("status")).to_have_text("connected")
            newcomer.send(newcomer.browser(), text=text)
            expect(window.locator("li", has_text=text).first).to_be_visible()
            if text == "one":
                newcomer.stop("server")
                expect(window.get_by_role("status")).not_to_have_text("connected")
                newcomer.restart()


def single_page(newcomer: Newcomer) -> None:
    bearer = newcomer.printed["signing.dumps"].split()[-1]
    react(newcomer, f"{newcomer.vite_url}/?token={bearer}")


def answer(newcomer: Newcomer) -> None:
    """Who has asked hears the answer grow, and reads it as markup after; somebody else is refused."""
    asker, other = logged_in(newcomer, USERS[0]), logged_in(newcomer, USERS[1])
    newcomer.until(lambda: pieces_heard(newcomer, asker, other) > 1, "an answer comes in pieces")
    links = re.findall(r'href="/(\d+)/"', newcomer.read(asker))
    page = newcomer.read(asker, f"{links[0]}/")
    assert "<strong>hold hands</strong>" in page and "<sse-live-job" not in page, page


def logged_in(newcomer: Newcomer, user: str) -> OpenerDirector:
    browser = newcomer.browser()
    newcomer.send(browser, username=user, password=user)
    return browser


def pieces_heard(newcomer: Newcomer, asker: OpenerDirector, other: OpenerDirector) -> int:
    page = newcomer.send(asker, text="Why?")
    text, pieces, told = "", 0, {"state": "running"}
    stream_url = job_stream(newcomer, page)
    with asker.open(stream_url, timeout=PATIENCE_SECONDS) as stream:
        while told["state"] == "running":
            told = next_of_job(newcomer, stream)
            text = text[: told["offset"]] + told["text"]
            pieces += bool(told["text"])
    assert (told["state"], text) == ("finished", "Otters **hold hands** while they sleep. You asked: Why? ")
    try:
        other.open(stream_url, timeout=60)
    except urllib.error.HTTPError as error:
        assert error.code == 403, error.read()
        return pieces
    raise AssertionError("somebody else hears the answer")


def job_stream(newcomer: Newcomer, page: str) -> str:
    token = re.search(r'<sse-live-job.*?<sse-live\b.*?\btoken="([^"]+)"', page, re.DOTALL)
    assert token, page
    return f"{newcomer.url}/events/?token={token[1]}"


def next_of_job(newcomer: Newcomer, stream: Any) -> dict[str, Any]:
    while True:
        line = stream.readline().decode()
        assert line, newcomer.everything()
        if line.startswith("data: ") and '"offset":' in line:
            told: dict[str, Any] = json.loads(line[6:])
            return told


def upload(newcomer: Newcomer) -> None:
    """A file is imported: its progress is heard, and a page that is loaded later has the rows and how it ended."""
    importer = logged_in(newcomer, USERS[0])
    lines = (newcomer.directory / "lines.txt").read_text()
    page = newcomer.send(importer, file=("lines.txt", lines))
    hear_the_import(newcomer, importer, page)


def command(newcomer: Newcomer) -> None:
    """An import by a process of its own is heard by pages of the server, which was begun anew with the bus."""
    newcomer.restart()
    importer = logged_in(newcomer, USERS[0])
    rows = newcomer.read(importer).count('id="comment-')
    newcomer.start("exec python manage.py import_comments otter lines.txt", "command")
    newcomer.until(lambda: 'state="running"' in newcomer.read(importer), "the page shows the command's job")
    hear_the_import(newcomer, importer, newcomer.read(importer))
    assert newcomer.read(importer).count('id="comment-') > rows


def hear_the_import(newcomer: Newcomer, importer: OpenerDirector, page: str) -> None:
    with importer.open(job_stream(newcomer, page), timeout=PATIENCE_SECONDS) as stream:
        while (told := next_of_job(newcomer, stream))["state"] == "running":
            pass
    count = len((newcomer.directory / "lines.txt").read_text().splitlines())
    assert (told["state"], told["result"]) == ("finished", {"count": count}), told
    page = newcomer.read(importer)
    assert 'state="finished"' in page and page.count('id="comment-') >= count


GUIDES = {
    "answer": Guide("howto/stream-an-answer.md", {"runserver": answer}),
    "progress": Guide("howto/progress.md", {"runserver": upload, "import_comments": command}, typed="import_comments"),
    "htmx4": Guide("howto/htmx.md", {None: each_of(two_windows("/"), two_windows("/fragments/4/"))}, "htmx.org@2"),
    "htmx2": Guide("howto/htmx.md", {None: each_of(two_windows("/"), two_windows("/fragments/2/"))}, "htmx.org@4"),
    "turbo": Guide("howto/turbo.md", {None: each_of(two_windows("/"), two_windows("/source/", restarts=False))}),
    "react": Guide("howto/react.md", {"runserver": react}),
    "spa": Guide("howto/spa.md", {"npx vite": single_page}),
}
