"""From bytes to events: what an EventSource makes of a stream, and what a page makes of a WebSocket's messages."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any

_LINE_END = re.compile(r"\r\n|\n|\r(?=[^\n])")  # a CR at the end of what is here may be half of a CRLF


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    """One event, as an EventSource would dispatch it."""

    type: str
    data: Any  # parsed JSON; the text itself where it is none
    text: str  # as it came
    id: str  # the last event id, once this event is here


class EventParser:
    """Bytes in, in pieces of any size; events out.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    def __init__(self, last_id: str = "") -> None:
        self.retry_ms: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._id = last_id
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ReceivedEvent]:
        *lines, self._rest = _LINE_END.split(self._rest + self._decoder.decode(chunk))
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> ReceivedEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ReceivedEvent | None:
        type, lines = self._type or "message", self._data
        self._type, self._data = "", []
        if not lines:
            return None
        text = "\n".join(lines)
        try:
            data = json.loads(text)
        except ValueError:
            data = text
        return ReceivedEvent(type=type, data=data, text=text, id=self._id)


class LinesParser:
    """What comes over a WebSocket: JSON objects, one a line."""

    def __init__(self, last_id: str = "") -> None:
        self.retry_ms: int | None = None
        self._id = last_id

    def feed(self, chunk: bytes) -> list[ReceivedEvent]:
        return [self._take(line) for line in chunk.decode().split("\n") if line]

    def _take(self, line: str) -> ReceivedEvent:
        said = json.loads(line)
        self._id = said.get("id", self._id)
        self.retry_ms = said.get("retry", self.retry_ms)
        data = said["data"] if "channels" in said and "data" in said else said
        return ReceivedEvent(type=said["type"], data=data, text=line, id=self._id)
