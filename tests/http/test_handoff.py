"""What is left of a request once its stream goes on outside of Django."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import markcoroutinefunction, sync_to_async
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.test import AsyncRequestFactory

from django_sse_live.asgi import live_application
from django_sse_live.http import threads
from tests.live.harness import until


class Connection:
    """A request to live_application, as a server would make it."""

    def __init__(self, path: str = "/news/", headers: tuple[tuple[bytes, bytes], ...] = (), query: bytes = b"") -> None:
        self.scope = AsyncRequestFactory()._base_scope(method="GET", path=path, query_string=query)
        self.scope["headers"] = [(b"host", b"testserver"), (b"accept", b"text/event-stream"), *headers]
        self.sent: list[Any] = []
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        self.task: asyncio.Task[None] | None = None
        self.send_error: Exception | None = None

    async def send(self, message: Any) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)

    @property
    def is_open(self) -> bool:
        return any(b"connected" in message.get("body", b"") for message in self.sent)

    @asynccontextmanager
    async def opened(self, application: Any) -> AsyncIterator[None]:
        self.task = asyncio.ensure_future(application(self.scope, self.messages.get, self.send))
        await until(lambda: self.is_open)
        yield
        self.messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(self.task, 60)


@pytest.mark.parametrize("application", [get_asgi_application, get_wsgi_application(), "mysite.asgi.application"])
def test_what_is_no_asgi_application_is_refused_at_once(application: Any) -> None:
    with pytest.raises(TypeError, match=r"live_application\(get_asgi_application\(\)\)"):
        live_application(application)


async def test_the_headers_are_let_go_of_but_for_those_of_access_logs() -> None:
    big = (b"x-big", b"x" * 60_000)
    agent, referer = (b"user-agent", b"Browser/1"), (b"referer", b"r" * 10_000)
    stream = Connection(headers=(big, agent, referer, (b"cookie", b"sessionid=secret")))
    async with stream.opened(live_application(get_asgi_application())):
        assert stream.scope["headers"] == [(b"host", b"testserver"), agent]


async def test_the_query_is_let_go_of() -> None:
    stream = Connection(query=b"heartbeat=15&x=" + b"x" * 30_000)
    async with stream.opened(live_application(get_asgi_application())):
        assert stream.scope["query_string"] == b""


async def test_of_a_header_that_was_sent_a_thousand_times_one_is_kept() -> None:
    agents = [(b"user-agent", b"Browser/%d" % number) for number in range(1000)]
    stream = Connection(headers=(*agents, (b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-for", b"192.0.2.2")))
    async with stream.opened(live_application(get_asgi_application())):
        assert stream.scope["headers"] == [
            (b"host", b"testserver"),
            (b"user-agent", b"Browser/0"),
            (b"x-forwarded-for", b"192.0.2.1"),
        ]


async def test_header_names_are_sent_in_lower_case() -> None:
    stream = Connection()
    async with stream.opened(live_application(get_asgi_application())):
        names = [name for name, _ in stream.sent[0]["headers"]]
        assert names == [name.lower() for name in names]
        assert b"content-type" in names and b"vary" in names


async def test_our_own_header_names_are_in_lower_case_without_live_application_too() -> None:
    stream = Connection()
    async with stream.opened(get_asgi_application()):
        names = [name for name, _ in stream.sent[0]["headers"]]
        assert {b"content-type", b"cache-control", b"x-accel-buffering"} <= set(names)


# Threads


def ended(thread: threading.Thread) -> Any:
    return lambda: not thread.is_alive()


async def test_a_thread_that_ends_has_closed_its_database_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    monkeypatch.setattr(threads, "IDLE_THREADS_MAX", 1)
    monkeypatch.setattr(type(connections), "close_all", lambda self: closed.append(threading.get_ident()))
    lender = threads.OpeningThreads()
    used: list[int] = []

    async def open_one() -> None:
        async with lender.lend():
            used.append(await sync_to_async(threading.get_ident)())
            await until(lambda: len(used) == 5)

    await asyncio.gather(*[open_one() for _ in range(5)])
    await until(lambda: len(closed) == 4)
    assert set(closed) < set(used), "all but the one that is kept"


@pytest.mark.parametrize(("method", "accept"), [("GET", b"*/*"), ("HEAD", b"*/*"), ("HEAD", b"text/event-stream")])
async def test_whatever_asks_for_a_stream_leaves_no_connection_of_a_hook_open(
    method: str, accept: bytes, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    closed: list[int] = []

    def allow(request: Any, channel: str) -> bool:
        used.append(threading.get_ident())
        return True

    settings.SSE_LIVE = {"AUTHORIZE": allow}
    monkeypatch.setattr(type(connections), "close_all", lambda self: closed.append(threading.get_ident()))
    connection = Connection("/events/", query=b"channel=room")
    connection.scope |= {"method": method, "headers": [(b"host", b"testserver"), (b"accept", accept)]}
    application = live_application(get_asgi_application())
    request = asyncio.ensure_future(application(connection.scope, connection.messages.get, connection.send))
    await until(lambda: used and used[0] in closed)
    connection.messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(request, 60)
    assert connection.sent[0]["status"] == 200


def notes_its_thread(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        request.thread = await sync_to_async(threading.get_ident)()
        return await get_response(request)

    return markcoroutinefunction(middleware)


notes_its_thread.async_capable, notes_its_thread.sync_capable = True, False  # type: ignore[attr-defined]


@pytest.mark.parametrize("accept", [b"text/event-stream", b"*/*"])
async def test_with_tenants_hooks_run_in_the_thread_that_middleware_has_seen(accept: bytes, settings: Any) -> None:
    """django-tenants keeps the tenant in the thread's database connection."""
    same: list[bool] = []

    def allow(request: Any, channel: str) -> bool:
        same.append(request.thread == threading.get_ident())
        return True

    settings.SSE_LIVE = {"AUTHORIZE": allow, "NAMESPACE": lambda request: "blue"}
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.notes_its_thread"]
    connection = Connection("/events/", query=b"channel=room")
    connection.scope["headers"] = [(b"host", b"testserver"), (b"accept", accept)]
    async with connection.opened(live_application(get_asgi_application())):
        assert same == [True]


async def test_the_thread_of_a_cancelled_request_ends_when_it_is_done() -> None:
    may_end = threading.Event()
    seen: list[threading.Thread] = []

    def busy() -> None:
        seen.append(threading.current_thread())
        may_end.wait(60)

    async def open_busy() -> None:
        async with threads.OpeningThreads().lend():
            await sync_to_async(busy)()

    task = asyncio.ensure_future(open_busy())
    await until(lambda: seen)
    task.cancel()
    await asyncio.wait([task])
    assert seen[0].is_alive()
    may_end.set()
    await until(ended(seen[0]))


def test_the_idle_threads_of_a_loop_end_with_it() -> None:
    seen: list[threading.Thread] = []

    async def main() -> None:
        async with threads.OpeningThreads().lend():
            seen.append(await sync_to_async(threading.current_thread)())

    async def keep(lender: Any) -> None:
        async with lender.lend():
            seen.append(await sync_to_async(threading.current_thread)())

    lenders: list[Any] = []

    async def kept() -> None:
        lenders.append(threads.OpeningThreads())
        await keep(lenders[0])
        assert seen[-1].is_alive()

    asyncio.run(main())
    asyncio.run(kept())
    for thread in seen:
        thread.join(60)
        assert not thread.is_alive()


async def test_a_stream_whose_content_is_wrapped_keeps_no_thread() -> None:
    lender = threads.OpeningThreads()
    async with lender.lend():
        thread = await sync_to_async(threading.current_thread)()
        threads.release_request_thread()
        await until(ended(thread))
        another = await sync_to_async(threading.current_thread)()
        assert another is not thread
    await until(ended(another))
    async with lender.lend():
        assert (await sync_to_async(threading.current_thread)()).is_alive()
