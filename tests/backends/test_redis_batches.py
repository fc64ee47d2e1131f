"""What the Redis outbox sends in one round trip, and what it remembers of what was acknowledged: both have bounds."""

from __future__ import annotations

import json

import pytest

from django_sse_live.backends.redis import buffer, stream_writer
from django_sse_live.backends.redis.buffer import Parcel, Recent
from django_sse_live.backends.redis.stream_writer import StreamWriter
from django_sse_live.backends.redis_streams import RedisStreamsBackend
from django_sse_live.events import Event


def parcels(count: int, characters: int = 1) -> list[Parcel]:
    return [Parcel(Event(("c",), "t", json.dumps("x" * characters))) for _ in range(count)]


def test_a_batch_is_cut_by_number_and_by_size_and_numbered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_writer, "BATCH_EVENTS", 3)
    monkeypatch.setattr(stream_writer, "BATCH_BYTES", 10_000)
    writer = StreamWriter(RedisStreamsBackend({}).stream)
    small = parcels(5)
    assert writer.next_batch(small) == small[:3] == writer.next_batch(small)
    assert [parcel.number for parcel in small] == [1, 2, 3, 0, 0]
    large = parcels(3, characters=4_000)
    assert writer.next_batch(large) == large[:1]  # the second would be too much
    assert writer.next_batch(parcels(1, characters=40_000))  # one is sent, whatever its size
    assert large[0].number == 4


@pytest.mark.parametrize(("bound", "value"), [("RECENT_EVENTS_MAX", 3), ("RECENT_BYTES_MAX", 35)])
def test_what_was_acknowledged_is_remembered_within_bounds(
    bound: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, bound, value)
    remembered, sent = Recent(), parcels(5)
    for number, parcel in enumerate(sent, 1):
        parcel.number = number
        remembered.add(parcel, 10)
    assert remembered.forget_old() and remembered.above(0) == sent[2:]
    assert remembered.above(4) == sent[4:]


def test_what_was_acknowledged_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = Recent()
    remembered.add(parcels(1)[0], 10)
    monkeypatch.setattr(buffer, "RECENT_SECONDS", -1.0)
    assert not remembered.forget_old() and not remembered
