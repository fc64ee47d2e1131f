"""What `{% sse_live %}` draws."""

from __future__ import annotations

import gettext
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import call_command
from django.template import Context, RequestContext, Template
from django.test import RequestFactory, override_settings
from django.urls import NoReverseMatch, clear_script_prefix, set_script_prefix
from django.utils import translation

from django_sse_live import stream_position
from django_sse_live.http.refusals import Refused
from django_sse_live.http.tokens import grant

LANGUAGES = ["de", "es", "fr", "id", "pt_BR"]


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def request_by(user: Any) -> Any:
    request = RequestFactory().get("/")
    request.user = user
    return request


def draw(source: str = '{% sse_live "comments" %}', request: Any = None, **values: Any) -> Elements:
    context = RequestContext(request, values) if request else Context(values)
    return Elements(Template("{% load sse_live %}" + source).render(context))


def element(source: str = '{% sse_live "comments" %}', request: Any = None, **values: Any) -> dict[str, str]:
    (attributes,) = draw(source, request, **values).of("sse-live")
    return attributes


@pytest.fixture
def user(db: None) -> User:
    return User.objects.create_user("ada", password="secret")


def test_it_points_at_the_apps_own_stream() -> None:
    assert element()["src"] == "/events/"


def test_another_stream_can_be_named() -> None:
    assert element('{% sse_live "comments" src="/board/events/" %}')["src"] == "/board/events/"


def test_the_token_grants_the_channels() -> None:
    channels = grant([element('{% sse_live "comments" "other" %}')["token"]], None, "").channels
    assert channels == ["comments", "other"]


def test_channels_may_be_variables() -> None:
    channels = grant([element("{% sse_live name %}", name="post.7")["token"]], None, "").channels
    assert channels == ["post.7"]


def test_a_list_gives_as_many_channels() -> None:
    drawn = element('{% sse_live "comments" rooms %}', rooms=["room.1", "room.2"])
    assert grant([drawn["token"]], None, "").channels == ["comments", "room.1", "room.2"]


def test_the_token_is_bound_to_whoever_is_logged_in(user: User) -> None:
    token = element(request=request_by(user))["token"]
    assert grant([token], user, "").channels == ["comments"]
    with pytest.raises(Refused):
        grant([token], None, "")


def test_an_anonymous_visitors_token_is_bound_to_nobody() -> None:
    token = element(request=request_by(AnonymousUser()))["token"]
    assert grant([token], None, "").channels == ["comments"]


def test_without_channels_and_without_a_request_there_is_no_token() -> None:
    assert "token" not in element("{% sse_live %}")


def test_a_reserved_name_is_refused_as_users_may_have_chosen_it() -> None:
    with pytest.raises(ValueError, match="names that users choose"):
        element("{% sse_live room %}", room="sse.live")


def test_the_position_is_now_where_nothing_says_otherwise() -> None:
    before = stream_position()
    assert element()["last-event-id"] == before


def test_the_position_is_that_of_the_requests_start() -> None:
    request = request_by(AnonymousUser())
    request.scope = {"extensions": {"django_sse_live": type("Handoff", (), {"position": "abc:5-0"})()}}
    assert element(request=request)["last-event-id"] == "abc:5-0"


def test_the_view_may_hand_the_position_over() -> None:
    assert element('{% sse_live "comments" since=position %}', position="abc:7-0")["last-event-id"] == "abc:7-0"


def test_a_position_that_the_view_has_not_set_is_the_default() -> None:
    before = stream_position()
    assert element('{% sse_live "comments" since=position %}')["last-event-id"] == before


def test_the_script_comes_once_per_page() -> None:
    page = draw(
        '{% sse_live "a" %}{% sse_live "b" %}{% if 1 %}{% with x=1 %}{% sse_live "c" %}{% endwith %}{% endif %}'
    )
    assert len(page.of("sse-live")) == 3
    assert page.of("script") == [{"type": "module", "src": "/static/django_sse_live/sse-live.js"}]


def test_the_script_comes_once_with_included_templates() -> None:
    included = Template('{% load sse_live %}{% sse_live "a" %}')
    page = draw('{% include included %}{% include included only %}{% sse_live "b" %}', included=included)
    assert len(page.of("sse-live")) == 3
    assert len(page.of("script")) == 1


def test_the_next_page_has_its_own_script() -> None:
    template = Template('{% load sse_live %}{% sse_live "a" %}')
    for _ in range(2):
        assert len(Elements(template.render(Context())).of("script")) == 1


def test_nothing_is_inline() -> None:
    page = draw()
    assert all(
        "style" not in attributes and not any(name.startswith("on") for name in attributes)
        for _, attributes in page.found
    )
    assert all("src" in script for script in page.of("script"))


class Nonce(str):
    """As Django's: false until it has been used."""

    def __bool__(self) -> bool:
        return False


def test_a_nonce_of_the_page_is_used() -> None:
    (script,) = draw(csp_nonce=Nonce("r4nd0m")).of("script")
    assert script["nonce"] == "r4nd0m"


def test_what_it_draws_is_escaped() -> None:
    assert element('{% sse_live "a" src=src %}', src='/"><script>')["src"] == '/"><script>'


def test_an_element_tells_its_channels_so_that_it_is_known_from_that_of_another_page_or_fragment() -> None:
    """Both are the first of their own answer, and have the same url: a morph compares them, and a page that has both
    opens one stream for them."""
    assert [element(f'{{% sse_live "post.{number}" %}}')["channels"] for number in (1, 2)] == ["post.1", "post.2"]
    assert "channels" not in element("{% sse_live %}")


def test_tabs_share_only_if_asked() -> None:
    assert not {"share", "share-src"} & element().keys()


def test_shared_tabs_know_their_channels_and_the_file() -> None:
    attributes = element('{% sse_live "comments" "a,b" share=True %}')
    assert attributes["channels"].split("\n") == ["comments", "a,b"]
    assert attributes["share-src"] == "/static/django_sse_live/sse-live-share.js"


def test_a_second_element_knows_the_files_by_which_it_shares_the_firsts_connection() -> None:
    first, second = draw('{% sse_live %}{% sse_live "comments" %}').of("sse-live")
    assert not {"share-src", "page-src"} & first.keys()
    assert second["share-src"] == "/static/django_sse_live/sse-live-share.js"
    assert second["page-src"] == "/static/django_sse_live/sse-live-page.js"
    assert "share" not in second


def test_cookies_for_another_origin_and_lines_in_the_console_only_if_asked() -> None:
    assert not {"with-credentials", "log-events"} & element().keys()
    assert {"with-credentials", "log-events"} <= element("{% sse_live with_credentials=True log_events=True %}").keys()


def test_every_user_has_a_group_of_their_own(user: User) -> None:
    other = User.objects.create_user("bob")
    source = '{% sse_live "comments" share=True %}'
    groups = [element(source, request_by(who))["share"] for who in (user, other, AnonymousUser(), user)]
    assert groups[0] == groups[3]
    assert len(set(groups)) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", group) for group in groups)


def test_a_page_of_a_developer_says_why_nothing_is_drawn() -> None:
    request, template = request_by(AnonymousUser()), Template("{% load sse_live %}{% sse_live %}")
    assert template.render(RequestContext(request)).strip() == ""
    with override_settings(DEBUG=True):
        said = template.render(RequestContext(request)).strip()
    assert re.fullmatch(r'<!-- .*nobody is logged in.*{% sse_live "comments" %} -->', said)


def test_for_a_visitor_who_hears_nothing_it_draws_nothing(user: User) -> None:
    page = draw("{% sse_live %}", request=request_by(AnonymousUser()))
    assert page.found == []
    assert element("{% sse_live %}", request=request_by(user))["src"] == "/events/"
    assert element("{% sse_live %}{% sse_live 'a' %}", request=request_by(AnonymousUser()))["token"]
    page = draw("{% sse_live %}{% sse_live 'a' %}", request=request_by(AnonymousUser()))
    assert len(page.of("script")) == 1


@pytest.mark.urls("tests.http.urls")
@pytest.mark.parametrize(
    ("src", "is_drawn"),
    [("/events/", False), ("/news/", True), ("/async/", True), ("/elsewhere/", True), ("//other.example/e/", True)],
)
def test_a_stream_with_channels_of_its_own_is_for_every_visitor(src: str, is_drawn: bool) -> None:
    page = draw("{% sse_live src=src %}", request=request_by(AnonymousUser()), src=src)
    assert bool(page.of("sse-live")) is is_drawn


def test_below_a_script_name_too() -> None:
    set_script_prefix("/below/")
    try:
        assert draw("{% sse_live %}", request=request_by(AnonymousUser())).found == []
    finally:
        clear_script_prefix()


def test_autoescape_off_around_it_changes_nothing() -> None:
    source = "{% autoescape off %}{% sse_live name share=True %}{% endautoescape %}"
    assert element(source, name='"><script>')["channels"] == '"><script>'


def test_a_reset_may_reload() -> None:
    assert "reset" not in element()
    assert element('{% sse_live "a" reset="reload" %}')["reset"] == "reload"
    with pytest.raises(ValueError, match="reload"):
        element('{% sse_live "a" reset="no" %}')


def test_the_answer_to_a_post_is_never_loaded_again_since_that_would_send_the_form_again() -> None:
    source = '{% sse_live "a" reset="reload" %}'
    request = request_by(AnonymousUser())
    for method, reset in {"GET": "reload", "HEAD": "reload", "POST": None, "PUT": None}.items():
        request.method = method
        assert element(source, request).get("reset") == reset


def test_messages_have_a_carrier_a_queue_of_these_channels_and_the_file(user: User) -> None:
    assert not {"transport", "queue", "csrf-token", "socket-src"} & element().keys()
    attributes = element('{% sse_live "a" "b" send=True transport="auto" queue="storage" %}', request_by(user))
    assert (attributes["transport"], attributes["queue"], attributes["channels"]) == ("auto", "storage", "a\nb")
    assert attributes["csrf-token"] and attributes["socket-src"].endswith("/sse-live-socket.js")
    for option in ("transport", "queue"):
        with pytest.raises(ValueError, match=option):
            element(f'{{% sse_live "a" {option}="disk" %}}')


def test_the_position_is_kept_in_the_browser_if_asked() -> None:
    assert element('{% sse_live "comments" persist="local" %}')["persist"] == "local"
    assert "persist" not in element('{% sse_live "comments" persist=nothing %}')
    with pytest.raises(ValueError, match=r"persist=True.*local, session"):
        element('{% sse_live "comments" persist=True %}')


@pytest.mark.parametrize(
    ("given", "what"), [("", "is empty"), (["a", ["b"]], "of the type list"), (User.objects.all(), "QuerySet")]
)
def test_a_name_without_quotes_is_told_from_a_channel(given: Any, what: str) -> None:
    """The database is not asked: the test has none."""
    with pytest.raises((TypeError, ValueError), match=rf'{what}.*without quotes is a variable.*sse_live "comments"'):
        element("{% sse_live comments %}", comments=given)


@pytest.mark.urls("django.contrib.auth.urls")
@pytest.mark.parametrize("tag", ['{% sse_live "comments" %}', "{% sse_live %}"])
def test_without_the_streams_urls_it_says_which_line_is_missing(tag: str) -> None:
    with pytest.raises(NoReverseMatch, match=r'path\("events/", include\("django_sse_live.urls"\)\)'):
        element(tag)
    assert element('{% sse_live "comments" src="https://example.com/events/" %}')["src"].startswith("https:")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_words_are_in_the_pages_language(language: str) -> None:
    english = element()
    with translation.override(translation.to_language(language)):
        translated = element()
    words = [name for name in english if name.startswith("text-")]
    assert len(words) == 4
    assert all(translated[name] for name in words)
    assert translated["text-disconnected"] != english["text-disconnected"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_translations_are_up_to_date(language: str) -> None:
    """Every entry of the .po file is in the .mo file, as it stands there."""
    folder = Path(__file__).parents[2] / "django_sse_live/locale" / language / "LC_MESSAGES"
    with (folder / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    entries = re.findall(r'^msgid "(.+)"\nmsgstr "(.*)"$', (folder / "django.po").read_text(), re.MULTILINE)
    assert entries
    for message, text in entries:
        assert text, f"{message!r} is not translated"
        assert compiled.gettext(message) == text


@pytest.mark.parametrize(
    "storage",
    [
        "django.contrib.staticfiles.storage.ManifestStaticFilesStorage",
        "whitenoise.storage.CompressedManifestStaticFilesStorage",
    ],
)
def test_hashed_file_names_work(tmp_path: Path, storage: str) -> None:
    """Also where only the hashed files are kept: no module imports another by a name that is gone."""
    if storage.startswith("whitenoise"):
        pytest.importorskip("whitenoise", reason="needs whitenoise")
    with override_settings(
        STATIC_ROOT=tmp_path, STORAGES={"staticfiles": {"BACKEND": storage}}, WHITENOISE_KEEP_ONLY_HASHED_FILES=True
    ):
        call_command("collectstatic", interactive=False, verbosity=0)
        page = draw('{% sse_live %}{% sse_live "comments" share=True %}')
        second = page.of("sse-live")[1]
        files = [page.of("script")[0]["src"], second["share-src"], second["page-src"]]
        for file in files:
            assert re.search(r"\.[0-9a-f]{12}\.js$", file)
            text = (tmp_path / file.removeprefix("/static/")).read_text()
            assert not re.search(r"^import\b", text, re.MULTILINE)
