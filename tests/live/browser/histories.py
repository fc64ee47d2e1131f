"""Histories of a page: saves, cuts, restarts, hides at random; then it must equal one that is freshly loaded.

python -m tests.live.browser.histories [chromium|firefox|webkit] [acts] [seed]
"""

from __future__ import annotations

import glob
import json
import queue
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import sync_playwright

from tests.live.browser import drivers
from tests.live.browser.network import Network
from tests.runserver import Runserver

SAVES = (
    "create create create edit edit like tag admin delete delete again move move part "
    "hide show bulk update two rollback".split()
)
MINIBROWSERS = "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"
ACTS_BETWEEN_COMPARISONS = 25


class Page:
    """Says to the page what it is to do, one thing after the other, on a way that is never cut."""

    def __init__(self) -> None:
        self.orders: queue.Queue[str] = queue.Queue()
        self.results: queue.Queue[dict[str, Any]] = queue.Queue()
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                page.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                body = json.dumps({"act": page.orders.get()}).encode()
                self.send_response(200)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def do(self, act: str, seconds: float = 180) -> dict[str, Any]:
        self.orders.put(act)
        return self.results.get(timeout=seconds)


@contextmanager
def site(directory: Path) -> Iterator[Runserver]:
    server = Runserver("tests.live.browser.pages.settings", directory, PAGES_DATABASE=str(directory / "db.sqlite3"))
    server.manage("migrate", "--verbosity=0", "--run-syncdb")
    server.start()
    try:
        yield server
    finally:
        server.kill()


class History:
    """One page of one site. Comparisons raise AssertionError with what differs."""

    def __init__(self, server: Runserver, directory: Path, path: str, seed: int) -> None:
        self.server, self.path, self.seed = server, path, seed
        self.database = directory / "db.sqlite3"
        self.random = random.Random(seed)
        self.network = Network(server)
        self.page = Page()
        self.url = f"{self.network.url}{path}?control={self.page.port}"
        self.acts: Counter[str] = Counter()
        self.compared = 0
        self.is_cut = self.is_hidden = False

    def run(self, count: int) -> None:
        self.agent = self.page.results.get(timeout=60)["agent"]
        for number in range(count):
            self._act()
            if (number + 1) % ACTS_BETWEEN_COMPARISONS == 0 or number == count - 1:
                self.compare()
            elif self.random.random() < 0.3:
                time.sleep(self.random.random() * 0.5)

    def _act(self) -> None:
        kinds = {
            "save": 70,
            "cut": 8,
            "mend": 8,
            "kill": 2,
            "stop": 2,
            "hidden": 5,
            "seen": 5,
            "bring": 4,
            "trouble": 4,
        }
        kind = self.random.choices(list(kinds), list(kinds.values()))[0]
        act = self.random.choice(SAVES) if kind == "save" else kind
        self.acts[act] += 1
        if kind in ("save", "trouble"):
            self._tell_site(act)
        elif kind == "cut":
            self.network.cut()
            self.is_cut = True
        elif kind == "mend":
            self._mend()
        elif kind in ("kill", "stop"):
            if kind == "stop" and self.server.process is not None:
                self.server.signal(signal.SIGTERM)
                self.server.process.wait(60)  # a busy machine is not what is judged here
            self.server.kill()
            self._save_while_down()
            self.server.start()
        elif kind == "bring":
            self.page.orders.put("bring")  # nobody waits for it: it goes on while the network is cut
            self._mend()
            self.page.results.get(timeout=60)
        else:
            self.page.do(kind)

    def _mend(self) -> None:
        if self.is_cut:
            self.network.mend()
            self.is_cut = False

    def _tell_site(self, act: str) -> None:
        order = {"act": act, "seed": self.random.random()}
        answer = httpx.post(f"{self.server.url}/act/", json=order, timeout=60)
        assert answer.status_code == 204, (act, answer.text[:3000])

    def _save_while_down(self) -> None:
        with sqlite3.connect(self.database) as connection:
            connection.execute(
                "UPDATE pages_note SET text = ? WHERE pk % 3 = 0".replace("pk", "id"), [f"down {time.time()}"]
            )
            connection.execute("DELETE FROM pages_note_tags WHERE note_id % 7 = 0")
            connection.execute("DELETE FROM pages_remark WHERE note_id % 7 = 0")
            connection.execute("DELETE FROM pages_note WHERE id % 7 = 0")
        connection.close()

    def compare(self) -> None:
        self._mend()
        self.page.do("seen")
        result = self.page.do("compare")
        self.compared += 1
        assert result["differences"] == [], (self.seed, dict(self.acts), result)
        assert result["problems"] == [], (self.seed, result)

    def end(self) -> None:
        self.network.cut()
        self.page.server.shutdown()


def play(
    driven: Callable[[str], AbstractContextManager[None]], directory: Path, path: str, count: int, seed: int
) -> History:
    with site(directory) as server:
        history = History(server, directory, path, seed)
        try:
            with driven(history.url):
                history.run(count)
        finally:
            history.end()
    return history


@contextmanager
def driven(engine: str, directory: Path, url: str) -> Iterator[None]:
    """For the command line. In a test the engine is a fixture's, or skipped."""
    if engine == "firefox":
        with drivers.firefox("firefox-esr", directory, url):
            yield
    elif engine == "webkit":
        minibrowser = sorted(glob.glob(MINIBROWSERS))[-1]
        with drivers.webkit("WebKitWebDriver", "xvfb-run", minibrowser, directory, url):
            yield
    else:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            with drivers.chromium(browser, url):
                yield
            browser.close()


def main(engine: str = "chromium", count: str = "1000", seed: str = "") -> None:
    for path in ("/board/", "/cached/"):
        with tempfile.TemporaryDirectory() as directory:
            began = time.monotonic()
            number = int(seed or random.randrange(10**6))
            print(f"{engine} {path} seed {number}: begins", flush=True)
            history = play(partial(driven, engine, Path(directory)), Path(directory), path, int(count) // 2, number)
            seconds = time.monotonic() - began
            print(history.agent, dict(history.acts), sep="\n")
            print(f"{path}: {history.compared} comparisons, 0 differences, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
