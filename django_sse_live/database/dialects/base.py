"""Dialect: what the bus asks of a database, in statements that are the same for all; the others say what differs.

Names are written without quotes: they are small letters, and words that no supported database reserves.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from ..rows import LOST_KEY, NOW_KEY, NewRow, Row
from ..session import UNAVAILABLE, Session

GIVEN_AT_ONCE: Final = 1_000  # positions in one transaction
READ_AT_ONCE: Final = 500  # rows in one answer
TRIMMED_AT_ONCE: Final = 1_000
LOCK_SECONDS: Final = 2  # after which the database itself ends who holds or waits for the stream's lock
PENDING_SECONDS: Final = 2.0  # after which an event is sent as it stands, if nobody has completed it
NOW_SECONDS: Final = 30  # what is worth nothing later is deleted when it is older


class Status(NamedTuple):
    """The stream at one moment."""

    epoch: str  # as the row has it
    head: int  # the last position that was given
    milliseconds: int  # of that position
    trimmed: int
    last_id: int  # of all that is committed
    has_waiting: bool = False  # an event without a position
    has_pending: bool = False  # one that its process is about to complete
    age: int = 0  # milliseconds since positions were last given
    given_after: int | None = None  # the head before this very call gave positions; None: it gave none


def random_epoch() -> str:
    return secrets.token_hex(8)


def placeholders(rows: Sequence[NewRow], one: str = "(%s, %s, %s, %s)") -> str:
    return ", ".join([one] * len(rows))


def values(rows: Sequence[NewRow]) -> list[Any]:
    return [value for row in rows for value in (row.channel_key, len(row.more_keys), row.is_pending, row.body)]


class Dialect:
    """Stateless. Each method is given the connection it uses."""

    # What stands for a row's position; on SQLite it is the id.
    position: str = "position"
    has_position: str = ""  # said besides, where an index needs it
    gives_positions: bool = True
    now_sql: str  # milliseconds since 1970, by the database's clock
    has_workers_words: bool = True  # whether presence and reports may be written
    begin: str = "START TRANSACTION"
    trimmed_at_once: int = TRIMMED_AT_ONCE
    time_of_insert: str = "0"  # what a row has for milliseconds until it has its position
    trims_time: bool = False  # the stream's row has no other writer, and so the time of what was trimmed

    # Identity and the stream's row

    def prepare(self, session: Session) -> None:
        """Once for each connection."""

    def identity(self, session: Session) -> str:
        """What tells this server from one that was restored, copied or took over; empty where nothing does."""
        return ""

    def status(self, session: Session, after_id: int = 0) -> Status | None:
        """``after_id``: lower ids are not asked for by has_waiting and has_pending. None: the stream's row is not
        there."""
        raise NotImplementedError

    def make_stream(self, session: Session) -> None:
        """The row, unless somebody else has just made it."""
        raise NotImplementedError

    def begin_epoch(self, session: Session, old: str) -> None:
        """Another one, unless somebody else has just begun it."""
        session.run("UPDATE sse_live_stream SET epoch = %s WHERE id = 1 AND epoch = %s", [random_epoch(), old])

    # Publishing

    def outbox_cursor(self, connection: Any) -> AbstractContextManager[Any]:
        """Over a connection of the project's, in its transaction."""
        cursor: AbstractContextManager[Any] = connection.cursor()
        return cursor

    def insert(self, cursor: Any, rows: Sequence[NewRow]) -> list[int]:
        """Their ids. In the transaction that is open on the cursor's connection."""
        # One by one: of one statement, the ids need not be consecutive (MySQL's innodb_autoinc_lock_mode = 2).
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
        """The channels besides the first."""
        more = [value for row, id in zip(rows, ids, strict=True) for key in row.more_keys for value in (id, key)]
        if more:
            marks = ", ".join(["(%s, %s)"] * (len(more) // 2))
            cursor.execute(f"INSERT INTO sse_live_event_channel (event_id, channel_key) VALUES {marks}", more)

    def complete(self, cursor: Any, id: int, body: bytes | None) -> None:
        """What was pending is this; None: it is not to be sent. Nothing happens to what has its position already."""
        if body is None:
            cursor.execute("DELETE FROM sse_live_event WHERE id = %s AND position IS NULL", [id])
        else:
            cursor.execute(
                "UPDATE sse_live_event SET body = %s, pending = %s WHERE id = %s AND position IS NULL",
                [body, False, id],
            )

    def body_max_bytes(self, cursor: Any) -> int:
        return 64 * 1024 * 1024

    def find_inserted(self, session: Session, bodies: Sequence[bytes], after_id: int) -> set[bytes]:
        """Which of these bodies are there, behind that id."""
        marks = ", ".join(["%s"] * len(bodies))
        found = session.query(
            f"SELECT body FROM sse_live_event WHERE id > %s AND body IN ({marks})", [after_id, *bodies]
        )
        return {bytes(body) for (body,) in found}

    # Positions

    def give(self, session: Session, after_id: int, late: Collection[int]) -> Status | None:
        """Positions to what has none and whose id is greater, and the status then. Whoever finds the stream's lock
        taken gives none. ``late``: pending events that are waited for no longer. None: the stream's row is not there.
        """
        return self.status(session, after_id)

    def pending(self, session: Session, after_id: int) -> list[int]:
        """Events that their processes are about to complete."""
        rows = session.query("SELECT id FROM sse_live_event WHERE position IS NULL AND id > %s AND pending", [after_id])
        return [id for (id,) in rows]

    def writers(self, session: Session) -> frozenset[str] | None:
        """The open transactions that may have inserted an event. None: nobody knows, and nobody need know, since what
        has its position is no longer looked at."""
        return None

    def settled(self, session: Session, after_id: int, until_id: int) -> int:
        """The id up to which, in that span, everything that is committed has its position."""
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
        """The last events of a channel up to a position, the newest first, without those of which it is not the
        first channel."""
        where = f"channel_key = %s {self.has_position} AND {self.position} <= %s ORDER BY {self.position} DESC"
        return self._rows(session, where, [key, until], limit)

    def of_channels(
        self, session: Session, keys: Sequence[int], after: int, until: int, limit: int
    ) -> tuple[list[Row], bool]:
        """The first events of channels in that span; and whether events were given up in it."""
        marks = ", ".join(["%s"] * (len(keys) + 1))
        parameters = [LOST_KEY, *keys, after, until, limit]
        position = self.position
        own = session.query(
            f"SELECT {position}, milliseconds, pending, body, channel_key FROM sse_live_event "
            f"WHERE channel_key IN ({marks}) {self.has_position} AND {position} > %s AND {position} <= %s "
            f"ORDER BY {position} LIMIT %s",
            parameters,
        )
        others = session.query(
            f"SELECT c.position, e.milliseconds, e.pending, e.body FROM sse_live_event_channel c "
            f"JOIN sse_live_event e ON e.id = c.event_id "
            f"WHERE c.channel_key IN ({marks}) AND c.position > %s AND c.position <= %s ORDER BY c.position LIMIT %s",
            parameters,
        )
        rows = {found[0]: row(found) for found in (*own, *others)}
        return [rows[number] for number in sorted(rows)][:limit], any(found[4] == LOST_KEY for found in own)

    def _rows(self, session: Session, where: str, parameters: list[Any], limit: int) -> list[Row]:
        sql = f"SELECT {self.position}, milliseconds, pending, body FROM sse_live_event WHERE {where} LIMIT {limit}"
        return list(map(row, session.query(sql, parameters)))

    # Trimming

    def trim(self, session: Session, status: Status, seconds: float) -> bool:
        """Delete the oldest events, trimmed_at_once at the most, as far as they are older than that. Whether there may
        be more. Where it would have to wait for others, it is left to the next time."""
        found = self._oldest(session, status, seconds)
        if found is None:
            return False
        up_to, milliseconds, has_more = found
        try:
            session.run(self.begin)
            for sql in self._trims(status.trimmed, up_to, milliseconds):
                session.run(sql)
            session.run("COMMIT")
        except UNAVAILABLE as error:
            session.roll_back()
            if not self.may_wait(error):
                raise
            return False
        return has_more

    def may_wait(self, error: BaseException) -> bool:
        """Whether it says no more than that somebody else is at it."""
        return False

    def _trims(self, after: int, up_to: int, milliseconds: int) -> tuple[str, ...]:
        position, time = self.position, f", milliseconds = {milliseconds}" if self.trims_time else ""
        return (
            f"DELETE FROM sse_live_event WHERE {position} > {after} AND {position} <= {up_to}",
            f"DELETE FROM sse_live_event_channel WHERE position > {after} AND position <= {up_to}",
            f"UPDATE sse_live_stream SET trimmed = {up_to}{time} WHERE id = 1 AND trimmed < {up_to}",
        )

    def _oldest(self, session: Session, status: Status, seconds: float) -> tuple[int, int, bool] | None:
        """(position and milliseconds up to which events are too old, whether there may be more) of the first ones."""
        limit = self.trimmed_at_once
        rows = session.query(
            f"SELECT {self.position}, milliseconds, {self.now_sql} FROM sse_live_event WHERE {self.position} > %s "
            f"ORDER BY {self.position} LIMIT {limit}",
            [status.trimmed],
        )
        old = [row for row in rows if row[1] < row[2] - seconds * 1000]
        return (old[-1][0], old[-1][1], len(old) == limit) if old else None

    def now(self, session: Session) -> int:
        ((now,),) = session.query(f"SELECT {self.now_sql}")
        return int(now)

    def trim_words(self, session: Session, after: int) -> int:
        """Delete what workers told each other more than NOW_SECONDS ago: where to go on, the next time."""
        rows = session.query(
            f"SELECT position, milliseconds, {self.now_sql} FROM sse_live_event "
            f"WHERE channel_key = %s AND position > %s ORDER BY position LIMIT {TRIMMED_AT_ONCE}",
            [NOW_KEY, after],
        )
        old = [position for position, milliseconds, now in rows if milliseconds < now - NOW_SECONDS * 1000]
        if old:
            session.run(
                "DELETE FROM sse_live_event WHERE channel_key = %s AND position > %s AND position <= %s",
                [NOW_KEY, after, old[-1]],
            )
            return int(old[-1])
        return after


def row(found: Sequence[Any]) -> Row:
    body = found[3]
    if not isinstance(body, (bytes, memoryview)):  # SQLite keeps what somebody puts there, of whatever type
        body = str(body).encode(errors="replace")
    return Row(found[0], found[1], bool(found[2]), bytes(body))
