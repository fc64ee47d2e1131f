"""Servers as processes: started, signalled, asked how they are, and what they wrote to stderr."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from .conditions import until

ROOT = Path(__file__).resolve().parents[3]
APPLICATION = "tests.live.project.asgi:application"

# name → arguments after `python -m`. {port}, {app} and {directory}, which is empty and this server's own.
COMMANDS = {
    "daphne": "daphne -b 127.0.0.1 -p {port} {app}",
    "uvicorn": "uvicorn --host 127.0.0.1 --port {port} {app}",
    "uvicorn-h11": "uvicorn --http h11 --loop asyncio --host 127.0.0.1 --port {port} {app}",
    "uvicorn-2": "uvicorn --workers 2 --host 127.0.0.1 --port {port} {app}",
    "uvicorn-reload": "uvicorn --reload --reload-dir {directory} --host 127.0.0.1 --port {port} {app}",
    "hypercorn": "hypercorn -b 127.0.0.1:{port} {app}",
    "hypercorn-2": "hypercorn --workers 2 -b 127.0.0.1:{port} {app}",
    "granian": "granian --interface asgi --backpressure 10000 --host 127.0.0.1 --port {port} {app}",
    "granian-2": "granian --interface asgi --backpressure 10000 --workers 2 --host 127.0.0.1 --port {port} {app}",
    "gunicorn": "gunicorn -k uvicorn_worker.UvicornWorker -b 127.0.0.1:{port} {app}",
    "gunicorn-2": "gunicorn -k uvicorn_worker.UvicornWorker --workers 2 -b 127.0.0.1:{port} {app}",
    "runserver": "django runserver 127.0.0.1:{port}",
}
FOUR = ("daphne", "uvicorn", "hypercorn", "granian")
ALL = (*FOUR, "uvicorn-2", "granian-2", "uvicorn-reload", "gunicorn")

# What may stand in a server's output when nothing is wrong.
QUIET = re.compile(
    r"""
    ^(DEBUG|INFO)\b              # Django's and the project's loggers; Uvicorn; Daphne with our root logger
    | ^\[(DEBUG|INFO)\]          # Granian
    | ^\[[^]]*\]\ \[\d+\]\ \[(DEBUG|INFO)\]   # Hypercorn, Gunicorn
    | ^\d{4}-\d\d-\d\d\ \S+\ (DEBUG|INFO)\b   # Daphne
    | ^(::1|127\.0\.0\.1):\d+\ -\ -\ \[       # Daphne's access log
    | ^\s*$
    """,
    re.VERBOSE,
)
# What servers say above INFO of their own, when nothing is wrong.
KNOWN = re.compile(
    r"""
    continuing\ without\ Lifespan\ support  # Django has none
    | WatchFiles\ detected\ changes | StatReload\ detected\ changes
    # Granian, whose threads may outlive the interpreter that they refer to.
    | ^thread\ 'tokio-rt-worker'.*/pyo3-\d | Cannot\ drop\ pointer\ into\ Python\ heap
    | ^stack\ backtrace:$ | ^note:.*\bRUST_BACKTRACE=
    """,
    re.VERBOSE,
)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def raise_descriptor_limit() -> int:
    """As many descriptors as this process may have: 2,000 clients need two each, one here and one in the server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Server:
    """One server, in a process group of its own. ``async with``, or start() and stop()."""

    def __init__(
        self,
        name: str = "uvicorn",
        *,
        port: int | None = None,
        app: str = APPLICATION,
        arguments: str = "",
        environment: dict[str, str] | None = None,
        middleware: list[str] | None = None,
        wrapper: list[str] | None = None,
        **sse_live: Any,
    ) -> None:
        """``arguments``: more of the command line. ``wrapper``: a command before it. ``sse_live``: keys of SSE_LIVE."""
        self.name = name
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = Path(tempfile.mkdtemp(prefix="sse-live-"))
        self.log = self.directory / "stderr.log"
        command = COMMANDS[name].format(port=self.port, app=app, directory=self.directory)
        self.command = [*(wrapper or []), sys.executable, "-m", *command.split(), *arguments.split()]
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.live.project.settings",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "LIVE_SSE": json.dumps(sse_live),
            **({"LIVE_MIDDLEWARE": json.dumps(middleware)} if middleware is not None else {}),
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._kept = ""  # the output up to the last kill()

    @classmethod
    async def start(cls, name: str = "uvicorn", **options: Any) -> Server:
        """Ready: it answers requests."""
        server = cls(name, **options)
        await server.begin()
        return server

    async def begin(self) -> None:
        self.directory.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220
                self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            await until(self._answers, 30, say=self.output)
        except AssertionError:
            await self.kill()
            raise

    async def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.output()
        try:
            return (await self.get("/plain/async/")) == "async"
        except (OSError, asyncio.IncompleteReadError):
            return False

    async def __aenter__(self) -> Server:
        if self.process is None:
            await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    # Ask it

    async def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b"", seconds: float = 30
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers (names in small letters), body."""
        return await asyncio.wait_for(self._request(method, path, headers or {}, body), seconds)

    async def _request(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            lines = {"Host": "127.0.0.1", "Connection": "close", **headers}
            if body:
                lines["Content-Length"] = str(len(body))
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            await writer.drain()
            status_line, *header_lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            answered: dict[str, str] = {}
            for line in filter(None, header_lines):
                name, _, value = line.partition(": ")
                name = name.lower()
                answered[name] = f"{answered[name]}\n{value}" if name in answered else value
            content = b""
            if method == "HEAD":
                content = await reader.read()
            elif answered.get("transfer-encoding") == "chunked":
                while size := int(await reader.readline(), 16):
                    content += (await reader.readexactly(size + 2))[:-2]
            elif "content-length" in answered:
                content = await reader.readexactly(int(answered["content-length"]))
            else:
                content = await reader.read()
            return int(status_line.split()[1]), answered, content
        finally:
            writer.close()

    async def get(self, path: str, **headers: str) -> str:
        status, _, body = await self.request("GET", path, headers=headers)
        assert status == 200, (status, body[:2000])
        return body.decode()

    async def get_json(self, path: str) -> Any:
        return json.loads(await self.get(path))

    async def state(self, *, collect: bool = False) -> dict[str, int]:
        """What the worker that answers holds now: clients, tasks, threads, descriptors, sockets, rss_kib …"""
        state: dict[str, int] = await self.get_json("/state/?collect=1" if collect else "/state/")
        return state

    # Its end

    def signal(self, number: int) -> None:
        """To the process that was started: a supervisor, where there are workers."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def gone(self, seconds: float = 60) -> float:
        """Wait until the process and all of its workers are gone; how long that took, in seconds."""
        began = time.monotonic()
        await until(lambda: not self.is_running and not self.pids(), seconds, say=self.output)
        return time.monotonic() - began

    def pids(self) -> list[int]:
        """Every process of this server's group that is not a zombie."""
        assert self.process is not None
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid and fields[0] != "Z":
                found.append(int(path.parent.name))
        return found

    async def stop(self, number: int = SIGTERM, seconds: float = 60) -> float:
        """A signal, and how long it took until everything was gone."""
        self.signal(number)
        return await self.gone(seconds)

    async def kill(self) -> None:
        """SIGKILL to every process of the group."""
        if self.process is not None:
            for pid in self.pids():
                try:
                    os.kill(pid, SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
        self._kept = self.output()
        shutil.rmtree(self.directory, ignore_errors=True)

    # What it wrote

    def output(self) -> str:
        return self._kept + (self.log.read_text(errors="replace") if self.log.exists() else "")

    def noise(self, *, besides: Callable[[str], bool] = lambda line: False) -> list[str]:
        """The lines above INFO, tracebacks included. ``besides``: lines that the test itself asked for."""
        return [
            line
            for line in self.output().splitlines()
            if not QUIET.search(line) and not KNOWN.search(line) and not besides(line)
        ]

    def count(self, text: str) -> int:
        """In how many lines of the output this stands."""
        return sum(text in line for line in self.output().splitlines())
