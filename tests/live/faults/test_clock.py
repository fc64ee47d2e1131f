"""The wall clock is wrong, and is set right: nothing that is measured here is measured by it."""

from __future__ import annotations

from tests.live.conftest import StartServer
from tests.live.harness import Crowd, until


async def test_a_wall_clock_that_jumps_changes_nothing(start_server: StartServer) -> None:
    server = await start_server(
        "uvicorn", app="tests.live.project.skewed_asgi:application", HEARTBEAT_SECONDS=0.5, MAX_AGE_SECONDS=3600
    )
    crowd = await Crowd.open(server, 5)
    number = 1
    places = []
    for jump in (0, -3600, 7200, -86400 * 365, 86400 * 365 * 2):
        await server.get(f"/jump/?{jump}")
        await server.get(f"/publish/?from={number}&count=3")
        number += 3
        await crowd.all(lambda client, number=number: len(client.numbers) == number - 1)
        heartbeats = [client.heartbeats for client in crowd]
        await until(lambda heartbeats=heartbeats: all(c.heartbeats > n for c, n in zip(crowd, heartbeats, strict=True)))
        places.append((number, crowd[0].last_id))
    assert crowd.faults(1, number - 1) == []
    assert not crowd.count(lambda client: client.is_gone)
    for first, last_id in places[:-1]:  # whoever left before a jump resumes after it
        late = await Crowd.open(server, 2, headers={"Last-Event-ID": last_id})
        await late.all(lambda client: client.numbers[-1:].tolist() == [number - 1])
        assert late.faults(first, number - 1) == []
        assert not late.count(lambda client: client.resets)
        late.close()
    assert server.noise() == []
