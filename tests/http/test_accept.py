"""What a request accepts: RFC 9110, section 12.5.1."""

from __future__ import annotations

import tracemalloc

import pytest

from django_sse_live.http.accept import accepts_event_stream, names_event_stream


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "text/event-stream;charset=utf-8",
        "text/event-stream; charset=UTF-8; q=0.5",
        "Text/Event-Stream",
        "application/json, text/event-stream",
        "text/event-stream;q=high",
    ],
)
def test_a_stream_is_asked_for_by_name(accept: str) -> None:
    assert accepts_event_stream(accept) and names_event_stream(accept)


@pytest.mark.parametrize(
    "accept", ["", " ", ",", "*/*", "text/*", "text/html, */*;q=0.1", "text/html;q=0, text/*;q=0.2"]
)
def test_a_stream_is_taken_though_it_is_not_named(accept: str) -> None:
    assert accepts_event_stream(accept) and not names_event_stream(accept)


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/json, image/*",
        "text/event-stream;q=0",
        "text/event-stream;q=0.0, */*",  # the most specific range decides
        "*/*;q=0",
        "text/*;q=0, */*",
        "text/event-stream-not",
    ],
)
def test_a_stream_is_not_taken(accept: str) -> None:
    assert not accepts_event_stream(accept) and not names_event_stream(accept)


def test_long_headers_are_not_kept() -> None:
    """uvicorn takes them of any length."""
    tracemalloc.start()
    for number in range(100):
        assert names_event_stream(f"text/event-stream, x/{number:050000}")
    kept_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept_bytes < 500_000


def test_no_more_than_the_beginning_of_a_header_is_read() -> None:
    """A megabyte of ranges would hold up the loop for half a second."""
    accept = "text/event-stream," + ",".join(f"a/{number}" for number in range(100_000))
    tracemalloc.start()
    assert accepts_event_stream(accept) and names_event_stream(accept)
    taken_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken_bytes < 1_000_000
