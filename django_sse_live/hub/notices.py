"""Notices: the log lines of a hub about its clients and broadcasts. A record has the values of its line as attributes.
The rate of each kind is limited, so that ten thousand returning clients do not write ten thousand lines.

Touched on the hub's loop alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..conf import live_settings
from ..events import Event
from .client_info import ClientInfo

logger: logging.Logger = logging.getLogger("django_sse_live")

WINDOW_SECONDS: Final = 1.0


class Subject(Protocol):
    """What a line says about a client."""

    events_sent: int
    bytes_sent: int

    @property
    def info(self) -> ClientInfo: ...

    @property
    def close_reason(self) -> str | None: ...


@dataclass(slots=True)
class _Kind:
    what: str  # named in the line that sums up the omitted ones
    level: int = logging.INFO
    since: float = 0.0  # loop time
    written: int = 0
    held_back: int = 0


class Notices:
    __slots__ = ("_loop", "_clients", "_connected", "_disconnected", "_broadcast", "_failed", "_cut_off", "_unread")

    def __init__(self, loop: asyncio.AbstractEventLoop, clients: Sized) -> None:
        self._loop = loop
        self._clients = clients
        self._connected = _Kind("SSE clients connected")
        self._disconnected = _Kind("SSE clients disconnected")
        self._broadcast = _Kind("SSE broadcasts")
        self._failed = _Kind("streams of SSE clients failed", logging.ERROR)
        self._cut_off = _Kind("SSE clients that do not read")
        self._unread = _Kind("SSE clients whose missed events were not read")

    def connected(self, client: Subject) -> None:
        if self._may_write(self._connected):
            extra = _of(client.info)
            logger.info("SSE client connected (ID: %s). Total clients: %d", client.info.id, self._total, extra=extra)

    def disconnected(self, client: Subject) -> None:
        if self._may_write(self._disconnected):
            extra = {
                **_of(client.info),
                "reason": client.close_reason,
                "events_sent": client.events_sent,
                "bytes_sent": client.bytes_sent,
            }
            logger.info("SSE client disconnected (ID: %s). Total clients: %d", client.info.id, self._total, extra=extra)

    def broadcast(self, event: Event, count: int) -> None:
        if self._may_write(self._broadcast):
            extra = {"event_id": event.id, "event_type": event.type, "channels": event.names, "client_count": count}
            if event.namespace:
                extra["namespace"] = event.namespace
            logger.info("Broadcasted to %d SSE clients: %s", count, event.type, extra=extra)

    def failed(self, client: Subject) -> None:
        """Log the exception being handled, which has ended only this stream."""
        if self._may_write(self._failed):
            logger.exception("The stream of SSE client %s failed.", client.info.id, extra=_of(client.info))

    def cut_off(self, client: Subject) -> None:
        if self._may_write(self._cut_off):
            message = "SSE client %s has not read for %g s: its stream ends here."
            extra = {**_of(client.info), "reason": "send_timeout"}
            logger.info(message, client.info.id, live_settings().send_timeout_seconds, extra=extra)

    def unread(self, client: Subject, seconds: float) -> None:
        """The bus has not told in time what the client has missed."""
        if self._may_write(self._unread):
            message = "What SSE client %s missed was not read in %g s."
            logger.info(message, client.info.id, seconds, extra=_of(client.info))

    @property
    def _total(self) -> int:
        return len(self._clients)

    def _may_write(self, kind: _Kind) -> bool:
        if not logger.isEnabledFor(kind.level):
            return False
        now = self._loop.time()
        if now - kind.since >= WINDOW_SECONDS:
            kind.since, kind.written = now, 0
        kind.written += 1
        limit = live_settings().log_lines_per_second
        if limit is None or kind.written <= limit:
            return True
        kind.held_back += 1
        if kind.held_back == 1:
            self._loop.call_at(kind.since + WINDOW_SECONDS, self._sum_up, kind)
        return False

    def _sum_up(self, kind: _Kind) -> None:
        count, kind.held_back = kind.held_back, 0
        message = "%d more %s within a second. Total clients: %d"
        logger.log(kind.level, message, count, kind.what, self._total, extra={"held_back": count})


def _of(info: ClientInfo) -> dict[str, Any]:
    extra = {"client_id": info.id, "user_pk": info.user_pk, "address": info.address, "channels": info.names}
    if info.namespace:
        extra["namespace"] = info.namespace
    return extra
