"""An event as an entry of a Redis stream, and back; and which entries were read before.

An entry has one field, ``event``: a line of JSON that describes the event and its sender; a line with its patch, if it
has one; then the payload as browsers get it. Foreign entries in the stream are skipped.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Literal

from ...events import Event, make_position, received_event
from ..unreadable import MALFORMED, Unreadable

FIELD: Final = b"event"
LOOKBACK_ENTRIES: Final = 100  # read before a reader's start, to learn the last number of each publisher
PUBLISHERS_MAX: Final = 10_000  # publishers whose last number is remembered
NUMBER_MAX: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Entry:
    """An event's entry. ``number``: each publisher counts its entries, in the stream's order, without gaps."""

    event: Event
    publisher: str
    number: int


def encode_entry(event: Event, publisher: str, number: int) -> bytes:
    head: dict[str, Any] = {"channels": event.channels, "type": event.type, "from": publisher, "seq": number}
    if event.is_text:
        head["text"] = True
    patch = ""
    if event.patch is not None:
        head["patch"] = True
        patch = f"{event.patch}\n"
    line = json.dumps(head, separators=(",", ":"), ensure_ascii=False)
    return f"{line}\n{patch}{event.payload}".encode()


def read_id(entry_id: bytes) -> int:
    """The position of a Redis id such as ``b"1764150000000-3"``."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return make_position(int(milliseconds), int(sequence))


def write_id(position: int) -> str:
    return f"{position >> 64}-{position & 0xFFFF_FFFF_FFFF_FFFF}"


class Decoder:
    """Makes entries of Redis's answers. One for each backend and process, for any thread."""

    def __init__(self) -> None:
        self.unreadable: Unreadable = Unreadable("Of the SSE stream in Redis, entry")

    def decode(self, raw: tuple[bytes, dict[bytes, bytes]], epoch: str, *, is_of_now: bool = False) -> Entry | None:
        """The entry; None if it is foreign or malformed. ``is_of_now``: from the stream of presence and worker
        reports."""
        entry_id, fields = raw
        try:
            entry = _decode(fields)
        except MALFORMED as error:
            self.unreadable.pass_over(entry_id.decode(errors="replace") + (" of now" if is_of_now else ""), error)
            return None
        entry.event.stamp(epoch, read_id(entry_id))
        return entry


def _decode(fields: dict[bytes, bytes]) -> Entry:
    line, _, payload = fields[FIELD].partition(b"\n")
    head = json.loads(line)
    publisher, number = head["from"], head["seq"]
    if not (isinstance(publisher, str) and 0 < len(publisher) <= 64):
        raise ValueError("it does not say who sent it")
    if type(number) is not int or not 0 <= number < NUMBER_MAX:
        raise ValueError("its number is none")
    patch = None
    if "patch" in head:
        first, _, payload = payload.partition(b"\n")
        patch = first.decode()
    text = head.get("text", False)
    event = received_event(head["channels"], head["type"], payload.decode(), patch=patch, is_text=text)
    return Entry(event, publisher, number)


class Seen:
    """The last number read of each publisher. ``before``: what was read before the stream went back; its loss is known
    already."""

    def __init__(self, before: Seen | None = None) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()  # publisher → number, the longest silent first
        self._told: dict[str, int] = dict(before._last) if before is not None else {}

    def was_read_before(self, entry: Entry) -> bool:
        """Whether it was read before the stream went back."""
        return entry.number <= self._told.get(entry.publisher, -1)

    def look(self, entry: Entry) -> Literal["next", "repeated", "gap"]:
        """Compare an entry with those before it. "repeated": sent again because Redis's first answer was lost. "gap":
        an earlier entry of this publisher is missing."""
        last = self._last.get(entry.publisher)
        if last is not None and entry.number <= last:
            return "repeated"
        self._last[entry.publisher] = entry.number
        self._last.move_to_end(entry.publisher)
        if len(self._last) > PUBLISHERS_MAX:
            self._last.popitem(last=False)
        told = self._told.get(entry.publisher, 0)
        return "next" if last is None or entry.number <= max(last, told) + 1 else "gap"
