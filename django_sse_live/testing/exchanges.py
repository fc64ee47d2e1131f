"""One request, or one WebSocket, to an ASGI application that runs in a task of its own. Knows nothing of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

from django.db import connections

from ..http.types import ASGIApplication, Message, Scope

TIMEOUT_SECONDS: Final = 10.0  # how long an application may take to end once its client has left


def keep_transactions() -> None:
    """Let no application close a connection that is in a transaction, such as that of TestCase.

    Django closes old connections as a request begins and ends, and takes these for old. Its own test client stops that
    for the moment of its request; a stream lasts, beside other requests.
    """
    for connection in connections.all(initialized_only=True):
        connection.close_if_unusable_or_obsolete = partial(_close_if_old, connection)  # type: ignore[method-assign]


def _close_if_old(connection: Any) -> None:
    if not connection.in_atomic_block:
        type(connection).close_if_unusable_or_obsolete(connection)


class Exchange:
    """An HTTP request."""

    def __init__(self, application: ASGIApplication, scope: Scope, body: bytes = b"") -> None:
        self._sent: asyncio.Queue[Message | None] = asyncio.Queue()  # None: the application is done
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._begin(body)
        self._task = asyncio.get_running_loop().create_task(self._run(application, scope))

    def _begin(self, body: bytes) -> None:
        self.put({"type": "http.request", "body": body, "more_body": False})

    def put(self, message: Message) -> None:
        """What the application receives next."""
        self._received.put_nowait(message)

    async def _run(self, application: ASGIApplication, scope: Scope) -> None:
        try:
            await application(scope, self._receive, self._sent.put)
        finally:
            self._sent.put_nowait(None)

    async def _receive(self) -> Message:
        message = await self._received.get()
        if message["type"].endswith(".disconnect"):
            self.put(message)  # an application may ask again
        return message

    async def _first(self) -> Message:
        message = await self._sent.get()
        if message is None:
            await self._task  # raises what the application raised
            raise AssertionError("The application ended without an answer.")
        return message

    async def _leave(self, message: Message) -> None:
        self.put(message)
        await asyncio.wait_for(self._task, TIMEOUT_SECONDS)

    async def status(self) -> int:
        status: int = (await self._first())["status"]
        return status

    async def body(self) -> AsyncIterator[bytes]:
        try:
            while (message := await self._sent.get()) is not None:
                if message.get("body"):
                    yield message["body"]
                if not message.get("more_body"):
                    break
        finally:
            await self._leave({"type": "http.disconnect"})


class SocketExchange(Exchange):
    """A WebSocket."""

    close_code: int | None = None

    def _begin(self, body: bytes) -> None:
        self.put({"type": "websocket.connect"})

    async def is_accepted(self) -> bool:
        return bool((await self._first())["type"] == "websocket.accept")

    async def body(self) -> AsyncIterator[bytes]:
        try:
            while (message := await self._sent.get()) is not None:
                if message["type"] == "websocket.close":
                    self.close_code = message.get("code", 1000)
                    break
                yield message["text"].encode()
        finally:
            await self._leave({"type": "websocket.disconnect", "code": 1005})
