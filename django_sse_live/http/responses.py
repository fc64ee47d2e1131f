"""EventStreamResponse: the headers of an event stream, and a client as an async iterator.

This is the way that every ASGI server and Django's own handler know; asgi.py has the shorter one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

from asgiref.sync import SyncToAsync
from django.db import connections
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import ResponseHeaders

from ..hub.clients import Client
from .refusals import Refused
from .servers import UNSENT_BYTES, abort_connection, breathe
from .subscription import handoff_of

HEADERS: Final = ResponseHeaders(
    {
        "Content-Type": "text/event-stream",
        # no-transform: RFC 9111, section 5.2.2.6; keeps proxies from compressing, and so from buffering
        "Cache-Control": "no-cache, no-store, must-revalidate, no-transform",
        "X-Accel-Buffering": "no",  # nginx: hand on each chunk as it comes
    }
)
# Of one connection, so of HTTP/1.x alone: RFC 9113, section 8.2.2
HEADERS_1: Final = ResponseHeaders({**HEADERS, "Connection": "keep-alive", "Keep-Alive": "timeout=30, max=100"})


def stream_headers(request: HttpRequest) -> ResponseHeaders:
    """A copy of the right table. It shares the table's strings, which one made by Django's constructor would not."""
    table = HEADERS_1 if getattr(request, "scope", {}).get("http_version", "1.1").startswith("1") else HEADERS
    headers = ResponseHeaders({})
    headers._store = table._store.copy()
    return headers


def refusal_response(refused: Refused) -> JsonResponse:
    response = JsonResponse(
        {"error": refused.error, "detail": refused.detail},
        status=refused.status,
        headers={"Cache-Control": "no-store", **refused.headers},
    )
    return no_error(response) if refused.status >= 500 else response


def no_error(response: JsonResponse) -> JsonResponse:
    """Django would log a status of 500 or more as an error, and mail it to ADMINS: every one that a worker answers
    while it is full or shuts down, with its request."""
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


class EventStreamResponse(StreamingHttpResponse):
    """200, text/event-stream, and then whatever the client is to hear.

    Under live_application it yields nothing: the client is left in the request's handoff, once Django has sent the
    headers of this very response, and is served outside of Django.
    """

    def __init__(self, client: Client, request: HttpRequest) -> None:
        scope = getattr(request, "scope", {})
        client.abort = partial(abort_connection, scope.get("client"), None)
        self._events = EventStream(client, request)
        self._handoff = handoff_of(request)
        if self._handoff is not None:
            self._handoff.is_expected = True
        super().__init__(self._events, content_type="text/event-stream")
        self.headers: ResponseHeaders = stream_headers(request)

    def has_header(self, header: str) -> bool:
        """Says that Content-Encoding is there, so that GZipMiddleware leaves the stream alone. It is not sent: the
        encoding ``identity`` is nothing that a server should name (RFC 9110, section 8.4.1)."""
        return header.lower() == "content-encoding" or super().has_header(header)

    __contains__ = has_header

    @property
    def is_untouched(self) -> bool:
        """False once a middleware has put content of its own here."""
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
        return content  # type: ignore[no-any-return]


class _Nothing:
    """An async iterator that is over; without the frame that an async generator would keep."""

    def __aiter__(self) -> _Nothing:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        pass


class EventStream:
    """What a client is to hear, chunk by chunk. Its first step enters the registry; aclose() leaves it."""

    __slots__ = ("client", "_is_backlog", "_request")

    def __init__(self, client: Client, request: HttpRequest) -> None:
        self.client: Client = client
        self._is_backlog = False
        self._request: HttpRequest | None = request  # None once the stream has begun

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        client = self.client
        if self._request is not None:
            # Here and not in the view: sync parts of the middleware, on the way out, would make another thread.
            release_request_thread()
            _release_parsed(self._request)
            self._request = None
            client.open()
        client.sending_since = 0.0
        try:
            if self._is_backlog:
                await breathe()
            while True:
                chunk = client.take()
                if chunk is not None:
                    client.sending_since = client.hub.heartbeat.now
                    self._is_backlog = len(chunk) > UNSENT_BYTES
                    return chunk
                if client.close_reason is not None:
                    break
                await client.wait()
        except BaseException as error:
            client.leave("error" if isinstance(error, Exception) else "client")  # cancelled: the client went away
            raise
        client.leave()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.client.leave()


def _release_parsed(request: HttpRequest) -> None:
    """Django keeps the request until its response ends; what was only needed to find and run the view can go: 2 KiB."""
    request.resolver_match = None
    request.__dict__.pop("GET", None)


def release_request_thread() -> None:
    """End the thread that asgiref keeps for this request's sync code, with its database connections.

    Django runs each ASGI request inside a ThreadSensitiveContext, whose one-thread executor would live as long as the
    stream. Sync code that runs in this context later gets a new one. An executor that is not of this context is left
    alone: it belongs to somebody else.
    """
    context: Any = SyncToAsync.thread_sensitive_context.get(None)
    if context is None or getattr(context, "_executor", None) is not None:
        return
    executor = SyncToAsync.context_to_thread_executor.pop(context, None)
    if executor is not None:
        executor.submit(connections.close_all)
        executor.shutdown(wait=False)
