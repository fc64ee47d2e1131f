"""MemoryBackend: the default; for one process, without a server.

Ids are made here: the wall clock's milliseconds, which never go back, and a sequence. The epoch is the start of this
process.
"""

from __future__ import annotations

import logging
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from ..conf import is_test_run
from ..events import ENDS, Event, next_position, position_milliseconds
from ..hub.hub import Hub
from ..hub.log import EventLog
from ..hub.recent_ends import Revocations
from ..hub.registry import add_hub, deliver_to_hubs, open_hubs
from .base import Backend

logger: logging.Logger = logging.getLogger("django_sse_live")

OVERLAP_MS: Final = 10_000  # at a deploy, the process before this one may still send events for so long
BUSES: Final = (
    'set SSE_LIVE["BACKEND"] to "django_sse_live.database.DatabaseBackend", "django_sse_live.backends.redis_streams.'
    'RedisStreamsBackend" or "django_sse_live.backends.channel_layer.ChannelLayerBackend".'
)


class MemoryBackend(Backend):
    """One lock guards everything: every hub hears events in the order of their ids.

    The log kept here fills that of a new hub. So events between a page's query and the first stream of the process are
    not lost.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._lock = threading.RLock()
        self._log = EventLog(secrets.token_hex(4))
        self._revocations = Revocations(0)
        self._waiting: deque[Event] = deque()
        self._is_publishing = False
        self._position = self._log.head_id
        self._may_be_alone = True  # unknown yet whether anybody can hear this process
        self._others_since_ms: int | None = time.time_ns() // 1_000_000 + OVERLAP_MS  # None: it was warned of them

    def publish(self, event: Event) -> None:
        if self._may_be_alone:
            self._warn_if_alone()
        self._waiting.append(event)
        self._publish_waiting()

    def publish_deltas(self, event: Event) -> None:
        deliver_to_hubs(event)

    def _publish_waiting(self) -> None:
        while self._waiting:  # checked again at the end: an interruption may have queued one
            with self._lock:
                if self._is_publishing:
                    return  # this thread, interrupted by a signal handler or a finalizer: the loop below goes on
                self._is_publishing = True
                try:
                    while self._waiting:
                        self._publish_first()
                finally:
                    self._is_publishing = False

    def _publish_first(self) -> None:
        event = self._waiting.popleft()
        event.stamp(self._log.epoch, next_position(self._log.head, time.time_ns() // 1_000_000))
        if event.is_control:  # existing hubs obey it; later ones need not
            self._log.skip_to(event.position)
            if event.type in ENDS:
                self._revocations.revoke(event.position, event.data)
        else:
            self._log.append(event)
            self._log.evict()
        self._position = event.id
        deliver_to_hubs(event)

    def _warn_if_alone(self) -> None:
        """Warn in a process that can have no streams: it has never loaded Django's ASGI support, so it is a management
        command, a Celery worker or a WSGI server. Other processes may be workers before their first stream."""
        if is_test_run():
            return
        self._may_be_alone = False
        if not open_hubs() and "django.core.asgi" not in sys.modules:
            logger.warning(
                "An SSE broadcast was made in a process that serves no streams: with the memory backend nobody hears "
                "it. To reach the workers that do, %s",
                BUSES,
            )

    def _hear_foreign_id(self, position: int) -> None:
        """Warn of another process that sends events to the same pages. An id of a process before this one is older."""
        if self._others_since_ms is None or position_milliseconds(position) < self._others_since_ms:
            return
        self._others_since_ms = None
        logger.warning(
            "A page has events of another process of this site. With the memory backend each process has events of its "
            "own, and a page hears those of one process alone. Run one worker, or %s",
            BUSES,
        )

    def attach(self, hub: Hub) -> None:
        with self._lock:
            self._is_publishing = True  # events of an interruption wait: they must not change what is copied here
            try:
                hub.log, hub.revocations = self._log.copy(), self._revocations.copy()
                hub.set_clock(1000 * time.time())
                hub.hear_foreign_id = self._hear_foreign_id
                add_hub(hub)
            finally:
                self._is_publishing = False
        self._publish_waiting()

    async def has_reached(self, hub: Hub, position: int) -> bool:
        return position <= self._log.head

    def position(self) -> str:
        return self._position

    def known_position(self) -> str:
        return self.position()
