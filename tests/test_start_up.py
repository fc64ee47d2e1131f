"""What a developer is told by manage.py: a mistyped setting in one line, and streams as they open and end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.harness import free_port

ROOT = Path(__file__).resolve().parents[1]
MISTYPED = "SSE_LIVE has no key 'HEARTBEAT'. Did you mean HEARTBEAT_SECONDS?"
PATIENCE_SECONDS = 60


class Site:
    """startproject, and what is added to its settings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)
        command = [sys.executable, "-m", "django", "startproject", "mysite", "."]
        subprocess.run(command, cwd=directory, env=self.environment, check=True)
        self.settings('INSTALLED_APPS = ["daphne", *INSTALLED_APPS, "django_sse_live"]')
        self.settings('ASGI_APPLICATION = "mysite.asgi.application"')
        urls = (
            "from django.urls import include, path\nurlpatterns = [path('events/', include('django_sse_live.urls'))]\n"
        )
        (directory / "mysite" / "urls.py").write_text(urls)

    def settings(self, line: str) -> None:
        with (self.directory / "mysite" / "settings.py").open("a") as file:
            file.write(line + "\n")

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )

    @contextmanager
    def runserver(self, *arguments: str) -> Iterator[Callable[[Callable[[str], Any]], str]]:
        """Gives a function that waits until what the server has said fulfils a condition."""
        log = self.directory / "said"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "runserver", *arguments],
                cwd=self.directory, env=self.environment, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

        def wait_for(condition: Callable[[str], Any]) -> str:
            end = time.monotonic() + PATIENCE_SECONDS
            while not condition(text := log.read_text()):
                assert time.monotonic() < end, text
                time.sleep(0.05)
            return text

        try:
            yield wait_for
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/events/health/").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("command", [("check",), ("runserver", "--noreload", "0"), ("migrate",), ("sse_live_status",)])
def test_a_mistyped_setting_is_one_line_of_a_system_check(site: Site, command: tuple[str, ...]) -> None:
    site.settings('SSE_LIVE = {"HEARTBEAT": 30}')
    said = site.manage(*command)
    assert said.returncode == 1
    assert f"(sse_live.E001) {MISTYPED}\n" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_runserver_that_reloads_says_it_in_one_line_and_starts_when_it_is_mended(site: Site) -> None:
    before = (site.directory / "mysite" / "settings.py").read_text()
    site.settings('SSE_LIVE = {"HEARTBEAT": 30}')
    with site.runserver(f"{free_port()}") as wait_for:
        wait_for(lambda text: MISTYPED in text)
        written_at = 0.0

        def starts(text: str) -> bool:
            nonlocal written_at
            if time.monotonic() - written_at > 5:  # the reloader may not have looked for the first time yet
                (site.directory / "mysite" / "settings.py").write_text(before)
                written_at = time.monotonic()
            return "Quit the server" in text

        text = wait_for(starts)
        assert "Traceback" not in text


def test_a_server_does_not_start_with_a_mistyped_setting(site: Site) -> None:
    site.settings('SSE_LIVE = {"HEARTBEAT": 30}')
    said = subprocess.run(
        [sys.executable, "-c", "import mysite.asgi"],
        cwd=site.directory, env=site.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 1 and MISTYPED in said.stderr


@pytest.mark.parametrize(
    "logging", ["", 'LOGGING = {"version": 1, "loggers": {"django_sse_live": {"level": "ERROR"}}}']
)
def test_runserver_shows_when_a_stream_opens_and_ends_unless_logging_says_otherwise(site: Site, logging: str) -> None:
    site.settings('SSE_LIVE = {"PUBLIC_CHANNELS": ["news"]}')
    site.settings(logging)
    port = free_port()
    with site.runserver("--noreload", f"{port}") as wait_for:
        wait_for(lambda text: answers(port))
        with httpx.stream("GET", f"http://127.0.0.1:{port}/events/?channel=news") as stream:
            next(stream.iter_lines())
            text = wait_for(lambda text: logging or "SSE client connected (ID: " in text)
        text = wait_for(lambda text: logging or "SSE client disconnected (ID: " in text)
        assert text.count("SSE client connected") == (0 if logging else 1)


def test_that_runserver_speaks_wsgi_is_said_where_it_matters(site: Site) -> None:
    site.settings('INSTALLED_APPS.remove("daphne")')
    assert "sse_live.W002" not in site.manage("migrate").stderr
    said = site.manage("check").stderr
    assert "sse_live.W002" in said and "ASGIStaticFilesHandler" in said


def test_what_an_error_says_to_install_is_what_the_extra_asks_for() -> None:
    wanted = (ROOT / "setup.cfg").read_text().split()
    sources = [path.read_text() for path in (ROOT / "django_sse_live" / "backends").rglob("*.py")]
    hints = [hint for source in sources for hint in re.findall(r'pip install "([^"]+)"', source)]
    assert len(hints) == 2 and all(hint in wanted for hint in hints), hints
