"""A hub on the test's own loop, and a reader that does what every way of streaming does: take, then wait."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest

from django_sse_live.backends import running_hub
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.wire import Form
from tests.clients import make_client


class Reader:
    """Streams one client into a list of chunks."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.chunks: list[bytes] = []
        self._blocked = asyncio.Event()
        self._blocked.set()
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        client = self.client
        client.open()
        while True:
            chunk = client.take()
            if chunk is not None:
                client.sending_since = client.hub.loop.time()
                await self._blocked.wait()
                client.sending_since = 0.0
                self.chunks.append(chunk)
            elif client.close_reason is None:
                await client.wait()
            else:
                break
        client.leave()

    def stop_reading(self) -> None:
        self._blocked.clear()

    def go_on_reading(self) -> None:
        self._blocked.set()

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode()

    def types(self) -> list[str]:
        return re.findall(r"^event: (.*)$", self.text, re.MULTILINE)

    def data(self, type: str) -> list[str]:
        return re.findall(rf"^event: {re.escape(type)}\ndata: (.*)$", self.text, re.MULTILINE)

    def ids(self) -> list[str]:
        return re.findall(r"^id: (.*)$", self.text, re.MULTILINE)

    async def until(self, condition: Callable[[Reader], bool]) -> None:
        await until(lambda: condition(self))

    async def done(self) -> None:
        await asyncio.wait_for(asyncio.shield(self._task), 60)

    async def leave(self) -> None:
        self.client.leave()
        self._blocked.set()
        await self.done()


async def until(condition: Callable[[], bool]) -> None:
    """Until a condition holds; the ten seconds are for a test that fails."""

    async def poll() -> None:
        while not condition():  # conditions of every kind
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), 60)


async def drained(hub: Hub) -> None:
    """Until the hub has received everything that was broadcast before."""
    done = asyncio.Event()
    hub.deliver(done.set)
    await done.wait()


Connect = Callable[..., Reader]


@pytest.fixture
async def hub() -> Hub:
    return running_hub()


@pytest.fixture
async def connect(hub: Hub) -> AsyncIterator[Connect]:
    readers: list[Reader] = []

    def connect(*channels: str, form: Form = "named", **kwargs: object) -> Reader:
        reader = Reader(make_client(hub, channels or ("a",), form, **kwargs))
        readers.append(reader)
        return reader

    yield connect
    for reader in readers:
        await reader.leave()
    assert len(hub.clients) == 0
