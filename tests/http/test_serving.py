"""A stream that ends: what is a break, and what is a fault."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase

from django_sse_live.asgi import live_application
from django_sse_live.backends import running_hub
from django_sse_live.hub.clients import Client
from tests.http.test_handoff import Connection
from tests.live.harness import until

APPLICATIONS = {"live": live_application, "plain": lambda application: application}


@pytest.fixture(params=sorted(APPLICATIONS))
def application(request: pytest.FixtureRequest) -> Any:
    return APPLICATIONS[request.param](get_asgi_application())


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("error", [OSError("of ours"), RuntimeError("of ours"), ValueError("of ours")])
async def test_an_error_of_our_own_is_logged_as_a_fault_whatever_its_type(
    application: Any, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Connection()
    async with stream.opened(application):
        (client,) = running_hub().clients

        def take(self: Client) -> bytes:
            raise error

        monkeypatch.setattr(Client, "take", take)
        client.wake()
        assert stream.task is not None
        await asyncio.wait_for(asyncio.shield(stream.task), 60)
    assert faults(caplog) == [f"The stream of SSE client {client.id} failed."]
    assert client.close_reason == "error"
    assert stream.sent[-1].get("more_body", False) is False, "the response is ended"


async def test_an_error_that_cannot_even_be_logged_ends_the_stream_alone(
    application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("of ours")

    stream = Connection()
    async with stream.opened(application):
        (client,) = running_hub().clients
        monkeypatch.setattr(Client, "take", fail)
        logging.getLogger("django_sse_live").addFilter(fail)
        try:
            client.wake()
            assert stream.task is not None
            await asyncio.wait_for(asyncio.shield(stream.task), 60)
        finally:
            logging.getLogger("django_sse_live").removeFilter(fail)
    assert client.close_reason == "error" and len(running_hub().clients) == 0
    assert stream.sent[-1].get("more_body", False) is False, "the response is ended"


@pytest.mark.parametrize("error", [OSError("broken pipe"), RuntimeError("unexpected message"), ConnectionResetError()])
async def test_an_error_of_send_is_a_client_that_left(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    stream = Connection()
    application = live_application(get_asgi_application())
    async with stream.opened(application):
        (client,) = running_hub().clients
        stream.send_error = error
        client.heartbeat_due = True
        client.wake()
        assert stream.task is not None
        await asyncio.wait_for(asyncio.shield(stream.task), 60)
    assert faults(caplog) == []
    assert client.close_reason == "client"


class SyncOnly:
    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)


def slow(request: HttpRequest, channel: str) -> bool:
    time.sleep(0.01)
    return True


async def test_a_client_that_leaves_under_sync_middleware_is_no_error(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SSE_LIVE = {"AUTHORIZE": slow}
    settings.MIDDLEWARE = ["tests.http.test_serving.SyncOnly"]
    application = live_application(get_asgi_application())

    async def come_and_leave(number: int) -> None:
        stream = Connection("/events/", query=b"channel=room")
        task = asyncio.ensure_future(application(stream.scope, stream.messages.get, stream.send))
        await asyncio.sleep(number % 20 / 500)
        stream.messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(task, 60)

    for _ in range(10):
        await asyncio.gather(*[come_and_leave(number) for number in range(20)])
    await until(lambda: not running_hub().clients)
    assert faults(caplog) == []
