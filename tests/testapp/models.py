"""Models of every kind that @live_model must know how to hear. Each broadcasts on a channel of its own."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models.functions import Upper

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


# Registered by the tests that look at them, each in its own way.


class Section(models.Model):
    name = models.CharField(max_length=20, default="")


class Tag(models.Model):
    name = models.CharField(max_length=20)


class Article(models.Model):
    section = models.ForeignKey(Section, null=True, on_delete=models.CASCADE)
    title = models.CharField(max_length=100, default="")
    price = models.DecimalField(max_digits=6, decimal_places=2, default=0)
    views = models.IntegerField(default=0)
    tags = models.ManyToManyField(Tag)
    related = models.ManyToManyField("self")
    shout = models.GeneratedField(
        expression=Upper("title"), output_field=models.CharField(max_length=100), db_persist=True
    )
    raw = models.BinaryField(default=b"")
    content_type = models.ForeignKey(ContentType, null=True, on_delete=models.SET_NULL, db_constraint=False)
    about = GenericForeignKey("content_type", "views")

    class Meta:
        ordering = ["pk"]

    def tag_names(self) -> list[str]:
        return sorted(tag.name for tag in self.tags.all())

    async def fetched(self) -> None:
        """Nothing that a save could wait for."""

    def priced(self, currency: str) -> str:
        return f"{self.price} {currency}"


class ArticleProxy(Article):
    class Meta:
        proxy = True


class FeaturedArticle(Article):
    featured_by = models.TextField(default="")


class Keyed(models.Model):
    """Its key is text, and an ugly one."""

    code = models.CharField(max_length=50, primary_key=True)
    article = models.ForeignKey(Article, null=True, on_delete=models.CASCADE)


class Span:
    """What no JSON encoder knows, as the ranges of PostgreSQL and the points of a map."""

    def __init__(self, text: str) -> None:
        self.text = text


class SpanField(models.CharField):  # type: ignore[type-arg]  # Django's own takes none
    def from_db_value(self, value: str | None, *_: object) -> Span | None:
        return None if value is None else Span(value)

    def get_prep_value(self, value: Any) -> Any:
        return value.text if isinstance(value, Span) else value

    def value_to_string(self, instance: models.Model) -> str:
        return str(self.value_from_object(instance).text)


class Shelf(models.Model):
    """Its table of relations refers to its code, not to its key."""

    code = models.CharField(max_length=20, unique=True)
    tags = models.ManyToManyField(Tag, through="Placing")
    day = models.DateField(null=True)
    opened = models.DateTimeField(null=True)
    span = SpanField(max_length=20, null=True)


class Placing(models.Model):
    shelf = models.ForeignKey(Shelf, on_delete=models.CASCADE, to_field="code")
    tag = models.ForeignKey(Tag, on_delete=models.CASCADE)


class Swapped(models.Model):
    """Another model takes its place, as a project's own user model does."""

    tags = models.ManyToManyField(Tag)

    class Meta:
        swappable = "TESTS_SWAPPED_MODEL"
