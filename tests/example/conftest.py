"""The example as a visitor meets it: a running server, cookies, forms, the stream. Nothing is imported from it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A Django project served by `runserver`, which is Daphne's."""

    def __init__(self, manage_py: Path, settings: str, directory: Path, **environment: str) -> None:
        self.manage_py = manage_py
        self.log = directory / "server.log"
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": settings,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self.process: subprocess.Popen[bytes] | None = None

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, str(self.manage_py), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        command = [sys.executable, str(self.manage_py), "runserver", "--noreload", self.address]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(self.url)
                return
            except httpx.TransportError:
                assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


class Visitor(httpx.Client):
    """A browser without JavaScript: it keeps cookies, fills in forms, and can hold a stream open."""

    def submit(self, path: str, **fields: str) -> httpx.Response:
        page = self.get(path)
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert token, page.text
        return self.post(path, data={**fields, "csrfmiddlewaretoken": token[1]})

    def log_in(self, name: str) -> Visitor:
        response = self.submit("/login/", username=name, password=name)
        assert response.status_code == 302, response.text
        return self

    @contextmanager
    def listen(self) -> Iterator[Iterator[tuple[str, Any]]]:
        """The (type, data) of each event on the channel comments, from `connected` on; waits 10 s for each, at most."""
        with self.stream("GET", "/events/", params={"channel": "comments"}) as response:
            assert response.status_code == 200, response.read()
            yield self.events(response)

    @staticmethod
    def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
        frame: dict[str, str] = {}
        for line in response.iter_lines():
            if line:
                field, _, value = line.partition(": ")
                frame[field] = value
            else:
                if "data" in frame:
                    yield frame["event"], json.loads(frame["data"])
                frame = {}


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example project, with a database of its own."""
    directory = tmp_path_factory.mktemp("example")
    manage_py = ROOT / "example_project" / "manage.py"
    example = Site(manage_py, "config.settings", directory, EXAMPLE_DATABASE=str(directory / "db.sqlite3"))
    example.manage("seed")
    example.start()
    yield example
    example.stop()


@pytest.fixture
def visitor(example: Site) -> Iterator[Any]:
    """A new visitor at each call."""
    visitors: list[Visitor] = []

    def new() -> Visitor:
        visitors.append(Visitor(base_url=example.url, timeout=10))
        return visitors[-1]

    yield new
    for visitor in visitors:
        visitor.close()
