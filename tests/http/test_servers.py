"""What servers are known by. Real ones are asked in tests/live."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from django_sse_live.http.servers import uvicorn
from django_sse_live.http.shutdown import StopHandler


class Server:
    def __init__(self) -> None:
        self.should_exit = False
        self.listening = True
        self.servers: list[Any] = [SimpleNamespace(is_serving=lambda: self.listening)]

    def handle_exit(self, number: int, frame: Any) -> None: ...


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="only it has signal handlers")
@pytest.mark.parametrize("stands_before", [False, True])
def test_a_uvicorn_that_ends_is_noticed_by_its_flag_and_by_its_listeners(stands_before: bool) -> None:
    server = Server()
    handler: Any = server.handle_exit
    before = signal.signal(signal.SIGTERM, StopHandler(None, handler) if stands_before else handler)
    try:
        assert not uvicorn.is_ending()
        server.should_exit = True
        assert uvicorn.is_ending()
        server.should_exit, server.listening = False, False
        assert uvicorn.is_ending()
        server.servers = []  # not yet started
        assert not uvicorn.is_ending()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not uvicorn.is_ending()
