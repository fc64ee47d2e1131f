"""Who of several processes gives positions, and which events may be read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db import connections

from django_sse_live.database.dialects.base import POSITIONS_AT_ONCE
from django_sse_live.database.positions import Positions
from django_sse_live.database.rows import encode_row
from django_sse_live.database.session import Session
from django_sse_live.events import Event
from tests.database.conftest import Make, event


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
def test_of_several_givers_one_is_left_the_work_until_it_is_gone(
    bus: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = make()._dialect
    session = Session(bus)
    ours, others = Positions(dialect), Positions(dialect)
    monkeypatch.setattr("django_sse_live.database.positions.random", lambda: 0.9)  # who sees another steps back
    monkeypatch.setattr("django_sse_live.database.positions.LEADER_FRESH_SECONDS", 60)  # nobody is slow

    def insert_and_give(positions: Positions) -> bool:
        with session.cursor() as cursor:
            dialect.insert(cursor, [encode_row(event("x"))])
        return positions.give(session, is_asked=True, is_due=False).given_after is not None

    try:
        assert insert_and_give(ours) and insert_and_give(others) and insert_and_give(ours) and insert_and_give(others)
        assert not insert_and_give(ours)
        assert ours.again_at < time.monotonic() + 1  # it looks whether the other has done it
        assert ours.leaves_until > 0  # until then, what is committed here is no reason to look
        monkeypatch.setattr("django_sse_live.database.positions.LEADER_FRESH_SECONDS", 0)
        time.sleep(0.5)
        assert ours.give(session, is_asked=True, is_due=False).given_after is not None
        assert ours.again_at == float("inf") and ours.leaves_until == 0
        assert not others.status(session).has_waiting
    finally:
        session.close()


def test_a_large_transaction_is_waited_for_as_long_as_its_process_completes_events(
    bus: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = make()._dialect
    session = Session(bus)
    positions = Positions(dialect)
    now = 1000.0
    monkeypatch.setattr("django_sse_live.database.positions.time", SimpleNamespace(monotonic=lambda: now))

    def readable(seconds: float) -> list[bytes]:
        nonlocal now
        now += seconds
        status = positions.give(session, is_asked=True, is_due=True)
        return [row.body for row in dialect.after(session, 0, status.head)]

    try:
        readable(1)
        pending = [encode_row(Event(("c",), "t", str(number), finish=lambda event: True)) for number in range(300)]
        with session.transaction(dialect.begin), session.cursor() as cursor:
            ids = dialect.insert(cursor, pending)
        for count, id in enumerate(ids[:250]):
            assert readable(0.03) == [b"complete"] * count
            with session.cursor() as cursor:
                dialect.complete(cursor, id, b"complete")
        for _ in range(4):  # its process has died
            bodies = readable(1)
        assert bodies == [b"complete"] * 250 + [row.body for row in pending[250:]]

        with session.transaction(dialect.begin), session.cursor() as cursor:
            ids = dialect.insert(cursor, pending[:50])
        for id in ids[:13]:  # each behind something slow
            bodies = readable(1)
            with session.cursor() as cursor:
                dialect.complete(cursor, id, b"complete")
        assert len(bodies) == 350, "others do not wait behind them for ever"
    finally:
        session.close()


class TwoSessions:
    """Two sessions insert events; ours gives the positions, to what is settled at once."""

    def __init__(self, bus: str, make: Make) -> None:
        self._dialect = make()._dialect
        self._positions = Positions(self._dialect)
        self.ours, self.others = Session(bus), Session(bus)

    def insert(self, session: Session, count: int) -> None:
        with session.cursor() as cursor:
            self._dialect.insert(cursor, [encode_row(event("x"))] * count)

    def give(self) -> int:
        return self._positions.give(self.ours, is_asked=True, is_due=False).head

    def insert_and_give(self, session: Session, count: int) -> int:
        self.insert(session, count)
        return self.give()


@pytest.fixture
def two(bus: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoSessions]:
    monkeypatch.setattr("django_sse_live.database.positions.SETTLE_SECONDS", 0)
    monkeypatch.setattr("django_sse_live.database.positions.SETTLED_EVENTS_MIN", 10)
    two = TwoSessions(bus, make)
    yield two
    two.ours.close()
    two.others.close()


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_an_id_that_a_session_had_in_reserve_gets_its_position(two: TwoSessions) -> None:
    """A sequence with a cache is warned of, and costs no event."""
    two.ours.run("ALTER SEQUENCE sse_live_event_id_seq CACHE 20")
    assert two.insert_and_give(two.others, 1) == 1
    assert two.insert_and_give(two.ours, 50) == 51
    assert two.insert_and_give(two.ours, 1) == 52
    assert two.insert_and_give(two.others, 1) == 53


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_an_event_of_a_transaction_that_is_prepared_for_two_phases_gets_its_position(two: TwoSessions) -> None:
    two.others.run("BEGIN")
    two.insert(two.others, 1)
    assert two.insert_and_give(two.ours, 20) == 20  # what was inserted up to here waits to be settled
    two.others.run("PREPARE TRANSACTION 'both'")
    assert two.insert_and_give(two.ours, 1) == 21
    assert two.insert_and_give(two.ours, 20) == 41
    two.others.run("COMMIT PREPARED 'both'")
    assert two.give() == 42


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_looks_are_read_committed_whatever_the_database_is_set_to(bus: str, make: Make) -> None:
    """Serializable looks would make serializable transactions of the project fail."""
    dialect, session = make()._dialect, Session(bus)
    try:
        session.run(
            f'ALTER DATABASE "{connections[bus].settings_dict["NAME"]}" '
            "SET default_transaction_isolation TO 'serializable'"
        )
        session.close()
        session = Session(bus)
        dialect.prepare(session)
        assert session.query("SHOW transaction_isolation") == [("read committed",)]
        with session.transaction(dialect.begin):
            assert session.query("SHOW transaction_isolation") == [("read committed",)]
    finally:
        session.close()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
def test_other_channels_do_not_wait_behind_a_large_transaction(bus: str, make: Make) -> None:
    dialect = make()._dialect
    session = Session(bus)
    positions = Positions(dialect)
    pending = encode_row(Event(("c",), "t", "1", finish=lambda event: True))
    try:
        positions.status(session)
        with session.transaction(dialect.begin), session.cursor() as cursor:
            dialect.insert(cursor, [pending] * (POSITIONS_AT_ONCE + 1))
            dialect.insert(cursor, [encode_row(event("behind", "c")), encode_row(event("beside", "d"))])
        status = positions.give(session, is_asked=True, is_due=False)
        assert [row.body for row in dialect.after(session, 0, status.head)] == [encode_row(event("beside", "d")).body]
    finally:
        session.close()
