"""What happens to a session on one worker, told to its streams on another."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.backends.redis_process import RedisProcess
from tests.live.access.conftest import cookie_of_a_new_session
from tests.live.harness import Crowd, Server

pytestmark = pytest.mark.needs("redis")


@pytest.fixture
async def two(redis: RedisProcess, environment: dict[str, str], start_server: Any) -> list[Server]:
    options = {
        "environment": environment,
        "BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend",
        "OPTIONS": {"URL": redis.url},
        "PUBLIC_CHANNELS": [],
        "AUTHORIZE": None,
    }
    return [await start_server("uvicorn", **options) for _ in range(2)]


async def test_logout_ends_the_streams_of_that_session_on_another_worker_at_once(two: list[Server]) -> None:
    here, there = two
    ending, living = await cookie_of_a_new_session(here), await cookie_of_a_new_session(here)
    ended = await Crowd.open(there, 5, "/events/", headers=ending, keep=True)
    lives = await Crowd.open(there, 5, "/events/", headers=living)
    began = time.monotonic()
    assert await here.get("/leave/", **ending) == "out"
    await ended.all(lambda client: client.is_ended)
    seconds = time.monotonic() - began
    print(f"logout on one worker, streams ended on another: {seconds * 1000:.0f} ms")
    assert all('"reason":"revoked"' in client.body for client in ended)
    # It cannot slip back in; the user's other session goes on.
    status, headers, _ = await there.request("GET", "/events/", headers={**ending, "Accept": "text/event-stream"})
    assert (status, headers["sse-live-error"]) == (400, "no_channel")
    assert all(client.is_open for client in lives)
    assert (await there.state())["clients"] == 5


async def test_a_changed_password_ends_them_all(two: list[Server]) -> None:
    here, there = two
    cookies = [await cookie_of_a_new_session(here) for _ in range(2)]
    crowds = [await Crowd.open(there, 2, "/events/", headers=cookie) for cookie in cookies]
    await here.get("/password/")
    for crowd in crowds:
        await crowd.all(lambda client: client.is_ended)
