"""Handoff: what a request and live_application tell each other, in ``scope["extensions"]``.

live_application puts it there. The view enters the line through it. The response leaves the client in it, which is
served once Django's part has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from django.http import HttpRequest

from ..hub.clients import Client
from .addresses import line_address
from .line import Line, Place
from .threads import release_waiting_thread
from .types import Message, Receive, Scope, Send

HANDOFF: Final = "django_sse_live"  # its key in scope["extensions"]
SERVER_SEND: Final = "django_sse_live.send"  # the same, of the server's own send


class SocketRequest(Protocol):
    """The WebSocket behind a request, as the view knows it."""

    answer: Any  # answers a message; set by the view


class Handoff:
    """Made by live_application for each request; touched on its loop alone."""

    __slots__ = (
        "position", "began_at", "client", "is_expected", "is_gone", "was_in_line", "socket", "server_send",
        "_scope", "_receive", "_send", "_line", "_place", "_first", "_start",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        line: Line,
        position: str | None,
        *,
        server_send: Send,
        socket: SocketRequest | None = None,
    ) -> None:
        self.server_send: Send = server_send
        self.socket: SocketRequest | None = socket  # if the request is the handshake of a WebSocket
        self.position: str | None = position  # where the stream of a page drawn by this request begins
        self.began_at: float = asyncio.get_running_loop().time()  # no access was checked before
        self.is_expected: bool = False  # a view has made an EventStreamResponse
        self.client: Client | None = None  # set once Django has sent the headers of that response unmodified
        self.is_gone: bool = False  # http.disconnect was received
        self.was_in_line: bool = False  # the request asks for an event stream, sends a message, or refreshes a page
        self._scope = scope
        self._receive = receive
        self._send = send
        self._line = line
        self._place: Place | None = None
        self._first: list[Message] = []  # received before Django's part began, for Django to read
        self._start: Message | None = None  # headers that are sent with the first frame, in one write

    # What Django gets instead of the server's receive and send

    async def receive(self) -> Message:
        message = self._first.pop(0) if self._first else await self._receive()
        if message["type"] == "http.disconnect":
            self.is_gone = True
        return message

    async def send(self, message: Message) -> None:
        if self.client is not None and message["type"] == "http.response.body":
            return  # Django's part ends, the stream goes on
        if self.is_expected and message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
            return
        await self.send_start()
        await self._send(message)
        if self._scope["method"] != "POST" and (message["type"] == "http.response.body" or not self.is_expected):
            self.leave_line()  # a plain response, or a stream of the project's own: it may last as long as it likes

    # The line

    @property
    def is_in_line(self) -> bool:
        """Whether the request has a place in the line."""
        return self._place is not None

    async def enter_line(self) -> None:
        """Wait for a place in the line."""
        self.was_in_line = True
        self._place = await self._line.enter(line_address(self._scope))

    def leave_line(self) -> None:
        """Give the place back, if the request has one."""
        place, self._place = self._place, None
        if place is not None:
            place.leave()

    async def has_body(self) -> bool:
        """Whether the request has a body. Waits for its first bytes without a place: a client that announces a body may
        never send it."""
        message = await self._receive()
        self._first.append(message)
        return message["type"] != "http.request" or bool(message.get("body")) or bool(message.get("more_body"))

    async def has_come(self, max_bytes: int) -> bool:
        """Wait for the whole body, without a place. False if it is too long, or does not end. It is kept in one piece:
        a client may send it byte by byte, or empty pieces without end."""
        body = bytearray()
        while True:
            message = await self._receive()
            body += message.get("body", b"")
            is_over = message["type"] != "http.request" or not message.get("more_body")
            if is_over or len(body) > max_bytes:
                break
        is_gone = message["type"] != "http.request"
        self._first.append({"type": "http.request", "body": bytes(body), "more_body": is_gone or not is_over})
        if is_gone:
            self._first.append(message)
        return is_over and not is_gone and len(body) <= max_bytes

    # The headers of the stream

    async def send_start(self) -> None:
        """Send the headers that wait, if any."""
        if self._start is not None:
            start, self._start = self._start, None
            if self.client is not None:
                # In lower case, as ASGI asks for, so that middleware around live_application finds them.
                start["headers"] = [(name.lower(), value) for name, value in start["headers"]]
            await self._send(start)


def server_send_of(scope: Scope, send: Send) -> Send:
    """The server's own send. It is this one, unless a router with another live_application around it lies between."""
    server_send: Send = (scope.get("extensions") or {}).get(SERVER_SEND, send)
    return server_send


def with_extensions(scope: Scope, **more: Any) -> dict[str, Any]:
    """A copy of the scope, for the application inside."""
    return {**scope, "extensions": {**(scope.get("extensions") or {}), **more}}


def handoff_of(request: HttpRequest) -> Handoff | None:
    """The handoff of a request under live_application; None without it."""
    scope: Mapping[str, Any] = getattr(request, "scope", {})
    handoff: Handoff | None = (scope.get("extensions") or {}).get(HANDOFF)
    return handoff


def let_go_of_thread(request: HttpRequest) -> None:
    """Before a request waits for something that needs no thread: give back its thread, and its place in the line."""
    handoff = handoff_of(request)
    if handoff is not None:
        handoff.leave_line()
    release_waiting_thread()
