"""Three engines, one gesture: open a page. What the page then finds out it reports to the site itself.

Chromium by Playwright; Firefox by WebDriver BiDi; WebKitGTK's MiniBrowser by WebDriver. None needs more than Debian's
packages and what the tests already use.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.live.harness import free_port

PREFERENCES = """
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("toolkit.telemetry.enabled", false);
"""


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    # In a group of its own: xvfb-run leaves its children behind when it is ended alone.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass


def until(condition: Any, seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.1)
    return value


@contextmanager
def firefox(path: str, directory: Path, url: str, preferences: str = "") -> Iterator[None]:
    """https://w3c.github.io/webdriver-bidi/"""
    from websockets.sync.client import connect

    (directory / "profile").mkdir()
    (directory / "profile" / "user.js").write_text(PREFERENCES + preferences)
    log = directory / "firefox.log"
    command = [path, "--headless", "--no-remote", "--profile", str(directory / "profile"), "--remote-debugging-port=0"]
    with running(command, log, HOME=str(directory)):
        found = until(lambda: re.search(r"WebDriver BiDi listening on (\S+)", log.read_text()), 60, "Firefox")
        with connect(f"{found[1]}/session", open_timeout=30) as socket:
            ids = iter(range(1, 1000))

            def command_(method: str, **params: Any) -> Any:
                number = next(ids)
                socket.send(json.dumps({"id": number, "method": method, "params": params}))
                while (answer := json.loads(socket.recv(timeout=60))).get("id") != number:
                    pass
                assert answer["type"] == "success", answer
                return answer["result"]

            command_("session.new", capabilities={})
            context = command_("browsingContext.getTree")["contexts"][0]["context"]
            command_("browsingContext.navigate", context=context, url=url, wait="none")
            yield
            command_("browser.close")


@contextmanager
def webkit(driver: str, xvfb: str, minibrowser: str, directory: Path, url: str) -> Iterator[None]:
    """https://www.w3.org/TR/webdriver2/"""
    port = free_port()
    command = [xvfb, "-a", driver, f"--port={port}"]
    with running(
        command,
        directory / "webkit.log",
        HOME=str(directory),
        WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS="1",
        WEBKIT_DISABLE_COMPOSITING_MODE="1",
        LIBGL_ALWAYS_SOFTWARE="1",
    ):
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

        def is_there() -> bool:
            try:
                return client.get("/status").status_code == 200
            except httpx.TransportError:
                return False

        until(is_there, 30, "WebKitWebDriver")
        options = {"binary": minibrowser, "args": ["--automation"]}
        wanted = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        answer = client.post("/session", json=wanted).raise_for_status().json()
        session = f"/session/{answer['value']['sessionId']}"
        client.post(f"{session}/url", json={"url": url}).raise_for_status()
        yield
        client.delete(session)


@contextmanager
def chromium(browser: Any, url: str) -> Iterator[None]:
    page = browser.new_page()
    page.goto(url)
    yield
    page.close()
