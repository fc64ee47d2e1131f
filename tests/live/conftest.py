"""Servers for tests: begun by name, and gone at the test's end, whatever happens."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.live.harness import Server, raise_descriptor_limit

StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture(scope="session", autouse=True)
def _descriptors() -> None:
    raise_descriptor_limit()


@pytest_asyncio.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """``await start_server("uvicorn", HEARTBEAT_SECONDS=1)``: see harness.Server for what else it takes."""
    servers: list[Server] = []

    async def start_server(name: str = "uvicorn", **options: Any) -> Server:
        program = name.partition("-")[0].replace("runserver", "daphne")
        if importlib.util.find_spec(program) is None:
            pytest.skip(f"needs {program}, which is not installed")
        server = Server(name, **options)
        servers.append(server)
        await server.begin()
        return server

    yield start_server
    for server in servers:
        await server.kill()
