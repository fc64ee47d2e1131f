"""The load generator counts what arrives: both of them, the one in C and its twin in Python."""

from __future__ import annotations

import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load import Load, compiled, load_command

CLIENTS = 3


class Streams(socketserver.ThreadingTCPServer):
    """Sends every client the same frames, as one chunk each, cut where ``piece`` says; then waits until it leaves."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.frames: list[str] = []
        self.piece = 1_000_000
        self.status = "200 OK"
        self.last_ids: list[str | None] = []
        self.paths: list[str] = []
        self.ends = False


class Handler(socketserver.StreamRequestHandler):
    server: Streams

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        found = re.search(rb"Last-Event-ID: (.*)\r\n", head)
        self.server.paths.append(head.split()[1].decode())
        self.server.last_ids.append(found[1].decode() if found else None)
        answer = f"HTTP/1.1 {self.server.status}\r\nTransfer-Encoding: chunked\r\n\r\n"
        for frame in self.server.frames:
            body = frame.encode()
            answer += f"{len(body):x}\r\n{frame}\r\n"
        data = answer.encode()
        for begin in range(0, len(data), self.server.piece):
            self.wfile.write(data[begin : begin + self.server.piece])
            if self.server.piece < 100:
                self.wfile.flush()
        if not self.server.ends:
            self.rfile.read()  # until the client leaves


def frame(number: int, *, id: str = "", space: str = "") -> str:
    head = f"id: {id}\n" if id else ""
    return f'{head}data: {{"at":{space}[{number},{space}{time.monotonic_ns()}],"padding":"[1,2] \\"at\\""}}\n\n'


@pytest.fixture
def streams() -> Iterator[Streams]:
    with Streams() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def load(streams: Streams, tmp_path: Path) -> Iterator[Load]:
    if not (shutil.which("gcc") and sys.platform == "linux"):
        pytest.skip("needs gcc (Debian: apt-get install gcc)")
    with Load(load_command(tmp_path), streams.server_address[1], "/events/", CLIENTS) as load:
        yield load


def test_it_counts_every_event_of_every_client(streams: Streams, load: Load) -> None:
    streams.frames = [": hello\n\n", *(frame(number) for number in range(5))]
    opened = load.open(events=5)
    assert (opened["open"], opened["failed"]) == (CLIENTS, 0)
    heard = load.wait(60)
    assert (heard["events"], heard["expected"], heard["disorder"]) == (5 * CLIENTS, 5 * CLIENTS, 0)
    assert 0 < heard["p50_ms"] <= heard["p99_ms"] <= heard["max_ms"]


@pytest.mark.parametrize("piece", [1, 7])
def test_an_event_may_come_in_pieces(streams: Streams, load: Load, piece: int) -> None:
    streams.frames = [frame(0, id="a:1-0"), frame(1, space=" ")]
    streams.piece = piece
    load.open(events=2)
    assert load.wait(60)["events"] == 2 * CLIENTS


def test_what_is_lost_is_missing_from_the_count(streams: Streams, load: Load) -> None:
    streams.frames = [frame(0), frame(2)]
    streams.ends = True  # else it would wait for the third
    load.open(events=3)
    heard = load.wait(60)
    assert heard["expected"] - heard["events"] == CLIENTS
    assert heard["closed"] == CLIENTS


def test_repetitions_and_another_order_are_disorder(streams: Streams, load: Load) -> None:
    streams.frames = [frame(number) for number in (0, 1, 1, 3, 2)]
    load.open(events=5)
    assert load.wait(60)["disorder"] == 2 * CLIENTS


def test_who_is_opened_again_brings_its_last_id(streams: Streams, load: Load) -> None:
    streams.frames = [frame(0, id="a:1-0"), frame(1, id="a:1-1")]
    load.open(events=2)
    load.wait(60)
    load.close()
    streams.frames = [frame(2, id="a:1-2")]
    load.open(events=1)
    assert load.wait(60)["events"] == CLIENTS
    assert streams.last_ids == [None] * CLIENTS + ["a:1-1"] * CLIENTS


def test_a_refusal_is_said(streams: Streams, load: Load) -> None:
    streams.status = "503 Service Unavailable"
    with pytest.raises(RuntimeError, match="No client got a stream"):
        load.open()


def test_who_is_opened_again_brings_its_ticket(streams: Streams, load: Load) -> None:
    """Where the path has a query, as that of our own client has."""
    streams.frames = ['data: {"type":"connected","ticket":"a-b~c"}\n\n', frame(0)]
    with Load(load._process.args[:-4], streams.server_address[1], "/events/?format=envelope", CLIENTS) as ours:  # type: ignore
        ours.open(events=1)
        ours.wait(60)
        ours.close()
        ours.open()
    assert streams.paths[:CLIENTS] == ["/events/?format=envelope"] * CLIENTS
    assert streams.paths[CLIENTS:] == ["/events/?format=envelope&ticket=a-b~c"] * CLIENTS


@pytest.mark.skipif(not shutil.which("cc") or sys.platform != "linux", reason="compiles what Linux preloads")
def test_on_a_slower_disk_a_program_waits_for_each_of_its_writes(tmp_path: Path) -> None:
    library = compiled("slow_disk.c", tmp_path, "-shared", "-fPIC", "-ldl")
    program = "import os, sys; file = open(sys.argv[1], 'w'); os.fsync(file.fileno()); os.fdatasync(file.fileno())"
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "written")],
        env={**os.environ, "LD_PRELOAD": str(library), "SLOW_DISK_US": "1500000"},
        check=True,
    )
    assert time.monotonic() - began >= 3
