"""The stream over real sockets, with live_application and without: the wire, what it holds, what it loses (nothing)."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import Crowd, Server, until
from tests.live.harness.servers import ROOT

PLAIN = {"app": "tests.live.project.asgi:django_application"}
WAYS = [
    pytest.param("daphne", {}, id="daphne"),
    pytest.param("daphne", PLAIN, id="daphne-plain"),
    pytest.param("uvicorn", {}, id="uvicorn"),
    pytest.param("uvicorn", PLAIN, id="uvicorn-plain"),
]


async def until_empty(server: Server) -> None:
    async def is_empty() -> bool:
        return (await server.state())["clients"] == 0

    await until(is_empty)


@pytest.mark.needs("curl")
@pytest.mark.parametrize(("name", "options"), WAYS)
async def test_the_wire_as_curl_shows_it(start_server: StartServer, name: str, options: dict[str, str]) -> None:
    server = await start_server(name, HEARTBEAT_SECONDS=0.5, **options)
    url = f"{server.url}/events/?channel=comments"
    command = ["curl", "-siN", "-H", "Accept: text/event-stream", url]
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert curl.stdout is not None
    head = (await curl.stdout.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
    body = ""
    await server.get("/publish/?channel=comments&count=2")
    while '"type":"heartbeat"' not in body or '"n":2' not in body:
        body += (await asyncio.wait_for(curl.stdout.readline(), 20)).decode()
    curl.terminate()
    await curl.wait()
    assert head[0].startswith("http/1.1 200")
    for line in (
        "content-type: text/event-stream",
        "cache-control: no-cache, no-store, must-revalidate, no-transform",
        "connection: keep-alive",
        "x-accel-buffering: no",
        "keep-alive: timeout=30, max=100",
    ):
        assert line in head
    assert not [line for line in head if line.startswith(("content-encoding", "content-length"))]
    id_ = "[0-9a-z]+:[0-9]+-[0-9]+"
    assert re.match(rf'retry: 2000\nid: {id_}\nevent: connected\ndata: {{"type":"connected","client_id":"\w+",', body)
    assert len(re.findall(rf'^id: {id_}\nevent: tick\ndata: {{"n":[12],', body, re.MULTILINE)) == 2
    assert re.search(rf'^id: {id_}\nevent: heartbeat\ndata: {{"type":"heartbeat","timestamp":"', body, re.MULTILINE)


@pytest.mark.parametrize(("name", "options"), WAYS)
async def test_a_burst_is_lost_by_nobody_and_keeps_its_order(
    start_server: StartServer, name: str, options: dict[str, str]
) -> None:
    server = await start_server(name, **options)
    crowd = await Crowd.open(server, 200)
    await server.get("/publish/?count=2000")
    await crowd.all(lambda client: len(client.numbers) >= 2000, 60)
    assert crowd.faults(1, 2000) == []
    assert crowd.count(lambda client: client.resets) == 0
    crowd.close()


@pytest.mark.parametrize("options", [pytest.param({}, id="handoff"), pytest.param(PLAIN, id="plain")])
async def test_two_thousand_streams_hold_no_thread_and_no_database_connection(
    start_server: StartServer, tmp_path: object, options: dict[str, str]
) -> None:
    # Sessions in the database and a visitor with a session cookie: each request really opens a connection.
    environment = {
        "LIVE_DATABASE": f"{tmp_path}/db.sqlite3",
        "LIVE_SESSIONS": "django.contrib.sessions.backends.db",
        "DJANGO_SETTINGS_MODULE": "tests.live.project.settings",
    }
    migrate = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
    subprocess.run(migrate, env={**os.environ, **environment, "PYTHONPATH": str(ROOT)}, check=True)  # noqa: ASYNC221
    server = await start_server("uvicorn", environment=environment, **options)
    headers = {"Cookie": "sessionid=ofnobodyofnobodyofnobodyofnobody"}
    before = await server.state()
    crowd = await Crowd.open(server, 2000, headers=headers)

    async def settled() -> bool:
        state = await server.state()
        return state["os_threads"] <= before["os_threads"] + 6 and state["clients"] == 2000

    await until(settled)  # a thread that is let go of takes a moment to end
    state = await server.state()
    files = (state["descriptors"] - state["sockets"]) - (before["descriptors"] - before["sockets"])
    assert files <= 6, "each database connection of SQLite is an open file"
    crowd.close()


@pytest.mark.parametrize(("name", "options"), WAYS)
async def test_five_hundred_resets_leave_nobody_and_no_line(
    start_server: StartServer, name: str, options: dict[str, str]
) -> None:
    server = await start_server(name, **options)
    await server.get("/publish/steadily/?rate=100")
    crowd = await Crowd.open(server, 500)
    crowd.reset()
    await until_empty(server)
    await server.get("/publish/stop/")
    assert server.noise() == []
    assert server.count("SSE client connected") == server.count("SSE client disconnected") == 500


@pytest.mark.parametrize(("name", "options"), WAYS)
async def test_a_client_resumes_where_it_was_cut_off(
    start_server: StartServer, name: str, options: dict[str, str]
) -> None:
    server = await start_server(name, **options)
    (first,) = await Crowd.open(server, 1)
    await server.get("/publish/?count=3")
    await until(lambda: len(first.numbers) == 3)
    first.reset()
    await server.get("/publish/?from=4&count=3")
    by_header = await Crowd.open(server, 1, headers={"Last-Event-ID": first.last_id}, keep=True)
    by_parameter = await Crowd.open(server, 1, f"/ticks/?last_event_id={first.last_id}")
    foreign = await Crowd.open(server, 1, headers={"Last-Event-ID": "0ther:1-1"})
    malformed = await Crowd.open(server, 1, headers={"Last-Event-ID": "no id at all"})
    await server.get("/publish/?from=7&count=1")
    for crowd in (by_header, by_parameter):
        await crowd.all(lambda client: client.numbers and client.numbers[-1] == 7)
        assert crowd.faults(4, 7) == []
        assert crowd[0].resumed == 1 and crowd[0].resets == 0
    for crowd in (foreign, malformed):
        await crowd.all(lambda client: client.numbers and client.numbers[-1] == 7)
        assert crowd.faults(7, 7) == []
        assert crowd[0].resumed == 0 and crowd[0].resets == 1
    connected, _, rest = by_header[0].body.partition("\n\n")
    assert "id:" not in connected, "cut off here, the replay would be lost"
    assert rest


@pytest.mark.parametrize(("name", "options"), WAYS)
async def test_a_head_request_and_a_refusal_leave_no_stream(
    start_server: StartServer, name: str, options: dict[str, str]
) -> None:
    server = await start_server(name, **options)
    status, headers, body = await server.request("HEAD", "/ticks/")
    assert (status, headers["content-type"], body) == (200, "text/event-stream", b"")
    assert (await server.request("PUT", "/ticks/", body=b"x"))[0] == 405
    assert (await server.request("GET", "/ticks/", headers={"Accept": "application/json"}))[0] == 406
    assert (await server.request("GET", "/events/"))[0] == 400
    assert (await server.state())["clients"] == 0
