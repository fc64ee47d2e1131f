"""RedisStreamsBackend: one Redis stream for every worker of every machine; exact resume across workers and restarts.

The stream's ids, behind the stream's epoch, are the events' ids. The epoch is a key of its own, made with the stream
and lost with it: by it a stream that was lost and begun anew is known. What workers tell each other of the present
moment goes through a short stream of its own. How the two are read: redis_reader.py; how they are written:
redis_outbox.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any, ClassVar, Final

from django.core.exceptions import ImproperlyConfigured

from ..events import Event
from ..hub.hub import Hub
from ..hub.registry import add_hub
from .base import Backend
from .outage import Outage
from .redis_history import History
from .redis_outbox import Outbox
from .redis_position import ASK_SECONDS, Position
from .redis_reader import Reader
from .redis_server import Connection, RedisServer, aask

DEFAULTS: Final[Mapping[str, Any]] = {
    "URL": "redis://localhost:6379/0",
    "READ_URL": None,  # where workers read, if not there: a replica of it
    "STREAM": "sse_live",  # the stream's key, and the root of the epoch's
    "MAXLEN": 100_000,  # entries that Redis keeps, at least: what a client can resume from
    "BUFFER_EVENTS": 10_000,  # while Redis is away, each process that broadcasts keeps this many …
    "BUFFER_BYTES": 16 * 1024 * 1024,  # … or this much
    "BUFFER_FULL": "drop_oldest",  # or "drop_newest"; either way clients are told by a reset
    "EXIT_SECONDS": 5,  # how long a process that ends waits for Redis to take what is in the buffer
}


class RedisStreamsBackend(Backend):
    """OPTIONS are those of DEFAULTS. Connections of a process: one that sends, from its first broadcast on; one for
    each hub, which reads; and for a moment one that reads history, or that asks for a position where no hub is."""

    reaches_other_processes = True
    resumes_on_other_workers = True
    resumes_after_restart = True
    option_names: ClassVar[frozenset[str]] = frozenset(DEFAULTS)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        given = {**DEFAULTS, **options}
        _check(given)
        self.stream: str = given["STREAM"]
        has_hash_tag = re.search(r"\{[^}]+\}", self.stream)  # in a cluster, all three keys live on one server
        root = self.stream if has_hash_tag else f"{{{self.stream}}}"
        self.epoch_key: str = f"{root}:epoch"
        self.now_stream: str = f"{root}:now"
        self.max_length: int = given["MAXLEN"]
        self.server: RedisServer = RedisServer(given["URL"], self.stream)
        self.read_server: RedisServer = self.server
        if given["READ_URL"] is not None:
            self.read_server = RedisServer(given["READ_URL"], self.stream, option="READ_URL")
        self.outage: Outage = Outage(f"Redis at {self.server}")
        self._outbox = Outbox(
            self.server,
            self.stream,
            self.now_stream,
            self.max_length,
            self.outage,
            max_events=given["BUFFER_EVENTS"],
            max_bytes=given["BUFFER_BYTES"],
            when_full=given["BUFFER_FULL"],
            exit_seconds=given["EXIT_SECONDS"],
        )
        self._readers: list[Reader] = []
        self._histories: dict[Hub, History] = {}
        self._executor: ThreadPoolExecutor | None = None
        self._position = Position(self)

    @property
    def epoch(self) -> str:
        return self._outbox.epoch

    @epoch.setter
    def epoch(self, epoch: str) -> None:
        self._outbox.epoch = epoch

    @property
    def is_available(self) -> bool:
        return not self.outage.is_on

    @property
    def outages(self) -> int:
        return self.outage.count

    @property
    def buffered(self) -> int:
        return self._outbox.buffered

    @property
    def dropped(self) -> int:
        return self._outbox.dropped

    # Publishing

    def publish(self, event: Event) -> None:
        self._outbox.send(self._outbox.enqueue(event))

    async def apublish(self, event: Event) -> None:
        parcel = self._outbox.enqueue(event)  # here, so that the order is that of the calls
        if self._outbox.is_cut_off:
            self._outbox.send(parcel)
            return
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "sse-live-publish")
        try:
            sending = self._executor.submit(self._outbox.send, parcel)
        except RuntimeError:  # the interpreter is shutting down
            self._outbox.send(parcel)
        else:
            await asyncio.shield(asyncio.wrap_future(sending))  # it has its place in the order: it is sent in any case

    # Reading

    def attach(self, hub: Hub) -> None:
        hub.begin_filling()
        add_hub(hub)
        reader = Reader(self, hub)
        # In a context of its own: this is called while some request is handled, which must not live as long.
        reader.task = Context().run(hub.loop.create_task, reader.run())
        self._readers = [other for other in self._readers if not other.is_over]
        self._readers.append(reader)
        self._histories = {other: history for other, history in self._histories.items() if not other.loop.is_closed()}
        self._histories[hub] = History(self, hub)

    async def history(self, hub: Hub, channels: tuple[str, ...], after: int) -> list[Event] | None:
        return await self._histories[hub].read(channels, after)

    # Positions

    def known_position(self) -> str | None:
        for reader in self._readers:
            if reader.known_id is not None and not reader.is_over:
                return reader.known_id
        return None

    def position(self) -> str:
        """Where a hub of this process has got to, or what Redis says."""
        return self.known_position() or self._position.ask()

    async def write(self, *command: Any) -> None:
        """On a connection for this alone: readers may be connected to a replica."""
        connection = await self.server.aconnect(ASK_SECONDS)
        try:
            await aask(connection, [command])
        finally:
            await connection.disconnect(nowait=True)

    async def stream_info(self, connection: Connection) -> dict[bytes, Any] | None:
        """XINFO STREAM; None while there is no stream."""
        *_, answers = await aask(connection, [("MULTI",), ("XINFO", "STREAM", self.stream), ("EXEC",)])
        if isinstance(answers[0], Exception):
            if "no such key" in str(answers[0]):
                return None
            raise answers[0]
        return dict(zip(answers[0][::2], answers[0][1::2], strict=True))

    def is_complete(self, info: dict[bytes, Any]) -> bool:
        """Whether a stream still has every entry that was ever added to it, since it was made. It may have been made
        anew under the old epoch, if it was deleted alone: an id that is older than its first entry tells."""
        if b"entries-added" in info:  # Redis 7
            return bool(info[b"entries-added"] == info[b"length"])
        return bool(info[b"length"] < self.max_length)

    def close(self) -> None:
        for reader in self._readers:
            reader.stop()
        self._outbox.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        self._position.close()


def _check(options: Mapping[str, Any]) -> None:
    def refuse(name: str, wanted: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(f'SSE_LIVE["OPTIONS"]["{name}"] is {options[name]!r}; it must be {wanted}.')

    if not isinstance(options["STREAM"], str) or not options["STREAM"]:
        raise refuse("STREAM", 'the name of a key, such as "sse_live"')
    for name, minimum in (("MAXLEN", 100), ("BUFFER_EVENTS", 1), ("BUFFER_BYTES", 1024)):
        if not isinstance(options[name], int) or isinstance(options[name], bool) or options[name] < minimum:
            raise refuse(name, f"a whole number of at least {minimum}")
    if options["BUFFER_FULL"] not in ("drop_oldest", "drop_newest"):
        raise refuse("BUFFER_FULL", '"drop_oldest" or "drop_newest"')
    seconds = options["EXIT_SECONDS"]
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < float("inf"):
        raise refuse("EXIT_SECONDS", "a number of seconds of at least 0")
