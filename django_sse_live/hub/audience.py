"""Audience: the clients that hear the same; and the bodies that they share.

Touched on the hub's loop alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from ..events import Event, Form

if TYPE_CHECKING:
    from .clients import Client
    from .hub import Hub

Cursor: TypeAlias = int

SEND_MAX_BYTES: Final = 256 * 1024  # one send carries no more, unless a single event is larger
BATCHES: Final = 16  # joined bodies kept for the clients that stand where another stood: SEND_MAX_BYTES each

BatchKey: TypeAlias = (
    "tuple[Audience | str, Form, Cursor]"  # whose (an audience's, or anyone's on a channel), and where
)


Batch: TypeAlias = tuple[bytes, Cursor, int]  # a body, the cursor after it, how many events it holds


class Batches(dict[BatchKey, Batch]):
    """What has been read since the log's head last moved; bounded. Besides it, what was read last."""

    __slots__ = ("cursor", "latest", "reader")

    def __init__(self) -> None:
        super().__init__()
        self.reader: Audience | None = None
        self.cursor: Cursor = 0
        self.latest: Batch | None = None

    def clear(self) -> None:
        self.reader = self.latest = None
        super().clear()

    def __setitem__(self, key: BatchKey, batch: Batch) -> None:
        if len(self) >= BATCHES:
            self.clear()
        super().__setitem__(key, batch)


class Audience:
    """The clients that hear the same channels in the same form: whoever of them stands at the same cursor is handed the
    same bytes."""

    __slots__ = ("channels", "form", "clients", "_heard", "_hub")

    def __init__(self, hub: Hub, channels: tuple[str, ...], form: Form) -> None:
        self._hub = hub
        self.channels: tuple[str, ...] = channels
        self.form: Form = form
        self.clients: dict[Client, None] = {}  # in order of arrival
        self._heard = frozenset(channels)

    def encode(self, event: Event) -> bytes:
        return event.named() if self.form == "named" else event.envelope(self._heard)

    def read(self, cursor: Cursor) -> Batch | None:
        """None when there is nothing after ``cursor``."""
        batches = self._hub.batches
        if batches.reader is self and batches.cursor == cursor:
            return batches.latest  # most often: what the client before was handed
        batch = self._read(cursor, batches)
        if len(self.clients) > 1:
            batches.reader, batches.cursor, batches.latest = self, cursor, batch
        return batch

    def _read(self, cursor: Cursor, batches: Batches) -> Batch | None:
        log = self._hub.log
        if len(self.channels) == 1:
            news: tuple[str, ...] = self.channels
        else:
            news = log.with_news(self.channels, cursor)
            if not news:
                return None
        # Where only one channel has news, it makes no difference what else is heard: ten thousand users, each with a
        # channel of their own besides a common one, share one batch.
        alone: BatchKey = (self, self.form, cursor)
        shared: BatchKey = (news[0], self.form, cursor) if len(news) == 1 else alone
        known = batches.get(shared) or batches.get(alone)
        if known is not None:
            return known
        events = log.read(news, cursor)
        if not events:
            return None
        bodies: list[bytes] = []
        size = 0
        for event in events:
            body = self.encode(event)
            size += len(body)
            if size > SEND_MAX_BYTES and bodies:
                break
            bodies.append(body)
        count = len(bodies)
        complete = count == len(events) and events[-1].position >= max(map(log.last_position, news))
        batch = (
            bodies[0] if count == 1 else b"".join(bodies),
            log.head if complete else events[count - 1].position,
            count,
        )
        # An envelope names the channels that this audience hears, and no other.
        is_private = self.form == "envelope" and any(len(event.channels) > 1 for event in events)
        batches[alone if is_private else shared] = batch
        return batch
