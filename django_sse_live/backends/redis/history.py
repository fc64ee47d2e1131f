"""History: missed events that the worker's log no longer has, read from Redis. Bounded in every way.

The stream is read backward from where the log begins, once for all clients: a client with a longer break goes on where
the reading for another ended. The position beyond which nothing can be had is remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from heapq import merge
from typing import Any, Final

from ...events import LOST_EVENTS, Event
from ...hub.hub import Hub
from ..base import HistoryUnavailable
from .entries import Decoder, Entry, read_id, write_id
from .server import UNAVAILABLE, Client, aclose_client
from .stream import RedisStream

logger: logging.Logger = logging.getLogger("django_sse_live")

SCAN_ENTRIES_MAX: Final = 50_000  # no client is taken further back: a reset is cheaper
SCAN_BYTES_MAX: Final = 16 * 1024 * 1024
REPLAY_BYTES_MAX: Final = 4 * 1024 * 1024  # one client is sent at most this much
FRAME_BYTES: Final = 200  # rough size of an event on the wire without its data
CHUNK_ENTRIES: Final = 100  # in one answer: about 3 ms of the loop …
CHUNK_BYTES: Final = 1024 * 1024  # … as far as they seem to fit in here: the first answer has FIRST_ENTRIES
FIRST_ENTRIES: Final = 10
READ_AHEAD_ENTRIES: Final = 1_000  # read beyond where the log begins: the log may evict them while a client is served
ANSWER_SECONDS: Final = 2.0
WAIT_SECONDS: Final = 2.0  # a client waits this long, then gets a reset
WAITING_MAX: Final = 1_000  # clients that wait; further ones get a reset
READ_KEPT_SECONDS: Final = 60.0  # what was read serves other clients this long after the last use


class History:
    """The history of one hub; touched on its loop alone."""

    def __init__(self, stream: RedisStream, decoder: Decoder, hub: Hub) -> None:
        self._stream = stream
        self._decoder = decoder
        self._hub = hub
        self._waiting: dict[asyncio.Future[None], int] = {}  # waiting clients, and the position they want to read after
        self._task: asyncio.Task[None] | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._asking = asyncio.Lock()
        self._clear("")

    def _clear(self, epoch: str) -> None:
        self._epoch = epoch
        self._floor = 0  # nothing before it can be had; kept as long as the epoch
        self._drop()

    def _drop(self) -> None:
        self._low = self._high = 0  # _channels has everything after the first, up to the second
        self._is_whole = False  # nothing was ever before _low
        self._ahead = 0  # entries to read forward before the next backward read
        self._count = self._bytes = 0
        self._at_once = FIRST_ENTRIES  # entries asked for
        self._channels: dict[str, deque[Event]] = {}
        self._own: dict[str, deque[Entry]] = {}  # publisher → its entries between the two
        self._repeated: set[int] = set()  # positions of those that an earlier entry repeats

    async def read(self, channels: tuple[str, ...], after: int) -> list[Event] | None:
        """The events of these channels after that position, with the first of those in the hub's log. None if some are
        gone, or they are too many. Raises HistoryUnavailable if Redis does not answer."""
        if not self._covers(after):
            if self._is_beyond(after) or len(self._waiting) >= WAITING_MAX:
                return None
            waiter: asyncio.Future[None] = self._hub.loop.create_future()
            self._waiting[waiter] = after
            if self._task is None:
                self._task = self._hub.loop.create_task(self._serve())
            try:
                await asyncio.wait([waiter], timeout=WAIT_SECONDS)
            finally:
                self._waiting.pop(waiter, None)
            if waiter.done():
                waiter.result()
            if not self._covers(after):
                return None
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = self._hub.loop.call_later(READ_KEPT_SECONDS, self._expire)
        return self._select(channels, after)

    async def has_reached(self, position: int) -> bool:
        """Whether the stream has got that far. An id beyond its last one belongs to an earlier stream. True if Redis
        does not answer."""
        async with self._asking:
            try:
                last = await asyncio.wait_for(self._stream.last_on_primary(), ANSWER_SECONDS)
            except (*UNAVAILABLE, asyncio.TimeoutError) as error:
                logger.debug("Redis does not say how far it is: %r", error)
                return True
        return bool(last) and read_id(last[0][0]) >= position

    def _is_beyond(self, after: int) -> bool:
        if self._epoch != self._hub.log.epoch:
            self._clear(self._hub.log.epoch)
        return after < self._floor and (after > 0 or not self._is_whole)

    def _covers(self, after: int) -> bool:
        log = self._hub.log
        return (
            self._epoch == log.epoch
            and self._high >= log.evicted_to
            and (after >= self._low > 0 or (after == 0 and self._is_whole))
        )

    def _select(self, channels: tuple[str, ...], after: int) -> list[Event] | None:
        log = self._hub.log
        until = log.evicted_to
        found: list[list[Event]] = []
        size = 0
        for channel in channels:
            missed: list[Event] = []
            for event in reversed(self._channels.get(channel, ())):
                if event.position <= after:
                    break
                if event.position <= until and event.position not in self._repeated:
                    missed.append(event)
                    size += event.data_bytes + FRAME_BYTES
                    if size > REPLAY_BYTES_MAX:
                        return None
            found.append(missed[::-1])
        # With the log's first events, which it may evict while this is sent.
        found.append(list(log.read(channels, max(after, until))))
        return list({event.position: event for event in merge(*found, key=lambda event: event.position)}.values())

    def _expire(self) -> None:
        self._forgetting = None
        if self._task is None:  # otherwise it is in use, and expires later
            self._drop()

    # Reading for all waiting clients

    async def _serve(self) -> None:
        client: Client = None
        try:
            client = await asyncio.wait_for(self._stream.read_server.aconnect(ANSWER_SECONDS), ANSWER_SECONDS)
            while self._waiting:
                await self._read_on(client)
                for waiter, after in list(self._waiting.items()):
                    if not waiter.done() and (self._covers(after) or self._is_beyond(after)):
                        waiter.set_result(None)
                self._waiting = {waiter: after for waiter, after in self._waiting.items() if not waiter.done()}
        except (*UNAVAILABLE, asyncio.TimeoutError) as error:
            logger.info("What a client missed could not be read from Redis: %r", error)
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_exception(HistoryUnavailable(str(error)))
        finally:
            self._task = None
            await aclose_client(client)

    async def _read_on(self, client: Client) -> None:
        """Read one more answer: forward, past where the log begins now, or backward, to where a client wants to
        begin."""
        stream, log = self._stream, self._hub.log
        if not self._high:
            self._high, self._low = log.evicted_to, log.evicted_to + 1
            self._ahead = READ_AHEAD_ENTRIES
        is_behind = self._high < log.evicted_to
        if is_behind:
            self._ahead = max(self._ahead, READ_AHEAD_ENTRIES)
        is_forward, at_once = self._ahead > 0, self._at_once
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.get(stream.epoch_key)
            if is_forward:
                pipeline.xrange(stream.name, min=write_id(self._high), count=at_once + 1)
            else:
                pipeline.xrevrange(stream.name, max=write_id(self._low - 1), count=at_once)
            epoch, raws = await pipeline.execute()
        if self._epoch != self._hub.log.epoch or epoch is None or epoch.decode() != self._epoch:
            self._clear(self._hub.log.epoch)
            self._floor = log.evicted_to + 1  # the reader has not noticed yet; until then nothing can be had
            return
        began = self._hub.loop.time()
        if raws:  # the entries beside large ones may be as large
            fit = CHUNK_BYTES * len(raws) // sum(map(_size, raws))
            self._at_once = max(1, min(fit, 2 * at_once, CHUNK_ENTRIES))
        if is_forward:
            if is_behind and (not raws or read_id(raws[0][0]) != self._high):
                self._drop()  # entries between may have been trimmed
                return
            for raw in raws:
                if read_id(raw[0]) > self._high:
                    self._add_newer(raw)
            self._ahead -= len(raws)
            if len(raws) <= at_once:
                self._ahead = 0
                self._high = max(self._high, self._hub.log.evicted_to)
        else:
            for raw in raws:
                if not self._add_older(raw):
                    return
            if len(raws) < at_once:
                info = await stream.info(client)
                self._is_whole = info is not None and stream.is_complete(info)
                self._floor = max(self._low, 1)
        await asyncio.sleep(self._hub.loop.time() - began)  # leaves half of the loop's time to others

    def _add_older(self, raw: Any) -> bool:
        """Add older entries. False if nothing further back can be had."""
        position = read_id(raw[0])
        self._count += 1
        self._bytes += _size(raw)
        if self._count > SCAN_ENTRIES_MAX or self._bytes > SCAN_BYTES_MAX:
            self._floor = self._low
            return False
        self._low = position
        entry = self._decoder.decode(raw, self._epoch)
        if entry is None:
            return True
        own = self._own.setdefault(entry.publisher, deque())
        while own and own[0].number <= entry.number:  # sent again after this one
            self._repeated.add(own.popleft().event.position)
        is_gap = bool(own) and own[0].number != entry.number + 1
        if is_gap or entry.event.type == LOST_EVENTS:
            self._floor = self._low = own[0].event.position if is_gap else position
            return False
        own.appendleft(entry)
        self._file(entry.event, newest=False)
        return True

    def _add_newer(self, raw: Any) -> None:
        self._high = read_id(raw[0])
        entry = self._decoder.decode(raw, self._epoch)
        if entry is None:
            return
        own = self._own.setdefault(entry.publisher, deque())
        if own and entry.number <= own[-1].number:
            return
        if entry.event.type == LOST_EVENTS or (own and entry.number != own[-1].number + 1):
            self._floor = self._low = self._high
        own.append(entry)
        self._count += 1
        self._file(entry.event, newest=True)

    def _file(self, event: Event, *, newest: bool) -> None:
        if event.is_control:
            return
        for channel in event.channels:
            events = self._channels.setdefault(channel, deque())
            (events.append if newest else events.appendleft)(event)


def _size(raw: Any) -> int:
    """Of an entry, in bytes."""
    return sum(map(len, raw[1].values()))
