"""Real browsers, and the sites that they visit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.browser.network import Network
from tests.runserver import ROOT, Runserver

NODE_MODULES = ROOT / "tests/js/node_modules"


def need(*programs: str) -> list[str]:
    """The paths of these programs; without one of them the test is skipped, by its name."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    paths = [shutil.which(program, path=places) for program in programs]
    for program, path in zip(programs, paths, strict=True):
        if path is None:
            pytest.skip(f"needs {program}, which is not on this machine")
    return [path for path in paths if path]


def running_site(directory: Path, **environment: str) -> Iterator[Runserver]:
    database = str(directory / "db.sqlite3")
    server = Runserver("tests.live.browser.site.settings", directory, SITE_DATABASE=database, **environment)
    server.manage("migrate", "--verbosity=0")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runserver]:
    """The suite's own site."""
    yield from running_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def renewing_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runserver]:
    """The same, but it ends each stream after about two seconds."""
    yield from running_site(tmp_path_factory.mktemp("renewing"), SITE_MAX_AGE="8")


@pytest.fixture
def window(chromium: Any) -> Iterator[Callable[..., Any]]:
    """A window of its own, with its own cookies, at each call."""
    contexts = []

    def window(**options: Any) -> Any:
        context = chromium.new_context(**options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        return context

    yield window
    for context in contexts:
        context.close()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Runserver]:
    """The example project, with a database of its own; it may be killed."""
    server = Runserver(
        "tests.live.browser.quick_board",
        tmp_path,
        project=ROOT / "example_project",
        EXAMPLE_DATABASE=str(tmp_path / "db.sqlite3"),
    )
    server.manage("seed")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def network(board: Runserver) -> Iterator[Network]:
    """Between a browser and the board."""
    network = Network(board)
    yield network
    network.cut()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How long each break lasted: from the break to yellow, from the repair to green."""
    from tests.live.browser.test_breaks import ROWS

    if not ROWS:
        return
    terminalreporter.section("time to green, in Chromium")
    terminalreporter.write_line(f"{'what broke':32} {'yellow':>8} {'green':>8}  events after it")
    for what, yellow, green, after in ROWS:
        terminalreporter.write_line(f"{what:32} {yellow:6.1f} s {green:6.1f} s  {after}")
