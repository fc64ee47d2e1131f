"""The signals that go out: in order, by one thread at the most, and to the harm of nobody."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connections
from django.db.utils import OperationalError
from django.dispatch import Signal

from django_sse_live import abroadcast
from django_sse_live.backends import running_hub
from django_sse_live.events import Event
from django_sse_live.hub import outgoing
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.signals import client_connected, client_disconnected, event_broadcast
from tests.clients import make_client

from .conftest import until

Receive = Callable[[Signal, Callable[..., Any]], None]


@pytest.fixture
def receive() -> Iterator[Receive]:
    connected: list[tuple[Signal, Callable[..., Any]]] = []

    def receive(signal: Signal, receiver: Callable[..., Any]) -> None:
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))

    yield receive
    for signal, receiver in connected:
        signal.disconnect(receiver)


def opened(hub: Hub, count: int) -> list[Client]:
    clients = [make_client(hub, ("a",)) for _ in range(count)]
    for client in clients:
        client.open()
    return clients


async def test_a_thousand_that_leave_at_once_take_one_thread(hub: Hub, receive: Receive) -> None:
    clients = opened(hub, 1000)
    before = threading.active_count()
    threads: list[int] = []
    receive(client_disconnected, lambda client, **_: threads.append(threading.active_count()))
    for client in clients:
        client.leave()
    await until(lambda: len(threads) == 1000)
    assert max(threads) == before + 1
    await until(lambda: threading.active_count() == before)


async def test_async_receivers_take_none(hub: Hub, receive: Receive) -> None:
    clients = opened(hub, 1000)
    before = threading.active_count()
    threads: list[int] = []

    async def count(client: Client, **_: Any) -> None:
        await asyncio.sleep(0)
        threads.append(threading.active_count())

    receive(client_disconnected, count)
    for client in clients:
        client.leave()
    await until(lambda: len(threads) == 1000)
    assert max(threads) == before


async def test_they_are_received_in_the_order_in_which_it_happened(hub: Hub, receive: Receive) -> None:
    seen: list[tuple[str, str]] = []
    is_slow = threading.Event()

    def joined(client: Client, **_: Any) -> None:
        is_slow.wait(60)
        seen.append(("joined", client.id))

    async def left(client: Client, **_: Any) -> None:
        seen.append(("left", client.id))

    receive(client_connected, joined)
    receive(client_disconnected, left)
    clients = opened(hub, 3)
    for client in clients:
        client.leave()
    for _ in range(100):  # the loop goes on while a receiver blocks its thread
        await asyncio.sleep(0)
    assert not seen
    is_slow.set()
    await until(lambda: len(seen) == 6)
    ids = [client.id for client in clients]
    assert seen == [("joined", id) for id in ids] + [("left", id) for id in ids]


async def test_a_receiver_that_fails_is_logged_once_and_the_next_is_called(
    hub: Hub, receive: Receive, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    cancelled: list[str] = []

    async def is_cancelled(client: Client, **_: Any) -> None:
        cancelled.append(client.id)
        raise asyncio.CancelledError

    def fails(client: Client, **_: Any) -> None:
        seen.append(client.id)
        raise RuntimeError("mine")

    receive(client_disconnected, fails)
    receive(client_disconnected, is_cancelled)
    clients = opened(hub, 3)
    for client in clients:
        client.leave()
    (last,) = opened(hub, 1)
    last.leave()

    def logged() -> int:
        return len([record for record in caplog.records if record.levelno >= logging.ERROR])

    await until(lambda: len(cancelled) == logged() == 4)
    assert seen == cancelled == [client.id for client in [*clients, last]]


async def test_database_connections_are_closed_where_they_were_opened(
    hub: Hub, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(connections, "close_all", lambda: seen.append(("closed", threading.get_ident())))
    receive(client_disconnected, lambda client, **_: seen.append(("received", threading.get_ident())))
    (client,) = opened(hub, 1)
    client.leave()
    await until(lambda: len(seen) >= 2)
    (_, thread), *closed = seen
    assert thread != threading.get_ident() and set(closed) == {("closed", thread)}


async def test_the_thread_is_not_one_that_the_request_of_a_stream_would_keep(hub: Hub, receive: Receive) -> None:
    threads: list[threading.Thread] = []
    receive(client_connected, lambda client, **_: threads.append(threading.current_thread()))
    async with ThreadSensitiveContext() as request:
        (client,) = opened(hub, 1)
        await until(lambda: len(threads) == 1)
        await until(lambda: not threads[0].is_alive())
        assert request not in SyncToAsync.context_to_thread_executor
    client.leave()


async def test_it_is_not_that_of_a_caller_who_does_not_wait_for_the_signal(hub: Hub, receive: Receive) -> None:
    seen: list[tuple[int, int]] = []

    def slow(event: Event, **_: Any) -> None:
        assert may_go_on.wait(60)
        seen.append((event.data, threading.get_ident()))

    def sync_view() -> int:
        for number in range(3):
            async_to_sync(abroadcast)("a", "t", number)
        return threading.get_ident()

    may_go_on = threading.Event()
    receive(event_broadcast, slow)
    caller = await sync_to_async(sync_view)()
    may_go_on.set()
    await until(lambda: [number for number, _ in seen] == [0, 1, 2])
    assert caller not in {thread for _, thread in seen}


async def test_a_signal_that_cannot_be_sent_is_logged(
    hub: Hub, receive: Receive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no thread")

    receive(client_connected, lambda **_: None)
    monkeypatch.setattr(Signal, "asend_robust", broken)
    opened(hub, 1)
    await until(lambda: "no thread" in caplog.text)


def test_what_waits_does_not_keep_a_loop_from_ending(receive: Receive) -> None:
    seen: list[str] = []

    async def never_ends(client: Client, **_: Any) -> None:
        seen.append(client.id)
        await asyncio.Event().wait()

    receive(client_disconnected, never_ends)

    async def serve() -> None:
        for client in opened(running_hub(), 10):
            client.leave()
        await until(lambda: bool(seen))

    asyncio.run(serve())
    assert len(seen) == 1


async def test_receivers_that_are_too_slow_lose_signals_which_is_counted_and_said_once(
    hub: Hub, receive: Receive, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "SIGNALS_MAX", 50)
    monkeypatch.setattr(outgoing, "BROADCAST_SIGNALS_MAX", 20)
    may_go_on = threading.Event()
    seen: list[str] = []

    def slow(event: Any = None, **_: Any) -> None:
        may_go_on.wait(60)
        seen.append("broadcast" if event is not None else "disconnected")

    receive(event_broadcast, slow)
    receive(client_disconnected, slow)
    for number in range(100):
        hub.notify(event_broadcast, event=number, client_count=0)
    for client in opened(hub, 60):
        client.leave()
    assert len(hub._signals._waiting) == 50, "bounded"
    assert hub.counts.signals_dropped == 80 + 30, "and events leave room for clients"
    assert len([message for message in caplog.messages if "too slow" in message]) == 1
    may_go_on.set()
    await until(lambda: len(seen) == 50)
    assert seen.count("broadcast") == 20
    hub.notify(event_broadcast, event=1, client_count=0)
    await until(lambda: len(seen) == 51)  # it goes on


class TestConnections:
    @pytest.fixture
    def closed(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        seen: list[str] = []
        monkeypatch.setattr(outgoing, "close_old_connections", lambda: seen.append("old"))
        monkeypatch.setattr(connections, "close_all", lambda: seen.append("all"))
        return seen

    async def test_they_are_kept_from_signal_to_signal_as_from_request_to_request(
        self, hub: Hub, receive: Receive, closed: list[str]
    ) -> None:
        threads: set[int] = set()
        count = 0

        def receiver(**_: Any) -> None:
            nonlocal count
            threads.add(threading.get_ident())
            count += 1

        receive(client_disconnected, receiver)
        for client in opened(hub, 500):
            client.leave()
        await until(lambda: count == 500)
        await asyncio.sleep(0.01)
        (client,) = opened(hub, 1)
        client.leave()
        await until(lambda: count == 501)
        assert len(threads) == 1, "the thread waits a moment for the next"
        assert "all" not in closed
        assert 1 <= closed.count("old") <= 10, "at the end of a unit, not of each signal"
        await until(lambda: "all" in closed)  # with the thread

    async def test_one_that_broke_is_let_go_of_at_once(self, hub: Hub, receive: Receive, closed: list[str]) -> None:
        def fails(**_: Any) -> None:
            raise OperationalError

        receive(client_disconnected, fails)
        for client in opened(hub, 3):
            client.leave()
        await until(lambda: closed.count("old") >= 3)
