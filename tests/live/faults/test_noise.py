"""A client may leave at any moment, in any way: no line above INFO, no traceback, nothing left."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import struct

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import FOUR, Client, Crowd, Server, until

DJANGO_ALONE = "tests.live.project.asgi:django_application"
RST = struct.pack("ii", 1, 0)


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize("app", ["live_application", "django_alone"])
async def test_leaving_at_any_moment_leaves_nothing(start_server: StartServer, name: str, app: str) -> None:
    options = {"app": DJANGO_ALONE} if app == "django_alone" else {}
    server = await start_server(name, PUBLIC_CHANNELS=["ticks"], HEARTBEAT_SECONDS=0.5, **options)
    warm = await Crowd.open(server, 5)
    warm.close()
    await until_empty(server)
    before = await server.state(collect=True)

    for end in (leave_by_rst, leave_by_fin):
        await before_the_headers(server, end)
        await while_it_is_asked_for(server, end, "/events/?channel=private&wait=0.3")
        await while_it_is_asked_for(server, end, "/snapshot/?wait=0.2")
        await during_replay(server, end)
        await while_idle(server, end)
        await mid_frame(server, end)
    await half_closed(server)
    # Django alone raises what Uvicorn raises; and on asyncio's own loop Uvicorn raises nothing, nor tells otherwise.
    if app == "live_application" and (name != "uvicorn" or importlib.util.find_spec("uvloop")):
        await pipelined(server)

    await until_empty(server)

    async def is_back() -> bool:
        now = await server.state(collect=True)
        return now["tasks"] <= before["tasks"] and now["descriptors"] <= before["descriptors"]

    await until(is_back, say="tasks or descriptors are left")
    assert server.noise() == []
    assert server.count("SSE client connected") == server.count("SSE client disconnected")


async def until_empty(server: Server) -> None:
    async def is_empty() -> bool:
        return (await server.state())["clients"] == 0

    await until(is_empty)


def leave_by_rst(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()


def leave_by_fin(sock: socket.socket) -> None:
    sock.close()


async def raw(server: Server, request: bytes) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", server.port))
    await loop.sock_sendall(sock, request)
    return sock


def request_for(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode()


async def before_the_headers(server: Server, end) -> None:
    for request in (b"", b"GET /ti", request_for("/ticks/")[:-2], request_for("/ticks/")):
        for _ in range(3):
            end(await raw(server, request))


async def while_it_is_asked_for(server: Server, end, path: str) -> None:
    socks = [await raw(server, request_for(path)) for _ in range(5)]
    await server.get("/plain/async/")  # so they have arrived
    for sock in socks:
        end(sock)


async def during_replay(server: Server, end) -> None:
    probe = await Crowd.open(server, 1)
    await until(lambda: probe[0].last_id)
    position = probe[0].last_id
    probe.close()
    await server.get("/publish/?count=300&size=10000")
    for _ in range(5):
        sock = await raw(server, request_for(f"/ticks/?last_event_id={position}"))
        assert await asyncio.get_running_loop().sock_recv(sock, 1000)
        end(sock)


async def while_idle(server: Server, end) -> None:
    crowd = await Crowd.open(server, 5)
    for client in crowd:
        leave(client, end)


async def mid_frame(server: Server, end) -> None:
    crowd = await Crowd.open(server, 5)
    await server.get("/publish/steadily/?rate=100&size=100000")
    await crowd.all(lambda client: client.numbers)
    for client in crowd:
        leave(client, end)
    await server.get("/publish/stop/")


def leave(client: Client, end) -> None:
    if end is leave_by_rst:
        client.reset()
    else:
        client.close()


async def half_closed(server: Server) -> None:
    """We say that nothing more will come, and read on. No browser does; a proxy may."""
    crowd = await Crowd.open(server, 3)
    for client in crowd:
        client.half_close()
    await server.get("/publish/")
    await asyncio.sleep(0)
    crowd.close()


async def pipelined(server: Server) -> None:
    """A second request on the connection of a stream, which will never be answered."""
    sock = await raw(server, request_for("/ticks/"))
    loop = asyncio.get_running_loop()
    assert b"HTTP/1.1 200" in await loop.sock_recv(sock, 1000)
    await loop.sock_sendall(sock, request_for("/plain/async/"))
    await server.get("/publish/?count=3")
    await server.get("/publish/?count=3")
    leave_by_rst(sock)
