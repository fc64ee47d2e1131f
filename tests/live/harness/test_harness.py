"""The harness itself: what it counts is what was sent."""

from __future__ import annotations

import pytest

from tests.live.harness import FOUR, Crowd, until


@pytest.mark.parametrize("name", FOUR)
async def test_every_server_starts_streams_and_is_quiet(start_server, name):
    server = await start_server(name)
    crowd = await Crowd.open(server, 10, keep=True)
    await server.get("/publish/?count=5")
    await crowd.all(lambda client: len(client.numbers) == 5)
    assert crowd.faults(1, 5) == []
    assert crowd[0].status == 200 and crowd[0].headers["content-type"] == "text/event-stream"
    crowd.close()
    await until(server_is_empty(server))
    assert server.noise() == []
    assert server.count("SSE client connected") == server.count("SSE client disconnected") == 10


def server_is_empty(server):
    async def is_empty():
        return (await server.state())["clients"] == 0

    return is_empty
