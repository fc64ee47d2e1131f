"""EventStreamResponse: the headers of an event stream, and a client as an async iterator.

Every ASGI server and Django's own handler can send it; asgi.py has a shorter way.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import ResponseHeaders

from ..hub.clients import Client
from ..hub.failures import guarded
from .catching_up import open_client
from .handoff import handoff_of
from .refusals import Refused
from .servers import (
    UNSENT_MAX_BYTES,
    Flow,
    abort_connection,
    breathe,
    flow_of,
    tune_connection,
    watch_termination,
    writer_of,
)
from .threads import release_request_thread

FRAMES_MAX: Final = 10  # between the stream's iterator and Django's handler: one, and those of middleware
# In lower case, as ASGI asks for, so that middleware around Django finds them.
HEADERS: Final = ResponseHeaders(
    {
        "content-type": "text/event-stream",
        # no-transform (RFC 9111, section 5.2.2.6) keeps proxies from compressing, and so from buffering
        "cache-control": "no-cache, no-store, must-revalidate, no-transform",
        "x-accel-buffering": "no",  # nginx passes each chunk on at once
    }
)
# For HTTP/1.1 alone: forbidden in HTTP/2 (RFC 9113, section 8.2.2), and in HTTP/1.0 a stream ends the connection.
HEADERS_1: Final = ResponseHeaders({**HEADERS, "connection": "keep-alive", "keep-alive": "timeout=30, max=100"})


def stream_headers(request: HttpRequest) -> ResponseHeaders:
    """A copy of the right table. It shares the table's strings, which Django's constructor would copy."""
    table = HEADERS_1 if getattr(request, "scope", {}).get("http_version", "1.1") == "1.1" else HEADERS
    headers = ResponseHeaders({})
    headers._store = table._store.copy()
    return headers


def refusal_response(refused: Refused, **more: str) -> JsonResponse:
    response = JsonResponse(
        {"error": refused.error, "detail": refused.detail, **more},
        status=refused.status,
        headers={"Cache-Control": "no-store", **refused.headers},
    )
    return no_error(response) if refused.status >= 500 else response


def no_error(response: JsonResponse) -> JsonResponse:
    """Keep Django from logging a status of 500 or more as an error and mailing it to ADMINS. A worker that is full or
    shuts down sends many of them."""
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


class EventStreamResponse(StreamingHttpResponse):
    """200, text/event-stream, and then everything that the client hears.

    Under live_application it yields nothing. The client is left in the request's handoff once Django has sent the
    headers of this response, and is served outside of Django.
    """

    def __init__(self, client: Client, request: HttpRequest) -> None:
        self._events = EventStream(client, request)
        self._handoff = handoff_of(request)
        if self._handoff is not None:
            self._handoff.is_expected = True
        super().__init__(self._events, content_type="text/event-stream")
        self.headers: ResponseHeaders = stream_headers(request)

    def has_header(self, header: str) -> bool:
        """Claims that Content-Encoding is set, so that GZipMiddleware leaves the stream alone. It is not sent: a server
        should not name the encoding ``identity`` (RFC 9110, section 8.4.1)."""
        return header.lower() == "content-encoding" or super().has_header(header)

    __contains__ = has_header

    @property
    def is_untouched(self) -> bool:
        """False once middleware has replaced the content."""
        return self._iterator is self._events  # type: ignore[attr-defined]

    def __aiter__(self) -> AsyncIterator[bytes]:
        content: Any = self._events
        if not self.is_untouched:
            content = super().__aiter__()
        elif self.status_code != 200:
            content = _Nothing()
        elif self._handoff is not None:
            self._handoff.client = self._events.client
            content = _Nothing()
        else:
            self._events.is_alone = True
        return content  # type: ignore[no-any-return]


class _Nothing:
    """An exhausted async iterator, without the frame that an async generator would keep."""

    def __aiter__(self) -> _Nothing:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        pass


class EventStream:
    """What a client hears, chunk by chunk. The first step enters the registry; aclose() leaves it."""

    __slots__ = ("client", "is_alone", "_flow", "_is_backlog", "_request")

    def __init__(self, client: Client, request: HttpRequest) -> None:
        self.client: Client = client
        self.is_alone: bool = False  # Django's handler sends each chunk as it is, without anything in between
        self._flow: Flow | None = None  # if the server accepts any amount of data
        self._is_backlog = False
        self._request: HttpRequest | None = request  # None once the stream has begun

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        client = self.client
        try:
            if self._request is not None:
                self._begin(self._request)
                await open_client(client)
            await self._room()
            if self._is_backlog:
                await breathe()
            while True:
                chunk = client.take()
                if chunk is not None:
                    client.sending_since = client.hub.heartbeat.now
                    self._is_backlog = len(chunk) > UNSENT_MAX_BYTES
                    return chunk
                if client.close_reason is not None:
                    break
                await client.wait()
                await self._room()
        except Exception:
            # The headers are out: the server would drop the connection, or take the error for a broken pipe.
            guarded(client.hub.notices.failed, client)
            client.leave("error")
        except BaseException:  # cancelled: the client left
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def _room(self) -> None:
        """Wait until the client has read enough of what Django or the writer has sent."""
        client = self.client
        if self._flow is not None:
            client.sending_since = client.sending_since or client.hub.heartbeat.now
            await self._flow.ready()
        client.sending_since = 0.0

    def _begin(self, request: HttpRequest) -> None:
        # Not in the view: sync middleware would make another thread on the way out.
        release_request_thread()
        client = self.client
        handoff = handoff_of(request)
        if handoff is not None:
            handoff.leave_line()
        send = handoff.server_send if handoff is not None else find_send()
        self._flow = flow_of(send)
        watch_termination(client.hub, send)
        tune_connection(client.hub, send)
        client.abort = partial(abort_connection, client.hub, getattr(request, "scope", {}).get("client"), send)
        if self.is_alone:
            client.writer = writer_of(client.hub, send, self._flow)
        _release_parsed(request)
        self._request = None

    async def aclose(self) -> None:
        if self._flow is not None:
            self._flow.end()
        self.client.leave()


def _release_parsed(request: HttpRequest) -> None:
    """Django keeps the request as long as its response. Drop what only finding and running the view needed: 2 KiB."""
    request.resolver_match = None
    request.__dict__.pop("GET", None)


def find_send() -> Any:
    """The send() of the ASGIHandler that iterates over the calling iterator; None if not found.

    A response does not know its connection, but pace and the end of a worker must be asked of the server, through its
    send(). live_application knows it anyway.
    """
    frame: Any = sys._getframe(1)
    for _ in range(FRAMES_MAX):
        if frame is None:
            return None
        if frame.f_code is ASGIHandler.send_response.__code__:
            return frame.f_locals.get("send")
        frame = frame.f_back
    return None
