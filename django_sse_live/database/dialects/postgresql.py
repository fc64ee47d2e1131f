"""PostgreSQL: positions are given in one round trip, so that a process that stops holds nothing.

Every setting is that of a transaction (SET LOCAL): behind a pooler, the session is somebody else's a moment later.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from ..rows import NewRow, Row
from ..session import Session
from .base import GIVEN_AT_ONCE, LOCK_SECONDS, READ_AT_ONCE, Dialect, Status, placeholders, random_epoch, row, values

NOTIFICATION: Final = "sse_live"
LOCK_NOT_AVAILABLE: Final = "55P03"

_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

# {after} and {late} are parameters where a statement is prepared, and else written out.
_STATUS: Final = f"""
SELECT s.epoch, s.head, s.milliseconds, s.trimmed,
       (SELECT coalesce(max(id), 0) FROM sse_live_event),
       EXISTS (SELECT FROM sse_live_event WHERE position IS NULL AND id > {{after}}),
       EXISTS (SELECT FROM sse_live_event WHERE position IS NULL AND id > {{after}} AND pending),
       {_NOW} - s.milliseconds, nullif(current_setting('sse_live.given_after', true), '')::bigint
FROM sse_live_stream s WHERE s.id = 1"""

# The lock, if there is something to do and nobody holds it.
_LOCK: Final = f"""
WITH held AS (
    SELECT FROM sse_live_stream
    WHERE id = 1 AND EXISTS (SELECT FROM sse_live_event WHERE position IS NULL AND id > {{after}})
    FOR UPDATE SKIP LOCKED
) SELECT set_config('sse_live.is_held', count(*)::text, true), set_config('sse_live.given_after', '', false),
         set_config('synchronous_commit', 'on', true), set_config('lock_timeout', '{LOCK_SECONDS}s', true),
         set_config('idle_in_transaction_session_timeout', '{LOCK_SECONDS}s', true)
FROM held"""

# The ids that have no position, read without a lock by a later statement than the lock's and so by a later snapshot;
# positions for them by primary key; the head. The time is taken once, by a subquery, since ids are made of it and must
# not go back within one transaction either. An event waits behind a pending one of its channel.
_GIVE: Final = f"""
WITH waiting AS MATERIALIZED (
    SELECT id, channel_key, more FROM sse_live_event
    WHERE position IS NULL AND id > {{after}} AND pending AND id <> ALL ({{late}})
), new AS MATERIALIZED (
    SELECT id FROM sse_live_event e
    WHERE position IS NULL AND id > {{after}} AND current_setting('sse_live.is_held') = '1' AND NOT EXISTS (
        SELECT FROM waiting w
        WHERE w.id <= e.id AND (w.id = e.id OR w.channel_key = e.channel_key OR w.more > 0 OR e.more > 0)
    )
    ORDER BY id LIMIT {GIVEN_AT_ONCE}
), numbered AS (
    SELECT id, row_number() OVER (ORDER BY id) AS number FROM new
), given AS (
    UPDATE sse_live_event e
    SET position = s.head + n.number, milliseconds = greatest(s.milliseconds, (SELECT {_NOW})), pending = false
    FROM numbered n, sse_live_stream s
    WHERE s.id = 1 AND e.id = n.id AND e.position IS NULL
    RETURNING e.id, e.position, e.milliseconds, e.more, s.head
), others AS (
    UPDATE sse_live_event_channel c SET position = g.position FROM given g
    WHERE g.more > 0 AND c.position IS NULL AND c.event_id = g.id
)
UPDATE sse_live_stream s
SET head = g.position, milliseconds = g.milliseconds
FROM (SELECT max(position) AS position, max(milliseconds) AS milliseconds, max(head) AS head FROM given) g
WHERE s.id = 1 AND g.position IS NOT NULL
RETURNING set_config('sse_live.given_after', g.head::text, false)"""

_AFTER: Final = (
    "SELECT position, milliseconds, pending, body FROM sse_live_event "
    f"WHERE position > $1 AND position <= $2 ORDER BY position LIMIT {READ_AT_ONCE}"
)

# Planned once for a session of the server's own. By what it costs to plan them, these statements would be most of what
# the bus costs a server. The way is always that by the indexes, however small the tables are when they are planned.
_PREPARE: Final = f"""
SELECT set_config(name, value, false) FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'),
    ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off')) settings (name, value);
PREPARE sse_live_status (bigint) AS {_STATUS};
PREPARE sse_live_lock (bigint) AS {_LOCK};
PREPARE sse_live_give (bigint, bigint[]) AS {_GIVE};
PREPARE sse_live_after (bigint, bigint) AS {_AFTER}""".format(after="$1", late="$2")


class PostgreSQL(Dialect):
    now_sql = _NOW

    def prepare(self, session: Session) -> None:
        # Behind a pooler the next statement may be run by another session, which has prepared nothing.
        if session.is_direct:
            session.query(_PREPARE)
            session.is_prepared = True

    @contextmanager
    def outbox_cursor(self, connection: Any) -> Iterator[Any]:
        """psycopg 3's own, at half the price of Django's; but where somebody wants to see or change what is executed,
        or has a say in what a cursor is."""
        raw = connection.connection
        if (
            not hasattr(raw, "add_notify_handler")
            or connection.queries_logged
            or connection.execute_wrappers
            or raw.prepare_threshold is not None  # Django's own prepares nothing, which a pooler may not bear
            or "cursor" in vars(connection)
            or not _has_own_cursors(connection.__class__, raw.cursor_factory)
        ):
            with connection.cursor() as cursor:
                yield cursor
            return
        connection.validate_thread_sharing()
        connection.validate_no_broken_transaction()
        from psycopg import Cursor
        from psycopg.rows import tuple_row

        with connection.wrap_database_errors, Cursor(raw, row_factory=tuple_row) as cursor:
            yield cursor

    def identity(self, session: Session) -> str:
        """The cluster's identifier, and its timeline, which a promotion or a restore to a point in time changes."""
        try:
            (found,) = session.query(
                "SELECT system_identifier::text || '.' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) "
                "FROM pg_control_system()"
            )
        except Exception as error:
            if _state(error) in ("42501", "42883", "0A000"):  # not allowed, or not there: a service like PostgreSQL
                return ""
            raise
        return str(found[0])

    def status(self, session: Session, after_id: int = 0) -> Status | None:
        rows = session.query(self._status(session, after_id))
        return Status(*rows[0])._replace(given_after=None) if rows else None

    def _status(self, session: Session, after_id: int) -> str:
        return f"EXECUTE sse_live_status ({after_id})" if session.is_prepared else _STATUS.format(after=after_id)

    def make_stream(self, session: Session) -> None:
        # Positions go on where those of the events that are still there end: a row may have been lost alone.
        session.run(
            "INSERT INTO sse_live_stream (id, epoch, head, milliseconds, trimmed) "
            "SELECT 1, %s, coalesce(max(position), 0), coalesce(max(milliseconds), 0), 0 FROM sse_live_event "
            "ON CONFLICT DO NOTHING",
            [random_epoch()],
        )

    def insert(self, cursor: Any, rows: Sequence[NewRow]) -> list[int]:
        cursor.execute(
            "INSERT INTO sse_live_event (channel_key, more, pending, body, milliseconds) "
            f"VALUES {placeholders(rows, '(%s, %s, %s, %s, 0)')} RETURNING id",
            values(rows),
        )
        ids = [id for (id,) in cursor.fetchall()]
        self._insert_more(cursor, rows, ids)
        return ids

    def give(self, session: Session, after_id: int, late: Collection[int]) -> Status | None:
        ids = f"'{{{','.join(map(str, late))}}}'::bigint[]"
        if session.is_prepared:
            lock, give = f"EXECUTE sse_live_lock ({after_id})", f"EXECUTE sse_live_give ({after_id}, {ids})"
        else:
            lock, give = _LOCK.format(after=after_id), _GIVE.format(after=after_id, late=ids)
        # The status comes after the commit: what was committed by somebody who found the lock taken is seen there.
        status = self._status(session, after_id)
        try:
            rows = session.query(f"BEGIN ISOLATION LEVEL READ COMMITTED; {lock}; {give}; COMMIT; {status}")
        except Exception as error:
            session.roll_back()
            if _state(error) == LOCK_NOT_AVAILABLE:
                return self.status(session, after_id)
            raise
        return Status(*rows[0]) if rows else None

    def after(self, session: Session, number: int, until: int) -> list[Row]:
        if not session.is_prepared:
            return super().after(session, number, until)
        return list(map(row, session.query(f"EXECUTE sse_live_after ({number}, {until})")))

    def writers(self, session: Session) -> frozenset[str]:
        # Whoever inserts has this lock before it takes an id, and until its transaction ends.
        rows = session.query(
            "SELECT virtualtransaction FROM pg_locks WHERE relation = 'sse_live_event'::regclass "
            "AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()"
        )
        return frozenset(name for (name,) in rows)

    def trim(self, session: Session, status: Status, seconds: float) -> bool:
        found = self._oldest(session, status, seconds)
        if found is None:
            return False
        up_to, milliseconds, has_more = found
        session.query(
            "BEGIN ISOLATION LEVEL READ COMMITTED; "
            f"SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', true), "
            f"set_config('idle_in_transaction_session_timeout', '{LOCK_SECONDS}s', true); "
            f"{'; '.join(self._trims(status.trimmed, up_to, milliseconds))}; COMMIT"
        )
        return has_more

    # Notifications

    def listen(self, session: Session) -> None:
        session.run(f"LISTEN {NOTIFICATION}")

    def notify(self, session: Session, text: str) -> None:
        # Nothing is lost with it: its commit waits for no disk.
        session.query(f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{NOTIFICATION}', %s)", [text])


@cache
def _has_own_cursors(wrapper: Hashable, factory: Hashable) -> bool:
    """Whether Django's own code makes the cursors of this class, and they are its own. Those of django-tenants choose a
    schema."""
    from django.db.backends.postgresql import base

    names = ("cursor", "_cursor", "create_cursor", "make_cursor")
    is_djangos = all(getattr(wrapper, name) is getattr(base.DatabaseWrapper, name) for name in names)
    return is_djangos and factory in (base.Cursor, getattr(base, "ServerBindingCursor", None))


def _state(error: BaseException) -> str | None:
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
