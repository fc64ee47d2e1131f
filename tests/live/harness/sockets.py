"""A raw WebSocket client: frames as RFC 6455 says, masked, and every way to break off."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import ssl
import struct
from typing import Any

from .servers import Server

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
DEFLATE = "permessage-deflate; client_max_window_bits"


def encode(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    mask = os.urandom(4)
    length = len(payload)
    if length < 126:
        size = struct.pack("!B", 0x80 | length)
    elif length < 65536:
        size = struct.pack("!BH", 0x80 | 126, length)
    else:
        size = struct.pack("!BQ", 0x80 | 127, length)
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    masked = (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big") if length else b""
    return struct.pack("!B", (0x80 if fin else 0) | opcode) + size + mask + masked


class Denied(Exception):
    """The handshake was answered with something else than 101: ``args`` is the status."""


class Socket:
    """One WebSocket. ``await Socket.open(server, "/events/?channel=a")``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head  # of the answer, in small letters
        self.last_id = ""
        self.close_code: int | None = None
        self._lines: list[dict[str, Any]] = []

    @classmethod
    async def open(
        cls,
        server: Server,
        path: str = "/ticks/",
        *,
        origin: str | None = "own",
        headers: dict[str, str] | None = None,
        receive_buffer: int | None = None,
        port: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Socket:
        """``origin``: "own" is the server's. Compression is offered, as browsers do. Raises Denied."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port or server.port))
        host = f"127.0.0.1:{port or server.port}"
        reader, writer = await asyncio.open_connection(
            sock=sock, limit=64 * 1024, ssl=tls, server_hostname=None if tls is None else host
        )
        own = f"http{'' if tls is None else 's'}://{host}"
        lines = {
            "Host": host,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Extensions": DEFLATE,
            **({} if origin is None else {"Origin": own if origin == "own" else origin}),
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        try:
            answer = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode("latin-1").lower()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            raise Denied(0) from None
        status = int(answer.split()[1])
        if status != 101:
            writer.close()
            raise Denied(status)
        return cls(reader, writer, answer)

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload. Raises AssertionError for what a server must not send here."""
        first, second = await self.reader.readexactly(2)
        assert not first & 0x70, "compressed"
        assert not second & 0x80, "masked"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        payload = await self.reader.readexactly(length)
        return first & 0x0F, payload

    async def next(self, type: str | None = None, seconds: float = 60) -> dict[str, Any] | None:
        """The next object, or the next of this type; None when the server has closed it."""
        return await asyncio.wait_for(self._next(type), seconds)

    async def _next(self, type: str | None) -> dict[str, Any] | None:
        while True:
            while self._lines:
                said = self._lines.pop(0)
                self.last_id = said.get("id", self.last_id)
                if type in (None, said["type"]):
                    return said
            try:
                opcode, payload = await self.frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            if opcode == CLOSE:
                self.close_code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                self.writer.write(encode(payload, CLOSE))
                self.writer.close()
                return None
            if opcode == PING:
                self.writer.write(encode(payload, PONG))
            elif opcode in (TEXT, 0):
                self._lines += [json.loads(line) for line in payload.decode().split("\n") if line]

    async def send(self, text: str) -> None:
        await self.send_frames(encode(text.encode()))

    async def send_frames(self, frames: bytes) -> None:
        self.writer.write(frames)
        await self.writer.drain()

    async def ask(self, type: str, data: Any = None, *, id: str | None = None, **more: Any) -> dict[str, Any] | None:
        """Send a message, and wait for its answer; what comes before it is passed over."""
        id = id or os.urandom(16).hex()
        await self.send(json.dumps({"id": id, "type": type, "data": data, **more}))
        while (said := await self.next("answer")) is not None and said["to"] != id:
            pass
        return said

    async def close(self) -> None:
        """As a browser does when its tab is closed."""
        self.writer.write(encode(struct.pack("!H", 1001), CLOSE))
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        if sock.fileno() < 0:  # closed already
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
