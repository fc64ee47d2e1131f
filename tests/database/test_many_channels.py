"""An event on more channels than a column counts, or a statement takes: it must not cost the transaction."""

from __future__ import annotations

from typing import Any

from django.db import connections, transaction

from django_sse_live import broadcast
from django_sse_live.database import DatabaseBackend
from django_sse_live.database.dialects.base import Dialect, values
from django_sse_live.database.rows import encode_row
from django_sse_live.events import Event

COUNT = 40_000


class Cursor:
    def __init__(self) -> None:
        self.parameters: list[list[Any]] = []

    def execute(self, sql: str, parameters: list[Any]) -> None:
        assert sql.count("%s") == len(parameters)
        self.parameters.append(parameters)


def test_what_is_inserted_fits_the_columns_and_the_drivers() -> None:
    row = encode_row(Event(tuple(f"user:{number}" for number in range(COUNT)), "t", "1"))
    _key, more, _is_pending, _body = values([row])
    assert 0 < more <= 32_767
    cursor = Cursor()
    Dialect()._insert_more(cursor, [row], [7])
    assert max(map(len, cursor.parameters)) <= 65_535
    inserted = [value for each in cursor.parameters for value in each]
    assert inserted[::2] == [7] * (COUNT - 1)
    assert inserted[1::2] == list(row.more_keys)


def test_the_save_that_is_told_to_them_is_committed(bus: str, site: DatabaseBackend) -> None:
    with transaction.atomic(using=bus):
        broadcast([f"user:{number}" for number in range(COUNT)], "t", 1, using=bus)
    with connections[bus].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sse_live_event_channel")
        assert cursor.fetchone() == (COUNT - 1,)
