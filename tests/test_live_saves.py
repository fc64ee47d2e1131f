"""@live_model tells of a row as it is, in whatever way it was saved, loaded or related."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from django.core import serializers
from django.db import IntegrityError, models, transaction
from django.db.models import F
from django.db.models.signals import m2m_changed, post_save, pre_save
from django.dispatch import Signal
from django.utils import timezone

from django_sse_live import live_model
from django_sse_live.testing import CapturedBroadcast, capture_broadcasts
from tests.testapp.models import Article, Section, Shelf, Span, SpanField, Swapped, Tag

pytestmark = pytest.mark.django_db(transaction=True)

Register = Callable[..., None]


@pytest.fixture
def register() -> Iterator[Register]:
    registered: list[type[models.Model]] = []

    def register(model: type[models.Model], channel: Any, **options: Any) -> None:
        registered.append(model)
        live_model.register(model, channel, **options)

    yield register
    for model in registered:
        live_model.unregister(model)


def told(broadcasts: list[CapturedBroadcast]) -> list[tuple[Any, ...]]:
    return [(*b.channels, b.type) for b in broadcasts]


@contextmanager
def received_first(signal: Signal, receiver: Callable[..., None], sender: type[models.Model]) -> Iterator[None]:
    """As the receivers of a project's models.py are, which are there before this app is ready."""
    others, signal.receivers = signal.receivers, []
    signal.connect(receiver, sender=sender)
    signal.receivers += others
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=sender)


class TestSomeFieldsAlone:
    def test_a_value_that_was_not_saved_moves_nothing(self, register: Register) -> None:
        register(Article, lambda article: f"views.{article.views}", fields=["title", "views"])
        article = Article.objects.create(views=1)
        article.title, article.views = "saved", 2
        with capture_broadcasts() as broadcasts:
            article.save(update_fields=["title"])
        assert told(broadcasts) == [("views.1", "article_updated")]
        assert broadcasts[0].data == {"title": "saved", "views": 1}
        assert article.views == 2

    def test_nor_does_a_related_row(self, register: Register) -> None:
        register(Article, lambda article: f"section.{article.section.name}")
        one, two = (Section.objects.create(name=name) for name in ("one", "two"))
        article = Article.objects.create(section=one)
        article.section = two
        with capture_broadcasts() as broadcasts:
            article.save(update_fields=["title"])
        assert told(broadcasts) == [("section.one", "article_updated")]
        assert article.section == two

    @pytest.mark.parametrize("name", ["section", "section_id"])
    def test_a_value_that_was_saved_moves_the_row(self, register: Register, name: str) -> None:
        register(Article, lambda article: f"section.{article.section.name}")
        one, two = (Section.objects.create(name=name) for name in ("one", "two"))
        article = Article.objects.create(section=one)
        article.section = two
        with capture_broadcasts() as broadcasts:
            article.save(update_fields=[name])
        assert told(broadcasts) == [("section.one", "article_deleted"), ("section.two", "new_article")]

    def test_nor_is_a_patch_moved(self, register: Register) -> None:
        register(Article, "articles", template="testapp/_article.html", target=lambda article: f"views-{article.views}")
        article = Article.objects.create(views=1)
        article.views = 2
        with capture_broadcasts() as broadcasts:
            article.save(update_fields=["title"])
        assert [b.patch and b.patch["action"] for b in broadcasts] == ["replace"]

    def test_an_instance_that_cannot_be_copied_costs_no_save(
        self, register: Register, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        register(Article, lambda article: f"views.{article.views}")
        article = Article.objects.create()

        def refuse(self: Article, protocol: int) -> Any:
            raise TypeError("of an instance that refuses")

        monkeypatch.setattr(Article, "__reduce_ex__", refuse)
        article.title = "kept"
        article.save(update_fields=["title"])
        assert Article.objects.filter(title="kept").exists()
        assert "testapp.article (updated)" in caplog.records[0].getMessage()

    def test_fields_that_were_not_loaded_are_not_saved(self, register: Register) -> None:
        register(Article, lambda article: f"views.{article.views}")
        Article.objects.create(views=1)
        article = Article.objects.only("title").get()
        with capture_broadcasts() as broadcasts:
            article.save()
        assert told(broadcasts) == [("views.1", "article_updated")]


class Status(str, Enum):
    OPEN = "open"
    CLOSED = "closed"


EAST = datetime.timezone(datetime.timedelta(hours=9))


class TestValuesThatTheDatabaseHasInAnotherForm:
    @pytest.mark.parametrize(
        ("field", "values", "channels"),
        [
            ("code", [Status.OPEN, Status.CLOSED], ["open", "closed"]),
            ("code", [7, 8], ["7", "8"]),
            (
                "day",
                [datetime.datetime(2030, 1, day, 18, tzinfo=datetime.timezone.utc) for day in (1, 2)],
                ["2030-01-01", "2030-01-02"],
            ),
            (
                "opened",
                [datetime.datetime(2030, 1, day, 5, tzinfo=EAST) for day in (1, 2)],
                ["2029-12-31 20:00:00+00:00", "2030-01-01 20:00:00+00:00"],
            ),
        ],
    )
    def test_a_row_is_shown_where_it_is(
        self, register: Register, field: str, values: list[Any], channels: list[str]
    ) -> None:
        register(Shelf, lambda shelf: f"at.{getattr(shelf, field)}", fields=["id"])
        shelf = Shelf(**{field: values[0]})
        with capture_broadcasts() as broadcasts:
            shelf.save()
            setattr(shelf, field, values[1])
            shelf.save()
        one, two = (f"at.{channel}" for channel in channels)
        assert told(broadcasts) == [(one, "new_shelf"), (one, "shelf_deleted"), (two, "new_shelf")]
        assert getattr(shelf, field) is values[1]

    @pytest.mark.parametrize("value", [2, 2.0, Decimal(2), Decimal("1.999"), Decimal("2.000")])
    def test_so_is_one_with_a_price(self, register: Register, value: Any) -> None:
        register(Article, lambda article: f"price.{article.price}", fields=["id"])
        with capture_broadcasts() as broadcasts:
            Article.objects.create(price=value)
        assert told(broadcasts) == [("price.2.00", "new_article")]

    def test_one_whose_value_the_database_generates(self, register: Register) -> None:
        register(Article, lambda article: f"shout.{article.shout}", fields=["id"])
        article = Article.objects.create(title="a")
        for fields in (None, ["title"]):
            article.title += "b"
            with capture_broadcasts() as broadcasts:
                article.save(update_fields=fields)
            channel = f"shout.{article.title.upper()}"
            assert told(broadcasts) == [(channel[:-1], "article_deleted"), (channel, "new_article")]

    def test_a_time_without_a_zone_too(self, register: Register) -> None:
        register(Shelf, lambda shelf: f"at.{shelf.opened:%H}", fields=["id"])
        with capture_broadcasts() as broadcasts, timezone.override(EAST), pytest.warns(RuntimeWarning, match="naive"):
            Shelf.objects.create(opened=datetime.datetime(2030, 1, 1, 5))
        assert told(broadcasts) == [("at.11", "new_shelf")]  # in TIME_ZONE, six hours behind


class TestRowsThatCannotBeRead:
    """As where a field's own code has become stricter than what was once stored."""

    @pytest.fixture
    def shelf(self, register: Register, monkeypatch: pytest.MonkeyPatch) -> Shelf:
        register(Shelf, lambda shelf: f"at.{shelf.code}", payload=lambda shelf, action: shelf.code)
        shelf, tag = Shelf.objects.create(code="a"), Tag.objects.create()
        shelf.tags.add(tag)

        def refuse(*_: Any) -> None:
            raise LookupError("of a value that is no longer known")

        monkeypatch.setattr(SpanField, "from_db_value", refuse)
        return shelf

    @pytest.mark.parametrize("change", ["save", "delete", "add", "clear_from_the_other_side"])
    def test_are_saved_deleted_and_related(self, shelf: Shelf, change: str, caplog: pytest.LogCaptureFixture) -> None:
        tag, other = Tag.objects.get(), Tag.objects.create(name="other")
        shelf.day = datetime.date(2030, 1, 1)
        {
            "save": shelf.save,
            "delete": shelf.delete,
            "add": lambda: shelf.tags.add(other),
            "clear_from_the_other_side": lambda: tag.shelf_set.clear(),
        }[change]()
        assert Shelf.objects.exists() == (change != "delete")
        assert Shelf.objects.filter(day=shelf.day).exists() == (change == "save")
        assert Shelf.tags.through.objects.count() == {"save": 1, "delete": 0, "add": 2}.get(change, 0)
        assert "testapp.shelf" in caplog.records[0].getMessage()


class TestValuesThatNoEncoderKnows:
    def test_are_sent_as_a_fixture_has_them(self, register: Register, caplog: pytest.LogCaptureFixture) -> None:
        register(Shelf, "shelves", fields=["code", "span"])
        with capture_broadcasts() as broadcasts:
            Shelf.objects.create(code="a", span=Span("1-2"))
            Shelf.objects.create(code="b")
        assert [b.data for b in broadcasts] == [{"code": "a", "span": "1-2"}, {"code": "b", "span": None}]
        assert caplog.records == []

    def test_nor_is_an_expression_whose_row_is_gone(self, register: Register, caplog: pytest.LogCaptureFixture) -> None:
        register(Article, "articles", fields=["views"])
        with capture_broadcasts() as broadcasts, transaction.atomic():
            article = Article.objects.create()
            (change,) = (live for live in live_model.registrations if live.model is Article)
            article.views = F("views") + 1
            with pytest.raises(TypeError, match="not JSON serializable"):
                change.data(article, "updated")
        assert [b.data for b in broadcasts] == [{"views": 0}] and caplog.records == []

    def test_of_methods_and_payloads_are_not(
        self, register: Register, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(Shelf, "spans", lambda self: [Span("1-2")], raising=False)
        register(Shelf, "shelves", fields=["code", "spans"])
        register(Shelf, "shelves", payload=lambda shelf, action: shelf.span)
        with capture_broadcasts() as broadcasts:
            Shelf.objects.create(span=Span("1-2"))
        assert broadcasts == [] and len(caplog.records) == 2


class TestSavesInSaves:
    def test_a_receiver_that_saves_again_hides_no_move(self, register: Register) -> None:
        register(Article, lambda article: f"views.{article.views}", fields=["title"])
        article = Article.objects.create(title="a", views=1)

        def save_again(*, instance: Article, **_: Any) -> None:
            if not instance.title.endswith("!"):
                instance.title += "!"
                instance.save()

        article.views = 2
        with received_first(post_save, save_again, Article), capture_broadcasts() as broadcasts:
            article.save()
        assert sorted(told(broadcasts)) == [
            ("views.1", "article_deleted"), ("views.2", "article_updated"), ("views.2", "new_article"),
        ]  # fmt: skip
        assert not any(name.startswith("_sse_live") for name in vars(article))

    def test_nor_does_a_save_that_failed(self, register: Register) -> None:
        register(Article, lambda article: f"views.{article.views}")
        article = Article.objects.create(views=1)
        for views in range(2, 20):
            article.views = views
            with pytest.raises(IntegrityError):
                article.save(force_insert=True)
        article.save()
        with capture_broadcasts() as broadcasts:
            article.views = 3
            article.save()
        assert told(broadcasts) == [("views.19", "article_deleted"), ("views.3", "new_article")]

    def test_a_receiver_that_relates_something_else_hides_no_relation(self, register: Register) -> None:
        register(Article, lambda article: [f"tag.{tag.name}" for tag in article.tags.all()])
        article, other, tag = Article.objects.create(), Article.objects.create(), Tag.objects.create(name="one")

        def relate(*, instance: Article, action: str, **_: Any) -> None:
            if action == "pre_add":
                instance.related.add(other)

        m2m_changed.connect(relate, sender=Article.tags.through)
        try:
            with capture_broadcasts() as broadcasts:
                article.tags.add(tag)
        finally:
            m2m_changed.disconnect(relate, sender=Article.tags.through)
        assert told(broadcasts) == [("tag.one", "new_article")]
        assert not any(name.startswith("_sse_live") for name in vars(article))


class TestRelations:
    def test_of_a_table_that_refers_to_another_field_than_the_key(self, register: Register) -> None:
        register(Shelf, "shelves", payload=lambda shelf, action: [tag.name for tag in shelf.tags.all()])
        shelf, tag = Shelf.objects.create(code="upper"), Tag.objects.create(name="one")
        for change, names in (
            (lambda: tag.shelf_set.add(shelf), ["one"]),
            (lambda: tag.shelf_set.remove(shelf), []),
            (lambda: shelf.tags.add(tag), ["one"]),
            (lambda: tag.shelf_set.clear(), []),
        ):
            with capture_broadcasts() as broadcasts:
                change()
            assert [b.data for b in broadcasts] == [names]

    @pytest.mark.parametrize("change", [{"symmetrical": True}, {"through": Shelf}])
    def test_of_a_field_that_is_none_of_django_s_own(
        self, register: Register, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], caplog: Any
    ) -> None:
        """django-taggit's says that it is symmetrical, and its table in between is one for all models."""
        register(Article, "articles", fields=["tag_names"])
        article, tag = Article.objects.create(), Tag.objects.create(name="one")
        field: Any = Article._meta.get_field("tags")
        arguments = {"sender": field.remote_field.through, "instance": article, "model": Tag, "reverse": False}
        for name, value in change.items():
            monkeypatch.setattr(field.remote_field, name, value)
        with capture_broadcasts() as broadcasts:
            for pk_set in (None, {tag.pk}):
                for moment in ("pre", "post"):
                    m2m_changed.send(**arguments, action=f"{moment}_change", pk_set=pk_set, using="default")
        if "symmetrical" in change:
            assert [b.data for b in broadcasts] == [{"tag_names": []}] * 2 and caplog.records == []
        else:
            assert "testapp.article (updated)" in caplog.records[0].getMessage()

    def test_of_which_only_the_channel_is_made(self, register: Register) -> None:
        register(Article, lambda article: ["all", *(f"tag.{tag.name}" for tag in article.tags.all())])
        article, tag = Article.objects.create(), Tag.objects.create(name="one")
        with capture_broadcasts() as broadcasts:
            article.related.add(article)
            article.tags.add(tag)
            tag.article_set.clear()
        assert told(broadcasts) == [("tag.one", "new_article"), ("tag.one", "article_deleted")]

    def test_a_fixture_s_are_silent(self, register: Register) -> None:
        register(Article, "articles", payload=lambda article, action: article.tag_names())
        article, tag = Article.objects.create(), Tag.objects.create(name="one")
        article.tags.add(tag)
        text = serializers.serialize("json", [article])
        article.tags.clear()
        with capture_broadcasts() as broadcasts:
            (loaded,) = serializers.deserialize("json", text)
            loaded.save()
        assert article.tags.exists() and broadcasts == []
        with capture_broadcasts() as broadcasts:
            loaded.object.save()
            loaded.object.tags.clear()
        assert [b.data for b in broadcasts] == [["one"], []]

    def test_a_model_that_was_swapped_out_hears_of_none(self, register: Register, settings: Any) -> None:
        before = len(m2m_changed.receivers), len(pre_save.receivers)
        settings.TESTS_SWAPPED_MODEL = "testapp.Tag"
        through = Swapped._meta.get_field("tags").remote_field  # type: ignore[union-attr]
        kept, through.through = through.through, None  # as Django leaves it
        try:
            register(Swapped, "swapped")
        finally:
            through.through = kept
        assert len(pre_save.receivers) == before[1] + 1
        assert len(m2m_changed.receivers) == before[0]
