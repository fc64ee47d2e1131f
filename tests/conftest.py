"""What every test may use: the programs that only some machines have, missed by name; and Chromium.

A test that needs one says so, `@pytest.mark.needs("chromium")`, and finds its path in the fixture `tools`. Where the
program is missing the test is skipped, and the run's first lines and its summary name it. In CI, which sets
SSE_LIVE_REQUIRE_TOOLS=1, a skip for want of something is a failure.
"""

from __future__ import annotations

import glob
import importlib.metadata
import os
import shutil
from collections.abc import Generator, Iterator
from typing import Any

import pytest

# name → (commands that will do, Debian's package)
PROGRAMS = {
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "chromium"),
    "firefox": (("firefox-esr", "firefox"), "firefox-esr"),
    "webkit": (("WebKitWebDriver",), "webkit2gtk-driver"),
    "redis": (("redis-server",), "redis-server"),
    "nginx": (("nginx",), "nginx"),
    "postgresql": (("initdb",), "postgresql"),
    "mariadb": (("mariadbd",), "mariadb-server"),
    "pgbouncer": (("pgbouncer",), "pgbouncer"),
    "node": (("node",), "nodejs"),
    "npm": (("npm",), "npm"),
    "curl": (("curl",), "curl"),
}

# nginx lives in /usr/sbin, which is not in everybody's PATH; PostgreSQL's programs in a folder for each version.
SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *glob.glob("/usr/lib/postgresql/*/bin")]
)

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

REQUIRE_TOOLS = os.environ.get("SSE_LIVE_REQUIRE_TOOLS", "") not in ("", "0")


def find_program(name: str) -> str | None:
    """The path of a program of PROGRAMS, or None."""
    commands, _package = PROGRAMS[name]
    return next((path for command in commands if (path := shutil.which(command, path=SEARCH_PATH))), None)


def how_to_get(name: str) -> str:
    _commands, package = PROGRAMS[name]
    return f"needs {name}, which is not on this machine (Debian: apt-get install {package})"


@pytest.fixture(scope="session")
def tools() -> dict[str, str]:
    """Paths of the programs that are there, by name."""
    return {name: path for name in PROGRAMS if (path := find_program(name))}


@pytest.fixture(scope="module")
def redis() -> Iterator[Any]:
    """A redis-server for the tests of one file."""
    from tests.backends.redis_process import RedisProcess

    with RedisProcess() as process:
        yield process


@pytest.fixture
def celery() -> Any:
    """Celery, with Redis as its broker."""
    module = pytest.importorskip("celery")
    if tuple(map(int, importlib.metadata.version("redis").split(".")[:2])) < (6, 1):
        pytest.skip("Celery's Redis transport wants redis-py 6.1")
    return module


@pytest.fixture(scope="session")
def chromium(tools: dict[str, str]) -> Iterator[Any]:
    """Playwright's handle of a headless Chromium."""
    if "chromium" not in tools:
        pytest.skip(how_to_get("chromium"))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tools["chromium"], args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a browser come last: while one is open, Playwright's loop runs in this thread, and none else may."""

    def place(item: pytest.Item) -> int:
        if "tests/live/browser/" in item.nodeid:
            return 2
        return 1 if "chromium" in getattr(item, "fixturenames", ()) else 0

    items.sort(key=place)


def pytest_report_header(config: pytest.Config) -> list[str]:
    missing = ", ".join(name for name in PROGRAMS if find_program(name) is None)
    return [f"missing: {missing}: tests that need them {'fail' if REQUIRE_TOOLS else 'are skipped'}"] if missing else []


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if name not in PROGRAMS:
                pytest.fail(f'needs("{name}"): unknown, choose from {", ".join(PROGRAMS)}', pytrace=False)
            if find_program(name) is None:
                pytest.skip(how_to_get(name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whoever skips "needs …", marker or not: where every tool is required, that is a failure."""
    report = yield
    if REQUIRE_TOOLS and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith("needs "):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: {reason}"
    return report
