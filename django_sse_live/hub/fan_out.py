"""FanOut: which clients hear a channel, and when they are woken for its news.

A channel is always in one of these states: quiet; with news (in ``_news``) that wait until its pause is over; being
fanned out (in ``_waking``), with or without further news. After a fan-out a channel pauses, and gathers what arrives.
Clients are woken in slices, so that the loop can do other work in between.

Touched on the hub's loop alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, Protocol

from ..events import Event, position_milliseconds
from ..identity import plain_name
from ..wire import Form
from .audience import Audience, ListenerT, Source
from .counts import Counts

WAKE_SLICE: Final = 20  # clients served before the loop does other work: 0.1 ms on Uvicorn, 0.4 ms on Daphne
# a channel pauses this long after a fan-out, so that events that arrive close together go out together
COALESCE_SECONDS: Final = 0.005


class FanOutHub(Source, Protocol):
    """What the fan-out needs of its hub."""

    loop: asyncio.AbstractEventLoop
    counts: Counts

    def settle(self) -> None: ...


class _Channel(Generic[ListenerT]):
    """The audiences of a channel, and when it was last fanned out (loop time)."""

    __slots__ = ("audiences", "client_count", "fanned_out_at")

    def __init__(self) -> None:
        self.audiences: dict[Audience[ListenerT], None] = {}
        self.client_count = 0
        self.fanned_out_at = 0.0


class FanOut(Generic[ListenerT]):
    __slots__ = ("_hub", "_channels", "_audiences", "_news", "_waking", "_woken", "_slice_is_due", "_rest")

    def __init__(self, hub: FanOutHub) -> None:
        self._hub = hub
        self._channels: dict[str, _Channel[ListenerT]] = {}
        self._audiences: dict[tuple[tuple[str, ...], Form], Audience[ListenerT]] = {}
        # Channels with news, with the positions of the first and the last of it. The log may have evicted those events.
        self._news: dict[str, tuple[int, int]] = {}
        # Queued fan-outs: channel, clients, up to which position, from which position.
        self._waking: deque[tuple[_Channel[ListenerT] | None, list[ListenerT], int, int]] = deque()
        self._woken = 0  # clients already woken of the first fan-out
        self._slice_is_due = False
        self._rest: asyncio.TimerHandle | None = None  # fires when the first channel with news has paused

    # Which clients hear a channel

    def add(self, client: ListenerT, channels: tuple[str, ...], form: Form) -> Audience[ListenerT]:
        key = (channels, form)
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(self._hub, *key)
            for name in audience.channels:
                channel = self._channels.get(name)
                if channel is None:
                    channel = self._channels[name] = _Channel()
                channel.audiences[audience] = None
        audience.clients[client] = None
        for name in audience.channels:
            self._channels[name].client_count += 1
        return audience

    def remove(self, client: ListenerT, audience: Audience[ListenerT]) -> None:
        del audience.clients[client]
        for name in audience.channels:
            channel = self._channels[name]
            channel.client_count -= 1
            if not audience.clients:
                del channel.audiences[audience]
                if not channel.audiences:
                    del self._channels[name]
        if not audience.clients:
            del self._audiences[audience.channels, audience.form]

    def audiences(self, channel: str) -> Iterable[Audience[ListenerT]]:
        found = self._channels.get(channel)
        return () if found is None else found.audiences

    def channels(self, prefix: str) -> list[str]:
        """The channels with this prefix that any client hears here, in any namespace."""
        return [name for name in self._channels if prefix in name and plain_name(name).startswith(prefix)]

    def count_form(self, form: Form) -> int:
        """The number of clients that read this form."""
        return sum(len(audience.clients) for audience in list(self._audiences.values()) if audience.form == form)

    def count_clients(self, names: tuple[str, ...]) -> int:
        """The number of clients that hear at least one of these channels."""
        channels = [channel for name in names if (channel := self._channels.get(name)) is not None]
        if len(channels) == 1:
            return channels[0].client_count
        return sum(len(audience.clients) for audience in {a: None for channel in channels for a in channel.audiences})

    # News

    def add_news(self, event: Event) -> None:
        """Note an event that is in the log; run() wakes its clients."""
        for name in event.channels:
            if name in self._channels:
                found = self._news.get(name)
                self._news[name] = (event.position if found is None else found[0], event.position)

    @property
    def is_over(self) -> bool:
        """Whether every client was woken for all news."""
        return not self._waking and not self._news

    def run(self) -> None:
        """Queue the clients of each channel that has news and has paused."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        loop = self._hub.loop
        now = loop.time()
        soonest = float("inf")
        for name in list(self._news):
            channel = self._channels.get(name)
            if channel is None:
                del self._news[name]
            elif (rests_until := channel.fanned_out_at + COALESCE_SECONDS) > now:
                soonest = min(soonest, rests_until)
            else:
                first, last = self._news.pop(name)
                channel.fanned_out_at = float("inf")  # until its last client is woken
                clients = [client for audience in channel.audiences for client in audience.clients]
                self._waking.append((channel, clients, last, first))
        if soonest < float("inf"):
            self._rest = loop.call_at(soonest, self.run)
        if self._waking and not self._slice_is_due:
            self._wake_slice()

    def wake(self, clients: list[ListenerT]) -> None:
        """Wake these clients in slices, whatever they have read."""
        self._waking.append((None, clients, -1, 0))
        if not self._slice_is_due:
            self._slice_is_due = True
            self._hub.loop.call_soon(self._wake_slice)

    def _wake_slice(self) -> None:
        self._slice_is_due = False
        loop = self._hub.loop
        budget = WAKE_SLICE
        while self._waking and budget:
            channel, clients, position, first = self._waking[0]
            slice_ = clients[self._woken : self._woken + budget]
            for client in slice_:
                if client.cursor < position or channel is None:
                    client.serve()
            budget -= len(slice_)
            self._woken += len(slice_)
            if self._woken >= len(clients):
                self._waking.popleft()
                self._woken = 0
                if channel is not None:
                    channel.fanned_out_at = loop.time()
                    loop.call_soon(self._observe, first)  # after the steps of the clients just woken
        if self._waking:
            self._slice_is_due = True
            loop.call_soon(self._wake_slice)
        elif self._news and self._rest is None:
            self.run()
        else:
            self._hub.settle()

    def _observe(self, first: int) -> None:
        # The id's time is by this machine's clock, or by the bus's.
        self._hub.counts.latency.observe(max(0.0, time.time() - position_milliseconds(first) / 1000))
