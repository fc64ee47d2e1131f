"""What our JavaScript client does about a broken stream, without a browser: it waits, comes back, says where it was."""

from __future__ import annotations

import asyncio
import random
import time
from urllib.parse import quote

from .clients import Client

MAX_RETRY_MS = 30_000
RETRY_GROWTH = 1.5


class Browser:
    """One page. The policy is sse-live.js's: first the wait that the server told (or two seconds), then exponential
    backoff with full jitter, up to 30 s; what a goodbye says comes first."""

    def __init__(self, port: int, path: str = "/ticks/") -> None:
        self.port = port
        self.path = path
        self.last_id = ""
        self.numbers: list[int] = []
        self.resets = 0
        self.resumed = 0
        self.came_back_at: list[float] = []  # monotonic, each time after the first
        self.connects = 0
        self.attempts = 0
        self.is_open = False
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._client is not None and self._client.transport is not None:
            self._client.transport.abort()

    async def _run(self) -> None:
        waits = 0
        while True:
            client = await self._listen()
            if client.connected:
                waits = 0
            if client.goodbyes and client.retry_ms:
                wait_ms = float(client.retry_ms)
            else:
                retry_ms = 2000
                wait_ms = random.random() * min(MAX_RETRY_MS, retry_ms * RETRY_GROWTH**waits) if waits else retry_ms
            waits += 1
            await asyncio.sleep(wait_ms / 1000)

    async def _listen(self) -> Client:
        self.attempts += 1
        query = ("&" if "?" in self.path else "?") + f"last_event_id={quote(self.last_id)}" if self.last_id else ""
        client = self._client = Client(self.path + query, {"Accept": "text/event-stream"})
        gone = asyncio.get_running_loop().create_future()
        client.on_gone = lambda _: gone.done() or gone.set_result(None)
        client.on_body = self._heard
        try:
            await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", self.port)
        except OSError:
            return client
        try:
            await gone
        finally:
            client.transport.abort()
            self.is_open = False
        return client

    def _heard(self, client: Client) -> None:
        if client.connected and not self.is_open:
            self.is_open = True
            self.connects += 1
            if self.connects > 1:
                self.came_back_at.append(time.monotonic())
                self.resumed += client.resumed
        if client.resets:
            self.resets += client.resets
            client.resets = 0
        self.numbers += client.numbers
        del client.numbers[:]
        self.last_id = client.last_id or self.last_id
        if client.is_ended or client.goodbyes:
            client.close()
