"""What `manage.py check` says of the database bus."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.core import mail
from django.core.checks import run_checks
from django.db import connections
from django.test import modify_settings, override_settings

from tests.database.conftest import MakeAlias, site_settings

GOOD = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}


def ids(alias: str, **options: Any) -> list[str]:
    """Of the bus's own messages, where the database may be asked."""
    with site_settings(alias, **options):
        found = {message.id or "" for message in run_checks(databases=[alias])}
    connections[alias].close()
    return sorted(id for id in found if id == "sse_live.E010" or "sse_live.W010" <= id <= "sse_live.W015")


def test_a_migrated_database_is_fine(bus: str, kind: str) -> None:
    assert ids(bus) == (["sse_live.W011"] if kind == "sqlite" else [])


def test_sqlite_in_memory_unless_it_is_a_test_run_s(add_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch) -> None:
    alias = add_alias({"NAME": ":memory:"})
    assert "sse_live.W010" not in ids(alias)
    monkeypatch.delattr(mail, "outbox")  # of Django's test environment
    assert "sse_live.W010" in ids(alias)


def test_sqlite_without_waiting_writers(add_alias: MakeAlias, tmp_path: Any) -> None:
    file = {"NAME": str(tmp_path / "site.sqlite3")}
    for options in ({"transaction_mode": "IMMEDIATE"}, {"init_command": "PRAGMA journal_mode=WAL"}):
        assert "sse_live.W011" in ids(add_alias({**file, "OPTIONS": options}, migrated=True))
        (tmp_path / "site.sqlite3").unlink()
    assert ids(add_alias({**file, "OPTIONS": GOOD}, migrated=True)) == []


def test_a_missing_app(bus: str, server: Any, kind: str) -> None:
    with modify_settings(INSTALLED_APPS={"remove": "django_sse_live.database"}):
        assert "sse_live.E010" in ids(bus)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "table", [model._meta.db_table for model in apps.get_app_config("sse_live_database").get_models()]
)
def test_every_table_is_missed(bus: str, kind: str, table: str) -> None:
    """An update of the package may bring one, whose migration has not been run."""
    with connections[bus].constraint_checks_disabled():
        connections[bus].cursor().execute(f"DROP TABLE {table}")
    assert "sse_live.W012" in ids(bus)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_sequence_with_a_cache(bus: str) -> None:
    connections[bus].cursor().execute("ALTER SEQUENCE sse_live_event_id_seq CACHE 20")
    assert ids(bus) == ["sse_live.W013"]


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_pooler_between(bus: str, pgbouncer: Any, add_alias: MakeAlias) -> None:
    pooled = add_alias(pgbouncer.settings(connections[bus].settings_dict["NAME"]))
    assert ids(pooled) == ["sse_live.W014"]
    assert ids(pooled, LISTEN_DATABASE=bus) == []


def test_the_app_beside_the_memory_backend() -> None:
    with override_settings(SSE_LIVE={}):
        assert "sse_live.W015" in {message.id for message in run_checks()}
