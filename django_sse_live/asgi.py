"""live_application(): the line of openings, the handoff, WebSockets and the graceful shutdown around Django's app.

    application = live_application(get_asgi_application())

The way of a stream: Django handles the request as any other; the view leaves a client in the request's handoff;
Django's request ends, with its thread, its database connection and its middleware; then the stream goes on here, on
the same connection. A request that brings a good ticket goes on here at once. A WebSocket at a stream's url is a stream
too: Django handles its handshake as that GET. A page that refreshes waits for its turn to be drawn. Every other
request passes through untouched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.core.exceptions import ImproperlyConfigured

from .backends import get_backend, running_hub
from .callables import takes
from .conf import live_settings
from .http.handoff import HANDOFF, SERVER_SEND, Handoff, server_send_of, with_extensions
from .http.handshake import as_get, is_plain_django, refusal_of
from .http.line import PLACE_SECONDS, Line
from .http.messages import MESSAGE_MAX_BYTES
from .http.refreshes import RefreshLine, finds_place, is_refresh, say_later
from .http.resolve import find_stream
from .http.resuming import FIRST_FILL_SECONDS, resume
from .http.servers import abort_connection, paced, tune_connection, watch_termination
from .http.serving import end, serve, serve_watched
from .http.socket import Socket
from .http.threads import OpeningThreads
from .http.types import ASGIApplication, Receive, Scope, Send
from .hub.clients import Client
from .hub.registry import count_refused

# Of a request's headers, those that servers write to their access logs at its end.
LOGGED_HEADERS: Final = frozenset({b"host", b"referer", b"user-agent", b"x-forwarded-for"})
LOGGED_HEADER_MAX_BYTES: Final = 512

logger: logging.Logger = logging.getLogger("django_sse_live")


class _LoopState:
    """What live_application keeps for each loop. Touched on it alone."""

    def __init__(self) -> None:
        self.openings: Line = Line(lambda: live_settings().max_opening, PLACE_SECONDS)
        # Apart, so that slow handlers hold up no stream.
        self.posts: Line = Line(lambda: live_settings().max_opening, PLACE_SECONDS)
        self.refreshes: RefreshLine = RefreshLine()
        self.threads: OpeningThreads = OpeningThreads()

    def line(self, scope: Scope) -> Line:
        """In which a request waits, if it does."""
        if scope["method"] == "POST":
            return self.posts
        return self.refreshes if is_refresh(scope) else self.openings


def live_application(application: ASGIApplication) -> ASGIApplication:
    """Put around Django's ASGI app, or around whatever routes to it (Channels' ProtocolTypeRouter, static files);
    around both, where Django is mounted below a path of another application. TypeError for what is no ASGI
    application, such as one of WSGI."""
    if not (callable(application) and takes(application, "scope", "receive", "send")):
        raise TypeError(
            f"live_application() goes around an ASGI application, not around {application!r}: "
            "application = live_application(get_asgi_application())."
        )
    loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = WeakKeyDictionary()

    is_plain = is_plain_django(application)

    async def live(scope: Scope, receive: Receive, send: Send) -> None:
        # This frame lives as long as the stream: it holds nothing that the server does not hold anyway.
        if scope["type"] == "http":
            server_send = server_send_of(scope, send)
            client, headers = await resume(scope)
            if client is not None:
                start = {"type": "http.response.start", "status": 200, "headers": headers}
                client = await begin(client, scope, send, partial(send, start), server_send)
                del headers, start
            else:
                client = await handle(scope, receive, send, server_send, None)
            if client is not None:
                _let_go_of_request(scope)
                await serve(client, receive, paced(send, server_send))
        elif scope["type"] == "websocket":
            server_send = server_send_of(scope, send)
            if is_plain or _leads_to_stream(as_get(scope, server_send)):
                socket = await open_socket(scope, receive, send, server_send)
                if socket is not None and socket.client is not None:
                    await serve_watched(socket.client, socket.reader, paced(socket.send, server_send))
            else:
                await application(with_extensions(scope, **{SERVER_SEND: server_send}), receive, send)
        else:
            await application(scope, receive, send)

    async def begin(
        client: Client, scope: Scope, send: Send, send_start: Callable[[], Awaitable[None]], server_send: Send
    ) -> Client | None:
        """Send the headers. The client, if it is still there."""
        try:
            await send_start()
        except (OSError, RuntimeError):
            return None
        except asyncio.CancelledError:
            await end(send)
            return None
        watch_termination(client.hub, server_send)
        tune_connection(client.hub, server_send)
        client.abort = partial(abort_connection, client.hub, scope.get("client"), server_send)
        return client

    async def open_socket(scope: Scope, receive: Receive, send: Send, server_send: Send) -> Socket | None:
        """The handshake. Gives the socket with the client to be served, if there is one and it is still there."""
        request = as_get(scope, server_send)
        socket = Socket(receive, send, server_send)
        if (refusal := refusal_of(request)) is not None:
            count_refused(refusal)
            await socket.refuse(None)
            return None
        handshake = socket.handshake
        assert handshake is not None
        try:
            client = await handle(request, handshake.receive, handshake.send, server_send, socket)
        except BaseException:
            socket.reader.cancel()
            raise
        socket.handshake = None
        if client is None:
            await socket.refuse(handshake.refusal)
            return None
        if handshake.cookies:
            # Not every server sends those of an accept.
            client.greeting = {**(client.greeting or {}), "cookies": True}
        if socket.answer is not None:
            socket.answer.end_handshake()
        socket.client = client
        if not await socket.accept(handshake.cookies):
            socket.reader.cancel()
            return None
        _let_go_of_request(scope)
        return socket

    async def handle(
        scope: Scope, receive: Receive, send: Send, server_send: Send, socket: Socket | None
    ) -> Client | None:
        """Django's part. Gives the client to be served after it, if there is one and it is still there."""
        loop = asyncio.get_running_loop()
        if loop not in loops:
            loops[loop] = _LoopState()
        of_loop = loops[loop]
        line = of_loop.line(scope)
        position = get_backend().known_position()
        handoff = Handoff(scope, receive, send, line, position, server_send=server_send, socket=socket)
        inner_scope = with_extensions(scope, **{HANDOFF: handoff, SERVER_SEND: server_send})
        try:
            if (_is_for_stream(scope) and not await handoff.has_body()) or (
                _is_message(scope) and await handoff.has_come(MESSAGE_MAX_BYTES)
            ):
                if position is None:
                    await _fill()
                await handoff.enter_line()
                handoff.began_at = loop.time()
                handoff.position = position or get_backend().known_position()
                async with of_loop.threads.lend():
                    await application(inner_scope, handoff.receive, handoff.send)
            elif line is of_loop.refreshes and not await handoff.has_body() and not await finds_place(handoff):
                await say_later(send)
            else:
                if handoff.is_in_line:
                    handoff.position = get_backend().known_position() or position  # the page is drawn from now on
                await application(inner_scope, handoff.receive, handoff.send)
        except BaseException as error:
            if handoff.client is None:
                if handoff.was_in_line and handoff.is_gone and isinstance(error, Exception):
                    # A break is no error, whatever Django makes of it: asgiref's RuntimeError under sync middleware.
                    logger.debug("Django failed as the client of an event stream left: %r", error)
                    return None
                raise
            # The headers are out: no exception may leave (some servers' supervisors die of one).
            if not isinstance(error, Exception):
                return None
            logger.exception("Django failed after it had handed over an event stream; the stream goes on.")
        finally:
            handoff.leave_line()
        client = handoff.client
        if client is None:
            return None
        client = await begin(client, scope, send, handoff.send_start, server_send)
        return None if handoff.is_gone else client

    return live


async def _fill() -> None:
    """Give a new worker a moment to learn where its bus is, before the checks of its first streams begin: else they
    would have no tickets."""
    try:
        await running_hub().filled(FIRST_FILL_SECONDS)
    except ImproperlyConfigured:
        pass  # the view says so


def _is_for_stream(scope: Scope) -> bool:
    """Whether it is a GET of an event stream's url, as an EventSource sends it. Other requests that lead to a stream
    enter the line in its view."""
    return (
        scope["method"] == "GET"
        and any(name == b"accept" and b"text/event-stream" in value.lower() for name, value in scope["headers"])
        and _leads_to_stream(scope)
    )


def _is_message(scope: Scope) -> bool:
    """Whether it is a POST of JSON to an event stream's url. It has a thread of Django's until its turn to run."""
    return (
        scope["method"] == "POST"
        and any(
            name == b"content-type" and value.lower().startswith(b"application/json")
            for name, value in scope["headers"]
        )
        and _leads_to_stream(scope)
    )


def _leads_to_stream(scope: Scope) -> bool:
    try:
        return find_stream(scope) is not None
    except Exception as error:  # the project's urlconf fails: Django meets that too, and reports it
        logger.debug("The url of a request could not be resolved: %r", error)
        return False


def _let_go_of_request(scope: Scope) -> None:
    """The server keeps the scope as long as the stream, and with it whatever the client has sent."""
    headers: Any = scope["headers"]
    if isinstance(headers, list):
        kept: dict[bytes, bytes] = {}  # of a name that was sent again and again, the first
        for name, value in headers:
            if name in LOGGED_HEADERS and len(value) <= LOGGED_HEADER_MAX_BYTES:
                kept.setdefault(name, value)
        headers[:] = kept.items()
    if "query_string" in scope:
        scope["query_string"] = b""  # 32 KiB, tokens and a ticket; servers have logged it, or leave it out
