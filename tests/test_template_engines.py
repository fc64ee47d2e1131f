"""Patches by other templates than files of Django's own engine: partials of one, and Jinja2's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import django
import pytest

from django_sse_live import broadcast_patch, live_model
from django_sse_live.testing import capture_broadcasts
from tests.testapp.models import Article

ROW = '<li id="article-{{ article.pk }}">{{ article.title }}</li>'


@pytest.fixture
def article() -> Any:
    yield lambda **options: live_model.register(Article, "articles", target="list", **options)
    live_model.unregister(Article)


@pytest.fixture
def partials(settings: Any) -> None:
    if django.VERSION < (6, 0):
        pytest.skip("Django 5.2 has no template partials")
    (backend,) = settings.TEMPLATES
    page = "{% load sse_live %}{% partialdef row inline %}" + ROW + "{% endpartialdef %}{{ user }}"
    loaders = [("django.template.loaders.locmem.Loader", {"page.html": page})]
    settings.TEMPLATES = [{**backend, "APP_DIRS": False, "OPTIONS": {**backend["OPTIONS"], "loaders": loaders}}]


@pytest.fixture
def jinja(settings: Any, tmp_path: Path) -> Path:
    pytest.importorskip("jinja2", reason="Jinja2 is not installed")
    settings.TEMPLATES = [
        {"BACKEND": "django.template.backends.jinja2.Jinja2", "DIRS": [tmp_path]},
        *settings.TEMPLATES,
    ]
    (tmp_path / "row.jinja").write_text(ROW)
    return tmp_path


@pytest.mark.django_db(transaction=True)
def test_a_partial_is_a_template(partials: None, article: Any) -> None:
    """What stands around it, and asks for the viewer, is not asked."""
    article(template="page.html#row")
    with capture_broadcasts() as broadcasts:
        one = Article.objects.create(title="<b>")
        broadcast_patch("articles", "replace", "x", template="page.html#row", context={"article": one})
    row = f'<li id="article-{one.pk}">&lt;b&gt;</li>'
    assert [(b.patch["action"], b.patch["html"]) for b in broadcasts if b.patch] == [("append", row), ("replace", row)]


@pytest.mark.django_db(transaction=True)
def test_a_template_of_jinja_is_rendered_as_any(jinja: Path, article: Any) -> None:
    article(template="row.jinja")
    with capture_broadcasts() as broadcasts:
        one = Article.objects.create(title="<b>")
    row = f'<li id="article-{one.pk}">&lt;b&gt;</li>'
    assert [b.patch["html"] for b in broadcasts if b.patch] == [row]


@pytest.mark.parametrize("markup", ["{{ user.username }}", "{% if user and user.is_staff %}STAFF{% endif %}"])
def test_what_differs_from_viewer_to_viewer_is_not_sent_by_jinja_either(jinja: Path, markup: str) -> None:
    (jinja / "row.jinja").write_text(f'<li id="a">{markup}</li>')
    with capture_broadcasts() as broadcasts, pytest.raises(ValueError, match=r"row\.jinja.*user.*refresh"):
        broadcast_patch("articles", "append", "list", template="row.jinja")
    assert broadcasts == []
