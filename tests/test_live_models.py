"""What an event of @live_model says is what the database has at the commit; what fails costs nobody but the event."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django import forms
from django.db import connection, connections, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.test import TestCase

from django_sse_live import broadcast, live_model
from django_sse_live.testing import CapturedBroadcast, capture_broadcasts
from tests.testapp.models import Article, ArticleProxy, FeaturedArticle, Section, Tag

pytestmark = pytest.mark.django_db(transaction=True)

Register = Callable[..., None]


@pytest.fixture
def register() -> Iterator[Register]:
    registered: list[type[models.Model]] = []

    def register(model: type[models.Model] = Article, channel: Any = "articles", **options: Any) -> None:
        registered.append(model)
        live_model.register(model, channel, **options)

    yield register
    for model in registered:
        live_model.unregister(model)


def said(broadcasts: list[CapturedBroadcast]) -> list[tuple[str, Any]]:
    return [(b.type, b.data) for b in broadcasts]


class ArticleForm(forms.ModelForm):
    class Meta:
        model = Article
        fields = ["title", "tags"]


def save_by_form(instance: Article | None = None, **data: Any) -> Article:
    form = ArticleForm(data, instance=instance)
    assert form.is_valid(), form.errors
    return form.save()


class TestAsTheDatabaseHasIt:
    @pytest.mark.parametrize("in_transaction", [True, False])
    def test_expressions_texts_and_generated_fields(self, register: Register, in_transaction: bool) -> None:
        register(fields=["id", "title", "price", "views", "shout", "section"])
        section = Section.objects.create()
        article = Article.objects.create(title="one", views=1)
        with capture_broadcasts() as broadcasts:
            with transaction.atomic() if in_transaction else open(os.devnull):
                article.title = Concat(Value("on"), Value("e!"))
                article.views = F("views") + 1
                article.price = "3.5"
                article.section_id = str(section.pk)
                article.save()
        values = {"title": "one!", "price": "3.50", "views": 2, "shout": "ONE!", "section": section.pk}
        assert said(broadcasts) == [("article_updated", {"id": article.pk, **values})]

    @pytest.mark.parametrize("in_transaction", [True, False])
    def test_a_channel_made_of_an_expression_is_where_the_row_is(
        self, register: Register, in_transaction: bool
    ) -> None:
        register(channel=lambda article: f"views.{article.views}", fields=["views"])
        article = Article.objects.create(views=1)
        with capture_broadcasts() as broadcasts:
            with transaction.atomic() if in_transaction else open(os.devnull):
                article.views = F("views") + 1
                article.save()
        places = [(b.channels, b.type, b.data) for b in broadcasts]
        assert places == [
            (("views.1",), "article_deleted", {"views": 1}),
            (("views.2",), "new_article", {"views": 2}),
        ]

    def test_a_payload_sees_the_row_too_and_what_was_set_by_hand(self, register: Register) -> None:
        register(payload=lambda article, action: [article.price, article.shout, article.reviewer])
        with capture_broadcasts() as broadcasts:
            article = Article(title="a", price="1")
            article.reviewer = "otter"
            article.save()
            with transaction.atomic():
                article.save(update_fields=["title"])
                article.title = "not saved"
                article.reviewer = "heron"
        assert [b.data for b in broadcasts] == [["1.00", "A", "otter"]] * 2

    def test_a_delete_says_what_the_row_was(self, register: Register) -> None:
        register(fields=["title", "price", "views"])
        article = Article.objects.create(title="one", views=1)
        article.title, article.price, article.views = "not saved", "7", F("views") + 1
        Article.objects.create(title="two")
        with capture_broadcasts() as broadcasts:
            article.delete()
            Article.objects.only("id").delete()
        assert said(broadcasts) == [
            ("article_deleted", {"title": "one", "price": "0.00", "views": 1}),
            ("article_deleted", {"title": "two", "price": "0.00", "views": 0}),
        ]

    def test_a_copy_of_the_channel_s_old_row_is_what_the_old_channel_is_told(self, register: Register) -> None:
        register(channel=lambda article: f"views.{article.views}", fields=["title"])
        article = Article.objects.create(views=1, title="for all")
        article.views, article.title = 2, "secret"
        with capture_broadcasts() as broadcasts:
            article.save()
        assert said(broadcasts) == [("article_deleted", {"title": "for all"}), ("new_article", {"title": "secret"})]

    def test_of_a_parent_s_row_too(self, register: Register) -> None:
        register(fields=["title"])
        article = FeaturedArticle.objects.create(title="one")
        article.title = "not saved"
        with capture_broadcasts() as broadcasts:
            article.delete()
        assert said(broadcasts) == [("article_deleted", {"title": "one"})]

    def test_a_row_changed_by_somebody_else_before_the_event_goes_out(self, register: Register) -> None:
        register(fields=["title"])
        article = Article.objects.create()
        with capture_broadcasts() as broadcasts, transaction.atomic():
            transaction.on_commit(lambda: Article.objects.update(title="newer"))  # as slow as another request
            article.title = "older"
            article.save()
        assert said(broadcasts) == [("article_updated", {"title": "newer"})]

    def test_methods_are_called(self, register: Register) -> None:
        register(fields=["tag_names"])
        with capture_broadcasts() as broadcasts:
            Article.objects.create()
        assert said(broadcasts) == [("new_article", {"tag_names": []})]

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_in_the_database_that_was_saved_to(self, register: Register) -> None:
        register(fields=["title"])
        Article.objects.create(pk=1, title="default")
        with capture_broadcasts() as broadcasts:
            Article.objects.using("other").create(pk=1, title="other")
            with transaction.atomic(using="other"):
                Article(pk=1, title="again").save(using="other")
        assert [b.data for b in broadcasts] == [{"title": "other"}, {"title": "again"}]


class TestCosts:
    @pytest.mark.parametrize(
        ("options", "queries"), [({}, 0), ({"fields": ["id", "title"]}, 1), ({"payload": lambda a, _: a.title}, 1)]
    )
    def test_one_query_for_an_instance_and_transaction(
        self, register: Register, django_assert_num_queries: Any, options: dict[str, Any], queries: int
    ) -> None:
        register(**options)
        article = Article.objects.create(title="a")

        def count(work: Callable[[], object]) -> int:
            before = len(connection.queries_log)
            work()
            return len(connection.queries_log) - before

        def save_three_times() -> None:
            with transaction.atomic():
                for _ in range(3):
                    article.save()

        with capture_broadcasts(), _logged_queries():
            alone = count(article.save)
            thrice = count(save_three_times)
        assert alone == 1 + queries
        assert thrice == 3 + queries + 2  # BEGIN and COMMIT

    def test_instances_broadcast_by_hand_are_read_together(self, register: Register) -> None:
        register(fields=["title"])
        articles = Article.objects.bulk_create(Article(title=str(number)) for number in range(250))
        with capture_broadcasts() as broadcasts, _logged_queries() as queries:
            live_model.broadcast(articles, "created")
        assert [b.data["title"] for b in broadcasts] == [str(number) for number in range(250)]
        assert len(queries) == 3
        with capture_broadcasts() as broadcasts, transaction.atomic(), _logged_queries() as queries:
            live_model.broadcast(articles, "updated")
        assert len(broadcasts) == 250

    def test_a_channel_without_queries_costs_no_savepoint(self, register: Register) -> None:
        register(channel=lambda article: f"section.{article.section_id}")
        with capture_broadcasts(), transaction.atomic(), _logged_queries() as queries:
            Article.objects.create()
        assert len(queries) == 1


class _logged_queries:
    def __enter__(self) -> list[Any]:
        connection.ensure_connection()
        self.before = connection.force_debug_cursor
        connection.force_debug_cursor = True
        connection.queries_log.clear()
        self.queries: list[Any] = connection.queries_log
        return self.queries

    def __exit__(self, *_: object) -> None:
        connection.force_debug_cursor = self.before


class TestRelations:
    @pytest.mark.parametrize("in_transaction", [True, False])
    def test_a_form_that_saves_tags_tells_of_them(self, register: Register, in_transaction: bool) -> None:
        register(payload=lambda article, action: article.tag_names())
        one, two = (Tag.objects.create(name=name) for name in ("one", "two"))
        with capture_broadcasts() as broadcasts:
            with transaction.atomic() if in_transaction else open(os.devnull):
                save_by_form(title="a", tags=[one.pk, two.pk])
        assert broadcasts[-1].data == ["one", "two"]
        assert len(broadcasts) == (1 if in_transaction else 2)

    def test_each_change_of_a_relation_is_an_update(self, register: Register) -> None:
        register(fields=["tag_names"])
        one, two = (Tag.objects.create(name=name) for name in ("one", "two"))
        article = Article.objects.create()
        for change, names in (
            (lambda: article.tags.add(one), ["one"]),
            (lambda: article.tags.set([two]), ["two"]),
            (lambda: article.tags.remove(two), []),
            (lambda: one.article_set.add(article), ["one"]),
            (lambda: article.tags.clear(), []),
            (lambda: two.article_set.set([article]), ["two"]),
            (lambda: two.article_set.clear(), []),
        ):
            with capture_broadcasts() as broadcasts:
                change()
            assert said(broadcasts) == [("article_updated", {"tag_names": names})]
        with capture_broadcasts() as broadcasts:
            article.tags.add()
            article.tags.remove(one)
        assert [b.data for b in broadcasts] == [{"tag_names": []}]

    def test_both_sides_of_a_symmetrical_one_are_told(self, register: Register) -> None:
        register(payload=lambda article, action: [article.pk, [each.pk for each in article.related.all()]])
        one, two = Article.objects.create(), Article.objects.create()
        with capture_broadcasts() as broadcasts:
            one.related.add(two)
        assert sorted(b.data for b in broadcasts) == [[one.pk, [two.pk]], [two.pk, [one.pk]]]

    def test_proxies_and_children_are_concerned_too(self, register: Register) -> None:
        register(payload=lambda article, action: article.tag_names())
        tag = Tag.objects.create(name="one")
        for model in (ArticleProxy, FeaturedArticle):
            article = model.objects.create()
            with capture_broadcasts() as broadcasts:
                article.tags.add(tag)
            assert said(broadcasts) == [("article_updated", ["one"])]

    @pytest.mark.parametrize("options", [{}, {"fields": ["id", "title", "section_id"]}])
    def test_what_names_no_relation_is_not_concerned(self, register: Register, options: dict[str, Any]) -> None:
        register(**options)
        article, tag = Article.objects.create(), Tag.objects.create(name="one")
        with capture_broadcasts() as broadcasts:
            article.tags.add(tag)
            tag.article_set.clear()
        assert broadcasts == []

    def test_channels_may_come_of_a_relation(self, register: Register) -> None:
        register(
            channel=lambda article: [f"tag.{tag.name}" for tag in article.tags.all()], payload=lambda a, _: a.title
        )
        one, two = (Tag.objects.create(name=name) for name in ("one", "two"))
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(title="a")
            assert broadcasts == []
            article.tags.add(one)
            article.tags.set([two])
            article.delete()
        assert [(b.channels, b.type) for b in broadcasts] == [
            (("tag.one",), "new_article"), (("tag.one",), "article_deleted"), (("tag.two",), "new_article"),
            (("tag.two",), "article_deleted"),
        ]  # fmt: skip

    def test_the_log_says_what_a_channel_function_should_have_given(
        self, register: Register, caplog: pytest.LogCaptureFixture
    ) -> None:
        register(channel=lambda article: article.pk)
        Article.objects.create()
        assert "The channel must be a str or an iterable of str, not int." in caplog.text


class TestRowsThatMove:
    def test_a_row_is_deleted_where_it_was_and_created_where_it_comes(self, register: Register) -> None:
        register(channel=lambda a: a.section_id and f"section.{a.section_id}", fields=["title"])
        one, two = Section.objects.create(), Section.objects.create()
        article = Article.objects.create(section=one, title="for one")
        for section, title in ((two, "for two"), (None, "for nobody"), (one, "for one again")):
            with capture_broadcasts() as broadcasts:
                article.section, article.title = section, title
                article.save()
            yesterday = {two: [("article_deleted", "for one"), ("new_article", "for two")]}
            expected = {
                **yesterday,
                None: [("article_deleted", "for two")],
                one: [("new_article", "for one again")],
            }[section]
            assert [(b.type, b.data["title"]) for b in broadcasts] == expected

    def test_who_stays_on_a_channel_is_updated_there(self, register: Register) -> None:
        register(channel=lambda article: ["all", f"views.{article.views}"])
        article = Article.objects.create(views=1)
        with capture_broadcasts() as broadcasts:
            article.views = 2
            article.save()
            article.save()
        assert [(b.channels, b.type) for b in broadcasts] == [
            (("views.1",), "article_deleted"), (("views.2",), "new_article"), (("all",), "article_updated"),
            (("all", "views.2"), "article_updated"),
        ]  # fmt: skip

    def test_a_delete_is_told_where_the_row_was(self, register: Register) -> None:
        register(channel=lambda article: f"views.{article.views}")
        article = Article.objects.create(views=1)
        article.views = 2
        with capture_broadcasts() as broadcasts:
            article.delete()
        assert [b.channels for b in broadcasts] == [("views.1",)]

    def test_what_somebody_else_has_moved_meanwhile_is_not_told_where_it_is_no_more(self, register: Register) -> None:
        register(channel=lambda article: f"views.{article.views}", fields=["title"])
        article = Article.objects.create(views=1)
        with capture_broadcasts() as broadcasts, transaction.atomic():
            transaction.on_commit(lambda: Article.objects.update(views=2, title="of two"))
            article.title = "of one"
            article.save()
        assert broadcasts == []

    def test_in_the_namespace_that_it_was_saved_in(self, register: Register, settings: Any) -> None:
        settings.SSE_LIVE = {"NAMESPACE": lambda request: "one"}
        register(channel=lambda article: f"views.{article.views}", fields=["title"])
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(views=1, title="t")
            article.views = 2
            article.save()
        assert said(broadcasts) == [
            ("new_article", {"title": "t"}), ("article_deleted", {"title": "t"}), ("new_article", {"title": "t"}),
        ]  # fmt: skip

    def test_a_silent_update_may_still_move(self, register: Register) -> None:
        register(channel=lambda article: f"views.{article.views}", updated=None)
        article = Article.objects.create(views=1)
        with capture_broadcasts() as broadcasts:
            article.save()
            article.views = 2
            article.save()
        assert [(b.channels[0], b.type) for b in broadcasts] == [
            ("views.1", "article_deleted"),
            ("views.2", "new_article"),
        ]

    @pytest.mark.parametrize("place", ["views.{}", "views.{:d}"])
    def test_a_value_set_as_text_is_shown_where_its_row_is(self, register: Register, caplog: Any, place: str) -> None:
        register(channel=lambda article: place.format(article.views))
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(views="07")
            article.views = "08"
            article.save()
            article.delete()
        assert [(b.channels, b.type) for b in broadcasts] == [
            (("views.7",), "new_article"),
            (("views.7",), "article_deleted"), (("views.8",), "new_article"),
            (("views.8",), "article_deleted"),
        ]  # fmt: skip
        assert article.views == "08" and caplog.records == []


class TestGoneAtTheCommit:
    def test_what_was_saved_and_deleted_is_told_as_it_was_saved(self, register: Register, caplog: Any) -> None:
        register(fields=["title"])
        with capture_broadcasts() as broadcasts, transaction.atomic():
            article = Article.objects.create(title="a")
            article.title = "b"
            article.save()
            article.delete()
        assert said(broadcasts) == [
            ("new_article", {"title": "b"}), ("article_updated", {"title": "b"}), ("article_deleted", {"title": "b"}),
        ]  # fmt: skip
        assert caplog.records == []

    def test_what_only_the_row_could_have_told_is_not(self, register: Register, caplog: Any) -> None:
        register(fields=["views"])
        article = Article.objects.create()
        with capture_broadcasts() as broadcasts, transaction.atomic():
            article.views = F("views") + 1
            article.save()
            Article.objects.all()._raw_delete("default")
        assert [b.data for b in broadcasts] in ([], [{"views": 1}])  # since Django 6.0 the instance knows it
        assert caplog.records == []


class TestSavepoints:
    def test_what_a_savepoint_took_back_is_not_told_and_what_follows_is(self, register: Register) -> None:
        register(fields=["title"])
        article = Article.objects.create(title="0")
        with capture_broadcasts() as broadcasts, transaction.atomic():
            with pytest.raises(LookupError), transaction.atomic():
                article.title = "taken back"
                article.save()
                raise LookupError
            article.title = "kept"
            article.save()
        assert said(broadcasts) == [("article_updated", {"title": "kept"})]

    def test_a_transaction_that_was_taken_back_leaves_nothing_to_the_next(self, register: Register) -> None:
        register(fields=["title"])
        with capture_broadcasts() as broadcasts:
            with pytest.raises(LookupError), transaction.atomic():
                Article.objects.create(pk=7, title="never")
                raise LookupError
            with transaction.atomic():
                Article.objects.create(pk=7, title="real")
        assert said(broadcasts) == [("new_article", {"title": "real"})]


def break_by_sql(*_: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM testapp_tag")
    return "articles"


def break_by_save(*_: Any) -> str:
    Tag.objects.create(name="left behind")
    Section(pk=1).save(force_insert=True)
    Section(pk=1).save(force_insert=True)
    return "articles"


def break_after_a_broadcast(*_: Any) -> str:
    broadcast("articles", "of_what_was_undone")
    return break_by_sql()


def break_and_carry_on(*_: Any) -> str:
    try:
        break_by_save()
    except Exception:
        return "articles"
    raise AssertionError("it did not break")


class BrokenManager(models.Manager[Article]):
    def get_queryset(self) -> Any:
        return break_by_save()


class Unlockable(models.QuerySet[Article]):
    def select_for_update(self, *_: Any, **__: Any) -> Any:
        return break_by_save()


BREAKS = [break_by_sql, break_by_save, break_after_a_broadcast, break_and_carry_on]


class TestWhatFails:
    """SQLite does not mind a failed query inside a transaction, but Django does after a failed save."""

    @pytest.mark.parametrize("broken", BREAKS)
    @pytest.mark.parametrize("option", ["payload", "channel", "target", "context"])
    def test_costs_no_save(self, register: Register, caplog: Any, broken: Any, option: str) -> None:
        options: dict[str, Any] = {option: broken}
        if option in ("target", "context"):
            options["template"] = "testapp/_article.html"
        register(**options)
        with capture_broadcasts() as broadcasts, transaction.atomic():
            article = Article.objects.create(title="kept")
            article.title = "kept too"
            article.save()
            Section.objects.create()
        assert Article.objects.get().title == "kept too"
        if option == "channel":  # the others are called after the commit (too)
            assert not Tag.objects.exists(), "what it did is undone"
            assert "of_what_was_undone" not in [b.type for b in broadcasts]
        if broken is not break_and_carry_on or option == "context":
            assert "testapp.article" in caplog.records[0].getMessage()

    def test_a_channel_that_cannot_be_told_of_a_delete_is_logged_once(self, register: Register, caplog: Any) -> None:
        article = Article.objects.create()
        register(channel=break_by_sql)
        article.delete()
        (record,) = caplog.records
        assert "testapp.article (deleted)" in record.getMessage()

    @pytest.mark.parametrize("change", ["save", "delete", "add", "add_from_the_other_side"])
    def test_nor_does_a_base_manager(
        self, register: Register, change: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        """One of the project's own: it may want a tenant that is not known, or count what belongs to a row, which
        PostgreSQL does not lock."""
        register(channel=lambda article: f"section.{article.section_id}", fields=["tag_names"])
        article, tag = Article.objects.create(), Tag.objects.create()
        work = {
            "save": article.save,
            "delete": article.delete,
            "add": lambda: article.tags.add(tag),
            "add_from_the_other_side": lambda: tag.article_set.add(article),
        }[change]
        # Django's own UPDATE asks it too.
        manager: Any = models.Manager.from_queryset(Unlockable)() if change == "save" else BrokenManager()
        manager.model = Article
        monkeypatch.setitem(vars(Article._meta), "base_manager", manager)
        with transaction.atomic():
            work()
            Section.objects.create(name="kept")
        assert Section.objects.filter(name="kept").exists()
        assert Article.objects.exists() == (change != "delete")
        assert "testapp.article" in caplog.records[0].getMessage()

    def test_a_bus_that_broke_the_transaction_is_heard_of(self, register: Register, settings: Any) -> None:
        settings.SSE_LIVE = {"BACKEND": "tests.test_broadcasting.EnlistingBackend"}
        register(created="broken")
        with pytest.raises(Exception, match="the INSERT failed"), transaction.atomic():
            Article.objects.create()

    def test_a_bus_that_is_broken_outside_one_is_not(self, register: Register, settings: Any, caplog: Any) -> None:
        settings.SSE_LIVE = {"BACKEND": "tests.test_broadcasting.BrokenBackend"}
        register()
        Article.objects.create()
        assert "testapp.article (created)" in caplog.records[0].getMessage()


class UnderTestCase(TestCase):
    """Each save is as if it had been committed, where the tested code opens no transaction."""

    def setUp(self) -> None:
        live_model.register(Article, "articles", fields=["title"])
        self.addCleanup(live_model.unregister, Article)

    def test_each_save_has_its_own_data(self) -> None:
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(title="one")
            article.title = "two"
            article.save()
            article.delete()
        self.assertEqual([b.data["title"] for b in broadcasts], ["one", "two", "two"])

    def test_a_transaction_of_the_tested_code_is_one(self) -> None:
        with capture_broadcasts() as broadcasts:
            with transaction.atomic():
                article = Article.objects.create(title="one")
                article.title = "two"
                article.save()
        self.assertEqual([b.data["title"] for b in broadcasts], ["two", "two"])

    def test_django_s_own_capture_of_commits_works(self) -> None:
        with capture_broadcasts() as broadcasts:
            with self.captureOnCommitCallbacks(execute=True):
                Article.objects.create(title="one")
            self.assertEqual([b.data["title"] for b in broadcasts], ["one"])
        self.assertEqual(len(broadcasts), 1)


def test_a_price_is_what_the_database_made_of_it(register: Register) -> None:
    register(payload=lambda article, action: isinstance(article.price, Decimal))
    with capture_broadcasts() as broadcasts:
        Article.objects.create(price="1")
    assert broadcasts[0].data is True
    assert not connections["default"].in_atomic_block
