"""The tables of the bus. The models are here for migrations alone: every statement is in dialects/, and no instance is
ever saved.

A row of StoredEvent, from its INSERT on:

1. *in a transaction*: no other connection sees it. A rollback, or the death of its process, leaves nothing.
2. *committed, without a position*: the next look gives it one. If it is ``pending``, its process is about to complete
   it. Once none has been completed for PENDING_SECONDS, it is sent as it was inserted.
3. *with a position*: never changed again. Every reader reads it once, in the order of positions.
4. *trimmed*: deleted, and StoredStream.trimmed says so in the same transaction. Events that somebody else deleted, the
   last one among them (TRUNCATE), count as trimmed too: the last one is never missing otherwise.

On SQLite, which has one writer, the id is the position, and a row is born in state 3 when its transaction commits.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models


class StoredStream(models.Model):
    """One row. The process that gives positions holds its lock."""

    id: Any = models.PositiveSmallIntegerField(primary_key=True)
    epoch: Any = models.CharField(max_length=32)  # random; replaced where positions begin anew
    head: Any = models.BigIntegerField(default=0)  # the last position given
    milliseconds: Any = models.BigIntegerField(default=0)  # since 1970, of that position
    trimmed: Any = models.BigIntegerField(default=0)  # events up to this position may be deleted

    class Meta:
        db_table = "sse_live_stream"
        default_permissions: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return str(self.epoch)


class StoredEvent(models.Model):
    id: Any = models.BigAutoField(primary_key=True)
    position: Any = models.BigIntegerField(null=True)
    milliseconds: Any = models.BigIntegerField(default=0)  # since 1970, by the database's clock; never goes back
    channel_key: Any = models.BigIntegerField()  # of its first channel
    more: Any = models.SmallIntegerField(default=0)  # how many further channels it has, as far as the column counts
    pending: Any = models.BooleanField(default=False)
    body: Any = models.BinaryField()  # bytes: no character set or collation of the database applies

    class Meta:
        db_table = "sse_live_event"
        default_permissions: ClassVar[tuple[str, ...]] = ()
        indexes: ClassVar[list[models.Index]] = [
            # Events without a position stand together, in the order of ids: one step into the index finds the new ones.
            models.Index(fields=["position", "id"], name="sse_live_event_by_position"),
            models.Index(fields=["channel_key", "position"], name="sse_live_event_by_channel"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class StoredDelta(models.Model):
    """What jobs wrote in the last seconds: see deltas.py."""

    id: Any = models.BigAutoField(primary_key=True)
    milliseconds: Any = models.BigIntegerField()  # since 1970, by the database's clock
    body: Any = models.BinaryField()

    class Meta:
        db_table = "sse_live_job_delta"
        default_permissions: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return str(self.id)


class StoredChannel(models.Model):
    """A channel of an event after its first."""

    id: Any = models.BigAutoField(primary_key=True)
    event_id: Any = models.BigIntegerField()
    channel_key: Any = models.BigIntegerField()
    position: Any = models.BigIntegerField(null=True)  # the event's

    class Meta:
        db_table = "sse_live_event_channel"
        default_permissions: ClassVar[tuple[str, ...]] = ()
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["position", "event_id"], name="sse_live_chan_by_position"),
            models.Index(fields=["channel_key", "position"], name="sse_live_chan_by_channel"),
        ]

    def __str__(self) -> str:
        return str(self.id)
