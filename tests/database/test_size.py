"""How large the table of events becomes on PostgreSQL, where what is deleted and what is written anew leave dead rows.

The clock is simulated and everything scaled down: one event a second stands for 500, so that an hour is 3,600 of them.
The bus's own statements give positions every ten seconds and trim every minute, and then comes VACUUM, as autovacuum
does by its default pause of a minute. RETENTION_SECONDS is an hour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.db import connections

from django_sse_live.database.positions import Positions
from django_sse_live.database.session import Session
from tests.database.conftest import Make

HOUR = 3600
EVENTS_PER_SECOND = 1
GIVE_SECONDS = 10
BODY = b"x" * 400
_EVENTS = (
    "INSERT INTO sse_live_event (channel_key, more, pending, body, milliseconds) "
    "SELECT number %% 50, 0, false, %s, 0 FROM generate_series(1, %s) number"
)


class SessionByClock(Session):
    """One for which it is later than it is."""

    seconds = 0

    def query(self, sql: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        later = f"(clock_timestamp() + interval '{self.seconds} seconds')"
        return super().query(sql.replace("clock_timestamp()", later), parameters)


class Table:
    def __init__(self, alias: str, dialect: Any) -> None:
        self.session = SessionByClock(alias)
        self.alias = alias
        self._dialect = dialect
        self._positions = Positions(dialect)
        self._positions.status(self.session)

    def live(self, seconds: int) -> None:
        for _ in range(seconds // 60):
            for _ in range(60 // GIVE_SECONDS):
                self.session.seconds += GIVE_SECONDS
                self.session.run(_EVENTS, [BODY, EVENTS_PER_SECOND * GIVE_SECONDS])
                self._dialect.give(self.session, 0, [])
            while self._dialect.trim(self.session, self._positions.status(self.session), HOUR):
                pass
            self.session.run("VACUUM sse_live_event")

    @property
    def size(self) -> int:
        """In bytes, with its indexes."""
        ((size,),) = self.session.query("SELECT pg_total_relation_size('sse_live_event')")
        return int(size)

    @property
    def needed(self) -> int:
        """What the same rows take in a table that is new."""
        self.session.run("CREATE TABLE fresh (LIKE sse_live_event INCLUDING ALL)")
        self.session.run("INSERT INTO fresh SELECT * FROM sse_live_event")
        ((size,),) = self.session.query("SELECT pg_total_relation_size('fresh')")
        self.session.run("DROP TABLE fresh")
        return int(size)


@pytest.fixture
def table(bus: str, make: Make) -> Iterator[Table]:
    table = Table(bus, make()._dialect)
    yield table
    table.session.close()


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_the_table_stays_as_small_as_its_retention_allows(table: Table) -> None:
    table.live(2 * HOUR)
    needed = table.needed
    assert table.size <= 1.5 * needed
    with connections[table.alias].cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM sse_live_event")
        table.live(HOUR // 2)  # no VACUUM may take what that transaction could still read
        assert table.size <= 2.5 * needed
        cursor.execute("ROLLBACK")
    table.live(HOUR + HOUR // 2)  # the file ends with rows that were there when the transaction ended
    assert table.size <= 1.5 * needed
