"""What messages cost the server, beside an empty Django view and a Channels consumer; and WebSockets, beside bare ones.

One run: every row in turn, on the same server, without compression on either side. The client is one process that
answers nothing and parses nothing: what is measured is the server's CPU and memory.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import selectors
import socket
import statistics
import struct
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from tests.backends.redis_process import RedisProcess
from tests.live.harness import raise_descriptor_limit

from .servers import HERE, Peer, Server, Workshop, work_directory

MARK = b'"at":['
POSTED = "/view/"


def websocket(port: int, path: str = "/events/") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    origin = f"http://localhost:{port}"
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    if b" 101 " not in data.split(b"\r\n")[0]:
        raise RuntimeError(data.decode())
    return connection


def masked(text: bytes) -> bytes:
    """With a mask of zeros: to a server it is one like any other."""
    size = struct.pack("!B", 0x80 | len(text)) if len(text) < 126 else struct.pack("!BH", 0xFE, len(text))
    return b"\x81" + size + bytes(4) + text


def body(number: int) -> bytes:
    return json.dumps({"id": f"{number:032x}", "type": "echo", "data": {"text": "x" * 50}}).encode()


def posted(path: str) -> Callable[[int], bytes]:
    def request(number: int) -> bytes:
        content = body(number)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    return request


def talk(
    connections: list[socket.socket], make: Callable[[int], bytes], mark: bytes, count: int, first: int = 0
) -> None:
    """So many messages, each connection's next one once its last was answered: ``mark`` stands in every answer once."""
    numbers = iter(range(first, first + count))

    def go_on(connection: socket.socket, answers: int) -> None:
        for number in islice(numbers, answers):
            connection.sendall(make(number))

    for connection in connections:
        go_on(connection, 1)
    count_marks(connections, mark, count, go_on)


def count_marks(
    connections: list[socket.socket],
    mark: bytes,
    expected: int,
    heard: Callable[[socket.socket, int], None] = lambda connection, count: None,
) -> None:
    """Read all of these until the mark has come so often. ``heard``: called with how often it came in one read."""
    count = 0
    until = time.monotonic() + 120
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while count < expected:
            if time.monotonic() > until:
                raise RuntimeError(f"{count} of {expected} came")
            for key, _ in selector.select(5):
                assert isinstance(key.fileobj, socket.socket)
                found = key.fileobj.recv(262144).count(mark)
                count += found
                heard(key.fileobj, found)


def answer_ms(server: Server, path: str, carrier: str, options: argparse.Namespace) -> float:
    """CPU for each answer."""
    if carrier == "post":
        connections = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(options.senders)]
        make, mark = posted(path), b"HTTP/1.1 200"
    else:
        connections = [websocket(server.port) for _ in range(options.senders)]

        def make(number: int) -> bytes:
            return masked(body(number))

        mark = b'"answer"'
    talk(connections, make, mark, options.messages // 4)
    before = server.cpu_seconds()
    talk(connections, make, mark, options.messages, options.messages)
    spent = server.cpu_seconds() - before
    for connection in connections:
        connection.close()
    return spent * 1e3 / options.messages


def fanout_us(server: Server, options: argparse.Namespace) -> float:
    """CPU for each event that reaches a WebSocket."""
    connections = [websocket(server.port) for _ in range(options.clients)]
    expected = options.clients * options.events
    time.sleep(1)
    before = server.cpu_seconds()
    server.publish(options.events, options.hz, 100)
    count_marks(connections, MARK, expected)
    spent = server.cpu_seconds() - before
    for connection in connections:
        connection.close()
    return spent * 1e6 / expected


def idle_kib(server: Server, options: argparse.Namespace) -> float:
    """Memory of an open WebSocket that does nothing, after a few have come and gone."""
    for connection in [websocket(server.port) for _ in range(20)]:
        connection.close()
    time.sleep(3)
    before = server.memory_kib()
    connections = [websocket(server.port) for _ in range(options.clients)]
    time.sleep(2)
    more = server.memory_kib() - before
    for connection in connections:
        connection.close()
    return more / len(connections)


ANSWERS = (
    ("an empty Django view, POST", "messages_site:live", POSTED, "post", False),
    ("Channels consumer, WebSocket", "messages_site:consumer", "", "socket", False),
    ("django-sse-live, POST", "messages_site:live", "/events/", "post", False),
    ("django-sse-live, WebSocket", "messages_site:live", "", "socket", False),
    ("django-sse-live, POST, answers kept in Redis", "messages_site:live", "/events/", "post", True),
    ("django-sse-live, WebSocket, answers kept in Redis", "messages_site:live", "", "socket", True),
)
SOCKETS = (("bare ASGI app", "sockets:application"), ("django-sse-live", "messages_site:live"))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks messages", description=__doc__)
    parser.add_argument("--server", choices=("uvicorn", "daphne", "hypercorn", "granian"), default="uvicorn")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken of so many (default 3)")
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--senders", type=int, default=10, help="each sends its next message when the last is answered")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--hz", type=float, default=8)
    parser.add_argument("--only", choices=("answers", "fanout", "idle"))
    parser.add_argument("--python", type=Path, required=True, help="one that has all that is compared")
    options = parser.parse_args(arguments)
    raise_descriptor_limit()
    workshop = Workshop(work_directory(HERE / ".work"), options.python.absolute(), options.server)
    figures: dict[tuple[str, str], list[float]] = {}

    def measure(table: str, title: str, application: str, run: Callable[[Server], float]) -> None:
        with workshop.start(Peer("messages", title, application)) as server:
            figures.setdefault((table, title), []).append(run(server))

    with RedisProcess() as redis:
        for _ in range(options.rounds):
            for title, application, path, carrier, is_kept in ANSWERS if options.only in (None, "answers") else ():
                workshop.variables = {"CACHE": redis.url} if is_kept else {}
                measure("answers", title, application, lambda server: answer_ms(server, path, carrier, options))  # noqa: B023
            workshop.variables = {}
            for title, application in SOCKETS:
                if options.only in (None, "fanout"):
                    measure("fanout", title, application, lambda server: fanout_us(server, options))
                if options.only in (None, "idle"):
                    measure("idle", title, application, lambda server: idle_kib(server, options))
    for table, head, unit in (
        ("answers", f"CPU of an answer, {options.senders} senders", "ms"),
        ("fanout", f"CPU of an event to each of {options.clients:,} WebSockets", "µs"),
        ("idle", "an idle WebSocket", "KiB"),
    ):
        rows = [(title, statistics.median(found)) for (name, title), found in figures.items() if name == table]
        if rows:
            print(f"\n| {head}, {options.server} | | |\n|---|---:|---:|")
        for title, figure in rows:
            print(f"| {title} | {figure:.2f} {unit} | {figure / rows[0][1]:.2f} × |")
    return 0
