"""System checks: each has an id and a hint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core import checks
from django.test import modify_settings, override_settings

from django_sse_live import live_model
from tests.testapp.models import Article, ArticleProxy, Unheard


@pytest.fixture(autouse=True)
def _without_the_database_bus() -> Iterator[None]:
    with modify_settings(INSTALLED_APPS={"remove": ["django_sse_live.database"]}):
        yield


def ids() -> list[str | None]:
    messages = checks.run_checks(tags=["sse_live"])
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_a_good_project_has_nothing_to_say() -> None:
    assert ids() == []


@pytest.mark.parametrize("bad", [{"NO_SUCH_KEY": 1}, {"RETRY_MS": "2000"}, {"BACKEND": "no.such.Backend"}])
def test_bad_settings(bad: dict[str, Any]) -> None:
    with override_settings(SSE_LIVE=bad):
        assert ids() == ["sse_live.E001"]


@pytest.mark.parametrize(("token", "stream", "said"), [(60, 61, ["sse_live.W018"]), (60, 60, []), (60, None, [])])
def test_a_token_that_expires_before_its_stream(token: int, stream: int | None, said: list[str]) -> None:
    with override_settings(SSE_LIVE={"TOKEN_MAX_AGE_SECONDS": token, "MAX_AGE_SECONDS": stream}):
        assert ids() == said


def test_no_asgi_application() -> None:
    with override_settings(ASGI_APPLICATION=None):
        assert ids() == ["sse_live.W001"]


def test_a_runserver_that_speaks_wsgi() -> None:
    apps = ["django.contrib.auth", "django.contrib.contenttypes", "django_sse_live"]
    with override_settings(DEBUG=True, INSTALLED_APPS=apps):
        assert "sse_live.W002" in ids()


def test_a_field_that_does_not_exist() -> None:
    live_model.register(Unheard, "a", fields=["id", "nmae"])
    try:
        assert ids() == ["sse_live.E002"]
        assert "'nmae'" in checks.run_checks(tags=["sse_live"])[0].msg
    finally:
        live_model.unregister(Unheard)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tags", "many-to-many"), ("related", "many-to-many"), ("keyed", "other end"), ("keyed_set", "other end"),
        ("featuredarticle", "other end"), ("priced", "needs currency"), ("raw", "JSON_ENCODER"),
        ("about", "generic relation"), ("fetched", "coroutine"), ("objects", "class"), ("DoesNotExist", "class"),
        ("delete", "changes"), ("save", "changes"),
    ],
)  # fmt: skip
def test_a_field_that_can_never_be_sent(name: str, reason: str) -> None:
    live_model.register(Article, "a", fields=["id", name])
    try:
        (message,) = checks.run_checks(tags=["sse_live"])
        assert message.id == "sse_live.E003"
        assert f"{name!r} of Article" in message.msg and reason in message.msg
    finally:
        live_model.unregister(Article)


def test_fields_attributes_and_methods_that_can() -> None:
    live_model.register(Article, "a", fields=["pk", "id", "section", "section_id", "shout", "tag_names", "price"])
    try:
        assert ids() == []
    finally:
        live_model.unregister(Article)


@pytest.fixture
def source(settings: Any) -> Any:
    """The message about a template with that source, if there is one."""

    def source(text: str, name: str = "row.html") -> checks.CheckMessage | None:
        (backend,) = settings.TEMPLATES
        loaders = [("django.template.loaders.locmem.Loader", {"row.html": "{% load sse_live %}" + text})]
        settings.TEMPLATES = [{**backend, "APP_DIRS": False, "OPTIONS": {"loaders": loaders}}]
        live_model.register(Article, "a", template=name, target="list")
        try:
            return next(iter(checks.run_checks(tags=["sse_live"])), None)
        finally:
            live_model.unregister(Article)

    return source


@pytest.mark.parametrize(
    ("text", "id", "reason"),
    [
        ("{% bad %}", "E004", "row.html"),
        ("{{ article|bad }}", "E004", "row.html"),
        ("<li>{{ article.title }}</li>", "E005", "<li> has no id"),
        ('<li class="{{ c }}" data-x>{{ article.title }}</li>', "E005", "no id"),
        ('<li id="article">{{ article.title }}</li>', "E005", "'article' for every instance"),
        ('<li id="{{ article|live_id }}"></li><li></li>', "E005", "2 roots"),
        ("{# a comment #}\n{% comment %}<p>{% endcomment %}<p></p>", "E005", "no id"),
        ('<li id="article"><b>', "E005", "ends early"),
        ('<li id="{{ article|live_id }}">{% if 1 %}<b>{% endif %}{{ article }}</b></li>', None, ""),
        ('{% if 1 %}<li id="a"></li>{% else %}<li></li>{% endif %}', None, ""),
        ("{% include 'x' %}", None, ""),
        ("<li {% attributes_of %}></li>".replace("attributes_of", "firstof 1"), None, ""),
    ],
)
def test_a_template_that_cannot_be_right(source: Any, text: str, id: str | None, reason: str) -> None:
    message = source(text)
    assert (message and message.id) == (id and f"sse_live.{id}")
    if message:
        assert "'row.html'" in message.msg and "Article" in message.msg and reason in message.msg


def test_a_template_that_is_not_there(source: Any) -> None:
    assert source("", "missing.html").id == "sse_live.E004"


def test_two_registrations_of_one_name() -> None:
    template = "testapp/_article.html"
    for element_id in (None, None, "side"):
        live_model.register(Article, "a", template=template, target="list", element_id=element_id)
    live_model.register(ArticleProxy, "a", template=template, target="list", element_id="article")
    try:
        assert ids() == ["sse_live.E006"] * 2
        assert "element_id" in str(checks.run_checks(tags=["sse_live"])[0].hint)
    finally:
        live_model.unregister(Article)
        live_model.unregister(ArticleProxy)
