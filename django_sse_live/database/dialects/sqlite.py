"""SQLite has one writer, so the id (AUTOINCREMENT) is the position, and no row is written twice.

The bus writes by itself at most once a minute, to trim. A second writing process would make those transactions of the
project fail that begin with a read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..rows import NewRow
from ..session import Session
from .base import Dialect, Status, random_epoch

TRIMMED_AT_ONCE: Final = 20_000  # more than elsewhere, since it runs once a minute
# Of the events before the process began, those are searched for pending ones. An older one was left by a crash.
PENDING_SEARCHED_EVENTS: Final = 1_000
PENDING_SEARCHED_SECONDS: Final = 60

# Where a flush has taken the rows, the next id is still the one after the last.
MAKE_STREAM: Final = (
    "INSERT OR IGNORE INTO sse_live_stream (id, epoch, head, milliseconds, trimmed) VALUES (1, %s, 0, 0, "
    "coalesce((SELECT min(id) - 1 FROM sse_live_event), "
    "(SELECT seq FROM sqlite_sequence WHERE name = 'sse_live_event'), 0))"
)

_NOW: Final = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
# Times never go back, since ids are made of them.
_NEXT_TIME: Final = (
    f"max({_NOW}, coalesce((SELECT milliseconds FROM sse_live_event ORDER BY id DESC LIMIT 1), "
    "(SELECT milliseconds FROM sse_live_stream), 0))"
)
# The head is the last event that may be read: a pending event holds back those after it. Ids have no gaps, so what is
# below the first one is gone, whoever has deleted it.
_STATUS: Final = """
WITH waiting AS (
    SELECT min(id) AS id FROM sse_live_event WHERE pending AND {searched}
), head AS (
    SELECT id, milliseconds FROM sse_live_event
    WHERE id < coalesce((SELECT id FROM waiting), 9223372036854775807) ORDER BY id DESC LIMIT 1
)
SELECT s.epoch, coalesce(head.id, s.trimmed), coalesce(head.milliseconds, s.milliseconds),
       coalesce((SELECT min(id) FROM sse_live_event) - 1, s.trimmed),
       coalesce((SELECT max(id) FROM sse_live_event), 0), (SELECT id FROM waiting) IS NOT NULL
FROM sse_live_stream s LEFT JOIN head ON 1 WHERE s.id = 1"""
_RECENT: Final = (
    f"id > (SELECT max(id) - {PENDING_SEARCHED_EVENTS} FROM sse_live_event) "
    f"AND abs(milliseconds - {_NOW}) < {PENDING_SEARCHED_SECONDS * 1000}"
)


class SQLite(Dialect):
    now_sql = _NOW
    position = "id"
    # Without this condition the planner uses only the first column of the index, and sorts.
    has_position = "AND position IS NULL"
    gives_positions = False
    stores_worker_events = False
    begin = "BEGIN IMMEDIATE"
    trimmed_at_once = TRIMMED_AT_ONCE
    time_of_insert = _NEXT_TIME
    trims_time = True

    def status(self, session: Session, after_id: int = -1) -> Status | None:
        rows = session.query(_STATUS.format(searched=_RECENT if after_id < 0 else f"id > {after_id}"))
        return Status(*rows[0][:5])._replace(has_pending=bool(rows[0][5])) if rows else None

    def make_stream(self, session: Session) -> None:
        session.run(MAKE_STREAM, [random_epoch()])

    def _insert_more(self, cursor: Any, rows: Sequence[NewRow], ids: Sequence[int]) -> None:
        for row, id in zip(rows, ids, strict=True):
            for key in row.more_keys:
                cursor.execute(
                    "INSERT INTO sse_live_event_channel (event_id, channel_key, position) VALUES (%s, %s, %s)",
                    [id, key, id],
                )

    def last_id(self, session: Session) -> int:
        """The greatest id, found by one step into the index."""
        ((last,),) = session.query("SELECT coalesce(max(id), 0) FROM sse_live_event")
        return int(last)

    def trim(self, session: Session, status: Status, seconds: float) -> bool:
        super().trim(session, status, seconds)
        return False  # never more than one slice a minute

    def may_wait(self, error: BaseException) -> bool:
        return True  # another process writes: next turn
