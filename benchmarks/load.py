"""The load generator as seen from here: a process of its own. What is written in C is compiled when first needed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def load_command(work: Path) -> list[str]:
    """The command of the load generator: load.c, compiled."""
    return [str(compiled("load.c", work))]


def compiled(name: str, work: Path, *options: str) -> Path:
    """What the compiler makes of a source file of this folder. It stays in ``work`` for the next time."""
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        raise SystemExit("This benchmark needs Linux and a C compiler (Debian: apt-get install gcc libc6-dev).")
    source = HERE / name
    made = work / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not made.exists():
        subprocess.run([compiler, "-O2", "-o", str(made), str(source), *options], check=True)
    return made


class Load:
    """So many clients of one server. The methods are the commands described in load.c."""

    def __init__(self, command: list[str], port: int, path: str, clients: int, header: str = "") -> None:
        self._process = subprocess.Popen(
            [*command, "127.0.0.1", str(port), path, str(clients)],
            env={**os.environ, "LOAD_HEADER": header},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, *, at_once: int = 128, events: int = 0) -> dict[str, Any]:
        self.start_opening(at_once, events)
        return self.opened()

    def start_opening(self, at_once: int, events: int) -> None:
        """So that several of these open at one time; get the answer with opened()."""
        self._say(f"open {at_once} {events}")

    def opened(self) -> dict[str, Any]:
        answer = self.waited()
        if not answer["open"]:
            raise RuntimeError("No client got a stream: see what the server has written.")
        return answer

    def start_waiting(self, seconds: float) -> None:
        """So that the clients read while this process does something else; get the answer with waited()."""
        self._say(f"wait {seconds}")

    def start_ending(self, seconds: float) -> None:
        """The same, until the server has closed every connection."""
        self._say(f"end {seconds}")

    def waited(self) -> dict[str, Any]:
        return self._answer()

    def wait(self, seconds: float) -> dict[str, Any]:
        self.start_waiting(seconds)
        return self.waited()

    def close(self) -> None:
        self._say("close")
        self._answer()

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The load generator has ended.")
        return json.loads(line)  # type: ignore[no-any-return]
