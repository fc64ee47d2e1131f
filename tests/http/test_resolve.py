"""Which stream a url leads to, as Django would find it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.decorators import login_required
from django.urls import clear_url_caches, include, path, re_path, register_converter
from django.urls.converters import StringConverter
from django.urls.resolvers import URLPattern
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache

from django_sse_live.http.resolve import find_stream
from django_sse_live.http.views import EventStreamView


class Room(EventStreamView):
    pass


class Site:
    """A urlconf need not be a module."""

    def __init__(self, *patterns: Any) -> None:
        self.urlpatterns = list(patterns)


def scope(path: str, *, root_path: str = "", query: bytes = b"", **headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": root_path,
        "query_string": query,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }


SITE = Site(
    path("events/", include("django_sse_live.urls")),
    path("rooms/<int:room>/", Room.as_view(), {"channels": ["a"]}),
    path("private/", login_required(never_cache(Room.as_view()))),
)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("/events/", EventStreamView),
        ("/events", None),  # APPEND_SLASH answers with a redirect
        ("/events/health/", None),
        ("/events/status/", None),
        ("/rooms/7/", Room),
        ("/rooms/x/", None),
        ("/private/", Room),
        ("/nowhere/", None),
    ],
)
def test_a_url_leads_to_a_stream_or_to_none(url: str, wanted: Any) -> None:
    found = find_stream(scope(url), SITE)
    assert (None if found is None else found.view_class) is wanted


def test_what_the_url_gives_to_the_view_is_known() -> None:
    found = find_stream(scope("/rooms/7/"), SITE)
    assert found is not None
    assert (found.args, found.kwargs) == ((), {"room": 7, "channels": ["a"]})


def test_a_websocket_s_scope_will_do() -> None:
    websocket = {**scope("/events/"), "type": "websocket"}
    del websocket["method"]
    assert find_stream(websocket, SITE) is not None


def test_the_root_urlconf_is_the_default(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls"
    assert find_stream(scope("/events/")) is not None
    settings.ROOT_URLCONF = "tests.http.urls"
    assert find_stream(scope("/rooms/7/")) is not None


@pytest.mark.parametrize("force", [None, "/app"])
def test_below_a_script_name(settings: Any, force: str | None) -> None:
    settings.FORCE_SCRIPT_NAME = force
    root_path = "" if force else "/app"
    assert find_stream(scope("/app/events/", root_path=root_path), SITE) is not None
    assert find_stream(scope("/app/app/events/", root_path=root_path), SITE) is None


I18N = Site(
    *i18n_patterns(path("events/", Room.as_view())),
    path("plain/", Room.as_view()),
)
I18N_WITHOUT_DEFAULT = Site(*i18n_patterns(path("events/", Room.as_view()), prefix_default_language=False))
TRANSLATED = Site(path(_("January"), Room.as_view()))
LOCALE = "django.middleware.locale.LocaleMiddleware"


@pytest.mark.parametrize(
    ("site", "url", "headers", "is_found"),
    [
        (I18N, "/de/events/", {}, True),
        (I18N, "/en/events/", {}, True),
        (I18N, "/events/", {}, False),
        (I18N, "/plain/", {"accept_language": "de"}, True),
        (I18N_WITHOUT_DEFAULT, "/events/", {"accept_language": "de"}, True),
        (I18N_WITHOUT_DEFAULT, "/de/events/", {}, True),
        (TRANSLATED, "/January", {}, True),
        (TRANSLATED, "/Januar", {"accept_language": "de"}, True),
        (TRANSLATED, "/Januar", {"cookie": "django_language=de"}, True),
        (TRANSLATED, "/January", {"accept_language": "de"}, False),
    ],
)
def test_in_the_language_that_locale_middleware_chooses(
    settings: Any, site: Site, url: str, headers: dict[str, str], is_found: bool
) -> None:
    settings.LANGUAGE_CODE = "en"
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, LOCALE]
    before = get_language()
    assert (find_stream(scope(url, **headers), site) is not None) is is_found
    assert get_language() == before


def test_without_locale_middleware_it_is_the_site_s_language(settings: Any) -> None:
    settings.LANGUAGE_CODE = "en"
    assert find_stream(scope("/January", accept_language="de"), TRANSLATED) is not None


def test_a_query_that_is_no_text_leads_nowhere() -> None:
    assert find_stream(scope("/events/", query=b"\xff"), SITE) is None


class Known(StringConverter):
    """As one that looks into a database."""

    names: set[str] = set()

    def to_python(self, value: str) -> str:
        if value not in self.names:
            raise ValueError
        return value


register_converter(Known, "known_room")


def test_a_converter_of_the_project_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(path("rooms/", include([path("<known_room:room>/", Room.as_view())])))
    monkeypatch.setattr(Known, "names", {"a"})
    assert find_stream(scope("/rooms/a/"), site) is not None
    monkeypatch.setattr(Known, "names", set())
    assert find_stream(scope("/rooms/a/"), site) is None


def test_a_pattern_of_the_project_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rare(URLPattern):
        is_there = True

        def resolve(self, path: str) -> Any:
            return super().resolve(path) if self.is_there else None

    plain = path("rare/", Room.as_view())
    site = Site(Rare(plain.pattern, plain.callback))
    assert find_stream(scope("/rare/"), site) is not None
    monkeypatch.setattr(Rare, "is_there", False)
    assert find_stream(scope("/rare/"), site) is None


def test_other_urls_are_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resolve(self: Any, path: str, resolve: Any = URLPattern.resolve) -> Any:
        asked.append(path)
        return resolve(self, path)

    monkeypatch.setattr(URLPattern, "resolve", resolve)
    site = Site(re_path(r"^(\d+)/$", Room.as_view()), path("<uuid:room>/", Room.as_view()))
    first, second, other = [find_stream(scope(url), site) for url in ("/7/", "/7/", "/8/")]
    assert first is second and first is not None and other is not None
    assert (first.args, other.args) == (("7",), ("8",))
    assert asked == ["7/", "8/"]


def test_long_paths_are_not_kept() -> None:
    site = Site(path("<path:room>/", Room.as_view()), path("events/", Room.as_view()))
    assert find_stream(scope("/events/"), site) is not None
    tracemalloc.start()
    for number in range(100):
        assert find_stream(scope(f"/{number:020000}/"), site) is not None
        assert find_stream(scope(f"/{number:020000}"), site) is None
    kept_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept_bytes < 500_000


def test_what_was_found_is_forgotten_with_django_s_caches() -> None:
    site = Site(path("events/", Room.as_view()))
    assert find_stream(scope("/events/"), site) is not None
    site.urlpatterns = [path("elsewhere/", Room.as_view())]
    clear_url_caches()
    assert find_stream(scope("/events/"), site) is None
    assert find_stream(scope("/elsewhere/"), site) is not None
