"""A stream over a WebSocket, without a server: the handshake as the GET, who may open one, and how it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.test import AsyncRequestFactory, override_settings

from django_sse_live import abroadcast, adisconnect_clients
from django_sse_live.asgi import live_application
from django_sse_live.backends import running_hub
from django_sse_live.hub.registry import process_counts
from django_sse_live.testing import StreamClient, StreamRefused

PUBLIC = {"PUBLIC_CHANNELS": ["news", "sports"]}


@pytest.fixture(autouse=True)
def public_channels(settings: Any) -> None:
    settings.SSE_LIVE = PUBLIC


@pytest.fixture
def socket() -> StreamClient:
    return StreamClient(transport="websocket")


async def refused(client: StreamClient, **headers: str) -> bool:
    try:
        async with client.stream("/events/", "channel=news", headers=headers):
            return False
    except StreamRefused:
        return True


async def test_a_frame_is_a_json_object_with_its_id_and_connected_is_the_first(socket: StreamClient) -> None:
    async with socket.stream("/events/", {"channel": "news"}) as stream:
        assert stream.connected is not None and stream.connected.data["channels"] == ["news"]
        await abroadcast("news", "headline", {"text": "rain"})
        event = await stream.next()
        assert json.loads(event.text) == {
            "id": event.id, "type": "headline", "channels": ["news"], "data": {"text": "rain"},
        }  # fmt: skip
        await adisconnect_clients(channel="news")
        goodbye = await stream.next()
        assert goodbye.type == "goodbye" and goodbye.data["reconnect"] is False
    assert stream.close_code == 1000


async def test_it_resumes_after_the_id_that_it_brings(socket: StreamClient) -> None:
    async with socket.stream("/events/", {"channel": "news"}) as stream:
        await abroadcast("news", "a")
        await stream.next()
    await abroadcast("news", "b")
    async with stream.resume() as again:
        assert again.connected is not None and again.connected.data["resumed"] is True
        assert (await again.next()).type == "b"


async def test_who_has_no_access_is_told_by_a_frame_and_closed(socket: StreamClient) -> None:
    async with socket.stream("/events/", {"channel": "secret"}) as stream:
        said = (await stream.next()).data
        assert (said["type"], said["reason"], said["reconnect"], said["status"]) == ("goodbye", "forbidden", False, 403)
        assert "secret" in said["detail"]
    assert stream.close_code == 1000


async def test_a_full_worker_says_when_to_come_back(socket: StreamClient, settings: Any) -> None:
    settings.SSE_LIVE = {**PUBLIC, "MAX_CLIENTS": 0}
    async with socket.stream("/events/", {"channel": "news"}) as stream:
        said = (await stream.next()).data
        assert (said["type"], said["reason"], said["reconnect"]) == ("goodbye", "too_many_clients", True)
        assert said["retry"] > 0
    assert stream.close_code == 4012


async def test_who_was_told_goodbye_for_good_is_told_so_again(socket: StreamClient) -> None:
    async with socket.stream("/events/", {"channel": "news", "last_event_id": "a:1-1/end"}) as stream:
        assert (await stream.next()).data["reconnect"] is False
    assert stream.close_code == 1000


async def test_a_stop_is_told_and_closed_as_one_that_comes_back(socket: StreamClient) -> None:
    async with socket.stream("/events/", {"channel": "news"}) as stream:
        running_hub().shut_down()
        said = (await stream.next()).data
        assert (said["reason"], said["reconnect"]) == ("shutdown", True)
    assert stream.close_code == 4012
    assert len(running_hub().clients) == 0


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "https://testserver",  # another scheme
        "http://testserver.evil.example",
        "http://eviltestserver",
        "http://testserver:8000",
        "http://testserver@evil.example",
        "http://TESTSERVER",
        "http://testserver/",
    ],
)
async def test_a_foreign_origin_is_refused_before_anything_of_django_runs(
    origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def django(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])

    client = StreamClient(application=live_application(django), transport="websocket")
    before = process_counts().refused["foreign_origin"]
    assert await refused(client, Origin=origin, Cookie="sessionid=x")
    assert await refused(client, Origin=origin)
    assert asked == []
    assert process_counts().refused["foreign_origin"] == before + 2


async def test_without_an_origin_only_who_brings_no_cookie_or_a_bearer_may_open_one(socket: StreamClient) -> None:
    assert not await refused(socket, Origin="")
    assert await refused(socket, Origin="", Cookie="a=b")
    assert not await refused(socket, Origin="", Cookie="a=b", Authorization="Bearer x.y")
    assert await refused(socket, Origin="", Cookie="a=b", Authorization="Basic x")


async def test_headers_that_would_stay_as_long_as_the_socket_are_bounded(socket: StreamClient) -> None:
    before = process_counts().refused["headers_too_long"]
    assert not await refused(socket, **{f"X-{number}": "x" * 6_000 for number in range(10)})
    assert await refused(socket, **{f"X-{number}": "x" * 6_000 for number in range(11)})
    assert process_counts().refused["headers_too_long"] == before + 1


async def test_allowed_origins_may_and_trusted_ones_may_not(socket: StreamClient, settings: Any) -> None:
    settings.SSE_LIVE = {**PUBLIC, "ALLOWED_ORIGINS": ["https://app.example"]}
    settings.CSRF_TRUSTED_ORIGINS = ["https://trusted.example"]
    assert not await refused(socket, Origin="https://app.example")
    assert await refused(socket, Origin="https://trusted.example")


async def test_behind_a_proxy_that_speaks_tls_the_header_says_the_scheme(socket: StreamClient, settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert not await refused(socket, **{"Origin": "https://testserver", "X-Forwarded-Proto": "https"})
    assert await refused(socket, **{"Origin": "http://testserver", "X-Forwarded-Proto": "https"})


async def test_a_host_that_is_not_allowed_is_no_origin(socket: StreamClient, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["else.example"]
    assert await refused(socket)


@pytest.mark.parametrize("path", ["/nowhere/", "/page/"])
async def test_what_is_no_stream_is_denied_and_not_accepted(socket: StreamClient, path: str) -> None:
    with pytest.raises(StreamRefused):
        async with socket.stream(path):
            pass


async def test_a_redirect_is_a_refusal(socket: StreamClient, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", *settings.MIDDLEWARE]
    assert await refused(StreamClient(transport="websocket"))


async def test_what_a_router_knows_goes_inside() -> None:
    async def router(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": '{"type": "echo"}'})
        await send({"type": "websocket.close", "code": 4999})

    client = StreamClient(application=live_application(router), transport="websocket")
    async with client.stream("/echo/", headers={"Origin": "https://else.example"}) as stream:
        assert (await stream.next()).type == "echo"
    assert stream.close_code == 4999


@pytest.mark.django_db(transaction=True)
async def test_cookies_of_the_handshake_are_announced(settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.http.test_sockets.set_cookie"]
    async with StreamClient(transport="websocket").stream("/events/", "channel=news") as stream:
        assert stream.connected is not None and stream.connected.data["cookies"] is True


async def test_without_cookies_nothing_is_said_of_them(socket: StreamClient) -> None:
    async with socket.stream("/events/", {"channel": "news"}) as stream:
        assert stream.connected is not None and "cookies" not in stream.connected.data


async def test_who_leaves_while_django_s_part_ends_is_gone() -> None:
    django = get_asgi_application()
    has_left = asyncio.Event()
    received = [{"type": "websocket.connect"}]

    async def leave_after_django(scope: Any, receive: Any, send: Any) -> None:
        await django(scope, receive, send)
        has_left.set()
        await asyncio.sleep(0.01)  # as a slow request_finished

    async def receive() -> Any:
        if not received:
            await has_left.wait()
        return received.pop() if received else {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Any) -> None:
        """Says nothing of a client that has left, like Hypercorn's."""

    request = AsyncRequestFactory()._base_scope(path="/events/", query_string=b"channel=news")
    scope = {**request, "type": "websocket", "scheme": "ws", "subprotocols": []}
    opened = running_hub().counts.opened
    await asyncio.wait_for(live_application(leave_after_django)(scope, receive, send), 10)
    assert len(running_hub().clients) == 0 and running_hub().counts.opened == opened


async def test_a_heartbeat_and_a_reset_are_lines_with_ids(socket: StreamClient) -> None:
    query = {"channel": "news", "last_event_id": "other:1-1", "heartbeat": "1"}
    with override_settings(SSE_LIVE={**PUBLIC, "HEARTBEAT_MIN_SECONDS": 0.1, "HEARTBEAT_SECONDS": 0.2}):
        async with socket.stream("/events/", query) as stream:
            reset = await stream.next()
            assert (reset.type, reset.data["reason"], bool(reset.id)) == ("reset", "unknown_id", True)
            heartbeat = await stream.next("heartbeat")
            assert heartbeat.id == reset.id


@pytest.mark.django_db(transaction=True)
async def test_a_password_change_ends_it(socket: StreamClient) -> None:
    user = await User.objects.acreate_user("ada", password="x")
    client = StreamClient(transport="websocket", application=live_application(get_asgi_application()))
    await client.aforce_login(user)
    cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    async with client.stream("/events/", headers={"Cookie": cookie}) as stream:
        assert stream.channels == [f"user:{user.pk}"]
        user.set_password("y")
        await user.asave()
        said = (await stream.next()).data
        assert (said["reason"], said["reconnect"]) == ("revoked", True)
    assert stream.close_code == 4012


def set_cookie(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        response = await get_response(request)
        response.set_cookie("seen", "1")
        return response

    return middleware


set_cookie.async_capable = True
set_cookie.sync_capable = False
