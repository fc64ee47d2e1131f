"""Workers of one site, whose sessions are in a database that they share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.redis_process import RedisProcess
from tests.live.harness import Server


@pytest.fixture
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as redis:
        yield redis


async def cookie_of_a_new_session(server: Server, name: str = "ada") -> dict[str, str]:
    _, headers, body = await server.request("GET", f"/enter/?name={name}")
    assert body == b"in"
    return {"Cookie": next(line.split(";")[0] for line in headers["set-cookie"].split("\n") if "sessionid" in line)}
