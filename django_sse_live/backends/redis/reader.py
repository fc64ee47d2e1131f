"""Reader: brings the Redis stream to one hub. One task on the hub's loop, with one connection.

It fills the hub's log from the stream's tail, then hands on new entries. With each read, and over each new connection,
it checks that the last entry read is still there: then nothing was missed. If the stream is another one, the log is
filled anew, and every client gets a reset.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from random import random
from typing import Any, Final

import redis

from ...conf import live_settings
from ...events import CONTROL_CHANNEL, LOST_EVENTS, Event, format_id, position_milliseconds
from ...hub.hub import Hub
from ...hub.log import EventLog
from ...hub.recent_ends import Revocations
from ..cancellation import within
from .entries import LOOKBACK_ENTRIES, Decoder, Seen, read_id, write_id
from .server import UNAVAILABLE, Client, aclose_client
from .stream import FIRST_LINE, RedisStream

logger: logging.Logger = logging.getLogger("django_sse_live")

BLOCK_MS: Final = 2_000  # Redis holds a read this long if there is nothing new
ANSWER_SECONDS: Final = 5.0  # a server without an answer by then is gone; more than BLOCK_MS
READ_ENTRIES: Final = 100  # in one answer: about 3 ms of the loop
RETRY_SECONDS: Final = (0.05, 1.0)  # first and longest pause between two attempts, shortened at random by up to half
REPLICA_SECONDS: Final = 5.0  # a replica that has just begun gets the epoch within this time
MOVED_SECONDS: Final = 1.0  # between two questions to Sentinel for the master
FILL_SLICE_EVENTS: Final = 500  # added to a log before the loop does other work


class _Broken(Exception):
    """The stream is not the one that was read before: lost, replaced, or trimmed past the last entry read."""


class Reader:
    """Touched on the hub's loop alone, except ``known_id``."""

    def __init__(self, stream: RedisStream, decoder: Decoder, hub: Hub) -> None:
        self.known_id: str | None = None  # the hub was handed every event up to it; read by any thread
        self.task: asyncio.Task[None] | None = None
        self._stream = stream
        self._decoder = decoder
        self._hub = hub
        self._epoch = ""  # empty: nothing was read yet
        self._position = 0  # of the last entry read
        self._first_line: bytes | None = None  # of that entry; None: it was no longer in the stream
        self._added = 0  # to the stream, when that entry was not in it
        self._must_look = True  # a new connection: check that this entry is still there
        self._seen = Seen()
        self._now_position = 0  # the same in the stream of presence and worker reports
        self._deltas_position = 0  # the same in the stream of jobs
        self._has_read = False  # over this connection
        self._address: object = None  # of its server, if it may move
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
            self._stream.outage.forget(self)

    async def _run(self) -> None:
        pause, longest = RETRY_SECONDS
        outage = self._stream.outage
        while True:
            try:
                await within(None, self._read())
            except (*UNAVAILABLE, asyncio.TimeoutError) as error:
                outage.fails(self, error)
            except Exception as error:
                if outage.fails(self, error):
                    logger.exception("Reading the SSE stream failed.")
            if self._has_read:
                self._has_read = False
                pause = RETRY_SECONDS[0]
            await asyncio.sleep(pause * (1 - random() / 2))
            pause = min(2 * pause, longest)

    async def _read(self) -> None:
        """Read over one client until it breaks."""
        server = self._stream.read_server
        if server.may_move:
            self._address = await server.aaddress()
        client = await server.aconnect(ANSWER_SECONDS, self._look_first)
        try:
            # The client library may lose a cancellation: checked before the next read.
            while not self.is_over and not await self._has_moved():
                try:
                    if not self._epoch:
                        # Before any stream opens here and asks the other workers. In another epoch the ids may be
                        # smaller, by the clock of another Redis.
                        self._now_position = await _last_position(client, self._stream.now_name)
                        self._deltas_position = await _last_position(client, self._stream.deltas_name)
                        await self._fill(client)
                        self._works()
                    elif self._must_look:
                        await self._look(client)
                        self._works()
                    else:
                        await self._read_next(client)
                except _Broken as error:
                    logger.info("The SSE stream in Redis %s: every client is told by a reset.", error)
                    self._epoch = ""
        finally:
            await aclose_client(client)

    def _look_first(self) -> None:
        self._must_look = True

    def _works(self) -> None:
        self._has_read = True
        self._stream.outage.works(self)

    async def _has_moved(self) -> bool:
        loop, server = self._hub.loop, self._stream.read_server
        if not server.may_move or loop.time() < self._look_again_at:
            return False
        self._look_again_at = loop.time() + MOVED_SECONDS
        try:
            return await server.aaddress() != self._address
        except UNAVAILABLE as error:
            logger.debug("Sentinel does not say who the master is: %r", error)
            return False

    async def _look(self, client: Client) -> None:
        """Check that reading may go on where it ended."""
        stream = self._stream
        self._must_look = False
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.eval(FIRST_LINE, 1, stream.name, write_id(self._position))
            pipeline.get(stream.epoch_key)
            first_line, epoch = await pipeline.execute()
        self._compare(epoch)
        await self._check(client, first_line)
        if self._hub.revocations is not None:
            await self._set_clock(client)  # this machine may have slept

    async def _check(self, client: Client, first_line: bytes | None) -> None:
        if self._first_line is not None and first_line != self._first_line:
            await self._look_for_what_was_read(client)
            self._first_line = None

    async def _check_that_all_are_there(self, client: Client) -> None:
        """For the first entries after an empty stream, where there is none that was read before."""
        info = await self._stream.info(client)
        if info is not None and not self._stream.has_all(info, self._added):
            raise _Broken("was trimmed past what was read")

    def _compare(self, epoch: bytes | None) -> None:
        if epoch is None or epoch.decode() != self._epoch:
            raise _Broken("has begun anew")

    async def _read_next(self, client: Client) -> None:
        stream = self._stream
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.xread(
                {
                    stream.name: write_id(self._position),
                    stream.now_name: write_id(self._now_position),
                    stream.deltas_name: write_id(self._deltas_position),
                },
                count=READ_ENTRIES,
                block=BLOCK_MS,
            )
            # After the entries, so that entries of another stream, or trimmed ones, cannot get past it.
            pipeline.get(stream.epoch_key)
            pipeline.eval(FIRST_LINE, 1, stream.name, write_id(self._position))
            answer, epoch, first_line = await pipeline.execute()
        if self._must_look:
            return  # over another connection, perhaps to another server
        self._compare(epoch)
        await self._check(client, first_line)
        found = dict(answer or ())
        raws = found.get(stream.name.encode(), ())
        if raws and self._first_line is None:
            await self._check_that_all_are_there(client)
        for raw in raws:
            self._hand_on(raw)
        now, deltas = found.get(stream.now_name.encode(), ()), found.get(stream.deltas_name.encode(), ())
        if now:
            self._now_position = read_id(now[-1][0])
        if deltas:
            self._deltas_position = read_id(deltas[-1][0])
        for raw in [*now, *deltas]:
            entry = self._decoder.decode(raw, self._epoch, is_of_now=True)
            if entry is not None:
                entry.event.position = 0  # it has no position among the events
                self._hub.deliver(entry.event)

    def _hand_on(self, raw: Any) -> None:
        self._position, self._first_line = read_id(raw[0]), _first_line(raw)
        entry = self._decoder.decode(raw, self._epoch)
        if entry is not None:
            what = self._seen.look(entry)
            if what == "gap" and entry.event.type != LOST_EVENTS:
                logger.warning("Events of a publisher are missing in the SSE stream: every client is told by a reset.")
                # At this event's own position: the missing one may have been right before it.
                self._hub.deliver(Event((CONTROL_CHANNEL,), LOST_EVENTS, "{}", position=self._position))
                self._hub.deliver(self._hub.check_again)  # it may have been a revocation
            if what != "repeated":
                self._hub.deliver(entry.event)
        self.known_id = format_id(self._epoch, self._position)

    async def _look_for_what_was_read(self, client: Client) -> None:
        """Called if the last entry read is not in the stream. Returns if nothing can have been missed."""
        stream, at = self._stream, write_id(self._position)
        if stream.read_server is not stream.server and await stream.primary_has(at, self._first_line or b""):
            raise redis.ConnectionError("the replica has less than was read from it, and less than its primary")
        info = await stream.info(client)
        if info is not None and not info["length"] and read_id(info["last-generated-id"]) == self._position:
            self._added = info.get("entries-added", 0)
            return  # everything was trimmed, and nothing was added since
        first = info and info["first-entry"]
        if not first or read_id(first[0]) < self._position:
            # A failover or a crash has lost entries that were read, and ids may have gone back.
            await stream.begin_epoch(self._epoch)
            raise _Broken("goes on with less than was read")
        raise _Broken("was trimmed past what was read")

    # First fill, and each new stream

    async def _fill(self, client: Client) -> None:
        """Fill another log from the stream's tail. A new hub ignores the control events in it, which are long past; a
        hub that goes on after a break obeys those that it has not seen."""
        hub = self._hub
        epoch = await self._ask_epoch(client)
        raws, floor, last, is_complete = await self._read_tail(client)
        seen = Seen(self._seen)
        if floor and hub.keeps_history:
            before = await client.xrevrange(self._stream.name, max=write_id(floor), count=LOOKBACK_ENTRIES)
            for raw in reversed(before):
                if (entry := self._decoder.decode(raw, epoch)) is not None:
                    seen.look(entry)
        log = EventLog(epoch, floor, complete=is_complete)
        late: list[Event] = []
        is_first = self.known_id is None
        for number, raw in enumerate(raws, 1):
            if not number % FILL_SLICE_EVENTS:
                await asyncio.sleep(0)
            entry = self._decoder.decode(raw, epoch)
            what = "repeated" if entry is None else seen.look(entry)
            if entry is None or what == "repeated":
                continue
            event = entry.event
            if event.type == LOST_EVENTS or what == "gap":
                log.restart(epoch, event.position)
            elif not event.is_control:
                log.append(event)
            is_news = event.position > self._position or hub.log.epoch != epoch
            if _is_command(event) and is_news and not is_first and not seen.was_read_before(entry):
                late.append(event)
        log.skip_to(last)
        revocations = await self._read_revocations(client, epoch)
        self._epoch, self._position, self._seen = epoch, last, seen
        self._first_line = _first_line(raws[-1]) if raws and read_id(raws[-1][0]) == last else None
        hub.deliver(partial(hub.adopt, log, revocations))  # after what is in the inbox
        for event in late:
            hub.deliver(event)
        self.known_id = format_id(epoch, last)
        self._stream.epoch = epoch

    async def _read_revocations(self, client: Client, epoch: str) -> Revocations | None:
        """The kept revocations; None if these commands are not allowed."""
        if not self._hub.keeps_history:
            return None
        try:
            await self._set_clock(client)
            return await self._stream.revocations(client, epoch)
        except (redis.ResponseError, ValueError) as error:
            logger.info("Redis does not say what has been revoked, so that no ticket is good: %s", error)
            return None

    async def _set_clock(self, client: Client) -> None:
        seconds, microseconds = await client.time()
        self._hub.set_clock(1000 * int(seconds) + int(microseconds) / 1000)

    async def _ask_epoch(self, client: Client) -> str:
        """The stream's epoch; made if there is none."""
        pause, longest = RETRY_SECONDS
        until = self._hub.loop.time() + REPLICA_SECONDS
        while True:
            epoch = await client.get(self._stream.epoch_key)
            if epoch is not None:
                return epoch.decode()  # type: ignore[no-any-return]
            await self._stream.begin_epoch()
            if self._stream.read_server is not self._stream.server:
                if self._hub.loop.time() > until:
                    raise redis.ConnectionError(
                        "what is written at URL does not arrive at READ_URL, which must lead to a replica of that "
                        "server, and to the same database"
                    )
                await asyncio.sleep(pause)  # a replica gets it a little later
                pause = min(2 * pause, longest)

    async def _read_tail(self, client: Client) -> tuple[list[Any], int, int, bool]:
        """The last entries, oldest first; a position after which they are complete; the stream's last position; whether
        nothing was ever before them."""
        settings = live_settings()
        info = await self._stream.info(client)
        self._added = 0 if info is None else info.get("entries-added", 0)
        if info is None:
            return [], 0, 0, True
        last = read_id(info["last-generated-id"])
        if not self._hub.keeps_history:
            return [], last, last, False
        oldest = position_milliseconds(last) - int(settings.history_seconds * 1000)
        entries: list[Any] = []  # newest first
        size, end = 0, last
        while True:
            chunk = await client.xrevrange(self._stream.name, max=write_id(end), count=READ_ENTRIES)
            for raw in chunk:
                position = read_id(raw[0])
                size += sum(map(len, raw[1].values()))
                is_full = len(entries) >= settings.history_events or size > settings.history_bytes
                if is_full or position_milliseconds(position) < oldest:
                    return entries[::-1], position, last, False
                entries.append(raw)
            if len(chunk) < READ_ENTRIES:
                break
            end = read_id(chunk[-1][0]) - 1
        if not entries:
            return [], last, last, False
        return entries[::-1], read_id(entries[-1][0]) - 1, last, self._stream.is_complete(info)


async def _last_position(client: Client, name: str) -> int:
    last = await client.xrevrange(name, count=1)
    return read_id(last[0][0]) if last else 0


def _first_line(raw: Any) -> bytes:
    value: bytes = next(iter(raw[1].values()))
    return value.partition(b"\n")[0]


def _is_command(event: Event) -> bool:
    return event.is_control and event.type != LOST_EVENTS
