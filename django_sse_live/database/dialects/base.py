"""Dialect: the statements of the bus. The base class has those that are the same for all databases.

Names need no quotes: they are lower case, and reserved by no supported database.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from ..rows import LOST_KEY, NOW_KEY, NewRow, Row
from ..session import UNAVAILABLE, Session

POSITIONS_AT_ONCE: Final = 1_000  # positions given in one transaction
READ_AT_ONCE: Final = 500  # rows read by one query
TRIMMED_AT_ONCE: Final = 1_000
CHANNELS_AT_ONCE: Final = 10_000  # inserted by one statement; some drivers take 65,535 parameters
SMALLINT_MAX: Final = 32_767
LOCK_SECONDS: Final = 2  # the database ends a session that holds, or waits for, the stream's lock longer
NOW_SECONDS: Final = 30  # presence and worker reports that are older are deleted


class Status(NamedTuple):
    """The state of the stream at one moment."""

    epoch: str  # of the stream's row
    head: int  # the last position given
    milliseconds: int  # of that position
    trimmed: int  # events up to this position may be gone
    last_id: int  # the greatest committed id
    has_waiting: bool = False  # some event has no position
    has_pending: bool = False  # some event waits for its process to complete it
    age: int = 0  # milliseconds since positions were last given
    given_after: int | None = None  # the head before this call gave positions; None: it gave none


def random_epoch() -> str:
    return secrets.token_hex(8)


def values(rows: Sequence[NewRow]) -> list[Any]:
    return [
        value
        for row in rows
        for value in (row.channel_key, min(len(row.more_keys), SMALLINT_MAX), row.is_pending, row.body)
    ]


class Dialect:
    """Stateless: each method gets the connection that it uses."""

    # The column of the position; on SQLite it is the id.
    position: str = "position"
    has_position: str = ""  # a further condition, where an index needs it
    gives_positions: bool = True
    now_sql: str  # milliseconds since 1970, by the database's clock
    stores_worker_events: bool = True  # whether presence and worker reports are written
    begin: str = "START TRANSACTION"
    trimmed_at_once: int = TRIMMED_AT_ONCE
    time_of_insert: str = "0"  # the milliseconds of a row until it has its position
    trims_time: bool = False  # trimming writes the time too: the stream's row has no other writer

    # Identity and the stream's row

    def prepare(self, session: Session) -> None:
        """Set up a new connection."""

    def identity(self, session: Session) -> str:
        """A name of the server that changes where it is restored, copied or failed over; empty where there is none."""
        return ""

    def status(self, session: Session, after_id: int = -1) -> Status | None:
        """The stream's status; None without its row. has_waiting and has_pending ignore ids up to ``after_id``."""
        raise NotImplementedError

    def make_stream(self, session: Session) -> None:
        """Insert the stream's row, unless it is there."""
        raise NotImplementedError

    def begin_epoch(self, session: Session, old: str) -> None:
        """Replace the epoch, unless another process has just done so."""
        session.run("UPDATE sse_live_stream SET epoch = %s WHERE id = 1 AND epoch = %s", [random_epoch(), old])

    # Publishing

    def insert_in(self, connection: Any, row: NewRow) -> int:
        """Insert an event in the transaction of the project's connection. Returns its id."""
        with connection.cursor() as cursor:
            (id,) = self.insert(cursor, [row])
        return id

    def insert(self, cursor: Any, rows: Sequence[NewRow]) -> list[int]:
        """Insert events in the open transaction of the cursor. Returns their ids."""
        # One by one: the ids of one statement need not be consecutive (MySQL's innodb_autoinc_lock_mode = 2).
        ids = []
        for each in rows:
            cursor.execute(
                "INSERT INTO sse_live_event (channel_key, more, pending, body, milliseconds) "
                f"VALUES (%s, %s, %s, %s, {self.time_of_insert})",
                values([each]),
            )
            ids.append(int(cursor.lastrowid))
        self._insert_more(cursor, rows, ids)
        return ids

    def _insert_more(self, cursor: Any, rows: Sequence[NewRow], ids: Sequence[int]) -> None:
        """Insert the channels of events after their first."""
        more = [(id, key) for row, id in zip(rows, ids, strict=True) for key in row.more_keys]
        for first in range(0, len(more), CHANNELS_AT_ONCE):
            some = more[first : first + CHANNELS_AT_ONCE]
            marks = ", ".join(["(%s, %s)"] * len(some))
            cursor.execute(
                f"INSERT INTO sse_live_event_channel (event_id, channel_key) VALUES {marks}",
                [value for pair in some for value in pair],
            )

    def complete(self, cursor: Any, id: int, body: bytes | None) -> None:
        """Give a pending event its final body. An event that has its position stays as it is. None: it is not to be
        sent. Its row stays, without a body: if it were deleted, the rows of its further channels would never get a
        position, by which they are trimmed, and on SQLite the head would go back."""
        cursor.execute(
            "UPDATE sse_live_event SET body = %s, pending = %s WHERE id = %s AND pending", [body or b"", False, id]
        )

    def body_max_bytes(self, cursor: Any) -> int:
        return 64 * 1024 * 1024

    def is_inserted(self, session: Session, body: bytes, after_id: int) -> bool:
        """Whether this body was inserted with a higher id."""
        return bool(session.query("SELECT 1 FROM sse_live_event WHERE id > %s AND body = %s", [after_id, body]))

    # Positions

    def give(self, session: Session, after_id: int, late: Collection[int]) -> Status | None:
        """Give positions to events without one whose id is greater, unless another process holds the stream's lock.
        Returns the status after it; None if the stream's row is missing. ``late``: pending events that are given one
        all the same."""
        return self.status(session, after_id)

    def pending(self, session: Session, after_id: int) -> list[int]:
        """Ids of the events that wait for their process to complete them."""
        rows = session.query("SELECT id FROM sse_live_event WHERE position IS NULL AND id > %s AND pending", [after_id])
        return [id for (id,) in rows]

    def writers(self, session: Session) -> frozenset[str] | None:
        """The open transactions that may have inserted an event. None: not known, and not needed, since an event that
        has its position is not looked at again."""
        return None

    def settled(self, session: Session, after_id: int, until_id: int) -> int:
        """The last id of this span up to which every committed event has its position."""
        ((first,),) = session.query(
            "SELECT min(id) FROM sse_live_event WHERE position IS NULL AND id > %s AND id <= %s", [after_id, until_id]
        )
        return until_id if first is None else int(first) - 1

    # Reading

    def after(self, session: Session, number: int, until: int) -> list[Row]:
        """The first READ_AT_ONCE events after a position, up to another."""
        where = f"{self.position} > %s AND {self.position} <= %s ORDER BY {self.position}"
        return self._rows(session, where, [number, until], READ_AT_ONCE)

    def before(self, session: Session, number: int) -> list[Row]:
        """The last READ_AT_ONCE events up to a position, the newest first."""
        return self._rows(session, f"{self.position} <= %s ORDER BY {self.position} DESC", [number], READ_AT_ONCE)

    def newest_of_channel(self, session: Session, key: int, until: int, limit: int) -> list[Row]:
        """The last events up to a position whose first channel is this one, the newest first."""
        where = f"channel_key = %s {self.has_position} AND {self.position} <= %s ORDER BY {self.position} DESC"
        return self._rows(session, where, [key, until], limit)

    def of_channels(
        self, session: Session, keys: Sequence[int], after: int, until: int, limit: int, max_bytes: int
    ) -> tuple[list[Row], bool] | None:
        """The first events of channels in that span, and whether events were lost in it. None if they have more bytes:
        the database adds them up, and sends none of them."""
        marks = ", ".join(["%s"] * (len(keys) + 1))
        parameters = [LOST_KEY, *keys, after, until, limit]
        position = self.position
        own = (
            f"FROM sse_live_event WHERE channel_key IN ({marks}) {self.has_position} "
            f"AND {position} > %s AND {position} <= %s ORDER BY {position} LIMIT %s"
        )
        others = (
            f"FROM (SELECT DISTINCT event_id, position FROM sse_live_event_channel WHERE channel_key IN ({marks}) "
            f"AND position > %s AND position <= %s ORDER BY position LIMIT %s) c "
            "JOIN sse_live_event e ON e.id = c.event_id"
        )
        for sizes in (f"SELECT LENGTH(body) AS size {own}", f"SELECT LENGTH(e.body) AS size {others}"):
            ((size,),) = session.query(f"SELECT SUM(size) FROM ({sizes}) found", parameters)
            if size is not None and size > max_bytes:
                return None
        found = session.query(f"SELECT {position}, milliseconds, pending, body, channel_key {own}", parameters)
        has_lost = any(each[4] == LOST_KEY for each in found)
        found += session.query(f"SELECT c.position, e.milliseconds, e.pending, e.body {others}", parameters)
        rows = {each[0]: row(each) for each in found}
        return [rows[number] for number in sorted(rows)][:limit], has_lost

    def _rows(self, session: Session, where: str, parameters: list[Any], limit: int) -> list[Row]:
        sql = f"SELECT {self.position}, milliseconds, pending, body FROM sse_live_event WHERE {where} LIMIT {limit}"
        return list(map(row, session.query(sql, parameters)))

    # Trimming

    def trim(self, session: Session, status: Status, seconds: float) -> bool:
        """Delete at most trimmed_at_once events that are too old. True if there may be more. Where another transaction
        holds a lock, trimming waits for its next turn."""
        found = self._oldest(session, status, seconds)
        if found is None:
            return False
        up_to, milliseconds, has_more = found
        try:
            self._trim(session, self._trims(status.trimmed, up_to, milliseconds))
        except UNAVAILABLE as error:
            if not self.may_wait(error):
                raise
            return False
        return has_more

    def _trim(self, session: Session, statements: Sequence[str]) -> None:
        with session.transaction(self.begin):
            for sql in statements:
                session.run(sql)

    def may_wait(self, error: BaseException) -> bool:
        """Whether the error only says that another transaction holds a lock."""
        return False

    def _trims(self, after: int, up_to: int, milliseconds: int) -> tuple[str, ...]:
        position, time = self.position, f", milliseconds = {milliseconds}" if self.trims_time else ""
        return (
            f"DELETE FROM sse_live_event WHERE {position} > {after} AND {position} <= {up_to}",
            f"DELETE FROM sse_live_event_channel WHERE position > {after} AND position <= {up_to}",
            f"UPDATE sse_live_stream SET trimmed = {up_to}{time} WHERE id = 1 AND trimmed < {up_to}",
        )

    def _oldest(self, session: Session, status: Status, seconds: float) -> tuple[int, int, bool] | None:
        """The last of the oldest events that are too old: its position, its milliseconds, whether there may be more."""
        limit = self.trimmed_at_once
        rows = session.query(
            f"SELECT {self.position}, milliseconds, {self.now_sql} FROM sse_live_event WHERE {self.position} > %s "
            f"ORDER BY {self.position} LIMIT {limit}",
            [status.trimmed],
        )
        # Also those of a clock that was far ahead for a moment: until their time comes, they would fill the disk.
        old = [row for row in rows if abs(row[2] - row[1]) > seconds * 1000]
        return (old[-1][0], old[-1][1], len(old) == limit) if old else None

    def now(self, session: Session) -> int:
        ((now,),) = session.query(f"SELECT {self.now_sql}")
        return int(now)

    def trim_worker_events(self, session: Session, after: int) -> int:
        """Delete presence and worker reports older than NOW_SECONDS, but not the stream's last event: where that is
        missing, somebody else has deleted events. Returns the position to go on after."""
        rows = session.query(
            f"SELECT position, milliseconds, {self.now_sql} FROM sse_live_event "
            "WHERE channel_key = %s AND position > %s AND position < (SELECT head FROM sse_live_stream WHERE id = 1) "
            f"ORDER BY position LIMIT {TRIMMED_AT_ONCE}",
            [NOW_KEY, after],
        )
        old = [position for position, milliseconds, now in rows if abs(now - milliseconds) > NOW_SECONDS * 1000]
        if old:
            session.run(
                "DELETE FROM sse_live_event WHERE channel_key = %s AND position > %s AND position <= %s",
                [NOW_KEY, after, old[-1]],
            )
            return int(old[-1])
        return after


def row(found: Sequence[Any]) -> Row:
    body = found[3]
    if not isinstance(body, (bytes, bytearray, memoryview)):  # SQLite keeps what somebody puts there, of whatever type
        body = str(body).encode(errors="replace")
    return Row(found[0], found[1], bool(found[2]), bytes(body))
