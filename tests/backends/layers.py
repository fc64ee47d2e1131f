"""A channel layer in this process, for tests: what a layer does wrong is done here at a word."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import Any

from channels.layers import BaseChannelLayer


class Server:
    """What all layer objects of a test have in common, as they have a Redis."""

    def __init__(self) -> None:
        self.group: set[str] = set()
        self.channels: dict[str, deque[dict[str, Any]]] = {}
        self.joins = 0  # times that a channel was added to the group
        self.errors: deque[Exception] = deque()  # what the next receives raise; the last one for ever, if ``is_stuck``
        self.is_away = False
        self.lost_answers = 0  # how many of the next sends fail after they were done
        self.is_stuck = False
        self.objects = 0  # layer objects that were made

    def lose(self) -> None:
        """All data, as after FLUSHALL; connections stay."""
        self.group.clear()
        self.channels.clear()


class Layer(BaseChannelLayer):
    """Its CONFIG: ``{"server": Server()}``."""

    extensions = ["groups"]

    def __init__(self, server: Server, capacity: int = 100, **options: Any) -> None:
        super().__init__(capacity=capacity, **options)
        self.server = server
        server.objects += 1

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.server.is_away:
            raise ConnectionError("no server")

    async def new_channel(self, prefix: str = "specific") -> str:
        await self._reach()
        return f"{prefix}.{secrets.token_hex(4)}"

    async def group_add(self, group: str, channel: str) -> None:
        await self._reach()
        self.server.joins += 1
        self.server.group.add(channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await self._reach()
        for channel in list(self.server.group):
            waiting = self.server.channels.setdefault(channel, deque())
            if len(waiting) < self.capacity:
                waiting.append(dict(message))
        if self.server.lost_answers:
            self.server.lost_answers -= 1
            raise ConnectionError("no answer")

    async def receive(self, channel: str) -> dict[str, Any]:
        while True:
            if self.server.errors:
                error = self.server.errors[0] if self.server.is_stuck else self.server.errors.popleft()
                raise error
            await self._reach()
            waiting = self.server.channels.get(channel)
            if waiting:
                return waiting.popleft()
            await asyncio.sleep(0.002)


def on(server: Server, **config: Any) -> dict[str, Any]:
    """CHANNEL_LAYERS."""
    return {"default": {"BACKEND": f"{__name__}.Layer", "CONFIG": {"server": server, **config}}}
