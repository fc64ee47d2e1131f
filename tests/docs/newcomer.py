"""A newcomer's first run: an empty directory, the wheel, and docs/tutorial.md, followed to the letter.

    python tests/docs/newcomer.py dist/django_sse_live-0.1.0-py3-none-any.whl

What the tutorial says is typed, what it shows is written down as a file. Where it looks at the wire a comment is
written, over HTTP, and the stream that curl reads must bring the event. The exit status is 0 when all of it worked.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.docs.blocks import Block, blocks_of

PATIENCE_SECONDS = 60


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
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.running: list[subprocess.Popen[bytes]] = []

    def follow(self, page: str = "tutorial.md") -> None:
        """Do what each block of the page says, in its order; AssertionError, with what was said, if one fails."""
        try:
            for block in blocks_of(page):
                print(f"--- {block}", flush=True)
                if block.language == "console":
                    self.type(block)
                elif block.language == "text":
                    self.compare(block)
                else:
                    block.write_into(self.directory)
        finally:
            self.stop()

    def type(self, block: Block) -> None:
        """In one shell, as it were: where it ends up, and what it exports, is where the next block begins."""
        text = block.text.replace("/path/to/django-sse-live", self.package)
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        lines = text.splitlines(keepends=True)
        last = lines[-1].strip()
        starts = last.startswith("curl -N") or last.endswith("runserver")
        script = "".join(lines[:-1] if starts else lines)
        after = f'pwd > "{self.notes}/cwd"; env -0 > "{self.notes}/env"\n'
        self.run(["bash", "-c", f"set -e\n{script}\n{after}"])
        self.directory = Path((self.notes / "cwd").read_text().strip())
        pairs = (self.notes / "env").read_text().split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if last.endswith("runserver"):
            self.start(f"exec {last} 127.0.0.1:{self.port}", "server")
            self.until(lambda: self.page() is not None, "the page is served")
        elif starts:
            self.start(f"exec {last}", "stream")
            self.until(lambda: "event: connected" in self.said("stream"), "the stream is open")
            self.write_a_comment("Hello")
            self.until(lambda: "event: new_comment" in self.said("stream"), "the event has arrived")
            self.until(lambda: self.said("stream").endswith("\n\n"), "all of it")
            print(self.said("stream"), end="", flush=True)

    def run(self, command: list[str]) -> None:
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

    def start(self, line: str, name: str) -> None:
        with (self.notes / name).open("wb") as said:
            process = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.directory,
                env=self.environment,
                stdout=said,
                stderr=subprocess.STDOUT if name == "server" else None,
                start_new_session=True,
            )
        self.running.append(process)

    def said(self, name: str) -> str:
        return (self.notes / name).read_text()

    def page(self) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    def write_a_comment(self, text: str) -> None:
        """As the form does."""
        url = f"http://127.0.0.1:{self.port}/"
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        page = browser.open(url, timeout=10).read().decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token, page
        fields = urllib.parse.urlencode({"text": text, "csrfmiddlewaretoken": token[1]})
        answer = browser.open(url, fields.encode(), timeout=10).read().decode()
        assert text in answer, answer

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
            assert all(process.poll() is None for process in self.running), self.everything()
            time.sleep(0.05)

    def everything(self) -> str:
        return "\n".join(self.said(name) for name in ("server", "stream") if (self.notes / name).exists())

    def stop(self) -> None:
        for process in reversed(self.running):
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running.clear()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="empty-") as empty:
        Newcomer(Path(empty), os.path.abspath(sys.argv[1])).follow()
    print("--- It works.")
