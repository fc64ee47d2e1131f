from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


def clean_up_early(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE sse_live_job_delta SET "
            "(autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)"
        )


class Migration(migrations.Migration):
    dependencies: ClassVar[Sequence[tuple[str, str]]] = [("sse_live_database", "0001_initial")]

    operations: ClassVar[Sequence[Operation]] = [
        migrations.CreateModel(
            name="StoredDelta",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("milliseconds", models.BigIntegerField()),
                ("body", models.BinaryField()),
            ],
            options={"db_table": "sse_live_job_delta", "default_permissions": ()},
        ),
        migrations.RunPython(clean_up_early, migrations.RunPython.noop),
    ]
