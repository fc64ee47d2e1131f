"""Streams for tests: a client that opens them without a server, and reads them event by event.

Knows Django's test client; nothing of hubs, and of the wire what parsers.py makes of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.http import StreamingHttpResponse
from django.test import AsyncClient

from ..asgi import live_application
from ..conf import live_settings
from ..http.types import ASGIApplication, Scope
from .broadcasts import send_committed_broadcasts
from .exchanges import TIMEOUT_SECONDS, Exchange, SocketExchange
from .parsers import EventParser, LinesParser, ReceivedEvent

Query = Mapping[str, str | Iterable[str]] | str


class StreamRefused(AssertionError):
    """The answer is no stream. ``status``, and of the JSON body ``error`` and ``detail``."""

    def __init__(self, status: int, body: bytes) -> None:
        try:
            said = json.loads(body)
        except ValueError:
            said = {}
        said = said if isinstance(said, dict) else {}
        self.status = status
        self.error: str = said.get("error", "")
        self.detail: str = said.get("detail", body[:500].decode(errors="replace"))
        super().__init__(f"{status} {self.error}: {self.detail}")


class MessageRefused(StreamRefused):
    """The answer to a message is an error. ``status``, ``error`` and ``detail``."""


class StreamEnded(AssertionError):
    """The stream is over, and what was waited for had not come."""


def _url(path: str, query: Query) -> str:
    return path if not query else f"{path}?{query if isinstance(query, str) else urlencode(query, doseq=True)}"


class Stream:
    """An open stream. ``async for event in stream``, or ``await stream.next()``.

    A task reads it all the time, as a browser does; what was read waits for the test. ``connected`` has been taken
    already, and heartbeats come only to those who ask for them by name.
    """

    connected: ReceivedEvent | None = None  # None if the server had no room, and said goodbye instead
    last_id: str = ""  # of the newest event that the test has taken

    def __init__(
        self,
        client: StreamClient,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        socket: SocketExchange | None = None,
    ) -> None:
        self._opened = (client, path, query, headers)
        self._body = body
        self.last_id = headers.get("Last-Event-ID", "")
        self._socket = socket
        self._parser: EventParser | LinesParser = (
            EventParser(self.last_id) if socket is None else LinesParser(self.last_id)
        )
        self._events: asyncio.Queue[ReceivedEvent | None] = asyncio.Queue()  # None: the end
        self._put_back: ReceivedEvent | None = None
        self._has_ended = False
        self._answers: dict[str, asyncio.Future[Any]] = {}  # by the message's id; what is awaited
        self._task = asyncio.get_running_loop().create_task(self._read())

    @property
    def retry_ms(self) -> int | None:
        """How long the server last said a client should wait before it comes back."""
        return self._parser.retry_ms

    @property
    def client_id(self) -> str:
        """This stream's own, as ``connected`` said it."""
        return self.connected.data["client_id"] if self.connected else ""

    @property
    def channels(self) -> list[str]:
        """What this stream hears."""
        return self.connected.data["channels"] if self.connected else []

    async def next(self, type: str | None = None, *, timeout: float = TIMEOUT_SECONDS) -> ReceivedEvent:
        """The next event; with ``type`` the next of that type, and those before it are skipped.

        Under TestCase what waits for the commit of the test's own transaction is sent first, so that the event of a
        save arrives.

        StreamEnded at the end of the stream; TimeoutError after ``timeout`` seconds.
        """
        await sync_to_async(send_committed_broadcasts)()
        try:
            return await asyncio.wait_for(self._next(type), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"No event{f' {type!r}' if type else ''} came within {timeout:g} s.") from None

    async def _next(self, type: str | None) -> ReceivedEvent:
        while True:
            event, self._put_back = self._put_back, None
            if event is None and not self._has_ended:
                event = await self._events.get()
            if event is None:
                self._has_ended = True
                raise StreamEnded(f"The stream ended{f' before an event {type!r} came' if type else ''}.")
            self.last_id = event.id
            if event.type == type or (type is None and event.type != "heartbeat"):
                return event

    async def take(self, count: int) -> list[ReceivedEvent]:
        """The next so many events."""
        return [await self.next() for _ in range(count)]

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> ReceivedEvent:
        try:
            return await self.next()
        except StreamEnded:
            raise StopAsyncIteration from None

    @asynccontextmanager
    async def resume(self) -> AsyncIterator[Stream]:
        """The same request again, with the id of the newest event that was taken: what a browser does after a break."""
        client, path, query, headers = self._opened
        async with client.stream(path, query, headers=headers, last_id=self.last_id) as stream:
            yield stream

    async def send(
        self,
        type: str,
        data: Any = None,
        *,
        channel: str | None = None,
        id: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Any:
        """Send a message, as ``live.send()`` does in a browser: over the WebSocket, else by POST. Gives the answer's
        data; MessageRefused for an error, StreamEnded where the WebSocket ends before the answer comes."""
        message = {"id": id or uuid4().hex, "type": type, "channel": channel, "data": data}
        if self._socket is None:
            client, path, query, headers = self._opened
            return await client.send(
                type,
                data,
                channel=channel,
                path=path,
                query=query,
                id=message["id"],
                client_id=self.client_id,
                headers={name: value for name, value in headers.items() if name != "Accept"},
            )
        answer = asyncio.get_running_loop().create_future()
        self._answers[message["id"]] = answer
        self.send_text(json.dumps(message))
        said = await asyncio.wait_for(answer, timeout)
        if "error" in said:
            raise MessageRefused(said["status"], json.dumps(said).encode())
        return said["data"]

    @property
    def close_code(self) -> int | None:
        """Over a WebSocket: what the server has closed it with."""
        return None if self._socket is None else self._socket.close_code

    def send_text(self, text: str) -> None:
        """Over a WebSocket: one message as it is; its answer is an event of the type ``answer``."""
        assert self._socket is not None, 'StreamClient(transport="websocket") has one.'
        self._socket.put({"type": "websocket.receive", "text": text})

    async def close(self) -> None:
        """Go away, as a browser does when its tab is closed."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for chunk in self._body:
                for event in self._parser.feed(chunk):
                    answer = self._answers.pop(event.data["to"], None) if event.type == "answer" else None
                    if answer is None:
                        self._events.put_nowait(event)
                    elif not answer.done():
                        answer.set_result(event.data)
        finally:
            self._events.put_nowait(None)
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(StreamEnded("The WebSocket ended before the answer came."))


class StreamClient(AsyncClient):
    """Django's AsyncClient (``force_login()``, cookies, headers …) that can also open streams and send messages.

    ``application``: an ASGI application that streams are asked of, such as the project's own with live_application
    around it. Without one they go the way of all requests of Django's test client, through middleware and view.
    ``transport``: what carries the streams, ``"sse"`` or ``"websocket"``. The latter needs an application that serves
    WebSockets; without one it is live_application around Django's.
    """

    def __init__(
        self,
        *args: Any,
        application: ASGIApplication | None = None,
        transport: Literal["sse", "websocket"] = "sse",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if application is None and transport == "websocket":
            application = live_application(get_asgi_application())
        self.application = application
        self.transport = transport

    @asynccontextmanager
    async def stream(
        self,
        path: str = "/events/",
        query: Query = "",
        *,
        last_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Stream]:
        """A Stream, closed at the end of the block.

        ``query``: parameters, such as ``{"channel": ["news", "comments"]}``, unless the path has its own after a ``?``.
        ``last_id``: the Last-Event-ID of the request.

        A WebSocket has this site's ``Origin``, unless ``headers`` give another one, or ``""`` for none. If it is denied
        access, ``connected`` is None and the first event is a goodbye.

        StreamRefused for an answer that is no stream.
        """
        await sync_to_async(send_committed_broadcasts)()  # what was saved before is not news to this stream
        headers = {"Accept": "text/event-stream", **(headers or {})}
        if last_id:
            headers["Last-Event-ID"] = last_id
        url = _url(path, query)
        socket = None
        if self.application is None:
            body = await self._ask_django(url, headers)
        elif self.transport == "websocket":
            socket = await self._open_socket(self.application, url, headers)
            body = socket.body()
        else:
            body = await self._ask_application(self.application, url, headers)
        stream = Stream(self, path, query, headers, body, socket)
        try:
            first = await stream.next(timeout=TIMEOUT_SECONDS)
            if first.type == "connected":
                stream.connected = first
            else:
                stream._put_back = first
            yield stream
        finally:
            await stream.close()

    async def send(
        self,
        type: str,
        data: Any = None,
        *,
        channel: str | None = None,
        path: str = "/events/",
        query: Query = "",
        id: str | None = None,
        client_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a message by POST, without a stream beside it. Gives the data of its answer.

        ``id``: of a message that is sent again; by default a new one.

        MessageRefused for any other answer than 200.
        """
        said = {"id": id or uuid4().hex, "type": type, "channel": channel, "data": data, "client_id": client_id}
        body = json.dumps(said, cls=live_settings().json_encoder).encode()
        url = _url(path, query)
        if self.application is None:
            response: Any = await self.generic("POST", url, body, "application/json", headers=dict(headers or {}))
            status, content = response.status_code, response.content
        else:
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
            scope = self._scope(url, headers)
            scope["method"] = "POST"
            exchange = Exchange(self.application, scope, body)
            status = await exchange.status()
            content = b"".join([chunk async for chunk in exchange.body()])
        if status != 200:
            raise MessageRefused(status, content)
        return json.loads(content)["data"]

    async def _ask_django(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        response: Any = await self.get(url, headers=dict(headers))
        if not isinstance(response, StreamingHttpResponse):
            raise StreamRefused(response.status_code, response.content)
        return aiter(response)

    def _base_scope(self, **request: Any) -> Scope:
        """Django's, with one Cookie header at most: Django 5.2 joins several with a comma, which no cookie survives."""
        scope: Scope = super()._base_scope(**request)  # type: ignore[misc]
        cookies = [value for name, value in scope["headers"] if name == b"cookie" and value]
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"cookie"]
        if cookies:
            scope["headers"].append((b"cookie", b"; ".join(cookies)))
        return scope

    def _scope(self, url: str, headers: Mapping[str, str]) -> Scope:
        parts = urlsplit(url)
        return self._base_scope(
            path=parts.path,
            raw_path=parts.path.encode(),
            query_string=parts.query.encode(),
            headers=[(b"host", b"testserver"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
        )

    async def _open_socket(self, application: ASGIApplication, url: str, headers: Mapping[str, str]) -> SocketExchange:
        scope = self._scope(url, {"Origin": "http://testserver", **headers})
        scope["headers"] = [header for header in scope["headers"] if header != (b"origin", b"")]
        scope.update(type="websocket", scheme="ws", subprotocols=[])
        del scope["method"]
        exchange = SocketExchange(application, scope)
        if not await exchange.is_accepted():
            raise StreamRefused(403, b"")
        return exchange

    async def _ask_application(
        self, application: ASGIApplication, url: str, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        scope = self._scope(url, headers)
        exchange = Exchange(application, scope)
        status = await exchange.status()
        if status != 200:
            raise StreamRefused(status, b"".join([chunk async for chunk in exchange.body()]))
        return exchange.body()
