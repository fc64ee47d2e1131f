"""Those who open streams in the tests: Django's AsyncClient, and a stream that is read message by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient

from .event_stream import EventStreamParser, Message

PATIENCE_SECONDS = 10  # for a test that fails


class Stream:
    """A streaming response, read as a browser reads it."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.parser = EventStreamParser()
        self._chunks: AsyncIterator[bytes] = aiter(response)
        self._messages: list[Message] = []
        self.raw = b""

    @property
    def retry_ms(self) -> int | None:
        return self.parser.reconnection_time

    async def next(self) -> Message:
        """The next message; StopAsyncIteration at the end of the stream."""
        while not self._messages:
            chunk = await asyncio.wait_for(anext(self._chunks), PATIENCE_SECONDS)
            self.raw += chunk
            self._messages = self.parser.feed(chunk)
        return self._messages.pop(0)

    async def take(self, count: int) -> list[Message]:
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[Message]:
        """All messages up to the end of the stream."""
        messages = []
        while True:
            try:
                messages.append(await self.next())
            except StopAsyncIteration:
                return messages

    async def close(self) -> None:
        """Go away, as a browser does: the server's wait is cancelled."""
        pending = asyncio.ensure_future(anext(self._chunks))
        await asyncio.sleep(0)
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


class Visitor(AsyncClient):
    """An AsyncClient that knows the way to the stream. ``scope``: what a server would say of its connection."""

    def __init__(self, path: str = "/events/", scope: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._path = path
        self._scope = scope or {}

    def _base_scope(self, **request: Any) -> dict[str, Any]:
        return super()._base_scope(**request, **self._scope)

    async def ask(self, query: str = "", method: str = "GET", **headers: str) -> HttpResponse:
        """An answer that is no stream (``accept="…"``, ``last_event_id="…"`` and so on are headers)."""
        response = await self.generic(method, f"{self._path}?{query}", headers=_named(headers))
        if isinstance(response, StreamingHttpResponse):
            async with _closing(Stream(response)):
                raise AssertionError(f"{method} ?{query[:100]} opened a stream")
        return response

    @asynccontextmanager
    async def listen(self, query: str = "", **headers: str) -> AsyncIterator[Stream]:
        headers.setdefault("accept", "text/event-stream")
        response = await self.get(f"{self._path}?{query}", headers=_named(headers))
        assert isinstance(response, StreamingHttpResponse), (response.status_code, response.content)
        assert response.status_code == 200
        async with _closing(Stream(response)) as stream:
            yield stream


@asynccontextmanager
async def _closing(stream: Stream) -> AsyncIterator[Stream]:
    try:
        yield stream
    finally:
        await stream.close()


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
