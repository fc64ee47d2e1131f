"""What is read, and by how little."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from django_sse_live.database.dialects.base import Status, row
from django_sse_live.database.positions import Positions
from django_sse_live.database.reader import Reader
from django_sse_live.database.rows import encode_row
from django_sse_live.database.session import Session
from django_sse_live.events import Event
from django_sse_live.workers import REPORT
from tests.database.conftest import Make, event


def a_hub(deliver: Callable[[Any], object], *, keeps_history: bool) -> Any:
    return SimpleNamespace(
        deliver_if_open=deliver,
        adopt=lambda log, revocations: None,
        keeps_history=keeps_history,
        set_clock=lambda now: None,
    )


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_what_a_notification_tells_of_is_read_only_where_it_is_all_there(bus: str, make: Make) -> None:
    dialect, session = make()._dialect, Session(bus)
    reader, positions = Reader(dialect), Positions(dialect)
    heard: list[Any] = []
    hub: Any = SimpleNamespace(deliver_if_open=lambda event: heard.append(event.data))
    reader.hubs.append(hub)

    def give(*data: str) -> int:
        with session.cursor() as cursor:
            dialect.insert(cursor, [encode_row(event(each)) for each in data])
        return positions.give(session, is_asked=True, is_due=False).head

    try:
        positions.status(session)
        assert reader.read_to(session, give("a", "b")) and heard == ["a", "b"] and reader.number == 2
        head = give("c", "d")
        session.run("DELETE FROM sse_live_event WHERE position = 3")
        assert not reader.read_to(session, head) and heard == ["a", "b"] and reader.number == 2
        assert not reader.read_to(session, 0)
    finally:
        session.close()


def test_other_events_in_the_place_of_those_that_were_read_are_another_stream(bus: str, make: Make) -> None:
    """As after a fail-over to a replica that was behind, where others have published since."""
    dialect, session = make()._dialect, Session(bus)
    reader, positions = Reader(dialect), Positions(dialect)
    hub = a_hub(lambda item: None, keeps_history=False)

    def give(count: int) -> Status:
        now = dialect.now(session)
        while dialect.now(session) == now:
            pass
        with session.cursor() as cursor:
            dialect.insert(cursor, [encode_row(event("x"))] * count)
        return positions.give(session, is_asked=True, is_due=False)

    try:
        reader.begin(session)
        reader.fill(session, positions.status(session), [hub])
        epoch = reader.stored_epoch
        reader.look(session, give(3))
        assert reader.number == 3
        reader.begin(session)
        assert reader.look(session, give(1)).epoch == epoch, "no needless reset"
        session.run(f"DELETE FROM sse_live_event WHERE {dialect.position} > 1")
        if dialect.gives_positions:
            session.run("UPDATE sse_live_stream SET head = 1")
        else:
            session.run("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'sse_live_event'")
        assert give(6).head == 7
        reader.begin(session)
        assert reader.look(session, positions.status(session)).epoch != epoch
    finally:
        session.close()


def test_events_that_are_trimmed_between_two_statements_of_a_reader_are_told_by_a_reset(bus: str, make: Make) -> None:
    dialect, session = make()._dialect, Session(bus)
    reader, positions = Reader(dialect), Positions(dialect)
    items: list[Any] = []
    hub = a_hub(items.append, keeps_history=False)
    try:
        reader.begin(session)
        reader.fill(session, positions.status(session), [hub])
        with session.cursor() as cursor:
            dialect.insert(cursor, [encode_row(event("x"))] * 3)
        status = positions.give(session, is_asked=True, is_due=False)
        items.clear()
        dialect.trim(session, status, -60)
        reader.look(session, status)
        assert len(items) == 1 and callable(items[0]), "a log that begins anew"
    finally:
        session.close()


def test_events_that_somebody_deletes_before_they_are_read_are_told_by_a_reset(bus: str, make: Make) -> None:
    """While the reader stands still, though others have been published since."""
    dialect, session = make()._dialect, Session(bus)
    reader, positions = Reader(dialect), Positions(dialect)
    items: list[Any] = []
    hub = a_hub(items.append, keeps_history=False)

    def give(count: int) -> Status:
        with session.cursor() as cursor:
            dialect.insert(cursor, [encode_row(event("x"))] * count)
        return positions.give(session, is_asked=True, is_due=False)

    try:
        reader.begin(session)
        reader.fill(session, positions.status(session), [hub])
        reader.look(session, give(1))
        items.clear()
        give(3)
        session.run("DELETE FROM sse_live_event")
        reader.look(session, give(2))
        assert len(items) == 1 and callable(items[0]), "a log that begins anew"
    finally:
        session.close()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
def test_words_of_workers_that_were_trimmed_are_not_taken_for_events_that_somebody_deleted(
    bus: str, make: Make
) -> None:
    dialect, session = make()._dialect, Session(bus)
    positions = Positions(dialect)
    try:
        positions.status(session)
        for _ in range(2):  # on a quiet site they are the last events
            with session.cursor() as cursor:
                dialect.insert(cursor, [encode_row(Event(("sse.control",), REPORT, "{}"))] * 2)
            positions.give(session, is_asked=True, is_due=False)
            session.run("UPDATE sse_live_event SET milliseconds = 1")
            dialect.trim_worker_events(session, 0)
        assert session.query("SELECT position FROM sse_live_event") == [(4,)]
        assert positions.status(session).trimmed == 0
    finally:
        session.close()


def test_events_of_a_clock_that_was_far_ahead_are_trimmed(bus: str, make: Make) -> None:
    dialect, session = make()._dialect, Session(bus)
    positions = Positions(dialect)
    try:
        positions.status(session)
        with session.cursor() as cursor:
            dialect.insert(cursor, [encode_row(event("x"))])
        positions.give(session, is_asked=True, is_due=False)
        for table in ("stream", "event"):
            session.run(f"UPDATE sse_live_{table} SET milliseconds = {dialect.now(session) + 10**11}")
        with session.cursor() as cursor:
            dialect.insert(cursor, [encode_row(event("x"))])
        status = positions.give(session, is_asked=True, is_due=False)
        assert dialect.after(session, 1, 2)[0].milliseconds > dialect.now(session) + 10**10, "times never go back"
        dialect.trim(session, status, 86_400)
        assert session.query("SELECT count(*) FROM sse_live_event") == [(0,)]
    finally:
        session.close()


def test_a_new_epoch_is_told_though_the_connection_breaks_meanwhile(
    bus: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect, session = make()._dialect, Session(bus)
    reader, positions = Reader(dialect), Positions(dialect)
    items: list[Any] = []
    hub = a_hub(items.append, keeps_history=True)

    def breaks(*_: Any) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    try:
        reader.begin(session)
        reader.fill(session, positions.status(session), [hub])
        session.run("UPDATE sse_live_stream SET epoch = 'another'")
        items.clear()
        with monkeypatch.context() as patch:
            patch.setattr(dialect, "before", breaks)
            with pytest.raises(OperationalError):
                reader.look(session, positions.status(session))
        assert not items
        reader.look(session, positions.status(session))
        assert len(items) == 1 and callable(items[0]), "a log that begins anew"
    finally:
        session.close()


@pytest.mark.parametrize("type", [bytes, bytearray, memoryview])
def test_a_body_is_bytes_whatever_the_driver_makes_of_it(type: Any) -> None:
    assert row((1, 1, False, type(b"body"))).body == b"body"


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
def test_the_clock_of_the_database_goes_on_where_summer_time_ends(bus: str, make: Make) -> None:
    """MySQL and MariaDB take the time in the zone of the session, by default the machine's."""
    dialect, session = make()._dialect, Session(bus)
    try:
        dialect.prepare(session)
        for seconds in (1729987200, 1729990799.5, 1729990800, 1729994400.25):  # the hour before 3:00, twice
            session.run(f"SET SESSION timestamp = {seconds}")
            assert dialect.now(session) == seconds * 1000
    finally:
        session.close()
