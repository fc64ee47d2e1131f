"""An open stream of a test, read event by event. Of the wire it knows what parsers.py makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

from asgiref.sync import sync_to_async

from .broadcasts import send_committed_broadcasts
from .exchanges import TIMEOUT_SECONDS, SocketExchange
from .parsers import EventParser, LinesParser, ReceivedEvent


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


class Stream:
    """An open stream. ``async for event in stream``, or ``await stream.next()``.

    A task reads it all the time, as a browser does; what was read waits for the test. ``connected`` has been taken
    already, and heartbeats come only to those who ask for them by name.
    """

    connected: ReceivedEvent | None = None  # None if the server had no room, and said goodbye instead

    def __init__(
        self,
        body: AsyncIterator[bytes],
        socket: SocketExchange | None,
        last_id: str,
        open_again: Callable[[str], AbstractAsyncContextManager[Stream]],
        post: Callable[..., Awaitable[Any]],
    ) -> None:
        """``open_again``: opens the same stream after an id. ``post``: StreamClient.send() to the same url."""
        self.last_id: str = last_id  # of the newest event that the test has taken
        self._body = body
        self._socket = socket
        self._open_again = open_again
        self._post = post
        self._parser: EventParser | LinesParser = EventParser(last_id) if socket is None else LinesParser(last_id)
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

        StreamEnded at the end of the stream; TimeoutError after ``timeout`` seconds, with what came instead.
        """
        await sync_to_async(send_committed_broadcasts)()
        skipped: list[str] = []
        try:
            return await asyncio.wait_for(self._next(type, skipped), timeout)
        except asyncio.TimeoutError:
            heard = f"The stream hears {', '.join(self.channels) or 'no channel'}"
            instead = f"; there came {', '.join(skipped)}" if skipped else ""
            what = f"No event{f' {type!r}' if type else ''} came within {timeout:g} s."
            raise TimeoutError(f"{what} {heard}{instead}.") from None

    async def _next(self, type: str | None, skipped: list[str]) -> ReceivedEvent:
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
            skipped.append(event.type)

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

    def resume(self) -> AbstractAsyncContextManager[Stream]:
        """The same request again, with the id of the newest event that was taken: what a browser does after a break."""
        return self._open_again(self.last_id)

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
            return await self._post(type, data, channel=channel, id=message["id"], client_id=self.client_id)
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
