"""How messages run: in which transaction, how many at once, how many of one sender, and while a worker stops."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import markcoroutinefunction, sync_to_async
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.db import connection, connections, transaction
from django.test import AsyncRequestFactory, Client

from django_sse_live import Message, broadcast, disconnect_clients
from django_sse_live.asgi import live_application
from django_sse_live.backends import running_hub
from django_sse_live.http.line import Place
from django_sse_live.http.message_line import RATE_BURST, WAITING_PER_SENDER_MAX, MessageLine, MessageRate
from django_sse_live.http.message_tasks import Messages
from django_sse_live.http.refusals import Refused
from django_sse_live.http.shutdown import StopHandler
from django_sse_live.hub.registry import process_counts
from django_sse_live.testing import MessageRefused, StreamClient
from tests.live.harness import until
from tests.messages.conftest import Sender

# Transactions


@pytest.fixture
def atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)


async def test_a_sync_handler_runs_in_a_transaction_where_requests_do(
    sender: Sender, handle: Any, transactional_db: None, atomic_requests: None
) -> None:
    handle("sync")(lambda message: connection.in_atomic_block)

    @handle("fails")
    def fails(message: Message) -> None:
        User.objects.create(username="undone")
        raise ValueError("No.")

    assert (await sender.send("sync"))[1]["data"] is True
    assert (await sender.send("fails"))[0] == 400
    assert not await User.objects.filter(username="undone").aexists()


async def test_but_in_none_where_the_handler_asks_for_none_as_a_view_does(
    sender: Sender, handle: Any, transactional_db: None, atomic_requests: None
) -> None:
    @handle("sync")
    @transaction.non_atomic_requests
    def look(message: Message) -> bool:
        return connection.in_atomic_block

    @handle("another's")
    @transaction.non_atomic_requests(using="other")
    def look_at_default(message: Message) -> bool:
        return connection.in_atomic_block

    assert (await sender.send("sync"))[1]["data"] is False
    assert (await sender.send("another's"))[1]["data"] is True


async def test_and_in_none_where_they_do_not(sender: Sender, handle: Any, transactional_db: None) -> None:
    handle("sync")(lambda message: connection.in_atomic_block)
    assert (await sender.send("sync"))[1]["data"] is False


async def test_what_a_handler_broadcasts_is_sent_at_its_commit(
    handle: Any, transactional_db: None, atomic_requests: None
) -> None:
    client = StreamClient()

    @handle("typing", "room.*")
    def typing(message: Message) -> dict[str, bool]:
        broadcast(message.channel, "typing", {"by": message.user.get_username()})
        return {"ok": True}

    @handle("fails", "room.*")
    def fails(message: Message) -> None:
        broadcast(message.channel, "never")
        raise ValueError("No.")

    async with client.stream(query={"channel": "room.1"}) as stream:
        with pytest.raises(MessageRefused) as refused:
            await client.send("fails", channel="room.1")
        assert (refused.value.status, refused.value.detail) == (400, "No.")
        assert await client.send("typing", channel="room.1") == {"ok": True}
        event = await stream.next()
        assert (event.type, event.data) == ("typing", {"by": ""})


# One sender


async def test_20_a_second_and_40_at_once(sender: Sender, handle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("django_sse_live.http.message_line.time.monotonic", lambda: now[0])
    handle("typing")(lambda message: 1)
    assert {(await sender.send())[0] for _ in range(RATE_BURST)} == {200}
    status, answer = await sender.send()
    assert (status, answer["error"], sender.response["Retry-After"]) == (429, "too_many_messages", "1")
    now[0] += 0.5
    assert [(await sender.send())[0] for _ in range(11)] == [200] * 10 + [429]


def test_who_was_quiet_takes_no_memory() -> None:
    rate = MessageRate()
    for number in range(100):
        rate.take(str(number))
    rate._buckets = type(rate._buckets)((key, (left, at - 3)) for key, (left, at) in rate._buckets.items())
    rate.take("another")
    assert list(rate._buckets) == ["another"]


async def test_senders_are_told_apart_by_user(sender: Sender, handle: Any, transactional_db: None) -> None:
    handle("typing")(lambda message: 1)
    ada = await User.objects.acreate(username="ada")
    for _ in range(RATE_BURST):
        await sender.send()
    await sender.aforce_login(ada)
    assert (await sender.send())[0] == 200


@pytest.mark.parametrize(
    ("floods", "other"),
    [
        ({"REMOTE_ADDR": "203.0.113.1"}, {"REMOTE_ADDR": "203.0.113.2"}),
        ({"HTTP_X_FORWARDED_FOR": "203.0.113.1"}, {"HTTP_X_FORWARDED_FOR": "203.0.113.2"}),
    ],
)
def test_senders_are_told_apart_by_address_under_wsgi_too(
    handle: Any, monkeypatch: pytest.MonkeyPatch, floods: Any, other: Any
) -> None:
    monkeypatch.setattr("django_sse_live.http.message_line.time.monotonic", lambda: 1000.0)
    handle("typing")(lambda message: 1)

    def send(sender: Any) -> int:
        message = {"id": uuid4().hex, "type": "typing"}
        return Client(**sender).post("/events/", message, "application/json").status_code

    assert [send(floods) for _ in range(RATE_BURST + 1)] == RATE_BURST * [200] + [429]
    assert send(other) == 200


async def test_messages_of_one_sender_run_one_at_a_time_and_in_order(sender: Sender, handle: Any) -> None:
    running, ran = 0, []

    @handle("slow")
    async def slow(message: Message) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ran.append(message.data)
        running -= 1

    answers = await asyncio.gather(*(Sender().send("slow", number) for number in range(20)))
    assert [status for status, _ in answers] == [200] * 20
    assert ran == list(range(20))


@pytest.mark.parametrize("change", ["logout", "password", "deactivated", "disconnect", "name"])
async def test_who_was_checked_and_lost_access_in_line_is_checked_again(
    handle: Any, transactional_db: None, change: str
) -> None:
    running, may_end = asyncio.Event(), asyncio.Event()
    ran = []

    @handle("slow")
    async def slow(message: Message) -> None:
        ran.append(message.data)
        running.set()
        await may_end.wait()

    ada = await User.objects.acreate_user("ada", password="secret")
    senders = Sender(), Sender()
    for sender in senders:
        await sender.aforce_login(ada)
    first = asyncio.ensure_future(senders[0].send("slow", 1))
    await running.wait()
    second = asyncio.ensure_future(senders[1].send("slow", 2, id="2" * 32))
    line = running_hub().parts[Messages].line
    await until(lambda: bool(line._waiting))
    if change == "logout":
        await senders[1].alogout()
    elif change == "disconnect":
        disconnect_clients(user=ada)
    else:
        ada.is_active = change != "deactivated"
        ada.first_name = "Ada"
        if change == "password":
            ada.set_password("another")
        await ada.asave()
    may_end.set()
    assert (await first)[0] == 200
    status, answer = await second
    if change == "name":
        assert (status, ran) == (200, [1, 2])
        return
    assert (status, answer["error"], ran) == (503, "revoked", [1])
    await senders[1].send("slow", 2, id="2" * 32)  # as the browser does; it is judged as any other
    assert len(ran) == 2


# The line


async def _in_line(line: MessageLine, *senders: tuple[str, str]) -> list[asyncio.Future[Place]]:
    entering = [asyncio.ensure_future(line.enter(address, sender)) for sender, address in senders]
    for _ in range(3):
        await asyncio.sleep(0)
    return entering


async def test_no_more_run_than_may(settings: Any) -> None:
    settings.SSE_LIVE = {"MAX_RUNNING_MESSAGES": 2}
    line = MessageLine()
    turns = await _in_line(line, ("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))
    assert [turn.done() for turn in turns] == [True, True, False, False]
    turns[1].result().leave()
    await asyncio.sleep(0)
    assert [turn.done() for turn in turns] == [True, True, True, False]
    turns[3].cancel()
    await asyncio.gather(turns[3], return_exceptions=True)
    turns[0].result().leave()
    turns[2].result().leave()
    assert not line._inside and not line._held and not line._waiting


async def test_an_address_leaves_half_of_the_places_to_others(settings: Any) -> None:
    settings.SSE_LIVE = {"MAX_RUNNING_MESSAGES": 8}
    line = MessageLine()
    flood = await _in_line(line, *((f"flood{number}", "1") for number in range(20)))
    assert sum(turn.done() for turn in flood) == 4 + 1  # one more while as many are free as it holds
    assert (await _in_line(line, ("visitor", "2")))[0].done()
    for turn in flood:
        turn.cancel()


async def test_the_line_is_bounded(settings: Any) -> None:
    line = MessageLine()
    turns = await _in_line(line, *[("a", "1")] * (1 + WAITING_PER_SENDER_MAX))
    with pytest.raises(Refused, match="Too many"):
        await line.enter("1", "a")
    assert sum(turn.done() for turn in turns) == 1
    for turn in turns:
        turn.result().leave()
        await asyncio.sleep(0)
    assert all(turn.done() for turn in turns) and not line._waiting


async def test_the_line_has_a_bound_for_all_senders_together(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "MAX_RUNNING_MESSAGES": 1}
    monkeypatch.setattr("django_sse_live.http.message_line.WAITING_MAX", 2)
    line = MessageLine()
    first = await line.enter("1", "a")
    turns = await _in_line(line, ("b", "2"), ("c", "3"))
    with pytest.raises(Refused, match="Too many messages"):
        await line.enter("4", "d")
    first.leave()
    (await turns[0]).leave()
    last = await turns[1]
    assert list(line._inside) == [last] and not line._waiting


async def test_one_address_has_half_of_the_line(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "MAX_RUNNING_MESSAGES": 1}
    monkeypatch.setattr("django_sse_live.http.message_line.WAITING_MAX", 6)
    line = MessageLine()
    first = await line.enter("1", "a")
    flood = await _in_line(line, *((f"flood{number}", "2") for number in range(3)))
    with pytest.raises(Refused, match="Too many messages"):
        await line.enter("2", "another of them")
    (visitor,) = await _in_line(line, ("visitor", "3"))
    for turn in flood:
        turn.cancel()
    first.leave()
    (await visitor).leave()


async def test_who_was_given_a_place_as_they_left_gives_it_back() -> None:
    line = MessageLine()
    first = await line.enter("1", "a")
    (turn,) = await _in_line(line, ("a", "1"))
    first.leave()
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    assert not line._inside and not line._held


# Threads


async def test_1000_messages_at_once_take_few_threads(handle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_sse_live.http.message_line.RATE_BURST", 10**9)
    monkeypatch.setattr("django_sse_live.http.message_line.WAITING_PER_SENDER_MAX", 10**9)
    application = live_application(ASGIHandler())
    most = 0
    before = threading.active_count()

    @handle("slow")
    def slow(message: Message) -> None:
        nonlocal most
        most = max(most, threading.active_count() - before)

    async def send(number: int) -> None:
        visitor = {"X-Forwarded-For": f"192.0.{number // 250}.{number % 250}"}
        await StreamClient(application=application).send("slow", headers=visitor)

    await asyncio.gather(*(send(number) for number in range(1000)))
    assert 0 < most <= 80


def sync_middleware(get_response: Any) -> Any:
    return lambda request: get_response(request)


@pytest.mark.parametrize("middleware", [[], [f"{__name__}.sync_middleware"]])
@pytest.mark.parametrize("around", [live_application, lambda application: application])
async def test_a_handler_whose_sender_has_left_keeps_its_thread_and_its_connections(
    handle: Any, transactional_db: None, settings: Any, around: Any, middleware: list[str]
) -> None:
    """Another thread would end with its connections open: one from a pool never comes back. And under sync middleware
    there would be none."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, *middleware]
    used: list[threading.Thread] = []
    begun, may_go_on, is_done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def step() -> None:
        connection.ensure_connection()
        used.append(threading.current_thread())

    @handle("in_steps")
    async def in_steps(message: Message) -> None:
        await sync_to_async(step)()
        begun.set()
        await may_go_on.wait()
        await sync_to_async(step)()
        is_done.set()

    body = json.dumps({"id": uuid4().hex, "type": "in_steps"}).encode()
    scope = AsyncRequestFactory()._base_scope(method="POST", path="/events/")
    scope["headers"] = [(b"host", b"testserver"), (b"content-type", b"application/json")]
    messages: asyncio.Queue[Any] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": body, "more_body": False})

    async def send(message: Any) -> None: ...

    request = asyncio.ensure_future(around(ASGIHandler())(scope, messages.get, send))
    await asyncio.wait_for(begun.wait(), 60)
    messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait([request], timeout=0.5)
    may_go_on.set()
    await asyncio.wait_for(is_done.wait(), 60)
    await asyncio.wait([request], timeout=60)
    assert len(set(used)) == 1


def notes_its_thread(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        request.thread = await sync_to_async(threading.current_thread)()
        return await get_response(request)

    return markcoroutinefunction(middleware)


notes_its_thread.async_capable, notes_its_thread.sync_capable = True, False  # type: ignore[attr-defined]


@pytest.mark.parametrize("around", [live_application, lambda application: application])
async def test_with_tenants_a_handler_runs_in_the_thread_that_middleware_has_seen_also_if_it_waits(
    handle: Any, settings: Any, around: Any
) -> None:
    """django-tenants keeps the tenant in the thread's database connection."""
    settings.SSE_LIVE = {**settings.SSE_LIVE, "NAMESPACE": lambda request: "blue"}
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.notes_its_thread"]
    client = StreamClient(application=around(ASGIHandler()))

    ran: list[Message] = []

    @handle("where")
    async def where(message: Message) -> bool:
        ran.append(message)
        if len(ran) == 1:
            await until(lambda: running_hub().parts[Messages].line._waiting)
        return message.request.thread is await sync_to_async(threading.current_thread)()  # type: ignore[attr-defined]

    assert await asyncio.gather(client.send("where"), client.send("where")) == [True, True]


# The end


async def test_a_worker_that_stops_takes_none(sender: Sender, handle: Any) -> None:
    handle("typing")(lambda message: 1)
    running_hub().shut_down()
    status, answer = await sender.send()
    assert (status, answer["error"], sender.response["Retry-After"]) == (503, "shutdown", "1")


async def test_a_stop_knows_of_handlers_that_run(sender: Sender, handle: Any) -> None:
    busy = []
    handle("typing")(lambda message: busy.append(hub.busy))
    hub = running_hub()
    await sender.send()
    assert (busy, hub.busy) == ([1], 0)


async def test_a_stop_waits_for_them(rooms: None) -> None:
    hub, passed_on = running_hub(), asyncio.Event()
    hub.busy = 1
    StopHandler(hub.loop, lambda number, frame: passed_on.set())(15, None)
    assert not passed_on.is_set()
    hub.busy = 0
    await asyncio.wait_for(passed_on.wait(), 60)


# What is counted


async def test_messages_are_counted(sender: Sender, handle: Any) -> None:
    before = process_counts()
    handle("typing")(lambda message: 1)
    handle("bad")(lambda message: int("x"))
    await sender.send()
    await sender.send("bad")
    await sender.send("unknown")
    await sender.send(content_type="text/plain")
    counts = process_counts()
    assert counts.messages - before.messages == 3
    assert counts.answers - before.answers == {"200": 1, "400": 1}
    assert counts.messages_refused - before.messages_refused == {"no_handler": 1, "unsupported_media_type": 1}
    assert sum(counts.message_seconds.counts) - sum(before.message_seconds.counts) == 2
