"""live_application(): handoff, admission and graceful shutdown around Django's app.

    application = live_application(get_asgi_application())

The way of a stream: Django handles the request as any other; the view leaves a client in the request's handoff;
Django's request ends, with its thread, its database connection and its middleware; then the stream goes on here, on
the same connection. Every other request passes through untouched.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from .backends import get_backend
from .conf import live_settings
from .http.push import Push
from .http.servers import (
    UNSENT_BYTES,
    abort_connection,
    breathe,
    paced,
    say_it_is_gone,
    tune_connection,
    watch_termination,
)
from .http.subscription import HANDOFF, client_address
from .hub.clients import Client
from .identity import address_group

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

IDLE_THREADS: Final = 4  # kept for the next streams to open
SHARES: Final = 8  # of MAX_OPENING: one address has one, where addresses are counted

logger: logging.Logger = logging.getLogger("django_sse_live")


def live_application(application: ASGIApplication) -> ASGIApplication:
    """Put around Django's ASGI app, or around whatever routes to it (Channels' ProtocolTypeRouter, static files)."""
    lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()

    async def live(scope: Scope, receive: Receive, send: Send) -> None:
        # This frame lives as long as the stream: it holds nothing that the server does not hold anyway.
        if scope["type"] != "http":
            await application(scope, receive, send)
        else:
            client = await handle(scope, receive, send)
            if client is not None:
                await _serve(client, receive, paced(send))

    async def handle(scope: Scope, receive: Receive, send: Send) -> Client | None:
        """Django's part. Gives the client to be served after it, if there is one and it is still there."""
        loop = asyncio.get_running_loop()
        line = lines.get(loop)
        if line is None:
            line = lines[loop] = _Line()
        handoff = Handoff(scope, receive, send, line)
        inner_scope = {**scope, "extensions": {**(scope.get("extensions") or {}), HANDOFF: handoff}}
        try:
            if _asks_for_stream(scope):
                await handoff.enter_line()
                handoff.began_at = loop.time()
                async with line.thread():
                    await application(inner_scope, handoff.receive, handoff.send)
            else:
                await application(inner_scope, handoff.receive, handoff.send)
        except BaseException as error:
            if handoff.client is None:
                raise
            # The headers are out: no exception may leave (some servers' supervisors die of one).
            if not isinstance(error, Exception):
                return None
            logger.exception("Django failed after it had handed over an event stream; the stream goes on.")
        finally:
            handoff.end_opening()
        client = handoff.client
        if client is None:
            return None
        try:
            await handoff.send_start()
        except (OSError, RuntimeError):
            return None
        except asyncio.CancelledError:
            await _end(send)
            return None
        if handoff.is_gone:
            return None
        watch_termination(client.hub, send)
        tune_connection(client.hub, send)
        client.abort = partial(abort_connection, scope.get("client"), send)
        return client

    return live


class Handoff:
    """What one request and live_application say to each other, in ``scope["extensions"]``."""

    __slots__ = (
        "position", "began_at", "client", "is_expected", "is_gone", "leave_line",
        "_scope", "_receive", "_send", "_line", "_start",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, line: _Line) -> None:
        # Where the stream of a page drawn by this request begins.
        self.position: str | None = get_backend().known_position()
        self.began_at: float = asyncio.get_running_loop().time()  # nobody has looked before whose request it is
        self.is_expected: bool = False  # a view has made an EventStreamResponse
        self.client: Client | None = None  # set once Django has sent the headers of that response, unmodified
        self.is_gone: bool = False  # Django has seen http.disconnect
        self.leave_line: Callable[[], None] | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._line = line
        self._start: Message | None = None  # headers that wait for the first frame: one write instead of two

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_gone = True
        return message

    async def send(self, message: Message) -> None:
        if self.client is not None and message["type"] == "http.response.body":
            return  # the end of Django's part is not the end of the stream
        if self.is_expected and message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
            return
        await self.send_start()
        await self._send(message)
        if self.leave_line is not None and (message["type"] == "http.response.body" or not self.is_expected):
            self.end_opening()  # somebody else's stream, or an answer that is none: it may last as long as it likes

    async def enter_line(self) -> None:
        """Wait for a place among those who open a stream. Called by the view, if not before: what a request accepts
        does not always tell, before Django has found the view, that it is a stream that it asks for."""
        address = address_group(client_address(self._scope))
        await self._line.enter(address)
        self.leave_line = partial(self._line.leave, address)

    async def send_start(self) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)

    def end_opening(self) -> None:
        if self.leave_line is not None:
            leave_line, self.leave_line = self.leave_line, None
            leave_line()


async def _serve(client: Client, receive: Receive, send: Send) -> None:
    """The stream itself: what the client is to hear, until one of the two sides ends it. Nothing is raised from here:
    the headers are out, and a client that went away is not an error."""
    sweep = client.hub.heartbeat
    watcher = client.hub.loop.create_task(_watch_for_disconnect(client, receive))
    try:
        client.push = Push(send)
        client.open()
        while True:
            chunk = client.take()
            if chunk is not None:
                client.sending_since = sweep.now
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                client.sending_since = 0.0
                if len(chunk) > UNSENT_BYTES:
                    await breathe()
            elif client.close_reason is None:
                rest = await client.wait()
                if rest is not None:
                    await rest
                    client.sending_since = 0.0
            else:
                break
    except RuntimeError:
        say_it_is_gone(send)
    except (asyncio.CancelledError, OSError):
        pass  # gone: cancelled by the server, or a broken pipe
    except Exception:
        client.hub.notices.failed(client)
        client.leave("error")
    client.leave()
    watcher.cancel()
    await _end(send)


async def _end(send: Send) -> None:
    """The final empty body, without which a server takes the response for broken."""
    try:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except (asyncio.CancelledError, Exception):
        pass  # there is nobody to tell


async def _watch_for_disconnect(client: Client, receive: Receive) -> None:
    """The one pending receive() of this connection."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except Exception as error:
        logger.debug("receive() failed for SSE client %s: %r", client.id, error)
    client.leave()


def _asks_for_stream(scope: Scope) -> bool:
    if scope["method"] != "GET":
        return False
    for name, value in scope["headers"]:
        if name == b"accept":
            return b"text/event-stream" in value
    return False


class _Line:
    """Of one loop: those who open a stream, MAX_OPENING at a time: each takes a thread for that moment. The rest wait:
    one of each address in turn, and of one address first come, first served. Where addresses are counted at all, by
    MAX_CLIENTS_PER_ADDRESS, none has more than its share of the places: a flood delays itself alone."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()  # by address
        self._idle: list[ThreadPoolExecutor] = []
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # by address, the next one first

    def _has_room(self, address: str) -> bool:
        settings = live_settings()
        if self._inside.total() >= settings.max_opening:
            return False
        if settings.max_clients_per_address is None:
            return True
        return self._inside[address] < max(1, settings.max_opening // SHARES)

    async def enter(self, address: str) -> None:
        if address not in self._waiting and self._has_room(address):
            self._inside[address] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(address)
            raise

    @asynccontextmanager
    async def thread(self) -> AsyncIterator[None]:
        """Lend one thread to the sync code of this request. Django would start and end one for each."""
        executor = self._idle.pop() if self._idle else ThreadPoolExecutor(1, "sse-live-opening")
        async with ThreadSensitiveContext() as context:
            SyncToAsync.context_to_thread_executor[context] = executor
            is_idle = False
            try:
                yield
                is_idle = True  # else its thread may still be at work for a request that was cancelled
            finally:
                if SyncToAsync.context_to_thread_executor.pop(context, None) is executor:
                    if is_idle and len(self._idle) < IDLE_THREADS:
                        self._idle.append(executor)
                    else:
                        executor.shutdown(wait=False)

    def leave(self, address: str) -> None:
        self._inside[address] -= 1
        if not self._inside[address]:
            del self._inside[address]
        while (next_address := next(filter(self._has_room, self._waiting), None)) is not None:
            turns = self._waiting.pop(next_address)
            turn = turns.popleft()
            if turns:
                self._waiting[next_address] = turns  # behind the others
            if not turn.done():
                self._inside[next_address] += 1
                turn.set_result(None)
                return
