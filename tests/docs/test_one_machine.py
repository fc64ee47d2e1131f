"""docs/deploy/one-machine.md as it is printed: PostgreSQL, Gunicorn and nginx from its files, reloaded under load.

Its environment is made as the page says, from the wheel and the package index.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path

import pytest

from django_sse_live.doctor.site import Site, Stream, trusting_anyone
from tests.database.servers import PostgresServer, find_postgres
from tests.docs.blocks import blocks_of
from tests.docs.conftest import Project
from tests.live.harness import free_port

PAGE = "deploy/one-machine.md"
PATIENCE_SECONDS = 90
RELOADS = 3
READERS = 12
# Of systemd, of the package manager, or for when the site is up.
ELSEWHERE = r"^(apt-get|useradd|install|systemctl|journalctl)|git clone|doctor"
UNTRUSTED = trusting_anyone()

# What the page's commands find in the place of the programs that only root may run.
SUDO = """#!/bin/bash
while [ "${1#-}" != "$1" ]; do
  if [ "$1" = -u ]; then export PGUSER="$2"; shift; fi
  shift
done
exec "$@"
"""


def until(condition: Callable[[], object], say: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, say()
        time.sleep(0.05)


class Machine:
    """The page's files in a folder, and the processes that they describe."""

    def __init__(self, project: Project, wheel: Path, stack: ExitStack) -> None:
        self.directory = project.directory
        self.stack = stack
        self.port, self.https_port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.https_port}"
        self.run_directory = self.directory / "run"
        self.logs = self.directory / "logs"
        for folder in (self.logs, self.directory / "bin", self.directory / "temporary"):
            folder.mkdir()
        (self.directory / "bin" / "python3").symlink_to(getattr(sys, "_base_executable", None) or sys.executable)
        (self.directory / "requirements.txt").write_text(f"{wheel}[channels]\nDjango=={version('Django')}\n")
        self.python = str(self.directory / "venv" / "bin" / "python")
        (self.directory / "bin" / "sudo").write_text(SUDO)
        (self.directory / "bin" / "sudo").chmod(0o755)
        for name in ("deploy/mysite.env", "deploy/mysite.service", "deploy/nginx.conf", "deploy/gunicorn.conf.py"):
            self.place(name)
        self.place("mysite/production.py")
        self.database = stack.enter_context(PostgresServer())
        self.environment = {
            **project.environment,
            "PATH": os.pathsep.join(
                [str(self.directory / "bin"), str(find_postgres()), os.environ["PATH"], "/usr/sbin"]
            ),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.database.port),
            "PGUSER": "mysite",
        }
        del self.environment["PYTHONPATH"]
        self.master: subprocess.Popen[bytes]

    def placed(self, text: str) -> str:
        """With this machine's paths and ports in the place of the page's."""
        text = text.replace("/srv/mysite", str(self.directory)).replace("/run/mysite", str(self.run_directory))
        text = text.replace("/etc/mysite.env", str(self.directory / "deploy/mysite.env"))
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace("https://example.com", self.url)

    def place(self, name: str) -> None:
        path = self.directory / name
        path.write_text(self.placed(path.read_text()))

    def type(self, heading: str, *, but: str = ELSEWHERE) -> str:
        """The commands under a heading of the page, but those that are of systemd or of the package manager."""
        page = Path(__file__).resolve().parents[2] / "docs" / PAGE
        section = page.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        blocks = [block for block in blocks_of(PAGE) if block.language == "console" and block.text in section]
        assert blocks, heading
        lines = [line for block in blocks for line in block.text.splitlines() if not re.search(but, line)]
        script = self.placed("\n".join(["set -e", *lines]))
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.directory, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def type_python(self, line: str) -> str:
        command = [self.python, "-c", f"import django; django.setup(); {line}"]
        done = subprocess.run(command, cwd=self.directory, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(self.directory / "deploy/mysite.service")
        service = unit["Service"]
        variables = Path(service["EnvironmentFile"]).read_text().splitlines()
        self.run_directory.mkdir()  # RuntimeDirectory
        self.environment |= dict(line.split("=", 1) for line in variables if "=" in line)
        name, value = service["Environment"].split("=", 1)
        self.reload_command = service["ExecReload"]
        self.master = self.spawn(
            shlex.split(service["ExecStart"]), "gunicorn", service["WorkingDirectory"], **{name: value}
        )
        until(lambda: len(self.workers()) == 3 and self.status("/events/health/", port=self.port) == 200, self.said)

    def start_nginx(self) -> None:
        openssl, nginx = shutil.which("openssl"), shutil.which("nginx", path=self.environment["PATH"])
        if openssl is None or nginx is None:
            pytest.skip("needs openssl and nginx")
        keys = f"-keyout {self.directory}/example.key -out {self.directory}/example.crt"
        command = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=example.com {keys}"
        subprocess.run([openssl, *command.split()], check=True, capture_output=True)
        path = self.directory / "deploy/nginx.conf"
        text = path.read_text()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f" {kind}_temp_path {self.directory}/temporary/{kind};" for kind in kinds)
        for before, after in {
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.https_port} ssl",
            "/etc/ssl/": f"{self.directory}/",
            "/var/log/nginx/": f"{self.logs}/",
            "user www-data;": "user root;" if os.geteuid() == 0 else "",  # the folder is the test's own
            "worker_processes auto;": "worker_processes 2;",
            "http {\n": f"http {{\n{temporary}\n",
        }.items():
            assert before in text, before
            text = text.replace(before, after)
        path.write_text(text)
        globals_ = f"daemon off; pid {self.directory}/nginx.pid;"
        command_line = [nginx, "-e", f"{self.logs}/nginx", "-p", str(self.directory), "-c", str(path), "-g", globals_]
        self.spawn(command_line, "nginx.out", self.directory)
        until(lambda: self.status("/events/health/") == 200, self.said)

    def spawn(self, command: list[str], name: str, directory: object, **more: str) -> subprocess.Popen[bytes]:
        with (self.logs / name).open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=str(directory),
                env={**self.environment, **more},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.stack.callback(end, process)
        return process

    def said(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in self.logs.iterdir())

    def workers(self) -> set[int]:
        assert self.master.poll() is None, self.said()
        children = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def reload(self) -> None:
        """As the unit says; the old workers are gone, and new ones answer."""
        before = self.workers()
        subprocess.run(shlex.split(self.reload_command.replace("$MAINPID", str(self.master.pid))), check=True)
        until(lambda: not self.workers() & before and len(self.workers()) == 3, self.said)

    def get(self, path: str, *, port: int | None = None, **headers: str) -> tuple[int, str]:
        url = f"{self.url}{path}" if port is None else f"http://127.0.0.1:{port}{path}"
        try:
            request = urllib.request.Request(url, headers=headers)
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS, context=UNTRUSTED) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self, path: str, *, port: int | None = None) -> int:
        return self.get(path, port=port)[0]


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Reader(threading.Thread):
    """A page: it reads its stream, and comes back with its last id."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.numbers: list[int] = []
        self.failures: list[str] = []
        self.goodbyes = self.connects = self.resets = 0
        self.is_over = False

    def run(self) -> None:
        query: dict[str, str] = {}
        while not self.is_over:
            try:
                stream = Stream(self.site, **query)
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
                time.sleep(0.1)
                continue
            if stream.response.status != 200:
                self.failures.append(str(stream.response.status))
                time.sleep(0.1)
                continue
            while not self.is_over and (frame := stream.next(PATIENCE_SECONDS)) is not None:
                self.connects += frame.type == "connected"
                self.goodbyes += frame.type == "goodbye"
                self.resets += frame.type == "reset"
                if frame.type == "tick":
                    self.numbers.append(frame.data["n"])
            query = {"last_event_id": stream.last_id} if stream.last_id else query  # as an EventSource keeps it
            stream.close()


PUBLISH = """
import sys, threading, time, django
django.setup()
from django_sse_live import broadcast
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
n = 0
while not stop.is_set():
    n += 1
    broadcast("comments", "tick", {"n": n}, on_commit=False)
    time.sleep(0.02)
print(n)
"""


@contextmanager
def asking(machine: Machine, path: str) -> Iterator[list[int]]:
    """Somebody who asks for a page all the time. Gives the statuses."""
    statuses: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            statuses.append(machine.status(path))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        thread.join()


def lost_and_doubled(numbers: list[int], published: int) -> str:
    counts = Counter(numbers)
    lost = sorted(set(range(1, published + 1)) - counts.keys())
    return f"lost {lost}, doubled {sorted(number for number, count in counts.items() if count > 1)}"


@pytest.fixture
def machine(project_of: Callable[[str], Project], wheel: Path) -> Iterator[Machine]:
    if find_postgres() is None:
        pytest.skip("needs PostgreSQL")
    with ExitStack() as stack:
        yield Machine(project_of(PAGE), wheel, stack)


@pytest.mark.needs("nginx")
@pytest.mark.timeout(600)
def test_one_machine(machine: Machine) -> None:
    machine.type("Once")
    if shutil.which("systemd-analyze"):
        verify = ["systemd-analyze", "verify", str(machine.directory / "deploy/mysite.service")]
        done = subprocess.run(verify, capture_output=True, text=True)
        ours = [line for line in (done.stdout + done.stderr).splitlines() if "mysite.service:" in line]
        assert not [line for line in ours if "Unknown" in line or "Invalid" in line or "ignoring" in line], ours
    machine.type("Start it")
    machine.start()
    machine.start_nginx()

    assert machine.type_python("import django_sse_live as p; print(p.__file__)").startswith(str(machine.directory))
    token = machine.type_python("from django_sse_live import sign_channels; print(sign_channels('comments'))")
    site = Site(f"{machine.url}/events/", token.strip(), PATIENCE_SECONDS)
    site.tls = UNTRUSTED
    readers = [Reader(site) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    until(lambda: all(reader.connects for reader in readers), machine.said)
    publisher = subprocess.Popen(
        [machine.python, "-c", PUBLISH],
        cwd=machine.directory, env=machine.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with asking(machine, "/") as pages, asking(machine, "/static/django_sse_live/sse-live.js") as files:
        until(lambda: all(reader.numbers for reader in readers), machine.said)
        for _ in range(RELOADS):
            before = [reader.connects for reader in readers]
            machine.reload()
            # Each has had its goodbye, and is live with a new worker: the next reload is one for all of them.
            until(lambda before=before: all(r.connects > n for r, n in zip(readers, before, strict=True)), machine.said)
            heard = [len(reader.numbers) for reader in readers]
            until(
                lambda heard=heard: all(len(r.numbers) > n for r, n in zip(readers, heard, strict=True)), machine.said
            )
    published = int(publisher.communicate()[0])
    until(lambda: all(reader.numbers[-1:] == [published] for reader in readers), machine.said)
    for reader in readers:
        reader.is_over = True
    assert not sum(reader.resets for reader in readers)
    for reader in readers:
        assert reader.numbers == list(range(1, published + 1)), lost_and_doubled(reader.numbers, published)
    assert min(reader.goodbyes for reader in readers) >= RELOADS
    # A worker that ends resets a connection that it has just taken. nginx asks once more, and on a busy machine may
    # meet another such worker: the page comes back.
    assert {failure for reader in readers for failure in reader.failures} <= {"502"}
    assert set(pages) == {200} and set(files) == {200}, (set(pages), set(files))

    # Look at it
    assert "in all" in machine.type("Look at it", but=r"^curl|journalctl")  # a worker is there from its first stream on
    bearer = f"Bearer {machine.environment['STATUS_TOKEN']}"
    status, text = machine.get("/events/status/", Authorization=bearer)
    assert status == 200 and '"workers"' in text
    assert "sse_live_streams " in machine.get("/metrics/", port=machine.port)[1]
    access = (machine.logs / "access.log").read_text()
    assert '"GET /events/" 200' in access and "token" not in access

    # The doctor finds one thing: that the test's certificate is its own.
    doctor = [machine.python, "manage.py", "sse_live_doctor", f"{machine.url}/events/"]
    reload = machine.reload_command.replace("$MAINPID", str(machine.master.pid))
    done = subprocess.run(
        [*doctor, "--reload", reload], cwd=machine.directory, env=machine.environment, capture_output=True, text=True
    )
    assert re.findall(r"^(?:note|fault) +(.*)", done.stdout, re.MULTILINE) == [
        "A browser would not trust the certificate: self-signed certificate."
    ], done.stdout + done.stderr
    for said in ("HTTP/2", "A WebSocket opens", "An event from this process arrives", "is told goodbye"):
        assert said in done.stdout, done.stdout
