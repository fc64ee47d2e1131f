"""DatabaseBackend: the project's own database carries events to every process of the site. No other server is needed.

An event that is broadcast inside a transaction of that database is inserted in that transaction (outbox.py). One thread
of each process does everything else, over a connection of its own (thread.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any, ClassVar, Final

from django.apps import AppConfig
from django.core.checks import CheckMessage
from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.models.signals import post_migrate

from ..backends.base import Backend, HistoryUnavailable
from ..backends.memory import MemoryBackend
from ..backends.outage import Outage
from ..conf import number, option_place, refuse, truth
from ..events import DISCONNECT, NO_STREAM_ID, Event, make_position
from ..hub.hub import Hub
from ..hub.registry import add_hub, deliver_to_hubs, running_loop
from ..savepoints import is_in_transaction
from .checks import check_database
from .dialects.base import Dialect, Status
from .dialects.mysql import MySQL
from .dialects.postgresql import PostgreSQL
from .dialects.sqlite import SQLite
from .outbox import Outbox
from .rows import NUMBER_MASK, encode_body
from .session import UNAVAILABLE, Session, database_key
from .thread import BusThread

logger: logging.Logger = logging.getLogger("django_sse_live")

DEFAULTS: Final[Mapping[str, Any]] = {
    "DATABASE": "default",  # alias in DATABASES; events are part of its transactions
    "LISTEN_DATABASE": None,  # alias of the same database without a pooler, for LISTEN
    "SAVEPOINT": False,  # True: an event that cannot be stored is logged and lost, and the save stands
    "RETENTION_SECONDS": 86_400,  # how far back a client can resume
}
DIALECTS: Final[Mapping[str, type[Dialect]]] = {"postgresql": PostgreSQL, "mysql": MySQL, "sqlite": SQLite}

# A caller outside a transaction waits this long for the INSERT, since what it saves next must come after it: other
# threads may keep the bus thread from running.
PUBLISH_SECONDS: Final = 0.5
PUBLISH_ON_LOOP_SECONDS: Final = 0.05  # in a coroutine, whose loop is held meanwhile
POSITION_SECONDS: Final = 1.0  # a page waits this long for a position
HISTORY_SECONDS: Final = 4.0
HISTORY_READS_MAX: Final = 5  # reads of the table for one client: the log may evict more while a read runs
HISTORY_EVENTS_AHEAD: Final = 1_000  # events read beyond what the log has evicted, so that one read is usually enough


class DatabaseBackend(Backend):
    """OPTIONS: see DEFAULTS.

    A process that serves streams has one connection. Any other process has one from its first broadcast until a second
    after its last. With a SQLite database in memory, which only one process can see, this is MemoryBackend.
    """

    reaches_other_processes = True
    resumes_on_other_workers = True
    option_names: ClassVar[frozenset[str]] = frozenset(DEFAULTS)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        given = {**DEFAULTS, **options}
        _check_options(given)
        self.alias: str = given["DATABASE"]
        self._listen_alias: str | None = given["LISTEN_DATABASE"]
        self._retention_seconds: float = given["RETENTION_SECONDS"]
        self._dialect = DIALECTS[connections[self.alias].vendor]()
        self._outbox = Outbox(self.alias, self._dialect, given["SAVEPOINT"])
        self._outage = Outage(database_key(self.alias))
        self._threads: dict[int, BusThread] = {}  # by process id: a fork does not use its parent's thread
        self._last_known: str | None = None
        self._own_memory: MemoryBackend | None = None
        post_migrate.connect(self._look_after_flush)

    # Where the work is done

    @property
    def _memory(self) -> MemoryBackend | None:
        """The memory backend, if the database is in memory. Asked each time: a test run swaps the database."""
        if not isinstance(self._dialect, SQLite) or not connections[self.alias].is_in_memory_db():  # type: ignore[attr-defined]
            return None
        if self._own_memory is None:
            self._own_memory = MemoryBackend({})
        return self._own_memory

    @property
    def thread(self) -> BusThread:
        """The bus thread of this process."""
        pid = os.getpid()
        thread = self._threads.get(pid)
        if thread is None:
            made = BusThread(
                self._listen_alias or self.alias,
                self._dialect,
                self._retention_seconds,
                self._outage,
                may_listen_through_pooler=self._listen_alias is not None,
            )
            thread = self._threads.setdefault(pid, made)
        return thread

    @property
    def outage(self) -> Outage:
        return self._outage

    @property
    def buffered(self) -> int:
        thread = self._threads.get(os.getpid())
        return len(thread.parcels) if thread is not None else 0

    @property
    def dropped(self) -> int:
        thread = self._threads.get(os.getpid())
        return thread.parcels.dropped if thread is not None else 0

    @property
    def unreadable(self) -> int:
        thread = self._threads.get(os.getpid())
        return thread.reader.decoder.unreadable.count if thread is not None else 0

    # Publishing

    def enlist(self, event: Event, using: str) -> Callable[[], None] | None:
        if using != self.alias or self._memory is not None or event.is_of_now:
            return None
        if event.type == DISCONNECT and self._dialect.gives_positions:
            event.finish = _as_it_is  # pending as well, or its final goodbye would pass by what was saved before it
        id = self._outbox.insert(event)

        def after_commit() -> None:
            self._after_commit(event, id)

        return after_commit

    def _after_commit(self, event: Event, id: int | None) -> None:
        was_pending = event.finish is not None
        is_sent = event.complete()
        connection = connections[self.alias]
        if connection.in_atomic_block:
            # A test has called the on_commit callbacks by itself: the row is never committed, so the event goes out
            # here.
            if is_sent and isinstance(self._dialect, SQLite):
                self._deliver_uncommitted(event, id)
            elif is_sent:
                self._publish(event)
        elif id is not None:
            self.thread.watch_signals()
            if not was_pending:
                self.thread.poke()
                return
            body = self._final_body(event) if is_sent else None
            if isinstance(self._dialect, SQLite):
                self._complete_here(id, body)
            else:
                self.thread.complete(id, body)

    def _deliver_uncommitted(self, event: Event, id: int | None) -> None:
        """To the hubs of this process alone: nobody else can write to the file before the test ends."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT milliseconds, id FROM sse_live_event WHERE id = %s", [id])
            for milliseconds, number in cursor.fetchall():
                self.thread.reader.stamp(event, make_position(milliseconds, number))
                deliver_to_hubs(event)

    def _final_body(self, event: Event) -> bytes | None:
        """None for a body that the database would never take: the bus thread would try it again and again."""
        body = encode_body(event)
        try:
            self._outbox.check_size(event, len(body))
        except ValueError:
            logger.exception("A saved row is not told to its pages.")
            return None
        return body

    def _complete_here(self, id: int, body: bytes | None) -> None:
        """SQLite: UPDATE over the connection that has just committed, since it is the one that may write now."""
        try:
            with connections[self.alias].cursor() as cursor:
                self._dialect.complete(cursor, id, body)
        except (DatabaseError, InterfaceError):
            pass  # another writer holds the lock for long: the event is sent as it was inserted
        self.thread.poke()

    def publish(self, event: Event) -> None:
        """Publish now, even inside a transaction: the session that a control event tells of may be in a cache, where no
        rollback brings it back. On SQLite, where a second connection could not write meanwhile, the event becomes part
        of the transaction."""
        memory = self._memory
        if memory is not None:
            memory.publish(event)
        elif self._stays_in_process(event):
            deliver_to_hubs(event)
        elif isinstance(self._dialect, SQLite) and is_in_transaction(connections[self.alias]):
            after_commit = self.enlist(event, self.alias)
            if after_commit is not None:
                transaction.on_commit(after_commit, using=self.alias, robust=True)
        elif event.complete():
            self._publish(event)

    @property
    def carries_reports(self) -> bool:
        return self._dialect.stores_worker_events

    @property
    def carries_deltas(self) -> bool:
        return self._memory is not None or not self.thread.deltas.is_off

    def publish_deltas(self, event: Event) -> None:
        memory = self._memory
        if memory is not None:
            memory.publish_deltas(event)
        else:
            self.thread.publish_deltas(event)

    async def apublish(self, event: Event) -> None:
        memory = self._memory
        if memory is not None:
            await memory.apublish(event)
        elif self._stays_in_process(event):
            deliver_to_hubs(event)
        elif event.complete():
            thread = self.thread
            stored = thread.publish(event)
            if not thread.is_behind:
                await asyncio.wait([asyncio.wrap_future(stored)], timeout=PUBLISH_SECONDS)

    def _publish(self, event: Event) -> None:
        thread = self.thread
        thread.watch_signals()
        stored = thread.publish(event)
        if thread.is_current_thread:
            return
        until = time.monotonic() + (PUBLISH_SECONDS if running_loop() is None else PUBLISH_ON_LOOP_SECONDS)
        # Where the database is away, it is inserted once it is back.
        while not (thread.is_behind or stored.done()) and (rest := until - time.monotonic()) > 0:
            wait([stored], timeout=min(rest, PUBLISH_ON_LOOP_SECONDS))

    def _stays_in_process(self, event: Event) -> bool:
        """SQLite: presence and worker reports reach only the hubs of this process, since each would cost a write."""
        return not self._dialect.stores_worker_events and event.is_of_now

    # Reading

    def attach(self, hub: Hub) -> None:
        memory = self._memory
        if memory is not None:
            memory.attach(hub)
            return
        hub.begin_filling()
        add_hub(hub)
        self.thread.attach(hub)

    async def history(self, hub: Hub, channels: tuple[str, ...], after: int) -> list[Event] | None:
        if self._memory is not None:
            return None
        thread = self.thread
        epoch, found, number = hub.log.epoch, list[Event](), after & NUMBER_MASK
        for _ in range(HISTORY_READS_MAX):
            until = (hub.log.evicted_to & NUMBER_MASK) + HISTORY_EVENTS_AHEAD
            answer = await _answer(thread.ask(partial(thread.history.read, epoch, channels, number, until)))
            if answer is None or hub.log.epoch != epoch:
                return None
            more, number = answer
            found += more
            if hub.log.evicted_to & NUMBER_MASK <= number:
                last = found[-1].position if found else after
                return found + hub.log.read(channels, max(last, hub.log.evicted_to))
        return None

    async def has_reached(self, hub: Hub, position: int) -> bool:
        if self._memory is not None:
            return True
        thread, epoch, gives = self.thread, hub.log.epoch, self._dialect.gives_positions

        def reached(session: Session, status: Status) -> bool:
            # On SQLite other workers may be past an event that this one, which has just begun, still waits for.
            last = status.head if gives else max(status.head, status.last_id)
            positions = [row.position for row in self._dialect.after(session, last - 1, last)]
            newest = max([make_position(status.milliseconds, status.head), *positions])
            return thread.reader.epoch_of(status) == epoch and position <= newest

        return bool(await _answer(thread.ask(reached)))

    # Positions

    def known_position(self) -> str | None:
        memory = self._memory
        if memory is not None:
            return memory.known_position()
        thread = self._threads.get(os.getpid())
        return thread.reader.known_id if thread is not None else None

    def position(self) -> str:
        known = self.known_position()
        if known is not None:
            return known
        thread = self.thread
        if self._outage.is_on or thread.is_current_thread:
            return self._last_known or NO_STREAM_ID
        asked: Future[str] = thread.ask(lambda session, status: thread.reader.id_of(status))
        try:
            self._last_known = asked.result(POSITION_SECONDS)
        except (FutureTimeout, CancelledError, *UNAVAILABLE):
            asked.cancel()
        return self._last_known or NO_STREAM_ID

    def _look_after_flush(self, *, app_config: AppConfig, using: str, **_: Any) -> None:
        """A flush begins another stream, and Django's tests end with one. Unless this process knows it at once, clients
        of the next test are given an id of the old one, and a reset."""
        thread = self._threads.get(os.getpid())
        is_flushed = app_config.label == "sse_live_database" and using == self.alias
        if thread is not None and is_flushed and any(not hub.loop.is_closed() for hub in thread.reader.hubs):
            wait([thread.ask(lambda session, status: None)], timeout=POSITION_SECONDS)

    def check(self, databases: Collection[str]) -> list[CheckMessage]:
        return check_database(self.alias, self._listen_alias, databases)

    def close(self) -> None:
        thread = self._threads.pop(os.getpid(), None)
        if thread is not None:
            thread.stop()
        if self._own_memory is not None:
            self._own_memory.close()


def _as_it_is(event: Event) -> bool:
    return True


async def _answer(asked: Future[Any]) -> Any:
    """Wait for the answer of the bus thread. Raises HistoryUnavailable if the database does not answer in time."""
    waiting = asyncio.wrap_future(asked)
    await asyncio.wait([waiting], timeout=HISTORY_SECONDS)
    if not waiting.done():
        waiting.cancel()
        raise HistoryUnavailable("the database has not answered in time")
    try:
        return waiting.result()
    except (asyncio.CancelledError, *UNAVAILABLE) as error:
        raise HistoryUnavailable(repr(error)) from error


def _check_options(options: Mapping[str, Any]) -> None:
    for name in ("DATABASE", "LISTEN_DATABASE"):
        alias, place = options[name], option_place(name)
        if alias not in connections and not (alias is None and name == "LISTEN_DATABASE"):
            raise refuse(place, alias, f"an alias of DATABASES, which has {', '.join(map(repr, sorted(connections)))}")
        if alias is not None and connections[alias].vendor not in DIALECTS:
            raise refuse(place, alias, "the alias of a PostgreSQL, MySQL, MariaDB or SQLite database")
    truth(option_place("SAVEPOINT"), options["SAVEPOINT"])
    number(60)(option_place("RETENTION_SECONDS"), options["RETENTION_SECONDS"])
