"""Messages over a WebSocket: the suites of POST once more, and what only a socket can do."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import alogout
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session

from django_sse_live import abroadcast, adisconnect_clients
from django_sse_live.backends import running_hub
from django_sse_live.http import message_line
from django_sse_live.http.socket import UNREAD_FRAMES_PAUSE
from django_sse_live.namespaces import current_namespace
from django_sse_live.testing import MessageRefused, Stream, StreamClient, StreamEnded
from tests.messages.conftest import Sender
from tests.messages.sockets import OPEN, SocketSender, cookies_of
from tests.messages.test_handlers import *  # noqa: F403

del test_a_sync_handler_answers, test_under_wsgi_too  # noqa: F821  # of POST and its headers


@pytest.fixture
def sender() -> Sender:
    return SocketSender()


@pytest.fixture(autouse=True)
def no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all tests together, which have one address."""
    monkeypatch.setattr(message_line, "RATE_PER_SECOND", 1_000_000)


@asynccontextmanager
async def opened(user: User | None = None, query: str = f"channel={OPEN}") -> AsyncIterator[Stream]:
    client = StreamClient(transport="websocket")
    headers = {}
    if user is not None:
        await client.aforce_login(user)
        headers = {"Cookie": cookies_of(client)}
    async with client.stream("/events/", query, headers=headers) as stream:
        yield stream


async def test_answers_come_in_the_order_of_the_messages_and_events_between_them(handle: Any) -> None:
    seen: list[int] = []

    @handle("count")
    async def count(message: Any) -> int:
        await asyncio.sleep(0.01 if message.data % 2 else 0)
        seen.append(message.data)
        return int(message.data) * 10

    async with opened() as stream:
        answers = await asyncio.gather(*(stream.send("count", number) for number in range(20)))
    assert answers == [number * 10 for number in range(20)]
    assert seen == [*range(20)]


async def test_forty_wait_and_the_next_is_refused_with_its_id(handle: Any) -> None:
    release = asyncio.Event()
    ran: list[str] = []

    @handle("slow")
    async def slow(message: Any) -> None:
        ran.append(message.id)
        await release.wait()

    async with opened() as stream:
        ids = [uuid4().hex for _ in range(45)]
        stream.send_text(json.dumps({"id": ids[0], "type": "slow"}))
        while not ran:
            await asyncio.sleep(0.005)
        for id in ids[1:]:
            stream.send_text(json.dumps({"id": id, "type": "slow"}))
        refused = [(await stream.next("answer")).data for _ in range(4)]
        assert [said["to"] for said in refused] == ids[41:]
        assert {(said["status"], said["error"]) for said in refused} == {(429, "too_many_messages")}
        release.set()
        answered = [(await stream.next("answer")).data["to"] for _ in range(41)]
        assert answered == ids[:41]


async def test_a_message_too_long_is_refused_with_its_id_and_the_socket_stays(handle: Any) -> None:
    handle("ok")(lambda message: 1)
    async with opened() as stream:
        id = uuid4().hex
        for data in ("x" * 65536, "😀" * 20000):
            stream.send_text(json.dumps({"id": id, "type": "ok", "data": data}, ensure_ascii=False))
            said = (await stream.next("answer")).data
            assert (said["to"], said["status"], said["error"]) == (id, 413, "too_large")
        assert await stream.send("ok") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "[" * 60000, "{" * 60000, "9" * 5000, '{"a":NaN}'])
async def test_what_is_no_json_object_closes_it(text: str) -> None:
    async with opened() as stream:
        stream.send_text(text)
        said = (await stream.next()).data
        assert (said["type"], said["reason"], said["reconnect"]) == ("goodbye", "bad_message", False)
    assert stream.close_code == 4007


async def test_a_binary_frame_closes_it() -> None:
    async with opened() as stream:
        assert stream._socket is not None
        stream._socket.put({"type": "websocket.receive", "bytes": b"{}", "text": None})
        assert (await stream.next()).data["reason"] == "bad_message"
    assert stream.close_code == 4003


@pytest.mark.parametrize(
    "text", ['{"id":1,"type":"t"}', '{"id":{},"type":"t"}', '{"type":"t"}', '{"id":"x","type":"t"}']
)
async def test_a_malformed_message_is_answered_and_the_socket_stays(text: str, handle: Any) -> None:
    handle("ok")(lambda message: 1)
    async with opened() as stream:
        stream.send_text(text)
        said = (await stream.next("answer")).data
        assert (said["status"], said["error"]) == (400, "malformed_id")
        assert await stream.send("ok") == 1


async def test_a_handler_runs_to_its_end_when_its_socket_has_gone(handle: Any) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @handle("slow")
    async def slow(message: Any) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        ended.set()

    async with opened() as stream:
        stream.send_text(json.dumps({"id": uuid4().hex, "type": "slow"}))
        await begun.wait()
    assert not running_hub().clients
    await asyncio.wait_for(ended.wait(), 5)


async def test_the_answer_of_a_handler_that_runs_at_a_goodbye_comes_before_the_end(handle: Any) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    @handle("slow")
    async def slow(message: Any) -> str:
        begun.set()
        await release.wait()
        return "done"

    async with opened() as stream:
        answer = asyncio.ensure_future(stream.send("slow"))
        await begun.wait()
        await adisconnect_clients(client_id=stream.client_id)
        assert (await stream.next()).type == "goodbye"
        release.set()
        assert await answer == "done"
    assert stream.close_code == 1000


@pytest.mark.django_db(transaction=True)
async def test_a_session_that_is_gone_ends_the_stream_before_the_next_message(handle: Any) -> None:
    ran: list[Any] = []
    handle("note")(lambda message: ran.append(message.user.get_username()))
    user = await User.objects.acreate_user("ada", password="x")
    async with opened(user) as stream:
        await stream.send("note")
        await Session.objects.all().adelete()  # which sends no signal to a stream
        with pytest.raises(StreamEnded):
            await stream.send("note")
        said = (await stream.next()).data
        assert (said["type"], said["reason"], said["reconnect"]) == ("goodbye", "revoked", True)
    assert stream.close_code == 4012
    assert ran == ["ada"]


@pytest.mark.django_db(transaction=True)
async def test_a_session_of_nobody_that_is_gone_ends_it_too(handle: Any) -> None:
    ran: list[Any] = []
    handle("note")(ran.append)
    client = StreamClient(transport="websocket")
    session = await client.asession()
    session["basket"] = [7]
    await session.asave()
    async with client.stream("/events/", f"channel={OPEN}", headers={"Cookie": cookies_of(client)}) as stream:
        await stream.send("note")
        await Session.objects.all().adelete()
        with pytest.raises(StreamEnded):
            await stream.send("note")
    assert len(ran) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [{"is_active": False}, {"password": "other"}])
async def test_a_user_changed_behind_our_back_ends_it_too(change: dict[str, Any], handle: Any) -> None:
    ran: list[Any] = []
    handle("note")(lambda message: ran.append(1))
    user = await User.objects.acreate_user("ada", password="x")
    async with opened(user) as stream:
        await User.objects.aupdate(**change)
        with pytest.raises(StreamEnded):
            await stream.send("note")
    assert ran == []


@pytest.mark.django_db(transaction=True)
async def test_a_handler_that_logs_its_user_out(handle: Any) -> None:
    @handle("bye")
    async def bye(message: Any) -> str:
        await alogout(message.request)
        return "done"

    user = await User.objects.acreate_user("ada", password="x")
    async with opened(user) as stream:
        stream.send_text(json.dumps({"id": uuid4().hex, "type": "bye"}))
        types = [(await stream.next()).type, (await stream.next()).type]
        assert sorted(types) == ["answer", "goodbye"]
    assert not await Session.objects.aexists()


@pytest.mark.django_db(transaction=True)
async def test_a_session_that_a_handler_changes_is_saved(handle: Any) -> None:
    @handle("seen")
    def seen(message: Any) -> int:
        message.request.session["seen"] = message.request.session.get("seen", 0) + 1
        return int(message.request.session["seen"])

    user = await User.objects.acreate_user("ada", password="x")
    async with opened(user) as stream:
        assert [await stream.send("seen") for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "cookies, trusted, may_send",
    [("jwt=1", [], False), ("", [], True), ("jwt=1", ["https://app.example.com"], True)],
    ids=["with cookies", "without cookies", "with cookies, and trusted"],
)
async def test_an_origin_that_may_read_sends_over_a_socket_what_it_may_post(
    cookies: str, trusted: list[str], may_send: bool, handle: Any, settings: Any
) -> None:
    origin = "https://app.example.com"
    settings.SSE_LIVE = {**settings.SSE_LIVE, "ALLOWED_ORIGINS": [origin]}
    settings.CSRF_TRUSTED_ORIGINS = trusted
    ran: list[int] = []
    handle("note")(lambda message: ran.append(1))
    headers = {"Origin": origin, **({"Cookie": cookies} if cookies else {})}
    async with StreamClient(transport="websocket").stream("/events/", f"channel={OPEN}", headers=headers) as stream:
        if may_send:
            await stream.send("note")
        else:
            with pytest.raises(MessageRefused) as refused:
                await stream.send("note")
            assert (refused.value.status, refused.value.error) == (403, "foreign_origin")
        await abroadcast(OPEN, "said", 1)
        assert (await stream.next("said")).data == 1  # it may read all the same
    assert ran == [1] * may_send


async def test_middleware_of_the_handshake_is_seen_by_a_message(handle: Any, settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.messages.test_sockets.put_tenant"]
    handle("who")(lambda message: [message.request.tenant, message.request.method, message.request.path])
    async with opened() as stream:
        assert await stream.send("who") == ["blue", "POST", "/events/"]


async def test_its_tenant_is_that_of_its_handshake(handle: Any, settings: Any) -> None:
    """Who it is may have to be asked of the database, and the handshake's thread is gone."""
    asked: list[Any] = []

    def tenant(request: Any) -> str:
        asked.append(threading.current_thread())
        return "blue"

    settings.SSE_LIVE = {**settings.SSE_LIVE, "NAMESPACE": tenant}
    handle("which")(lambda message: current_namespace())
    async with opened() as stream:
        assert [await stream.send("which"), await stream.send("which")] == ["blue", "blue"]
    assert len(asked) == 1


async def test_the_client_id_is_the_sockets_own(handle: Any) -> None:
    handle("who")(lambda message: message.client_id)
    async with opened() as stream:
        stream.send_text(json.dumps({"id": uuid4().hex, "type": "who", "client_id": "another"}))
        assert (await stream.next("answer")).data["data"] == stream.client_id


async def test_handlers_wait_while_answers_lie_unread(handle: Any) -> None:
    ran: list[int] = []

    @handle("count")
    async def count(message: Any) -> None:
        ran.append(message.data)

    async with opened() as stream:
        client, socket = next(iter(running_hub().clients)), stream._socket
        assert socket is not None
        reads, get = asyncio.Event(), socket._sent.get

        async def get_later() -> Any:
            await reads.wait()
            return await get()

        socket._sent.get = get_later
        socket._sent._maxsize = 1  # so the next send waits
        for number in range(40):
            stream.send_text(json.dumps({"id": uuid4().hex, "type": "count", "data": number}))
        while client.unread_frames <= UNREAD_FRAMES_PAUSE:
            await asyncio.sleep(0.005)
        for _ in range(5_000):
            await asyncio.sleep(0)
        assert UNREAD_FRAMES_PAUSE < len(ran) < 20
        reads.set()
        while len(ran) < 40:
            await asyncio.sleep(0.005)


async def test_a_client_that_reads_no_answers_is_cut_off(handle: Any) -> None:
    async with opened() as stream:
        client = next(iter(running_hub().clients))
        stream._task.cancel()
        socket = stream._socket
        assert socket is not None
        waiting = asyncio.Event()

        async def never(message: Any) -> None:
            await waiting.wait()

        socket._sent.put = never
        for _ in range(300):
            socket.put({"type": "websocket.receive", "text": "x" * 70000})
        while client.close_reason is None:
            await asyncio.sleep(0.005)
        assert client.close_reason == "too_many_messages"
        assert client.unread_frames < 80
        waiting.set()


def put_tenant(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        request.tenant = "blue"
        return await get_response(request)

    return middleware


put_tenant.async_capable = True
put_tenant.sync_capable = False
