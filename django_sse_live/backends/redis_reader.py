"""Reader: what one hub hears of the Redis stream. One task on the hub's loop, with one connection.

It fills the hub's log from the stream's tail, then hands on what is added, and after each break of the connection makes
sure that the stream is still the one it was: if not, the log is filled anew and every client is told by a reset.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from random import random
from typing import TYPE_CHECKING, Any, Final

from ..conf import live_settings
from ..events import RESERVED_PREFIX, Event, format_id
from ..hub.hub import LOST_EVENTS, Hub
from ..hub.log import EventLog
from .cancellation import within
from .redis_entries import Seen, read_id, seam, write_id
from .redis_server import UNAVAILABLE, Connection, aask, transaction

if TYPE_CHECKING:
    from .redis_streams import RedisStreamsBackend

logger: logging.Logger = logging.getLogger("django_sse_live")

BLOCK_MS: Final = 2_000  # how long Redis holds a read back when there is nothing new
ANSWER_SECONDS: Final = 5.0  # a server that has not answered by then is gone; more than BLOCK_MS
READ_COUNT: Final = 100  # entries in one answer: about 3 ms of the loop
RETRY_SECONDS: Final = (0.05, 1.0)  # first and longest pause between two attempts, shortened at random by up to half
MOVED_SECONDS: Final = 10.0  # how often Sentinel is asked whether this is still the master
FILL_SLICE: Final = 500  # events put into a log before the loop may do something else

# Starts another lineage, unless somebody else already has.
_NEW_EPOCH: Final = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end "
    "return redis.call('GET', KEYS[1])"
)


class _Broken(Exception):
    """The stream is not the one that was read before: it was lost, replaced, or trimmed past what was read."""


class Reader:
    """Touched on the hub's loop alone, but for ``known_id``."""

    def __init__(self, backend: RedisStreamsBackend, hub: Hub) -> None:
        self.known_id: str | None = None  # up to where the hub has been handed everything; read by any thread
        self.task: asyncio.Task[None] | None = None
        self._backend = backend
        self._hub = hub
        self._epoch = ""  # none: nothing has been read yet
        self._position = 0  # of the last entry read
        self._seen = Seen()
        self._now_position = -1  # the same in the stream of what is worth nothing later; -1: not asked for yet
        self._now_seen = Seen()
        self._has_read = False  # over the last connection
        self._look_again_at = 0.0  # loop time

    @property
    def is_over(self) -> bool:
        """From any thread."""
        return self._hub.loop.is_closed() or (self.task is not None and self.task.done())

    def stop(self) -> None:
        """From any thread."""
        task = self.task
        if task is not None and not self.is_over:
            try:
                self._hub.loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # closed meanwhile
                pass

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            self._backend.outage.forget(self)

    async def _run(self) -> None:
        pause, longest = RETRY_SECONDS
        while True:
            try:
                await within(None, self._read())
            except (*UNAVAILABLE, asyncio.TimeoutError) as error:
                self._backend.outage.fails(self, error)
            except _Broken as error:
                logger.info("The SSE stream in Redis %s: every client is told by a reset.", error)
                self._epoch = ""
                continue
            except Exception as error:
                if self._backend.outage.fails(self, error):
                    logger.exception("Reading the SSE stream failed.")
            if self._has_read:
                self._has_read = False
                pause = RETRY_SECONDS[0]
            await asyncio.sleep(pause * (1 - random() / 2))
            pause = min(2 * pause, longest)

    async def _read(self) -> None:
        """Over one connection, until it breaks."""
        connection = await self._backend.read_server.aconnect(ANSWER_SECONDS)
        try:
            await self._begin(connection)
            self._backend.outage.works(self)
            self._has_read = True
            await self._read_on(connection)
        finally:
            await _disconnect(connection)

    async def _read_on(self, connection: Connection) -> None:
        backend, loop = self._backend, self._hub.loop
        server = backend.read_server
        self._look_again_at = loop.time() + MOVED_SECONDS
        while True:
            # The epoch is read after the entries, at the same moment: nothing of another stream gets past it.
            answer, epoch = await aask(
                connection,
                [
                    (
                        *("XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS),
                        *("STREAMS", backend.stream, backend.now_stream),
                        *(write_id(self._position), write_id(self._now_position)),
                    ),
                    ("GET", backend.epoch_key),
                ],
            )
            if epoch is None or epoch.decode() != self._epoch:
                raise _Broken("has begun anew")
            found = {key.decode(): entries for key, entries in answer or ()}
            entries = found.get(backend.stream, [])
            if len(entries) == READ_COUNT and self._position:
                await self._check_trimming(connection)
            for entry in entries:
                self._hand_on(entry)
            for entry in found.get(backend.now_stream, ()):
                self._now_position = read_id(entry[0])
                event = self._now_seen.decode(entry, self._epoch)
                if event is not None:
                    event.position = 0  # it has none among the others
                    self._hub.deliver(event)
            if server.may_move and loop.time() > self._look_again_at:
                self._look_again_at = loop.time() + MOVED_SECONDS
                if await server.has_moved(connection):
                    return

    async def _check_trimming(self, connection: Connection) -> None:
        """XREAD from an entry that has been trimmed goes on with whatever is left. As many entries as that follow one
        that was trimmed, since MAXLEN is no less."""
        at = write_id(self._position)
        (last_read,) = await aask(connection, [("XRANGE", self._backend.stream, at, at)])
        if not last_read:
            raise _Broken("was trimmed past what was read")

    def _hand_on(self, entry: Any) -> None:
        self._position = read_id(entry[0])
        event = self._seen.decode(entry, self._epoch)
        if event is not None:
            self._hub.deliver(event)
        self.known_id = format_id(self._epoch, self._position)

    # The beginning, and each beginning after a break

    async def _begin(self, connection: Connection) -> None:
        if self._now_position < 0:  # before any stream opens here, and asks who else is there
            (last,) = await aask(connection, [("XREVRANGE", self._backend.now_stream, "+", "-", "COUNT", 1)])
            self._now_position = read_id(last[0][0]) if last else 0
        if self._epoch:
            await self._check(connection)
        if not self._epoch:
            await self._fill(connection)

    async def _check(self, connection: Connection) -> None:
        """Whether reading may go on where it ended. Forgets the epoch if not."""
        backend = self._backend
        at = write_id(self._position)
        _, _, _, _, (epoch, last_read, first) = await aask(
            connection,
            transaction(
                ("GET", backend.epoch_key),
                ("XRANGE", backend.stream, at, at),
                ("XRANGE", backend.stream, "-", "+", "COUNT", 1),
            ),
        )
        if epoch is None or epoch.decode() != self._epoch:
            self._epoch = ""  # Redis has lost its data
        elif not last_read and self._position:
            if not first or read_id(first[0][0]) < self._position:
                # What was read is not there: a failover or a crash took it, and ids may have gone back.
                await backend.write("EVAL", _NEW_EPOCH, 1, backend.epoch_key, epoch, secrets.token_hex(4))
            self._epoch = ""  # or it has been trimmed away, with what came after it
        if not self._epoch:
            logger.info("The SSE stream in Redis does not go on where it was: every client is told by a reset.")

    async def _fill(self, connection: Connection) -> None:
        """Another log, from the stream's tail. Control events in it have been obeyed long ago; where a hub goes on
        after a break it obeys those that it has not seen."""
        backend, hub = self._backend, self._hub
        epoch = await self._ask_epoch(connection)
        entries, floor, last, is_complete = await self._read_tail(connection)
        seen = Seen()
        if floor:
            (before,) = await aask(connection, seam(self._backend.stream, floor))
            seen.learn(before)
        log = EventLog(epoch, floor, complete=is_complete)
        late: list[Event] = []
        is_first = not self._position
        for number, entry in enumerate(entries):
            event = seen.decode(entry, epoch)
            if event is None:
                continue
            if not event.type.startswith(RESERVED_PREFIX):
                log.append(event)
            elif event.type == LOST_EVENTS:
                log.restart(epoch, event.position)
            elif not is_first and (event.position > self._position or hub.log.epoch != epoch):
                late.append(event)
            if number % FILL_SLICE == FILL_SLICE - 1:
                await asyncio.sleep(0)
        log.skip_to(last)
        self._epoch, self._position, self._seen = epoch, last, seen

        def adopt() -> None:
            hub.adopt(log)
            for event in late:
                hub.obey(event)

        hub.deliver(adopt)  # behind what is in the inbox
        self.known_id = format_id(epoch, last)
        backend.epoch = epoch

    async def _ask_epoch(self, connection: Connection) -> str:
        """The stream's epoch; made, if there is none."""
        pause, longest = RETRY_SECONDS
        while True:
            (epoch,) = await aask(connection, [("GET", self._backend.epoch_key)])
            if epoch is not None:
                return epoch.decode()  # type: ignore[no-any-return]
            await self._backend.write("SET", self._backend.epoch_key, secrets.token_hex(4), "NX")
            if self._backend.read_server is not self._backend.server:
                await asyncio.sleep(pause)  # a replica hears of it a little later
                pause = min(2 * pause, longest)

    async def _read_tail(self, connection: Connection) -> tuple[list[Any], int, int, bool]:
        """(entries, oldest first; a position after which nothing is missing; the stream's last position; whether
        nothing has ever been before the entries)."""
        settings = live_settings()
        stream = self._backend.stream
        info = await self._backend.stream_info(connection)
        if info is None:
            return [], 0, 0, True
        last = read_id(info[b"last-generated-id"])
        oldest = (last >> 64) - int(settings.history_seconds * 1000)
        entries: list[Any] = []  # newest first
        size, end = 0, last
        while True:
            (chunk,) = await aask(connection, [("XREVRANGE", stream, write_id(end), "-", "COUNT", READ_COUNT)])
            for entry in chunk:
                position = read_id(entry[0])
                size += sum(map(len, entry[1]))
                if len(entries) >= settings.history_events or size > settings.history_bytes or position >> 64 < oldest:
                    return entries[::-1], position, last, False
                entries.append(entry)
            if len(chunk) < READ_COUNT:
                break
            end = read_id(chunk[-1][0]) - 1
        if not entries:
            return [], last, last, False
        return entries[::-1], read_id(entries[-1][0]) - 1, last, self._backend.is_complete(info)


async def _disconnect(connection: Connection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except UNAVAILABLE as error:
        logger.debug("Closing a connection to Redis: %r", error)
