"""docs/howto/spa.md, built as it is printed on the wheel alone, and opened; and the client in a bundle of webpack's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, blocks_of
from tests.docs.conftest import Project
from tests.live.harness import free_port

PAGE = "howto/spa.md"
NODE_MODULES = ROOT / "tests" / "js" / "spa" / "node_modules"
PATIENCE_SECONDS = 60

pytestmark = [
    pytest.mark.needs("node"),
    pytest.mark.skipif(not (NODE_MODULES / "vite").exists(), reason="needs Vite: npm install --prefix tests/js/spa"),
]


@pytest.fixture(scope="module")
def frontend(project_of: Callable[[str], Project], package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's front end, with the client from npm as the page gets it."""
    project = project_of(PAGE)
    directory = tmp_path_factory.mktemp("spa") / "frontend"
    shutil.copytree(project.directory / "frontend", directory)
    (directory / "package.json").write_text('{"private": true, "type": "module"}')
    lines = [line for block in blocks_of(PAGE) for line in block.text.splitlines()]
    (command,) = [line for line in lines if line.startswith("npm install --install-links")]
    offline = {"npm_config_offline": "true", "npm_config_audit": "false", "npm_config_fund": "false"}
    environment = {**os.environ, **offline, "PYTHONPATH": str(package)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    run(["bash", "-c", command], directory, environment)
    assert not (directory / "node_modules" / "django-sse-live").is_symlink()
    for path in NODE_MODULES.iterdir():
        if not (directory / "node_modules" / path.name).exists():
            (directory / "node_modules" / path.name).symlink_to(path)
    return directory


def run(command: list[str], directory: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def loaded_later(frontend: Path) -> list[str]:
    """The files that the client loads only if they are needed."""
    source = (frontend / "node_modules" / "django-sse-live" / "sse-live.js").read_text()
    return re.findall(r'new URL\("\./(sse-live-\w+\.js)", import\.meta\.url\)', source)


def test_its_types_hold(frontend: Path) -> None:
    tsc = ["node", str(NODE_MODULES / "typescript/bin/tsc"), "--project", str(frontend)]
    run(tsc, frontend)
    board = frontend / "src" / "Board.tsx"
    text = board.read_text()
    try:
        board.write_text(text.replace("<p role", '<sse-live src="/events/" persist="local" /><p role'))
        run(tsc, frontend)
        board.write_text(text.replace("<p role", '<sse-live source="/events/" /><p role'))
        with pytest.raises(AssertionError, match="source"):
            run(tsc, frontend)
    finally:
        board.write_text(text)


@pytest.mark.needs("chromium")
def test_it_goes_on_through_a_restart_of_the_server(
    frontend: Path, project_of: Callable[[str], Project], package: Path, tools: dict[str, str]
) -> None:
    from playwright.sync_api import expect, sync_playwright

    project, django, vite = replace(project_of(PAGE), package=package), free_port(), free_port()
    origin = f"http://localhost:{vite}"
    allowed = f'SSE_LIVE = {{"ALLOWED_ORIGINS": ["{origin}"], "RETRY_MS": 100}}\n'
    with (project.directory / "mysite" / "settings.py").open("a") as settings:
        settings.write(allowed)
    project.run(
        "-c",
        "import django; django.setup(); from django.contrib.auth.models import User; User.objects.create_user('otter')",
    )
    bearer = project.run(
        "-c",
        "import django; django.setup(); from django.contrib.auth.models import User; from django.core import signing\n"
        "print(signing.dumps(User.objects.get(username='otter').pk, salt='api'))",
    ).strip()
    config = frontend / "vite.config.mjs"
    config.write_text(config.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{django}"))
    stream = f"http://127.0.0.1:{django}/api/events/"  # of another origin
    vite_command = ["node", str(NODE_MODULES / "vite/bin/vite.js")]
    run([*vite_command, "build"], frontend, {**os.environ, "VITE_STREAM": stream})
    brought = [path.name for path in (frontend / "dist" / "assets").glob("sse-live-*.js")]
    wanted = [name.replace(".js", "-") for name in loaded_later(frontend)]
    assert len(brought) == len(wanted) and all(any(b.startswith(w) for b in brought) for w in wanted), brought
    preview = [*vite_command, "preview", "--port", str(vite), "--strictPort", "--host", "localhost"]
    uvicorn = [sys.executable, "-m", "uvicorn", "mysite.asgi:application", "--port", str(django)]

    def save(text: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{django}/api/comments/",
            data=json.dumps({"text": text}).encode(),
            headers={"Authorization": f"Bearer {bearer}"},
        )
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)

    def answers(url: str) -> bool:
        try:
            urllib.request.urlopen(url, timeout=PATIENCE_SECONDS)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    health = f"http://127.0.0.1:{django}/events/health/"
    with (
        running(preview, frontend, os.environ, lambda: answers(f"{origin}/")),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=tools["chromium"], args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.set_default_timeout(1000 * PATIENCE_SECONDS)
        expect.set_options(timeout=1000 * PATIENCE_SECONDS)
        try:
            with running(uvicorn, project.directory, project.environment, lambda: answers(health)):
                page.goto(f"{origin}/?token={bearer}")
                expect(page.locator("[role=status]")).to_have_text("connected")
                save("one")
                expect(page.locator("#board li")).to_have_text(["one"])
                expect(page.locator("#log li")).to_have_text(["one"])
            expect(page.locator("[role=status]")).not_to_have_text("connected")
            with running(uvicorn, project.directory, project.environment, lambda: answers(health)):
                expect(page.locator("[role=status]")).to_have_text("connected")
                save("two")
                expect(page.locator("#board li")).to_have_text(["one", "two"])
                expect(page.locator("#log li").last).to_have_text("two")
        except BaseException:
            print(said, page.content())
            raise
        finally:
            browser.close()


@contextmanager
def running(command: list[str], directory: Path, environment: Any, is_ready: Callable[[], bool]) -> Iterator[None]:
    process = subprocess.Popen(
        command, cwd=directory, env={**environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_ready():
            assert process.poll() is None and time.monotonic() < end, command
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.parametrize("mode", ["production", "development"])
def test_webpack_bundles_it_without_a_warning_and_brings_along_what_is_loaded_later(frontend: Path, mode: str) -> None:
    entry = 'import { SSELive } from "django-sse-live"; import { shared } from "django-sse-live/share";'
    (frontend / "entry.js").write_text(f"{entry} console.log(SSELive, shared);")
    output = frontend / f"webpack-{mode}"
    command = ["node", str(NODE_MODULES / "webpack-cli/bin/cli.js"), "--entry", "./entry.js"]
    said = run([*command, "--mode", mode, "--output-path", str(output), "--json"], frontend)
    result = json.loads(said)
    assert result["errors"] == [] and result["warnings"] == [], said[:3000]
    bundle = (output / "main.js").read_text()
    files = {path.name for path in output.iterdir()} - {"main.js"}
    assert len(files) == len(loaded_later(frontend)) >= 5, files
    assert all(name in bundle for name in files), files
