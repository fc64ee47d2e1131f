"""Client: one open stream, a cursor on the log.

Everything here is touched on the hub's loop alone. Nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timezone
from random import random
from typing import TYPE_CHECKING, Final, Literal

from ..conf import live_settings
from ..events import Event, Form, connected_frame, format_id, goodbye_frame, reset_frame
from .audience import SEND_MAX_BYTES, Audience, Cursor

if TYPE_CHECKING:
    from .hub import Hub

logger: logging.Logger = logging.getLogger("django_sse_live")

CloseReason = Literal[
    "client",
    "shutdown",
    "disconnected",
    "max_age",
    "send_timeout",
    "too_many_clients",
    "not_ready",
    "revoked",
    "error",
]

TOLD: Final = 8  # frames that may wait for a client besides its events
LOST: Final = -1  # a cursor from which nothing can be read: the next thing its client gets is a reset


class Client:
    """One open stream: what it hears, how far it was served, and what is known of who reads it.

    States, each entered once and in this order: made (by the view; unknown to the hub) → open (in the registry) →
    closing (``close_reason`` is set; a goodbye may still be taken) → closed (out of the registry). The one who streams
    it calls take() until it gives None, then awaits wait() or, if ``close_reason`` is set, stops, and calls leave().
    """

    __slots__ = (
        "id", "channels", "form", "cursor", "user_pk", "auth", "session", "address", "user_agent", "connected_at",
        "last_ping", "heartbeat_seconds", "events_sent", "bytes_sent", "close_reason", "abort", "sending_since",
        "heartbeat_at", "ends_at", "look_key", "heartbeat_due", "checked_at", "push",
        "hub", "initial", "_audience", "_waiter", "_frames", "_epoch", "_asked", "_tokens", "_own", "_history",
        "_to_replay", "__weakref__",
    )  # fmt: skip

    def __init__(
        self,
        hub: Hub,
        channels: tuple[str, ...],
        form: Form = "named",
        *,
        last_id: tuple[str, int] | Literal["none", "unknown"] = "none",
        heartbeat_seconds: float | None = None,
        tokens: tuple[str, ...] = (),
        own: tuple[str, ...] = (),
        user_pk: str | None = None,
        session: str | None = None,
        address: str = "",
        user_agent: str = "",
        auth: str = "",
        checked_at: float = 0.0,
    ) -> None:
        self.id: str = secrets.token_hex(8)
        self.channels: tuple[str, ...] = channels
        self.form: Form = form
        self.user_pk: str | None = user_pk
        self.auth: str = auth  # a digest of the user's session auth hash: another one after a password change
        self.session: str | None = session  # a digest of the session key, never the key
        self.address: str = address
        self.user_agent: str = user_agent
        if heartbeat_seconds is None:
            heartbeat_seconds = live_settings().heartbeat_seconds
        self.heartbeat_seconds: float = heartbeat_seconds
        self.connected_at: float = 0.0  # seconds since 1970
        self.last_ping: float = 0.0  # seconds since 1970: when the last heartbeat was handed over
        self.events_sent: int = 0
        self.bytes_sent: int = 0
        self.close_reason: CloseReason | None = None
        self.abort: Callable[..., None] | None = None  # drops the connection; set by who streams
        # Sends a chunk on the spot, and gives what is still to be awaited of it, if anything; set by who streams.
        self.push: Callable[[bytes], Awaitable[None] | None] | None = None
        self.sending_since: float = 0.0  # loop time at which the send under way began; 0 when there is none
        self.heartbeat_at: float = 0.0  # loop time; kept by Heartbeat, as are the next three
        self.ends_at: float = 0.0
        self.look_key: int = 0
        self.heartbeat_due: bool = False
        # Loop time before which nobody looked whether it may listen; 0 once it is open.
        self.checked_at: float = checked_at
        self.hub: Hub = hub
        self._audience: Audience | None = None
        self._waiter: asyncio.Future[Awaitable[None] | None] | None = None
        self._frames: list[bytes] = []  # to be sent before anything else
        # Where it starts: fixed now, so that what is broadcast while its snapshot is made is replayed after it.
        self._asked = last_id
        self._epoch: str
        self.cursor: Cursor
        self._epoch, self.cursor = (hub.log.epoch, hub.log.head) if isinstance(last_id, str) else last_id
        self._tokens, self._own = tokens, own
        self.initial: Sequence[bytes] = ()  # frames to be sent right after connected
        self._history: list[Event] | None = None  # to be sent before anything from the log; the newest first
        self._to_replay = 0  # how many of the next events from the log are older than this stream

    def __repr__(self) -> str:
        return f"<Client {self.id} {', '.join(self.channels)}>"

    @property
    def connected(self) -> datetime:
        return datetime.fromtimestamp(self.connected_at, timezone.utc)

    @property
    def is_open(self) -> bool:
        return self._audience is not None and self.close_reason is None

    @property
    def needs_history(self) -> bool:
        """Whether it missed events that only the backend can still have."""
        log = self.hub.log
        return (
            not isinstance(self._asked, str)
            and self._epoch == log.epoch
            and self.cursor != LOST
            and log.lost(self.channels, self.cursor)
        )

    def replay(self, history: list[Event]) -> None:
        """Before open(): send these first. They are all that came after the cursor and has left the log."""
        self._history = history[::-1]
        self.cursor = self.hub.log.evicted_to

    def open(self) -> None:
        """Enter the registry, and say ``connected``; or, where there is no room, say goodbye."""
        if self.close_reason is not None:
            return  # refused already
        hub = self.hub
        self.connected_at = self.last_ping = time.time()
        refusal = hub.refusal(self)
        if refusal is not None:
            self.refuse(refusal)
            return
        self.checked_at = 0.0
        log = hub.log
        settings = live_settings()
        reset = None
        if self._asked == "unknown" or self._epoch != log.epoch or self.cursor == LOST:
            reset = "unknown_id"
        elif log.lost(self.channels, self.cursor):
            reset = "history_expired"
        if reset is not None:
            self.cursor = log.head
            self._history = None
            hub.counts.resets[reset] += 1
        elif self.cursor < log.head:
            self._to_replay = log.count(self.channels, self.cursor)
        self._frames.append(
            connected_frame(
                self.form,
                id=format_id(log.epoch, self.cursor) if self._asked == "none" and reset is None else None,
                retry_ms=settings.retry_ms,
                client_id=self.id,
                channels=self.channels,
                heartbeat_seconds=self.heartbeat_seconds,
                resumed=self._asked != "none" and reset is None,
                tokens=self._tokens,
                own=self._own,
            )
        )
        if reset is not None:
            self._frames.append(reset_frame(self.form, id=log.head_id, reason=reset))
        self._frames += self.initial
        self.initial, self._tokens, self._own = (), (), ()
        self._audience = hub.join(self)

    def take(self) -> bytes | None:
        """What to write now, at most about SEND_MAX_BYTES, and move the cursor past it; None when there is nothing."""
        if self._frames:
            return self._take_frames(self._frames)
        audience = self._audience
        if audience is None or self.close_reason is not None:
            return None
        if self._history:
            return self._take_history(self._history, audience)
        hub = self.hub
        log = hub.log
        if self.cursor < log.head:
            if self.cursor < log.evicted_to and (self.cursor == LOST or log.lost(self.channels, self.cursor)):
                self.cursor = log.head
                self._to_replay = 0
                hub.counts.resets["history_expired"] += 1
                return self._counted(reset_frame(self.form, id=log.head_id, reason="history_expired"))
            batch = audience.read(self.cursor)
            if batch is not None:
                body, self.cursor, count = batch
                counts = hub.counts
                counts.delivered += count
                self.events_sent += count
                if self._to_replay:
                    replayed = min(count, self._to_replay)
                    self._to_replay -= replayed
                    counts.replayed += replayed
                size = len(body)
                counts.bytes += size
                self.bytes_sent += size
                return body
            self.cursor = log.head
        if self.heartbeat_due:
            self.heartbeat_due = False
            self.last_ping = time.time()
            hub.counts.heartbeats += 1
            return self._counted(hub.heartbeat.frame(self.form, self.cursor))
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

    def _take_history(self, history: list[Event], audience: Audience) -> bytes:
        bodies: list[bytes] = []
        size = 0
        while history and size < SEND_MAX_BYTES:
            body = audience.encode(history.pop())
            bodies.append(body)
            size += len(body)
        self.events_sent += len(bodies)
        self.hub.counts.delivered += len(bodies)
        self.hub.counts.replayed += len(bodies)
        return self._counted(b"".join(bodies))

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

    def tell(self, body: bytes) -> None:
        """A frame that is no event; given up, where others wait to be sent."""
        if self.is_open and len(self._frames) < TOLD:
            self._frames.append(body)
            self.wake()

    def wait(self) -> asyncio.Future[Awaitable[None] | None]:
        """To be awaited after take() gave None: done when it is worth calling again. Gives what is still to
        be awaited of a push."""
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
        """Push what there is, if the one who streams is waiting and can; else wake it. On the loop, outside of any
        task: from the fan-out alone."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self.push is None or self.close_reason is not None:
            self.wake()
            return
        try:
            chunk = self.take()
        except Exception:
            self.wake()  # whoever streams meets it too, and ends this stream alone
            return
        if chunk is None:
            return
        rest = self.push(chunk)
        if rest is not None:
            self.sending_since = self.hub.heartbeat.now
            self._waiter = None
            waiter.set_result(rest)
        elif self.cursor < self.hub.log.head or self._frames or self.heartbeat_due:
            self.wake()

    def end(self, reason: CloseReason, *, retry_ms: int | None = None) -> None:
        """Say goodbye and stop. With ``retry_ms`` the client is asked to come back after that time; None is final."""
        if self.close_reason is not None:
            return
        self.close_reason = reason
        final_id = format_id(self.hub.log.epoch, max(self.cursor, 0))
        self._frames.append(goodbye_frame(self.form, reason=reason, retry_ms=retry_ms, id=final_id))
        self.wake()

    def refuse(self, reason: CloseReason) -> None:
        """Instead of open(): there is no room, or no time. The stream is a goodbye and nothing else."""
        settings = live_settings()
        retry_ms = int(settings.retry_ms * (1 + 4 * random()))
        self.close_reason = reason
        self._frames.append(goodbye_frame(self.form, reason=reason, retry_ms=retry_ms))
        self.hub.counts.refused[reason] += 1

    def matches(
        self,
        *,
        user_pk: str | None = None,
        channel: str | None = None,
        client_id: str | None = None,
        session: str | None = None,
        not_auth: str | None = None,
    ) -> bool:
        """Whether it meets every condition that is not None. ``not_auth``: its ``auth`` is another than this."""
        return (
            (user_pk is None or self.user_pk == user_pk)
            and (channel is None or channel in self.channels)
            and (client_id is None or self.id == client_id)
            and (session is None or self.session == session)
            and (not_auth is None or self.auth != not_auth)
        )

    def leave(self, reason: CloseReason = "client") -> None:
        """Out of the registry; whoever streams has stopped. May be called twice."""
        if self.close_reason is None:
            self.close_reason = reason
        self._frames.clear()
        self.wake()
        if self._audience is not None:
            audience, self._audience = self._audience, None
            self.hub.part(self, audience)
