"""A redis-server of the tests' own, on a free port, that can be killed, paused and brought back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

START_SECONDS = 20


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class RedisProcess:
    """`with RedisProcess() as redis:` … `redis.url`. Its data, if ``aof``, outlives kill() and start()."""

    def __init__(self, *, aof: bool = False, port: int | None = None, arguments: tuple[str, ...] = ()) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.directory = tempfile.TemporaryDirectory(prefix="sse-redis-")
        self._arguments = [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory.name),
            *("--appendonly", "yes" if aof else "no", "--appendfsync", "always", *arguments),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False

    def __enter__(self) -> RedisProcess:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self.directory.cleanup()

    def start(self) -> None:
        log = Path(self.directory.name, "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen(["redis-server", *self._arguments], stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while self.command("PING")[:5] != b"+PONG":
            assert self._process.poll() is None and time.monotonic() < until, self.log
            time.sleep(0.01)

    @property
    def log(self) -> str:
        return Path(self.directory.name, "redis.log").read_text()

    def kill(self) -> None:
        """At once, as kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._is_paused = False

    def lose_data(self) -> None:
        """To be called while it is killed."""
        for path in Path(self.directory.name).iterdir():
            if path.is_dir():
                for file in path.iterdir():
                    file.unlink()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + START_SECONDS
        while Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < until
            time.sleep(0.001)
        self._is_paused = True

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)
        self._is_paused = False

    def command(self, *words: str) -> bytes:
        """The raw answer to an inline command; nothing where there is nobody to answer."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(" ".join(words).encode() + b"\r\n")
                return connection.recv(65536)
        except OSError:
            return b""
