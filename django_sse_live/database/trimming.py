"""Trimming: deletes the events that are too old, a slice at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from .dialects.base import Dialect, Status
from .session import Session

TRIM_SECONDS: Final = 60.0
TRIM_WORKER_EVENTS_SECONDS: Final = 25.0


class Trimming:
    """Touched in the bus thread alone, except is_due."""

    def __init__(self, dialect: Dialect, retention_seconds: float) -> None:
        self._dialect = dialect
        self._retention_seconds = retention_seconds
        self._at = self._worker_events_at = 0.0
        self._worker_events_trimmed = 0

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._at

    def work(self, session: Session, status: Callable[[Session], Status]) -> None:
        now = time.monotonic()
        if now >= self._at:
            has_more = self._dialect.trim(session, status(session), self._retention_seconds)
            self._at = now if has_more else now + TRIM_SECONDS
        if self._dialect.stores_worker_events and now >= self._worker_events_at:
            self._worker_events_trimmed = self._dialect.trim_worker_events(session, self._worker_events_trimmed)
            self._worker_events_at = now + TRIM_WORKER_EVENTS_SECONDS
