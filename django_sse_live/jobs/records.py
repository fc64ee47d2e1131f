"""Records: a job as the cache has it, offsets in its text, and the frames that pages get.

Pure data and pure functions, and the one place that names the cache's keys. Threads and hubs are unknown here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple

from ..events import NOW_PREFIX, RESERVED_PREFIX
from ..identity import scope_name

State = Literal["running", "finished", "failed", "cancelled", "expired", "lost"]

CHANNEL_PREFIX: Final = RESERVED_PREFIX + "job."  # of jobs' channels, before the id
FRAME: Final = RESERVED_PREFIX + "job"  # the type of the frames that pages get
DELTAS: Final = NOW_PREFIX + "jobs"  # the type of what producers send to hubs: {"jobs": [frame, …]}
ASK: Final = NOW_PREFIX + "job_state"  # a page asks for the whole state: {"channel", "client"}
STOP_MESSAGE: Final = RESERVED_PREFIX + "job.stop"
STATE_MESSAGE: Final = RESERVED_PREFIX + "job.state"
HUB_MEMBERS: Final = ("namespace", "owner", "alone", "stored")  # members of a frame that only hubs get

# UTF-16 writes a character outside the Basic Multilingual Plane as two halves. One half alone is no character.
_HIGH_FIRST, _HIGH_LAST = "\ud800", "\udbff"

# Keys of the cache, by a job's id, …
state_key: Final = "sse_live.job.{}".format
end_key: Final = "sse_live.job.{}.end".format
lease_key: Final = "sse_live.job.{}.lease".format
next_key: Final = "sse_live.job.{}.next".format  # the run that replaced this one: the first to add it runs
watched_key: Final = "sse_live.job.{}.watched".format
name_key: Final = "sse_live.job.key.{}".format  # … and by key_digest()

_ID: Final = re.compile("[0-9a-f]{32}", re.ASCII)


def is_id(id: str) -> bool:
    return isinstance(id, str) and _ID.fullmatch(id) is not None


def job_channel(id: str) -> str:
    return CHANNEL_PREFIX + id


def key_digest(namespace: str, owner: str | None, key: str) -> str:
    """The name of an owner's key in the cache."""
    who = "nobody" if owner is None else f"user:{owner}"
    return sha256(json.dumps([namespace, who, key]).encode()).hexdigest()[:40]


def units(text: str) -> int:
    """The number of UTF-16 code units: JavaScript's length."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def from_unit(text: str, start: int) -> str:
    """The text after this many code units."""
    return text[start:] if text.isascii() else text.encode("utf-16-le")[2 * start :].decode("utf-16-le", "replace")


def whole_characters(text: str, *, is_last: bool = False) -> tuple[str, str]:
    """The text with lone surrogates and NUL, which no page can show, as U+FFFD. A first half of a character at its end
    is returned apart, since its other half may come with the next text; not if this ``is_last``."""
    text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text, ""
    half = ""
    if not is_last and _HIGH_FIRST <= text[-1] <= _HIGH_LAST:
        text, half = text[:-1], text[-1]
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), half


@dataclass(slots=True)
class Record:
    """The state of a running job. Its producer alone writes it, at most twice a second."""

    id: str
    namespace: str
    owner: str | None  # primary key
    ttl_seconds: float
    alone_seconds: float | None  # cancelled when nobody has watched for this long
    name: str | None = None  # key_digest(), if the job has a key
    text: str = ""
    length: int = 0  # of the text, in code units
    n: int = 0  # grows with everything that the producer writes
    progress: float | None = None
    label: str = ""

    @property
    def channel(self) -> str:
        """The channel with its namespace, as hubs know it."""
        return scope_name(self.namespace, job_channel(self.id))

    def frame(self, state: State, offset: int, text: str, end: End | None = None) -> dict[str, Any]:
        """A frame; pages get it without HUB_MEMBERS. ``end``, if there is one, replaces the state."""
        said: dict[str, Any] = {
            "job": self.id, "n": self.n, "offset": offset, "text": text, "length": self.length, "state": state,
        }  # fmt: skip
        if self.progress is not None:
            said["progress"] = self.progress
        if self.label:
            said["label"] = self.label
        if end is not None:
            said.update(end.members())
        return said


@dataclass(slots=True)
class End:
    """How a job ended. The first one that is added to the cache stands."""

    state: State
    result: Any = None  # plain JSON
    error: str = ""

    def members(self) -> dict[str, Any]:
        said: dict[str, Any] = {"state": self.state}
        if self.result is not None:
            said["result"] = self.result
        if self.error:
            said["error"] = self.error
        return said


class Found(NamedTuple):
    """A job as the cache has it at one moment."""

    record: Record
    end: End | None
    has_lease: bool  # its producer is at work

    @property
    def state(self) -> State:
        if self.end is not None:
            return self.end.state
        return "running" if self.has_lease else "lost"

    def frame(self) -> dict[str, Any]:
        return self.record.frame(self.state, 0, self.record.text, self.end)


def unknown_frame(id: str, state: State) -> dict[str, Any]:
    """The frame of a job that the cache does not have."""
    return {"job": id, "n": 0, "offset": 0, "text": "", "length": 0, "state": state}


_FIELDS: Final = {kind: frozenset(kind.__slots__) for kind in (Record, End)}


def record_of(value: Any) -> Record:
    return Record(**{name: item for name, item in value.items() if name in _FIELDS[Record]})


def end_of(value: Any) -> End:
    return End(**{name: item for name, item in value.items() if name in _FIELDS[End]})
