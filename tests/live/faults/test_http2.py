"""HTTP/2 on Hypercorn, whose buffers have no end: what is handed to it for one client is bounded by us."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import until

h2_connection = pytest.importorskip("h2.connection", reason="needs h2")
h2_events = pytest.importorskip("h2.events", reason="needs h2")


class H2Client:
    """A connection with prior knowledge. It grants window only while it reads."""

    def __init__(self) -> None:
        self.connection = h2_connection.H2Connection()
        self.bodies: dict[int, bytes] = {}
        self.ended: dict[int, str] = {}
        self.is_reading = True

    async def open(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.connection.initiate_connection()
        self.flush()
        self.task = asyncio.get_running_loop().create_task(self._read())

    def get(self, path: str) -> int:
        stream: int = self.connection.get_next_available_stream_id()
        self.bodies[stream] = b""
        headers = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "127.0.0.1")]
        self.connection.send_headers(stream, [*headers, ("accept", "text/event-stream")], end_stream=True)
        self.flush()
        return stream

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    async def _read(self) -> None:
        while data := await self.reader.read(65536):
            for event in self.connection.receive_data(data):
                self._obey(event)
            self.flush()

    def _obey(self, event: Any) -> None:
        if isinstance(event, h2_events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if self.is_reading:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:  # the connection's window stays open, for the other streams
                self.connection.increment_flow_control_window(event.flow_controlled_length)
        elif isinstance(event, h2_events.StreamEnded):
            self.ended[event.stream_id] = "ended"
        elif isinstance(event, h2_events.StreamReset):
            self.ended[event.stream_id] = "reset"

    async def close(self) -> None:
        self.task.cancel()
        self.writer.close()


async def test_a_stream_that_is_not_read_is_bounded_and_reset_alone(start_server: StartServer) -> None:
    server = await start_server("hypercorn", SEND_TIMEOUT_SECONDS=2, HISTORY_BYTES=1_000_000)
    client = H2Client()
    await client.open(server.port)
    stuck = client.get("/events/?channel=much")
    reader = client.get("/ticks/")
    await until(lambda: b"connected" in client.bodies[stuck] and b"connected" in client.bodies[reader])
    before = (await server.state())["rss_kib"]
    client.is_reading = False
    for _ in range(80):  # 20 MB for a stream that grants 64 KiB
        await server.get("/publish/?channel=much&size=250000")
    assert (await server.state())["rss_kib"] - before < 10_000
    await until(lambda: client.ended.get(stuck) == "reset", say=lambda: client.ended)
    assert server.count("has not read for 2 s") == 1
    client.is_reading = True
    await server.get("/publish/?count=3")
    await until(lambda: client.bodies[reader].count(b'"n":') == 3, say="the other stream of the connection is broken")
    await server.stop()
    await until(lambda: b"goodbye" in client.bodies[reader])
    await client.close()
    assert server.noise() == []
