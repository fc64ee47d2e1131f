"""Settings that many sites have, each tried once with a logged-in user's stream: with live_application and without."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.db import connections
from django.http import HttpRequest
from django.test import AsyncClient, AsyncRequestFactory
from django.urls import clear_script_prefix, include, path

from django_sse_live.asgi import live_application
from django_sse_live.http.views import EventStreamView
from tests.event_stream import EventStreamParser, Message
from tests.live.harness import until

LOCALE = "django.middleware.locale.LocaleMiddleware"
APPLICATIONS = {"live": lambda: live_application(get_asgi_application()), "plain": get_asgi_application}


def authorize(request: HttpRequest, channel: str) -> bool:
    return User.objects.filter(pk=request.user.pk).exists()


class Room(EventStreamView):
    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return await super().dispatch(request, *args, **kwargs)


urlpatterns = [
    path("events/", include("django_sse_live.urls")),
    path("room/", Room.as_view()),
]


@pytest.fixture(autouse=True)
def site(settings: Any, transactional_db: None) -> None:
    settings.ROOT_URLCONF = "tests.http.test_settings_matrix"
    settings.SSE_LIVE = {"AUTHORIZE": authorize, "STATUS_TOKEN": "a token of the status page"}
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


@pytest.fixture(params=sorted(APPLICATIONS))
def application(request: pytest.FixtureRequest) -> Any:
    """Made in the test: middleware is loaded then."""
    return APPLICATIONS[request.param]


async def log_in() -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(await User.objects.acreate_user("ada"))
    return client


class Answer:
    """Of an ASGI application, as it comes."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.messages: list[Message] = []
        self._parser = EventStreamParser()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self.messages += self._parser.feed(message.get("body", b""))


@asynccontextmanager
async def request(
    application: Any, url: str = "/events/", client: AsyncClient | None = None, headers: Any = (), **scope: Any
) -> AsyncIterator[Answer]:
    """An answer that has begun; a stream goes on until the block is left."""
    cookie = "" if client is None else "; ".join(f"{key}={morsel.value}" for key, morsel in client.cookies.items())
    given = AsyncRequestFactory()._base_scope(method="GET", path=url, query_string=b"channel=room", **scope)
    given["headers"] = [
        *[(b"host", b"testserver"), (b"accept", b"text/event-stream"), (b"cookie", cookie.encode())],
        *headers,
    ]
    messages: asyncio.Queue[Any] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    answer = Answer()
    task = asyncio.ensure_future(application(given, messages.get, answer.send))
    await until(lambda: answer.messages or task.done())
    yield answer
    messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(task, 60)


async def assert_opens(application: Any, client: AsyncClient | None = None, **options: Any) -> Answer:
    if client is None:
        client = await log_in()
    user = await User.objects.aget()
    async with request(application(), client=client, **options) as answer:
        assert (answer.status, answer.body if answer.status != 200 else b"") == (200, b"")
        assert answer.messages[0].json["channels"] == ["room", f"user:{user.pk}"]
        assert answer.headers["content-type"] == "text/event-stream"
    return answer


@pytest.mark.parametrize("alias", ["default", "other"])
@pytest.mark.parametrize("url", ["/events/", "/room/"])
async def test_atomic_requests(application: Any, monkeypatch: pytest.MonkeyPatch, alias: str, url: str) -> None:
    monkeypatch.setitem(connections.settings[alias], "ATOMIC_REQUESTS", True)
    await assert_opens(application, url=url)


@pytest.mark.parametrize("url", ["/events/health/", "/events/status/"])
async def test_atomic_requests_and_the_pages_for_operators(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    headers = [(b"authorization", b"Bearer a token of the status page")]
    async with request(get_asgi_application(), url, headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("options", [{"CONN_MAX_AGE": 600}, {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}])
async def test_connections_that_stay_open(application: Any, monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    for name, value in options.items():
        monkeypatch.setitem(connections.settings["default"], name, value)
    await assert_opens(application)


@pytest.mark.parametrize(
    "overrides",
    [
        {"USE_TZ": False},
        {"USE_I18N": False},
        {"APPEND_SLASH": False},
        {"SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"},
        {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"},
        {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"},
        {"SESSION_SAVE_EVERY_REQUEST": True},
        {"MESSAGE_STORAGE": "django.contrib.messages.storage.session.SessionStorage"},
        {"MESSAGE_STORAGE": "django.contrib.messages.storage.cookie.CookieStorage"},
        {"CSRF_USE_SESSIONS": True},
        {"SECURE_HSTS_SECONDS": 60, "SECURE_HSTS_PRELOAD": True, "SECURE_HSTS_INCLUDE_SUBDOMAINS": True},
        {"SECURE_CROSS_ORIGIN_OPENER_POLICY": None, "SECURE_REFERRER_POLICY": "no-referrer"},
        {"SECURE_CONTENT_TYPE_NOSNIFF": False, "X_FRAME_OPTIONS": "SAMEORIGIN"},
        {"SESSION_COOKIE_SECURE": True, "CSRF_COOKIE_SECURE": True, "SESSION_COOKIE_SAMESITE": "Strict"},
    ],
    ids=lambda overrides: "-".join(overrides) + "-" + str(next(iter(overrides.values()))).rpartition(".")[2],
)
async def test_a_setting(application: Any, settings: Any, overrides: dict[str, Any]) -> None:
    for name, value in overrides.items():
        setattr(settings, name, value)
    await assert_opens(application)


async def test_locale_middleware(application: Any, settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, LOCALE]
    answer = await assert_opens(application, headers=[(b"accept-language", b"de")])
    assert answer.headers["content-language"] == "de"


async def test_append_slash_answers_with_the_right_url(application: Any) -> None:
    async with request(application(), "/events") as answer:
        assert (answer.status, answer.headers["location"]) == (301, "/events/?channel=room")


async def test_force_script_name(application: Any, settings: Any) -> None:
    settings.FORCE_SCRIPT_NAME = "/app"
    try:
        await assert_opens(application, url="/app/events/")
        await assert_opens(application, client=(await relogin()), url="/events/")  # a proxy that strips it
    finally:
        clear_script_prefix()


async def relogin() -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(await User.objects.aget())
    return client


async def test_ssl_redirect(application: Any, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    async with request(application()) as answer:
        assert answer.status == 301
    await assert_opens(application, headers=[(b"x-forwarded-proto", b"https")])


@pytest.mark.parametrize("storage", ["session.SessionStorage", "cookie.CookieStorage", "fallback.FallbackStorage"])
async def test_a_stream_leaves_the_messages_of_a_page_alone(application: Any, settings: Any, storage: str) -> None:
    settings.MESSAGE_STORAGE = f"django.contrib.messages.storage.{storage}"
    answer = await assert_opens(application, headers=[])
    assert "messages" not in answer.headers.get("set-cookie", "")


UUID_SITE = """
import asyncio, json, uuid
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x" * 50, ALLOWED_HOSTS=["*"], USE_TZ=True, ROOT_URLCONF="django_sse_live.urls",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django_sse_live",
                    "tests.http.uuid_users"],
    AUTH_USER_MODEL="uuid_users.Person",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:people?mode=memory&cache=shared"}},
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
)
django.setup()
from django.core.management import call_command
from django.contrib.auth import get_user_model
from django.test import AsyncClient
from django_sse_live import asend_to_user, sign_channels

async def main():
    user = await get_user_model().objects.acreate(id=uuid.UUID(int=7))
    client = AsyncClient()
    await client.aforce_login(user)
    token = sign_channels("room", user=user)
    response = await client.get("/", {"token": token}, headers={"accept": "text/event-stream"})
    assert response.status_code == 200, response.content
    chunks = aiter(response)
    first = (await anext(chunks)).decode()
    await asend_to_user(user, "hello", 1)
    print(json.dumps([first, (await anext(chunks)).decode()]))

call_command("migrate", run_syncdb=True, verbosity=0)
asyncio.run(main())
"""


def test_a_user_model_of_one_s_own_with_a_uuid() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-c", UUID_SITE], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert '"user:00000000-0000-0000-0000-000000000007"' in first and '"room"' in first
    assert "event: hello" in second
