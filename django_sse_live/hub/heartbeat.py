"""The one sweep of a hub: heartbeats, sends that hang, streams that are old enough.

One timer, whatever the number of clients.
Touched on the hub's loop alone.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from random import random
from typing import TYPE_CHECKING, Any, Final

from ..conf import live_settings
from ..events import Form, format_id, heartbeat_frame

if TYPE_CHECKING:
    from .clients import Client
    from .hub import Hub

TICK_SECONDS: Final = 0.25
SWEEP_SLICE: Final = 2_000  # clients looked at before the loop may do something else: about 1 ms


class Heartbeat:
    """A timer wheel: each client stands under the tick at which it must next be looked at, so that a tick costs only
    what is due."""

    __slots__ = ("now", "_hub", "_wheel", "_timer", "_frames")

    def __init__(self, hub: Hub) -> None:
        self.now: float = hub.loop.time()  # loop time of the last tick: precise enough for whoever asks on each send
        self._hub = hub
        self._wheel: dict[int, dict[Client, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._frames: dict[tuple[Form, int], bytes] = {}  # the heartbeats of this tick, shared by clients at one cursor

    def add(self, client: Client) -> None:
        self.now = now = self._hub.loop.time()
        max_age = live_settings().max_age_seconds
        client.heartbeat_at = now + client.heartbeat_seconds
        client.ends_at = float("inf") if max_age is None else now + max_age * (0.9 + 0.2 * random())
        self._look_at(client, now)
        if self._timer is None:
            self._timer = self._hub.loop.call_later(TICK_SECONDS, self._tick)

    def remove(self, client: Client) -> None:
        slot = self._wheel.get(client.look_key)
        if slot is not None:
            slot.pop(client, None)
            if not slot:
                del self._wheel[client.look_key]
        if not self._wheel and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def frame(self, form: Form, position: int) -> bytes:
        """A heartbeat that says how far its client has been served."""
        key = (form, position)
        body = self._frames.get(key)
        if body is None:
            body = self._frames[key] = heartbeat_frame(form, id=format_id(self._hub.log.epoch, position))
        return body

    def _look_at(self, client: Client, now: float) -> None:
        # Never later than SEND_TIMEOUT_SECONDS from now: a send that begins to hang right after this look is then
        # found in time, and looked at again when exactly its time is up.
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

    def _tick(self) -> None:
        self._timer = self._hub.loop.call_later(TICK_SECONDS, self._tick)
        self.now = now = self._hub.loop.time()
        self._frames.clear()
        if self._hub.must_close is not None and self._hub.must_close():
            self._hub.shut_down()
        due = self._take_due(int(now / TICK_SECONDS))
        timeout = live_settings().send_timeout_seconds
        beating: list[Client] = []
        found: dict[Any, Any] = {}
        for client in due:
            if client.sending_since and now - client.sending_since >= timeout:
                self._hub.cut_off(client, found)
                continue
            if now >= client.ends_at:
                client.ends_at = float("inf")
                client.end("max_age", retry_ms=int(live_settings().retry_ms * (0.5 + random())))
            elif now >= client.heartbeat_at:
                client.heartbeat_at = now + client.heartbeat_seconds
                client.heartbeat_due = True
                beating.append(client)
                if self._hub.finds_silence and client.abort is not None:
                    client.abort(found, if_silent_for=2 * timeout)
            self._look_at(client, now)
        if beating:
            self._hub.fan_out.wake(beating)
        self._hub.settle()
        if self._timer is not None and (not self._wheel or len(due) == SWEEP_SLICE):
            self._timer.cancel()
            self._timer = self._hub.loop.call_later(0, self._tick) if self._wheel else None
        elif self._timer is None and self._wheel:  # one that was cut off above left while the wheel stood empty
            self._timer = self._hub.loop.call_later(TICK_SECONDS, self._tick)

    def _take_due(self, current: int) -> list[Client]:
        """Out of the wheel with those whose tick has come, SWEEP_SLICE of them at the most."""
        due: list[Client] = []
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
