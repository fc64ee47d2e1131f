"""History: what a client missed that its worker's log no longer has, read from Redis. Bounded in every way.

One connection at a time; and since those who come back after a long break come together, what was read for one is kept
for a moment and serves the next.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from ..events import RESERVED_PREFIX, Event
from ..hub.hub import LOST_EVENTS, Hub
from .redis_entries import Seen, read_id, seam, write_id
from .redis_server import UNAVAILABLE, Connection, aask, transaction

if TYPE_CHECKING:
    from .redis_streams import RedisStreamsBackend

logger: logging.Logger = logging.getLogger("django_sse_live")

SCAN_ENTRIES: Final = 100_000  # further back nobody is taken: a reset is cheaper for both sides
SCAN_BYTES: Final = 32 * 1024 * 1024
REPLAY_BYTES: Final = 4 * 1024 * 1024  # what one client is sent of it at the most
CHUNK: Final = 100  # entries in one answer: about 3 ms of the loop
ANSWER_SECONDS: Final = 2.0
KEEP_SECONDS: Final = 10.0  # what was read serves others for this long
WAITING: Final = 1_000  # clients in line for it; the next are told by a reset


class History:
    """Of one hub; touched on its loop alone."""

    def __init__(self, backend: RedisStreamsBackend, hub: Hub) -> None:
        self._backend = backend
        self._hub = hub
        self._lock = asyncio.Lock()
        self._waiting = 0
        # What was read last: every event of the epoch that came after _after, up to _until.
        self._epoch = ""
        self._after = self._until = 0
        self._events: list[Event] = []
        self._forget: asyncio.TimerHandle | None = None

    async def read(self, channels: tuple[str, ...], after: int) -> list[Event] | None:
        """The events of these channels after that position, up to where the hub's log begins; None if not all of them
        are there, or they are too many."""
        if self._waiting >= WAITING:
            return None
        self._waiting += 1
        try:
            async with self._lock:
                if not self._covers(after):
                    try:
                        if not await self._scan(after):
                            return None
                    except (*UNAVAILABLE, asyncio.TimeoutError) as error:
                        logger.info("What a client missed could not be read from Redis: %r", error)
                        return None
        finally:
            self._waiting -= 1
        return self._select(channels, after)

    def _covers(self, after: int) -> bool:
        log = self._hub.log
        return self._epoch == log.epoch and self._after <= after and self._until >= log.evicted_to

    def _select(self, channels: tuple[str, ...], after: int) -> list[Event] | None:
        heard = frozenset(channels)
        until = self._hub.log.evicted_to
        selected = []
        size = 0
        for event in self._events:
            if event.position > after:
                if event.position > until:
                    break
                if event.type == LOST_EVENTS:
                    return None
                if not heard.isdisjoint(event.channels):
                    size += event.size
                    if size > REPLAY_BYTES:
                        return None
                    selected.append(event)
        return selected

    async def _scan(self, after: int) -> bool:
        connection: Connection = None
        try:
            connection = await self._backend.read_server.aconnect(ANSWER_SECONDS)
            return await self._scan_with(connection, after)
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)

    async def _scan_with(self, connection: Connection, after: int) -> bool:
        stream, log = self._backend.stream, self._hub.log
        info = await self._backend.stream_info(connection)
        *_, (epoch, first) = await aask(
            connection,
            transaction(("GET", self._backend.epoch_key), ("XRANGE", stream, "-", "+", "COUNT", 1)),
        )
        if info is None or epoch is None or epoch.decode() != log.epoch or not first:
            return False
        if read_id(first[0][0]) > after and (after or not self._backend.is_complete(info)):
            return False  # trimmed
        events: list[Event] = []
        seen, position, count, size = Seen(), after, 0, 0
        (before,) = await aask(connection, seam(stream, after))
        seen.learn(before)
        while position < log.evicted_to:
            # Each answer begins with the last entry of the one before: else something was trimmed in between.
            (chunk,) = await aask(connection, [("XRANGE", stream, write_id(position), "+", "COUNT", CHUNK + 1)])
            if count and (not chunk or read_id(chunk[0][0]) != position):
                return False
            fresh: list[Any] = [entry for entry in chunk if read_id(entry[0]) > position]
            if not fresh:
                position = max(position, log.evicted_to)
                break
            for entry in fresh:
                event = seen.decode(entry, log.epoch)
                size += sum(map(len, entry[1]))
                if event is not None and (event.type == LOST_EVENTS or not event.type.startswith(RESERVED_PREFIX)):
                    events.append(event)
            position = read_id(fresh[-1][0])
            count += len(fresh)
            if count > SCAN_ENTRIES or size > SCAN_BYTES:
                return False
        if log is not self._hub.log:
            return False  # the stream has begun anew meanwhile
        self._epoch, self._after, self._until, self._events = log.epoch, after, position, events
        if self._forget is not None:
            self._forget.cancel()
        self._forget = self._hub.loop.call_later(KEEP_SECONDS, self._drop)
        return True

    def _drop(self) -> None:
        self._epoch, self._events, self._forget = "", [], None
