"""Session: the one database connection of a process's bus thread. Never one of django.db.connections' own.

Touched in that thread alone. It takes nothing from the project's connection pool, opens no transaction of Django's, and
is written to by nobody's query log.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, connections

# What a database that is away, stopped, full, in recovery or wrongly configured raises.
UNAVAILABLE: Final = (DatabaseError, InterfaceError, OSError)

CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 10  # what MySQL's drivers wait for one
FORK_SECONDS: Final = 2.0
NOTIFICATIONS: Final = 1_000  # kept at the most; one is as good as all


def database_key(alias: str) -> str:
    """Where an alias leads, for log lines."""
    settings = connections[alias].settings_dict
    host = f"{settings['HOST']}:{settings['PORT']}".strip(":")
    return f"database {alias!r}" + (f" at {host}" if host else "")


class Session:
    """Connected when made; raises one of UNAVAILABLE then and in each of its methods. To be closed by who made it."""

    def __init__(self, alias: str) -> None:
        given = connections[alias]
        self.vendor: str = given.vendor
        self.is_prepared: bool = False  # it has the statements that a dialect prepares
        self.notifications: deque[str] = deque(maxlen=NOTIFICATIONS)
        self._is_psycopg3 = False
        # The settings as they are now: a test run changes NAME in place.
        self._wrapper: Any = type(given)(self._settings(given.settings_dict), alias)
        self._wrapper.inc_thread_sharing()  # for who closes it at an exit
        self._wrapper.ensure_connection()
        self._file = self._identify_file()
        if self.vendor == "postgresql":
            raw = self._wrapper.connection
            self._is_psycopg3 = hasattr(raw, "add_notify_handler")
            if self._is_psycopg3:
                raw.add_notify_handler(lambda notification: self.notifications.append(notification.payload))

    def _settings(self, given: dict[str, Any]) -> dict[str, Any]:
        options = {name: value for name, value in given["OPTIONS"].items() if name != "pool"}
        if self.vendor == "postgresql":
            # A peer that is gone without a word is noticed: by who sends within 10 s, by who listens within 12.
            options = {
                "connect_timeout": CONNECT_SECONDS,
                "tcp_user_timeout": 10_000,
                "keepalives_idle": 6,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                **options,
            }
        elif self.vendor == "mysql":
            options = {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": ANSWER_SECONDS,
                "write_timeout": ANSWER_SECONDS,
                **options,
            }
        return {**given, "OPTIONS": options, "AUTOCOMMIT": True, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}

    def close(self) -> None:
        try:
            self._wrapper.close()
        except UNAVAILABLE:
            pass  # it was gone already

    # Statements

    def query(self, sql: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows; where there are several statements, those of the last."""
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            if self._is_psycopg3:
                while cursor.nextset():
                    pass
            return list(cursor.fetchall()) if cursor.description is not None else []

    def run(self, sql: str, parameters: Sequence[Any] | None = None) -> int:
        """How many rows it changed."""
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            count: int = cursor.rowcount
            return count

    def insert(self, insert: Any, rows: Any) -> list[int]:
        """What ``insert(cursor, rows)`` gives, of a dialect, in a transaction."""
        self.run("BEGIN IMMEDIATE" if self.vendor == "sqlite" else "BEGIN")
        try:
            with self.cursor() as cursor:
                ids: list[int] = insert(cursor, rows)
            self.run("COMMIT")
        except BaseException:
            self.roll_back()
            raise
        return ids

    def roll_back(self) -> None:
        """After an error in a transaction. Harmless where there is none, or no connection."""
        try:
            self.run("ROLLBACK")
        except UNAVAILABLE:
            pass

    def cursor(self) -> Any:
        # Without the query log of DEBUG, which one look after the other would fill.
        with self._wrapper.wrap_database_errors:
            return self._wrapper.make_cursor(self._wrapper.create_cursor())

    # What else is asked of the connection

    @property
    def is_mariadb(self) -> bool:
        return bool(self.vendor == "mysql" and self._wrapper.mysql_is_mariadb)

    @property
    def is_direct(self) -> bool:
        """PostgreSQL: whether the server itself is at the other end. A pooler has a process id of its own making."""
        (told,) = self.query("SELECT pg_backend_pid()")[0]
        return bool(self._wrapper.connection.info.backend_pid == told)

    def has_moved(self) -> bool:
        """SQLite: whether the path leads to another file by now."""
        return self._file != self._identify_file()

    def file_times(self) -> tuple[int, ...]:
        """SQLite: when the database and its write-ahead log were last written to, and their sizes. Without a lock: one
        that is held for a moment makes a project's transaction fail that begins by reading."""
        found: list[int] = []
        for suffix in ("", "-wal"):
            try:
                stat = os.stat(f"{self._wrapper.settings_dict['NAME']}{suffix}")
            except OSError:
                continue
            found += (stat.st_mtime_ns, stat.st_size)
        return tuple(found)

    def _identify_file(self) -> tuple[int, int] | None:
        if self.vendor != "sqlite":
            return None
        try:
            found = os.stat(self._wrapper.settings_dict["NAME"])
        except OSError:
            return None
        return found.st_dev, found.st_ino

    # Notifications of PostgreSQL

    @property
    def has_notifications(self) -> bool:
        """Some that a statement has read on its way: the descriptor does not tell of them any more."""
        return bool(self.notifications) or (
            self.vendor == "postgresql" and not self._is_psycopg3 and bool(self._wrapper.connection.notifies)
        )

    def take_notifications(self) -> list[str]:
        """Those that have come, whether or not a statement has read them."""
        raw = self._wrapper.connection
        with self._wrapper.wrap_database_errors:
            if self._is_psycopg3:
                raw.pgconn.consume_input()
                while (notification := raw.pgconn.notifies()) is not None:
                    self.notifications.append(notification.extra.decode())
            elif self.vendor == "postgresql":
                raw.poll()
                self.notifications.extend(notification.payload for notification in raw.notifies)
                raw.notifies.clear()
        taken = list(self.notifications)
        self.notifications.clear()
        return taken

    def fileno(self) -> int:
        number: int = self._wrapper.connection.fileno()
        return number


class Bell:
    """Wakes the bus thread. ring() from any thread, and from a signal handler."""

    def __init__(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self._is_rung = False

    def ring(self) -> None:
        if not self._is_rung:
            self._is_rung = True
            try:
                self._outer.send(b"!")
            except OSError:
                pass  # closed, or full of rings

    def wait(self, seconds: float, session: Session | None = None) -> None:
        """Until it rings, or the session hears something, for so many seconds at the most."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._inner, selectors.EVENT_READ)
            if session is not None:
                selector.register(session.fileno(), selectors.EVENT_READ)
            selector.select(max(0.0, seconds))
        try:
            while self._inner.recv(4096):
                pass
        except OSError:
            pass
        self._is_rung = False  # only now: a ring whose byte has just been read would silence those after it

    def close(self) -> None:
        self._inner.close()
        self._outer.close()


class ForkLock:
    """Held while SQLite is used, so that no fork happens then, but for FORK_SECONDS at the most.

    SQLite notes in the memory of its process which locks the process has on a file. A child inherits the notes without
    the locks: to its own connections the file would be locked for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_held_by_fork = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._after)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def _before(self) -> None:
        self._is_held_by_fork = self._lock.acquire(timeout=FORK_SECONDS)

    def _after(self) -> None:
        if self._is_held_by_fork:
            self._is_held_by_fork = False
            self._lock.release()
