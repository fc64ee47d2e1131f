"""Audience: the clients that hear the same channels in the same form, and the bodies that they share.

Touched on the hub's loop alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from ..events import Event
from ..wire import Form
from .log import EventLog

Cursor: TypeAlias = int

SEND_MAX_BYTES: Final = 256 * 1024  # one send carries no more, except a single larger event
SHARED_BODIES_MAX: Final = 16  # bodies kept for clients that reach the same cursor later


class Listener(Protocol):
    """What an audience and the fan-out need of a client."""

    cursor: Cursor

    def serve(self) -> None: ...


ListenerT = TypeVar("ListenerT", bound=Listener)

BodyKey: TypeAlias = tuple[object, Form, Cursor]  # an audience, or a channel's name; and its cursor
Body: TypeAlias = tuple[bytes, Cursor, int]  # the bytes, the cursor after them, how many events they hold


class SharedBodies(dict[BodyKey, Body]):
    """The bodies read since the log's head last moved, bounded, and the one read last."""

    __slots__ = ("cursor", "latest", "reader")

    def __init__(self) -> None:
        super().__init__()
        self.reader: object | None = None
        self.cursor: Cursor = 0
        self.latest: Body | None = None

    def clear(self) -> None:
        self.reader = self.latest = None
        super().clear()

    def __setitem__(self, key: BodyKey, body: Body) -> None:
        if len(self) >= SHARED_BODIES_MAX:
            self.clear()
        super().__setitem__(key, body)


class Source(Protocol):
    """Where an audience reads: a hub, whose log may be replaced."""

    log: EventLog
    shared_bodies: SharedBodies


class Audience(Generic[ListenerT]):
    """The clients that hear the same channels in the same form. Those at the same cursor get the same bytes."""

    __slots__ = ("channels", "form", "clients", "_heard", "_source")

    def __init__(self, source: Source, channels: tuple[str, ...], form: Form) -> None:
        self._source = source
        self.channels: tuple[str, ...] = channels
        self.form: Form = form
        self.clients: dict[ListenerT, None] = {}  # in order of arrival
        self._heard = frozenset(channels)

    def encode(self, event: Event) -> bytes:
        if self.form == "envelope":
            return event.envelope(self._heard)
        return event.named() if self.form == "named" else event.lines(self._heard)

    def frames(self, events: Iterable[Event]) -> list[bytes]:
        """The first of these events, as many as one send carries."""
        frames: list[bytes] = []
        size = 0
        for event in events:
            frame = self.encode(event)
            size += len(frame)
            if size > SEND_MAX_BYTES and frames:
                break
            frames.append(frame)
        return frames

    def read(self, cursor: Cursor) -> Body | None:
        """The events after ``cursor`` as one body; None if there are none."""
        shared = self._source.shared_bodies
        if shared.reader is self and shared.cursor == cursor:
            return shared.latest  # the usual case: the body of the client before
        body = self._read(cursor, shared)
        if len(self.clients) > 1:
            shared.reader, shared.cursor, shared.latest = self, cursor, body
        return body

    def _read(self, cursor: Cursor, shared_bodies: SharedBodies) -> Body | None:
        log = self._source.log
        if len(self.channels) == 1:
            news: tuple[str, ...] = self.channels
        else:
            news = log.with_news(self.channels, cursor)
            if not news:
                return None
        # If only one channel has news, the other channels make no difference. Ten thousand users, each with a channel
        # of their own besides a common one, share one body.
        alone: BodyKey = (self, self.form, cursor)
        shared: BodyKey = (news[0], self.form, cursor) if len(news) == 1 else alone
        known = shared_bodies.get(shared) or shared_bodies.get(alone)
        if known is not None:
            return known
        events = log.read(news, cursor)
        if not events:
            return None
        frames = self.frames(events)
        count = len(frames)
        complete = count == len(events) and events[-1].position >= max(map(log.last_position, news))
        body = (
            frames[0] if count == 1 else b"".join(frames),
            log.head if complete else events[count - 1].position,
            count,
        )
        # Envelopes and lines name only the channels that this audience hears.
        is_private = self.form != "named" and any(len(event.channels) > 1 for event in events)
        shared_bodies[alone if is_private else shared] = body
        return body
