"""Outage: one WARNING when the bus goes away and one INFO when it is back, however many connections notice."""

from __future__ import annotations

import logging
import threading
import time

logger: logging.Logger = logging.getLogger("django_sse_live")


class Outage:
    """What the parts of one backend know of their bus, in one process. From any thread."""

    def __init__(self, bus: str) -> None:
        self._bus = bus
        self._lock = threading.RLock()  # a signal handler may broadcast while it is held
        self._without: set[object] = set()  # the parts that cannot reach the bus
        self._since = 0.0
        self.count: int = 0  # outages so far

    @property
    def is_on(self) -> bool:
        return bool(self._without)

    def fails(self, part: object, error: BaseException) -> bool:
        """Note that a part cannot reach the bus. True if it could until now."""
        with self._lock:
            is_news, was_well = not self._without, part not in self._without
            self._without.add(part)
            if is_news:
                self._since = time.monotonic()
                self.count += 1
        if is_news:
            logger.warning(
                "SSE bus lost (%s): %s. Streams stay open; what is broadcast meanwhile is sent when it is back.",
                self._bus,
                str(error) or type(error).__name__,
            )
        return was_well

    def works(self, part: object) -> None:
        if part not in self._without:
            return
        with self._lock:
            self._without.discard(part)
            is_over = not self._without
        if is_over:
            logger.info("SSE bus is back (%s) after %.1f s.", self._bus, time.monotonic() - self._since)

    def forget(self, part: object) -> None:
        """Note that a part has ended, whether or not it could reach the bus."""
        with self._lock:
            self._without.discard(part)
