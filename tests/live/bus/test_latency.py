"""The short form of `python -m tests.live.bus.latency`, which prints the figures beside those of the peers."""

from __future__ import annotations

import sys

import pytest

from tests.backends.redis_process import RedisProcess
from tests.live.bus.latency import measure

CLIENTS, EVENTS = 20, 20


@pytest.mark.needs("redis")
@pytest.mark.parametrize("site", ["ours", "channels"])
async def test_every_event_is_timed_at_every_client(site: str) -> None:
    with RedisProcess() as redis:
        delays, missing = await measure(site, sys.executable, redis, CLIENTS, EVENTS)
    assert missing == 0 and len(delays) == CLIENTS * EVENTS
    assert all(delay > 0 for delay in delays)
