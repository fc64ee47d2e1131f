"""Reading: how far a client was served, and what it gets next. A client is a cursor on the log.

Touched on the hub's loop alone. HTTP is unknown here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Literal, NamedTuple, Protocol

from ..events import Event, format_id
from ..wire import Form, goodbye_frame, reset_frame
from .audience import SEND_MAX_BYTES, Audience, Cursor
from .client_info import ClientInfo
from .counts import Counts
from .heartbeat import Heartbeat
from .log import EventLog
from .notices import Notices

CloseReason = Literal[
    "client", "shutdown", "disconnected", "max_age", "send_timeout", "too_many_clients", "not_ready", "replay_limit",
    "revoked", "bad_message", "too_many_messages", "error",
]  # fmt: skip

LOST: Final = -1  # a cursor that cannot be read from: the client gets a reset next
QUEUED_FRAMES_MAX: Final = 8  # control frames queued for one client; further ones are dropped
# the same for frames that may not be missed silently; the clients of a channel share each
NEEDED_FRAMES_MAX: Final = 250
RESET_SECONDS: Final = 1.0  # the least time between two resets of a client


class ClientHub(Protocol):
    """What a client, and the task that streams it, need of its hub."""

    loop: asyncio.AbstractEventLoop
    log: EventLog
    counts: Counts
    heartbeat: Heartbeat[Any]
    notices: Notices
    clients: Any  # the registry
    must_close: Callable[[], bool] | None
    finds_silence: bool
    hear_foreign_id: Callable[[int], None] | None
    parts: dict[type, Any]

    @property
    def spread_ms(self) -> int: ...

    def refusal(self, client: Any) -> CloseReason | None: ...

    def join(self, client: Any) -> Audience[Any]: ...

    def announce(self, client: Any) -> None: ...

    def leave(self, client: Any, audience: Audience[Any]) -> None: ...

    def retry_ms(self) -> int: ...

    def clock_ms(self) -> float: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


class Writer(Protocol):
    """Writes straight to a client's TCP connection. For the fan-out alone, while the stream's task waits."""

    def has_room(self) -> bool:
        """Whether a chunk would go out now: there is nothing to await, and the server has nothing unsent."""

    def write(self, chunk: bytes) -> None:
        """After has_room(), in the same turn of the loop."""


class Goodbye(NamedTuple):
    position: Cursor  # the events up to here are sent before it
    retry_ms: int | None  # None: final
    until: float  # loop time at which unread events are given up


class Reading:
    """The state of one stream, from the log to its bytes. Its task calls take() until that returns None, then awaits
    wait() or, if ``close_reason`` is set, stops."""

    __slots__ = (
        "info", "cursor", "last_ping", "events_sent", "bytes_sent", "close_reason", "writer", "sending_since",
        "heartbeat_due", "hub", "_audience", "_waiter", "_frames", "_history", "_to_replay", "_goodbye", "_reset_at",
    )  # fmt: skip

    def __init__(self, hub: ClientHub, info: ClientInfo, cursor: Cursor) -> None:
        self.info: ClientInfo = info
        self.hub: ClientHub = hub
        self.cursor: Cursor = cursor
        self.last_ping: float = 0.0  # seconds since 1970 when the last heartbeat was sent
        self.events_sent: int = 0
        self.bytes_sent: int = 0
        self.close_reason: CloseReason | None = None
        self.writer: Writer | None = None  # set by the task that streams, if its server has one
        self.sending_since: float = 0.0  # loop time when the current send began; 0 if none is under way
        self.heartbeat_due: bool = False
        self._audience: Audience[Any] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._frames: list[bytes] = []  # sent before anything else
        self._history: list[Event] | None = None  # sent before anything from the log; newest first
        self._to_replay = 0  # events of the log still to come that are older than this stream
        self._goodbye: Goodbye | None = None  # set at the end, until it is taken
        self._reset_at = 0.0  # loop time before which no reset is sent

    @property
    def channels(self) -> tuple[str, ...]:
        return self.info.channels

    @property
    def form(self) -> Form:
        return self.info.form

    @property
    def is_open(self) -> bool:
        return self._audience is not None and self.close_reason is None

    @property
    def held(self) -> list[Event]:
        """The events that it holds to be replayed, newest first."""
        return self._history or []

    def _hold(self, history: list[Event], after: Cursor) -> None:
        """Keep the events to be replayed: this history, and those of the log after that position, which it may evict
        before they are sent."""
        log = self.hub.log
        held = list(history)
        while events := log.read(self.channels, after):
            held += events
            after = events[-1].position
        self._history = held[::-1]
        self.cursor = max(self.cursor, log.head)

    # What it gets

    def take(self) -> bytes | None:
        """The bytes to write now, about SEND_MAX_BYTES at most. Moves the cursor past them. None if there is
        nothing."""
        if self._frames:
            return self._take_frames(self._frames)
        audience = self._audience
        if audience is None:
            return None
        if self.close_reason is not None:
            return self._take_last(audience)
        if self._history:
            return self._take_history(self._history, audience)
        hub = self.hub
        log = hub.log
        if self.cursor < log.head:
            if self.cursor < log.evicted_to and (self.cursor == LOST or log.lost(self.channels, self.cursor)):
                return self._take_reset()
            body = audience.read(self.cursor)
            if body is not None:
                chunk, self.cursor, count = body
                counts = hub.counts
                counts.delivered += count
                self.events_sent += count
                if self._to_replay:
                    replayed = min(count, self._to_replay)
                    self._to_replay -= replayed
                    counts.replayed += replayed
                size = len(chunk)
                counts.bytes += size
                self.bytes_sent += size
                return chunk
            self.cursor = log.head
        if self.heartbeat_due:
            self.heartbeat_due = False
            self.last_ping = time.time()
            hub.counts.heartbeats += 1
            return self._counted(hub.heartbeat.frame(self.form, log.epoch, self.cursor, hub.spread_ms))
        return None

    def _counted(self, body: bytes) -> bytes:
        self.hub.counts.bytes += len(body)
        self.bytes_sent += len(body)
        return body

    def _take_frames(self, frames: list[bytes]) -> bytes:
        count = size = 0
        while count < len(frames) and size < SEND_MAX_BYTES:
            size += len(frames[count])
            count += 1
        body = b"".join(frames[:count])
        del frames[:count]
        return self._counted(body)

    def _take_events(self, events: Iterable[Event], audience: Audience[Any]) -> tuple[bytes, int]:
        """The first of these events as one body, and their number."""
        frames = audience.frames(events)
        self.events_sent += len(frames)
        self.hub.counts.delivered += len(frames)
        return self._counted(b"".join(frames)), len(frames)

    def _take_history(self, history: list[Event], audience: Audience[Any]) -> bytes | None:
        if self.cursor == LOST:
            self._history = None
            return self._take_reset()
        body, count = self._take_events(reversed(history), audience)
        del history[-count:]
        self.hub.counts.replayed += count
        return body

    def _take_reset(self) -> bytes | None:
        hub = self.hub
        if hub.loop.time() < self._reset_at:
            self.cursor = LOST
            hub.heartbeat.bring_forward(self, self._reset_at)
            return None
        self._skip_to_head("history_expired")
        return self._counted(reset_frame(self.form, id=hub.log.head_id, reason="history_expired"))

    def _skip_to_head(self, reason: str) -> None:
        hub = self.hub
        self.cursor = hub.log.head
        self._history = None
        self._to_replay = 0
        self._reset_at = hub.loop.time() + RESET_SECONDS
        hub.counts.resets[reason] += 1

    def _take_last(self, audience: Audience[Any]) -> bytes | None:
        """The rest before the goodbye, or a reset if it is gone or not read in time; then the goodbye."""
        goodbye, log = self._goodbye, self.hub.log
        if goodbye is None:
            return None
        is_late = self.hub.loop.time() >= goodbye.until
        is_lost = self.cursor == LOST or (self.cursor < goodbye.position and log.lost(self.channels, self.cursor))
        rest: list[Event] = self._history or []
        if not is_lost and not is_late and rest:
            return self._take_history(rest, audience)
        if not is_lost and self.cursor < goodbye.position:
            rest = [
                *rest,
                *(event for event in log.read(self.channels, self.cursor) if event.position <= goodbye.position),
            ]
            if rest and not is_late:
                body, count = self._take_events(rest, audience)
                self.cursor = rest[count - 1].position
                return body
        reset = b""
        if is_lost or rest:
            self._skip_to_head("history_expired")
            reset = reset_frame(self.form, id=log.head_id, reason="history_expired")
        else:
            self.cursor = max(self.cursor, goodbye.position)
        self._goodbye = None
        assert self.close_reason is not None
        final_id = format_id(log.epoch, self.cursor)
        frame = goodbye_frame(self.form, reason=self.close_reason, retry_ms=goodbye.retry_ms, id=final_id)
        return self._counted(reset + frame)

    def catch_up(self) -> None:
        """Move the cursor to the head if the client waits and has no news: the events between are not on its
        channels."""
        log = self.hub.log
        if (
            self._waiter is not None
            and not self._history
            and LOST != self.cursor < log.head
            and not log.lost(self.channels, self.cursor)
            and not log.with_news(self.channels, self.cursor)
        ):
            self.cursor = log.head

    def tell(self, body: bytes, *, is_needed: bool = False) -> None:
        """Queue a control frame; dropped if QUEUED_FRAMES_MAX wait already. With ``is_needed`` up to NEEDED_FRAMES_MAX
        may wait, and if it is dropped the client gets a reset."""
        if self.put_or_lose(body, is_needed=is_needed):
            self.wake()

    def put_or_lose(self, body: bytes, *, is_needed: bool) -> bool:
        """tell(), without waking the client. Whether it is to be woken."""
        if self.put(body, NEEDED_FRAMES_MAX if is_needed else QUEUED_FRAMES_MAX):
            return True
        if is_needed and self.is_open:
            self.cursor = LOST
            return True
        return False

    def put(self, body: bytes, most: int = QUEUED_FRAMES_MAX) -> bool:
        """tell(), without waking the client. False if the frame was dropped."""
        has_room = self.is_open and len(self._frames) < most
        if has_room:
            self._frames.append(body)
        return has_room

    def say(self, body: bytes) -> int:
        """Queue a frame for this client alone, however many wait. Returns how many wait now."""
        if self.is_open:
            self._frames.append(body)
            self.wake()
        return len(self._frames)

    @property
    def unread_frames(self) -> int:
        """The number of queued frames."""
        return len(self._frames)

    def lose(self) -> None:
        """Note that it has missed something: the client gets a reset next."""
        self.cursor = LOST
        self.wake()

    # Waiting

    def wait(self) -> asyncio.Future[None]:
        """A future to await after take() returned None; done when take() is worth calling again."""
        self._waiter = waiter = self.hub.loop.create_future()
        return waiter

    @property
    def is_waiting(self) -> bool:
        return self._waiter is not None

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def serve(self) -> None:
        """Write what there is if the stream's task waits and the connection has room; else wake the task. For the
        fan-out alone."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        writer = self.writer
        try:
            if writer is None or self.close_reason is not None or not writer.has_room():
                self.wake()
                return
            chunk = self.take()
            if chunk is None:
                return
            writer.write(chunk)
        except Exception as error:  # raised in the task that streams, and ends this stream alone
            self._waiter = None
            waiter.set_exception(error)
            return
        if self.cursor < self.hub.log.head or self._frames or self.heartbeat_due:
            self.wake()
