"""Database servers of the tests' own, on free ports and in folders of their own, that can be killed and brought back.

with PostgresServer() as server:
    DATABASES = {"default": server.settings("site")}
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.backends.redis_process import free_port

START_SECONDS = 60
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian's


def find_postgres() -> str | None:
    """The folder of PostgreSQL's programs."""
    if POSTGRES:
        return str(POSTGRES[-1])
    found = shutil.which("initdb")
    return os.path.dirname(found) if found else None


def use_mysql_driver() -> None:
    """mysqlclient, where it is installed; else PyMySQL in its place."""
    if importlib.util.find_spec("MySQLdb") is None:
        import pymysql

        pymysql.version_info = (2, 2, 1, "final", 0)
        pymysql.install_as_MySQLdb()


class Server:
    """A process of which others are the children."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="sse-database-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped: list[int] = []

    def __enter__(self) -> Any:
        self.make()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.resume()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make(self) -> None:
        """Its folder, before the first start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        self._process = self._launch()
        until = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert time.monotonic() < until, self.log
            if self._process.poll() is not None:  # what was left of a killed one was not gone yet
                self._process = self._launch()
            time.sleep(0.05)

    def _launch(self) -> subprocess.Popen[bytes]:
        # In a zone with a summer time, as many servers are.
        environment = {**os.environ, "TZ": "Europe/Berlin"}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True, env=environment)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """In good order, without waiting for its clients."""
        process = self._process
        if process is not None:
            self._process = None
            self.end(process.pid)
            process.wait(START_SECONDS)

    def end(self, pid: int) -> None:
        _signal(pid, signal.SIGTERM)

    def kill(self) -> None:
        """At once, with all that it has started."""
        process = self._process
        if process is not None:
            self._process = None
            pids = self._pids(process.pid)
            # runuser itself is left: it waits for the server, so that no zombie holds its lock file.
            for pid in pids[1:] if _as_user("") and len(pids) > 1 else pids:
                _signal(pid, signal.SIGKILL)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pause(self) -> None:
        assert self._process is not None
        self._stopped = self._pids(self._process.pid)
        for pid in self._stopped:
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._stopped:
            _signal(pid, signal.SIGCONT)
        self._stopped = []

    def _pids(self, root: int) -> list[int]:
        """The process and what descends from it."""
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(stat.parent.name))
        found = [root]
        for pid in found:
            found += children.get(pid, [])
        return found


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _as_user(user: str) -> list[str]:
    return ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class PostgresServer(Server):
    """``options``: more of postgresql.conf, such as ``fsync=on``."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        folder = find_postgres()
        assert folder is not None
        self._bin = Path(folder)
        self._options = ("fsync=off", "max_connections=200", *options)

    def make(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        data = str(self.folder / "data")
        initdb = [str(self._bin / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run([*_as_user("postgres"), *initdb, "-N"], check=True, capture_output=True, cwd="/")

    def command(self) -> list[str]:
        options = [word for option in self._options for word in ("-c", option)]
        where = ["-D", str(self.folder / "data"), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        return [*_as_user("postgres"), str(self._bin / "postgres"), *where, *options]

    def is_ready(self) -> bool:
        ready = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, capture_output=True).returncode == 0

    def end(self, pid: int) -> None:
        own = (self.folder / "data" / "postmaster.pid").read_text().split("\n")[0]  # runuser hands nothing on
        _signal(int(own), signal.SIGINT)

    def sql(self, statement: str, database: str = "postgres", user: str = "postgres") -> str:
        psql = [str(self._bin / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", database]
        done = subprocess.run([*psql, "-Atqc", statement], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def create(self, database: str) -> None:
        self.sql(f"CREATE DATABASE {database}")

    def settings(self, database: str, **more: Any) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database,
            "USER": "postgres",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            **more,
        }


class MariaServer(Server):
    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = ("--innodb-flush-log-at-trx-commit=2", "--max-connections=200", *options)

    def make(self) -> None:
        subprocess.run(
            [
                *("mariadb-install-db", "--no-defaults", f"--datadir={self.folder / 'data'}"),
                *("--auth-root-authentication-method=normal", "--skip-test-db", *self._common()),
            ],
            check=True,
            capture_output=True,
        )

    def _common(self) -> list[str]:
        # A server that starts removes the temporary tables of all others that share its folder for them.
        return [f"--tmpdir={self.folder}", *(["--user=root"] if os.geteuid() == 0 else [])]

    def command(self) -> list[str]:
        return [
            *(shutil.which("mariadbd", path=os.environ["PATH"] + ":/usr/sbin") or "mariadbd", "--no-defaults"),
            *(f"--datadir={self.folder / 'data'}", f"--port={self.port}", "--bind-address=127.0.0.1", *self._common()),
            *(f"--socket={self.folder / 'socket'}", f"--pid-file={self.folder / 'pid'}", *self._options),
        ]

    def is_ready(self) -> bool:
        ping = ["mariadb-admin", "--no-defaults", f"--socket={self.folder / 'socket'}", "-uroot", "ping"]
        return subprocess.run(ping, capture_output=True).returncode == 0 and _listens(self.port)

    def sql(self, statement: str, database: str = "") -> str:
        mariadb = ["mariadb", "--no-defaults", f"--socket={self.folder / 'socket'}", "-uroot", "-N", "-B"]
        arguments = [*mariadb, "-e", statement, *([database] if database else [])]
        return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()

    def create(self, database: str) -> None:
        self.sql(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")

    def settings(self, database: str, **more: Any) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": database,
            "USER": "root",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            **more,
        }


class PgBouncer(Server):
    """In front of a PostgresServer; ``mode``: transaction, session or statement."""

    def __init__(self, postgres: PostgresServer, mode: str = "transaction") -> None:
        super().__init__()
        self._postgres = postgres
        self._mode = mode

    def make(self) -> None:
        (self.folder / "users").write_text('"postgres" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._postgres.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nauth_type = any\n"
            f"auth_file = {self.folder / 'users'}\npool_mode = {self._mode}\nunix_socket_dir =\n"
            "max_client_conn = 500\ndefault_pool_size = 10\nignore_startup_parameters = extra_float_digits\n"
        )
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, "postgres", "postgres")

    def command(self) -> list[str]:
        program = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin") or "pgbouncer"
        return [*_as_user("postgres"), program, str(self.folder / "pgbouncer.ini")]

    def is_ready(self) -> bool:
        return _listens(self.port)

    def settings(self, database: str, **more: Any) -> dict[str, Any]:
        return {
            **self._postgres.settings(database, **more),
            "PORT": str(self.port),
            "DISABLE_SERVER_SIDE_CURSORS": True,
        }
