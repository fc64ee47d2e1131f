"""MySQL and MariaDB: one transaction of several round trips gives positions. The server ends the session of a process
that stops in between.

No statement here searches for NULL with a lock: it would wait for every open INSERT.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from ..session import UNAVAILABLE, Session
from .base import LOCK_SECONDS, POSITIONS_AT_ONCE, Dialect, Status, random_epoch

LOCK_WAIT_TIMEOUT: Final = 1205
DEADLOCK: Final = 1213

# Not UNIX_TIMESTAMP(NOW(3)): it goes by the time of the session's zone, which goes back an hour where summer time ends.
_NOW: Final = "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)"
_STATUS: Final = f"""
SELECT s.epoch, s.head, s.milliseconds,
       IF(s.head > s.trimmed AND NOT EXISTS (SELECT 1 FROM sse_live_event WHERE position = s.head), s.head, s.trimmed),
       (SELECT COALESCE(MAX(id), 0) FROM sse_live_event),
       EXISTS (SELECT 1 FROM sse_live_event WHERE position IS NULL AND id > %s),
       EXISTS (SELECT 1 FROM sse_live_event WHERE position IS NULL AND id > %s AND pending),
       {_NOW} - s.milliseconds
FROM sse_live_stream s WHERE s.id = 1"""


class MySQL(Dialect):
    now_sql = _NOW

    def prepare(self, session: Session) -> None:
        session.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        session.run(f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}")
        # MariaDB has a timeout for sessions that are idle in a transaction; MySQL has one for all idle sessions.
        timeout = "idle_transaction_timeout" if session.is_mariadb else "wait_timeout"
        session.run(f"SET SESSION {timeout} = {LOCK_SECONDS}")

    def identity(self, session: Session) -> str:
        # MariaDB has no name of a server that survives a restart.
        server = "''" if session.is_mariadb else "@@server_uuid"
        return ".".join(session.query(f"SELECT DATABASE(), {server}")[0])

    def status(self, session: Session, after_id: int = -1) -> Status | None:
        rows = session.query(_STATUS, [after_id, after_id])
        if not rows:
            return None
        found = Status(*rows[0])
        return found._replace(has_waiting=bool(found.has_waiting), has_pending=bool(found.has_pending))

    def make_stream(self, session: Session) -> None:
        ((head, milliseconds),) = session.query(
            "SELECT COALESCE(MAX(position), 0), COALESCE(MAX(milliseconds), 0) FROM sse_live_event"
        )
        session.run(
            "INSERT IGNORE INTO sse_live_stream (id, epoch, head, milliseconds, trimmed) VALUES (1, %s, %s, %s, 0)",
            [random_epoch(), head, milliseconds],
        )

    def body_max_bytes(self, cursor: Any) -> int:
        cursor.execute("SELECT @@max_allowed_packet")
        (packet,) = cursor.fetchone()
        # A driver may escape each byte as two.
        return min(super().body_max_bytes(cursor), (int(packet) - 4096) // 2)

    def give(self, session: Session, after_id: int, late: Collection[int]) -> Status | None:
        try:
            given_after = self._give(session, after_id, late)
        except UNAVAILABLE as error:
            session.roll_back()
            if not self.may_wait(error):
                raise
            given_after = None
        status = self.status(session, after_id)
        return None if status is None else status._replace(given_after=given_after)

    def _give(self, session: Session, after_id: int, late: Collection[int]) -> int | None:
        """The four statements of docs/explanation/database.md. Returns the head before them; None if no position was
        given."""
        session.run("START TRANSACTION")
        held = session.query("SELECT head, milliseconds FROM sse_live_stream WHERE id = 1 FOR UPDATE SKIP LOCKED")
        if not held:
            session.run("ROLLBACK")
            return None
        head, milliseconds = held[0]
        waiting = f"FROM sse_live_event WHERE position IS NULL AND id > {after_id}"
        awaited = f"pending AND id NOT IN ({', '.join(map(str, late)) or 0})"
        # Of a large transaction thousands are pending: the first ones of their channels say all that is asked.
        found = session.query(
            f"(SELECT MIN(id), channel_key, MAX(more > 0), TRUE {waiting} AND {awaited} "
            "GROUP BY channel_key, more > 0) "
            f"UNION ALL (SELECT id, channel_key, more > 0, FALSE {waiting} AND NOT ({awaited}) "
            f"ORDER BY id LIMIT {POSITIONS_AT_ONCE})"
        )
        ids, has_more_keys = _ready(found)
        if not ids:
            session.run("ROLLBACK")
            return None
        listed = ", ".join(map(str, ids))
        ((now, has_head),) = session.query(
            f"SELECT {_NOW}, EXISTS (SELECT 1 FROM sse_live_event WHERE position = {head})"
        )
        milliseconds = max(milliseconds, int(now))
        session.run(
            f"UPDATE sse_live_event FORCE INDEX (PRIMARY) SET position = {head} + FIELD(id, {listed}), "
            f"milliseconds = {milliseconds}, pending = FALSE WHERE id IN ({listed}) AND position IS NULL"
        )
        if has_more_keys:
            channels = session.query(
                f"SELECT id FROM sse_live_event_channel WHERE position IS NULL AND event_id IN ({listed})"
            )
            rows = ", ".join(str(id) for (id,) in channels)
            session.run(
                "UPDATE sse_live_event_channel FORCE INDEX (PRIMARY) "
                f"SET position = {head} + FIELD(event_id, {listed}) WHERE id IN ({rows})"
            )
        trimmed = "" if has_head else f", trimmed = {head}"
        session.run(
            f"UPDATE sse_live_stream SET head = {head + len(ids)}, milliseconds = {milliseconds}{trimmed} WHERE id = 1"
        )
        session.run("COMMIT")
        return int(head)

    def may_wait(self, error: BaseException) -> bool:
        return bool(error.args) and error.args[0] in (LOCK_WAIT_TIMEOUT, DEADLOCK)


def _ready(found: Sequence[Any]) -> tuple[list[int], bool]:
    """Ids that may have their position now, and whether one of them has several channels. An event waits behind a
    pending one of its channel."""
    ids, has_more_keys = [], False
    blocked: set[int] = set()  # channel keys
    is_blocked = has_blocked = False
    for id, key, has_more, is_awaited in sorted(found):
        if is_awaited:
            blocked.add(key)
            has_blocked = True
            is_blocked = is_blocked or bool(has_more)
        elif not (is_blocked or key in blocked or (has_more and has_blocked)):
            ids.append(id)
            has_more_keys = has_more_keys or bool(has_more)
    return ids, has_more_keys
