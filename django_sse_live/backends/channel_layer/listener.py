"""LayerListener: what this process hears from the channel layer. Of senders only the numbers are known here.

Only numbers show a loss, not errors of the layer: a read that finds nothing until its socket's timeout fails too. There
are three signs. The next event of a publisher, or the mark after its last one, has too high a number. A publisher whose
burst may have filled this channel sends no mark. A probe that this process sends to itself does not arrive, so it is no
longer a member of the group.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import Context
from functools import partial
from typing import Any, Final

from ...events import Event, next_position, received_event
from ...hub.hub import Hub
from ...hub.log import EventLog
from ..cancellation import within
from ..outage import Outage
from ..unreadable import MALFORMED
from .deltas import hear_deltas
from .layer import GROUP, LAYER_SECONDS, MESSAGE_TYPE, REJOIN_SECONDS, RETRY_SECONDS, MakeLayer

logger: logging.Logger = logging.getLogger("django_sse_live")

PROBE_SECONDS: Final = 5.0  # a probe must arrive within this time
PUBLISHERS_MAX: Final = 10_000  # publishers whose last number is remembered
RESET_SECONDS: Final = 1.0  # the least time between two resets
FIRST_SECONDS: Final = 1.0  # longest travel time of the first event heard from a publisher
SETTLE_SECONDS: Final = 3.0  # a mark must arrive this long after the last event of a burst
QUICK_SECONDS: Final = 1.0  # receive() that fails sooner did not just time out
QUICK_FAILURES_MAX: Final = 5  # in a row; then all starts over, with another layer object


class LayerListener:
    """Lives on its hub's loop, as long as the hub. The hub's log begins once the group is joined."""

    def __init__(self, make_layer: MakeLayer, outage: Outage, hub: Hub) -> None:
        self.loop: asyncio.AbstractEventLoop = hub.loop
        self._make_layer = make_layer
        self._outage = outage
        self._hub = hub
        self._epoch = secrets.token_hex(4)
        self._position = 0
        self._listening_since = 0.0  # monotonic; 0 before the first time
        self._last: OrderedDict[str, int] = OrderedDict()  # publisher → number, the longest silent first
        self._probe = ""  # sent and not heard yet
        self._lost_at = float("-inf")  # loop time of the last reset
        self._losing: asyncio.TimerHandle | None = None  # the next reset
        self._burst_began = 0.0  # loop time
        self._burst_events = 0  # events heard within a second from then
        self._burst_min = 0  # this many may have filled the channel
        self._unsettled: dict[str, float] = {}  # publisher → loop time when its mark is due
        self.unreadable: int = 0  # messages that were skipped
        # In a context of its own, so that the request being handled does not live as long.
        self._task = Context().run(self.loop.create_task, self._run())
        self._task.add_done_callback(lambda _: outage.forget(self))
        self._deltas: asyncio.Task[None] | None = None  # hears deltas, once somebody watches a job

    def stop(self) -> None:
        """From any thread."""
        self._outage.forget(self)
        try:
            self.loop.call_soon_threadsafe(self._task.cancel)
            if self._deltas is not None:
                self.loop.call_soon_threadsafe(self._deltas.cancel)
        except RuntimeError:  # closed
            pass

    def hear_deltas(self) -> None:
        if self._deltas is None:
            self._deltas = Context().run(self.loop.create_task, hear_deltas(self._make_layer, self._hub))

    # The layer

    async def _run(self) -> None:
        pause, longest = RETRY_SECONDS
        layer: Any = None
        channel: Any = None
        failures = 0
        while True:
            try:
                if channel is None:
                    layer = self._make_layer()
                    channel = await within(LAYER_SECONDS, layer.new_channel())
                    await within(LAYER_SECONDS, layer.group_add(GROUP, channel))
                    self._begin(layer)
                else:
                    await self._rejoin(layer, channel)
            except Exception as error:  # layers raise any exception of their server's library
                self._outage.fails(self, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            self._outage.works(self)
            pause = RETRY_SECONDS[0]
            began = self.loop.time()
            failure = await self._receive(layer, channel)
            failures = failures + 1 if self.loop.time() - began < QUICK_SECONDS else 0
            if failures >= QUICK_FAILURES_MAX:
                self._outage.fails(self, failure)
                channel, failures = None, 0
            await asyncio.sleep(pause)

    async def _receive(self, layer: Any, channel: str) -> Exception:
        """Receive until it fails. Returns the error."""
        rejoining = self.loop.create_task(self._rejoin_regularly(layer, channel))
        try:
            while True:
                self._hear(await within(None, layer.receive(channel)))
        except Exception as error:
            logger.debug("The channel layer's receive() failed: %r", error)
            return error
        finally:
            if not self.loop.is_closed():
                rejoining.cancel()

    async def _rejoin_regularly(self, layer: Any, channel: str) -> None:
        usual = min(REJOIN_SECONDS, getattr(layer, "group_expiry", 86_400) / 4)
        pause = usual
        while True:
            await asyncio.sleep(pause)
            try:
                await self._rejoin(layer, channel)
            except Exception as error:
                self._outage.fails(self, error)
                pause = RETRY_SECONDS[1]
            else:
                self._outage.works(self)
                pause = usual

    async def _rejoin(self, layer: Any, channel: str) -> None:
        """Send a probe, then join. The probe arrives if this process was still a member."""
        probe = secrets.token_hex(4)
        await within(LAYER_SECONDS, layer.group_send(GROUP, {"type": MESSAGE_TYPE, "probe": probe}))
        self._expect(probe)
        await within(LAYER_SECONDS, layer.group_add(GROUP, channel))

    def _expect(self, probe: str) -> None:
        self._probe = probe
        due_at = self.loop.time() + PROBE_SECONDS
        self.loop.call_at(due_at, self._miss, probe, due_at, context=Context())

    def _miss(self, probe: str, due_at: float) -> None:
        if self._probe != probe:
            return
        if self.loop.time() > due_at + 1:  # the loop was busy, and may not have read it yet
            self._expect(probe)
        else:
            self._probe = ""
            self._lose()

    def _begin(self, layer: Any) -> None:
        self._burst_min = getattr(layer, "capacity", 100) // 2
        is_first = not self._listening_since
        self._listening_since = time.monotonic()
        if is_first:
            self._lose_now()
        else:  # messages sent while nothing listened here are lost
            self._lose()

    # Losses

    def _lose(self) -> None:
        """Give every client a reset, at most once in RESET_SECONDS."""
        if self._losing is None:
            self._losing = self.loop.call_at(self._lost_at + RESET_SECONDS, self._lose_now, context=Context())

    def _lose_now(self) -> None:
        self._losing = None
        self._lost_at = self.loop.time()
        self._position += 1
        self._hub.deliver(partial(self._hub.adopt, EventLog(self._epoch, self._position)))

    def _is_missed(self, publisher: str, before: int, since: float) -> bool:
        """Whether a number was missed. ``before``: the number that should have been heard already."""
        last = self._last.get(publisher)
        if last is not None:
            return before > last
        # From a new publisher nothing was missed if its event before was sent when nothing listened here yet.
        return before > 0 and since + FIRST_SECONDS < time.monotonic() - self._listening_since

    def _expect_mark(self, publisher: str) -> None:
        now = self.loop.time()
        if now - self._burst_began > 1:
            self._burst_began, self._burst_events = now, 0
        self._burst_events += 1
        if self._burst_events >= self._burst_min or publisher in self._unsettled:
            if not self._unsettled:
                self.loop.call_later(SETTLE_SECONDS, self._settle, context=Context())
            self._unsettled[publisher] = now + SETTLE_SECONDS

    def _settle(self) -> None:
        now = self.loop.time()
        silent = [publisher for publisher, due_at in self._unsettled.items() if due_at <= now]
        for publisher in silent:
            del self._unsettled[publisher]
        if silent:
            self._lose()
        if self._unsettled:
            self.loop.call_later(1, self._settle, context=Context())

    # Messages

    def _hear(self, message: Mapping[str, Any]) -> None:
        try:
            self._take(message)
        except MALFORMED as error:
            self.unreadable += 1
            if self.unreadable == 1:
                logger.warning("A message on the channel layer cannot be read, and is passed over: %r", error)

    def _take(self, message: Mapping[str, Any]) -> None:
        if "probe" in message:
            if message["probe"] == self._probe:
                self._probe = ""
            return
        publisher, number = str(message["from"]), int(message["seq"])
        is_mark = bool(message.get("mark"))
        event = None if is_mark else _event_of(message)
        is_missed = self._is_missed(publisher, number if is_mark else number - 1, float(message["since"]))
        is_repeated = number <= self._last.get(publisher, 0)  # sent again, because the layer's answer was lost
        self._last[publisher] = max(number, self._last.get(publisher, 0))
        self._last.move_to_end(publisher)
        if len(self._last) > PUBLISHERS_MAX:
            self._last.popitem(last=False)
        if is_missed:
            self._lose()
        if event is None:
            self._unsettled.pop(publisher, None)
        elif not is_repeated:
            self._expect_mark(publisher)
            self._deliver(event)

    def _deliver(self, event: Event) -> None:
        self._position = next_position(self._position, time.time_ns() // 1_000_000)
        event.stamp(self._epoch, self._position)
        self._hub.deliver(event)


def _event_of(message: Mapping[str, Any]) -> Event:
    return received_event(
        message["channels"], message["event"], message["data"], patch=message.get("patch"), is_text=message["text"]
    )
