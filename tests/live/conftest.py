"""Servers for tests: begun by name, and gone at the test's end, whatever happens."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.live.harness import Server, raise_descriptor_limit
from tests.live.harness.servers import ROOT

StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture(scope="session", autouse=True)
def _descriptors() -> None:
    raise_descriptor_limit()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a site with users: its settings, and a database that its workers share."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.live.access.settings",
        "LIVE_DATABASE": str(tmp_path / "db.sqlite3"),
    }
    command = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
    subprocess.run(command, env={**os.environ, **environment, "PYTHONPATH": str(ROOT)}, check=True)
    return environment


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
