"""What Django's admin needs to show the live connections, and to ask who may see them. It has no table and no rows:
clients are kept in memory, by each worker."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class NoRows(models.Manager["LiveConnection"]):
    """No query goes to the database, also when dumpdata asks."""

    def get_queryset(self) -> models.QuerySet[LiveConnection]:
        nobody: models.QuerySet[LiveConnection] = super().get_queryset().none()
        return nobody


class LiveConnection(models.Model):
    """A permission to see them (view), and one to end them and to send a test event (change)."""

    id: models.CharField[str, str] = models.CharField(max_length=200, primary_key=True)

    objects: NoRows = NoRows()

    class Meta:
        managed = False
        default_permissions: ClassVar[tuple[str, ...]] = ("view", "change")
        default_manager_name = "objects"
        base_manager_name = "objects"
        verbose_name: ClassVar[Any] = _("live connection")
        verbose_name_plural: ClassVar[Any] = _("live connections")

    def __str__(self) -> str:
        return self.id

    def save(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Live connections are opened by browsers; there is nothing to save.")
