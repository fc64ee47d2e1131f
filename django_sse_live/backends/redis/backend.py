"""RedisStreamsBackend: one Redis stream for every worker of every machine, with exact resume across workers and
restarts.

The ids of events are the stream's epoch and the stream's ids. The epoch is a key of its own, made with the stream and
lost with it, so that a stream that was lost and made anew is noticed. Presence, worker reports and deltas of jobs have
short streams of their own. How all of them are read: reader.py; how they are written: outbox.py, deltas.py.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any, ClassVar, Final

from ...conf import number, option_place, refuse
from ...events import Event
from ...hub.hub import Hub
from ...hub.registry import add_hub
from ..base import Backend
from ..outage import Outage
from .deltas import DeltaSender
from .entries import Decoder
from .history import History
from .outbox import Outbox
from .position import Position
from .reader import Reader
from .server import UNAVAILABLE, RedisServer
from .stream import RedisStream

logger: logging.Logger = logging.getLogger("django_sse_live")

DEFAULTS: Final[Mapping[str, Any]] = {
    "URL": "redis://localhost:6379/0",
    "READ_URL": None,  # where workers read, if elsewhere: a replica
    "STREAM": "sse_live",  # the stream's key, and the root of the other keys
    "MAXLEN": 100_000,  # entries that Redis keeps at least, from which clients resume …
    "MAXBYTES": 256 * 1024 * 1024,  # … unless they are larger together; None: no limit
    "BUFFER_EVENTS": 10_000,  # while Redis is away, each publishing process keeps this many …
    "BUFFER_BYTES": 16 * 1024 * 1024,  # … or this many bytes
    "BUFFER_FULL": "drop_oldest",  # or "drop_newest"; clients get a reset either way
    "EXIT_SECONDS": 5,  # a process that exits waits this long for Redis to take the buffer
}
TESTS_SUFFIX: Final = ":tests:"  # in the stream's name in test processes


class _Parts:
    """What one process has: connections, threads, locks, numbers."""

    def __init__(self, options: Mapping[str, Any], server: RedisServer, read_server: RedisServer) -> None:
        self.pid: int = os.getpid()
        self.stream = RedisStream(
            name=options["STREAM"],
            server=server,
            read_server=read_server,
            max_length=options["MAXLEN"],
            max_bytes=options["MAXBYTES"] or 0,
            outage=Outage(f"Redis at {server}"),
        )
        self.outbox = Outbox(
            self.stream,
            max_events=options["BUFFER_EVENTS"],
            max_bytes=options["BUFFER_BYTES"],
            when_full=options["BUFFER_FULL"],
            exit_seconds=options["EXIT_SECONDS"],
        )
        self.deltas = DeltaSender(self.stream)
        self.decoder = Decoder()
        self.position = Position(self.stream)
        self.readers: list[Reader] = []
        self.histories: dict[Hub, History] = {}
        self.executor: ThreadPoolExecutor | None = None


class RedisStreamsBackend(Backend):
    """OPTIONS: see DEFAULTS.

    Connections of a process: one that sends events, from the first broadcast on; one that sends deltas of jobs, if
    there are any; one reader for each hub; and for moments one that reads history, or asks for a position in a process
    without a hub.
    """

    reaches_other_processes = True
    resumes_on_other_workers = True
    option_names: ClassVar[frozenset[str]] = frozenset(DEFAULTS)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        given = {**DEFAULTS, **options}
        _check(given)
        self._options = given
        self._server = self._read_server = RedisServer(given["URL"], given["STREAM"])
        if given["READ_URL"] is not None:
            self._read_server = RedisServer(given["READ_URL"], given["STREAM"], option="READ_URL")
        self._of_process = _Parts(given, self._server, self._read_server)
        if TESTS_SUFFIX in given["STREAM"]:
            atexit.register(self._forget_stream)

    @classmethod
    def options_in_tests(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """A stream whose keys are deleted when this process ends."""
        name = options.get("STREAM", DEFAULTS["STREAM"])
        own = f"{TESTS_SUFFIX}{os.getpid()}"
        return options if str(name).endswith(own) else {**options, "STREAM": f"{name}{own}"}

    @property
    def _parts(self) -> _Parts:
        """Asked for at each use: a fork without Python's hooks (uWSGI's) has copied its parent's parts."""
        if self._of_process.pid != os.getpid():
            self._of_process = _Parts(self._options, self._server, self._read_server)
        return self._of_process

    @property
    def stream(self) -> RedisStream:
        return self._parts.stream

    @property
    def outage(self) -> Outage:
        return self.stream.outage

    @property
    def buffered(self) -> int:
        return self._parts.outbox.buffered

    @property
    def dropped(self) -> int:
        return self._parts.outbox.dropped

    @property
    def unreadable(self) -> int:
        return self._parts.decoder.unreadable.count

    # Publishing

    def publish(self, event: Event) -> None:
        outbox = self._parts.outbox
        outbox.send(outbox.enqueue(event))

    def publish_deltas(self, event: Event) -> None:
        self._parts.deltas.send(event)

    async def apublish(self, event: Event) -> None:
        parts = self._parts
        outbox = parts.outbox
        outbox.watch_signals()
        parcel = outbox.enqueue(event)  # in this thread, to keep the order of the calls
        if outbox.is_quick:
            outbox.send(parcel)
            return
        try:
            if parts.executor is None:
                parts.executor = ThreadPoolExecutor(1, "sse-live-publish")
            sending = parts.executor.submit(outbox.send, parcel)
        except RuntimeError:  # the interpreter is shutting down
            outbox.send(parcel)
        else:
            # it has its place in the order, so it is sent even after a cancellation
            await asyncio.shield(asyncio.wrap_future(sending))

    # Reading

    def attach(self, hub: Hub) -> None:
        parts = self._parts
        parts.outbox.watch_signals()
        hub.begin_filling()
        add_hub(hub)
        reader = Reader(parts.stream, parts.decoder, hub)
        # In a context of its own, so that the request being handled does not live as long.
        reader.task = Context().run(hub.loop.create_task, reader.run())
        parts.readers.append(reader)
        parts.histories[hub] = History(parts.stream, parts.decoder, hub)

        def forget(_: object) -> None:
            parts.readers = [other for other in parts.readers if other is not reader]
            parts.histories.pop(hub, None)

        reader.task.add_done_callback(forget)

    async def history(self, hub: Hub, channels: tuple[str, ...], after: int) -> list[Event] | None:
        return await self._parts.histories[hub].read(channels, after)

    async def has_reached(self, hub: Hub, position: int) -> bool:
        return await self._parts.histories[hub].has_reached(position)

    # Positions

    def known_position(self) -> str | None:
        parts = self._parts
        parts.outbox.watch_signals()  # the main thread calls this at each request
        for reader in parts.readers:
            if reader.known_id is not None and not reader.is_over:
                return reader.known_id
        return None

    def position(self) -> str:
        """The position of a hub of this process, or else Redis's."""
        return self.known_position() or self._parts.position.ask()

    def _forget_stream(self) -> None:
        if self._of_process.pid != os.getpid():
            return
        try:
            client = self._server.connect(1.0)
            stream = self.stream
            kept = stream.revoked_key, stream.revoked_times_key
            client.delete(stream.name, stream.epoch_key, stream.now_name, stream.deltas_name, *kept)
            client.close()
        except UNAVAILABLE as error:
            logger.debug("The stream of the tests is left behind: %r", error)

    def close(self) -> None:
        parts = self._parts
        for reader in parts.readers:
            reader.stop()
        parts.outbox.close()
        parts.deltas.close()
        if parts.executor is not None:
            parts.executor.shutdown(wait=False)
        parts.position.close()


_NUMBERS: Final = {
    "MAXLEN": number(100, whole=True),
    "MAXBYTES": number(1024 * 1024, whole=True, optional=True),
    "BUFFER_EVENTS": number(1, whole=True),
    "BUFFER_BYTES": number(1024, whole=True),
    "EXIT_SECONDS": number(0),
}


def _check(options: Mapping[str, Any]) -> None:
    for name, check in _NUMBERS.items():
        check(option_place(name), options[name])
    if not isinstance(options["STREAM"], str) or not options["STREAM"]:
        raise refuse(option_place("STREAM"), options["STREAM"], 'the name of a key, such as "sse_live"')
    if options["BUFFER_FULL"] not in ("drop_oldest", "drop_newest"):
        raise refuse(option_place("BUFFER_FULL"), options["BUFFER_FULL"], '"drop_oldest" or "drop_newest"')
