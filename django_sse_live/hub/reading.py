"""Reading: how far a client was served, and what it is sent next. A client is a cursor on the log.

Everything here is touched on the hub's loop alone. Nothing here knows of HTTP.
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
from .replay_budget import ReplayBudget

CloseReason = Literal[
    "client",
    "shutdown",
    "disconnected",
    "max_age",
    "send_timeout",
    "too_many_clients",
    "not_ready",
    "replay_limit",
    "revoked",
    "bad_message",
    "too_many_messages",
    "error",
]

LOST: Final = -1  # a cursor from which nothing can be read: the next thing its client gets is a reset
QUEUED_FRAMES_MAX: Final = 8  # control frames that wait for one client; further ones are dropped
NEEDED_FRAMES_MAX: Final = 250  # those of which none may be missed in silence; one object for all clients of a channel
RESET_SECONDS: Final = 1.0  # from one reset of a client to its next, at least


class ClientHub(Protocol):
    """What a client and those who stream it need of its hub."""

    loop: asyncio.AbstractEventLoop
    log: EventLog
    counts: Counts
    replays: ReplayBudget
    heartbeat: Heartbeat[Any]

    @property
    def spread_ms(self) -> int: ...

    notices: Notices
    must_close: Callable[[], bool] | None
    finds_silence: bool
    parts: dict[type, Any]

    def refusal(self, client: Any) -> CloseReason | None: ...

    def join(self, client: Any) -> Audience[Any]: ...

    def count_like(self, info: ClientInfo) -> int: ...

    def announce(self, client: Any) -> None: ...

    def part(self, client: Any, audience: Audience[Any]) -> None: ...

    def retry_ms(self) -> int: ...

    def clock_ms(self) -> float: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


class Writer(Protocol):
    """Writes to a client's connection on the spot. For the fan-out alone, and only while the stream's task waits."""

    def has_room(self) -> bool:
        """Whether a chunk would go out now, with nothing to be awaited and nothing of the server's between."""

    def write(self, chunk: bytes) -> None:
        """After has_room(), in the same turn of the loop."""


class Goodbye(NamedTuple):
    position: Cursor  # everything up to here is sent before it
    retry_ms: int | None  # None: final
    until: float  # loop time; what has not been read by then is not waited for


class Reading:
    """The state of one stream, from the log to the bytes. The task that streams it calls take() until it gives None,
    then awaits wait() or, if ``close_reason`` is set, stops."""

    __slots__ = (
        "info", "cursor", "last_ping", "events_sent", "bytes_sent", "close_reason", "writer", "sending_since",
        "heartbeat_due", "hub", "_audience", "_waiter", "_frames", "_history", "_to_replay", "_goodbye", "_reset_at",
    )  # fmt: skip

    def __init__(self, hub: ClientHub, info: ClientInfo, cursor: Cursor) -> None:
        self.info: ClientInfo = info
        self.hub: ClientHub = hub
        self.cursor: Cursor = cursor
        self.last_ping: float = 0.0  # seconds since 1970: when the last heartbeat was handed over
        self.events_sent: int = 0
        self.bytes_sent: int = 0
        self.close_reason: CloseReason | None = None
        self.writer: Writer | None = None  # set by the task that streams, where its server has one
        self.sending_since: float = 0.0  # loop time at which the send under way began; 0 when there is none
        self.heartbeat_due: bool = False
        self._audience: Audience[Any] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._frames: list[bytes] = []  # to be sent before anything else
        self._history: list[Event] | None = None  # to be sent before anything from the log; the newest first
        self._to_replay = 0  # how many of the next events from the log are older than this stream
        self._goodbye: Goodbye | None = None  # what ends the stream, until it is taken
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

    def _hold(self, history: list[Event], after: Cursor) -> None:
        """Keep hold of what is to be replayed: of the past, and of the log after that position, which may evict it
        before it is sent."""
        log = self.hub.log
        while events := log.read(self.channels, after):
            history = history + events
            after = events[-1].position
        self._history = history[::-1]
        self.cursor = max(self.cursor, log.head)

    # What it is sent

    def take(self) -> bytes | None:
        """What to write now, at most about SEND_MAX_BYTES, and move the cursor past it; None when there is nothing."""
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
        """The first of these events, and how many."""
        frames: list[bytes] = []
        size = 0
        for event in events:
            frame = audience.encode(event)
            size += len(frame)
            if frames and size > SEND_MAX_BYTES:
                break
            frames.append(frame)
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
        """The rest of what stands before the goodbye; or a reset, if that cannot be had any more or is not read; then
        the goodbye."""
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
        """To the head, if it waits for news and there are none: nothing on its channels lies between."""
        log = self.hub.log
        if (
            self._waiter is not None
            and not self._history
            and self.cursor != LOST
            and not log.lost(self.channels, self.cursor)
            and not log.with_news(self.channels, self.cursor)
        ):
            self.cursor = log.head

    def tell(self, body: bytes, *, is_needed: bool = False) -> None:
        """Queue a control frame; dropped if QUEUED_FRAMES_MAX wait already. One that ``is_needed`` waits behind up to
        NEEDED_FRAMES_MAX, and where it is dropped the client is told by a reset."""
        if self.put(body, NEEDED_FRAMES_MAX if is_needed else QUEUED_FRAMES_MAX):
            self.wake()
        elif is_needed and self.is_open:
            self.lose()

    def put(self, body: bytes, most: int = QUEUED_FRAMES_MAX) -> bool:
        """tell(), without waking the client. Whether the frame is queued."""
        has_room = self.is_open and len(self._frames) < most
        if has_room:
            self._frames.append(body)
        return has_room

    def say(self, body: bytes) -> int:
        """Queue a frame for this client alone, whatever waits before it. Gives how many now wait."""
        if self.is_open:
            self._frames.append(body)
            self.wake()
        return len(self._frames)

    @property
    def unread_frames(self) -> int:
        """How many frames wait to be taken."""
        return len(self._frames)

    def lose(self) -> None:
        """It has missed something: the next thing it gets is a reset."""
        self.cursor = LOST
        self.wake()

    # Waiting

    def wait(self) -> asyncio.Future[None]:
        """To be awaited after take() gave None: done when it is worth calling again."""
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
        """Write what there is, if the task that streams waits and there is room; else wake it. On the loop: from the
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
        except Exception as error:  # the task that streams meets it, and ends this stream alone
            self._waiter = None
            waiter.set_exception(error)
            return
        if self.cursor < self.hub.log.head or self._frames or self.heartbeat_due:
            self.wake()
