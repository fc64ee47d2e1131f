"""Session: the one database connection of a process's bus thread. It is none of django.db.connections.

Touched in that thread alone. It stays out of the project's connection pool, of Django's transactions and of query logs.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, connections

# Raised by a database that is away, stopped, full, in recovery or wrongly configured.
UNAVAILABLE: Final = (DatabaseError, InterfaceError, OSError)

CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 10  # MySQL's drivers wait this long for an answer
FORK_SECONDS: Final = 2.0
NOTIFICATIONS_MAX: Final = 1_000  # unread ones kept; any one of them is enough


def database_key(alias: str) -> str:
    """Host and name of a database, for log lines."""
    settings = connections[alias].settings_dict
    host = f"{settings['HOST']}:{settings['PORT']}".strip(":")
    return f"database {alias!r}" + (f" at {host}" if host else "")


class Session:
    """Connects when made. Every method may raise one of UNAVAILABLE. Its maker closes it."""

    def __init__(self, alias: str) -> None:
        given = connections[alias]
        self.vendor: str = given.vendor
        self.is_prepared: bool = False  # the dialect has prepared its statements
        self.notifications: deque[str] = deque(maxlen=NOTIFICATIONS_MAX)
        self._is_psycopg3 = False
        # The settings are read now: a test run changes NAME in place.
        self._wrapper: Any = type(given)(self._settings(given.settings_dict), alias)
        self._wrapper.inc_thread_sharing()  # another thread may close it at exit
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
            # A peer that vanished is noticed within 10 s when sending, within 12 s when listening.
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
            pass  # it was closed already

    # Statements

    def query(self, sql: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run the statements. Returns the rows of the last one."""
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            if self._is_psycopg3:
                while cursor.nextset():
                    pass
            return list(cursor.fetchall()) if cursor.description is not None else []

    def run(self, sql: str, parameters: Sequence[Any] | None = None) -> int:
        """Run a statement. Returns the number of rows it changed."""
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            count: int = cursor.rowcount
            return count

    @contextmanager
    def transaction(self, begin: str) -> Iterator[None]:
        """``begin``: the dialect's statement."""
        self.run(begin)
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Roll back after an error. Harmless without a transaction or a connection."""
        try:
            self.run("ROLLBACK")
        except UNAVAILABLE:
            pass

    def cursor(self) -> Any:
        # Not through the query log of DEBUG: the looks would fill it.
        with self._wrapper.wrap_database_errors:
            return self._wrapper.make_cursor(self._wrapper.create_cursor())

    # The connection itself

    @property
    def is_mariadb(self) -> bool:
        return bool(self.vendor == "mysql" and self._wrapper.mysql_is_mariadb)

    @property
    def is_direct(self) -> bool:
        """PostgreSQL: whether the other end is the server itself. A pooler makes up the process id that it tells."""
        (told,) = self.query("SELECT pg_backend_pid()")[0]
        return bool(self._wrapper.connection.info.backend_pid == told)

    def has_moved(self) -> bool:
        """SQLite: whether the path leads to another file than it did."""
        return self._file != self._identify_file()

    def file_times(self) -> tuple[int, ...]:
        """SQLite: the last writes and the sizes of the database and its write-ahead log. No lock is taken: even a short
        one makes those transactions of the project fail that begin with a read."""
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
        """Whether a statement has read some on its way: the descriptor no longer signals those."""
        return bool(self.notifications) or (
            self.vendor == "postgresql" and not self._is_psycopg3 and bool(self._wrapper.connection.notifies)
        )

    def take_notifications(self) -> list[str]:
        """All that have arrived, read by a statement or not."""
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


class Waker:
    """Wakes the bus thread. wake() may be called from any thread, and from a signal handler."""

    def __init__(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self._is_called = False

    def wake(self) -> None:
        if not self._is_called:
            self._is_called = True
            try:
                self._outer.send(b"!")
            except OSError:
                pass  # closed, or already full of calls

    def wait(self, seconds: float, session: Session | None = None) -> None:
        """Wait until wake() is called, the session gets a notification, or the time is over."""
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
        self._is_called = False  # after the read: else a call whose byte was just read would silence the next


class ForkLock:
    """Held while SQLite is used, so that no fork happens meanwhile; a fork waits at most FORK_SECONDS.

    SQLite remembers in memory which locks its process has on a file. A forked child inherits that memory without the
    locks, and its own connections would find the file locked for ever.
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
