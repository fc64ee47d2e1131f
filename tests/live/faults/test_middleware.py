"""Behind Django's middleware, all of it and more, sync and async: nothing is buffered, and cookies arrive."""

from __future__ import annotations

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import Crowd

STOCK = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
GZIP = "django.middleware.gzip.GZipMiddleware"
DJANGO_ALONE = "tests.live.project.asgi:django_application"


@pytest.mark.parametrize("app", ["live_application", "django_alone"])
@pytest.mark.parametrize("cookies", ["leave_cookies", "aleave_cookies"], ids=["sync", "async"])
@pytest.mark.parametrize("gzip", ["outside", "inside"])
async def test_the_stream_flows_and_cookies_arrive(
    start_server: StartServer, app: str, cookies: str, gzip: str
) -> None:
    leave = f"tests.live.project.middleware.{cookies}"
    middleware = [GZIP, *STOCK, leave] if gzip == "outside" else [*STOCK, leave, GZIP]
    options = {"app": DJANGO_ALONE} if app == "django_alone" else {}
    server = await start_server("uvicorn", middleware=middleware, **options)
    headers = {"Accept-Encoding": "gzip, br", "Accept-Language": "de", "If-None-Match": '"x"'}
    crowd = await Crowd.open(server, 3, headers=headers, keep=True)
    for number in range(1, 6):  # one by one: each arrives before the next is sent
        await server.get(f"/publish/?from={number}")
        await crowd.all(lambda client, number=number: list(client.numbers) == list(range(1, number + 1)))
    for client in crowd:
        assert client.status == 200
        assert "content-encoding" not in client.headers
        assert "etag" not in client.headers
        assert client.headers["set-cookie"].count("sessionid=") == 1
        assert "django_language=de" in client.headers["set-cookie"]
        assert client.body.startswith("retry: 2000\n")
    # Nothing of a request is left but its stream: no thread for each.
    assert (await server.state())["threads"] < 12
    assert server.noise() == []
