"""@live_model with a template: what each save, delete and move changes on the pages, rendered once, for everybody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, models, transaction
from django.db.models import F
from django.template import Context, Template
from django.utils import translation

from django_sse_live import live_model, row_turns
from django_sse_live.broadcasting import Publication
from django_sse_live.row_turns import RowTurns
from django_sse_live.testing import CapturedBroadcast, StreamClient, capture_broadcasts
from tests.jobs.conftest import until
from tests.test_live_models import _logged_queries
from tests.testapp.models import Article, ArticleProxy, FeaturedArticle, Keyed, Section, Tag

pytestmark = pytest.mark.django_db(transaction=True)

Register = Callable[..., None]
TEMPLATE = "testapp/_article.html"
ROW = '<li id="{{ article|live_id }}">{{ article.title }}</li>'


@pytest.fixture
def register() -> Iterator[Register]:
    registered: list[type[models.Model]] = []

    def register(model: type[models.Model] = Article, channel: Any = "articles", **options: Any) -> None:
        registered.append(model)
        if options.get("insert") != "refresh":
            options = {"template": TEMPLATE, "target": "list", **options}
        live_model.register(model, channel, **options)

    yield register
    for model in registered:
        live_model.unregister(model)


@pytest.fixture
def templates(settings: Any) -> Callable[..., str]:
    """Templates in memory."""

    def templates(**sources: str) -> str:
        files = {f"{name}.html": "{% load sse_live i18n %}" + source for name, source in sources.items()}
        (backend,) = settings.TEMPLATES
        options = {**backend["OPTIONS"], "loaders": [("django.template.loaders.locmem.Loader", files)]}
        settings.TEMPLATES = [{**backend, "APP_DIRS": False, "OPTIONS": options}]
        return "row.html"

    return templates


def patches(broadcasts: list[CapturedBroadcast]) -> list[tuple[str, str, str | None]]:
    return [(b.patch["action"], b.patch["target"], b.patch.get("html")) for b in broadcasts if b.patch]


def actions(broadcasts: list[CapturedBroadcast]) -> list[tuple[str, str]]:
    return [(action, target) for action, target, _ in patches(broadcasts)]


class TestEachChange:
    def test_is_a_patch_beside_the_data(self, register: Register) -> None:
        register(insert="prepend", fields=["title"])
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(title="<b>")
            id = f"article-{article.pk}"
            article.title = "two"
            article.save()
            article.delete()
        assert [(b.type, b.data, b.patch) for b in broadcasts] == [
            (
                "new_article",
                {"title": "<b>"},
                {"action": "prepend", "target": "list", "id": id, "html": f'<li id="{id}">&lt;b&gt;</li>\n'},
            ),
            (
                "article_updated",
                {"title": "two"},
                {"action": "replace", "target": id, "id": id, "html": f'<li id="{id}">two</li>\n'},
            ),
            ("article_deleted", {"title": "two"}, {"action": "remove", "target": id, "id": id}),
        ]

    def test_without_a_target_or_an_insert_nothing_is_inserted(self, register: Register) -> None:
        for options in ({"target": None}, {"insert": None}):
            register(**options)
            with capture_broadcasts() as broadcasts:
                article = Article.objects.create()
                article.save()
            assert [b.type for b in broadcasts] == ["new_article", "article_updated"]
            assert actions(broadcasts) == [("replace", f"article-{article.pk}")]
            live_model.unregister(Article)

    def test_a_silent_type_is_silent(self, register: Register) -> None:
        register(updated=None)
        article = Article.objects.create()
        with capture_broadcasts() as broadcasts:
            article.save()
        assert broadcasts == []

    def test_several_saves_of_a_transaction_are_one_patch(self, register: Register) -> None:
        register()
        with capture_broadcasts() as broadcasts:
            with transaction.atomic():
                article = Article.objects.create(title="one")
                article.tags.add(Tag.objects.create(name="t"))
                Article.objects.filter(pk=article.pk).update(views=F("views") + 1)
                article.title = "two"
                article.save(update_fields=["title"])
        assert [b.type for b in broadcasts] == ["new_article", "article_updated"]
        assert patches(broadcasts) == [("append", "list", f'<li id="article-{article.pk}">two #t</li>\n')]

    def test_the_same_key_again_is_inserted_again(self, register: Register) -> None:
        register()
        with capture_broadcasts() as broadcasts, transaction.atomic():
            article = Article.objects.create(pk=7)
            article.save()
            article.delete()
            Article.objects.create(pk=7)
        assert actions(broadcasts) == [("append", "list"), ("remove", "article-7"), ("append", "list")]

    def test_a_savepoint_that_was_taken_back_takes_its_patch_along(self, register: Register) -> None:
        register()
        article = Article.objects.create()
        with capture_broadcasts() as broadcasts, transaction.atomic():
            with pytest.raises(LookupError), transaction.atomic():
                article.save()
                raise LookupError
            article.save()
        assert actions(broadcasts) == [("replace", f"article-{article.pk}")]

    def test_what_a_callback_saves_before_it_goes_out_takes_no_patch_away(self, register: Register) -> None:
        register()

        def save_again() -> None:
            with transaction.atomic():
                article.title = "again"
                article.save()

        with capture_broadcasts() as broadcasts, transaction.atomic():
            transaction.on_commit(save_again)
            article = Article.objects.create(title="first")
        assert actions(broadcasts)[-1] == ("append", "list")
        assert "again" in str(patches(broadcasts)[-1][2])

    def test_the_older_of_two_savers_does_not_win_by_being_slow(self, register: Register) -> None:
        register()
        article = Article.objects.create()
        with capture_broadcasts() as broadcasts, transaction.atomic():
            transaction.on_commit(lambda: Article.objects.get(pk=article.pk).tags.set([Tag.objects.create(name="new")]))
            transaction.on_commit(lambda: Article.objects.update(title="newer"))
            article.title = "older"
            article.save()
        assert "newer #new" in str(patches(broadcasts)[-1][2])

    @pytest.mark.parametrize("does", ["saves", "deletes"])
    def test_the_last_patch_of_a_row_is_of_the_row_as_it_is_though_a_slow_template_draws_an_older_one(
        self, register: Register, monkeypatch: pytest.MonkeyPatch, does: str
    ) -> None:
        others_turn, turn = threading.Event(), RowTurns.turn

        def watched(self: RowTurns, row: Any, who: object) -> Any:
            if threading.current_thread() is other:
                others_turn.set()
            return turn(self, row, who)

        def act() -> None:
            newer = Article.objects.get()
            newer.title = "newer"
            newer.save() if does == "saves" else newer.delete()
            connections.close_all()

        def slow(article: Article) -> dict[str, Any]:
            if other.ident is None:
                other.start()
                until(lambda: others_turn.is_set() or not other.is_alive())
            return {}

        other = threading.Thread(target=act)
        monkeypatch.setattr(row_turns, "TURN_SECONDS", 60.0)
        monkeypatch.setattr(RowTurns, "turn", watched)
        register(context=slow)
        with capture_broadcasts() as broadcasts:
            Article.objects.create(title="older")
            other.join()
        assert actions(broadcasts)[-1][0] == ("replace" if does == "saves" else "remove")
        assert len(broadcasts) == 2 and "older" in str(patches(broadcasts)[0][2])

    def test_what_another_saves_between_two_patches_of_one_transaction_is_in_the_second(
        self, register: Register, templates: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def publish(self: Publication) -> None:
            real(self)
            if other.ident is None:
                other.start()
                other.join()

        def act() -> None:
            Article.objects.update(title="newer")
            Article.objects.get().save()
            connections.close_all()

        real, other = Publication.__call__, threading.Thread(target=act)
        register(template=templates(row=ROW, side=ROW.replace("live_id", 'live_id:"side"')))
        register(template="side.html", element_id="side", target=None)
        article = Article.objects.create(title="first")
        monkeypatch.setattr(Publication, "__call__", publish)
        with capture_broadcasts() as broadcasts, transaction.atomic():
            article.title = "older"
            article.save()
        newest = {target: html for _, target, html in patches(broadcasts)}
        assert len(newest) == 2 and all("newer" in str(html) for html in newest.values()), newest

    def test_a_row_gone_since_is_removed(self, register: Register, caplog: Any) -> None:
        register()
        article = Article.objects.create()
        with capture_broadcasts() as broadcasts, transaction.atomic():
            article.save()
            Article.objects.all()._raw_delete("default")
        assert actions(broadcasts) == [("remove", f"article-{article.pk}")]
        assert caplog.records == []

    def test_one_query_whatever_the_page_has(self, register: Register) -> None:
        register(queryset=lambda: Article.objects.select_related("section").prefetch_related("tags"))
        article = Article.objects.create(section=Section.objects.create())
        with capture_broadcasts(), _logged_queries() as queries:
            article.save()
        assert len(queries) == 3  # the save, the row, its tags

    def test_one_render_and_one_encoding_whatever_the_number_of_clients(
        self, register: Register, templates: Any, settings: Any
    ) -> None:
        settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["*"]}
        drawn.clear()
        register(
            template=templates(row='<li id="{{ article|live_id }}">{{ count }}</li>'),
            context=lambda article: {"count": lambda: drawn.append(1) or len(drawn)},
        )

        async def hear() -> list[Any]:
            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(
                        StreamClient().stream("/events/", {"channel": "articles", "format": "envelope"})
                    )
                    for _ in range(20)
                ]
                for client in clients:
                    await client.next()  # connected
                await sync_to_async(Article.objects.create)()
                return [await client.next() for client in clients]

        heard = async_to_sync(hear)()
        assert {event.data["patch"]["html"].partition(">")[2] for event in heard} == {"1</li>"}
        assert drawn == [1]


drawn: list[int] = []


class TestMoves:
    def test_between_targets(self, register: Register) -> None:
        register(target=lambda article: f"list-{article.views}" if article.views else None)
        article = Article.objects.create(views=1)
        id = f"article-{article.pk}"
        expected: list[Any] = []
        for views, patch in (
            (1, ("replace", id, None)), (2, ("append", "list-2", "list-1")), (0, ("remove", id, None)),
            (1, ("append", "list-1", None)),
        ):  # fmt: skip
            article.views = views
            with capture_broadcasts() as broadcasts:
                article.save()
            (broadcast,) = broadcasts
            assert broadcast.type == "article_updated" and broadcast.patch
            expected = [broadcast.patch["action"], broadcast.patch["target"], broadcast.patch.get("from")]
            assert tuple(expected) == patch

    def test_back_and_forth_in_one_transaction(self, register: Register) -> None:
        register(target=lambda article: f"list-{article.views}")
        article = Article.objects.create(views=1)
        with capture_broadcasts() as broadcasts, transaction.atomic():
            for views in (2, 1):
                article.views = views
                article.save()
        assert actions(broadcasts) == [("replace", f"article-{article.pk}"), ("append", "list-1")]

    def test_between_channels(self, register: Register) -> None:
        register(channel=lambda article: f"c{article.views}" if article.views else None)
        article = Article.objects.create(views=1)
        id = f"article-{article.pk}"
        for views, expected in ((2, [("c1", "remove", id), ("c2", "append", "list")]), (0, [("c2", "remove", id)])):
            article.views = views
            with capture_broadcasts() as broadcasts:
                article.save()
            assert [(b.channels[0], *actions([b])[0]) for b in broadcasts] == expected

    def test_where_a_channel_stays_the_others_refresh(self, register: Register) -> None:
        """Who hears both would lose the element, or find it at another place."""
        register(channel=lambda article: ["all", f"c{article.views}"])
        article = Article.objects.create(views=1)
        article.views = 2
        with capture_broadcasts() as broadcasts:
            article.save()
        assert [(b.channels[0], *actions([b])[0]) for b in broadcasts] == [
            ("c1", "refresh", "list"), ("c2", "refresh", "list"), ("all", "replace", f"article-{article.pk}"),
        ]  # fmt: skip


class TestRefresh:
    def test_no_markup_travels_and_no_row_is_read(self, register: Register) -> None:
        register(insert="refresh", target="list")
        with capture_broadcasts() as broadcasts, _logged_queries() as queries:
            article = Article.objects.create()
            article.save()
            assert len(queries) == 2
            article.delete()
        assert [b.patch for b in broadcasts] == [{"action": "refresh", "target": "list"}] * 3
        assert [b.type for b in broadcasts] == ["new_article", "article_updated", "article_deleted"]

    def test_once_for_a_transaction_and_target(self, register: Register) -> None:
        register(insert="refresh", target=lambda article: f"list-{article.views}")
        with capture_broadcasts() as broadcasts, transaction.atomic():
            for views in (1, 2, 1, 1):
                Article.objects.create(views=views)
            Article.objects.filter(views=1).delete()
        assert actions(broadcasts) == [("refresh", "list-1"), ("refresh", "list-2")]
        assert len(broadcasts) == 7

    def test_a_move_refreshes_both_targets(self, register: Register) -> None:
        register(insert="refresh", target=lambda article: f"list-{article.views}")
        article = Article.objects.create(views=1)
        article.views = 2
        with capture_broadcasts() as broadcasts:
            article.save()
        assert [(b.type, *actions([b])[0]) for b in broadcasts] == [
            ("patch", "refresh", "list-1"), ("article_updated", "refresh", "list-2"),
        ]  # fmt: skip

    def test_a_row_whose_target_is_nowhere_refreshes_nothing(self, register: Register, caplog: Any) -> None:
        register(insert="refresh", target=lambda article: f"list-{article.views}" if article.views else None)
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create()
            article.save()
            article.views = 1
            article.save()
            article.views = 0
            article.save()
            article.delete()
        assert [(b.type, b.patch and b.patch["target"]) for b in broadcasts] == [
            ("new_article", None), ("article_updated", None), ("article_updated", "list-1"),
            ("patch", "list-1"), ("article_updated", None), ("article_deleted", None),
        ]  # fmt: skip
        assert not caplog.records


class TestByHand:
    def test_up_to_a_hundred_are_rendered(self, register: Register) -> None:
        register()
        articles = Article.objects.bulk_create(Article(title=str(number)) for number in range(100))
        with capture_broadcasts() as broadcasts, _logged_queries() as queries:
            live_model.broadcast(articles, "created")
        assert [html for *_, html in patches(broadcasts)] == [
            f'<li id="article-{article.pk}">{article.title}</li>\n' for article in articles
        ]
        assert len([q for q in queries if "_tags" not in q["sql"]]) == 1

    @pytest.mark.parametrize("action", ["created", "updated", "deleted"])
    @pytest.mark.parametrize("in_transaction", [True, False])
    def test_more_are_one_refresh_of_each_target(self, register: Register, action: Any, in_transaction: bool) -> None:
        register(target=lambda article: f"list-{article.views % 2}")
        articles = Article.objects.bulk_create(Article(views=number) for number in range(101))
        with capture_broadcasts() as broadcasts:
            if in_transaction:
                with transaction.atomic():
                    live_model.broadcast(articles, action)
            else:
                live_model.broadcast(articles, action)
        assert actions(broadcasts) == [("refresh", "list-0"), ("refresh", "list-1")]
        assert len(broadcasts) == 101, "the data of each is for scripts"

    @pytest.mark.parametrize("target", ["articles", None])
    def test_without_a_key_they_are_refreshed_and_each_has_its_data(
        self, register: Register, target: str | None
    ) -> None:
        """As bulk_create() leaves them on MySQL and with ignore_conflicts."""
        register(target=target, fields=["title"])
        articles = Article.objects.bulk_create([Article(title="one"), Article(title="two")], ignore_conflicts=True)
        assert [article.pk for article in articles] == [None, None]
        with capture_broadcasts() as broadcasts, transaction.atomic():
            live_model.broadcast(articles, "created")
        assert actions(broadcasts) == ([("refresh", "articles")] if target else [])
        assert [b.data for b in broadcasts] == [{"title": "one"}, {"title": "two"}]


class TestIds:
    def test_are_of_the_registered_model(self, register: Register) -> None:
        register()
        for model in (ArticleProxy, FeaturedArticle):
            with capture_broadcasts() as broadcasts:
                article = model.objects.create(title="t")
                article.delete()
            assert all(b.patch["id"].startswith("article-") for b in broadcasts if b.patch)
            assert len(actions(broadcasts)) == 2
            assert "<li id=" in str(patches(broadcasts)[0][2])

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("{{ article|live_id }}", "article-1234"),
            ('{{ article|live_id:"side" }}', "side-1234"),
            ("{{ proxy|live_id }} {{ featured|live_id }}", "article-1234 article-1234"),
            ("{{ tag|live_id }}", "tag-1234"),
            ("{{ keyed|live_id }}", "keyed-&quot;&gt;&lt;é"),
            ("{% autoescape off %}{{ keyed|live_id }}{% endautoescape %}", "keyed-&quot;&gt;&lt;é"),
        ],
    )
    def test_of_the_filter(self, register: Register, settings: Any, source: str, expected: str) -> None:
        register()
        settings.USE_THOUSAND_SEPARATOR = True
        values = {
            "article": Article(pk=1234), "proxy": ArticleProxy(pk=1234), "featured": FeaturedArticle(id=1234),
            "tag": Tag(pk=1234), "keyed": Keyed(code='"><é'),
        }  # fmt: skip
        with translation.override("de"):
            assert Template("{% load sse_live %}" + source).render(Context(values)) == expected

    def test_the_filter_says_what_it_is_for(self) -> None:
        with pytest.raises(TypeError, match="instance of a model, not for ''"):
            Template("{% load sse_live %}{{ coment|live_id }}").render(Context())

    def test_an_ugly_key_is_escaped_in_the_markup_and_as_it_is_on_the_wire(
        self, register: Register, templates: Any
    ) -> None:
        register(Keyed, template=templates(row='<li id="{{ keyed|live_id }}"></li>'))
        with capture_broadcasts() as broadcasts:
            Keyed.objects.create(code='a"&')
        assert broadcasts[0].patch == {
            "action": "append", "target": "list", "id": 'keyed-a"&', "html": '<li id="keyed-a&quot;&amp;"></li>',
        }  # fmt: skip

    def test_a_second_place_sends_no_second_event_of_the_type(self, register: Register, templates: Any) -> None:
        side = templates(row='<p id="{{ article|live_id:"side" }}">', main='<li id="{{ article|live_id }}"></li>')
        register(template=side, target="side", element_id="side", fields=["title"])
        register(template="main.html", fields=["title"])
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(title="t")
            article.delete()
        assert [(b.type, b.data, *actions([b])[0]) for b in broadcasts] == [
            ("patch", None, "append", "side"),
            ("new_article", {"title": "t"}, "append", "list"),
            ("patch", None, "remove", broadcasts[0].patch and broadcasts[0].patch["id"]),
            ("article_deleted", {"title": "t"}, "remove", broadcasts[1].patch and broadcasts[1].patch["id"]),
        ]

    def test_a_name_of_its_own_is_that_of_the_filter_too(self, register: Register) -> None:
        register(element_id="news", template=TEMPLATE)
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(title="t")
        assert broadcasts[0].type == "new_article"
        assert broadcasts[0].patch and broadcasts[0].patch["html"] == f'<li id="news-{article.pk}">t</li>\n'


class TestARowThatIsTooLarge:
    def test_is_fetched_by_its_pages(self, register: Register, templates: Any, caplog: Any, settings: Any) -> None:
        settings.SSE_LIVE = {"EVENT_MAX_BYTES": 2048}
        row = '<li id="{{ article|live_id }}">{% for n in article.title %}{{ article.title }}{% endfor %}</li>'
        register(template=templates(row=row), fields=["title"])
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(title="x" * 50)
            article.save()
            article.title = "y"
            article.save()
        assert [(b.type, b.data["title"][0], *actions([b])[0]) for b in broadcasts] == [
            ("new_article", "x", "refresh", "list"), ("article_updated", "x", "refresh", "list"),
            ("article_updated", "y", "replace", f"article-{article.pk}"),
        ]  # fmt: skip
        assert ["EVENT_MAX_BYTES" in str(record.exc_info[1]) for record in caplog.records] == [True, True]

    def test_so_is_one_whose_data_are(self, register: Register, caplog: Any, settings: Any) -> None:
        settings.SSE_LIVE = {"EVENT_MAX_BYTES": 2048}
        register(payload=lambda article, action: {"text": "x" * 3000})
        with capture_broadcasts() as broadcasts:
            Article.objects.create()
        assert [(b.data, *actions([b])[0]) for b in broadcasts] == [(None, "refresh", "list")]
        assert "EVENT_MAX_BYTES" in caplog.text


class TestNoViewerGetsIn:
    def test_a_template_that_asks_is_logged_and_sends_nothing(
        self, register: Register, templates: Any, caplog: Any
    ) -> None:
        """In whatever way it asks: test_rendering.py."""
        row = '<li id="{{ article|live_id }}">{% if not user.is_staff %}{% else %}STAFF{% endif %}</li>'
        register(template=templates(row=row), fields=["title"])
        with capture_broadcasts() as broadcasts:
            Article.objects.create(title="t")
        assert broadcasts == []
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        text = f"{record.getMessage()} {record.exc_info[1]}"
        for part in ("testapp.article", "'row.html'", 'insert="refresh"'):
            assert part in text

    def test_a_name_that_the_context_gives_is_left_alone(self, register: Register, templates: Any) -> None:
        row = '<li id="{{ article|live_id }}">{{ user }}{% if user and request %}{{ request }}{% endif %}</li>'
        register(template=templates(row=row), context=lambda article: {"user": article.title, "request": "r"})
        with capture_broadcasts() as broadcasts:
            Article.objects.create(title="t")
        assert ">tr</li>" in str(patches(broadcasts)[0][2])

    def test_language_and_zone_are_the_site_s(self, register: Register, templates: Any, settings: Any) -> None:
        settings.LANGUAGE_CODE, settings.TIME_ZONE = "de", "Asia/Tokyo"
        row = (
            "{% load i18n tz l10n %}{% get_current_language as l %}{% get_current_timezone as z %}"
            '<li id="{{ article|live_id }}">{{ l }} {{ z }} {{ article.price }}</li>'
        )
        register(template=templates(row=row))
        with translation.override("fr"), capture_broadcasts() as broadcasts:
            Article.objects.create(price="1.5")
        assert ">de Asia/Tokyo 1,50</li>" in str(patches(broadcasts)[0][2])


class TestARenderThatFails:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("{% include 'missing.html' %}", "missing.html"),
            ('<li id="{{ article.pk|unknown }}"></li>', "unknown"),
            ("<li>{{ article.title }}</li>", "'article-"),
            ('<li id="article-{{ article.pk }}x"></li>', "|live_id"),
            ('<li id="{{ article|live_id }}"></li><li></li>', "must draw one element"),
            ('text <li id="{{ article|live_id }}"></li>', "text"),
            ("", "it drew nothing"),
            ('<div id="{{ article|live_id }}"><b>', "ends early"),
            ('<li id="{{ article|live_id }}"><a href="', "ends early"),
        ],
    )
    def test_is_logged_and_a_refresh_goes_in_its_place(
        self, register: Register, templates: Any, caplog: Any, source: str, message: str
    ) -> None:
        register(template=templates(row=source), fields=["title"])
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(title="t")
        assert article.pk
        assert [(b.type, b.data, b.patch) for b in broadcasts] == [
            ("new_article", {"title": "t"}, {"action": "refresh", "target": "list"})
        ]
        (record,) = caplog.records
        text = f"{record.getMessage()} {record.exc_info[1]}"
        assert "testapp.article (created)" in text and "'row.html'" in text and message in text

    def test_a_payload_that_fails_costs_no_patch(self, register: Register, caplog: Any) -> None:
        register(payload=lambda article, action: 1 / 0)
        with capture_broadcasts() as broadcasts:
            article = Article.objects.create(title="t")
            article.delete()
        assert [(b.data, b.patch and b.patch["action"]) for b in broadcasts] == [(None, "append"), (None, "remove")]
        assert len(caplog.records) == 2

    def test_a_target_that_is_no_str_is_logged_and_names_the_model(self, register: Register, caplog: Any) -> None:
        register(target=lambda article: article.pk)
        with capture_broadcasts() as broadcasts:
            Article.objects.create(title="t")
        assert [b.type for b in broadcasts] == ["new_article"]
        assert "testapp.Article" in str(caplog.records[0].exc_info[1])
        assert "a str, not int" in str(caplog.records[0].exc_info[1])


class TestBeforeTheCommit:
    def test_an_event_in_the_bus_s_own_hands_is_a_refresh_until_it_is_complete(
        self, register: Register, settings: Any
    ) -> None:
        from tests import test_broadcasting

        settings.SSE_LIVE = {"BACKEND": "tests.test_model_patches.RememberingBackend"}
        register(fields=["title"])
        remembered.clear()
        test_broadcasting.completed.clear()
        with transaction.atomic():
            article = Article.objects.create(title="t")
            (event,) = remembered
            assert (event.data["id"], event.patch) == (article.pk, '{"action":"refresh","target":"list"}')
        assert event.complete() and event.data == {"title": "t"} and '"html":"<li' in str(event.patch)


from tests.test_broadcasting import EnlistingBackend  # noqa: E402

remembered: list[Any] = []


class RememberingBackend(EnlistingBackend):
    def enlist(self, event: Any, using: str) -> Any:
        remembered.append(event)
        return super().enlist(event, using)


class TestRegistration:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"template": "x.html", "insert": "top"}, r"Article: insert is 'top'.*'append'"),
            ({"template": 7}, "name of a template, not int"),
            ({"template": "x.html", "target": 7}, "Article: The target must be the id"),
            ({"template": "x.html", "target": "#x"}, 'Article:.*without "#"'),
            ({"template": "x.html", "target": lambda: "x"}, r"Article: target must be a function \(instance\)"),
            ({"template": "x.html", "element_id": "a b"}, "element_id"),
            ({"template": "x.html", "context": 7}, "context must be a dict"),
            ({"template": "x.html", "context": lambda one, two: {}}, r"context must be a function \(instance\)"),
            ({"template": "x.html", "queryset": 7}, "queryset must be a callable"),
            ({"template": "x.html", "queryset": lambda manager: manager}, r"queryset must be a function \(\)"),
            ({"insert": "refresh"}, "needs target"),
            ({"target": "list"}, "target is for patches; give template"),
            ({"context": {}}, "context is for patches"),
        ],
    )
    def test_what_cannot_be_is_refused_at_once(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=message):
            live_model("a", **options)(Article)
