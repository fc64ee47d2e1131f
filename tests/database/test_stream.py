"""The stream over time: what is trimmed, restored, flushed, late, or read long after."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.test import override_settings

from django_sse_live.database import DatabaseBackend, history, listener, problems
from django_sse_live.database.listener import Listener
from django_sse_live.database.rows import NUMBER_MASK, encode_row
from django_sse_live.database.session import Session
from django_sse_live.events import CONTROL_CHANNEL, Event, parse_id, position_milliseconds
from django_sse_live.jobs.records import DELTAS
from django_sse_live.workers import REPORT
from tests.database.conftest import Make, MakeAlias, data_in, data_of, event, hub_of, open_client, read
from tests.live.harness import until


def execute(alias: str, sql: str) -> list[Any]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


async def in_thread(work: Any) -> Any:
    def run() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


# Whatever stands in the table

DEEP = b"[" * 100_000
MALFORMED = [
    b"\xff not ours",
    b"[]\n1",
    DEEP,
    b'{"channels":["c"],"type":"t","more":' + DEEP,
    b'{"channels":"c","type":"t"}\n1',
    b'{"channels":[],"type":"t"}\n1',
    b'{"channels":[7],"type":"t"}\n1',
    b'{"channels":[{}],"type":"t"}\n1',
    b'{"channels":["c"],"type":7}\n1',
    b'{"channels":["c"],"type":"t\\n\\ndata: x"}\n1',
    b'{"channels":["c"],"type":"t","text":"yes"}\n1',
    b'{"channels":["c"],"type":"t","patch":{"action":"remove"}}\n1',
    b'{"channels":["c"],"type":"t","patch":"[]"}\n1',
    b'{"channels":["sse.control"],"type":"sse.disconnect"}\n[]',
    b'{"channels":["sse.control"],"type":"sse.revoke"}\n' + DEEP,
]


async def test_malformed_rows_are_passed_over_counted_and_named_a_few_times(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event("first"))
    await until(lambda: data_of(hub) == ["first"])
    for body in MALFORMED:
        monkeypatch.setattr("django_sse_live.database.rows.encode_body", lambda event, token="", body=body: body)
        await backend.apublish(event("bad"))
    monkeypatch.undo()
    await backend.apublish(event("good"))
    await until(lambda: data_of(hub) == ["first", "good"])
    assert backend.unreadable == len(MALFORMED)
    named = [record.message for record in caplog.records if "is passed over" in record.message]
    assert len(named) == 10
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    late = make()
    assert data_of(await hub_of(late)) == ["first", "good"]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_what_is_not_even_bytes_is_passed_over(make: Make, bus: str) -> None:
    """SQLite keeps a value of whatever type."""
    backend = make()
    for value in ("'text'", "7", "1e99"):
        await backend.apublish(event("bad"))
        await until(lambda: not backend.buffered)
        await in_thread(lambda value=value: execute(bus, f"UPDATE sse_live_event SET body = {value}"))
        await backend.apublish(event("good"))
        await until(lambda: not backend.buffered)
        assert data_of(await hub_of(make())) == ["good"]


# Beyond the worker's log


async def test_what_has_left_the_log_is_read_by_its_channels(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make()
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 3}):
        hub = await hub_of(backend)
        await backend.apublish(event(0))
        await until(lambda: len(hub.log) == 1)
        first_id = hub.log.head_id
        for number in range(1, 20):
            await backend.apublish(event(number, "c" if number % 2 else "other"))
            await backend.apublish(event(number, "x", "c"))  # as its second channel
        await until(lambda: data_of(hub, "x")[-1:] == [19])
        client = await open_client(backend, hub, first_id)
        text = read(client)
        assert "event: reset" not in text
        expected = [n for number in range(1, 20) for n in ([number] * 2 if number % 2 else [number])]
        assert data_in(text) == expected
        late = await hub_of(make())  # whose log begins with the last three
        assert data_in(read(await open_client(make(), late, first_id))) == expected
    assert backend.thread.history._answers  # for others who come back now
    monkeypatch.setattr(history, "KEPT_SECONDS", 0)
    await until(lambda: not backend.thread.history._answers)


async def test_what_is_too_much_to_be_replayed_is_not_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes: list[int] = []
    query = Session.query

    def noted_query(self: Session, *args: Any) -> list[Any]:
        rows = query(self, *args)
        read_bytes.extend(len(value) for each in rows for value in each if isinstance(value, (bytes, memoryview)))
        return rows

    many = [f"m{number}" for number in range(40)]
    monkeypatch.setattr(history, "REPLAY_BYTES", 100_000)
    backend = make()
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 2}):
        hub = await hub_of(backend)
        await backend.apublish(event(0))
        await until(lambda: len(hub.log) == 1)
        first_id = hub.log.head_id
        for number in range(20):
            await backend.apublish(event("x" * 10_000, *(["first"] if number % 2 else ["other", "second"])))
        await backend.apublish(event("y" * 10_000, "other", *many))
        for number in range(3):
            await backend.apublish(event(number, "end"))
        await until(lambda: data_of(hub, "end")[-1:] == [2])
        monkeypatch.setattr(Session, "query", noted_query)
        for channel in ("first", "second"):
            assert "event: reset" in read(await open_client(backend, hub, first_id, channel))
        assert sum(read_bytes) < 10_000
        # An event counts once, on however many of its channels it is heard.
        assert data_in(read(await open_client(backend, hub, first_id, *many))) == ["y" * 10_000]
        assert sum(read_bytes) < 20_000


async def test_a_client_that_was_away_for_too_long_is_told(bus: str, make: Make, kind: str) -> None:
    backend = make(RETENTION_SECONDS=3600)
    hub = await hub_of(backend)
    for number in range(5):
        await backend.apublish(event(number, "a", "c"))
    await until(lambda: len(hub.log) == 5)
    first_id = hub.log.read(("c",), 0)[0].id
    await in_thread(lambda: execute(bus, "UPDATE sse_live_event SET milliseconds = 1000"))
    backend.thread._trimming._at = 0.0
    await backend.apublish(event("new"))
    await until(lambda: data_of(hub)[-1:] == ["new"])
    await until(lambda: in_thread(lambda: execute(bus, "SELECT count(*) FROM sse_live_event") == [(1,)]))
    assert await in_thread(lambda: execute(bus, "SELECT count(*) FROM sse_live_event_channel")) == [(0,)]
    other = make()
    late = await hub_of(other)
    assert "event: reset" in read(await open_client(other, late, first_id))
    assert "event: reset" in read(await open_client(other, late, f"{late.log.epoch}:0-0"))
    here = read(await open_client(backend, hub, first_id))  # its log still has them
    assert data_in(here) == [1, 2, 3, 4, "new"]
    head = late.log.head_id
    await other.apublish(event("next"))
    await until(lambda: data_of(late)[-1:] == ["next"])
    assert data_in(read(await open_client(other, late, head))) == ["next"]


async def test_a_thousand_events_of_one_transaction_are_all_heard_in_their_order(bus: str, make: Make) -> None:
    backend = make()
    hub = await hub_of(make())

    def publish() -> None:
        with transaction.atomic(using=bus):
            for number in range(1000):
                after_commit = backend.enlist(event(number), bus)
                assert after_commit is not None
                transaction.on_commit(after_commit, using=bus)

    await in_thread(publish)
    await until(lambda: data_of(hub) == list(range(1000)), say=lambda: len(data_of(hub)))


# Another lineage


async def test_a_stream_that_opens_after_a_flush_hears_all_of_the_new_one(bus: str, make: Make) -> None:
    """As in each test but the first of a TransactionTestCase, whose flush resets no sequence."""
    backend = make()
    serving = await hub_of(backend)
    await backend.apublish(event("before"))
    await until(lambda: len(serving.log) == 1)
    before = serving.log.epoch
    await in_thread(partial(call_command, "migrate", "auth", database=bus, verbosity=0))  # a flush writes permissions
    flush = partial(call_command, "flush", database=bus, interactive=False, verbosity=0, reset_sequences=False)
    await in_thread(flush)
    await asyncio.sleep(0)
    assert serving.log.epoch != before
    for hub in (serving, await hub_of(make())):
        client = await open_client(backend, hub)
        await backend.apublish(event("after"))
        await until(lambda hub=hub: data_of(hub)[-1:] == ["after"])  # type: ignore[misc]
        assert "event: reset" not in read(client)


async def test_a_flushed_database_is_another_stream(bus: str, make: Make) -> None:
    backend = make()
    hub = await hub_of(backend)
    client = await open_client(backend, hub)
    for number in range(3):
        await backend.apublish(event(number))
    await until(lambda: len(hub.log) == 3)
    before = hub.log.head_id
    read(client)
    flush = partial(call_command, "flush", database=bus, interactive=False, verbosity=0, inhibit_post_migrate=True)
    await in_thread(flush)
    await backend.apublish(event("after"))
    await until(lambda: data_of(hub)[-1:] == ["after"], say=lambda: data_of(hub))
    text = read(client)
    assert text.count("event: reset") == 1
    assert parse_id(hub.log.head_id)[0] != parse_id(before)[0]
    assert "event: reset" in read(await open_client(backend, hub, before))


async def test_a_flushed_database_goes_on_without_a_second_reset(bus: str, make: Make) -> None:
    """As Django does between two tests: ids go on where they were."""
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event("before"))
    await until(lambda: data_of(hub) == ["before"])
    before = hub.log.epoch
    flush = partial(call_command, "flush", database=bus, interactive=False, verbosity=0, inhibit_post_migrate=True)
    await in_thread(partial(flush, reset_sequences=False))
    await until(lambda: hub.log.epoch != before)
    client = await open_client(backend, hub)
    await backend.apublish(event("after"))
    await until(lambda: data_of(hub) == ["after"], say=lambda: data_of(hub))
    assert "event: reset" not in read(client)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
async def test_jobs_of_other_processes_stream_on_in_a_flushed_database(bus: str, make: Make) -> None:
    """Its ids begin anew, below those that were read."""
    backend = make()
    hub = await hub_of(make())
    heard: list[Any] = []
    hub.handlers[DELTAS] = heard.append

    async def stream_until_heard(text: str) -> None:
        said = Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": [text]}))
        await until(lambda: backend.publish_deltas(said) or {"jobs": [text]} in heard)

    await stream_until_heard("before")
    for _ in range(20):
        backend.publish_deltas(Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": ["more"]})))
    await until(lambda: heard.count({"jobs": ["more"]}) == 20)
    flush = partial(call_command, "flush", database=bus, interactive=False, verbosity=0, inhibit_post_migrate=True)
    await in_thread(flush)
    await backend.apublish(event("after"))
    await until(lambda: data_of(hub)[-1:] == ["after"], say=lambda: data_of(hub))
    backend.publish_deltas(Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": ["after"]})))
    await until(lambda: heard[-1:] == [{"jobs": ["after"]}], say=lambda: heard[-1:])


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_dump_is_restored_while_workers_look(bus: str, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """pg_restore makes a table, fills it and gives it its key, each in a transaction of its own."""
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event("before"))
    await until(lambda: data_of(hub) == ["before"])

    def run(sql: str) -> Any:
        return in_thread(lambda: execute(bus, sql))

    await run(
        "CREATE TABLE dumped AS TABLE sse_live_stream; DROP TABLE sse_live_stream;"
        "CREATE TABLE sse_live_stream (LIKE dumped)"
    )
    await until(lambda: "SSE bus lost" in caplog.text)
    await run("INSERT INTO sse_live_stream TABLE dumped")
    await run("ALTER TABLE sse_live_stream ADD PRIMARY KEY (id)")
    await backend.apublish(event("after"))
    await until(lambda: data_of(hub)[-1:] == ["after"], say=lambda: data_of(hub))


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
async def test_a_copy_on_the_same_server_is_another_stream(
    bus: str, make: Make, kind: str, server: Any, add_alias: MakeAlias
) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event("before"))
    await until(lambda: data_of(hub) == ["before"])
    before = hub.log.head_id
    await in_thread(backend.close)
    name = connections.settings[bus]["NAME"]
    copy = f"{name}_copy"
    if kind == "postgresql":  # which copies no database that has sessions
        server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        await until(lambda: server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'") == "0")
        server.sql(f"CREATE DATABASE {copy} TEMPLATE {name}")
    else:
        server.create(copy)
        for table in problems.TABLES:
            server.sql(f"CREATE TABLE {copy}.{table} LIKE {name}.{table}")
            server.sql(f"INSERT INTO {copy}.{table} SELECT * FROM {name}.{table}")
    copied = make(DATABASE=add_alias(server.settings(copy)))
    fresh = await hub_of(copied)
    await copied.apublish(event("after"))
    await until(lambda: data_of(fresh)[-1:] == ["after"])
    assert "event: reset" in read(await open_client(copied, fresh, before))


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
async def test_the_last_of_a_job_is_sent_though_the_thread_of_the_bus_has_stopped(make: Make) -> None:
    """At the end of a process, whichever of the two comes first."""
    backend = make()
    hub = await hub_of(make())
    heard: list[Any] = []
    hub.handlers[DELTAS] = heard.append
    await backend.apublish(event("before"))
    await until(lambda: data_of(hub) == ["before"])
    await asyncio.to_thread(backend.thread.stop)
    said = Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": ["last"]}))
    await asyncio.to_thread(backend.publish_deltas, said)
    await until(lambda: heard == [{"jobs": ["last"]}])


async def test_a_database_that_was_taken_back_is_another_stream(bus: str, make: Make, kind: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    client = await open_client(backend, hub)
    for number in range(6):
        await backend.apublish(event(number))
    await until(lambda: len(hub.log) == 6)
    ahead = hub.log.head_id

    def restore() -> None:
        execute(bus, "DELETE FROM sse_live_event WHERE id > 3")
        if kind != "sqlite":
            execute(bus, "UPDATE sse_live_stream SET head = 3")

    restoring = make()  # begins after the restore, and so has not noticed
    read(client)
    await in_thread(restore)
    fresh = await hub_of(restoring)
    if fresh.log.epoch == parse_id(ahead)[0]:
        assert "event: reset" in read(await open_client(restoring, fresh, ahead))  # never waited for in vain
    await until(lambda: hub.log.epoch != parse_id(ahead)[0])
    assert "event: reset" in read(client)
    await backend.apublish(event("after"))
    await until(lambda: data_of(hub)[-1:] == ["after"] and data_of(fresh)[-1:] == ["after"])
    assert hub.log.head_id == fresh.log.head_id


async def test_an_id_that_was_never_given_is_unknown_however_near_it_is(bus: str, make: Make) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event(1))
    await until(lambda: len(hub.log) == 1)
    epoch, position = parse_id(hub.log.head_id)  # type: ignore[misc]
    milliseconds, number = position_milliseconds(position), position & NUMBER_MASK
    for ahead in (f"{milliseconds + 1}-{number}", f"{milliseconds}-{number + 1}", f"{milliseconds + 1}-0"):
        text = read(await open_client(backend, hub, f"{epoch}:{ahead}"))
        assert '"reason":"unknown_id"' in text and '"resumed":true' not in text, ahead


async def test_who_missed_events_that_somebody_deleted_is_told(bus: str, make: Make, kind: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    client = await open_client(backend, hub)
    for number in range(3):
        await backend.apublish(event(number))
    await until(lambda: len(hub.log) == 3)
    behind, up_to_date = hub.log.read(("c",), 0)[0].id, hub.log.head_id
    read(client)
    await in_thread(lambda: execute(bus, f"{'DELETE FROM' if kind == 'sqlite' else 'TRUNCATE'} sse_live_event"))
    beginning = make()
    assert "event: reset" in read(await open_client(beginning, await hub_of(beginning), behind))
    await backend.apublish(event("after"))
    await until(lambda: data_of(hub)[-1:] == ["after"])
    beginning = make()
    fresh = await hub_of(beginning)
    assert "event: reset" in read(await open_client(beginning, fresh, behind))
    if kind != "sqlite":  # whose head goes back, which makes it another stream
        assert data_in(read(await open_client(beginning, fresh, up_to_date))) == ["after"]
        assert "event: reset" not in read(client)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_worker_that_begins_behind_a_pending_event_resumes_who_is_past_it(
    bus: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process has died, and the other workers wait for it no longer."""
    backend = make()
    hub = await hub_of(backend)
    monkeypatch.setattr("django_sse_live.database.positions.PENDING_SECONDS", 0.1)

    def insert() -> None:
        with connections[bus].cursor() as cursor:
            backend._dialect.insert(cursor, [encode_row(Event(("c",), "t", "0", finish=lambda event: True))])

    await in_thread(insert)
    await backend.apublish(event(1))
    await until(lambda: data_of(hub) == [0, 1])
    monkeypatch.setattr("django_sse_live.database.positions.PENDING_SECONDS", 60)
    beginning = make()
    fresh = await hub_of(beginning)
    assert data_of(fresh) == []
    client = await open_client(beginning, fresh, hub.log.head_id)
    assert '"resumed":true' in read(client)
    monkeypatch.setattr("django_sse_live.database.positions.PENDING_SECONDS", 0.1)
    await beginning.apublish(event(2))
    await until(lambda: data_of(fresh) == [0, 1, 2])
    assert data_in(read(client)) == [2]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_stream_that_is_made_anew_waits_for_a_pending_event(bus: str, make: Make) -> None:
    backend = make()

    def insert() -> int:
        with connections[bus].cursor() as cursor:
            cursor.execute("DELETE FROM sse_live_stream")
            (id,) = backend._dialect.insert(cursor, [encode_row(Event(("c",), "t", "0", finish=lambda event: True))])
            return id

    id = await in_thread(insert)
    hub = await hub_of(backend)
    await in_thread(partial(backend._complete_here, id, encode_row(event("whole")).body))
    await until(lambda: data_of(hub) == ["whole"], say=lambda: data_of(hub))


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_another_file_is_noticed(bus: str, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(connections[bus].settings_dict["NAME"])
    shutil.copy(path, path.with_suffix(".copy"))
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event("before"))
    await until(lambda: len(hub.log) == 1)

    def replace() -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.replace(path.with_suffix(".copy"), path)

    await in_thread(replace)
    backend.publish(event("after"))
    await until(lambda: data_of(hub)[-1:] == ["after"])


# What is late


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
async def test_a_transaction_that_was_open_for_long_is_heard_without_its_process(bus: str, make: Make) -> None:
    backend = make()
    hub = await hub_of(make())
    is_open, may_commit = threading.Event(), threading.Event()

    def publish() -> None:
        with transaction.atomic(using=bus):
            backend.enlist(event("late"), bus)
            is_open.set()
            may_commit.wait(60)

    late = asyncio.ensure_future(in_thread(publish))
    await asyncio.to_thread(is_open.wait, 60)
    for number in range(40):  # long enough for the ids of before to be old
        await backend.apublish(event(number))
        await asyncio.sleep(0.05)
    await until(lambda: len(hub.log) == 40)
    may_commit.set()
    await late
    await until(lambda: data_of(hub)[-1:] == ["late"])


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
async def test_who_stops_while_holding_the_lock_stops_nobody_for_long(bus: str, make: Make) -> None:
    hub = await hub_of(make())
    backend = make()

    def steal() -> Session:
        thief = Session(bus)
        thief.run("BEGIN")
        if thief.vendor == "postgresql":
            thief.query("SELECT set_config('idle_in_transaction_session_timeout', '2s', true)")
        else:
            thief.run("SET SESSION idle_transaction_timeout = 2")
        thief.query("SELECT id FROM sse_live_stream WHERE id = 1 FOR UPDATE")
        return thief

    thief = await in_thread(steal)
    try:
        await backend.apublish(event("waits"))
        await asyncio.sleep(0.3)
        assert data_of(hub) == []
        await until(lambda: data_of(hub) == ["waits"])
    finally:
        await in_thread(thief.close)


# What is worth nothing later


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
async def test_what_workers_say_is_heard_and_gone_soon(bus: str, make: Make) -> None:
    hub, backend = await hub_of(make()), make()
    heard: list[Any] = []
    hub.handlers[REPORT] = heard.append
    await backend.apublish(event(1))
    backend.publish(Event(("sse.control",), REPORT, '{"streams": 1}'))
    await until(lambda: len(heard) == 1)
    await in_thread(lambda: execute(bus, "UPDATE sse_live_event SET milliseconds = milliseconds - 40000"))
    backend.thread._trimming._worker_events_at = 0.0
    await backend.apublish(event(2))
    await until(lambda: in_thread(lambda: execute(bus, "SELECT count(*) FROM sse_live_event") == [(2,)]))
    late = await hub_of(make())
    assert data_of(late) == [1, 2]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_on_sqlite_workers_words_are_no_writes(bus: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from django_sse_live.hub.registry import add_hub

    backend = make()
    hub = await hub_of(backend)
    add_hub(hub)
    heard: list[Any] = []
    hub.handlers[REPORT] = heard.append
    backend.publish(Event(("sse.control",), REPORT, '{"streams": 1}'))
    await until(lambda: len(heard) == 1)
    assert await in_thread(lambda: execute(bus, "SELECT count(*) FROM sse_live_event")) == [(0,)]


# Breaks


async def test_connections_that_are_ended_lose_and_double_nothing(
    bus: str, kind: str, server: Any, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "sqlite":
        pytest.skip("there are none")
    hub, backend = await hub_of(make()), make()
    name = connections[bus].settings_dict["NAME"]

    def end_all() -> None:
        if kind == "postgresql":
            server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        else:
            ids = server.sql(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'").split()
            for id in ids:
                try:
                    server.sql(f"KILL {id}")
                except Exception:
                    pass  # gone already

    for round in range(5):
        for number in range(20):
            await backend.apublish(event([round, number]))
            if number == 10:
                await asyncio.to_thread(end_all)
    await until(lambda: len(data_of(hub)) >= 100, say=lambda: data_of(hub)[-5:])
    assert data_of(hub) == [[round, number] for round in range(5) for number in range(20)]
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_tables_that_are_missing_are_named_and_found_once_they_are_there(
    kind: str, server: Any, add_alias: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from django_sse_live.hub.hub import Hub
    from django_sse_live.hub.log import EventLog

    if kind == "sqlite":
        alias = add_alias({"NAME": str(tmp_path / "empty.sqlite3")})
    else:
        server.create("empty")
        alias = add_alias(server.settings("empty"))
    backend = DatabaseBackend({"DATABASE": alias})
    try:
        hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        backend.attach(hub)
        backend.publish(event("early"))
        await until(lambda: not backend.is_available)
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1 and "python manage.py migrate sse_live_database" in warnings[0]
        await in_thread(lambda: call_command("migrate", "sse_live_database", database=alias, verbosity=0))
        await until(lambda: hub.is_ready and data_of(hub) == ["early"] and backend.is_available)
        assert backend.outages == 1
    finally:
        await asyncio.to_thread(backend.close)
        if kind != "sqlite":
            server.sql("DROP DATABASE empty")


async def test_an_event_counts_as_waiting_for_a_database_that_says_nothing(add_alias: MakeAlias) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = {"HOST": "127.0.0.1", "PORT": str(silent.getsockname()[1]), "OPTIONS": {"connect_timeout": 2}}
        backend = DatabaseBackend({"DATABASE": add_alias({"ENGINE": "django.db.backends.postgresql", **place})})
        await asyncio.to_thread(backend.publish, event("waits"))
        assert backend.buffered == 1
        await asyncio.to_thread(backend.close)


async def test_a_full_buffer_is_told_by_a_reset(
    bus: str, kind: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import django_sse_live.database.parcels as parcels

    monkeypatch.setattr(parcels, "BUFFER_EVENTS", 5)
    hub, backend = await hub_of(make()), make()
    client = await open_client(backend, hub)
    read(client)
    backend.thread._must_stop = True  # as long as the database is away
    for number in range(10):
        backend.thread.parcels.add(event(number))
    assert backend.dropped == 5
    backend.thread._must_stop = False
    await backend.apublish(event("last"))
    text = ""

    def is_told() -> bool:
        nonlocal text
        text += read(client)
        return "event: reset" in text and hub.log.head >= client.cursor and data_of(hub)[-1:] == ["last"]

    await until(is_told, say=lambda: text)
    await backend.apublish(event("live"))
    await until(lambda: data_in(read(client)) == ["live"])


# PostgreSQL's wake-up


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_listen_wakes_a_reader_that_would_not_look(
    make: Make, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Listener, "look_seconds", property(lambda self: 60.0))
    reading = make()
    hub, backend = await hub_of(reading), make()
    await until(lambda: reading.thread._listener.listens)
    await backend.apublish(event("heard"))
    await until(lambda: data_of(hub) == ["heard"])


@pytest.mark.needs("postgresql", "pgbouncer")
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_behind_a_pooler_events_are_looked_for_and_one_warning_says_so(
    bus: str, kind: str, pgbouncer: Any, add_alias: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pooled = add_alias(pgbouncer.settings(connections[bus].settings_dict["NAME"]))
    backends = [DatabaseBackend({"DATABASE": pooled}) for _ in range(2)]
    direct = DatabaseBackend({"DATABASE": pooled, "LISTEN_DATABASE": bus})
    try:
        hub = await hub_of(backends[0])
        listening = await hub_of(direct)
        await until(lambda: direct.thread._listener.listens)

        def publish() -> None:
            for number in range(20):
                with transaction.atomic(using=pooled):
                    after_commit = backends[1].enlist(event(number), pooled)
                    assert after_commit is not None
                    transaction.on_commit(after_commit, using=pooled)

        await in_thread(publish)
        await until(lambda: data_of(hub) == data_of(listening) == list(range(20)))
        warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1 and "LISTEN_DATABASE" in warnings[0] and "PgBouncer" in warnings[0]
        assert not backends[0].thread._listener.listens
    finally:
        for backend in (*backends, direct):
            await asyncio.to_thread(backend.close)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_nothing_is_taken_from_the_project_s_pool(bus: str, kind: str, server: Any, add_alias: Any) -> None:
    name = connections[bus].settings_dict["NAME"]
    options = {"pool": {"min_size": 1, "max_size": 1, "timeout": 2}}
    alias = add_alias({**server.settings(name), "OPTIONS": options, "CONN_MAX_AGE": 0})
    backend = DatabaseBackend({"DATABASE": alias})
    try:
        hub = await hub_of(backend)

        def publish() -> None:
            with transaction.atomic(using=alias):  # holds the one connection of the pool
                after_commit = backend.enlist(event("in"), alias)
                assert after_commit is not None
                transaction.on_commit(after_commit, using=alias)
                backend.publish(event("now"))

        await in_thread(publish)
        await until(lambda: sorted(data_of(hub)) == ["in", "now"])
    finally:
        await asyncio.to_thread(backend.close)
        connections[alias].close_pool()


# Connections


async def test_a_process_has_one_connection_and_none_that_it_does_not_need(
    bus: str, kind: str, server: Any, make: Make
) -> None:
    if kind == "sqlite":
        pytest.skip("they are files")
    name = connections[bus].settings_dict["NAME"]

    def count() -> int:
        if kind == "postgresql":
            return int(server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"))
        return int(server.sql(f"SELECT count(*) FROM information_schema.processlist WHERE db = '{name}'"))

    await in_thread(count)
    serving, publishing = make(), make()
    await hub_of(serving)
    for number in range(20):
        serving.publish(event(number))
    await until(lambda: in_thread(lambda: count() == 1))
    await asyncio.gather(*(publishing.apublish(event(number)) for number in range(20)))
    assert await in_thread(count) <= 2
    await until(lambda: in_thread(lambda: count() == 1))  # a moment later


async def test_an_idle_worker_that_listens_asks_once_a_second(
    bus: str, kind: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "postgresql":
        pytest.skip("the others look often")
    asked: list[float] = []
    query = Session.query

    def counted(self: Session, *arguments: Any) -> Any:
        asked.append(time.monotonic())
        return query(self, *arguments)

    backend = make()
    await hub_of(backend)
    await until(lambda: backend.thread._listener.listens)
    await asyncio.sleep(2.5)
    monkeypatch.setattr(Session, "query", counted)
    began = time.monotonic()
    await asyncio.sleep(5)
    assert len(asked) <= time.monotonic() - began + 1


# What else the thread does


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_an_event_that_nobody_told_of_gets_its_position_while_jobs_stream(bus: str, make: Make) -> None:
    """Its process died between the commit and the word of it; all that others write meanwhile are deltas."""
    backend = make()
    hub = await hub_of(backend)
    is_over = threading.Event()
    heard: list[Any] = []
    hub.handlers[DELTAS] = heard.append

    def stream() -> None:
        while not is_over.wait(0.02):
            backend.publish_deltas(Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": []})))

    def insert() -> None:
        session = Session(bus)
        with session.cursor() as cursor:
            backend._dialect.insert(cursor, [encode_row(event("untold"))])
        session.close()

    streaming = asyncio.create_task(asyncio.to_thread(stream))
    try:
        await until(lambda: len(heard) > 20)
        await asyncio.to_thread(insert)
        await until(lambda: data_of(hub) == ["untold"])
    finally:
        is_over.set()
        await streaming


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_a_notification_that_comes_with_the_answer_to_a_query_is_heard(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptor does not tell of it any more; the last event of a burst would wait for the next look."""
    monkeypatch.setattr(listener, "LISTENING_LOOK_SECONDS", 3600.0)
    hub, others = await hub_of(make()), [make(), make()]

    async def publish(number: int) -> None:
        await asyncio.sleep(0.003 * number)
        await others[number % 2].apublish(event(number))

    for burst in range(1, 61):
        await asyncio.gather(*map(publish, range(4)))
        await until(lambda burst=burst: len(data_of(hub)) == 4 * burst)
