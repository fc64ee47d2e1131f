"""What is read, and by how little."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from django_sse_live.database.dialects.base import row
from django_sse_live.database.positions import Positions
from django_sse_live.database.reader import Reader
from django_sse_live.database.rows import encode_row
from django_sse_live.database.session import Session
from tests.database.conftest import Make, event


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_what_a_notification_tells_of_is_read_only_where_it_is_all_there(bus: str, make: Make) -> None:
    dialect, session = make()._dialect, Session(bus)
    reader, positions = Reader(dialect), Positions(dialect)
    heard: list[Any] = []
    hub: Any = SimpleNamespace(deliver=lambda event: heard.append(event.data), loop=None)
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


@pytest.mark.parametrize("type", [bytes, bytearray, memoryview])
def test_a_body_is_bytes_whatever_the_driver_makes_of_it(type: Any) -> None:
    assert row((1, 1, False, type(b"body"))).body == b"body"
