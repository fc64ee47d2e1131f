"""Answers: which messages have run, and how they were answered, so that none runs twice.

They are in the cache that MESSAGES_CACHE names, for all workers; without it in a table of this process. Handlers and
requests are unknown here: a message is a key and a digest.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Protocol

from django.core.cache import caches

ANSWER_KEPT_SECONDS: Final = 600  # how long an answered message is known
LEASE_SECONDS: Final = 60  # renewed while a message runs; if it lapses, the outcome is unknown
RENEW_SECONDS: Final = 20
TABLE_MESSAGES_MAX: Final = 50_000
TABLE_BYTES_MAX: Final = 32 * 1024 * 1024


class AnswersUnavailable(Exception):
    """The cache cannot say whether a message has run."""


@dataclass(frozen=True, slots=True)
class Found:
    """A message that is known already. ``answer`` is None while it runs, and if its outcome is unknown."""

    digest: str  # of what was sent under this key
    answer: tuple[int, str] | None = None  # status, JSON
    is_running: bool = False


class Answers(Protocol):
    """Methods may be called in any thread, and raise what the cache raises."""

    is_local: bool  # methods never block, so they need no thread; there is no lease

    def begin(self, key: str, digest: str, earlier: str | None = None) -> Found | None:
        """None: the message is new, and the caller runs it. ``earlier``: another key that it may be
        known by."""

    def renew(self, key: str) -> None:
        """Note that it still runs. To be called every RENEW_SECONDS."""

    def end(self, key: str, digest: str, answer: tuple[int, str]) -> None: ...


class CacheAnswers:
    """Each message has two entries: its digest, later with its answer, for ANSWER_KEPT_SECONDS; and the lease of the
    process that runs it."""

    is_local = False

    def __init__(self, alias: str) -> None:
        self._cache = caches[alias]
        self._run = secrets.token_hex(8)  # of the one message that this object is made for

    def begin(self, key: str, digest: str, earlier: str | None = None) -> Found | None:
        if earlier is not None and (entry := self._cache.get(_entry(earlier))) is not None:
            return self._found(earlier, entry)
        # The lease first: a message without one is given up for good.
        self._cache.set(_lease(key, self._run), 1, LEASE_SECONDS)
        for _ in range(2):  # the entry may lapse between the two questions
            if self._cache.add(_entry(key), {"digest": digest, "run": self._run}, ANSWER_KEPT_SECONDS):
                return None
            if (entry := self._cache.get(_entry(key))) is not None:
                if entry.get("run") == self._run:
                    return None  # the cache's client got no answer, and has sent it again
                return self._found(key, entry)
        raise AnswersUnavailable("It neither adds an entry nor has one: it drops what it is given.")

    def _found(self, key: str, entry: dict[str, Any]) -> Found:
        if "answer" in entry:
            status, text = entry["answer"]
            return Found(entry["digest"], (status, text))
        return Found(entry["digest"], is_running=self._cache.get(_lease(key, entry["run"])) is not None)

    def renew(self, key: str) -> None:
        self._cache.set(_lease(key, self._run), 1, LEASE_SECONDS)
        self._cache.touch(_entry(key), ANSWER_KEPT_SECONDS)

    def end(self, key: str, digest: str, answer: tuple[int, str]) -> None:
        self._cache.set(_entry(key), {"digest": digest, "answer": list(answer)}, ANSWER_KEPT_SECONDS)


def _entry(key: str) -> str:
    return f"sse_live.message.{key}"


def _lease(key: str, run: str) -> str:
    return f"sse_live.message.{key}.{run}"


class TableAnswers:
    """The messages of this process. If there are too many, the oldest answers are dropped early; running messages
    stay."""

    is_local = True

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running: dict[str, str] = {}  # key → digest
        self._answered: OrderedDict[str, tuple[float, Found]] = OrderedDict()  # the oldest first
        self._bytes = 0

    def begin(self, key: str, digest: str, earlier: str | None = None) -> Found | None:
        with self._lock:
            self._forget()
            for known in (key, earlier or key):
                if known in self._running:
                    return Found(self._running[known], is_running=True)
                if known in self._answered:
                    return self._answered[known][1]
            self._running[key] = digest
            return None

    def renew(self, key: str) -> None:
        pass

    def end(self, key: str, digest: str, answer: tuple[int, str]) -> None:
        with self._lock:
            self._running.pop(key, None)
            self._answered[key] = time.monotonic() + ANSWER_KEPT_SECONDS, Found(digest, answer)
            self._bytes += _size(answer)
            self._forget()

    def _forget(self) -> None:
        now = time.monotonic()
        while self._answered:
            until, found = next(iter(self._answered.values()))
            if until > now and len(self._answered) <= TABLE_MESSAGES_MAX and self._bytes <= TABLE_BYTES_MAX:
                break
            self._answered.popitem(last=False)
            assert found.answer is not None
            self._bytes -= _size(found.answer)


def _size(answer: tuple[int, str]) -> int:
    return len(answer[1]) + 400
