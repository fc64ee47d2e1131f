"""Raw clients: sockets that speak HTTP and read an event stream, and can break in every way a socket can."""

from __future__ import annotations

import asyncio
import ctypes
import re
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .conditions import until
from .servers import Server

NUMBER = re.compile(rb'"n":(\d+),"t":([\d.]+)')
LAST_ID = re.compile(rb"^id: ([^\n]*)$", re.MULTILINE)
RST = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s: close() sends a reset


class Client(asyncio.Protocol):
    """One stream. What it heard is kept as numbers and counts, so that thousands of them fit one test."""

    def __init__(self, path: str, headers: dict[str, str], *, keep: bool = False, version: str = "1.1") -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.request = f"GET {path} HTTP/{version}\r\nHost: 127.0.0.1\r\n{head}\r\n".encode()
        self.transport: Any = None
        self.status = 0  # 0: no headers yet
        self.headers: dict[str, str] = {}
        self.numbers = array("L")  # of the events heard, in order
        self.delays: array[float] | None = None  # seconds from each broadcast to here, if asked for
        self.connected = 0  # control frames, counted
        self.resumed = 0
        self.resets = 0
        self.heartbeats = 0
        self.goodbyes = 0
        self.retry_ms = 0  # the last that was told
        self.last_id = ""
        self.received = 0  # bytes of the body
        self.kept: bytearray | None = bytearray() if keep else None  # the whole body
        self.is_ended = False  # the body came to its proper end
        self.is_gone = False  # the connection is closed, from either side
        self.gone_at = 0.0  # monotonic
        self.on_gone: Callable[[Client], None] | None = None
        self.on_body: Callable[[Client], None] | None = None  # after each piece of the body
        self._raw = b""  # not yet decoded from the transfer coding
        self._body = b""  # a frame that is not complete
        self._is_chunked = False

    # The connection

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_gone = True
        self.gone_at = time.monotonic()
        if self.on_gone is not None:
            self.on_gone(self)

    @property
    def socket(self) -> socket.socket:
        found: socket.socket = self.transport.get_extra_info("socket")
        return found

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])

    def close(self) -> None:
        """FIN, as a browser does when the tab closes."""
        self.transport.close()

    def reset(self) -> None:
        """RST: the peer crashed, or a firewall says so."""
        if not self.is_gone:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            self.transport.abort()

    def half_close(self) -> None:
        """FIN of our side alone: we go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def fall_silent(self) -> None:
        """From now on nothing that the server sends arrives, and nothing is answered: the cable is cut, the laptop
        asleep. A filter on the socket drops each packet before TCP sees it."""
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes pass
        program = struct.pack("HL", 1, ctypes.addressof(drop_all))
        SO_ATTACH_FILTER = 26
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def stop_reading(self) -> None:
        self.transport.pause_reading()

    def read_on(self) -> None:
        self.transport.resume_reading()

    # The stream

    @property
    def body(self) -> str:
        assert self.kept is not None, "open it with keep=True"
        return self.kept.decode()

    @property
    def is_open(self) -> bool:
        return bool(self.connected) and not self.is_gone and not self.is_ended

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if not self.status and not self._read_head():
            return
        if self._is_chunked:
            self._read_chunks()
        else:
            raw, self._raw = self._raw, b""
            self._read_body(raw)

    def eof_received(self) -> None:
        if self.status and not self._is_chunked:
            self.is_ended = True

    def _read_head(self) -> bool:
        head, found, rest = self._raw.partition(b"\r\n\r\n")
        if not found:
            return False
        status_line, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status_line.split()[1])
        for line in lines:
            name, _, value = line.partition(":")
            name = name.lower()
            value = value.strip()
            self.headers[name] = f"{self.headers[name]}\n{value}" if name in self.headers else value
        self._is_chunked = self.headers.get("transfer-encoding") == "chunked"
        self._raw = rest
        if self.headers.get("content-length") == "0" or self.status == 204:
            self.is_ended = True
        if self.status != 200 and self.on_body is not None:
            self.transport.close()  # a proxy's 504, say; it would keep the connection for another request
        return True

    def _read_chunks(self) -> None:
        raw = self._raw
        position = 0
        parts = []
        while (line_end := raw.find(b"\r\n", position)) >= 0:
            size = int(raw[position:line_end], 16)
            chunk_end = line_end + 2 + size
            if len(raw) < chunk_end + 2:
                break
            if size:
                parts.append(raw[line_end + 2 : chunk_end])
            else:
                self.is_ended = True
            position = chunk_end + 2
        self._raw = raw[position:]
        if parts:
            self._read_body(b"".join(parts))
        if self.is_ended and self.on_body is not None:
            self.on_body(self)

    def _read_body(self, data: bytes) -> None:
        self.received += len(data)
        if self.kept is not None:
            self.kept += data
        data = self._body + data
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            self._body = data
            return
        self._body = data[end:]
        frames = data[:end]
        now = time.monotonic()
        for number, sent_at in NUMBER.findall(frames):
            self.numbers.append(int(number))
            if self.delays is not None:
                self.delays.append(now - float(sent_at))
        if b'"type":"' in frames:
            self._read_control(frames)
        at = frames.rfind(b"id: ")
        while at > 0 and frames[at - 1] != 10:
            at = frames.rfind(b"id: ", 0, at)
        if at >= 0:
            self.last_id = frames[at + 4 : frames.index(b"\n", at)].decode()
        if self.on_body is not None:
            self.on_body(self)

    def _read_control(self, frames: bytes) -> None:
        if b'"type":"connected"' in frames:
            self.connected += 1
            self.resumed += b'"resumed":true' in frames
        self.heartbeats += frames.count(b'"type":"heartbeat"')
        self.resets += frames.count(b'"type":"reset"')
        self.goodbyes += frames.count(b'"type":"goodbye"')
        for retry in re.findall(rb"^retry: (\d+)$", frames, re.MULTILINE):
            self.retry_ms = int(retry)

    def fault(self, first: int | None = None, last: int | None = None) -> str:
        """What is wrong with the order of what it heard; "" if every number from ``first`` to ``last`` came once."""
        numbers = self.numbers
        if not numbers:
            return "" if last is None else "heard nothing"
        if first is not None and numbers[0] != first:
            return f"begins with {numbers[0]}, not with {first}"
        if numbers[-1] - numbers[0] + 1 != len(numbers) or any(
            numbers[i] + 1 != numbers[i + 1] for i in range(len(numbers) - 1)
        ):
            at = next(i for i in range(len(numbers) - 1) if numbers[i] + 1 != numbers[i + 1])
            return f"{numbers[at]} is followed by {numbers[at + 1]}"
        if last is not None and numbers[-1] != last:
            return f"ends with {numbers[-1]}, not with {last}"
        return ""


class Crowd(Sequence[Client]):
    """Many clients of one server."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients

    @classmethod
    async def open(
        cls,
        server: Server,
        count: int,
        path: str = "/ticks/",
        *,
        headers: dict[str, str] | None = None,
        keep: bool = False,
        delays: bool = False,
        receive_buffer: int | None = None,
        at_once: int = 100,
        port: int | None = None,
        wait: bool = True,
        version: str = "1.1",
        address: str = "127.0.0.1",
    ) -> Crowd:
        """Open this many streams, and wait until each has heard ``connected`` (unless ``wait`` is False).

        ``receive_buffer``: bytes of SO_RCVBUF, small for those who are to stop reading. ``port``: a proxy's.
        ``address``: another one of the loopback network, to come from.
        """
        loop = asyncio.get_running_loop()
        clients = []
        lines = {"Accept": "text/event-stream", **(headers or {})}

        async def open_one() -> None:
            sock = socket.socket()
            sock.setblocking(False)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if address != "127.0.0.1":
                sock.bind((address, 0))
            await loop.sock_connect(sock, ("127.0.0.1", port or server.port))
            client = Client(path, lines, keep=keep, version=version)
            if delays:
                client.delays = array("d")
            clients.append(client)
            await loop.create_connection(lambda: client, sock=sock)

        for begun in range(0, count, at_once):
            await asyncio.gather(*(open_one() for _ in range(min(at_once, count - begun))))
            if wait:
                here = clients[begun:]
                await until(
                    lambda here=here: all(client.connected or client.is_gone for client in here),
                    30,
                    say=lambda: f"{sum(not client.connected for client in clients)} of {count} have not connected",
                )
        return cls(clients)

    def __getitem__(self, index: Any) -> Any:
        return self.clients[index]

    def __len__(self) -> int:
        return len(self.clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(self.clients)

    def reset(self, clients: Iterable[Client] | None = None) -> None:
        for client in self.clients if clients is None else clients:
            client.reset()

    def close(self, clients: Iterable[Client] | None = None) -> None:
        for client in self.clients if clients is None else clients:
            client.close()

    def count(self, condition: Callable[[Client], Any]) -> int:
        return sum(bool(condition(client)) for client in self.clients)

    async def all(self, condition: Callable[[Client], Any], seconds: float = 60) -> None:
        """Wait until it is true of each."""
        await until(
            lambda: all(condition(client) for client in self.clients),
            seconds,
            say=lambda: f"true of {self.count(condition)} of {len(self)}",
        )

    def faults(self, first: int | None = None, last: int | None = None) -> list[str]:
        return [fault for client in self.clients if (fault := client.fault(first, last))]


def percentile(values: Iterable[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")
