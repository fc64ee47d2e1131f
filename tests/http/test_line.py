"""The line before Django, in which those wait who open a stream: MAX_OPENING at a time, one of each address in turn."""

from __future__ import annotations

import asyncio
from typing import Any

from django.test import override_settings

from django_sse_live.asgi import live_application


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

    def knock(self, address: str, *, forwarded_for: str = "") -> asyncio.Task[None]:
        headers = [(b"accept", b"text/event-stream")]
        if forwarded_for:
            headers.append((b"x-forwarded-for", forwarded_for.encode()))
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": (address, 50000)}
        task = asyncio.ensure_future(self.application(scope, None, None))
        self._tasks.append(task)
        return task

    async def open(self) -> None:
        self._may_leave.set()
        await asyncio.wait(self._tasks, timeout=10)


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


@override_settings(SSE_LIVE={"MAX_OPENING": 16, "MAX_CLIENTS_PER_ADDRESS": 100})
async def test_where_addresses_are_counted_one_has_its_share_of_the_places() -> None:
    door = Door()
    for _ in range(100):
        door.knock("192.0.2.1")
    await asyncio.sleep(0)
    assert door.entered == ["192.0.2.1"] * 2
    door.knock("192.0.2.2")
    await asyncio.sleep(0)
    assert door.entered[2:] == ["192.0.2.2"], "at once"
    await door.open()
    assert len(door.entered) == 101
