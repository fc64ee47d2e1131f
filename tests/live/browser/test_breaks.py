"""Every way a connection can break, in a real browser, on the example: the light, and what was missed meanwhile."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.live.browser.drivers import until
from tests.live.browser.network import Network
from tests.runserver import Runserver

# (what broke, seconds until the light was yellow, seconds from the repair until it was green, what came after)
ROWS: list[tuple[str, float, float, str]] = []

WATCH = """
window.lights = [];
window.heard = [];
document.addEventListener("sse:statechange", ({detail}) => lights.push(detail.data.state));
for (const type of ["new_comment", "reset"])
  document.addEventListener(`sse:${type}`, ({detail}) => heard.push(type === "reset" ? type : detail.data.text));
"""


def write(server: Runserver, text: str) -> None:
    """A comment from elsewhere, on a living server."""
    with httpx.Client(base_url=server.url) as visitor:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', visitor.get("/").text)
        assert token
        fields = {"author": "a visitor", "text": text, "csrfmiddlewaretoken": token[1]}
        assert visitor.post("/", data=fields).status_code == 302


def write_to_database(server: Runserver, text: str) -> None:
    """A comment saved while there is no server."""
    code = f"from board.models import Comment; Comment.objects.create(author='a visitor', text={text!r})"
    server.manage("shell", "-c", code)


def until_light(page: Any, state: str) -> float:
    """Seconds until the light is in this state."""
    start = time.monotonic()
    page.locator(f"sse-live[state={state}]").wait_for(timeout=90_000)
    return time.monotonic() - start


def until_nobody_listens(server: Runserver) -> None:
    until(lambda: "Total clients: 0" in server.log.read_text(), 10, "the end of every stream")


def count(page: Any, text: str) -> int:
    matches: int = page.get_by_text(text, exact=True).count()
    return matches


@pytest.fixture
def page(window: Callable[..., Any], network: Network) -> Any:
    context = window(base_url=network.url)
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto("/")
    until_light(page, "connected")
    return page


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Callable[[str, float, float, str], None]]:
    yield lambda *cells: ROWS.append(cells)


def test_the_server_is_killed_and_restarted(page: Any, board: Runserver, row: Callable[..., None]) -> None:
    """What a shell saves meanwhile is in the database, which is the bus: the page is sent it."""
    board.kill()
    yellow = until_light(page, "reconnecting")
    write_to_database(board, "Saved while nobody was there.")
    board.start()
    green = until_light(page, "connected")
    page.get_by_text("Saved while nobody was there.").wait_for()
    write(board, "And one after.")
    page.get_by_text("And one after.").wait_for()
    assert page.evaluate("lights") == ["connected", "reconnecting", "connected"]
    assert page.evaluate("heard") == ["Saved while nobody was there.", "And one after."]
    row("server killed, restarted", yellow, green, "replayed, then live")


def test_the_server_is_restarted_in_good_order(page: Any, board: Runserver, row: Callable[..., None]) -> None:
    assert board.process is not None
    board.signal(signal.SIGTERM)
    yellow = until_light(page, "reconnecting")
    board.process.wait(10)
    board.process = None
    board.start()
    green = until_light(page, "connected")
    write(board, "After the restart.")
    page.get_by_text("After the restart.").wait_for()
    assert page.evaluate("heard") == ["After the restart."]
    row("server restarted", yellow, green, "live, with nothing missed")


def test_the_connection_breaks_and_the_server_lives(
    page: Any, board: Runserver, network: Network, row: Callable[..., None]
) -> None:
    network.cut()
    yellow = until_light(page, "reconnecting")
    write(board, "Said into a broken line.")
    network.mend()
    green = until_light(page, "connected")
    page.get_by_text("Said into a broken line.").wait_for()
    write(board, "And one after.")
    page.get_by_text("And one after.").wait_for()
    assert page.evaluate("lights") == ["connected", "reconnecting", "connected"]
    assert page.evaluate("heard") == ["Said into a broken line.", "And one after."]
    row("network cut and mended", yellow, green, "replayed, then live")


def test_the_server_falls_silent(page: Any, board: Runserver, row: Callable[..., None]) -> None:
    """Stopped, it holds its connections open and says nothing: only the heartbeat monitor can tell."""
    board.signal(signal.SIGSTOP)
    yellow = until_light(page, "reconnecting")
    board.signal(signal.SIGCONT)
    green = until_light(page, "connected")
    write(board, "Awake again.")
    page.get_by_text("Awake again.").wait_for()
    assert page.evaluate("document.querySelector('sse-live').live.stats.reconnects") == {"silent": 1}
    assert page.evaluate("heard") == ["Awake again."]
    row("server stopped (heartbeat 1 s)", yellow, green, "live")


def test_the_browser_goes_offline(page: Any, board: Runserver, network: Network, row: Callable[..., None]) -> None:
    page.context.set_offline(True)
    yellow = until_light(page, "reconnecting")
    before = network.connections
    write(board, "Said while you were away.")
    page.wait_for_timeout(3000)
    assert network.connections == before, "nothing is tried while the browser knows that there is no network"
    page.context.set_offline(False)
    green = until_light(page, "connected")
    page.get_by_text("Said while you were away.").wait_for()
    assert page.evaluate("heard") == ["Said while you were away."]
    row("browser offline, online", yellow, green, "replayed")


def test_the_laptop_sleeps(page: Any, board: Runserver, network: Network, row: Callable[..., None]) -> None:
    """Frozen, the page hears nothing, and no timer of its fires; the network goes, as under a closed lid."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    network.cut()
    write(board, "Said in your sleep.")
    network.mend()
    devtools.send("Page.setWebLifecycleState", {"state": "active"})
    start = time.monotonic()
    page.get_by_text("Said in your sleep.").wait_for()
    green = until_light(page, "connected")
    assert page.evaluate("heard") == ["Said in your sleep."]
    assert count(page, "Said in your sleep.") == 1
    row("page frozen, network cut, resumed", 0, time.monotonic() - start + green, "replayed")


def test_the_page_comes_back_from_the_back_forward_cache(page: Any, board: Runserver, row: Callable[..., None]) -> None:
    page.goto("/login/")
    write(board, "Said behind your back.")
    page.go_back()
    start = time.monotonic()
    page.get_by_text("Said behind your back.").wait_for()
    until_light(page, "connected")
    assert count(page, "Said behind your back.") == 1
    row("away and back", 0, time.monotonic() - start, "there")


def test_a_comment_saved_in_one_tab_appears_in_the_other(page: Any) -> None:
    other = page.context.new_page()
    other.goto("/")
    until_light(other, "connected")
    page.fill("[name=author]", "a visitor")
    page.fill("[name=text]", "Seen from afar.")
    page.click("#write button, form.write button")
    other.get_by_text("Seen from afar.").wait_for()
    page.get_by_text("Seen from afar.").wait_for()
    assert [count(each, "Seen from afar.") for each in (page, other)] == [1, 1]


def test_leaving_the_page_leaves_no_stream_behind(page: Any, board: Runserver) -> None:
    page.goto("/login/")
    until_nobody_listens(board)
