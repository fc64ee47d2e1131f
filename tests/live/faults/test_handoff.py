"""live_application leaves the rest of a site alone: uploads, other streams and answers, HEAD, lifespan, websockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from urllib.parse import urlencode

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import FOUR, Crowd, Server, until
from tests.live.harness.sockets import Socket

ROUTED = "tests.live.project.routed_asgi:application"
MOUNTED = "tests.live.project.mounted_asgi:application"
EVENT_STREAM = {"Accept": "text/event-stream"}


@pytest.mark.parametrize("name", FOUR)
async def test_the_rest_of_the_site(start_server: StartServer, name: str) -> None:
    server = await start_server(name)
    await uploads(server)
    await other_streams(server)
    assert server.noise() == []
    await other_answers(server)  # which Django logs, as it should
    await head(server)
    await until_back(server)


async def uploads(server: Server) -> None:
    body = os.urandom(3_000_000)
    wanted = {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    for headers in ({}, EVENT_STREAM):
        status, _, answer = await server.request("POST", "/upload/", headers=headers, body=body)
        assert (status, json.loads(answer)) == (200, wanted)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /upload/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
    for start in range(0, len(body), 100_000):
        part = body[start : start + 100_000]
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert wanted["sha256"].encode() in await asyncio.wait_for(reader.read(), 20)
    writer.close()


async def other_streams(server: Server) -> None:
    """Each part as it comes, also to those who accept an event stream; and the view learns that its client has left."""
    assert (await server.get("/stream/?count=3")).count("part") == 3
    for path in ("/stream/", "/stream/?type=text/event-stream"):
        crowd = await Crowd.open(server, 3, path, wait=False)
        await crowd.all(lambda client: client.received > 50)
        assert (await server.state())["other_streams"] == 3
        crowd.close()

        async def have_left() -> bool:
            return (await server.state())["other_streams"] == 0

        await until(have_left, say="the other streams never learned that their clients left")


async def other_answers(server: Server) -> None:
    """What middleware makes of our response is what the client gets; no client enters the registry for it."""
    connected = server.count("SSE client connected")
    for spoil, wanted in (("403", 403), ("500", 500), ("200", 200), ("status-503", 503), ("raise", 500)):
        status, _, body = await server.request("GET", f"/ticks/?spoil={spoil}", headers=EVENT_STREAM)
        assert status == wanted, spoil
        assert b"connected" not in body
    assert server.count("SSE client connected") == connected
    # Content wrapped by middleware goes on inside Django.
    crowd = await Crowd.open(server, 2, "/ticks/?spoil=wrap", keep=True)
    await server.get("/publish/?count=2")
    await crowd.all(lambda client: list(client.numbers) == [1, 2])
    assert all(client.body.startswith(": wrapped") for client in crowd)
    crowd.close()


async def head(server: Server) -> None:
    status, headers, body = await server.request("HEAD", "/ticks/", headers=EVENT_STREAM)
    assert status == 200 and headers["content-type"] == "text/event-stream"
    assert body == b""
    status, _, body = await server.request("HEAD", "/events/", headers=EVENT_STREAM)
    assert (status, body) == (400, b"")


async def until_back(server: Server) -> None:
    async def is_back() -> bool:
        return (await server.state())["clients"] == 0

    await until(is_back)


@pytest.mark.parametrize("name", ["daphne", "uvicorn", "hypercorn"])
async def test_around_a_router_with_websockets_and_static_files(start_server: StartServer, name: str) -> None:
    server = await start_server(name, app=ROUTED)
    assert "jQuery" in await server.get("/static/admin/js/vendor/jquery/jquery.js")
    assert await echo(server, b"hello") == b"hello"
    crowd = await Crowd.open(server, 3)
    await server.get("/publish/?count=2")
    await crowd.all(lambda client: list(client.numbers) == [1, 2])
    await server.stop()
    assert all(client.goodbyes for client in crowd)
    if name != "daphne":  # which has no lifespan
        assert server.count("lifespan.startup") == server.count("lifespan.shutdown") == 1
    assert server.noise() == []


@pytest.mark.parametrize("name", ["daphne", "uvicorn", "hypercorn"])
async def test_below_a_router_that_hides_the_server(start_server: StartServer, name: str) -> None:
    server = await start_server(name, app=MOUNTED)
    crowd = await Crowd.open(server, 3, "/site/ticks/?format=envelope", keep=True)
    connected = json.loads(crowd[0].body.partition("data: ")[2].partition("\n")[0])
    socket = await Socket.open(server, "/site/ticks/")  # refuses frames that are compressed
    await socket.next("connected")
    await server.get("/site/publish/?count=2")
    assert [(await socket.next("tick"))["data"]["n"] for _ in range(2)] == [1, 2]
    assert (await socket.ask("echo", "x"))["data"] == "x"
    await crowd.all(lambda client: list(client.numbers) == [1, 2])
    brought = urlencode({"ticket": connected["ticket"], "last_event_id": crowd[0].last_id})
    again = await Crowd.open(server, 1, f"/site/ticks/?format=envelope&{brought}")
    state = json.loads(await server.get("/site/state/"))
    assert (state["tickets"], state["tickets_refused"]) == (1, {})
    await server.stop()
    assert all(client.goodbyes for client in [*crowd, *again])
    assert (await socket.next("goodbye"))["reason"] == "shutdown"
    assert server.noise() == []


async def echo(server: Server, text: bytes) -> bytes:
    """One message over a websocket, there and back: RFC 6455."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /echo/ HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)  # masked with zeros
    frame = await asyncio.wait_for(reader.readexactly(2 + len(text)), 10)
    writer.write(bytes([0x88, 0x82, 0, 0, 0, 0]) + b"\x03\xe8")
    await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return frame[2:]


async def test_the_development_server_reloads_and_the_page_comes_back(start_server: StartServer) -> None:
    server = await start_server("uvicorn-reload")
    crowd = await Crowd.open(server, 5)
    pids = set(server.pids())
    source = server.directory / "changed.py"

    def are_told() -> bool:
        source.write_text("")  # until the reloader, which has to have seen the file once, notices
        return all(client.goodbyes and client.is_ended for client in crowd)

    await until(are_told)

    async def is_new() -> bool:
        try:
            return (await server.state())["pid"] not in pids
        except (OSError, asyncio.IncompleteReadError):
            return False

    await until(is_new, 60)
    again = await Crowd.open(server, 5)
    again.close()
    assert server.noise() == []
