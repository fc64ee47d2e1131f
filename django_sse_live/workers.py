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
from .conf import live_settings
from .events import NOW_PREFIX, RESERVED_PREFIX, control_event, position_milliseconds
from .hub.clients import Client
from .hub.counts import BY_REASON, SUMS
from .hub.hub import Hub, hub_opened
from .hub.registry import process_counts
from .identity import namespace_of, plain_name, scope_name
from .jobs.watching import Watching

ASK: Final = NOW_PREFIX + "ask"
REPORT: Final = NOW_PREFIX + "report"
WATCH_CHANNEL: Final = RESERVED_PREFIX + "live"  # hears every report; behind a colon, a filter may follow

ASK_SECONDS: Final = 2.0  # as long as somebody watches
ANSWER_SECONDS: Final = 0.5  # how long gather() waits, where it cannot know how many will answer
REPORTED_STREAMS_MAX: Final = 100  # of each worker
REPORTED_CHANNELS_MAX: Final = 5  # of each stream
REPORTED_JOBS_MAX: Final = 100
REPORT_SLICE_CLIENTS: Final = 250  # clients looked at before the loop may do something else: 1 ms with a filter
FILTER_MAX_LENGTH: Final = 100

Report = dict[str, Any]


class Worker:
    """Lives on a hub's loop: asks, answers, and hands on what the others answer."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.answers = True  # False for one that only looks
        self.started_at: float = time.time()
        # (filter, namespace) → loop time, on whichever worker it was asked
        self._asked_at: dict[tuple[str, str | None], float] = {}
        self._timer: asyncio.TimerHandle | None = None  # while somebody watches
        self._listeners: list[Callable[[Report], None]] = []
        hub.parts[Worker] = self
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
        watched = [
            (plain_name(name)[len(WATCH_CHANNEL) + 1 :], _watched_namespace(name))
            for name in self.hub.fan_out.channels(WATCH_CHANNEL)
        ]
        self._forget_old_questions()
        for text, namespace in watched:
            # Not if another worker just has.
            if now - self._asked_at.get((text, namespace), 0.0) > ASK_SECONDS * 0.9:
                self.ask(text, REPORTED_STREAMS_MAX, namespace=namespace)
        idle = 0 if watched else idle + 1
        self._timer = None if idle > 3 else self.hub.loop.call_later(0.1 if idle else ASK_SECONDS, self._look, idle)

    # Questions and answers

    def ask(self, text: str = "", limit: int = 0, *, namespace: str | None = None) -> None:
        """Have every worker report the streams that match a filter, at most ``limit`` of them; with ``namespace``,
        those of that namespace alone."""
        question: dict[str, Any] = {"filter": text[:FILTER_MAX_LENGTH], "limit": limit}
        if namespace is not None:
            question["namespace"] = namespace
        if get_backend().is_available:
            self._publish(ASK, question)
        else:  # nobody else would hear it, and nothing is to pile up in the bus's buffer
            self._was_asked(question)

    def _was_asked(self, question: dict[str, Any]) -> None:
        text, namespace = question["filter"], question.get("namespace")
        self._forget_old_questions()
        self._asked_at[text, namespace] = self.hub.loop.time()
        if self.answers:
            self.hub.spawn(self._answer(text, min(question["limit"], REPORTED_STREAMS_MAX), namespace))

    def _forget_old_questions(self) -> None:
        now = self.hub.loop.time()
        self._asked_at = {asked: at for asked, at in self._asked_at.items() if now - at < ASK_SECONDS}

    async def _answer(self, text: str, limit: int, namespace: str | None) -> None:
        report = await self.report(text, limit, namespace=namespace)
        if get_backend().is_available:
            self._publish(REPORT, report)
        else:
            self._hear(report)

    def _publish(self, type: str, payload: Any) -> None:
        self.hub.spawn(get_backend().apublish(control_event(type, payload)))

    def _hear(self, report: Report) -> None:
        text, namespace = report["filter"], report.get("namespace")
        # Where NAMESPACE is set, what concerns every namespace is for the status command alone.
        if (namespace is None) == (live_settings().namespace is None):
            name = f"{WATCH_CHANNEL}:{text}" if text else WATCH_CHANNEL
            self.hub.tell(scope_name(namespace or "", name), "worker", json.dumps(report))
        for listener in list(self._listeners):
            listener(report)

    async def gather(self, text: str = "", limit: int = 0, *, seconds: float = ANSWER_SECONDS) -> list[Report]:
        """Ask, and wait for the answers; oldest worker first. Where the bus reaches other processes, that takes
        ``seconds``."""
        text = text[:FILTER_MAX_LENGTH]
        reports: dict[str, Report] = {}
        heard = asyncio.Event()

        def listen(report: Report) -> None:
            if (report["filter"], report["limit"], report.get("namespace")) == (text, limit, None):
                reports[report["id"]] = report
                heard.set()

        self._listeners.append(listen)
        try:
            self.ask(text, limit)
            if get_backend().carries_reports and get_backend().is_available:
                await asyncio.sleep(seconds)
            else:
                await asyncio.wait_for(heard.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            self._listeners.remove(listen)
        return sorted(reports.values(), key=lambda report: report["started_at"])

    # The report

    async def report(self, text: str = "", limit: int = 0, *, namespace: str | None = None) -> Report:
        """JSON-able. Times are seconds since 1970; what was counted, was counted since the process started. With
        ``namespace``, streams are those of that namespace; what was counted is the worker's, of all namespaces.

        A slice of the clients at a time, so that the loop is not held."""
        hub, backend, counts = self.hub, get_backend(), process_counts()
        now = hub.loop.time()
        streams = matching = 0
        shown: list[Client] = []

        def interest(client: Client) -> tuple[float, float]:
            return now - client.sending_since if client.sending_since else 0.0, client.connected_at

        words = text.casefold().split()
        clients = list(hub.clients)
        for first in range(0, len(clients), REPORT_SLICE_CLIENTS):
            if first:
                await asyncio.sleep(0)
            some = [
                client
                for client in clients[first : first + REPORT_SLICE_CLIENTS]
                if namespace is None or client.namespace == namespace
            ]
            found = [client for client in some if matches(client, words)] if words else some
            streams, matching = streams + len(some), matching + len(found)
            if limit:
                shown = nlargest(limit, [*shown, *found], key=interest)
        await asyncio.sleep(0)
        watching: Watching | None = hub.parts.get(Watching)
        jobs = [] if watching is None or not limit else watching.running(namespace, limit=REPORTED_JOBS_MAX)
        return {
            "id": hub.id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": round(self.started_at, 3),
            "at": round(time.time(), 3),
            "state": "stopping" if hub.is_closing else "ready" if hub.is_ready else "starting",
            "streams": streams,
            "lagging": hub.lagging,
            **{name: getattr(counts, name) for name in SUMS},
            **{name: dict(getattr(counts, name)) for name in BY_REASON},
            "log": {"events": len(hub.log), "bytes": hub.log.bytes},
            "bus": {
                "backend": type(backend).__name__,
                "is_shared": backend.reaches_other_processes,
                "is_available": backend.is_available,
                "outages": backend.outages,
                "buffered": backend.buffered,
                "dropped": backend.dropped,
                "unreadable": backend.unreadable,
            },
            **({} if namespace is None else {"namespace": namespace}),
            "jobs": jobs,
            "filter": text,
            "limit": limit,
            "matching": matching,
            "matches": [self._stream(client, now) for client in shown if client.is_open],
        }

    def _stream(self, client: Client, now: float) -> dict[str, Any]:
        log = self.hub.log
        last = log.newest(client.channels, client.cursor) if client.events_sent else None
        return {
            "id": client.id,
            "user": client.user_pk,
            "address": client.address,
            "agent": client.user_agent,
            "carrier": _carrier(client),
            "connected_at": round(client.connected_at, 3),
            **({"namespace": client.namespace} if client.namespace else {}),
            "channels": list(client.names[:REPORTED_CHANNELS_MAX]),
            "more_channels": max(0, len(client.channels) - REPORTED_CHANNELS_MAX),
            "lag": log.count(client.channels, client.cursor) if client.cursor < log.head else 0,
            "sending_seconds": round(now - client.sending_since, 1) if client.sending_since else 0,
            "last": None if last is None else {"type": last.type, "at": position_milliseconds(last.position) / 1000},
            "events": client.events_sent,
            "bytes": client.bytes_sent,
        }


def _carrier(client: Client) -> str:
    return "WebSocket" if client.form == "lines" else "SSE"


def matches(client: Client, words: list[str]) -> bool:
    """Every word, casefolded, is found in its id, address, browser, carrier or channels; ``user:42`` is exactly that
    user."""
    channels = [channel for channel in client.names if not channel.startswith(WATCH_CHANNEL)]  # they name filters
    where = " ".join([client.id, client.address, client.user_agent, _carrier(client), *channels]).casefold()
    return all(client.user_pk == word[5:] if word.startswith("user:") else word in where for word in words)


def totals(reports: list[Report]) -> dict[str, Any]:
    """What all of the reporting workers did, together."""
    # A worker of an older version reports less.
    total: dict[str, Any] = {
        name: sum(report.get(name, 0) for report in reports) for name in ("streams", "lagging", *SUMS)
    }
    for name in BY_REASON:
        reasons = sorted({reason for report in reports for reason in report.get(name, ())})
        total[name] = {reason: sum(report.get(name, {}).get(reason, 0) for report in reports) for reason in reasons}
    return total


def _watched_namespace(channel: str) -> str | None:
    """The namespace whose streams a client of this channel watches; None, and all streams, without namespaces."""
    return None if live_settings().namespace is None else namespace_of(channel)


def worker_of(hub: Hub) -> Worker:
    worker: Worker = hub.parts[Worker]
    return worker


def _add_to_hub(*, hub: Hub, **_: Any) -> None:
    Worker(hub)


def connect() -> None:
    """Called once, when the app is ready."""
    hub_opened.connect(_add_to_hub, dispatch_uid="django_sse_live.workers")
