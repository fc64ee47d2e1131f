"""The line before Django, in which those wait who open a stream: MAX_OPENING at a time, one of each address in turn."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.test import AsyncRequestFactory, override_settings

from django_sse_live.asgi import live_application
from django_sse_live.http.addresses import client_address, line_address
from django_sse_live.http.line import Line
from tests.live.harness import until


def empty_request() -> Any:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    return receive


class Door:
    """Some application behind live_application, which notes who is let in, and lets nobody out before it is told."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.most = 0
        self._inside = 0
        self._may_leave = asyncio.Event()
        self.application: Any = live_application(self._application)
        self._tasks: list[asyncio.Task[None]] = []

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered.append(scope["client"][0])
        self._inside += 1
        self.most = max(self.most, self._inside)
        await self._may_leave.wait()
        self._inside -= 1

    def knock(
        self,
        address: str,
        *,
        forwarded_for: str = "",
        accept: str = "text/event-stream",
        path: str = "/events/",
        content_type: str = "",
        receive: Any = None,
    ) -> asyncio.Task[None]:
        headers = [(b"accept", accept.encode())]
        if content_type:
            headers.append((b"content-type", content_type.encode()))
        if forwarded_for:
            headers.append((b"x-forwarded-for", forwarded_for.encode()))
        method = "POST" if content_type else "GET"
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": (address, 50000)}
        task = asyncio.ensure_future(self.application(scope, receive or empty_request(), None))
        self._tasks.append(task)
        return task

    def give_up(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def open(self) -> None:
        self._may_leave.set()
        await asyncio.wait(self._tasks, timeout=60)


@override_settings(SSE_LIVE={"MAX_OPENING": 2})
async def test_a_flood_from_one_address_delays_itself_alone() -> None:
    door = Door()
    for _ in range(100):
        door.knock("192.0.2.1")
    await asyncio.sleep(0)
    door.knock("192.0.2.2")
    door.knock("192.0.2.3")
    await asyncio.sleep(0)
    await door.open()
    assert len(door.entered) == 102
    assert {"192.0.2.2", "192.0.2.3"} <= set(door.entered[:6])
    assert door.most == 2


@override_settings(SSE_LIVE={"MAX_OPENING": 1})
async def test_the_addresses_of_one_network_and_of_one_proxy_are_one() -> None:
    door = Door()
    for number in range(20):
        door.knock(f"2001:db8::{number:x}")
    await asyncio.sleep(0)
    door.knock("192.0.2.2")
    await asyncio.sleep(0)
    await door.open()
    assert door.entered.index("192.0.2.2") < 3


@override_settings(SSE_LIVE={"MAX_OPENING": 1, "PROXY_COUNT": 1})
async def test_behind_a_proxy_it_is_the_visitor_s_address_that_counts() -> None:
    door = Door()
    for _ in range(20):
        door.knock("10.0.0.1", forwarded_for="192.0.2.1")
    await asyncio.sleep(0)
    late = door.knock("10.0.0.1", forwarded_for="192.0.2.2")
    early = door._tasks[10]
    await asyncio.sleep(0)
    finished: list[asyncio.Task[None]] = []
    for task in (late, early):
        task.add_done_callback(finished.append)
    await door.open()
    assert finished == [late, early]


@pytest.mark.parametrize(
    ("written", "address"),
    [
        *[("203.0.113.9:1234", "203.0.113.9"), ("203.0.113.9", "203.0.113.9"), ("2001:db8::1", "2001:db8::1")],
        *[("[2001:db8::1]:999", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"), ("unknown", "unknown")],
    ],
)
@override_settings(SSE_LIVE={"PROXY_COUNT": 1})
def test_the_port_that_a_proxy_writes_down_is_no_part_of_an_address(written: str, address: str) -> None:
    assert client_address({"headers": [(b"x-forwarded-for", f"10.0.0.1, {written}".encode())]}) == address


def test_a_header_of_a_million_addresses_is_not_taken_to_pieces(settings: Any) -> None:
    settings.SSE_LIVE = {"PROXY_COUNT": 2}
    written = b"," * 1_000_000 + b"203.0.113.9, 10.0.0.1"
    scope = {"client": ("10.0.0.2", 1), "headers": [(b"x-forwarded-for", written)]}
    tracemalloc.start()
    address = client_address(scope)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert address == "203.0.113.9"
    assert most_bytes < 5 * len(written)


@override_settings(SSE_LIVE={"MAX_OPENING": 1})
async def test_who_gives_up_in_line_holds_up_nobody() -> None:
    door = Door()
    door.knock("192.0.2.1")
    await asyncio.sleep(0)
    for task in [door.knock("192.0.2.1") for _ in range(5)]:
        await asyncio.sleep(0)
        task.cancel()
    door.knock("192.0.2.1")
    await door.open()
    assert door.entered == ["192.0.2.1"] * 2


async def test_a_request_costs_the_same_however_many_wait() -> None:
    asked = 0

    def places() -> int:
        nonlocal asked
        asked += 1
        return 4

    line = Line(places)

    async def stay_a_moment(address: str) -> None:
        place = await line.enter(address)
        await asyncio.sleep(0)
        place.leave()

    await asyncio.gather(*[stay_a_moment(f"192.0.2.{number}") for number in range(1000)])
    assert asked < 10_000


@pytest.mark.parametrize(
    ("method", "accept"), [("GET", "text/event-stream"), ("GET", "*/*"), ("GET", ""), ("HEAD", "text/event-stream")]
)
async def test_whatever_a_request_accepts_it_has_its_turn(settings: Any, method: str, accept: str) -> None:
    inside = most = asked = 0

    async def authorize(request: Any, channel: str) -> bool:
        nonlocal inside, most, asked
        asked += 1
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.005)
        inside -= 1
        return False

    settings.SSE_LIVE = {"AUTHORIZE": authorize, "MAX_OPENING": 2}
    application = live_application(get_asgi_application())
    headers = [(b"host", b"testserver"), *([(b"accept", accept.encode())] if accept else [])]

    async def ask() -> int:
        scope = AsyncRequestFactory()._base_scope(
            method=method, path="/events/", headers=headers, query_string=b"channel=a"
        )
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await application({**scope, "type": "http"}, empty_request(), send)
        return sent[0]["status"]

    assert await asyncio.gather(*[ask() for _ in range(12)]) == [403] * 12
    assert (asked, most) == (12, 2)


async def test_another_page_waits_for_nobody(settings: Any) -> None:
    settings.SSE_LIVE = {"MAX_OPENING": 1}
    door = Door()
    door.knock("192.0.2.1")
    await asyncio.sleep(0)
    door.knock("192.0.2.1", accept="*/*")
    await asyncio.sleep(0)
    assert len(door.entered) == 2
    await door.open()


@override_settings(SSE_LIVE={"MAX_OPENING": 1})
async def test_each_loop_has_a_line_of_its_own_and_nobody_is_forgotten_in_it() -> None:
    door, other = Door(), Door()
    other.application = door.application
    first, second = door.knock("192.0.2.1"), door.knock("192.0.2.2")
    await until(lambda: len(door.entered) == 1)

    async def elsewhere() -> None:
        inside = other.knock("192.0.2.3")
        await until(lambda: "192.0.2.3" in door.entered)
        inside.cancel()
        await asyncio.wait([inside])

    await asyncio.to_thread(asyncio.run, elsewhere())
    await door.open()
    await asyncio.wait_for(asyncio.gather(first, second), 60)
    assert len(door.entered) == 3 and door.entered[-1] == "192.0.2.2"


@override_settings(SSE_LIVE={"PUBLIC_CHANNELS": ["*"], "AUTHORIZE": None})
async def test_nobody_waits_for_the_thread_of_one_who_was_cancelled() -> None:
    busy, done = threading.Event(), threading.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["client"][0] == "192.0.2.1":
            await sync_to_async(lambda: busy.set() or done.wait(60))()
        else:
            await sync_to_async(str)()

    door = Door()
    door.application = live_application(application)
    slow = door.knock("192.0.2.1")
    try:
        await until(busy.is_set)
        slow.cancel()
        await asyncio.wait([slow])
        await asyncio.wait_for(door.knock("192.0.2.2"), 60)
        assert not done.is_set()
    finally:
        done.set()


# What takes no place


async def never() -> Any:
    await asyncio.Event().wait()


@override_settings(SSE_LIVE={"MAX_OPENING": 2})
async def test_a_request_whose_body_never_comes_takes_no_place() -> None:
    door = Door()
    for _ in range(100):
        door.knock("192.0.2.1", receive=never)
    await asyncio.sleep(0)
    door.knock("192.0.2.1")
    await asyncio.sleep(0)
    assert len(door.entered) == 1
    door.give_up()


@override_settings(SSE_LIVE={"MAX_OPENING": 1})
async def test_a_request_with_a_body_takes_no_place_before_its_view() -> None:
    door = Door()
    for more_body, body in ((True, b""), (True, b"part"), (False, b"all")):
        messages = [{"type": "http.request", "body": body, "more_body": more_body}]

        async def receive(messages: Any = messages) -> Any:
            return messages.pop() if messages else await never()

        door.knock("192.0.2.1", receive=receive)
    await asyncio.sleep(0)
    assert len(door.entered) == 3, "Django reads it, without a place"
    door.knock("192.0.2.1")
    await asyncio.sleep(0)
    assert len(door.entered) == 4
    await door.open()


@override_settings(SSE_LIVE={"MAX_OPENING": 1})
@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
async def test_messages_have_a_line_of_their_own_however_their_type_is_written(content_type: str) -> None:
    door = Door()
    for _ in range(3):
        door.knock("192.0.2.1", content_type=content_type)
    door.knock("192.0.2.2")
    for _ in range(5):
        await asyncio.sleep(0)
    assert sorted(door.entered) == ["192.0.2.1", "192.0.2.2"]
    await door.open()


@override_settings(SSE_LIVE={"MAX_OPENING": 1})
async def test_another_url_takes_no_place_whatever_it_accepts() -> None:
    door = Door()
    for path in ("/admin/", "/no/such/page/", "/events/health/", "/events"):
        door.knock("192.0.2.1", path=path)
    await asyncio.sleep(0)
    assert len(door.entered) == 4
    door.knock("192.0.2.1")
    await asyncio.sleep(0)
    assert len(door.entered) == 5
    await door.open()


async def test_django_receives_what_was_received_before_it() -> None:
    received: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive(), await receive()])

    messages = [
        {"type": "http.request", "body": b"one", "more_body": True},
        {"type": "http.request", "body": b"two", "more_body": False},
    ]
    wanted = list(messages)

    async def receive() -> Any:
        return messages.pop(0)

    door = Door()
    door.application = live_application(application)
    await door.knock("192.0.2.1", receive=receive)
    assert received == wanted


async def test_a_message_that_comes_byte_by_byte_is_kept_in_one_piece() -> None:
    received: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        while received[-1].get("more_body"):
            received.append(await receive())

    pieces = [b"x", b""] * 10_000
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.request", "body": b"", "more_body": False}

    door = Door()
    door.application = live_application(application)
    await door.knock("192.0.2.1", receive=receive, content_type="application/json")
    assert received == [{"type": "http.request", "body": b"x" * 10_000, "more_body": False}]


@pytest.mark.parametrize("end", ["too long", "gone"])
async def test_a_message_that_is_too_long_or_breaks_off_is_left_to_django(end: str) -> None:
    received: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive(), await receive()])

    last = {"type": "http.disconnect"} if end == "gone" else {"type": "http.request", "body": b"z", "more_body": False}
    sizes = [10, 10] if end == "gone" else [60_000, 60_000]
    messages = [*({"type": "http.request", "body": b"x" * size, "more_body": True} for size in sizes), last]

    async def receive() -> Any:
        return messages.pop(0)

    door = Door()
    door.application = live_application(application)
    await door.knock("192.0.2.1", receive=receive, content_type="application/json")
    assert received == [{"type": "http.request", "body": b"x" * sum(sizes), "more_body": True}, last]


# What a place is worth


@override_settings(SSE_LIVE={"MAX_OPENING": 2})
async def test_a_place_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_sse_live.asgi.PLACE_SECONDS", 0.05)
    door = Door()
    for _ in range(4):
        door.knock("192.0.2.1")
    await asyncio.sleep(0)
    assert len(door.entered) == 2
    await until(lambda: len(door.entered) == 4)
    door.knock("192.0.2.2")
    await until(lambda: len(door.entered) == 5, 5)
    await door.open()


@override_settings(SSE_LIVE={"MAX_OPENING": 64})
async def test_one_address_has_half_of_the_places_and_the_next_enters_at_once() -> None:
    door = Door()
    for _ in range(200):
        door.knock("192.0.2.1")
    await asyncio.sleep(0)
    assert 32 <= len(door.entered) <= 33, "an honest site behind one proxy is not slowed down to a small share"
    for number in range(2, 12):
        door.knock(f"192.0.2.{number}")
        await asyncio.sleep(0)
        assert door.entered[-1] == f"192.0.2.{number}"
    await door.open()
    assert len(door.entered) == 210


@override_settings(SSE_LIVE={"MAX_OPENING": 64})
async def test_three_floods_leave_room_for_others() -> None:
    door = Door()
    for number in range(1, 4):
        for _ in range(100):
            door.knock(f"192.0.2.{number}")
        await asyncio.sleep(0)
    before = len(door.entered)
    door.knock("198.51.100.1")
    await asyncio.sleep(0)
    assert door.entered[before:] == ["198.51.100.1"]
    door.give_up()


@pytest.mark.parametrize(
    ("peer", "proxy_count", "written", "wanted"),
    [
        ("10.0.0.1", 0, "198.51.100.7, 203.0.113.9", "203.0.113.9"),  # nginx, of which nobody has told
        ("127.0.0.1", 0, "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", 0, "203.0.113.9", "203.0.113.9"),  # the server listens on IPv6 too
        ("100.64.0.7", 0, "203.0.113.9", "203.0.113.9"),  # a cloud's proxy
        ("", 0, "203.0.113.9", "203.0.113.9"),  # by a Unix socket
        ("10.0.0.1", 0, "", "10.0.0.1"),
        ("2001:4860::1", 0, "203.0.113.9", "2001486000000000/64"),  # a visitor's own words count for nothing
        ("8.8.8.8", 0, "203.0.113.9", "8.8.8.8"),
        ("::ffff:8.8.8.8", 0, "203.0.113.9", "8.8.8.8"),
        ("10.0.0.1", 1, "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", 2, "203.0.113.9", "10.0.0.1"),
    ],
)
def test_visitors_behind_an_unknown_proxy_are_told_apart(
    settings: Any, peer: str, proxy_count: int, written: str, wanted: str
) -> None:
    settings.SSE_LIVE = {"PROXY_COUNT": proxy_count}
    headers = [(b"x-forwarded-for", written.encode())] if written else []
    assert line_address({"client": (peer, 1) if peer else None, "headers": headers}) == wanted
