"""The load generator where there is no C compiler: the same commands and answers as load.c, at many times its cost.

Started as a process of its own: ``python load_fallback.py ADDRESS PORT PATH CLIENTS``.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import statistics
import sys
import time
from typing import Any

MARK = re.compile(rb'"at":\s*\[(\d+),\s*(\d+)\]')
ID = re.compile(rb"(?:^|\n)id: ?([^\r\n]*)\r?\n")
CHUNK_SIZE = re.compile(rb"(?:^|\r\n)[0-9a-fA-F]+\r\n")
TAIL = 120  # bytes kept from one read to the next: longer than what is looked for


class Client:
    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.last_id = b""
        self.forget()

    def forget(self) -> None:
        self.is_ready = False
        self.events = 0
        self.previous = -1
        self.tail = b""


class Load:
    def __init__(self, address: str, port: int, path: str, count: int) -> None:
        self.peer = (address, port)
        self.path = path
        self.clients = [Client() for _ in range(count)]
        self.selector = selectors.DefaultSelector()

    def open(self, at_once: int, expected: int) -> dict[str, Any]:
        self.expected = expected
        self.opening = self.ready = self.failed = self.closed = self.served = self.disorder = 0
        self.samples: list[float] = []
        self.first: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.opened_at = time.monotonic()
        to_start = iter(self.clients)
        count = len(self.clients)
        while self.ready + self.failed < count and time.monotonic() - self.opened_at < 180:
            while self.opening < at_once and (client := next(to_start, None)) is not None:
                self._start(client)
            self._step()
        seconds = time.monotonic() - self.opened_at
        return {"open": self.ready, "failed": count - self.ready, "seconds": seconds}

    def wait(self, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while self.served + self.closed < self.ready and time.monotonic() < until:
            self._step()
        spans = [self.last[number] - first for number, first in self.first.items()]
        ordered = sorted(self.samples) or [0.0]
        begin, end = min(self.first.values(), default=0.0), max(self.last.values(), default=0.0)
        return {
            "events": len(self.samples),
            "expected": self.ready * self.expected,
            "disorder": self.disorder,
            "closed": self.closed,
            "since_open_s": end - self.opened_at if end else 0.0,
            "span_s": end - begin,
            "first_to_last_ms": statistics.median(spans) * 1e3 if spans else 0.0,
            "p50_ms": ordered[len(ordered) // 2] * 1e3,
            "p99_ms": ordered[int((len(ordered) - 1) * 0.99)] * 1e3,
            "max_ms": ordered[-1] * 1e3,
        }

    def close(self) -> dict[str, Any]:
        for client in self.clients:
            if client.socket is not None:
                self._close(client)
            client.forget()
        return {}

    def _start(self, client: Client) -> None:
        client.forget()
        resume = b"Last-Event-ID: %s\r\n" % client.last_id if client.last_id else b""
        try:
            client.socket = socket.create_connection(self.peer, 10)
            client.socket.sendall(
                b"GET %s HTTP/1.1\r\nHost: %s:%d\r\nAccept: text/event-stream\r\n%s\r\n"
                % (self.path.encode(), self.peer[0].encode(), self.peer[1], resume)
            )
        except OSError as error:
            print(f"load: {error}", file=sys.stderr)
            self.failed += 1
            return
        client.socket.setblocking(False)
        self.selector.register(client.socket, selectors.EVENT_READ, client)
        self.opening += 1

    def _close(self, client: Client) -> None:
        assert client.socket is not None
        self.selector.unregister(client.socket)
        client.socket.close()
        client.socket = None

    def _step(self) -> None:
        for key, _ in self.selector.select(0.1):
            client: Client = key.data
            assert client.socket is not None
            try:
                data = client.socket.recv(1 << 18)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data:
                self._feed(client, data)
                continue
            self._close(client)
            if client.is_ready:
                self.closed += 1
                self.served -= bool(self.expected) and client.events >= self.expected
            else:
                self.failed += 1
                self.opening -= 1

    def _feed(self, client: Client, data: bytes) -> None:
        now = time.monotonic()
        data = client.tail + data
        if not client.is_ready:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                client.tail = head
                return
            self.opening -= 1
            if b" 200" not in head.partition(b"\r\n")[0]:
                print(f"load: answered with {head.decode('latin-1').splitlines()[0]}", file=sys.stderr)
                self.failed += 1
                self._close(client)
                return
            client.is_ready = True
            self.ready += 1
        data = CHUNK_SIZE.sub(b"\n", data)
        for found in ID.finditer(data):
            client.last_id = found[1]
        read = 0
        for found in MARK.finditer(data):
            read = found.end()
            number, published = int(found[1]), int(found[2]) / 1e9
            self.disorder += number <= client.previous
            client.previous = number
            client.events += 1
            self.served += client.events == self.expected
            self.samples.append(max(0.0, now - published))
            self.first.setdefault(number, now)
            self.last[number] = now
        client.tail = data[max(read, len(data) - TAIL) :]


def main() -> None:
    address, port, path, count = sys.argv[1:]
    load = Load(address, int(port), path, int(count))
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "open":
            answer = load.open(int(arguments[0]), int(arguments[1]))
        elif command == "wait":
            answer = load.wait(float(arguments[0]))
        else:
            answer = load.close()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
