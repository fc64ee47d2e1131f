"""What the site shows: notes in three lists, of which one is cut, in a table, and counted."""

from __future__ import annotations

from django.db import models

from django_sse_live import live_model

LIMIT = 5


def channel_of(note: Note) -> str | None:
    return None if note.is_hidden else "apart" if note.is_apart else "notes"


def list_of(note: Note) -> str:
    return f"list-{note.list}"


@live_model(channel=channel_of, template="pages/_note.html", target=list_of)
@live_model(channel=channel_of, template="pages/_side.html", target="side", insert="prepend", element_id="side",
            created="side", updated="side", deleted="side")  # fmt: skip
@live_model(channel=channel_of, template="pages/_row.html", target="rows", element_id="row",
            created="row", updated="row", deleted="row")  # fmt: skip
@live_model(channel=channel_of, target="count", insert="refresh", created="count", updated="count", deleted="count")
class Note(models.Model):
    list = models.CharField(max_length=5)
    text = models.CharField(max_length=100)
    likes = models.IntegerField(default=0)
    is_hidden = models.BooleanField(default=False)
    is_apart = models.BooleanField(default=False)
    tags = models.ManyToManyField("Tag")
    # Positions: in its list, and among all that is shown. They grow when it comes there.
    arrived = models.IntegerField(default=0)
    shown = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.text


class Remark(models.Model):
    """Written in the admin, beside the note."""

    note = models.ForeignKey(Note, on_delete=models.CASCADE)
    text = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text


class Tag(models.Model):
    name = models.CharField(max_length=10)

    def __str__(self) -> str:
        return self.name
