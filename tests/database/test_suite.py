"""What every backend must do."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import IsolatedAsyncioTestCase

import pytest

from django_sse_live.backends.base import Backend
from django_sse_live.testing.backends import BackendSuite
from tests.database.conftest import Make


class DatabaseBackendSuite(BackendSuite):
    @pytest.fixture(autouse=True)
    def _bus(self, bus: str, server: Any, make: Make) -> None:
        self.database, self.server, self.make = bus, server, make

    def make_backend(self) -> Backend:
        return self.make()


class PostgreSQLTests(DatabaseBackendSuite, IsolatedAsyncioTestCase):
    @pytest.fixture
    def kind(self) -> str:
        return "postgresql"

    pytestmark = pytest.mark.needs("postgresql")

    async def take_bus_away(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def bring_bus_back(self) -> None:
        await asyncio.to_thread(self.server.start)


class MariaDBTests(DatabaseBackendSuite, IsolatedAsyncioTestCase):
    @pytest.fixture
    def kind(self) -> str:
        return "mariadb"

    pytestmark = pytest.mark.needs("mariadb")

    async def take_bus_away(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def bring_bus_back(self) -> None:
        await asyncio.to_thread(self.server.start)


class SQLiteTests(DatabaseBackendSuite, IsolatedAsyncioTestCase):
    @pytest.fixture
    def kind(self) -> str:
        return "sqlite"
