"""What servers are known by. Real ones are asked in tests/live."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from django_sse_live.exits import ExitWork
from django_sse_live.http.servers import abort_connection, uvicorn
from django_sse_live.http.shutdown import StopHandler
from tests.live.harness import until


class Server:
    def __init__(self) -> None:
        self.should_exit = False
        self.listening = True
        self.servers: list[Any] = [SimpleNamespace(is_serving=lambda: self.listening)]

    def handle_exit(self, number: int, frame: Any) -> None: ...


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="only it has signal handlers")
@pytest.mark.parametrize("stand_before", ["", "stop", "work", "work stop", "stop work stop"])
def test_a_uvicorn_that_ends_is_noticed_by_its_flag_and_by_its_listeners(stand_before: str) -> None:
    server = Server()
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    work = ExitWork(lambda: None, lambda: False)
    try:
        for each in stand_before.split():
            if each == "work":  # of a bus
                work.watch_signals()
            else:
                signal.signal(signal.SIGTERM, StopHandler(None, signal.getsignal(signal.SIGTERM)))  # type: ignore[arg-type]
        assert not uvicorn.is_ending()
        server.should_exit = True
        assert uvicorn.is_ending()
        server.should_exit, server.listening = False, False
        assert uvicorn.is_ending()
        server.servers = []  # not yet started
        assert not uvicorn.is_ending()
    finally:
        work.cancel()
        signal.signal(signal.SIGTERM, before)
    assert not uvicorn.is_ending()


@pytest.mark.skipif(sys.platform != "linux", reason="only there can a connection be found by its peer")
async def test_connections_whose_transport_is_not_known_are_ended_by_the_addresses_of_their_peers() -> None:
    hub: Any = SimpleNamespace(parts={})
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clients = [socket.create_connection(listening.getsockname()) for _ in range(3)]
        served = [listening.accept()[0] for _ in clients]

    def is_over(client: socket.socket) -> bool:
        client.setblocking(False)
        try:
            return client.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    try:
        for client in clients[:2]:
            abort_connection(hub, client.getsockname(), None)
        await until(lambda: all(map(is_over, clients[:2])))
        assert not is_over(clients[2])
        abort_connection(hub, clients[2].getsockname(), None)  # in a later turn of the loop
        await until(lambda: is_over(clients[2]))
    finally:
        for each in (*clients, *served):
            each.close()
