"""BackendProcesses: what the tests of a backend work with: processes on one bus, their hubs, and clients of these."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, NoReturn

from ..backends.base import Backend
from ..events import Event
from ..hub.client_info import ClientInfo
from ..hub.clients import Client
from ..hub.hub import Hub
from ..hub.log import EventLog
from ..hub.registry import forget_hubs


class BackendProcesses:
    """The base of BackendSuite, which says what is to be overridden."""

    within_seconds: float = 20.0  # how long the bus may take for anything
    # How long publish() may take while the bus is away, in the median: 50 ms here, and what a busy machine adds.
    save_seconds: float = 0.2
    database: str | None = None  # whose transactions the bus takes part in
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertLess: Callable[..., None]
    assertRaises: Callable[..., Any]
    skipTest: Callable[..., NoReturn]

    def make_backend(self) -> Backend:
        """A backend on the bus of this test; another for each process that it stands for."""
        raise NotImplementedError

    async def take_bus_away(self) -> None:
        """Make the bus unreachable. Where this is not overridden, outages are not tested."""
        self.skipTest("this suite does not know how to take the bus away")

    async def bring_bus_back(self) -> None:
        raise NotImplementedError

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)  # unittest sets it; what is timed here is the bus
        forget_hubs()
        self._backends: list[Backend] = []

    async def asyncTearDown(self) -> None:
        for backend in self._backends:
            await asyncio.to_thread(backend.close)
        forget_hubs()
        await asyncio.sleep(0)

    def process(self) -> Backend:
        """One more process on the bus."""
        backend = self.make_backend()
        self._backends.append(backend)
        return backend

    async def open_hub(self, backend: Backend) -> Hub:
        """A hub of this loop, attached and filled."""
        hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        backend.attach(hub)
        await hub.filled()
        return hub

    async def until(self, condition: Callable[[], object], say: Callable[[], object] | None = None) -> None:
        end = time.monotonic() + self.within_seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"it did not happen in time: {say() if say is not None else condition}")
            await asyncio.sleep(0.002)

    def heard(self, hub: Hub, channel: str = "c", after: int = 0) -> list[Any]:
        """The data of the events of a channel, as far as the hub's log goes back."""
        data: list[Any] = []
        while events := hub.log.read((channel,), after):
            data += [event.data for event in events]
            after = events[-1].position
        return data

    def event(self, data: Any, *channels: str, type: str = "t") -> Event:
        return Event(channels or ("c",), type, json.dumps(data))

    def _client(self, hub: Hub, **whose: str) -> Client:
        client = Client(hub, ClientInfo(("c",), **whose))  # type: ignore[arg-type]
        client.open()
        client.take()
        return client

    def _taken(self, client: Client) -> bytes:
        frames = b""
        while (body := client.take()) is not None:
            frames += body
        return frames

    def _was_told(self, client: Client) -> bool:
        return b"event: reset" in self._taken(client)
