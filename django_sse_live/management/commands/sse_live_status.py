"""``manage.py sse_live_status``: ask every worker over the bus how it is."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...backends import get_backend, running_hub
from ...workers import REPORTED_STREAMS_MAX, Report, totals, worker_of
from ..arguments import seconds


class Command(BaseCommand):
    help = "Asks every worker how many streams it serves, and how it is. Needs a backend that reaches other processes."
    requires_system_checks: list[str] = ["sse_live"]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Everything that the workers report, as JSON.")
        parser.add_argument(
            "--streams",
            nargs="?",
            const="",
            metavar="FILTER",
            help=f"List streams too, up to {REPORTED_STREAMS_MAX} of each worker: any, or those that match (user:42).",
        )
        parser.add_argument("--seconds", type=seconds, default=1.0, help="How long to wait for answers (default: 1).")

    def handle(self, *args: Any, **options: Any) -> None:
        backend = get_backend()
        if not backend.carries_reports:
            bus = f"{type(backend).__name__}{' on SQLite' if backend.reaches_other_processes else ''}"
            raise CommandError(
                f"{bus} carries no reports to other processes: nobody would hear the question. Ask the worker "
                'itself, at its status url (sse_live:status), or set another SSE_LIVE["BACKEND"].'
            )
        try:
            reports = asyncio.run(_ask(options["streams"], options["seconds"]))
        finally:
            backend.close()
        if reports is None:
            raise CommandError("The bus cannot be reached.")
        if options["json"]:
            self.stdout.write(json.dumps({"total": totals(reports), "workers": reports}, indent=2))
            return
        for line in _table(reports):
            self.stdout.write(line)
        for report in reports:
            for stream in report["matches"]:
                self.stdout.write(_stream_line(report, stream))


async def _ask(streams: str | None, seconds: float) -> list[Report] | None:
    hub = running_hub()
    worker = worker_of(hub)
    worker.answers = False  # this process serves nobody
    await hub.filled()
    if not hub.is_ready:
        return None
    return await worker.gather(streams or "", 0 if streams is None else REPORTED_STREAMS_MAX, seconds=seconds)


def _table(reports: list[Report]) -> list[str]:
    row = "{:<10} {:<24} {:>7} {:<9} {:>8} {:>8} {:>12} {:>10} {:>8} {:>6}".format
    lines = [row("WORKER", "HOST", "PID", "STATE", "UP", "STREAMS", "DELIVERED", "BYTES", "REFUSED", "BUS")]
    for report in reports:
        lines.append(
            row(
                report["id"],
                report["host"][:24],
                report["pid"],
                report["state"],
                _age(report["started_at"]),
                report["streams"],
                report["delivered"],
                _size(report["bytes"]),
                sum(report["refused"].values()),
                "up" if report["bus"]["is_available"] else "down",
            )
        )
    total = totals(reports)
    sums = (total["streams"], total["delivered"], _size(total["bytes"]), sum(total["refused"].values()))
    lines.append(row(f"{len(reports)} in all", "", "", "", "", *sums, ""))
    return lines


def _stream_line(report: Report, stream: dict[str, Any]) -> str:
    user = f"user {stream['user']}" if stream["user"] is not None else "anonymous"
    whose = f"{stream['namespace']}: " if stream.get("namespace") else ""
    more = f" and {stream['more_channels']} more" if stream["more_channels"] else ""
    lag = f", {stream['lag']} behind" if stream["lag"] else ""
    return (
        f"{report['id']} {stream['id']} {user} {stream['address']} since {_age(stream['connected_at'])}, "
        f"{stream['events']} events, {_size(stream['bytes'])}{lag}: "
        f"{whose}{', '.join(stream['channels'])}{more}"
    )


def _age(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.0f} TiB"
