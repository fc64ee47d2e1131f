"""AppConfig of the tables."""

from __future__ import annotations

from django.apps import AppConfig


class SSELiveDatabaseConfig(AppConfig):
    name = "django_sse_live.database"
    label: str = "sse_live_database"
    default_auto_field: str = "django.db.models.BigAutoField"
