"""What is known of a job, as the cache has it; offsets in its text; and the frames that pages get.

Pure data and pure functions, and the one place that names the cache's keys. Nothing here knows threads or hubs.
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

CHANNEL_PREFIX: Final = RESERVED_PREFIX + "job."  # of the channels of jobs: the id follows
FRAME: Final = RESERVED_PREFIX + "job"  # the type of what pages get
DELTAS: Final = NOW_PREFIX + "jobs"  # the type of what producers send the hubs: {"jobs": [frame, …]}
ASK: Final = NOW_PREFIX + "job_state"  # a page asks for the state again: {"channel", "client"}
STOP_MESSAGE: Final = RESERVED_PREFIX + "job.stop"
STATE_MESSAGE: Final = RESERVED_PREFIX + "job.state"
OF_HUBS: Final = ("namespace", "owner", "alone", "stored")  # members that only hubs are told

# Two halves of a character outside of the Basic Multilingual Plane, as UTF-16 has them; alone they are no character.
_HIGH_FIRST, _HIGH_LAST = "\ud800", "\udbff"


_ID = re.compile("[0-9a-f]{32}", re.ASCII)


def is_id(id: str) -> bool:
    return isinstance(id, str) and _ID.fullmatch(id) is not None


def job_channel(id: str) -> str:
    return CHANNEL_PREFIX + id


def key_digest(namespace: str, owner: str | None, key: str) -> str:
    """By what the cache knows the key of an owner's job."""
    who = "nobody" if owner is None else f"user:{owner}"
    return sha256(json.dumps([namespace, who, key]).encode()).hexdigest()[:40]


def state_key(id: str) -> str:
    return f"sse_live.job.{id}"


def end_key(id: str) -> str:
    return f"sse_live.job.{id}.end"


def lease_key(id: str) -> str:
    return f"sse_live.job.{id}.lease"


def next_key(id: str) -> str:
    """Of the run that took this one's place: the first to add it runs."""
    return f"sse_live.job.{id}.next"


def watched_key(id: str) -> str:
    return f"sse_live.job.{id}.watched"


def name_key(digest: str) -> str:
    return f"sse_live.job.key.{digest}"


def units(text: str) -> int:
    """UTF-16 code units: JavaScript's length."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def from_unit(text: str, start: int) -> str:
    """What of a text lies behind so many code units."""
    return text[start:] if text.isascii() else text.encode("utf-16-le")[2 * start :].decode("utf-16-le", "replace")


def whole_characters(text: str, *, is_last: bool = False) -> tuple[str, str]:
    """The text without lone surrogates and NUL, which become U+FFFD, since no page can show them. And the first half of
    a character at its end, whose other half may come with the next text, unless this ``is_last``."""
    text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text, ""
    half = ""
    if not is_last and _HIGH_FIRST <= text[-1] <= _HIGH_LAST:
        text, half = text[:-1], text[-1]
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), half


@dataclass(slots=True)
class Record:
    """The state of a job while it runs: written by its producer alone, at most twice a second."""

    id: str
    namespace: str
    owner: str | None  # primary key
    ttl_seconds: float
    alone_seconds: float | None  # cancelled when nobody has watched for so long
    name: str | None = None  # key_digest(), of a job that has a key
    text: str = ""
    length: int = 0  # of the text, in code units
    n: int = 0  # grows with everything that the producer says
    progress: float | None = None
    label: str = ""

    @property
    def channel(self) -> str:
        """With its namespace, as hubs know it."""
        return scope_name(self.namespace, job_channel(self.id))

    def frame(self, state: State, offset: int, text: str, end: End | None = None) -> dict[str, Any]:
        """For pages, if OF_HUBS are taken out. ``end``: what is said in place of the state, where there is one."""
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
    """How a job ended: the first that is added to the cache."""

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
    """A job at one moment, as the cache has it."""

    record: Record
    end: End | None
    has_lease: bool  # somebody says that they are at it

    @property
    def state(self) -> State:
        if self.end is not None:
            return self.end.state
        return "running" if self.has_lease else "lost"

    def frame(self) -> dict[str, Any]:
        return self.record.frame(self.state, 0, self.record.text, self.end)


def unknown_frame(id: str, state: State) -> dict[str, Any]:
    """Of a job of which nothing is left."""
    return {"job": id, "n": 0, "offset": 0, "text": "", "length": 0, "state": state}


_FIELDS: Final = {kind: frozenset(kind.__slots__) for kind in (Record, End)}


def record_of(value: Any) -> Record:
    return Record(**{name: item for name, item in value.items() if name in _FIELDS[Record]})


def end_of(value: Any) -> End:
    return End(**{name: item for name, item in value.items() if name in _FIELDS[End]})
