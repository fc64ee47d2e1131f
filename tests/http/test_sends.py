"""A stream's sends, where the server is none that is known: one after the other, whatever they wait for or raise."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from django.core.asgi import get_asgi_application

from django_sse_live import abroadcast
from django_sse_live.asgi import live_application
from django_sse_live.hub.clients import Client
from django_sse_live.hub.registry import open_hubs
from tests.live.harness import until

# Django never closes a connection to a database in memory, also not when its thread ends.
pytestmark = pytest.mark.filterwarnings("error", "ignore:Exception ignored (in|while).*<sqlite3.Connection")

Message = dict[str, Any]
SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "path": "/events/",
    "query_string": b"channel=news",
    "headers": [(b"host", b"localhost"), (b"accept", b"text/event-stream")],
    "client": ("127.0.0.1", 50000),
    "extensions": {},
}


class Server:
    """An ASGI server's side of one stream. ``on_body`` may be set: what its send() does with a body besides."""

    def __init__(self, make_send: Callable[[Callable[[Message], Awaitable[None]]], Any] = lambda send: send) -> None:
        self.bodies: list[bytes] = []
        self.is_over = False
        self.on_body: Callable[[bytes], Awaitable[None]] | None = None
        self._is_asked = False
        self._gone = asyncio.Event()
        self.task = asyncio.create_task(
            live_application(get_asgi_application())(dict(SCOPE), self._receive, make_send(self._send))
        )

    @property
    def text(self) -> bytes:
        return b"".join(self.bodies)

    async def _receive(self) -> Message:
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            return
        if not message.get("more_body"):
            self.is_over = True
        elif self.on_body is not None and b"event: tick" in message["body"]:
            await self.on_body(message["body"])
        self.bodies.append(message["body"])

    async def opened(self) -> Server:
        await until(lambda: b"event: connected" in self.text)
        return self

    def leave(self) -> None:
        self._gone.set()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = await Server().opened()
    yield server
    server.leave()
    await server.task
    assert server.is_over


async def ticks(count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        await abroadcast("news", "tick", number)


def numbers(server: Server) -> list[int]:
    return [int(line[6:]) for line in server.text.split(b"\n") if line.startswith(b"data: ") and line[6:].isdigit()]


async def test_a_send_that_has_to_wait_goes_on_where_it_was_and_nothing_overtakes_it(server: Server) -> None:
    begun, room = asyncio.Event(), asyncio.Event()

    async def full(_body: bytes) -> None:
        begun.set()
        await room.wait()
        await asyncio.sleep(0)  # a second wait in the same send

    server.on_body = full
    await ticks(50)
    await begun.wait()
    assert numbers(server) == []
    await ticks(50, start=50)
    room.set()
    await until(lambda: len(numbers(server)) == 100)
    assert numbers(server) == list(range(100))


async def test_a_send_that_fails_ends_the_stream_and_nobody_hears_of_it(caplog: pytest.LogCaptureFixture) -> None:
    for error in (OSError("broken pipe"), RuntimeError("closed"), asyncio.CancelledError()):
        server = await Server().opened()

        async def fail(_body: bytes, error: BaseException = error) -> None:
            raise error

        server.on_body = fail
        await ticks(1)
        await asyncio.wait_for(server.task, 60)
    gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_an_error_of_the_server_s_own_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    server = await Server().opened()

    async def fail(_body: bytes) -> None:
        raise ZeroDivisionError

    server.on_body = fail
    await ticks(1)
    await asyncio.wait_for(server.task, 60)
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@pytest.mark.parametrize("waits", [True, False])
async def test_a_stream_that_is_cancelled_meanwhile_ends_quietly(waits: bool, caplog: pytest.LogCaptureFixture) -> None:
    server = await Server().opened()
    begun = asyncio.Event()

    async def hang(_body: bytes) -> None:
        begun.set()
        if waits:
            await asyncio.Event().wait()
        raise OSError("gone")

    server.on_body = hang
    await ticks(1)
    await begun.wait()
    server.task.cancel()  # the send has begun, and the task has not been woken yet
    await asyncio.wait([server.task], timeout=5)
    assert server.task.done() and not server.task.cancelled()
    gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_send_that_is_no_coroutine_is_awaited_by_the_task() -> None:
    """Granian's, and any callable that gives something awaitable."""

    def wrap(send: Callable[[Message], Awaitable[None]]) -> Callable[[Message], Awaitable[None]]:
        return lambda message: asyncio.ensure_future(send(message))

    server = await Server(wrap).opened()
    await ticks(20)
    await until(lambda: len(numbers(server)) == 20)
    assert numbers(server) == list(range(20))
    server.leave()
    await server.task


async def test_what_fails_for_one_client_is_nothing_to_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    servers = [await Server().opened() for _ in range(30)]
    victim = min(open_hubs()[0].clients, key=lambda client: client.connected_at)
    take = Client.take

    def fail(client: Client) -> bytes | None:
        if client is victim:
            raise ZeroDivisionError
        return take(client)

    monkeypatch.setattr(Client, "take", fail)
    await ticks(3)
    await until(lambda: sum(numbers(server) == [0, 1, 2] for server in servers) == 29)
    assert len([record for record in caplog.records if record.exc_info]) == 1
    for server in servers:
        server.leave()
        await server.task


async def test_more_than_one_send_can_carry_is_sent_whole(server: Server) -> None:
    """256 KiB go at once; the task sends the rest."""
    for number in range(10):
        await abroadcast("news", "tick", str(number) * 100_000)
    await until(lambda: len(server.text) > 1_000_000)
    assert [server.text.count(str(number).encode() * 100_000) for number in range(10)] == [1] * 10


async def test_nothing_is_raised_when_a_request_is_cancelled_while_its_headers_are_sent() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    def wrap(send: Callable[[Message], Awaitable[None]]) -> Callable[[Message], Awaitable[None]]:
        async def stalled(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.set()
                await asyncio.Event().wait()
            elif not message.get("more_body"):
                ended.set()

        return stalled

    server = Server(wrap)
    await started.wait()
    server.task.cancel()
    await asyncio.wait([server.task])
    assert not server.task.cancelled() and server.task.exception() is None and ended.is_set()
