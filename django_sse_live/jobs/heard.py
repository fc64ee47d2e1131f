"""Heard: what one hub knows of one job, and how it is joined with what the cache has.

Touched on the hub's loop alone. Buses, threads and the cache are unknown here; clients are only compared.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..identity import plain_name
from .records import CHANNEL_PREFIX, HUB_MEMBERS, Found, State, from_unit, units, unknown_frame

if TYPE_CHECKING:
    from ..hub.clients import Client

HELD_SECONDS: Final = 10.0
HELD_STORED_SECONDS: Final = 3.0  # kept although the cache has them: a read that is under way may have missed them
DELTA_OVERHEAD_BYTES: Final = 200
ENDS: Final = frozenset({"finished", "failed", "cancelled", "expired"})


class Delta(NamedTuple):
    at: float  # loop time
    offset: int
    end: int
    text: str

    @property
    def size(self) -> int:
        return 4 * len(self.text) + DELTA_OVERHEAD_BYTES


class Heard:
    """``length``: of the text that every watcher has. ``asking``: the clients that wait for the whole state."""

    __slots__ = (
        "alone_seconds", "asked_at", "asking", "channel", "deltas", "frame", "heard_at", "id", "is_watched",
        "known_until", "length", "read_at", "size", "waiting_since", "watch_at",
    )  # fmt: skip

    def __init__(self, channel: str, now: float) -> None:
        self.channel: str = channel
        self.id: str = plain_name(channel).removeprefix(CHANNEL_PREFIX)
        self.deltas: deque[Delta] = deque()
        self.size: int = 0  # bytes of the deltas
        self.length: int = 0
        self.frame: dict[str, Any] = {}  # the last one of the producer or of the cache
        self.heard_at: float = now  # loop time
        self.asking: set[Client] = set()
        self.asked_at: dict[str, float] = {}  # client's id → loop time when it last asked
        self.read_at: float = 0.0  # loop time before which the cache is not read
        self.waiting_since: float = 0.0  # loop time since when the cache has lacked what it should have
        self.known_until: float = 0.0  # loop time until when the cache should have the job
        self.is_watched: bool = False
        self.alone_seconds: float | None = None
        self.watch_at: float = 0.0  # loop time when the cache is next told that somebody watches

    @property
    def state(self) -> State:
        return self.frame.get("state", "running")  # type: ignore[no-any-return]

    # From the producer

    def hear(self, said: dict[str, Any], now: float) -> None:
        """Take in a frame of the producer, or of the process that stopped the job. Its text is held."""
        self.heard_at = now
        self.alone_seconds = said.get("alone", self.alone_seconds)
        if said["n"] >= self.frame.get("n", 0) or said["state"] in ENDS:
            if self.state not in ENDS or said["state"] in ENDS:
                self.frame = {name: value for name, value in said.items() if name != "text"}
        if text := said["text"]:
            delta = Delta(now, said["offset"], said["offset"] + units(text), text)
            self.deltas.append(delta)
            self.size += delta.size
            self.drop(now, said.get("stored", 0))
        self.length = max(self.length, said["length"])

    def drop(self, now: float, stored: int = 0) -> None:
        """Drop the deltas that nobody will ask for any more. ``stored``: the length that the cache has."""
        deltas = self.deltas
        while deltas and (
            deltas[0].at < now - HELD_SECONDS or (deltas[0].end <= stored and deltas[0].at < now - HELD_STORED_SECONDS)
        ):
            self.size -= deltas.popleft().size

    def drop_all(self) -> None:
        self.deltas.clear()
        self.size = 0

    # From the cache

    def learn(self, frame: dict[str, Any], found: Found | None, now: float) -> None:
        """Take over the frame that is sent to the clients that asked."""
        self.waiting_since = 0.0
        self.frame = {name: self.frame[name] for name in HUB_MEMBERS if name in self.frame}
        self.frame.update((name, value) for name, value in frame.items() if name != "text")
        self.length = frame["length"]
        if found is not None:
            self.known_until = now + found.record.ttl_seconds
            self.alone_seconds = found.record.alone_seconds
            self.frame.setdefault("owner", found.record.owner)

    def whole(self, found: Found | None) -> dict[str, Any] | None:
        """The stored state with the deltas since it appended; None if some text between is missing."""
        if found is None:
            return None
        frame = self._appended(found)
        return frame if frame["length"] >= self.length else None

    def best(self, found: Found | None, now: float) -> dict[str, Any]:
        """The best frame there is, once waiting for the rest is in vain."""
        if found is not None:
            return self._appended(found)
        if self.state in ENDS:
            return unknown_frame(self.id, self.state)
        return unknown_frame(self.id, "lost" if now < self.known_until else "expired")

    def _appended(self, found: Found) -> dict[str, Any]:
        frame = found.frame()
        length = frame["length"]
        for delta in self.deltas:
            if delta.offset <= length < delta.end:
                frame["text"] += from_unit(delta.text, length - delta.offset)
                length = delta.end
        frame["length"] = length
        heard = self.frame
        if heard.get("n", 0) > frame["n"]:
            frame.update({name: heard[name] for name in ("n", "progress", "label") if name in heard})
        if self.state in ENDS - {"expired"} and frame["state"] not in ENDS:
            # The end was heard while the cache was read, before it was stored.
            frame.update({name: heard[name] for name in ("state", "result", "error") if name in heard})
        return frame
