"""An event as an entry of a Redis stream, and back; and which entries have been seen.

An entry has one field, ``event``: a line of JSON that says what the event is and who sent it, and below it the payload
as it goes to the browsers.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from typing import Any, Final

from ..events import Event, make_position

logger: logging.Logger = logging.getLogger("django_sse_live")

FIELD: Final = b"event"
SEAM: Final = 100  # entries that one attempt at sending holds at the most
PUBLISHERS: Final = 10_000  # of whom the last sequence is remembered


def encode_entry(event: Event, publisher: str, sequence: int) -> bytes:
    head: dict[str, Any] = {"channels": event.channels, "type": event.type, "from": publisher, "seq": sequence}
    if event.is_text:
        head["text"] = True
    line = json.dumps(head, separators=(",", ":"), ensure_ascii=False)
    return f"{line}\n{event.payload}".encode()


def read_id(entry_id: bytes) -> int:
    """The position that stands for a Redis id: ``b"1764150000000-3"``."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return make_position(int(milliseconds), int(sequence))


def write_id(position: int) -> str:
    return f"{position >> 64}-{position & 0xFFFF_FFFF_FFFF_FFFF}"


def seam(stream: str, position: int) -> list[tuple[Any, ...]]:
    """The command that reads what stands before a place in the stream: an entry may be sent again behind it."""
    return [("XREVRANGE", stream, write_id(position), "-", "COUNT", SEAM)]


class Seen:
    """Which of each publisher's entries have been read. A publisher numbers them in the order of the stream, so a
    number that is not higher than the last is an entry sent again because its first answer was lost."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()  # publisher → sequence, the longest silent first

    def learn(self, entries: list[Any]) -> None:
        """Entries that have been read before, newest first."""
        for entry in reversed(entries):
            self.decode(entry, "")

    def decode(self, entry: tuple[bytes, list[bytes]], epoch: str) -> Event | None:
        """The event of an entry, with its place; None for a repeated entry, or for one that is not ours."""
        entry_id, fields = entry
        try:
            if fields[0] != FIELD:
                raise ValueError(f"its first field is {fields[0]!r}")
            line, _, payload = fields[1].decode().partition("\n")
            head = json.loads(line)
            publisher, sequence = head["from"], head["seq"]
            event = Event(tuple(head["channels"]), head["type"], payload, is_text=head.get("text", False))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            logger.warning("Entry %s of the SSE stream in Redis is passed over: %s.", entry_id.decode(), error)
            return None
        if sequence <= self._last.get(publisher, 0):
            return None
        self._last[publisher] = sequence
        self._last.move_to_end(publisher)
        if len(self._last) > PUBLISHERS:
            self._last.popitem(last=False)
        event.stamp(epoch, read_id(entry_id))
        return event
