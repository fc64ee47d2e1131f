"""AppConfig of the tables."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.db import DatabaseError, connections, transaction
from django.db.models.signals import post_migrate


class SSELiveDatabaseConfig(AppConfig):
    name = "django_sse_live.database"
    label: str = "sse_live_database"
    default_auto_field: str = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(_make_stream, sender=self)


def _make_stream(*, using: str, **_: Any) -> None:
    """SQLite, also after a flush: the bus makes the stream's row when it needs it, but a TestCase with a file as its
    database may hold the lock of the only writer then."""
    from .dialects.base import random_epoch
    from .dialects.sqlite import MAKE_STREAM

    connection = connections[using]
    if connection.vendor == "sqlite":
        with suppress(DatabaseError), transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.execute(MAKE_STREAM, [random_epoch()])  # fails where the tables are in another database
