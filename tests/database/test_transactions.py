"""Events as a part of the project's own transactions, and what happens where they cannot be."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib.sessions.backends.cache import SessionStore as CacheSession
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_sse_live import broadcast, disconnect_clients
from django_sse_live.backends import get_backend
from django_sse_live.broadcasting import send_event
from django_sse_live.database import DatabaseBackend, backend, parcels
from django_sse_live.database.dialects.base import Dialect
from django_sse_live.database.session import Session
from django_sse_live.events import CONTROL_CHANNEL, LOST_EVENTS, Event
from django_sse_live.jobs.records import DELTAS
from django_sse_live.savepoints import undone_if_it_fails
from tests.database.conftest import Make, data_in, data_of, event, hub_of, open_client, read, site_settings
from tests.live.harness import until
from tests.testapp.models import Note


def rows(alias: str) -> list[str]:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT body FROM sse_live_event ORDER BY id")
        bodies = [bytes(body) for (body,) in cursor.fetchall()]
        # An event that was taken back is a row without a body.
        return [json.loads(body.decode().partition("\n")[0])["type"] for body in bodies if body]


def wait_for_rows(alias: str, types: list[str]) -> None:
    """An event outside a transaction is stored by the bus thread."""
    end = time.monotonic() + 90
    while rows(alias) != types:
        assert time.monotonic() < end, rows(alias)
        time.sleep(0.01)


def fetch(alias: str, sql: str) -> list[Any]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def execute(alias: str, sql: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)


def test_a_save_and_its_event_are_committed_together(bus: str, site: DatabaseBackend) -> None:
    with transaction.atomic(using=bus):
        Note.objects.using(bus).create()
        assert rows(bus) == ["new_note"]  # it is a row of this very transaction
    assert rows(bus) == ["new_note"]
    with pytest.raises(LookupError), transaction.atomic(using=bus):
        Note.objects.using(bus).create()
        raise LookupError
    assert rows(bus) == ["new_note"]


def test_the_first_event_of_a_process_is_one_query_too(bus: str, site: DatabaseBackend) -> None:
    for _ in range(2):
        with transaction.atomic(using=bus), CaptureQueriesContext(connections[bus]) as queries:
            broadcast("c", "t", using=bus)
        assert [query["sql"].split()[0] for query in queries] == ["INSERT"]


def test_a_query_that_fails_and_is_caught_by_a_projects_own_code_breaks_no_transaction(bus: str) -> None:
    with transaction.atomic(using=bus):
        Note.objects.using(bus).create()
        with undone_if_it_fails(), pytest.raises(DatabaseError):
            execute(bus, "SELECT nothing FROM nowhere")
        Note.objects.using(bus).create()
    assert Note.objects.using(bus).count() == 2


def test_whoever_looks_at_a_projects_queries_sees_the_insert(bus: str, site: DatabaseBackend) -> None:
    seen: list[str] = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with transaction.atomic(using=bus):
        broadcast("c", "unseen", using=bus)
        with connections[bus].execute_wrapper(look):
            broadcast("c", "seen", using=bus)
    assert any(sql.startswith("INSERT INTO sse_live_event ") for sql in seen)
    assert rows(bus) == ["unseen", "seen"]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_broken_transaction_takes_no_event(bus: str, site: DatabaseBackend) -> None:
    with pytest.raises(TransactionManagementError), transaction.atomic(using=bus):
        connections[bus].set_rollback(True)
        broadcast("c", "t", using=bus)
    assert rows(bus) == []


def test_a_transaction_of_another_database_inserts_after_its_commit(
    bus: str, site: DatabaseBackend, add_alias: Any, tmp_path: Any
) -> None:
    other = add_alias({"NAME": str(tmp_path / "other.sqlite3")})
    with transaction.atomic(using=other):
        execute(other, "CREATE TABLE things (id integer)")
        broadcast("c", "elsewhere", using=other)
        assert rows(bus) == []
    wait_for_rows(bus, ["elsewhere"])


def test_a_control_event_belongs_to_the_transaction(bus: str, site: DatabaseBackend) -> None:
    with pytest.raises(LookupError), transaction.atomic(using=bus):
        disconnect_clients(user=1, using=bus)
        raise LookupError
    assert rows(bus) == []
    with transaction.atomic(using=bus):
        disconnect_clients(user=1, using=bus)
    disconnect_clients(user=2)
    wait_for_rows(bus, ["sse.disconnect"] * 2)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
def test_the_end_of_a_session_in_a_cache_outlives_a_rollback_as_the_session_does_not(
    bus: str, site: DatabaseBackend
) -> None:
    session = CacheSession()
    session["key"] = "value"
    session.create()
    with pytest.raises(LookupError), transaction.atomic(using=bus):
        session.flush()
        disconnect_clients(user=1, on_commit=False, using=bus)
        raise LookupError
    wait_for_rows(bus, ["sse.revoke", "sse.disconnect"])


async def test_what_is_sent_now_does_not_wait_for_the_commit(bus: str, kind: str, make: Make) -> None:
    hub = await hub_of(make())
    backend = make()

    def publish() -> None:
        with transaction.atomic(using=bus):
            backend.publish(event("now"))
            if kind != "sqlite":
                while not data_of(hub):
                    pass
        connections[bus].close()

    import asyncio

    await asyncio.to_thread(publish)
    await until(lambda: data_of(hub) == ["now"])


def test_what_a_thread_saves_after_a_broadcast_comes_after_it(
    bus: str, site: DatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the bus thread is slow, such as beside other threads that keep the interpreter."""
    monkeypatch.setattr(backend, "PUBLISH_SECONDS", 90)  # a busy machine's
    inserts, may_insert = threading.Event(), threading.Event()
    insert = parcels.Parcels.insert

    def insert_slowly(self: parcels.Parcels, session: Any) -> bool:
        if len(self):
            inserts.set()
            may_insert.wait(90)
        return insert(self, session)

    monkeypatch.setattr(parcels.Parcels, "insert", insert_slowly)

    def publish() -> None:
        broadcast("c", "first")
        with transaction.atomic(using=bus):
            broadcast("c", "second", using=bus)
        connections[bus].close()

    thread = threading.Thread(target=publish)
    thread.start()
    assert inserts.wait(90)
    thread.join(0.3)
    may_insert.set()
    thread.join()
    wait_for_rows(bus, ["first", "second"])


# An INSERT that fails


@pytest.fixture(params=["dropped", "timeout"])
def broken(request: pytest.FixtureRequest, bus: str, kind: str) -> str:
    if request.param == "dropped":
        execute(bus, "DROP TABLE sse_live_event")
    else:
        if kind != "postgresql":
            pytest.skip("a statement timeout is PostgreSQL's")
        execute(
            bus,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(5); RETURN NEW; END $$",
        )
        execute(bus, "CREATE TRIGGER slow BEFORE INSERT ON sse_live_event FOR EACH ROW EXECUTE FUNCTION slow()")
        execute(bus, "SET statement_timeout = 200")
    return str(request.param)


def test_an_event_that_cannot_be_stored_fails_its_save(bus: str, site: DatabaseBackend, broken: str) -> None:
    with pytest.raises(DatabaseError) as caught, transaction.atomic(using=bus):
        Note.objects.using(bus).create()
    if broken == "dropped":
        assert "python manage.py migrate sse_live_database" in str(caught.value)
    assert Note.objects.using(bus).count() == 0  # and not: no error, and no row


def test_whoever_swallows_the_error_does_not_lose_the_row_in_silence(
    bus: str, site: DatabaseBackend, broken: str
) -> None:
    with pytest.raises(DatabaseError), transaction.atomic(using=bus):
        try:
            Note.objects.using(bus).create()
        except DatabaseError:
            pass
        Note.objects.using(bus).count()  # the transaction says that it is broken
    assert Note.objects.using(bus).count() == 0


def test_with_a_savepoint_the_save_stands(bus: str, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    with site_settings(bus, SAVEPOINT=True):
        with transaction.atomic(using=bus):
            Note.objects.using(bus).create(text="stands")
        assert Note.objects.using(bus).count() == 1
        get_backend().close()
    assert [record for record in caplog.records if record.levelno == logging.ERROR and "is lost" in record.message]


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_the_grant_that_is_missing_is_named_and_enough(
    bus: str, server: Any, add_alias: Any, kind: str, caplog: Any
) -> None:
    name = connections[bus].settings_dict["NAME"]
    user = f"visitor_{name}"
    server.sql(f"CREATE ROLE {user} LOGIN")
    server.sql(f"GRANT SELECT, INSERT ON testapp_note TO {user}; GRANT SELECT ON sse_live_event TO {user}", name)
    alias = add_alias({**server.settings(name), "USER": user})

    def save() -> None:
        with transaction.atomic(using=alias):
            Note.objects.using(alias).create()
        connections[alias].close()

    def count(table: str) -> int:
        return int(fetch(bus, f"SELECT count(*) FROM {table}")[0][0])

    with site_settings(alias):
        with pytest.raises(DatabaseError, match="GRANT SELECT, INSERT, UPDATE, DELETE") as error:
            await asyncio.to_thread(save)
        assert await asyncio.to_thread(count, "testapp_note") == 0
        server.sql(str(error.value).partition("Run: ")[2].partition("that user")[0] + user, name)
        hub = await hub_of(get_backend())
        await asyncio.to_thread(save)
        await until(lambda: len(hub.log) == 1)
        get_backend().publish_deltas(Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": []})))

        async def is_stored() -> bool:
            return await asyncio.to_thread(count, "sse_live_job_delta") == 1

        await until(is_stored)
        await asyncio.to_thread(get_backend().close)
    assert not [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_event_that_is_too_long_is_refused_before_it_does_harm(
    bus: str, site: DatabaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site._dialect, "body_max_bytes", lambda cursor: 1000)
    with transaction.atomic(using=bus):
        with pytest.raises(ValueError, match="at most 1,000"):
            broadcast("c", "long", "x" * 1000, using=bus)
        broadcast("c", "short", using=bus)
    assert rows(bus) == ["short"]


def test_one_that_is_too_long_outside_of_a_transaction_is_lost_alone(
    bus: str, site: DatabaseBackend, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(site._dialect, "body_max_bytes", lambda cursor: 1000)
    broadcast("c", "long", "x" * 1000, using=bus)
    broadcast("c", "short", using=bus)
    wait_for_rows(bus, ["short"])
    assert "does not take an SSE event" in caplog.text and site.dropped == 1


async def test_many_long_ones_go_into_no_single_statement(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of the bus stays short, and what is tried again after a break stays little."""
    monkeypatch.setattr(parcels, "BATCH_BYTES", 2500)
    hub, backend = await hub_of(make()), make()
    sizes: list[int] = []
    insert = backend._dialect.insert

    def insert_and_note(cursor: Any, rows: Any) -> list[int]:
        sizes.append(sum(len(row.body) for row in rows))
        return insert(cursor, rows)

    monkeypatch.setattr(backend._dialect, "insert", insert_and_note)
    for number in range(20):
        backend.thread.publish(event([number, "x" * 1000]))
    await until(lambda: [number for number, _ in data_of(hub)] == list(range(20)))
    assert max(sizes) <= 4000


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
def test_after_a_break_each_is_searched_for_by_a_statement_that_the_server_takes(
    bus: str, make: Make, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least that some hosts give: one event goes into a packet, several may not."""
    dialect = make()._dialect
    waiting = parcels.Parcels(dialect)
    server.sql("SET GLOBAL max_allowed_packet = 1048576")
    session = Session(bus)
    try:
        stored = [waiting.add(event([number, "x" * 400_000])) for number in range(3)]
        with monkeypatch.context() as patch:
            patch.setattr(dialect, "insert", Mock(side_effect=OperationalError("the connection was lost")))
            with pytest.raises(OperationalError):
                waiting.insert(session)
        assert waiting.insert(session) and all(each.done() for each in stored)
        assert session.query("SELECT count(*) FROM sse_live_event") == [(3,)]
    finally:
        session.close()
        server.sql("SET GLOBAL max_allowed_packet = DEFAULT")


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
async def test_a_server_that_takes_less_than_before_is_asked_again(
    bus: str, make: Make, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event("first"))
    await until(lambda: data_of(hub) == ["first"])
    server.sql("SET GLOBAL max_allowed_packet = 1048576")
    try:
        for line in server.sql("SELECT id FROM information_schema.processlist WHERE db IS NOT NULL").split():
            server.sql(f"KILL {line}")
        await backend.apublish(event("x" * 1_100_000))
        await backend.apublish(event("second"))
        await until(lambda: data_of(hub)[-1:] == ["second"])
        assert "does not take an SSE event" in caplog.text and backend.dropped == 1
    finally:
        server.sql("SET GLOBAL max_allowed_packet = DEFAULT")


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"], indirect=True)
def test_a_long_one_over_which_the_connection_ends_each_time_is_given_up_and_told(
    bus: str, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy may take less than its server, which nothing tells from an outage."""
    dialect, session = make()._dialect, Session(bus)
    waiting = parcels.Parcels(dialect)
    insert = dialect.insert

    def refuse_long_ones(cursor: Any, rows: Any) -> list[int]:
        if any(len(row.body) > parcels.LARGE_BYTES for row in rows):
            raise OperationalError("the connection was lost")
        return insert(cursor, rows)

    monkeypatch.setattr(dialect, "insert", refuse_long_ones)
    try:
        for data in ("before", "x" * 600_000, "behind"):
            waiting.add(event(data))
        for _ in range(parcels.BREAKS_MAX + 1):
            with pytest.raises(OperationalError):
                waiting.insert(session)
        assert waiting.insert(session) and not len(waiting)
        bodies = [bytes(body) for (body,) in session.query("SELECT body FROM sse_live_event ORDER BY id")]
        assert [body.partition(b"\n")[2] for body in bodies] == [b"{}", b'"before"', b'"behind"']
        assert LOST_EVENTS.encode() in bodies[0] and waiting.dropped == 1
        assert "over the INSERT of an SSE event" in caplog.text
    finally:
        session.close()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
async def test_a_disconnect_passes_by_nothing_that_was_saved_before_it(
    bus: str, site: DatabaseBackend, make: Make
) -> None:
    other = make()
    hub = await hub_of(other)
    client = await open_client(other, hub)
    loop = asyncio.get_running_loop()

    def finish(event: Event) -> bool:
        """Slow: another process gives positions meanwhile."""
        asyncio.run_coroutine_threadsafe(other.apublish(event_of_meanwhile), loop).result()
        asyncio.run_coroutine_threadsafe(until(lambda: hub.log.last_position("d")), loop).result()
        return True

    def save() -> None:
        with transaction.atomic(using=bus):
            send_event(Event(("c",), "t", "1", finish=finish), using=bus)
            disconnect_clients(channel="c", using=bus)
        connections[bus].close()

    event_of_meanwhile = event("meanwhile", "d")
    await asyncio.to_thread(save)
    await until(lambda: client.close_reason)
    text = read(client)
    assert data_in(text) == [1] and "event: goodbye" in text


@pytest.mark.parametrize("by", ["the setting", "the database"])
def test_a_row_that_is_too_long_at_the_commit_is_logged_and_holds_up_no_other(
    bus: str, kind: str, site: DatabaseBackend, by: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def finish(event: Event) -> bool:
        event.payload = json.dumps("x" * 3000)
        return True

    if by == "the database":
        monkeypatch.setattr(site._dialect, "body_max_bytes", lambda cursor: 2048)
    options = site_settings(bus).options["SSE_LIVE"]
    with override_settings(SSE_LIVE={**options, "EVENT_MAX_BYTES": 2048 if by == "the setting" else 4096}):
        assert get_backend() is site
        with transaction.atomic(using=bus):
            send_event(Event(("c",), "long", "null", finish=finish), using=bus)
            broadcast("c", "after", using=bus)
        wait_for_rows(bus, ["after"])
    assert "A saved row is not told" in caplog.text and "2,048" in caplog.text


def test_an_event_that_is_taken_back_leaves_nothing_that_is_never_trimmed(bus: str, site: DatabaseBackend) -> None:
    with transaction.atomic(using=bus):
        send_event(Event(("c", "d"), "t", "null", finish=lambda event: False), using=bus)
        broadcast(["c", "d"], "after", using=bus)
    column = site._dialect.position
    end = time.monotonic() + 90
    while fetch(bus, f"SELECT count(*) FROM sse_live_event WHERE {column} IS NOT NULL") != [(2,)]:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert rows(bus) == ["after"]
    trimmed = (
        f"SELECT count(*) FROM sse_live_event_channel WHERE position <= (SELECT max({column}) FROM sse_live_event)"
    )
    assert fetch(bus, trimmed) == fetch(bus, "SELECT count(*) FROM sse_live_event_channel")


# Tests of a project


def test_under_testcase_what_is_captured_is_sent(bus: str, site: DatabaseBackend) -> None:
    """What django.test.TestCase and captureOnCommitCallbacks() do, by hand: the alias is known to no test run."""
    outer = transaction.atomic(using=bus)
    outer._from_testcase = True
    outer.__enter__()
    try:
        broadcast("c", "captured", using=bus)
        waiting = [callback for _, callback, *_ in connections[bus].run_on_commit]
        assert len(waiting) == 1
        if connections[bus].vendor != "sqlite":
            waiting[0]()
    finally:
        connections[bus].set_rollback(
            True,
        )
        outer.__exit__(None, None, None)
    wait_for_rows(bus, ["captured"] if connections[bus].vendor != "sqlite" else [])


def test_a_database_in_memory_is_one_process(add_alias: Any) -> None:
    alias = add_alias({"NAME": ":memory:"})
    with site_settings(alias):
        backend = get_backend()
        assert isinstance(backend, DatabaseBackend)
        with transaction.atomic(using=alias):
            assert backend.enlist(event(1), alias) is None
        before = backend.position()
        backend.publish(event(1))
        assert backend.position() != before
        assert not backend._threads


def test_options_are_checked() -> None:
    from django.core.exceptions import ImproperlyConfigured

    for options, match in (
        ({"DATABASE": "nowhere"}, "an alias of DATABASES"),
        ({"LISTEN_DATABASE": "nowhere"}, "an alias of DATABASES"),
        ({"SAVEPOINT": 1}, "True or False"),
        ({"RETENTION_SECONDS": 1}, "at least 60"),
        ({"NO_SUCH": 1}, "Its options"),
    ):
        with pytest.raises(ImproperlyConfigured, match=match):
            DatabaseBackend(options)
    with override_settings(SSE_LIVE={}):
        pass


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_an_event_is_inserted_past_djangos_cursor_only_where_nobody_has_a_say_in_it(
    bus: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from psycopg import Cursor

    connection, by_django = connections[bus], Mock(side_effect=Dialect.insert_in)
    monkeypatch.setattr(Dialect, "insert_in", lambda *given: by_django(*given))
    backend = make()

    def is_past_django(channels: tuple[str, ...] = ("c",)) -> bool:
        by_django.reset_mock()
        with transaction.atomic(using=bus):
            fetch(bus, "SELECT 1")
            backend.enlist(Event(channels, "t", '"é"'), bus)
        return not by_django.called

    class Traced(Cursor[Any]):
        pass

    assert is_past_django()
    with connection.execute_wrapper(lambda execute, *given: execute(*given)):
        assert not is_past_django()
    with CaptureQueriesContext(connection):
        assert not is_past_django()
    assert not is_past_django(("c", "d"))
    fetch(bus, "SELECT 1")
    with connection.connection.pipeline():
        assert not is_past_django()
    connection.inc_thread_sharing()
    assert not is_past_django()
    connection.dec_thread_sharing()
    with monkeypatch.context() as green:
        green.setitem(sys.modules, "gevent.monkey", Mock(is_module_patched=lambda name: name == "threading"))
        assert not is_past_django()
    assert is_past_django()
    connection.connection.cursor_factory = Traced
    assert not is_past_django()
    assert rows(bus) == ["t"] * 9


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_an_event_may_be_the_first_statement_of_a_transaction(bus: str, make: Make) -> None:
    backend = make()
    for _ in range(2):
        with transaction.atomic(using=bus):
            backend.enlist(event("first"), bus)
            backend.enlist(event("second"), bus)
            transaction.set_rollback(True, using=bus)
    with transaction.atomic(using=bus):
        backend.enlist(event("third"), bus)
    assert len(rows(bus)) == 1


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_the_error_of_an_insert_is_that_of_the_driver(bus: str, server: Any, make: Make) -> None:
    from psycopg import errors

    backend = make()
    with transaction.atomic(using=bus):
        fetch(bus, "SELECT 1")
        backend.enlist(event("before"), bus)
    execute(bus, "ALTER TABLE sse_live_event RENAME TO elsewhere")
    try:
        with pytest.raises(DatabaseError, match="migrate") as raised, transaction.atomic(using=bus):
            fetch(bus, "SELECT 1")
            backend.enlist(event("lost"), bus)
    finally:
        execute(bus, "ALTER TABLE elsewhere RENAME TO sse_live_event")
    cause = raised.value.__cause__
    assert cause is not None and isinstance(cause.__cause__, errors.UndefinedTable)
    with pytest.raises(DatabaseError), transaction.atomic(using=bus):
        ((pid,),) = fetch(bus, "SELECT pg_backend_pid()")
        server.sql(f"SELECT pg_terminate_backend({pid}, 60000)")
        backend.enlist(event("lost"), bus)
    connections[bus].close()
    assert len(rows(bus)) == 1
