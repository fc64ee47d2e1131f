"""A reader of event streams, written from the HTML standard and from nothing of this project's.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, and the section after it.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """What an EventSource would dispatch."""

    type: str
    data: str
    last_event_id: str
    fields: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # as they stood in the block

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def id(self) -> str | None:
        """The id in this very block; None if it had none."""
        return next((value for name, value in reversed(self.fields) if name == "id"), None)


class EventStreamParser:
    """Bytes in, in pieces of any size; messages out."""

    def __init__(self) -> None:
        self.reconnection_time: int | None = None
        self.last_event_id = ""  # "the last event ID string" of the event source
        # "Streams must be decoded using the UTF-8 decode algorithm", which strips one byte order mark.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_first = True
        self._text = ""
        self._data_buffer = ""
        self._type_buffer = ""
        self._id_buffer = ""
        self._fields: list[tuple[str, str]] = []

    def feed(self, chunk: bytes) -> list[Message]:
        text = self._decoder.decode(chunk)
        if self._is_first and text:
            self._is_first = False
            text = text.removeprefix("\ufeff")
        self._text += text
        messages: list[Message] = []
        # end-of-line = ( cr lf / cr / lf ); a CR at the end of what is here may be half of a CRLF
        while match := re.search(r"\r\n|\n|\r(?=[^\n])", self._text):
            line, self._text = self._text[: match.start()], self._text[match.end() :]
            message = self._process_line(line)
            if message is not None:
                messages.append(message)
        return messages

    def _process_line(self, line: str) -> Message | None:
        if line == "":
            return self._dispatch()
        if line.startswith(":"):
            return None
        name, colon, value = line.partition(":")
        if colon and value.startswith(" "):
            value = value[1:]
        self._process_field(name, value)
        return None

    def _process_field(self, name: str, value: str) -> None:
        self._fields.append((name, value))
        if name == "event":
            self._type_buffer = value
        elif name == "data":
            self._data_buffer += value + "\n"
        elif name == "id":
            if "\0" not in value:
                self._id_buffer = value
        elif name == "retry":
            if re.fullmatch("[0-9]+", value, re.ASCII):
                self.reconnection_time = int(value)

    def _dispatch(self) -> Message | None:
        self.last_event_id = self._id_buffer
        data, type, fields = self._data_buffer, self._type_buffer, tuple(self._fields)
        self._data_buffer = self._type_buffer = ""
        self._fields = []
        if data == "":
            return None
        return Message(type or "message", data.removesuffix("\n"), self.last_event_id, fields)


def parse(stream: bytes) -> list[Message]:
    return EventStreamParser().feed(stream)
