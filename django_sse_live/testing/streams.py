"""Streams for tests: a client that opens them without a server, and reads them event by event.

Knows the wire and Django's test client; nothing of hubs.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.test import AsyncClient

from .broadcasts import send_committed_broadcasts

TIMEOUT_SECONDS: Final = 10.0

Message = MutableMapping[str, Any]
ASGIApplication = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
Query = Mapping[str, str | Iterable[str]] | str

_LINE_END = re.compile(r"\r\n|\n|\r(?=[^\n])")  # a CR at the end of what is here may be half of a CRLF


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    """One event, as an EventSource would dispatch it."""

    type: str
    data: Any  # parsed JSON; the text itself where it is none
    text: str  # as it came
    id: str  # the last event id, once this event is here


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


class StreamEnded(AssertionError):
    """The stream is over, and what was waited for had not come."""


class EventParser:
    """Bytes in, in pieces of any size; events out.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    def __init__(self, last_id: str = "") -> None:
        self.retry_ms: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._id = last_id
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ReceivedEvent]:
        *lines, self._rest = _LINE_END.split(self._rest + self._decoder.decode(chunk))
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> ReceivedEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ReceivedEvent | None:
        type, lines = self._type or "message", self._data
        self._type, self._data = "", []
        if not lines:
            return None
        text = "\n".join(lines)
        try:
            data = json.loads(text)
        except ValueError:
            data = text
        return ReceivedEvent(type=type, data=data, text=text, id=self._id)


class Stream:
    """An open stream. ``async for event in stream``, or ``await stream.next()``.

    A task reads it all the time, as a browser does; what was read waits for the test. ``connected`` has been taken
    already, and heartbeats come only to those who ask for them by name.
    """

    connected: ReceivedEvent | None = None  # None if the server had no room, and said goodbye instead
    last_id: str = ""  # of the newest event that the test has taken

    def __init__(
        self, client: StreamClient, path: str, query: Query, headers: Mapping[str, str], body: AsyncIterator[bytes]
    ) -> None:
        self._opened = (client, path, query, headers)
        self._body = body
        self.last_id = headers.get("Last-Event-ID", "")
        self._parser = EventParser(self.last_id)
        self._events: asyncio.Queue[ReceivedEvent | None] = asyncio.Queue()  # None: the end
        self._put_back: ReceivedEvent | None = None
        self._has_ended = False
        self._task = asyncio.get_running_loop().create_task(self._read())

    @property
    def retry_ms(self) -> int | None:
        """How long the server last said a client should wait before it comes back."""
        return self._parser.retry_ms

    @property
    def client_id(self) -> str:
        return self.connected.data["client_id"] if self.connected else ""

    @property
    def channels(self) -> list[str]:
        """What this stream hears."""
        return self.connected.data["channels"] if self.connected else []

    async def next(self, type: str | None = None, *, timeout: float = TIMEOUT_SECONDS) -> ReceivedEvent:
        """The next event; with ``type`` the next of that type, and those before it are passed over.

        Under TestCase what waits for the commit of the test's own transaction is sent first, and so the event of a save
        arrives. StreamEnded at the end of the stream; TimeoutError after ``timeout`` seconds.
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

    async def close(self) -> None:
        """Go away, as a browser does when its tab is closed."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for chunk in self._body:
                for event in self._parser.feed(chunk):
                    self._events.put_nowait(event)
        finally:
            self._events.put_nowait(None)


class StreamClient(AsyncClient):
    """Django's AsyncClient (``force_login()``, cookies, headers …) that can also open streams.

    ``application``: an ASGI application that streams are asked of, such as the project's own with live_application
    around it. Without one they go the way of all requests of Django's test client, through middleware and view.
    """

    def __init__(self, *args: Any, application: ASGIApplication | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.application = application

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
        ``last_id``: the Last-Event-ID that is brought. StreamRefused for an answer that is no stream.
        """
        await sync_to_async(send_committed_broadcasts)()  # what was saved before is not news to this stream
        headers = {"Accept": "text/event-stream", **(headers or {})}
        if last_id:
            headers["Last-Event-ID"] = last_id
        url = path if not query else f"{path}?{query if isinstance(query, str) else urlencode(query, doseq=True)}"
        if self.application is None:
            body = await self._ask_django(url, headers)
        else:
            body = await self._ask_application(self.application, url, headers)
        stream = Stream(self, path, query, headers, body)
        try:
            first = await stream.next(timeout=TIMEOUT_SECONDS)
            if first.type == "connected":
                stream.connected = first
            else:
                stream._put_back = first
            yield stream
        finally:
            await stream.close()

    async def _ask_django(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        response: Any = await self.get(url, headers=dict(headers))
        if not isinstance(response, StreamingHttpResponse):
            raise StreamRefused(response.status_code, response.content)
        return aiter(response)

    async def _ask_application(
        self, application: ASGIApplication, url: str, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        parts = urlsplit(url)
        scope: MutableMapping[str, Any] = self._base_scope(  # type: ignore[attr-defined]
            path=parts.path,
            raw_path=parts.path.encode(),
            query_string=parts.query.encode(),
            headers=[(b"host", b"testserver"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
        )
        exchange = _Exchange(application, scope)
        status = await exchange.status()
        if status != 200:
            raise StreamRefused(status, b"".join([chunk async for chunk in exchange.body()]))
        return exchange.body()


class _Exchange:
    """One request to an ASGI application, which runs in a task of its own."""

    def __init__(self, application: ASGIApplication, scope: MutableMapping[str, Any]) -> None:
        self._sent: asyncio.Queue[Message | None] = asyncio.Queue()  # None: the application is done
        self._request: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
        self._is_gone = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(application, scope))

    async def _run(self, application: ASGIApplication, scope: MutableMapping[str, Any]) -> None:
        try:
            await application(scope, self._receive, self._sent.put)
        finally:
            self._sent.put_nowait(None)

    async def _receive(self) -> Message:
        if self._request:
            return self._request.pop()
        await self._is_gone.wait()
        return {"type": "http.disconnect"}

    async def status(self) -> int:
        message = await self._sent.get()
        if message is None:
            await self._task  # raises what the application raised
            raise AssertionError("The application ended without an answer.")
        status: int = message["status"]
        return status

    async def body(self) -> AsyncIterator[bytes]:
        try:
            while (message := await self._sent.get()) is not None:
                if message.get("body"):
                    yield message["body"]
                if not message.get("more_body"):
                    break
        finally:
            self._is_gone.set()
            await asyncio.wait_for(self._task, TIMEOUT_SECONDS)
