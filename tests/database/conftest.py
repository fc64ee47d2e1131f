"""Each database as a site has it: `bus` is an alias of DATABASES with the tables of the bus and of the test app."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from django_sse_live.backends import get_backend
from django_sse_live.backends.base import Backend
from django_sse_live.database import DatabaseBackend
from django_sse_live.events import Event, parse_id
from django_sse_live.hub.client_info import ClientInfo
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.reading import LOST
from tests.database.servers import MariaServer, PgBouncer, PostgresServer, use_mysql_driver
from tests.live.harness import until
from tests.testapp.models import Note

__all__ = ["Make", "MakeAlias", "data_of", "event", "hub_of", "open_client", "until"]

MakeAlias = Callable[..., str]
Make = Callable[..., DatabaseBackend]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer("max_prepared_transactions=5") as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(postgres) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaServer]:
    use_mysql_driver()
    with MariaServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _database_access(django_db_blocker: Any) -> Iterator[None]:
    """pytest-django forbids it by default, and would roll back what must be committed here."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def add_alias() -> Iterator[MakeAlias]:
    """More entries of DATABASES, for one test."""
    added: list[str] = []

    def add(settings: dict[str, Any], name: str = "", *, migrated: bool = False) -> str:
        alias = name or f"bus_{secrets.token_hex(3)}"
        connections.settings[alias] = {**connections.settings["other"], "TEST": {}, **settings}
        added.append(alias)
        if migrated:
            call_command("migrate", "sse_live_database", database=alias, verbosity=0)
            with connections[alias].schema_editor() as editor:
                editor.create_model(Note)
            connections[alias].close()
        return alias

    yield add
    for alias in added:
        if hasattr(connections, alias):
            connections[alias].close()
            del connections[alias]
        del connections.settings[alias]


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on; a test that is about some of them says so by parametrize(…, indirect=True)."""
    needed = {"postgresql": "postgresql", "mariadb": "mariadb"}.get(request.param)
    if needed is not None:
        from tests.conftest import find_program, how_to_get

        if find_program(needed) is None:
            pytest.skip(how_to_get(needed))
    return str(request.param)


@pytest.fixture
def server(kind: str, request: pytest.FixtureRequest) -> Any:
    """The process behind it; None for SQLite."""
    return None if kind == "sqlite" else request.getfixturevalue({"postgresql": "postgres", "mariadb": "mariadb"}[kind])


@pytest.fixture
def bus(kind: str, server: Any, add_alias: MakeAlias, tmp_path: Path) -> str:
    """An alias of a migrated database of that kind."""
    if kind == "sqlite":
        return add_alias({"NAME": str(tmp_path / "bus.sqlite3")}, migrated=True)
    name = f"bus_{secrets.token_hex(4)}"
    server.create(name)
    return add_alias(server.settings(name), migrated=True)


@pytest.fixture
def site(bus: str) -> Iterator[DatabaseBackend]:
    """The backend in force is on that database."""
    with site_settings(bus):
        backend = get_backend()
        assert isinstance(backend, DatabaseBackend)
        yield backend


def site_settings(alias: str, **options: Any) -> Any:
    backend = "django_sse_live.database.DatabaseBackend"
    return override_settings(SSE_LIVE={"BACKEND": backend, "OPTIONS": {"DATABASE": alias, **options}})


@pytest.fixture
def make(bus: str) -> Iterator[Make]:
    """Backends, each of which stands for a process."""
    made: list[DatabaseBackend] = []

    def make(**options: Any) -> DatabaseBackend:
        backend = DatabaseBackend({"DATABASE": bus, **options})
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.close()
    connections[bus].close()


# What tests do with backends


def event(data: Any, *channels: str, type: str = "t") -> Event:
    return Event(channels or ("c",), type, json.dumps(data))


async def hub_of(backend: Backend) -> Hub:
    """A hub of this loop, filled."""
    hub = Hub(asyncio.get_running_loop(), EventLog("0"))
    backend.attach(hub)
    await hub.filled()
    assert hub.is_ready
    return hub


def data_of(hub: Hub, channel: str = "c") -> list[Any]:
    found: list[Any] = []
    after = 0
    while events := hub.log.read((channel,), after):
        found += [each.data for each in events]
        after = events[-1].position
    return found


async def open_client(backend: Backend, hub: Hub, last_id: str = "", *channels: str) -> Client:
    """As a view does it."""
    last: Any = parse_id(last_id) if last_id else "none"
    assert last is not None
    client = Client(hub, ClientInfo(channels or ("c",)), last_id=last)
    if client.needs_history:
        if client.cursor > hub.log.head:
            if not await backend.has_reached(hub, client.cursor):
                client.cursor = LOST
        elif (history := await backend.history(hub, client.channels, client.cursor)) is not None:
            client.replay(history)
    client.open()
    return client


def read(client: Client) -> str:
    """All that it would be sent now."""
    text = b""
    while (body := client.take()) is not None:
        text += body
    return text.decode()


def data_in(text: str) -> list[Any]:
    return [json.loads(data) for data in re.findall(r"^event: t\ndata: (.*)$", text, re.MULTILINE)]
