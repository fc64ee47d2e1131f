"""Client: one open stream, from the checks of its request to its end.

Touched on the hub's loop alone. HTTP is unknown here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from operator import attrgetter
from random import random
from typing import Any, Literal

from ..conf import live_settings
from ..events import Event, format_id
from ..identity import as_digest
from ..wire import connected_frame, goodbye_frame, reset_frame
from .audience import Cursor
from .client_info import Admission, ClientInfo
from .reading import LOST, ClientHub, CloseReason, Goodbye, Reading


def _of_info(name: str) -> Any:
    return property(attrgetter(f"info.{name}"))


class Client(Reading):
    """One open stream in its hub.

    States, each entered once, in this order: made (by the view; the hub does not know it) → open (in the registry) →
    closing (``close_reason`` is set; the events before the goodbye, and the goodbye, may still be taken) → closed (out
    of the registry). The task that streams it calls open() first and leave() last.
    """

    __slots__ = (
        "connected_at", "abort", "heartbeat_at", "ends_at", "look_key", "checked_at", "initial", "resumed_from",
        "greeting", "admission", "make_ticket", "_epoch", "_asked", "_tokens", "_own", "__weakref__",
    )  # fmt: skip

    # Read from its info.
    id: str = _of_info("id")
    namespace: str = _of_info("namespace")
    names: tuple[str, ...] = _of_info("names")
    user_pk: str | None = _of_info("user_pk")
    session: str | None = _of_info("session")
    address: str = _of_info("address")
    user_agent: str = _of_info("user_agent")
    heartbeat_seconds: float = _of_info("heartbeat_seconds")

    # Attributes of Reading, repeated here: type checkers would infer narrower types from the assignments.
    info: ClientInfo
    cursor: Cursor
    last_ping: float
    close_reason: CloseReason | None

    def __init__(
        self,
        hub: ClientHub,
        info: ClientInfo,
        *,
        last_id: tuple[str, int] | Literal["none", "unknown"] = "none",
        tokens: tuple[str, ...] = (),
        own: tuple[str, ...] = (),
        checked_at: float = 0.0,
    ) -> None:
        # The cursor is set now: events that are broadcast while the snapshot is made are replayed after it.
        log = hub.log
        self._epoch, cursor = (log.epoch, log.head) if isinstance(last_id, str) else last_id
        super().__init__(hub, info, cursor)
        self.connected_at: float = 0.0  # seconds since 1970
        self.abort: Callable[..., None] | None = None  # drops the TCP connection; set by the task that streams
        self.heartbeat_at: float = 0.0  # loop time; set by Heartbeat, as are the next two
        self.ends_at: float = 0.0
        self.look_key: int = 0
        # Loop time before its access was checked; 0 once it is open.
        self.checked_at: float = checked_at
        self.initial: Sequence[bytes] = ()  # frames that follow ``connected``
        self.resumed_from: int | None = None  # the position it resumed from, if it was open and got no reset
        self._asked = last_id
        self._tokens, self._own = tokens, own
        # further members of ``connected``, for this package's own JavaScript
        self.greeting: dict[str, Any] | None = None
        self.admission: Admission | None = None  # of a client let in by a ticket; None once it is open
        # makes the ticket of ``connected``; None once it is open
        self.make_ticket: Callable[[Client], str | None] | None = None
        if self._epoch == log.epoch and log.is_about_to_evict(cursor) and not log.lost(info.channels, cursor):
            self._hold([], cursor)

    def __repr__(self) -> str:
        return f"<Client {self.id} {', '.join(self.channels)}>"

    @property
    def connected(self) -> datetime:
        return datetime.fromtimestamp(self.connected_at, timezone.utc)

    # The start

    @property
    def needs_history(self) -> bool:
        """Whether it missed events that only the backend may still have, or has seen more than this worker."""
        log = self.hub.log
        return (
            not isinstance(self._asked, str)
            and self._epoch == log.epoch
            and self.cursor != LOST
            and (log.lost(self.channels, self.cursor) or self.cursor > log.head)
        )

    def replay(self, history: list[Event]) -> None:
        """Before open(): send these events first. They are all events after the cursor that the log has evicted."""
        after = max(self.hub.log.evicted_to, history[-1].position if history else 0)
        self._hold([*reversed(self._history or ()), *history], after)  # behind what is held since it was made

    def open(self) -> None:
        """Enter the registry and send ``connected``; if there is no room, say goodbye."""
        if self.close_reason is not None:
            return  # refused already
        hub = self.hub
        self.connected_at = self.last_ping = time.time()
        refusal = hub.refusal(self)
        if refusal is not None:
            self.refuse(refusal)
            return
        log = hub.log
        settings = live_settings()
        if self._asked == "none" and self._epoch != log.epoch and not self.initial:
            self._epoch, self.cursor = log.epoch, log.head  # it has seen nothing, so it has missed nothing
        reset = None
        if self._asked == "unknown" or self._epoch != log.epoch or self.cursor == LOST:
            reset = "unknown_id"
            if hub.hear_foreign_id is not None and not isinstance(self._asked, str) and self._epoch != log.epoch:
                hub.hear_foreign_id(self._asked[1])
        elif log.lost(self.channels, self.cursor):
            reset = "history_expired"
        if reset is not None:
            self._skip_to_head(reset)
        elif not isinstance(self._asked, str):
            self.resumed_from = self._asked[1]
        if reset is None and self.cursor < log.head:
            self._to_replay = log.count(self.channels, self.cursor)
        self._audience = audience = hub.join(self)
        self.checked_at, self.admission = 0.0, None
        self._frames.append(
            connected_frame(
                self.form,
                id=format_id(log.epoch, self.cursor) if self._asked == "none" and reset is None else None,
                retry_ms=settings.retry_ms,
                client_id=self.id,
                channels=self.names,
                heartbeat_seconds=self.heartbeat_seconds,
                resumed=self._asked != "none" and reset is None,
                tokens=self._tokens,
                own=self._own,
                ends_seconds=None if self.ends_at == float("inf") else self.ends_at - hub.loop.time(),
                streams=hub.clients.count_like(self.info),
                more={} if self.form == "named" else self._more(),
            )
        )
        if reset is not None:
            self._frames.append(reset_frame(self.form, id=log.head_id, reason=reset))
        self._frames += self.initial
        self.initial, self._tokens, self._own, self.greeting, self.make_ticket = (), (), (), None, None
        # The audience's tuple has the same names: all its clients share one object.
        object.__setattr__(self.info, "channels", audience.channels)
        hub.announce(self)

    def _more(self) -> dict[str, Any]:
        """Further members of ``connected`` for this package's own JavaScript: the digest of the user whose messages the
        page may send, and the ticket."""
        info = self.info
        more: dict[str, Any] = {"as": as_digest(info.user_pk, info.namespace), "spread": self.hub.spread_ms}
        if self.greeting is not None:
            more.update(self.greeting)
        ticket = None if self.make_ticket is None else self.make_ticket(self)
        if ticket is not None:
            more["ticket"] = ticket
        return more

    def refuse(self, reason: CloseReason) -> None:
        """Instead of open(), if there is no room or no time: the stream is one goodbye."""
        settings = live_settings()
        retry_ms = int(settings.retry_ms * (1 + 4 * random()))
        self.close_reason = reason
        self._frames.append(goodbye_frame(self.form, reason=reason, retry_ms=retry_ms))
        self.hub.counts.refused[reason] += 1

    # The end

    def end(self, reason: CloseReason, *, retry_ms: int | None = None) -> None:
        """Send the events broadcast so far, say goodbye and stop. With ``retry_ms`` the client comes back after that
        time; None is final. After SEND_TIMEOUT_SECONDS, unread bytes are given up."""
        before = self._goodbye
        if self._audience is None or (self.close_reason is not None and before is None):
            return
        if before is not None and (retry_ms is not None or before.retry_ms is None):
            return  # it already has a goodbye, which says the same or more
        loop, log = self.hub.loop, self.hub.log
        position = before.position if before is not None and self.close_reason == "revoked" else log.head
        self.close_reason = reason
        self._goodbye = Goodbye(position, retry_ms, loop.time() + live_settings().send_timeout_seconds)
        self.wake()

    def grow_old(self) -> None:
        """End the stream, since it is MAX_AGE_SECONDS old."""
        self.end("max_age", retry_ms=int(live_settings().retry_ms * (0.5 + random())))

    def leave(self, reason: CloseReason = "client") -> None:
        """Leave the registry; the task that streams has stopped. May be called twice."""
        if self.close_reason is None:
            self.close_reason = reason
        self._frames.clear()
        self._history = self._goodbye = None
        self.wake()
        if self._audience is not None:
            audience, self._audience = self._audience, None
            self.hub.leave(self, audience)
