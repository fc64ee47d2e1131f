"""System checks of the database bus: its app, its tables, its sequence, its connection."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from django.apps import apps
from django.core import checks
from django.db import connections
from django.db.utils import Error

from ..conf import is_test_run
from .problems import MIGRATE, TABLES, migrate_command
from .session import UNAVAILABLE, Session

APP = "django_sse_live.database"


def check_database(alias: str, listen_alias: str | None, databases: Collection[str]) -> list[checks.CheckMessage]:
    """Run the checks. ``databases``: the aliases that may be connected to."""
    messages: list[checks.CheckMessage] = []
    if not apps.is_installed(APP):
        messages.append(
            checks.Error(
                f"The database bus has no tables: {APP!r} is not in INSTALLED_APPS.",
                hint=f'Add "{APP}" to INSTALLED_APPS and run: {MIGRATE}',
                id="sse_live.E010",
            )
        )
    connection: Any = connections[alias]
    if connection.vendor == "sqlite":
        messages += _check_sqlite(alias, connection)
    if alias in databases and sys.argv[1:2] != ["migrate"]:
        messages += _check_tables(alias, connection)
        if connection.vendor == "postgresql":
            messages += _check_postgresql(alias, listen_alias, connection)
    return messages


def _check_sqlite(alias: str, connection: Any) -> list[checks.CheckMessage]:
    if connection.is_in_memory_db():
        if is_test_run():  # Django has put it there
            return []
        return [
            checks.Warning(
                f"The database bus is on a SQLite database in memory ({alias!r}): no other process can hear it.",
                hint="Give the database a file.",
                id="sse_live.W010",
            )
        ]
    options = connection.settings_dict["OPTIONS"]
    mode = str(options.get("transaction_mode") or "").upper()
    if mode not in ("IMMEDIATE", "EXCLUSIVE") or "wal" not in str(options.get("init_command", "")).lower():
        return [
            checks.Warning(
                f'Writers of the SQLite database {alias!r} may fail with "database is locked" instead of waiting.',
                hint='In DATABASES: "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA '
                'journal_mode=WAL"}.',
                id="sse_live.W011",
            )
        ]
    return []


def _check_tables(alias: str, connection: Any) -> list[checks.CheckMessage]:
    try:
        with connection.cursor() as cursor:
            found = set(connection.introspection.table_names(cursor))
    except Error:
        return []  # an unreachable database is not reported by this check
    missing = [table for table in TABLES if table not in found]
    if not missing:
        return []
    return [
        checks.Warning(
            f"The tables of the database bus are missing in {alias!r}: {', '.join(missing)}.",
            hint=f"Run: {migrate_command(alias)}",
            id="sse_live.W012",
        )
    ]


def _check_postgresql(alias: str, listen_alias: str | None, connection: Any) -> list[checks.CheckMessage]:
    messages: list[checks.CheckMessage] = []
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT seqcache FROM pg_sequence WHERE seqrelid = to_regclass('sse_live_event_id_seq')")
            row = cursor.fetchone()
        if row is not None and row[0] > 1:
            messages.append(
                checks.Warning(
                    f"The sequence sse_live_event_id_seq in {alias!r} hands out {row[0]} numbers at a time: events of "
                    "different connections would be sent in another order than they were inserted in.",
                    hint="Run: ALTER SEQUENCE sse_live_event_id_seq CACHE 1",
                    id="sse_live.W013",
                )
            )
        if listen_alias is None:
            session = Session(alias)
            try:
                if not session.is_direct:
                    messages.append(
                        checks.Warning(
                            f"Between the database bus and the server of {alias!r} stands a pooler: events are looked "
                            "for ten times a second, since poolers in transaction mode pass no notifications on.",
                            hint="Add an alias to DATABASES that leads to the server itself, and name it in "
                            'SSE_LIVE["OPTIONS"]["LISTEN_DATABASE"].',
                            id="sse_live.W014",
                        )
                    )
            finally:
                session.close()
    except UNAVAILABLE:
        return []
    return messages
