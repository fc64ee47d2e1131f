"""``python -m benchmarks bus``: what the database bus costs the transactions of a site, and how soon an event is heard.

Beside it, on the same PostgreSQL in the same run: the same transactions without an event; an outbox with NOTIFY in the
transaction; Solid Cable's pattern (an outbox that is asked for ``id > last`` every 100 ms); channels_redis and this
project's Redis Streams. Then MariaDB and SQLite, each beside its own transactions without an event. The processes of a
row are those of bus_process.py; a figure is printed as soon as it is there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.backends.redis_process import RedisProcess
from tests.database.servers import MariaServer, PostgresServer, Server

from .load import compiled

ROOT = Path(__file__).resolve().parents[1]
TITLES = {
    "none": "no event",
    "database": "database bus",
    "notify": "outbox, NOTIFY in the transaction",
    "solid": "Solid Cable's pattern, `id > last`",
    "channels": "channels_redis, after the commit",
    "redis": "Redis Streams, after the commit",
    "polling": "database bus, without LISTEN",
    "none-mariadb": "MariaDB, no event",
    "mariadb": "database bus on MariaDB",
    "none-sqlite": "SQLite, no event",
    "sqlite": "database bus on SQLite",
}
BASES = {
    "none-mariadb": "none-mariadb",
    "mariadb": "none-mariadb",
    "none-sqlite": "none-sqlite",
    "sqlite": "none-sqlite",
}
HAS_REDIS = ("channels", "redis")
IDLE_SECONDS = 10.0

Figures = dict[str, float]


@contextmanager
def slower_disk(folder: Path, ms: float) -> Iterator[None]:
    """In servers that are started meanwhile each fsync() and fdatasync() takes at least so long."""
    if not ms:
        yield
        return
    library = compiled("slow_disk.c", folder, "-shared", "-fPIC", "-ldl")
    folder.chmod(0o755)  # the server's user reads it
    with patch.dict(os.environ, LD_PRELOAD=str(library), SLOW_DISK_US=str(round(ms * 1000))):
        yield


class Stage:
    """Servers, and processes that write to them and listen."""

    def __init__(self, stack: ExitStack, folder: Path, redis: RedisProcess | None, sync_ms: float) -> None:
        self.folder = folder
        self.redis = redis
        with slower_disk(folder, sync_ms):
            self.postgres: PostgresServer = stack.enter_context(PostgresServer("fsync=on"))
            self.maria: MariaServer = stack.enter_context(MariaServer("--innodb-flush-log-at-trx-commit=1"))
        self._number = 0

    def make(self, row: str) -> tuple[dict[str, str], Server | None]:
        """The environment of a row's processes, on an empty database; and the server that it is on."""
        self._number += 1
        name = f"bench{self._number}"
        server: Any = {"mariadb": self.maria, "sqlite": None}.get(row.removeprefix("none-"), self.postgres)
        if server is None:
            options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL", "timeout": 20}
            path = str(self.folder / f"{name}.sqlite3")
            database = {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": options}
        else:
            server.create(name)
            database = server.settings(name)
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.database.run.settings",
            "PYTHONPATH": str(ROOT),
            "RUN_DATABASES": json.dumps({"default": {**database, "CONN_MAX_AGE": None}}),
            "BENCH_REDIS": self.redis.url if self.redis is not None else "",
        }
        self.run(environment, row, "prepare")
        return environment, server

    def run(self, environment: dict[str, str], row: str, *words: str) -> str:
        return self.finish(self.start(environment, row, *words))

    def start(self, environment: dict[str, str], row: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.bus_process", row, *words]
        return subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def finish(self, process: subprocess.Popen[str]) -> str:
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output.strip().split("\n")[-1]

    def queries(self, row: str, server: Server | None, environment: dict[str, str]) -> float:
        """That the row's server has been asked since its start."""
        if row in HAS_REDIS:
            assert self.redis is not None
            from redis import Redis

            with Redis.from_url(self.redis.url) as client:
                stats: Any = client.info("stats")
            return float(stats["total_commands_processed"])
        if isinstance(server, PostgresServer):
            name = json.loads(environment["RUN_DATABASES"])["default"]["NAME"]
            count = f"SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{name}'"
            return float(server.sql(count))  # over another database
        if isinstance(server, MariaServer):
            return float(server.sql("SHOW GLOBAL STATUS LIKE 'Questions'").split()[1])
        return 0.0  # SQLite: a look is at the times of its files

    @contextmanager
    def listeners(self, environment: dict[str, str], row: str, count: int) -> Iterator[list[dict[str, Any]]]:
        """What each of them has heard, filled in at the end."""
        heard: list[dict[str, Any]] = []
        processes = [self.start(environment, row, "listen") for _ in range(0 if row.startswith("none") else count)]
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield heard
        heard += [json.loads(self.finish(process)) for process in processes]  # communicate() ends their input


def cpu_seconds(stage: Stage, row: str, server: Server | None) -> float:
    """Of the processes of a row's servers, of those that are gone too."""
    pids = [] if server is None or server._process is None else server._pids(server._process.pid)
    if row in HAS_REDIS and stage.redis is not None and stage.redis._process is not None:
        pids = [*pids, stage.redis._process.pid]
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def throughput(stage: Stage, row: str, writers: int, listeners: int, seconds: float) -> Figures:
    environment, server = stage.make(row)
    with stage.listeners(environment, row, listeners) as heard:
        processes = [stage.start(environment, row, "write", str(seconds), "0") for _ in range(writers)]
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        before = cpu_seconds(stage, row, server)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [json.loads(stage.finish(process)) for process in processes]
        spent = cpu_seconds(stage, row, server) - before
        time.sleep(0.5)
    count = sum(each["count"] for each in told)
    return {
        "rate": count / seconds,
        "writer_us": sum(each["cpu"] for each in told) * 1e6 / count,
        "listener_us": sum(each["cpu"] for each in heard) * 1e6 / count,
        "database_us": spent * 1e6 / count,
    }


def latency(stage: Stage, row: str, hz: float, seconds: float) -> Figures:
    environment, _ = stage.make(row)
    with stage.listeners(environment, row, 1) as heard:
        process = stage.start(environment, row, "write", str(seconds), str(hz))
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        count = json.loads(stage.finish(process))["count"]
        time.sleep(1)
    delays = sorted(heard[0]["delays"])
    return {
        "p50_ms": statistics.median(delays) * 1e3,
        "p99_ms": delays[int((len(delays) - 1) * 0.99)] * 1e3,
        "missing": count - len(delays),
    }


def idle_queries(stage: Stage, row: str) -> Figures:
    """Per second, of one worker that serves while nothing happens."""
    environment, server = stage.make(row)
    with stage.listeners(environment, row, 1):
        time.sleep(3)  # its beginning is none of it
        before = stage.queries(row, server, environment)
        time.sleep(IDLE_SECONDS)
        after = stage.queries(row, server, environment)
    return {"idle": (after - before) / IDLE_SECONDS}


def fsync_ms(folder: Path) -> float:
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 8192)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks bus", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken of so many (default 3)")
    parser.add_argument("--writers", default="1,4,16", help="how many processes write, with commas")
    parser.add_argument("--hz", type=float, default=100, help="events per second, where delays are measured; 0: not")
    parser.add_argument("--rows", default=",".join(TITLES), help=f"which, with commas, of: {', '.join(TITLES)}")
    parser.add_argument(
        "--sync-ms", type=float, default=0, help="an fdatasync() of PostgreSQL and MariaDB takes at least so long"
    )
    options = parser.parse_args(arguments)
    rows = options.rows.split(",")
    writers = [int(number) for number in options.writers.split(",")]
    for row in HAS_REDIS:
        if row in rows and shutil.which("redis-server") is None:
            rows.remove(row)
            print(f"{TITLES[row]}: missing: redis-server")
    if "channels" in rows and importlib.util.find_spec("channels_redis") is None:
        rows.remove("channels")
        print(f"{TITLES['channels']}: missing: pip install channels-redis")
    found: dict[tuple[str, str], list[Figures]] = {}

    def note(row: str, what: str, figures: Figures) -> None:
        found.setdefault((row, what), []).append(figures)
        print(
            f"{TITLES[row]}; {what}: " + ", ".join(f"{name} {figure:,.1f}" for name, figure in figures.items()),
            flush=True,
        )

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sse-bench-")))
        redis = stack.enter_context(RedisProcess()) if any(row in rows for row in HAS_REDIS) else None
        stage = Stage(stack, folder, redis, options.sync_ms)
        load = os.getloadavg()[0]
        slower = f", in the databases at least {options.sync_ms:g} ms" if options.sync_ms else ""
        print(
            f"fdatasync of 8 KiB: {fsync_ms(folder):.2f} ms{slower}; {os.cpu_count()} cores, load {load:.1f}\n",
            flush=True,
        )
        for number in range(options.rounds):
            for row in rows:
                for count in writers:
                    what = f"{count} writer{'s' * (count > 1)}"
                    note(row, what, throughput(stage, row, count, 16 if count == 16 else 1, options.seconds))
                if not row.startswith("none") and options.hz:
                    note(row, "delay", latency(stage, row, options.hz, options.seconds))
                    if number == 0:
                        note(row, "idle queries/s", idle_queries(stage, row))
    print(f"\nload {os.getloadavg()[0]:.1f} at the end\n")
    print(report(rows, writers, found))
    return 0


def report(rows: list[str], writers: list[int], found: dict[tuple[str, str], list[Figures]]) -> str:
    """The medians, as tables of Markdown."""

    def median(row: str, what: str, name: str) -> float | None:
        figures = found.get((row, what))
        return statistics.median(each[name] for each in figures) if figures else None

    def cell(row: str, what: str, name: str, form: str) -> str:
        figure = median(row, what, name)
        return "–" if figure is None else form.format(figure)

    whats = [f"{count} writer{'s' * (count > 1)}" for count in writers]
    cpu_of = "4 writers" if "4 writers" in whats else whats[-1]
    parts = ("writer", "listener", "database")
    lines = [
        f"| committed transactions/s | {' | '.join(whats)} | CPU with {cpu_of}: writers | listener | database |",
        f"|---|{'---:|' * (len(whats) + 3)}",
    ]
    for row in rows:
        cells = []
        for what in whats:
            rate, base = median(row, what, "rate"), median(BASES.get(row, "none"), what, "rate")
            share = f" ({rate / base:.2f} ×)" if rate and base else ""
            cells.append(cell(row, what, "rate", "{:,.0f}") + share)
        cells += [cell(row, cpu_of, f"{part}_us", "{:,.0f} µs") for part in parts]
        lines.append(f"| {TITLES[row]} | {' | '.join(cells)} |")
    lines += ["", "| | p50 | p99 | never heard | idle queries/s |", "|---|---:|---:|---:|---:|"]
    for row in [row for row in rows if (row, "delay") in found]:
        cells = [cell(row, "delay", name, "{:.1f} ms") for name in ("p50_ms", "p99_ms")]
        cells.append(cell(row, "delay", "missing", "{:.0f}"))
        cells.append(cell(row, "idle queries/s", "idle", "{:.1f}"))
        lines.append(f"| {TITLES[row]} | {' | '.join(cells)} |")
    return "\n".join(lines)
