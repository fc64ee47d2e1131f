"""The servers that are compared: how each is installed and started, and what it costs while it runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent
PEERS = HERE / "peers"
REQUIREMENTS = (
    "Django", "django-eventstream", "sse-starlette", "starlette", "prometheus-client", "redis",
    "uvicorn", "uvloop", "httptools", "daphne", "hypercorn", "granian",
)  # fmt: skip
NCHAN_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")


class Missing(Exception):
    """A peer that cannot be started here; says what it needs."""


@dataclass(frozen=True)
class Peer:
    key: str  # as it is named on the command line
    title: str  # as it stands in the table
    application: str = ""  # module:attribute, for those that are ASGI
    resumes: bool = False  # keeps a history, and understands Last-Event-ID
    stream: str = "/events/"  # where its events are heard


ALL_PEERS = {
    peer.key: peer
    for peer in (
        Peer("bare", "bare ASGI app", "bare:application"),
        Peer("live", "django-sse-live", "live_site:live", resumes=True),
        Peer("plain", "django-sse-live, without `live_application`", "live_site:plain", resumes=True),
        Peer("metrics", "django-sse-live, with metrics", "live_site:live", resumes=True),
        Peer("envelope", "django-sse-live, as pages hear it", "live_site:live", True, "/events/?format=envelope"),
        Peer("patch", "the same with patches", "live_site:live", True, "/events/?format=envelope"),
        Peer("view", "Django view with a queue", "django_view:application"),
        Peer("eventstream", "django-eventstream", "eventstream:application"),
        Peer("starlette", "sse-starlette", "starlette_app:application"),
        Peer("better-sse", "better-sse (Node)"),
        Peer("nchan", "nchan (nginx)"),
    )
}


def environment(work: Path) -> Path:
    """The Python of a virtual environment with all that is compared; made when first needed."""
    python = work / "venv" / "bin" / "python"
    stamp = work / "venv" / ".installed"
    wanted = " ".join(REQUIREMENTS)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing what is compared into {work / 'venv'}, once.", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(work / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "-q", "install", *REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return python


def work_directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / ".gitignore").write_text("*\n")
    return path


class Workshop:
    """Where servers are made: a directory for what they need, a Python, and the ASGI server under which they run."""

    profile: Path | None = None  # the directory where cProfile writes what each server's main thread did

    def __init__(
        self, work: Path, python: Path, server: str = "uvicorn", *, middleware: bool = False, has_sessions: bool = False
    ) -> None:
        self.work = work
        self.python = python
        self.server = server
        self.middleware = middleware
        self.has_sessions = has_sessions  # in a database, where there is middleware that looks at them
        self.variables: dict[str, str] = {}  # of the servers that are started from now on

    def start(self, peer: Peer, port: int | None = None) -> Server:
        """Start it, on a free port if none is given. Raises Missing."""
        port = port or _free_port()
        if peer.key == "nchan":
            command = self._nchan(port)
        elif peer.key == "better-sse":
            command = self._better_sse(port)
        else:
            command = self._asgi(peer, port)
        variables = {**os.environ, "PYTHONPATH": f"{PROJECT}{os.pathsep}{PEERS}"}
        variables.pop("DJANGO_SETTINGS_MODULE", None)
        variables.update(self.variables)
        if self.middleware:
            variables["MIDDLEWARE"] = "1"
        if self.middleware and self.has_sessions:
            variables["DATABASE"] = str(self.work / "sessions.sqlite3")
        if peer.key == "metrics":
            files = self.work / "metrics"
            shutil.rmtree(files, ignore_errors=True)
            files.mkdir()
            variables["PROMETHEUS_MULTIPROC_DIR"] = str(files)
        log = self.work / "server.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=self.work, env=variables, stdout=output, stderr=output, start_new_session=True
            )
        server = Server(peer, process, port, log, has_sessions="DATABASE" in variables)
        server.is_profiled = self.profile is not None
        return server

    def _asgi(self, peer: Peer, port: int) -> list[str]:
        python = str(self.python)
        commands: dict[str, list[str]] = {
            "uvicorn": [
                "uvicorn", "--log-level", "warning", "--no-access-log", "--backlog", "4096", "--port", str(port),
            ],
            "daphne": ["daphne", "-v", "0", "-b", "127.0.0.1", "-p", str(port)],
            "hypercorn": ["hypercorn", "--log-level", "warning", "--backlog", "4096", "--bind", f"127.0.0.1:{port}"],
            "granian": [
                "granian", "--interface", "asginl", "--log-level", "warning", "--no-access-log",
                "--backlog", "4096", "--host", "127.0.0.1", "--port", str(port),
            ],
        }  # fmt: skip
        profiler = []
        if self.profile is not None:
            self.profile.mkdir(exist_ok=True)
            profiler = ["-m", "cProfile", "-o", str((self.profile / f"{peer.key}.prof").absolute())]
        return [python, *profiler, "-m", *commands[self.server], peer.application]

    def _better_sse(self, port: int) -> list[str]:
        node, npm = shutil.which("node"), shutil.which("npm")
        modules = self.work / "node_modules"
        if node is None or (npm is None and not modules.exists()):
            raise Missing("better-sse needs node and npm")
        if not (modules / "better-sse").exists():
            assert npm is not None
            subprocess.run(
                [npm, "install", "--silent", "--no-fund", "--no-audit", "better-sse"], cwd=self.work, check=True
            )
        return [node, str(PEERS / "better_sse.mjs"), str(port), str(self.work / "package.json")]

    def _nchan(self, port: int) -> list[str]:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        modules = [Path(path) / "ngx_nchan_module.so" for path in NCHAN_MODULES]
        module = next((path for path in modules if path.exists()), None)
        if nginx is None or module is None:
            raise Missing("nchan needs nginx with its module (Debian: libnginx-mod-nchan)")
        text = (PEERS / "nchan.conf").read_text()
        for name, value in (("PORT", port), ("WORK", self.work), ("MODULE", module)):
            text = text.replace(name, str(value))
        config = self.work / "nchan.conf"
        config.write_text(text)
        return [nginx, "-p", str(self.work), "-c", str(config)]


class Server:
    """A running peer. Leaving the ``with`` block ends it."""

    is_profiled = False

    def __init__(
        self, peer: Peer, process: subprocess.Popen[bytes], port: int, log: Path, *, has_sessions: bool = False
    ) -> None:
        self.has_sessions = has_sessions
        self.peer = peer
        self.port = port
        self._process = process
        self._log = log

    def __enter__(self) -> Server:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)
            else:
                time.sleep(0.5)  # until its start-up is over
                return self
        self.__exit__()
        raise RuntimeError(f"{self.peer.title} did not start: see {self._log}.")

    def __exit__(self, *_: object) -> None:
        if self.is_profiled:
            self._process.send_signal(signal.SIGINT)  # after SIGTERM Uvicorn ends by that signal, and writes no profile
            self.wait(30)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def stop(self) -> None:
        """As a deploy does; does not wait."""
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        self._process.wait(seconds)

    def publish(self, events: int, hz: float, size: int) -> None:
        """Begin to publish; ``hz`` 0 is as fast as it can."""
        if self.peer.key == "nchan":
            _post_events(self.port, events, hz, size)
            return
        url = f"http://127.0.0.1:{self.port}/publish?events={events}&hz={hz:g}&bytes={size}&of={self.peer.key}"
        urllib.request.urlopen(url, timeout=120).close()

    def ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=120) as answer:
            return str(answer.read().decode())

    # What it costs: of the process and its children. Linux.

    def cpu_seconds(self) -> float:
        return self._sum(_cpu_seconds)

    def kernel_seconds(self) -> float:
        return self._sum(lambda pid: _kernel_ticks(pid) / os.sysconf("SC_CLK_TCK"))

    def memory_kib(self) -> float:
        return self._sum(lambda pid: _field(f"/proc/{pid}/smaps_rollup", "Pss:"))

    def threads(self) -> int:
        return int(self._sum(lambda pid: _field(f"/proc/{pid}/status", "Threads:")))

    def _sum(self, read: Callable[[int], float]) -> float:
        total = 0.0
        for pid in _family(self._process.pid):
            try:
                total += read(pid)
            except OSError:  # it has ended
                continue
        return total


def _post_events(port: int, events: int, hz: float, size: int) -> None:
    """nchan is published to over HTTP; many at once when there is no rate, as fast as one connection goes."""
    padding = "x" * size
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(events):
            if hz:
                time.sleep(max(0.0, begin + number / hz - time.monotonic()))
            body = f'{{"at":[{number},{time.monotonic_ns()}],"padding":"{padding}"}}'
            head = f"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
            read_answer(connection)


def read_answer(connection: socket.socket) -> None:
    """Read one whole response of a keep-alive connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    head = head.lower()
    if b"transfer-encoding: chunked" in head:
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        return
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    while len(body) < length:
        body += connection.recv(65536)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _family(pid: int) -> list[int]:
    family = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                family += _family(int(child))
    except OSError:
        pass
    return family


def _cpu_seconds(pid: int) -> float:
    # The CPU-time clock of another process, in nanoseconds: its number is made as in the C macro MAKE_PROCESS_CPUCLOCK.
    return time.clock_gettime((~pid << 3) | 2)


def _kernel_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[12])


def _field(path: str, key: str) -> float:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return float(line.split()[1])
    raise OSError(f"{path} has no {key}")
