"""SQLite has one writer, and a transaction that has read fails at its first write where another has written since: the
bus must never be that other."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connections, transaction

from django_sse_live import broadcast
from django_sse_live.backends import get_backend
from django_sse_live.database import DatabaseBackend
from django_sse_live.database.problems import explained
from tests.database.conftest import MakeAlias, data_of, hub_of, site_settings
from tests.live.harness import until
from tests.testapp.models import Note

WAL = {"init_command": "PRAGMA journal_mode=WAL"}


def read_then_write(alias: str) -> None:
    with transaction.atomic(using=alias):
        Note.objects.using(alias).count()
        Note.objects.using(alias).create()


@pytest.mark.parametrize("options", [{}, WAL], ids=["default", "wal"])
async def test_deferred_transactions_fail_no_oftener_than_without_the_bus(
    options: dict[str, Any], add_alias: MakeAlias, tmp_path: Path
) -> None:
    """The project writes from one place, so that without the bus none fails. Every fifth transaction stays open until
    the bus has read what was committed before it, the others go on while it does."""
    alias = await asyncio.to_thread(
        partial(add_alias, {"NAME": str(tmp_path / "site.sqlite3"), "OPTIONS": options}, migrated=True)
    )
    with site_settings(alias):
        worker = DatabaseBackend({"DATABASE": alias})
        hub = await hub_of(worker)

        def save(number: int) -> None:
            with transaction.atomic(using=alias):
                Note.objects.using(alias).count()
                if number % 5 == 0:
                    asyncio.run_coroutine_threadsafe(until(lambda: len(data_of(hub, "notes")) == number), loop).result()
                Note.objects.using(alias).create()

        def save_all() -> None:
            for number in range(200):
                save(number)
            connections[alias].close()

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(save_all)
        await until(lambda: len(data_of(hub, "notes")) == 200)
        worker.close()


async def test_with_immediate_none_fails_though_several_write(add_alias: MakeAlias, tmp_path: Path) -> None:
    options = {**WAL, "transaction_mode": "IMMEDIATE", "timeout": 60}
    alias = await asyncio.to_thread(
        partial(add_alias, {"NAME": str(tmp_path / "site.sqlite3"), "OPTIONS": options}, migrated=True)
    )
    failed: list[Exception] = []
    with site_settings(alias):
        worker = DatabaseBackend({"DATABASE": alias})
        hub = await hub_of(worker)

        def save_all() -> None:
            try:
                for _ in range(50):
                    read_then_write(alias)
            except Exception as error:
                failed.append(error)
            connections[alias].close()

        threads = [threading.Thread(target=save_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
        assert not failed
        await until(lambda: len(data_of(hub, "notes")) == 200)
        worker.close()


def test_a_database_that_takes_no_writes_is_called_so(add_alias: MakeAlias, tmp_path: Path) -> None:
    file = tmp_path / "site.sqlite3"
    add_alias({"NAME": str(file)}, migrated=True)
    alias = add_alias({"NAME": f"file:{file}?mode=ro"})
    with site_settings(alias), pytest.raises(DatabaseError, match=f"{alias!r} is read-only") as raised:
        with transaction.atomic(using=alias):
            broadcast("notes", "tick", using=alias)
    assert "GRANT" not in str(raised.value)


class InReadOnlyTransaction(Exception):
    sqlstate = "25006"


@pytest.mark.parametrize(
    "cause",
    [
        InReadOnlyTransaction("cannot execute INSERT in a read-only transaction"),
        Exception(
            1290, "The MariaDB server is running with the --read-only option so it cannot execute this statement"
        ),
        Exception(1290, "The MySQL server is running with the --super-read-only option so it cannot execute this"),
        Exception(1792, "Cannot execute statement in a READ ONLY transaction."),
    ],
)
def test_so_is_a_replica(cause: Exception) -> None:
    error = OperationalError(*cause.args)
    error.__cause__ = cause
    assert "database 'default' is read-only" in str(explained(error, "default"))


async def test_a_stream_hears_what_a_test_saves_in_a_transaction_that_lets_nobody_else_write(
    add_alias: MakeAlias, tmp_path: Path
) -> None:
    """As under TestCase with a file as its database, from the first test on and after a flush."""
    options = {"transaction_mode": "IMMEDIATE"}
    file = {"NAME": str(tmp_path / "test.sqlite3"), "OPTIONS": options}
    alias = await asyncio.to_thread(partial(add_alias, file, migrated=True))
    loop = asyncio.get_running_loop()
    with site_settings(alias):
        backend = get_backend()

        def run_a_test() -> None:
            with transaction.atomic(using=alias):
                hub = asyncio.run_coroutine_threadsafe(hub_of(backend), loop).result()
                for number in range(3):
                    broadcast("c", "t", number, using=alias)
                for _, callback, *_ in connections[alias].run_on_commit:
                    callback()
                heard = until(lambda: data_of(hub) == [0, 1, 2], say=lambda: data_of(hub))
                asyncio.run_coroutine_threadsafe(heard, loop).result()
                transaction.set_rollback(True, using=alias)
            connections[alias].close()

        def flush() -> None:
            call_command(
                "flush",
                database=alias,
                interactive=False,
                verbosity=0,
                reset_sequences=False,
                inhibit_post_migrate=True,
            )
            call_command("migrate", "sse_live_database", database=alias, verbosity=0)  # sends post_migrate, as a flush
            connections[alias].close()

        await asyncio.to_thread(run_a_test)
        await asyncio.to_thread(flush)
        await asyncio.to_thread(run_a_test)
        backend.close()
