"""Every row, with the servers it is about and the load of its short form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.live.faults import breaks, openings, proxied, recycling, silence, stops
from tests.live.faults.report import Row
from tests.live.harness import ALL, FOUR


@dataclass(slots=True)
class Spec:
    run: Callable[..., Awaitable[Row]]
    servers: tuple[str, ...]
    short: dict[str, Any] = field(default_factory=dict)
    short_servers: tuple[str, ...] = ()  # where CI has no time for all of them


ROWS = {
    "half-open": Spec(silence.half_open, FOUR, {"clients": 20, "heartbeat": 0.5, "timeout": 0.5}),
    "rst": Spec(breaks.rst, FOUR, {"clients": 100, "seconds": 1}),
    "leak": Spec(breaks.leak, FOUR, {"cycles": 800}, ("daphne",)),
    "stuck": Spec(
        breaks.stuck_readers,
        FOUR,
        {"clients": 20, "stuck": 4, "rate": 100, "size": 65536, "seconds": 2, "timeout": 2},
    ),
    "kill": Spec(stops.kill, FOUR, {"clients": 150, "down_seconds": 2}, ("uvicorn",)),
    "nginx-reload": Spec(proxied.nginx_reload, ("uvicorn",), {"clients": 20, "reloads": 2, "pause": 1}),
    "nginx-timeout": Spec(proxied.nginx_timeout, ("uvicorn",), {"clients": 20, "timeout": 1, "seconds": 6}),
    "recycle": Spec(
        recycling.recycle, tuple(recycling.OPTIONS), {"clients": 5}, ("uvicorn", "uvicorn-2", "gunicorn", "hypercorn")
    ),
    "places": Spec(openings.places, FOUR, {}, ("uvicorn", "hypercorn")),
    "unread": Spec(openings.unread_replays, ("daphne",), {"clients": 40, "seconds": 3}),
    "sigterm": Spec(stops.sigterm, ALL, {"clients": 60, "stuck": 5}),
}
