"""PostgreSQL: positions are given in one round trip, so that a process that stops holds no lock.

Settings hold for one transaction (SET LOCAL): behind a pooler, another client uses the session next.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from functools import cache
from struct import pack
from typing import Any, Final

from ...green_threads import are_threads_green
from ..rows import NewRow, Row
from ..session import Session
from .base import LOCK_SECONDS, POSITIONS_AT_ONCE, READ_AT_ONCE, Dialect, Status, random_epoch, row, values

NOTIFICATION: Final = "sse_live"
LOCK_NOT_AVAILABLE: Final = "55P03"

_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

# {after} and {late} are parameters of prepared statements, or values written into the others.
_STATUS: Final = f"""
SELECT s.epoch, s.head, s.milliseconds,
       CASE WHEN s.head > s.trimmed AND NOT EXISTS (SELECT FROM sse_live_event WHERE position = s.head)
            THEN s.head ELSE s.trimmed END,
       (SELECT coalesce(max(id), 0) FROM sse_live_event),
       EXISTS (SELECT FROM sse_live_event WHERE position IS NULL AND id > {{after}}),
       EXISTS (SELECT FROM sse_live_event WHERE position IS NULL AND id > {{after}} AND pending),
       {_NOW} - s.milliseconds, nullif(current_setting('sse_live.given_after', true), '')::bigint
FROM sse_live_stream s WHERE s.id = 1"""

# Takes the stream's lock if some event has no position and nobody holds it.
_LOCK: Final = f"""
WITH held AS (
    SELECT FROM sse_live_stream
    WHERE id = 1 AND EXISTS (SELECT FROM sse_live_event WHERE position IS NULL AND id > {{after}})
    FOR UPDATE SKIP LOCKED
) SELECT set_config('sse_live.is_held', count(*)::text, true), set_config('sse_live.given_after', '', false),
         set_config('synchronous_commit', 'on', true), set_config('lock_timeout', '{LOCK_SECONDS}s', true),
         set_config('idle_in_transaction_session_timeout', '{LOCK_SECONDS}s', true)
FROM held"""

# Reads the ids without a position, updates those rows by primary key, writes the head. This is a later statement than
# the lock's, for a later snapshot. A subquery takes the time once: ids are made of it, so it must not go back within a
# transaction. An event waits behind a pending one of its channel.
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
    ORDER BY id LIMIT {POSITIONS_AT_ONCE}
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
SET head = g.position, milliseconds = g.milliseconds,
    trimmed = CASE WHEN EXISTS (SELECT FROM sse_live_event WHERE position = s.head) THEN s.trimmed ELSE s.head END
FROM (SELECT max(position) AS position, max(milliseconds) AS milliseconds, max(head) AS head FROM given) g
WHERE s.id = 1 AND g.position IS NOT NULL
RETURNING set_config('sse_live.given_after', g.head::text, false)"""

_AFTER: Final = (
    "SELECT position, milliseconds, pending, body FROM sse_live_event "
    f"WHERE position > $1 AND position <= $2 ORDER BY position LIMIT {READ_AT_ONCE}"
)

_INSERT: Final = "INSERT INTO sse_live_event (channel_key, more, pending, body, milliseconds) VALUES {} RETURNING id"
_INSERT_ONE: Final = _INSERT.format("($1, 0, $2, $3, 0)").encode()
_TYPES: Final = [20, 16, 17]  # bigint, boolean, bytea; lists, since psycopg 3.1 takes no tuples
_BINARY: Final = [1, 1, 1]  # the format of each
_IN_TRANSACTION: Final = 2  # PQTRANS_INTRANS
_TUPLES_OK: Final = 2  # PGRES_TUPLES_OK

# Prepared once for each direct session: planning would be most of what the bus costs a server. The plan always uses the
# indexes, even if the tables were small when it was made. Read committed, whatever the database's default is: what a
# serializable look reads makes serializable transactions of the project fail.
_PREPARE: Final = f"""
SELECT set_config(name, value, false) FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'),
    ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
    ('default_transaction_isolation', 'read committed')) settings (name, value);
PREPARE sse_live_status (bigint) AS {_STATUS};
PREPARE sse_live_lock (bigint) AS {_LOCK};
PREPARE sse_live_give (bigint, bigint[]) AS {_GIVE};
PREPARE sse_live_after (bigint, bigint) AS {_AFTER}""".format(after="$1", late="$2")


class PostgreSQL(Dialect):
    now_sql = _NOW
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED"

    def prepare(self, session: Session) -> None:
        # Behind a pooler, another session may run the next statement, without what was prepared in this one.
        if session.is_direct:
            session.query(_PREPARE)
            session.is_prepared = True

    def insert_in(self, connection: Any, row: NewRow) -> int:
        """By a call of libpq, at half the cost of a cursor, where the transaction has begun and the event has one
        channel. By Django's cursor also where the project logs, wraps or replaces cursors; where threads share the
        connection, whose lock a cursor takes; and where threads are greenlets, all of which the call would hold up."""
        pgconn: Any = getattr(connection.connection, "pgconn", None)
        if (
            row.more_keys
            or getattr(pgconn, "transaction_status", None) != _IN_TRANSACTION
            or pgconn.pipeline_status
            or connection.allow_thread_sharing
            or connection.queries_logged
            or connection.execute_wrappers
            or "cursor" in vars(connection)
            or not _has_own_cursors(connection.__class__, connection.connection.cursor_factory)
            or are_threads_green()
        ):
            return super().insert_in(connection, row)
        connection.validate_thread_sharing()
        connection.validate_no_broken_transaction()
        values = [pack(">q", row.channel_key), b"\1" if row.is_pending else b"\0", row.body]
        with connection.wrap_database_errors:
            result = pgconn.exec_params(_INSERT_ONE, values, _TYPES, _BINARY)
            if result.status != _TUPLES_OK:
                raise _error_of(result)
        return int(result.get_value(0, 0))

    def identity(self, session: Session) -> str:
        """The database's number, the cluster's identifier and its timeline. ``CREATE DATABASE … TEMPLATE`` gives a copy
        a number of its own; a promotion or a point-in-time restore changes the timeline."""
        ((number,),) = session.query("SELECT oid FROM pg_database WHERE datname = current_database()")
        try:
            ((cluster,),) = session.query(
                "SELECT system_identifier::text || '.' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) "
                "FROM pg_control_system()"
            )
        except Exception as error:
            if _state(error) not in ("42501", "42883", "0A000"):  # not allowed, or not there (managed services)
                raise
            cluster = ""
        return f"{number}.{cluster}"

    def status(self, session: Session, after_id: int = -1) -> Status | None:
        rows = session.query(self._status(session, after_id))
        return Status(*rows[0])._replace(given_after=None) if rows else None

    def _status(self, session: Session, after_id: int) -> str:
        return f"EXECUTE sse_live_status ({after_id})" if session.is_prepared else _STATUS.format(after=after_id)

    def make_stream(self, session: Session) -> None:
        # The stream's row may be lost while events are still there: positions go on after theirs. By the key: while
        # pg_restore fills the tables they have none yet, and a row of ours would be in the way of the restored one.
        session.run(
            "INSERT INTO sse_live_stream (id, epoch, head, milliseconds, trimmed) "
            "SELECT 1, %s, coalesce(max(position), 0), coalesce(max(milliseconds), 0), 0 FROM sse_live_event "
            "ON CONFLICT (id) DO NOTHING",
            [random_epoch()],
        )

    def insert(self, cursor: Any, rows: Sequence[NewRow]) -> list[int]:
        marks = ", ".join(["(%s, %s, %s, %s, 0)"] * len(rows))
        cursor.execute(_INSERT.format(marks), values(rows))
        ids = [id for (id,) in cursor.fetchall()]
        self._insert_more(cursor, rows, ids)
        return ids

    def give(self, session: Session, after_id: int, late: Collection[int]) -> Status | None:
        ids = f"'{{{','.join(map(str, late))}}}'::bigint[]"
        if session.is_prepared:
            lock, give = f"EXECUTE sse_live_lock ({after_id})", f"EXECUTE sse_live_give ({after_id}, {ids})"
        else:
            lock, give = _LOCK.format(after=after_id), _GIVE.format(after=after_id, late=ids)
        # The status is read after the commit, to see events whose processes found the lock taken.
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

    def writers(self, session: Session) -> frozenset[str] | None:
        # An INSERT takes this lock before it takes an id, and holds it until its transaction ends. Not known where one
        # is prepared (two-phase commit): it has no process any more, and another name than before. Nor where the
        # sequence has a cache: a session may have taken the id long ago.
        rows = session.query(
            "SELECT CASE WHEN pid IS NOT NULL THEN virtualtransaction END FROM pg_locks "
            "WHERE relation = 'sse_live_event'::regclass "
            "AND mode = 'RowExclusiveLock' AND pid IS DISTINCT FROM pg_backend_pid() "
            "UNION ALL SELECT NULL FROM pg_sequence "
            "WHERE seqrelid = to_regclass('sse_live_event_id_seq') AND seqcache > 1"
        )
        found = frozenset(name for (name,) in rows)
        return None if None in found else found

    def _trim(self, session: Session, statements: Sequence[str]) -> None:
        session.query(
            "BEGIN ISOLATION LEVEL READ COMMITTED; "
            f"SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', true), "
            f"set_config('idle_in_transaction_session_timeout', '{LOCK_SECONDS}s', true); "
            f"{'; '.join(statements)}; COMMIT"
        )

    # Notifications

    def listen(self, session: Session) -> None:
        session.run(f"LISTEN {NOTIFICATION}")

    def notify(self, session: Session, text: str) -> None:
        # The commit waits for no disk: a lost notification costs a moment, no event.
        session.query(f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{NOTIFICATION}', %s)", [text])


@cache
def _has_own_cursors(wrapper: Hashable, factory: Hashable) -> bool:
    """Whether the cursors of this connection class are Django's own. Those of django-tenants choose a schema."""
    from django.db.backends.postgresql import base

    names = ("cursor", "_cursor", "create_cursor", "make_cursor")
    is_djangos = all(getattr(wrapper, name) is getattr(base.DatabaseWrapper, name) for name in names)
    return is_djangos and factory in (base.Cursor, getattr(base, "ServerBindingCursor", None))


def _error_of(result: Any) -> Exception:
    """The error that a cursor of psycopg would raise."""
    from psycopg import OperationalError, errors
    from psycopg.pq import DiagnosticField

    state: bytes | None = result.error_field(DiagnosticField.SQLSTATE)
    try:
        kind = OperationalError if state is None else errors.lookup(state.decode())
    except KeyError:
        kind = errors.DatabaseError
    return kind(result.error_message.decode(errors="replace").removeprefix("ERROR:").strip())


def _state(error: BaseException) -> str | None:
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
