"""What the workers tell each other of themselves, over the bus: somebody asks, and every hub reports.

A report is made when it is asked for, and at no other time. What the admin's page hears are these reports.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from heapq import nlargest
from typing import Any, Final

from .backends import get_backend
from .events import CONTROL_CHANNEL, NOW_PREFIX, RESERVED_PREFIX, Event, position_milliseconds
from .hub.clients import Client
from .hub.hub import Hub, hub_opened
from .hub.registry import process_counts

ASK: Final = NOW_PREFIX + "ask"
REPORT: Final = NOW_PREFIX + "report"
WATCH_CHANNEL: Final = RESERVED_PREFIX + "live"  # hears every report; behind a colon, a filter may follow

ASK_SECONDS: Final = 2.0  # as long as somebody watches
ANSWER_SECONDS: Final = 0.5  # how long gather() waits, where it cannot know how many will answer
REPORTED_STREAMS: Final = 100  # of each worker
REPORTED_CHANNELS: Final = 5  # of each stream
FILTER_MAX_LENGTH: Final = 100

Report = dict[str, Any]


class Worker:
    """Lives on a hub's loop: asks, answers, and hands on what the others answer."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.answers = True  # False for one that only looks
        self.started_at: float = time.time()
        self._asked_at: dict[str, float] = {}  # filter → loop time, whoever asked
        self._timer: asyncio.TimerHandle | None = None  # while somebody watches
        self._listeners: list[Callable[[Report], None]] = []
        hub.residents[Worker] = self
        hub.handlers[ASK] = self._was_asked
        hub.handlers[REPORT] = self._hear

    # Who watches

    def watch(self) -> None:
        """A client of a WATCH_CHANNEL is about to open."""
        if self._timer is None:
            self._timer = self.hub.loop.call_later(0, self._look, 1)

    def _look(self, idle: int) -> None:
        """``idle``: how often nobody was found. A stream that opens is not there at the first look."""
        now = self.hub.loop.time()
        filters = [name[len(WATCH_CHANNEL) + 1 :] for name in self.hub.fan_out.channels(WATCH_CHANNEL)]
        self._asked_at = {text: at for text, at in self._asked_at.items() if now - at < ASK_SECONDS}
        for text in filters:
            if now - self._asked_at.get(text, 0.0) > ASK_SECONDS * 0.9:  # not if another worker just has
                self.ask(text, REPORTED_STREAMS)
        idle = 0 if filters else idle + 1
        self._timer = None if idle > 3 else self.hub.loop.call_later(0.1 if idle else ASK_SECONDS, self._look, idle)

    # Questions and answers

    def ask(self, text: str = "", limit: int = 0) -> None:
        """Have every worker report the streams that match a filter, at most ``limit`` of them."""
        question = {"filter": text[:FILTER_MAX_LENGTH], "limit": limit}
        if get_backend().is_available:
            self._publish(ASK, question)
        else:  # nobody else would hear it, and nothing is to pile up in the bus's buffer
            self._was_asked(question)

    def _was_asked(self, question: dict[str, Any]) -> None:
        self._asked_at[question["filter"]] = self.hub.loop.time()
        if self.answers:
            report = self.report(question["filter"], min(question["limit"], REPORTED_STREAMS))
            if get_backend().is_available:
                self._publish(REPORT, report)
            else:
                self._hear(report)

    def _publish(self, type: str, payload: Any) -> None:
        event = Event((CONTROL_CHANNEL,), type, json.dumps(payload, separators=(",", ":")))
        self.hub.spawn(get_backend().apublish(event))

    def _hear(self, report: Report) -> None:
        text = report["filter"]
        self.hub.tell(f"{WATCH_CHANNEL}:{text}" if text else WATCH_CHANNEL, "worker", json.dumps(report))
        for listener in list(self._listeners):
            listener(report)

    async def gather(self, text: str = "", limit: int = 0, *, seconds: float = ANSWER_SECONDS) -> list[Report]:
        """Ask, and wait for the answers; oldest worker first. Where the bus reaches other processes, that takes
        ``seconds``."""
        reports: dict[str, Report] = {}
        heard = asyncio.Event()

        def listen(report: Report) -> None:
            if report["filter"] == text and report["limit"] == limit:
                reports[report["id"]] = report
                heard.set()

        self._listeners.append(listen)
        try:
            self.ask(text, limit)
            if get_backend().reaches_other_processes and get_backend().is_available:
                await asyncio.sleep(seconds)
            else:
                await asyncio.wait_for(heard.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            self._listeners.remove(listen)
        return sorted(reports.values(), key=lambda report: report["started_at"])

    # The report

    def report(self, text: str = "", limit: int = 0) -> Report:
        """JSON-able. Times are seconds since 1970; what was counted, was counted since the process started."""
        hub, backend, counts = self.hub, get_backend(), process_counts()
        matching = [client for client in hub.clients if matches(client, text)] if text else list(hub.clients)
        now = hub.loop.time()

        def interest(client: Client) -> tuple[float, float]:
            return now - client.sending_since if client.sending_since else 0.0, client.connected_at

        return {
            "id": hub.id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": round(self.started_at, 3),
            "at": round(time.time(), 3),
            "state": "stopping" if hub.is_closing else "ready" if hub.is_ready else "starting",
            "streams": len(hub.clients),
            "lagging": hub.lagging,
            "opened": counts.opened,
            "closed": dict(counts.closed),
            "refused": dict(counts.refused),
            "published": counts.published,
            "received": counts.received,
            "delivered": counts.delivered,
            "replayed": counts.replayed,
            "resets": dict(counts.resets),
            "heartbeats": counts.heartbeats,
            "bytes": counts.bytes,
            "log": {"events": len(hub.log), "bytes": hub.log.bytes},
            "bus": {
                "backend": type(backend).__name__,
                "is_available": backend.is_available,
                "outages": backend.outages,
                "buffered": backend.buffered,
                "dropped": backend.dropped,
            },
            "filter": text,
            "limit": limit,
            "matching": len(matching),
            "matches": [self._stream(client, now) for client in nlargest(limit, matching, key=interest)],
        }

    def _stream(self, client: Client, now: float) -> dict[str, Any]:
        log = self.hub.log
        last = log.newest(client.channels, client.cursor) if client.events_sent else None
        return {
            "id": client.id,
            "user": client.user_pk,
            "address": client.address,
            "agent": client.user_agent,
            "connected_at": round(client.connected_at, 3),
            "channels": list(client.channels[:REPORTED_CHANNELS]),
            "more_channels": max(0, len(client.channels) - REPORTED_CHANNELS),
            "lag": log.count(client.channels, client.cursor) if client.cursor < log.head else 0,
            "sending_seconds": round(now - client.sending_since, 1) if client.sending_since else 0,
            "last": None if last is None else {"type": last.type, "at": position_milliseconds(last.position) / 1000},
            "events": client.events_sent,
            "bytes": client.bytes_sent,
        }


def matches(client: Client, text: str) -> bool:
    """Every word of the filter is found in its id, address, browser or channels; ``user:42`` is that user exactly."""
    channels = [channel for channel in client.channels if not channel.startswith(WATCH_CHANNEL)]  # they name filters
    where = " ".join([client.id, client.address, client.user_agent, *channels]).casefold()
    return all(
        client.user_pk == word[5:] if word.startswith("user:") else word in where for word in text.casefold().split()
    )


def totals(reports: list[Report]) -> dict[str, Any]:
    """What all of the reporting workers did, together."""
    sums = ("streams", "lagging", "opened", "published", "received", "delivered", "replayed", "heartbeats", "bytes")
    total: dict[str, Any] = {name: sum(report[name] for report in reports) for name in sums}
    for name in ("closed", "refused", "resets"):
        reasons = sorted({reason for report in reports for reason in report[name]})
        total[name] = {reason: sum(report[name].get(reason, 0) for report in reports) for reason in reasons}
    return total


def worker_of(hub: Hub) -> Worker:
    worker: Worker = hub.residents[Worker]
    return worker


def _move_in(*, hub: Hub, **_: Any) -> None:
    Worker(hub)


def connect() -> None:
    """Called once, when the app is ready."""
    hub_opened.connect(_move_in, dispatch_uid="django_sse_live.workers")
