"""An event as a row of the table, and back.

The body is one line of JSON that describes the event, and below it the payload as browsers get it.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from ..backends.unreadable import MALFORMED, Unreadable
from ..events import CONTROL_CHANNEL, LOST_EVENTS, Event, make_position, received_event

NUMBER_MASK: Final = (1 << 63) - 1  # of a position: the database's column; the bits above are the milliseconds

# Keys that stand for no channel.
NOW_KEY: Final = 0  # presence and worker reports, worthless a minute later
LOST_KEY: Final = 1  # "events before this one are lost", which concerns every channel


class Row(NamedTuple):
    """An event as it is read."""

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
    """A channel's 64 bits in an index. Two channels may share them: readers compare the names."""
    key = int.from_bytes(blake2b(channel.encode(), digest_size=8).digest(), "big", signed=True)
    return key if key not in (NOW_KEY, LOST_KEY) else key - 2


CONTROL_KEY: Final = channel_key(CONTROL_CHANNEL)


def encode_row(event: Event, token: str = "") -> NewRow:
    """``token``: marks this row, where it must be found again after a broken INSERT."""
    if event.is_of_now:
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
    """Makes events of rows. One for each process, used in its bus thread."""

    def __init__(self) -> None:
        self.unreadable: Unreadable = Unreadable("Of the table sse_live_event, the event with the position")

    def decode(self, row: Row, epoch: str) -> Event | None:
        """The event with its position. None for a row without a body, or with a malformed one."""
        if not row.body:
            return None
        try:
            line, _, payload = row.body.decode().partition("\n")
            head = json.loads(line)
            patch, text = head.get("patch"), head.get("text", False)
            event = received_event(head["channels"], head["type"], payload, patch=patch, is_text=text)
        except MALFORMED as error:
            self.unreadable.pass_over(row.number, error)
            return None
        event.stamp(epoch, row.position)
        return event
