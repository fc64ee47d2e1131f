"""The one sweep of a hub: heartbeats, hanging sends, streams that are too old. One timer serves all clients.

Touched on the hub's loop alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from random import random
from typing import Final, Generic, Protocol, TypeVar

from ..conf import live_settings
from ..events import format_id
from ..wire import Form, heartbeat_frame

logger: logging.Logger = logging.getLogger("django_sse_live")

TICK_SECONDS: Final = 0.25
SWEEP_SLICE: Final = 500  # clients checked before the loop does other work: 5 ms if all of them end


class Swept(Protocol):
    """What the sweep needs of a client. The first four attributes are the sweep's own."""

    heartbeat_at: float
    ends_at: float
    look_key: int
    heartbeat_due: bool
    sending_since: float

    @property
    def heartbeat_seconds(self) -> float: ...

    def grow_old(self) -> None: ...


SweptT = TypeVar("SweptT", bound=Swept)


class Heartbeat(Generic[SweptT]):
    """A timer wheel: each client stands at the tick when it must next be checked, so that a tick costs only what is
    due."""

    __slots__ = ("now", "_loop", "_before", "_cut_off", "_beat", "_after", "_wheel", "_timer", "_frames")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        before: Callable[[], None],
        cut_off: Callable[[SweptT], None],
        beat: Callable[[list[SweptT]], None],
        after: Callable[[], None],
    ) -> None:
        """``before``, ``after``: called around each tick. ``cut_off``: called for a client whose send hangs. ``beat``:
        wakes the clients that are due a heartbeat."""
        self.now: float = loop.time()  # loop time of the last tick, precise enough for each send
        self._loop = loop
        self._before = before
        self._cut_off = cut_off
        self._beat = beat
        self._after = after
        self._wheel: dict[int, dict[SweptT, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        # frames of this tick, shared by clients at the same cursor
        self._frames: dict[tuple[Form, str, int], bytes] = {}

    def add(self, client: SweptT) -> None:
        self.now = now = self._loop.time()
        max_age = live_settings().max_age_seconds
        client.heartbeat_at = now + client.heartbeat_seconds
        if not client.ends_at:  # a resumed stream ends when it would have without the break
            client.ends_at = float("inf") if max_age is None else now + max_age * (0.9 + 0.2 * random())
        self._look_at(client, now)

    def remove(self, client: SweptT) -> None:
        slot = self._wheel.get(client.look_key)
        if slot is not None:
            slot.pop(client, None)
            if not slot:
                del self._wheel[client.look_key]
        if not self._wheel and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def bring_forward(self, client: SweptT, when: float) -> None:
        """Wake this client at that loop time at the latest."""
        if when < client.heartbeat_at:
            client.heartbeat_at = when
            self.remove(client)
            self._look_at(client, self._loop.time())

    def end_within(self, client: SweptT, seconds: float) -> None:
        """Let this client grow old in the second half of that time, at random, so that not all come back at once."""
        now = self._loop.time()
        if client.ends_at > now + seconds:
            client.ends_at = now + seconds * (0.5 + random() / 2)
            self.remove(client)
            self._look_at(client, now)

    def frame(self, form: Form, epoch: str, position: int, spread_ms: int = 0) -> bytes:
        """A heartbeat with the position its client has been served to; for this package's own JavaScript also the time
        over which to spread a fetch."""
        key = (form, epoch, position)
        body = self._frames.get(key)
        if body is None:
            body = self._frames[key] = heartbeat_frame(form, id=format_id(epoch, position), spread_ms=spread_ms)
        return body

    def _look_at(self, client: SweptT, now: float) -> None:
        # Never later than SEND_TIMEOUT_SECONDS from now. So a send that begins to hang right after this check is found
        # in time, and checked again exactly when its time is up.
        timeout = live_settings().send_timeout_seconds
        when = min(client.heartbeat_at, client.ends_at, now + timeout)
        if client.sending_since:
            when = min(now + timeout, max(now + TICK_SECONDS, client.sending_since + timeout))
        client.look_key = key = int(max(when, now) / TICK_SECONDS) + 1
        slot = self._wheel.get(key)
        if slot is None:
            self._wheel[key] = {client: None}
        else:
            slot[client] = None
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self.now = now = self._loop.time()
        self._frames.clear()
        self._before()
        due = self._take_due(int(now / TICK_SECONDS))
        timeout = live_settings().send_timeout_seconds
        beating: list[SweptT] = []
        for client in due:
            try:
                if client.sending_since and now - client.sending_since >= timeout:
                    self._cut_off(client)
                    continue
                if now >= client.ends_at:
                    client.ends_at = float("inf")
                    client.grow_old()
                elif now >= client.heartbeat_at:
                    client.heartbeat_at = now + client.heartbeat_seconds
                    client.heartbeat_due = True
                    beating.append(client)
            except Exception:  # of one client: the others still get their check
                logger.exception("The sweep failed for %r.", client)
            self._look_at(client, now)
        if beating:
            self._beat(beating)
        self._after()
        if self._timer is not None and (not self._wheel or len(due) == SWEEP_SLICE):
            self._timer.cancel()
            self._timer = self._loop.call_later(0, self._tick) if self._wheel else None

    def _take_due(self, current: int) -> list[SweptT]:
        """Take at most SWEEP_SLICE clients whose tick has come out of the wheel."""
        due: list[SweptT] = []
        for key in [key for key in self._wheel if key <= current]:
            slot = self._wheel[key]
            room = SWEEP_SLICE - len(due)
            if len(slot) <= room:
                due += self._wheel.pop(key)
            else:
                some = list(islice(slot, room))
                for client in some:
                    del slot[client]
                return due + some
        return due
