"""Models of every kind that @live_model must know how to hear. Each broadcasts on a channel of its own."""

from __future__ import annotations

from django.db import models

from django_sse_live import live_model


@live_model(channel="notes")
class Note(models.Model):
    text = models.TextField(default="")
    secret = models.TextField(default="")


class NoteProxy(Note):
    class Meta:
        proxy = True


class PinnedNote(Note):
    """A multi-table child."""

    pinned_by = models.TextField(default="")


@live_model(
    channel=lambda reply: f"note.{reply.note_id}",
    fields=["id", "note", "text", "attachment", "shout"],
    created="new_reply",
    updated=None,
)
class Reply(models.Model):
    note = models.ForeignKey(Note, on_delete=models.CASCADE)
    text = models.TextField(default="")
    attachment = models.FileField(blank=True, upload_to="replies")

    @property
    def shout(self) -> str:
        return self.text.upper()


def broken_payload(instance: models.Model, action: str) -> object:
    raise LookupError("the payload of a test that wants it broken")


@live_model(channel="broken", payload=broken_payload)
class Broken(models.Model):
    text = models.TextField(default="")


@live_model(channel=lambda instance: None)
class Silent(models.Model):
    pass


@live_model(channel="labels")
class Label(models.Model):
    code = models.BigAutoField(primary_key=True)


class SilentLabel(Silent, Label):
    """A child of two tables, whose own key is that of the first."""


@live_model(channel="topics")
class Topic(models.Model):
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE)


class TopicProxy(Topic):
    class Meta:
        proxy = True


class Unheard(models.Model):
    """Registered by nobody."""

    note = models.ForeignKey(Note, null=True, on_delete=models.CASCADE)


class Timestamped(models.Model):
    class Meta:
        abstract = True
