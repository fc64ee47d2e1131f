from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation

# Every event is written twice, and deleted a day later. PostgreSQL cleans up when a fifth of a table is dead rows; here
# it does so earlier.
_CLEAN_UP_EARLY = """
ALTER TABLE sse_live_event SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE sse_live_event_channel SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE sse_live_stream SET (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)
"""


def clean_up_early(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        for statement in _CLEAN_UP_EARLY.strip().split(";"):
            schema_editor.execute(statement)


class Migration(migrations.Migration):
    initial: ClassVar[bool | None] = True
    dependencies: ClassVar[Sequence[tuple[str, str]]] = []

    operations: ClassVar[Sequence[Operation]] = [
        migrations.CreateModel(
            name="StoredStream",
            fields=[
                ("id", models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ("epoch", models.CharField(max_length=32)),
                ("head", models.BigIntegerField(default=0)),
                ("milliseconds", models.BigIntegerField(default=0)),
                ("trimmed", models.BigIntegerField(default=0)),
            ],
            options={"db_table": "sse_live_stream", "default_permissions": ()},
        ),
        migrations.CreateModel(
            name="StoredEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("position", models.BigIntegerField(null=True)),
                ("milliseconds", models.BigIntegerField(default=0)),
                ("channel_key", models.BigIntegerField()),
                ("more", models.SmallIntegerField(default=0)),
                ("pending", models.BooleanField(default=False)),
                ("body", models.BinaryField()),
            ],
            options={
                "db_table": "sse_live_event",
                "default_permissions": (),
                "indexes": [
                    models.Index(fields=["position", "id"], name="sse_live_event_by_position"),
                    models.Index(fields=["channel_key", "position"], name="sse_live_event_by_channel"),
                ],
            },
        ),
        migrations.CreateModel(
            name="StoredChannel",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("event_id", models.BigIntegerField()),
                ("channel_key", models.BigIntegerField()),
                ("position", models.BigIntegerField(null=True)),
            ],
            options={
                "db_table": "sse_live_event_channel",
                "default_permissions": (),
                "indexes": [
                    models.Index(fields=["position", "event_id"], name="sse_live_chan_by_position"),
                    models.Index(fields=["channel_key", "position"], name="sse_live_chan_by_channel"),
                ],
            },
        ),
        migrations.RunPython(clean_up_early, migrations.RunPython.noop),
    ]
