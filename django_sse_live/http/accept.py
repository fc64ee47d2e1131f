"""What an Accept header says about event streams. RFC 9110, section 12.5.1."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

EVENT_STREAM: Final = "text/event-stream"
LOOKED_AT_CHARACTERS: Final = 1024  # of a header: some servers take megabytes


def accepts_event_stream(accept: str) -> bool:
    """Whether the header accepts a stream: the most specific range that fits has a quality above 0. An empty header
    accepts everything, like a missing one."""
    qualities = _qualities(accept)
    for media_range in (EVENT_STREAM, "text/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range] > 0
    return not qualities


def names_event_stream(accept: str) -> bool:
    """Whether the header names event streams, as every EventSource does."""
    return _names_event_stream(accept[:LOOKED_AT_CHARACTERS])


@lru_cache(maxsize=64)
def _names_event_stream(accept: str) -> bool:
    return _qualities(accept).get(EVENT_STREAM, 0.0) > 0


def _qualities(accept: str) -> dict[str, float]:
    """Media range → quality. Other parameters than q (a charset) are ignored: a stream has only one form."""
    found: dict[str, float] = {}
    for item in accept[:LOOKED_AT_CHARACTERS].split(","):
        media_range, *parameters = [part.strip().lower() for part in item.split(";")]
        if media_range:
            quality = 1.0
            for parameter in parameters:
                name, _, value = parameter.partition("=")
                if name.strip() == "q":
                    quality = _quality(value.strip())
            found[media_range] = max(quality, found.get(media_range, 0.0))
    return found


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # malformed quality; the range itself counts
        return 1.0
