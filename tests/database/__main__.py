"""The randomised run of the database bus: processes that save, processes that serve, and everything that can happen to
them and to the server.

python -m tests.database postgresql --events 100000 [--seed 1] [--publishers 4] [--workers 3]
python -m tests.database mariadb
python -m tests.database sqlite
python -m tests.database all --short      what CI runs

Every committed event must have come once to every client, in one order that is the same for all; none of a
transaction that was rolled back; and no client was told by a reset.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from django_sse_live.database.history import REPLAY_EVENTS
from tests.database.servers import MariaServer, PostgresServer, Server
from tests.live.harness.rows import run_rows

ROOT = Path(__file__).parents[2]
CHANNELS = ("all", "x0", "all")
SHORT: dict[str, Any] = {"events": 2_000, "publishers": 2, "workers": 2, "calm_seconds": 1.0}


class Run:
    def __init__(self, kind: str, seed: str, folder: Path, stack: ExitStack) -> None:
        self.kind = kind
        self.random = random.Random(seed)
        self.seed = seed
        self.folder = folder
        self.server: Server | None = None
        if kind == "sqlite":
            wal = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL", "timeout": 20}
            one = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": wal}
            databases = {name: {**one, "NAME": str(folder / f"{name}.sqlite3")} for name in ("default", "other")}
        else:
            server: Any = PostgresServer() if kind == "postgresql" else MariaServer()
            self.server = stack.enter_context(server)
            for name in ("run", "other"):
                server.create(name)
            databases = {"default": server.settings("run"), "other": server.settings("other")}
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.database.run.settings",
            "PYTHONPATH": str(ROOT),
            "RUN_DATABASES": json.dumps(databases),
            "RUN_HISTORY": "2000",
        }
        self.log = (folder / "log").open("ab")
        self.generation = 0
        self.publishers: dict[int, subprocess.Popen[bytes]] = {}
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self.done: Counter[str] = Counter()

    def django(self, code: str) -> str:
        """What a process of the site prints."""
        setup = "import django; django.setup(); from django.db import connection; "
        done = subprocess.run(
            [sys.executable, "-c", setup + code], env=self.environment, capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def prepare(self) -> None:
        auto = {"postgresql": "bigserial", "mariadb": "bigint AUTO_INCREMENT", "sqlite": "integer"}[self.kind]
        self.django(
            "from django.core.management import call_command; "
            "call_command('migrate', 'sse_live_database', verbosity=0); "
            f"connection.cursor().execute('CREATE TABLE saved (id {auto} PRIMARY KEY, name varchar(60))')"
        )

    def saved(self) -> set[str]:
        return set(
            self.django(
                "c = connection.cursor(); c.execute('SELECT name FROM saved'); "
                "print('\\n'.join(name for (name,) in c.fetchall()))"
            ).split()
        )

    # Processes

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *words], env=self.environment, cwd=ROOT, stdout=self.log, stderr=self.log
        )

    def start_publisher(self, index: int) -> None:
        self.generation += 1
        name = f"{index}-{self.generation}"
        path = self.folder / f"published-{name}"
        self.publishers[index] = self._start("tests.database.run.publisher", name, str(path), self.seed)

    def start_worker(self, index: int) -> None:
        files = [f"{self.folder}/client-{index}-{number}={channel}" for number, channel in enumerate(CHANNELS)]
        self.workers[index] = self._start("tests.database.run.worker", *files)

    def client_files(self, channel: str) -> list[Path]:
        numbers = [number for number, name in enumerate(CHANNELS) if name == channel]
        return [self.folder / f"client-{index}-{number}" for index in self.workers for number in numbers]

    def is_far_behind(self, index: int) -> bool:
        counts = {path: len(self.lines(path)) for path in self.client_files("all")}
        return min(counts[path] for path in counts if path.name.startswith(f"client-{index}-")) < (
            max(counts.values()) - REPLAY_EVENTS // 5
        )

    # What happens to them

    def disturb(self) -> None:
        kinds = ["kill publisher", "kill worker", "stop publisher", "stop worker"]
        if self.server is not None:
            kinds += ["end connections", "restart server"]
        kind = self.random.choice(kinds)
        processes = self.publishers if "publisher" in kind else self.workers
        index = self.random.choice(list(processes))
        if kind.endswith("worker") and self.is_far_behind(index):
            return  # on a busy machine it has hardly begun; past REPLAY_EVENTS its clients would be told by a reset
        self.done[kind] += 1
        if kind.startswith("kill"):
            processes[index].kill()
            processes[index].wait()
            (self.start_publisher if "publisher" in kind else self.start_worker)(index)
        elif kind.startswith("stop"):
            processes[index].send_signal(signal.SIGSTOP)
            time.sleep(self.random.choice([0.3, 1, 4]))
            processes[index].send_signal(signal.SIGCONT)
        elif kind == "restart server":
            assert self.server is not None
            if self.random.random() < 0.5:
                self.server.kill()
            else:
                self.server.stop()
            time.sleep(self.random.random() * 3)
            self.server.start()
        else:
            self.end_connections()

    def end_connections(self) -> None:
        if isinstance(self.server, PostgresServer):
            self.server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'run' AND random() < 0.5"
            )
        elif isinstance(self.server, MariaServer):
            for id in self.server.sql("SELECT id FROM information_schema.processlist WHERE db = 'run'").split():
                if self.random.random() < 0.5:
                    try:
                        self.server.sql(f"KILL {id}")
                    except subprocess.CalledProcessError:
                        pass  # gone already

    # The judgement

    def lines(self, path: Path) -> list[tuple[str, str]]:
        text = path.read_text() if path.exists() else ""
        return [
            (id, data) for id, _, data in (line.partition(" ") for line in text.rpartition("\n")[0].split("\n")) if id
        ]

    def judge(self) -> str:
        saved = self.saved()
        published: set[str] = set()
        certain: set[str] = set()
        for path in self.folder.glob("published-*"):
            keys = path.read_text().split("\n")[:-1]
            published |= set(keys) - {"end"}
            if "end" in keys:
                certain |= set(keys) - {"end"}
        reference: list[tuple[str, str]] | None = None
        for path in self.client_files("all"):
            found = self.lines(path)
            resets = [data for _, data in found if data.startswith("RESET")]
            assert not resets, f"{path.name}: {len(resets)} resets: {resets[:3]}"
            keys = [json.loads(data) for _, data in found]
            doubled = [key for key, count in Counter(keys).items() if count > 1]
            assert not doubled, f"{path.name}: {len(doubled)} doubled: {doubled[:5]}"
            missing = (saved | certain) - set(keys)
            assert not missing, f"{path.name}: {len(missing)} missing: {sorted(missing)[:5]}"
            foreign = set(keys) - saved - published
            assert not foreign, f"{path.name}: {len(foreign)} that were never committed: {sorted(foreign)[:5]}"
            if reference is None:
                reference = found
            assert found == reference, f"{path.name}: another order"
        assert reference is not None
        last: dict[str, int] = {}
        for _, data in reference:
            prefix, name, number = json.loads(data).split(".")
            publisher = f"{prefix}{name}"
            assert int(number) > last.get(publisher, 0), f"{data} came after {last[publisher]} of the same thread"
            last[publisher] = int(number)
        placed = {line: place for place, line in enumerate(reference)}
        for path in self.client_files("x0"):
            places = [placed[line] for line in self.lines(path)]
            assert places == sorted(places) and len(places) == len(set(places)), f"{path.name}: another order"
        return f"{len(reference):,} events, {len(self.client_files('all'))} clients of all, one order"


def run(kind: str, *, events: int, publishers: int, workers: int, seed: str = "1", calm_seconds: float = 2.0) -> str:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sse-run-")))
        site = Run(kind, seed, folder, stack)
        stack.callback(lambda: [process.kill() for process in (*site.publishers.values(), *site.workers.values())])
        began = time.monotonic()
        try:
            site.prepare()
            for index in range(workers):
                site.start_worker(index)
            for index in range(publishers):
                site.start_publisher(index)
            while (count := max(len(site.lines(path)) for path in site.client_files("all"))) < events:
                time.sleep(calm_seconds * (0.5 + site.random.random()))
                site.disturb()
                print(f"\r{kind}: {count:,} events, {sum(site.done.values())} disturbances", end="", flush=True)
            print()
            for process in site.publishers.values():
                process.send_signal(signal.SIGTERM)
            for process in site.publishers.values():
                process.wait(120)
            expected = len(site.saved())
            until = time.monotonic() + 120
            sizes: list[int] = []
            while time.monotonic() < until:
                now = [len(site.lines(path)) for path in site.client_files("all")]
                if min(now) >= expected and now == sizes and len(set(now)) == 1:
                    break
                sizes = now
                time.sleep(3)
            verdict = site.judge()
        except BaseException:
            site.log.flush()
            kept = Path(tempfile.gettempdir(), f"sse-run-failed-{kind}")
            subprocess.run(["rm", "-rf", str(kept)], check=False)
            subprocess.run(["cp", "-r", str(folder), str(kept)], check=False)
            print(f"kept in {kept}")
            raise
        done = ", ".join(f"{count} × {what}" for what, count in sorted(site.done.items()))
        return f"{verdict}, {time.monotonic() - began:.0f} s; {done}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.database", description="The database bus, disturbed.")
    parser.add_argument("kind", choices=["postgresql", "mariadb", "sqlite", "all"])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="the load that CI uses")
    arguments = parser.parse_args()
    size: dict[str, Any] = (
        SHORT if arguments.short else {name: getattr(arguments, name) for name in ("events", "publishers", "workers")}
    )
    kinds = ["postgresql", "mariadb", "sqlite"] if arguments.kind == "all" else [arguments.kind]
    return run_rows({kind: partial(run, kind, **{**size, "seed": arguments.seed}) for kind in kinds})


if __name__ == "__main__":
    sys.exit(main())
