"""A newcomer's first run: an empty directory, the wheel, and a page, followed to the letter.

    python tests/docs/newcomer.py dist/django_sse_live-0.1.0-py3-none-any.whl tutorial
    python tests/docs/newcomer.py dist/django_sse_live-0.1.0-py3-none-any.whl tutorial answer progress react spa
    python tests/docs/newcomer.py dist/django_sse_live-0.1.0-py3-none-any.whl README htmx4 htmx2 turbo

What a page says is typed, what it shows is written down as a file. Where the tutorial looks at the wire a comment is
written, over HTTP, and the stream that curl reads must bring the event. Each guide named after that goes on in a copy
of the project, and what it promises is looked at: see scenes.py. CHROMIUM is the browser. The exit status is 0 when all
of it worked.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.request import OpenerDirector

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.docs.blocks import Block, blocks_of
from tests.docs.scenes import GUIDES, PATIENCE_SECONDS, USERS

STARTED = ("server", "stream", "vite", "command")


class Newcomer:
    def __init__(self, directory: Path, package: str, python: str = sys.executable, **environment: str) -> None:
        self.directory = directory
        self.package = package
        self.notes = Path(tempfile.mkdtemp(prefix="newcomer-"))
        tools = self.notes / "bin"
        tools.mkdir()
        (tools / "python3").symlink_to(getattr(sys, "_base_executable", None) or python)
        dropped = {"VIRTUAL_ENV", "PYTHONPATH", "DJANGO_SETTINGS_MODULE", "PYTHONHOME"}
        self.environment = {name: value for name, value in os.environ.items() if name not in dropped}
        self.environment |= {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_QUIET": "1",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.port, self.vite_port = free_port(), free_port()
        self.url, self.vite_url = (f"http://127.0.0.1:{port}" for port in (self.port, self.vite_port))
        self.printed: dict[str, str] = {}  # by a word of the commands
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def follow(self, page: str, heading: str = "") -> None:
        """Do what each block of the page says, in its order; AssertionError, with what was said, if one fails. Where
        it ends with a server, a comment is written there."""
        try:
            for block in blocks_of(page, heading):
                self.do(block)
            self.write_a_comment("Hello again")
            assert "sse-live" in (self.page() or "")
        finally:
            self.stop()

    def do(self, block: Block) -> None:
        print(f"--- {block}", flush=True)
        if block.language == "console":
            self.type(block)
        elif block.language == "text":
            self.compare(block)
        elif block.path is not None:
            text = block.text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
            replace(block, text=text).write_into(self.directory)

    def go_on(self, name: str) -> None:
        """Do what a guide says in a copy of the project as it is now, with its database, and look at what it gives."""
        guide = GUIDES[name]
        with self.copy(name):
            for block in blocks_of(guide.page):
                if guide.for_others is None or guide.for_others not in block.text:
                    if guide.typed is None or block.language != "console" or guide.typed not in block.text:
                        self.do(block)
                    for words, scene in guide.scenes.items():
                        if words and block.language == "console" and words in block.text:
                            scene(self)
            if None in guide.scenes:
                self.restart()
                guide.scenes[None](self)

    @contextmanager
    def copy(self, name: str) -> Iterator[None]:
        before, self.directory = self.directory, self.notes / name
        shutil.copytree(before, self.directory, ignore=shutil.ignore_patterns(".venv"))
        try:
            yield
        finally:
            self.stop()
            self.directory = before

    def restart(self) -> None:
        self.stop("server")
        self.start(f"exec python manage.py runserver 127.0.0.1:{self.port}", "server")
        self.until(lambda: self.page() is not None, "the page is served")

    def type(self, block: Block) -> None:
        """In one shell, as it were: where it ends up, and what it exports, is where the next block begins."""
        text = block.text.replace("/path/to/django-sse-live", self.package)
        for user in USERS:
            command = f"DJANGO_SUPERUSER_PASSWORD={user} python manage.py createsuperuser"
            answers = f"--noinput --username {user} --email {user}@example.com"
            text = re.sub(
                "^python manage.py createsuperuser$", f"{command} {answers}", text, count=1, flags=re.MULTILINE
            )
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        lines = text.splitlines(keepends=True)
        last = lines[-1].strip()
        starts = last.startswith("curl -N") or last.endswith("runserver") or last == "npx vite"
        script = "".join(lines[:-1] if starts else lines)
        after = f'pwd > "{self.notes}/cwd"; env -0 > "{self.notes}/env"\n'
        printed = self.run(["bash", "-c", f"set -e\n{script}\n{after}"])
        self.printed |= dict.fromkeys(re.findall(r"[\w.]+", script), printed)
        before, self.directory = self.directory, Path((self.notes / "cwd").read_text().strip())
        pairs = (self.notes / "env").read_text().split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if last.endswith("runserver"):
            self.restart()
        elif last == "npx vite":
            self.start(f"exec npx vite --port {self.vite_port} --strictPort --host 127.0.0.1", "vite")
            self.directory = before  # it was another terminal
            self.until(lambda: self.page(self.vite_url) is not None, "Vite serves its page")
        elif starts:
            self.start(f"exec {last}", "stream")
            self.until(lambda: "event: connected" in self.said("stream"), "the stream is open")
            self.write_a_comment("Hello")
            self.until(lambda: "event: new_comment" in self.said("stream"), "the event has arrived")
            self.until(lambda: self.said("stream").endswith("\n\n"), "all of it")
            print(self.said("stream"), end="", flush=True)

    def run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        print(done.stdout, end="", flush=True)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}"
        return done.stdout

    def start(self, line: str, name: str) -> None:
        with (self.notes / name).open("wb") as said:
            process = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.directory,
                env=self.environment,
                stdout=said,
                stderr=None if name == "stream" else subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[name] = process

    def said(self, name: str) -> str:
        return (self.notes / name).read_text()

    def page(self, url: str = "") -> str | None:
        try:
            with urllib.request.urlopen(f"{url or self.url}/", timeout=PATIENCE_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    def write_a_comment(self, text: str) -> None:
        answer = self.send(self.browser(), text=text)
        assert text in answer, answer

    def read(self, browser: OpenerDirector, path: str = "") -> str:
        with browser.open(f"{self.url}/{path}", timeout=PATIENCE_SECONDS) as answer:
            return str(answer.read().decode())

    @staticmethod
    def browser() -> OpenerDirector:
        return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def send(self, browser: OpenerDirector, **fields: str | tuple[str, str]) -> str:
        """By the form of the first page, or of that to which it leads; the page that comes of it. A file is its name
        and its text."""
        with browser.open(f"{self.url}/", timeout=PATIENCE_SECONDS) as answer:
            url, page = answer.url, answer.read().decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token, page
        parts = []
        for name, value in {"csrfmiddlewaretoken": token[1], **fields}.items():
            file, text = (f'; filename="{value[0]}"', value[1]) if isinstance(value, tuple) else ("", value)
            parts.append(f'--boundary\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{text}\r\n')
        body = "".join([*parts, "--boundary--\r\n"]).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "multipart/form-data; boundary=boundary"})
        return str(browser.open(request, timeout=PATIENCE_SECONDS).read().decode())

    def compare(self, block: Block) -> None:
        """What the tutorial shows of the wire is what came: the same lines, whatever the ids."""

        def shape(stream: str) -> str:
            stream = re.sub(r"\w+:\d+-\d+", "ID", stream)
            return re.sub(r'"client_id":"[^"]*"', '"client_id":"…"', stream).strip()

        assert shape(self.said("stream")) == shape(block.text), self.said("stream")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, f"not in {PATIENCE_SECONDS} s: {what}\n{self.everything()}"
            dead = [name for name, process in self.running.items() if process.poll() is not None]
            assert not dead, f"{dead}\n{self.everything()}"
            time.sleep(0.05)

    def everything(self) -> str:
        return "\n".join(self.said(path.name) for path in self.notes.iterdir() if path.name in STARTED)

    def stop(self, *names: str) -> None:
        for name in names or list(reversed(self.running)):
            process = self.running.pop(name, None)
            if process is None:
                continue
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    """One that the kernel gives to nobody else: it must be free again after each restart."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


if __name__ == "__main__":
    package, first, *guides = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="empty-") as empty:
        newcomer = Newcomer(Path(empty), os.path.abspath(package))
        newcomer.follow(*{"tutorial": ("tutorial.md", ""), "README": ("../README.md", "Five minutes")}[first])
        for name in guides:
            newcomer.go_on(name)
    print("--- It works.")
