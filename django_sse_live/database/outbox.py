"""Outbox: an event becomes part of the caller's own transaction, over the caller's own connection.

It is one INSERT: no lock, no trigger, no notification. The event and the row that it tells of commit together or not at
all, even if the process dies.
"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, connections, transaction

from ..events import Event
from .dialects.base import Dialect
from .problems import explained
from .rows import encode_row

logger: logging.Logger = logging.getLogger("django_sse_live")

_TABLES: Final = ("sse_live_event", "sse_live_event_channel")  # that an event is inserted into
_TABLES_OF_POSTGRESQL: Final = (
    "SELECT to_regclass(%s) IS NOT NULL, CASE WHEN to_regclass(%s) IS NULL THEN false "
    "ELSE has_table_privilege(to_regclass(%s), 'INSERT') END"
)


class Outbox:
    """Methods may be called from any thread; what is remembered is the same for all threads."""

    def __init__(self, alias: str, dialect: Dialect, has_savepoint: bool) -> None:
        self._alias = alias
        self._dialect = dialect
        self._has_savepoint = has_savepoint
        self._max_bytes = 0  # 0: not known yet
        self._has_tables = False

    def insert(self, event: Event) -> int | None:
        """Insert the event. Returns its id; None if it failed inside its own savepoint, and only the event is lost.

        Raises ValueError before anything happens if the event is too large, DatabaseError otherwise. The transaction is
        then marked for rollback: PostgreSQL would answer its COMMIT with a silent rollback.
        """
        connection = connections[self._alias]
        row = encode_row(event)
        try:
            if self._has_savepoint:
                with transaction.atomic(using=self._alias):
                    return self._insert(connection, event, row)
            return self._insert(connection, event, row)
        except (DatabaseError, InterfaceError) as error:
            problem = explained(error, self._alias)
            if self._has_savepoint and not connection.needs_rollback:
                logger.error("The SSE event %r is lost: %s", event, problem)
                return None
            if connection.in_atomic_block:
                connection.set_rollback(True)
            raise problem from error

    def _insert(self, connection: Any, event: Event, row: Any) -> int:
        if not self._has_tables:
            # By the driver's own cursor: to assertNumQueries the first broadcast of a process is as any other. Django's
            # is opened before: it connects, and that of django-tenants chooses the schema.
            connection.cursor().close()
            with connection.wrap_database_errors, closing(connection.connection.cursor()) as cursor:
                self._max_bytes = self._dialect.body_max_bytes(cursor)
                self._check_tables(connection, cursor)
        self.check_size(event, len(row.body))
        return self._dialect.insert_in(connection, row)

    def check_size(self, event: Event, size: int) -> None:
        """ValueError for a body that the database does not take. After the first INSERT."""
        if size > self._max_bytes:
            raise ValueError(
                f"The event {event.type!r} on {', '.join(event.channels)} has {size:,} bytes; the database bus takes "
                f"at most {self._max_bytes:,} (on MySQL and MariaDB half of max_allowed_packet). Send a key, and let "
                "the page fetch the rest."
            )

    def _check_tables(self, connection: Any, cursor: Any) -> None:
        """Check the tables once, before the first INSERT: one that fails would end the transaction on the server."""
        if connection.vendor == "postgresql":
            for table in _TABLES:
                cursor.execute(_TABLES_OF_POSTGRESQL, [table] * 3)
                is_there, may_insert = cursor.fetchone()
                if not is_there:
                    raise DatabaseError(f"no such table: {table}")
                if not may_insert:
                    raise DatabaseError(f"permission denied for table {table}")
        self._has_tables = True
