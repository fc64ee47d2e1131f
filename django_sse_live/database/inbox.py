"""Inbox: what other threads hand to the bus thread besides events: pokes, completions of pending events, hubs,
questions."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, TypeVar

from ..hub.hub import Hub
from .dialects.base import Status
from .session import UNAVAILABLE, Session

ANSWER_SECONDS: Final = 0.02  # spent on questions before events are read again

Result = TypeVar("Result")


class Taken(NamedTuple):
    """What take() took out."""

    is_poked: bool
    completions: deque[tuple[int, bytes | None]]
    hubs: deque[Hub]


class Inbox:
    """Methods may be called from any thread, except take(), give_back() and answer()."""

    def __init__(self) -> None:
        self.is_poked: bool = False  # some committed event may have no position
        # Guards what follows. A signal handler may interrupt its holder and broadcast, so the holder may take it again.
        self._lock = threading.RLock()
        self._completions: deque[tuple[int, bytes | None]] = deque()
        self._requests: deque[tuple[Callable[[Session, Status], Any], Future[Any]]] = deque()
        self._hubs: deque[Hub] = deque()

    @property
    def has_more_than_a_poke(self) -> bool:
        return bool(self._completions or self._requests or self._hubs)

    @property
    def has_questions(self) -> bool:
        return bool(self._requests)

    def poke(self) -> None:
        """Tell that an event is committed."""
        with self._lock:
            self.is_poked = True

    def complete(self, id: int, body: bytes | None) -> None:
        """Give a committed, pending event its final body; None: it is not to be sent."""
        with self._lock:
            self._completions.append((id, body))
            self.is_poked = True

    def attach(self, hub: Hub) -> None:
        with self._lock:
            self._hubs.append(hub)

    def ask(self, question: Callable[[Session, Status], Result]) -> Future[Result]:
        """Queue a question. The future gets its answer or its error, and is cancelled while the database is away."""
        future: Future[Result] = Future()
        with self._lock:
            self._requests.append((question, future))
        return future

    # In the bus thread

    def take(self) -> Taken:
        with self._lock:
            is_poked, self.is_poked = self.is_poked, False
            completions, self._completions = self._completions, deque()
            hubs, self._hubs = self._hubs, deque()
        return Taken(is_poked, completions, hubs)

    def give_back(self, taken: Taken) -> None:
        """Put back what a broken connection left undone."""
        with self._lock:
            self._completions.extendleft(reversed(taken.completions))
            self._hubs.extendleft(reversed(taken.hubs))
            self.is_poked = self.is_poked or taken.is_poked

    def cancel_questions(self) -> None:
        with self._lock:
            requests, self._requests = self._requests, deque()
        for _, future in requests:
            future.cancel()

    def answer(self, session: Session, status: Callable[[Session], Status]) -> None:
        """Answer questions, for at most ANSWER_SECONDS, so that events do not wait for long."""
        until = time.monotonic() + ANSWER_SECONDS
        while self._requests and time.monotonic() < until:
            with self._lock:
                question, future = self._requests.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(question(session, status(session)))
            except BaseException as error:
                future.set_exception(error)
                if isinstance(error, UNAVAILABLE):
                    raise
