"""What is written to jobs, on its way through Redis: over a connection of its own, which may be closed or away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from django_sse_live.backends.redis.server import RedisServer
from django_sse_live.events import CONTROL_CHANNEL, Event
from django_sse_live.jobs.records import DELTAS
from tests.backends.redis_process import RedisProcess
from tests.backends.test_redis_details import Make, hub_of, make, server, stream
from tests.live.harness import until

__all__ = ["make", "server", "stream"]  # fixtures

pytestmark = pytest.mark.needs("redis")


def delta(number: int) -> Event:
    return Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": [number]}))


async def test_a_connection_that_was_closed_meanwhile_loses_no_delta(make: Make, server: Any) -> None:
    backend = make()
    hub = await hub_of(backend)
    heard: list[int] = []
    hub.handlers[DELTAS] = lambda said: heard.extend(said["jobs"])
    for number in range(3):
        await asyncio.to_thread(backend.publish_deltas, delta(number))
        server.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: heard == [0, 1, 2])


async def test_a_redis_that_is_away_is_not_asked_for_each_delta(
    make: Make, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    connect = RedisServer.connect

    def counted(self: RedisServer, answer_seconds: float) -> Any:
        asked.append(answer_seconds)
        return connect(self, answer_seconds)

    monkeypatch.setattr("django_sse_live.backends.redis.deltas.RETRY_SECONDS", 60.0)
    with RedisProcess() as redis:
        backend = make(URL=redis.url)
        redis.kill()
        monkeypatch.setattr(RedisServer, "connect", counted)
        for number in range(5):
            await asyncio.to_thread(backend.publish_deltas, delta(number))
    assert len(asked) == 1
