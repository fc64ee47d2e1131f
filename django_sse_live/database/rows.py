"""An event as a row of the table, and back.

The body is a line of JSON that says what the event is, and below it the payload as it goes to the browsers.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from ..backends.unreadable import MALFORMED, Unreadable
from ..events import CONTROL_CHANNEL, NOW_PREFIX, Event, make_position, received_event
from ..hub.control import LOST_EVENTS

NUMBER_MASK: Final = (1 << 63) - 1  # of a position: what the database's column holds; above it are the milliseconds

# Keys that no channel has.
NOW_KEY: Final = 0  # of what is worth nothing a minute later
LOST_KEY: Final = 1  # of "events were given up before this one", which concerns every channel


class Row(NamedTuple):
    """An event as a reader gets it."""

    number: int  # its position in the database
    milliseconds: int
    is_pending: bool
    body: bytes

    @property
    def position(self) -> int:
        return make_position(self.milliseconds, self.number)


class NewRow(NamedTuple):
    """An event as it is inserted."""

    channel_key: int
    more_keys: tuple[int, ...]
    is_pending: bool
    body: bytes


def channel_key(channel: str) -> int:
    """64 bits that stand for a channel in an index. Two channels may have the same: readers compare the names."""
    key = int.from_bytes(blake2b(channel.encode(), digest_size=8).digest(), "big", signed=True)
    return key if key not in (NOW_KEY, LOST_KEY) else key - 2


CONTROL_KEY: Final = channel_key(CONTROL_CHANNEL)


def encode_row(event: Event, token: str = "") -> NewRow:
    """``token``: where it may have to be known whether this very row has been inserted."""
    if event.type.startswith(NOW_PREFIX):
        keys = [NOW_KEY]
    elif event.type == LOST_EVENTS:
        keys = [LOST_KEY]
    else:
        keys = list(dict.fromkeys(map(channel_key, event.channels)))
    return NewRow(keys[0], tuple(keys[1:]), event.finish is not None, encode_body(event, token))


def encode_body(event: Event, token: str = "") -> bytes:
    head: dict[str, Any] = {"channels": event.channels, "type": event.type}
    if event.is_text:
        head["text"] = True
    if event.patch is not None:
        head["patch"] = event.patch
    if token:
        head["token"] = token
    line = json.dumps(head, separators=(",", ":"), ensure_ascii=False)
    return f"{line}\n{event.payload}".encode()


class Decoder:
    """From rows to events. One for a process, in its bus thread."""

    def __init__(self) -> None:
        self.unreadable: Unreadable = Unreadable("Of the table sse_live_event, the event with the position")

    def decode(self, row: Row, epoch: str) -> Event | None:
        """The event with its place. None for a row without one, or with one that is malformed in whatever way."""
        if not row.body:
            return None
        try:
            line, _, payload = bytes(row.body).decode().partition("\n")
            head = json.loads(line)
            patch, text = head.get("patch"), head.get("text", False)
            event = received_event(head["channels"], head["type"], payload, patch=patch, is_text=text)
        except MALFORMED as error:
            self.unreadable.pass_over(row.number, error)
            return None
        event.stamp(epoch, row.position)
        return event
