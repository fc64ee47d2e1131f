"""Requests that mean to take every place of those who open a stream, and streams that are replayed and not read."""

from __future__ import annotations

import asyncio
import socket
import time
from urllib.parse import quote

from tests.live.faults.report import Row, first_lines
from tests.live.harness import Crowd, Server, until

HALF_REQUESTS = {
    "Content-Length": "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Length: 1000000\r\n\r\n",
    "chunked": "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    "slow urls": "GET /plain/slow/?seconds=60 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
    "slow streams": "GET /snapshot/?wait=60 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
}


async def places(name: str, *, attackers: int = 64) -> Row:
    """Each kind for itself; the slow streams come from another address than the visitor, as an address has half of the
    places."""
    row = Row("requests that never end", name, f"{attackers} of each kind, MAX_OPENING 64")
    async with Server(name, MAX_OPENING=64) as server:
        warm = await Crowd.open(server, 1)
        warm.close()
        for kind, text in HALF_REQUESTS.items():
            source = "127.0.0.2" if kind == "slow streams" else "127.0.0.1"
            held = [await _send(server.port, source, text.format(path="/ticks/")) for _ in range(attackers)]
            await asyncio.sleep(0.5)  # until the server has taken all of them: nothing tells
            began = time.monotonic()
            visitor = await Crowd.open(server, 1)
            took = time.monotonic() - began
            row.figures[f"a stream opens beside {kind} in"] = f"{took:.2f} s"
            row.measure(took < 1, f"{took:.1f} s beside {kind}")
            row.require(took < 9, f"{took:.1f} s beside {kind}")
            visitor.close()
            for one in held:
                one.close()
    return row


async def _send(port: int, source: str, text: str) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.bind((source, 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(connection, text.encode())
    return connection


async def unread_replays(name: str, *, clients: int = 200, seconds: float = 10) -> Row:
    """Without live_application: each brings an old id, is owed the whole log, and reads none of it."""
    row = Row("unread replays", f"{name}, plain Django", f"{clients} clients, a log of 6.4 MB")
    async with Server(name, app="tests.live.project.asgi:django_application", HISTORY_BYTES=16_777_216) as server:
        first = await Crowd.open(server, 1, keep=True)
        await first.all(lambda client: client.last_id)
        last_id = first[0].last_id
        await server.get("/publish/?count=100&size=65536")
        await first.all(lambda client: len(client.numbers) == 100)
        before = (await server.state(collect=True))["rss_kib"]
        path = f"/ticks/?last_event_id={quote(last_id)}"
        stuck = await Crowd.open(server, clients, path, receive_buffer=4096, wait=False)
        for client in stuck:
            client.stop_reading()
        began = time.monotonic()
        peak = before
        while time.monotonic() - began < seconds:
            peak = max(peak, (await server.state())["rss_kib"])
            await asyncio.sleep(0.2)
        # From elsewhere: what one address may get of past events in a minute is used up by 160 of them.
        reader = await Crowd.open(server, 1, path, address="127.0.0.2")
        await until(lambda: len(reader[0].numbers) == 100, 30)
        noise = server.noise()
        grown = (peak - before) / 1024
        row.figures = {
            "memory grew by": f"{grown:.0f} MiB",
            "of what they are owed": f"{clients * 6.4 / 1.048:.0f} MiB",
            "a reader gets": "all of it",
            "lines above INFO": len(noise),
        }
        row.require(grown < clients * 0.75 + 64, f"grew by {grown:.0f} MiB")
        row.require(not noise, first_lines(noise))
    return row
