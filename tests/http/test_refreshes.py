"""Pages that fetch themselves anew wait for each other, and for nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_sse_live.asgi import live_application
from django_sse_live.backends import get_backend
from django_sse_live.http import refreshes
from django_sse_live.http.handoff import HANDOFF
from tests.live.harness import until


class Site:
    """Draws no page before it is told to."""

    def __init__(self) -> None:
        self.drawing: list[str] = []
        self.most = 0
        self.may_draw = asyncio.Event()
        self.statuses: dict[str, int] = {}
        self.positions: dict[str, str | None] = {}
        self._application: Any = live_application(self._draw)

    async def _draw(self, scope: Any, receive: Any, send: Any) -> None:
        self.drawing.append(scope["path"])
        self.positions[scope["path"]] = scope["extensions"][HANDOFF].position
        self.most = max(self.most, len(self.drawing))
        await self.may_draw.wait()
        self.drawing.remove(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<ol>"})

    def ask(
        self, path: str, address: str = "192.0.2.1", *, is_refresh: bool = True, has_body: bool = False
    ) -> asyncio.Task[None]:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": has_body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.statuses[path] = message["status"]

        headers = [(b"accept", b"text/html"), *([(b"sse-live", b"refresh")] if is_refresh else [])]
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (address, 50000)}
        return asyncio.ensure_future(self._application(scope, receive, send))


@pytest.fixture
def holds_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, a page keeps its place until it is drawn."""
    monkeypatch.setattr(refreshes, "REFRESH_SECONDS", 600)


@pytest.mark.usefixtures("holds_places")
async def test_pages_are_drawn_one_after_the_other_and_other_requests_do_not_wait() -> None:
    site = Site()
    pages = [site.ask(f"/{number}/", f"192.0.2.{number}") for number in range(20)]
    await until(lambda: site.drawing == ["/0/"])
    other = site.ask("/other/", is_refresh=False)
    await until(lambda: "/other/" in site.drawing)
    site.may_draw.set()
    await asyncio.gather(other, *pages)
    assert set(site.statuses.values()) == {200} and len(site.statuses) == 21
    assert site.most == 2


@pytest.mark.usefixtures("holds_places")
async def test_the_pages_of_one_address_wait_in_turn_with_those_of_others() -> None:
    site = Site()
    many = [site.ask(f"/{number}/") for number in range(20)]
    await until(lambda: site.drawing == ["/0/"])
    one = site.ask("/one/", "192.0.2.2")
    await asyncio.sleep(0)
    site.may_draw.set()
    await one
    assert len(site.statuses) < 10  # the first, each in turn, and what went on before this task did
    await asyncio.gather(*many)


@pytest.mark.usefixtures("holds_places")
async def test_a_request_with_a_body_takes_no_place() -> None:
    """Its body may never come."""
    site = Site()
    others = [site.ask(f"/{number}/", f"192.0.2.{number}", has_body=True) for number in range(10, 20)]
    await until(lambda: len(site.drawing) == 10)
    page = site.ask("/")
    await until(lambda: "/" in site.drawing)
    site.may_draw.set()
    await asyncio.gather(page, *others)


async def test_a_page_that_takes_long_does_not_hold_up_the_others() -> None:
    site = Site()
    pages = [site.ask(f"/{number}/", f"192.0.2.{number}") for number in range(5)]
    await until(lambda: len(site.drawing) == 5)
    site.may_draw.set()
    await asyncio.gather(*pages)


async def test_pages_that_all_take_long_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshes, "REFRESH_SECONDS", 0.001)
    site = Site()
    pages = [site.ask(f"/{number}/", f"192.0.2.{number}") for number in range(20)]
    await until(lambda: len(site.drawing) >= 8)
    await asyncio.sleep(0.05)  # time for more of them to begin, if they could
    site.may_draw.set()
    await asyncio.gather(*pages)
    assert len(site.statuses) == 20 and site.most == 8


@pytest.mark.usefixtures("holds_places")
@pytest.mark.parametrize("later", ["e:2-0", None])
async def test_a_page_that_waited_begins_with_what_is_known_when_it_is_drawn(
    later: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or with what was known before, where the bus does not say it any more: a page must not begin after its query."""
    known: list[str | None] = ["e:1-0"]
    monkeypatch.setattr(get_backend(), "known_position", lambda: known[-1], raising=False)
    site = Site()
    pages = [site.ask(f"/{number}/", f"192.0.2.{number}") for number in range(2)]
    await until(lambda: site.drawing == ["/0/"])
    known.append(later)
    site.may_draw.set()
    await asyncio.gather(*pages)
    assert site.positions == {"/0/": "e:1-0", "/1/": later or "e:1-0"}


@pytest.mark.usefixtures("holds_places")
async def test_a_page_that_finds_no_place_in_time_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshes, "WAIT_SECONDS", 0.01)
    site = Site()
    page = site.ask("/")
    await until(lambda: site.drawing == ["/"])
    await site.ask("/late/", "192.0.2.100")
    assert site.statuses == {"/late/": 503}
    site.may_draw.set()
    await page
    await site.ask("/late/", "192.0.2.100")
    assert site.statuses["/late/"] == 200
