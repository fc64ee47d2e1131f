"""BusThread: the one thread of a process, with one connection, that does all database work of the bus outside the
project's own transactions.

It runs while the process has hubs, and LINGER_SECONDS after its last work. Other threads queue work and wake it;
how long they wait for it is bounded where they do.

What it holds if it is stopped at any point (kill -9, SIGSTOP, a database that is away):

- *events of publish()* that are not inserted: lost with the process; kept, bounded, while the database is away.
- *the stream's lock*: on PostgreSQL for one statement of the server; on MySQL and MariaDB for a few round trips, after
  which the server ends the session; on SQLite there is none.
- *positions*: one transaction gives all or none. The next look gives those that are missing.
- *its hubs' place*: ``Reader.number``. After a break, reading goes on after it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from random import random
from typing import Any, Final

from ..backends.outage import Outage
from ..events import Event
from ..exits import ExitWork, is_interpreter_ending
from ..hub.hub import Hub
from .deltas import Deltas
from .dialects.base import Dialect, Status
from .dialects.sqlite import SQLite
from .history import History
from .inbox import Inbox, Result, Taken
from .listener import FileWatch, Listener
from .parcels import Parcels
from .positions import Positions
from .problems import explained
from .reader import Reader
from .session import UNAVAILABLE, ForkLock, Session, Waker
from .trimming import Trimming

logger: logging.Logger = logging.getLogger("django_sse_live")

LINGER_SECONDS: Final = 1.0
EXIT_SECONDS: Final = 5.0
EXIT_BREAKS_MAX: Final = 3  # broken connections after which a process that exits gives up
GATHER_SECONDS: Final = 0.005  # the least pause between two looks: one look does all that came meanwhile
PAUSE_PER_LOOK: Final = 2  # the pause is this many times the length of the last look, …
GATHER_SECONDS_MAX: Final = 0.03  # … and at most this
RETRY_SECONDS: Final = (0.05, 1.0)  # first and longest pause before a new connection, shortened at random


class BusThread:
    """The bus thread of one process; a fork makes its own."""

    def __init__(
        self, alias: str, dialect: Dialect, retention_seconds: float, outage: Outage, *, may_listen_through_pooler: bool
    ) -> None:
        self.reader: Reader = Reader(dialect)
        self.history: History = History(dialect, self.reader)
        self.parcels: Parcels = Parcels(dialect)
        self.deltas: Deltas = Deltas(dialect, alias)
        self.is_behind: bool = False  # the database is away or slow: publish() does not wait
        self._alias = alias
        self._dialect = dialect
        self._outage = outage
        self._waker = Waker()
        self._must_stop = False
        self._is_working = False
        self._exit = ExitWork(self.stop, lambda: self._is_working or self._has_work)
        self._inbox = Inbox()
        self._lock = threading.RLock()  # guards the thread's start and end; no foreign code runs under it
        self._thread: threading.Thread | None = None

        # Held while the database is used, and by a fork.
        self._use: AbstractContextManager[Any] = ForkLock() if isinstance(dialect, SQLite) else nullcontext()

        # Touched by the thread alone.
        self._listener = Listener(dialect, may_listen_through_pooler)
        self._positions = Positions(dialect)
        self._breaks = 0  # connections that failed since work was last done
        self._files = FileWatch()
        self._trimming = Trimming(dialect, retention_seconds)

    # From any thread

    @property
    def is_current_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def publish(self, event: Event) -> Future[None]:
        """Queue an event. The future is done once it is inserted, cancelled if it is dropped."""
        inserted = self.parcels.add(event)
        self._wake()
        return inserted

    def publish_deltas(self, event: Event) -> None:
        """Hand on and queue deltas of jobs. Nobody waits for them; the oldest are dropped where they are too many."""
        self.reader.hand_on(event)
        self.deltas.put(event)
        if len(self.deltas):
            self._wake()
            if self._must_stop and self._thread is None and not self.is_behind:  # the process ends, and so do its jobs
                self._run()

    def poke(self) -> None:
        """Tell that an event is committed."""
        if not self._dialect.gives_positions and not self.reader.hubs and not self._trimming.is_due:
            return  # SQLite: the event has its position, and no hub of this process waits for it
        if self._inbox.is_poked and self._thread is not None:
            return  # the poke before is not handled yet, and covers this event
        self._inbox.poke()
        self._wake()

    def complete(self, id: int, body: bytes | None) -> None:
        """Give a committed, pending event its final body; None: it is not to be sent."""
        self._inbox.complete(id, body)
        self._wake()

    def attach(self, hub: Hub) -> None:
        """Serve a hub. Called on its loop."""
        self.watch_signals()
        self._inbox.attach(hub)
        self._wake_for(hub)

    def _wake_for(self, hub: Hub) -> None:
        """Where no thread can be started, the hub's loop tries again: a worker that only reads makes no other call."""
        self._wake()
        if self._thread is None and not self._must_stop and not hub.is_closing:
            hub.loop.call_later(RETRY_SECONDS[1], self._wake_for, hub)

    def ask(self, question: Callable[[Session, Status], Result]) -> Future[Result]:
        """Ask the thread, which answers once it has read every event. Cancelled while the database is away."""
        future = self._inbox.ask(question)
        self._wake()
        return future

    def stop(self, seconds: float = EXIT_SECONDS) -> None:
        """Stop once the queued work is done, or after ``seconds``. Lost events are logged."""
        self._must_stop = True
        self._waker.wake()
        thread = self._thread
        if thread is None and self._has_work:  # none could be started
            self._run()
        elif thread is not None and thread is not threading.current_thread():
            thread.join(seconds)
        self._exit.cancel()
        if len(self.parcels):
            logger.error("%d SSE events are lost: the database has not taken them in time.", len(self.parcels))

    def watch_signals(self) -> None:
        self._exit.watch_signals()

    def _wake(self) -> None:
        failed: RuntimeError | None = None
        with self._lock:
            if self._thread is None and not self._must_stop:
                thread = threading.Thread(target=self._run, name="sse-live-database", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    if is_interpreter_ending(error):  # work in this thread
                        self._must_stop = True
                        self._run()
                        return
                    failed = error
                else:
                    self._thread = thread
        if failed is not None:
            self._fails(failed)  # the next call tries again
        self._waker.wake()

    # The thread

    @property
    def _has_work(self) -> bool:
        return self._inbox.is_poked or self._has_more_than_a_poke

    @property
    def _has_more_than_a_poke(self) -> bool:
        return bool(len(self.deltas) or len(self.parcels) or self._inbox.has_more_than_a_poke)

    def _must_work(self, now: float) -> bool:
        """A poke alone waits for a moment if another process gives the positions."""
        is_due = self._inbox.is_poked and (now >= self._positions.leaves_until or self._must_stop)
        return is_due or self._has_more_than_a_poke or now >= self._positions.again_at

    def _end(self) -> bool:
        """Whether the thread may end here. The next work starts another."""
        with self._lock:
            if self._has_work and not self._must_stop:
                return False
            self._thread = None
            return True

    def _run(self) -> None:
        # Only this frame holds the session. The frame lives on in a fork, so the connection is never closed there:
        # closing it would end the parent's.
        session: Session | None = None
        self._breaks = 0
        try:
            while True:
                try:
                    if session is None:
                        with self._use:
                            session = Session(self._alias)
                            self._begin(session)
                    self._serve(session)
                    if self._end():
                        return
                    continue
                except Exception as error:
                    self._close(session)
                    session = None
                    self._breaks += 1
                    if not isinstance(error, UNAVAILABLE):
                        if self._fails(error):
                            logger.exception("The SSE bus in the database failed.")
                    elif self._breaks > 1:  # one break alone is an ended connection, and the next comes up at once
                        self._fails(explained(error, self._alias))
                if self._must_stop and (self._breaks > EXIT_BREAKS_MAX or not self._has_work):
                    return
                self.reader.forget_closed()
                if not (self._has_work or self.reader.hubs) and self._end():
                    return
                if self._breaks > 1:
                    shortest, longest = RETRY_SECONDS
                    pause = min(shortest * 2 ** min(self._breaks - 2, 10), longest)
                    self._pause(pause * (1 - random() / 2))
        finally:
            self._close(session)
            self._is_working = False
            self._outage.forget(self)
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _close(self, session: Session | None) -> None:
        if session is not None:
            with self._use:
                session.close()

    def _fails(self, error: BaseException) -> bool:
        """Note the failure. True if it is the first."""
        self.is_behind = True
        self._inbox.cancel_questions()
        return self._outage.fails(self, error)

    def _pause(self, seconds: float) -> None:
        """Wait, even if it is woken: the work could not be done anyway."""
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0 and not self._must_stop:
            self._waker.wait(rest)
            time.sleep(min(rest, GATHER_SECONDS))

    def _begin(self, session: Session) -> None:
        self._dialect.prepare(session)
        self._files.begin()
        self.reader.begin(session)
        self.parcels.begin()
        self.parcels.last_id = max(self.parcels.last_id, self._positions.status(session).last_id)
        self._listener.begin(session)

    def _serve(self, session: Session) -> None:
        """Work until there is nothing left to do, or the connection breaks."""
        idle_since = time.monotonic()
        looked_at = look_at = 0.0
        rest = GATHER_SECONDS
        is_first = True
        while True:
            if self._must_stop and not self._has_work and self._positions.again_at == float("inf"):
                return
            self.reader.forget_closed()
            now = time.monotonic()
            if not (is_first or self._must_work(now) or (self._listener.listens and session.has_notifications)):
                until = look_at
                if not self.reader.hubs:
                    until = idle_since + LINGER_SECONDS
                    if until <= now and not self._inbox.is_poked:
                        return
                if self._inbox.is_poked:
                    until = min(until, self._positions.leaves_until)
                seconds = min(until, self._positions.again_at) - now
                self._waker.wait(seconds, session if self._listener.listens else None)
            has_news = self._listener.hear(session, self.reader)
            if self._has_work:
                idle_since = time.monotonic()
            now = time.monotonic()
            is_due = is_first or (bool(self.reader.hubs) and now >= look_at)
            if not (has_news or is_due or self._must_work(now)):
                continue
            if now < looked_at + rest:
                time.sleep(looked_at + rest - now)
            began = time.monotonic()
            with self._use:
                gives = self._work(session, has_news, is_due)
            looked_at = time.monotonic()
            shortest = GATHER_SECONDS_MAX if self._positions.is_busy else GATHER_SECONDS
            rest = min(max(shortest, PAUSE_PER_LOOK * (looked_at - began)), GATHER_SECONDS_MAX)
            if gives:  # else news of other processes would postpone the search for events without a position
                look_at = looked_at + self._listener.look_seconds
            is_first = False
            self._breaks = 0
            self._outage.works(self)
            if self.is_behind and not len(self.parcels):
                self.is_behind = False

    def _work(self, session: Session, has_news: bool, is_due: bool) -> bool:
        """One round of work. True if events without a position were searched for."""
        self._is_working = True
        again = time.monotonic() >= self._positions.again_at
        poked, completions, new_hubs = self._inbox.take()
        try:
            while completions:  # first: what was published after a commit must not pass by what was saved in it
                with session.cursor() as cursor:
                    self._dialect.complete(cursor, *completions[0])
                completions.popleft()
            poked = self.parcels.insert(session) or poked or again
            told, must_look = self._listener.take_told(), bool(poked or is_due or new_hubs or self._inbox.has_questions)
            if must_look or not self.reader.read_to(session, told):
                status = self._look(session, is_asked=poked, has_news=has_news or bool(new_hubs), is_due=is_due)
                if status is not None:
                    self.reader.fill(session, status, new_hubs)
            reads = bool(self.reader.hubs) and (self._listener.has_deltas or not self._listener.listens)
            self._listener.has_deltas = False
            if self.deltas.work(session, self.reader.stored_epoch, self.reader.hand_on if reads else None):
                self._listener.tell_deltas(session)
        except BaseException:
            unfilled = deque(hub for hub in new_hubs if hub not in self.reader.hubs)
            self._inbox.give_back(Taken(poked, completions, unfilled))
            raise
        self._inbox.answer(session, self._positions.status)
        self.history.forget()
        # On SQLite only right after a write of this process: a second writer would disturb the project's own.
        if self._dialect.gives_positions or poked:
            self._trimming.work(session, self._positions.status)
        self._is_working = False
        return poked or is_due

    def _look(self, session: Session, *, is_asked: bool, has_news: bool, is_due: bool) -> Status | None:
        """Give positions and read new events. None if nothing can have changed. ``is_asked``: events were just
        committed."""
        must_look = is_asked or has_news or self._inbox.has_questions or self._positions.has_pending
        if self._files.is_unchanged(session, self._dialect, self.parcels.last_id, must_look):
            return None
        status = self._positions.give(session, is_asked=is_asked, is_due=is_due)
        self.parcels.last_id = max(self.parcels.last_id, status.last_id)
        if self.reader.hubs:
            status = self.reader.look(session, status)
        if status.given_after is not None or (
            is_asked and not self._positions.follows and status.head > self.reader.told
        ):
            self._listener.tell(session, status)
            self.reader.told = status.head
        return status
