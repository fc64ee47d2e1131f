"""Other origins: exactly those of ALLOWED_ORIGINS, and nothing otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from django_sse_live.conf import live_settings
from django_sse_live.http.cors import own_origin
from tests.visitors import Visitor

APP = "https://app.example.com"
PHONE = "capacitor://localhost"  # of the pages in an app for iOS
CORS = "Access-Control-"


@pytest.fixture
def allowed(settings: Any) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"], "ALLOWED_ORIGINS": [APP, "http://localhost:5173", PHONE]}


def cors(response: Any) -> dict[str, str]:
    return {name.removeprefix(CORS): value for name, value in response.headers.items() if name.startswith(CORS)}


def varies_by_origin(response: Any) -> bool:
    return "Origin" in response.headers.get("Vary", "").split(", ")


@pytest.mark.usefixtures("allowed")
class TestAnOriginOnTheList:
    @pytest.mark.parametrize("origin", [APP, "http://localhost:5173", PHONE])
    async def test_may_read_the_stream_with_cookies(self, visitor: Visitor, origin: str) -> None:
        async with visitor.listen("channel=news", origin=origin) as stream:
            assert cors(stream.response) == {
                "Allow-Origin": origin,
                "Allow-Credentials": "true",
                "Expose-Headers": "Retry-After, SSE-Live-Error",
            }
            assert varies_by_origin(stream.response)

    def test_may_send_messages_to_a_server_that_speaks_wsgi(self, client: Client) -> None:
        asked = {"origin": APP, "access-control-request-method": "POST"}
        preflight = client.options("/events/", headers={**asked, "access-control-request-headers": "content-type"})
        assert preflight.status_code == 204
        assert cors(preflight)["Allow-Origin"] == APP and "Content-Type" in cors(preflight)["Allow-Headers"]
        message = {"id": "0" * 32, "type": "nobody-answers"}
        answer = client.post("/events/", message, content_type="application/json", headers={"origin": APP})
        assert answer.json()["error"] == "no_handler" and cors(answer)["Allow-Origin"] == APP

    @pytest.mark.parametrize(
        ("query", "method", "status"),
        [
            ("channel=secret", "GET", 403),
            ("channel=secret", "HEAD", 403),
            ("token=forged", "GET", 403),
            ("", "GET", 400),
            ("x=" + "x" * 40_000, "GET", 414),
            ("channel=news", "DELETE", 405),
            ("channel=news&last_event_id=a:1-0/end", "GET", 204),
            ("channel=news", "HEAD", 200),
        ],
    )
    async def test_may_read_why_it_was_refused(self, visitor: Visitor, query: str, method: str, status: int) -> None:
        response = await visitor.ask(query, method, origin=APP)
        assert response.status_code == status
        assert cors(response)["Allow-Origin"] == APP
        assert "SSE-Live-Error" in cors(response)["Expose-Headers"]

    async def test_may_send_a_bearer(self, visitor: Visitor) -> None:
        response = await visitor.ask(
            "channel=news",
            "OPTIONS",
            origin=APP,
            access_control_request_method="GET",
            access_control_request_headers="authorization",
        )
        assert response.status_code == 204
        assert cors(response) == {
            "Allow-Origin": APP,
            "Allow-Credentials": "true",
            "Allow-Methods": "GET, HEAD, POST",
            "Allow-Headers": "Authorization, Cache-Control, Content-Type, Last-Event-ID, X-CSRFToken",
            "Max-Age": "600",
        }


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "",
        "*",
        "https://evil.example",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://sub.app.example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com:443",
        "https://app.example.com/",
        "https://APP.example.com",
        f"{APP}, https://evil.example",
        f" {APP}x",
    ],
)
async def test_no_other_may_read_anything(visitor: Visitor, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    async with visitor.listen("channel=news", **headers) as stream:
        assert cors(stream.response) == {}
        assert varies_by_origin(stream.response)  # so that no cache gives it what another origin got
    preflight = await visitor.ask("channel=news", "OPTIONS", access_control_request_method="GET", **headers)
    assert cors(preflight) == {}


async def test_without_the_setting_not_a_header(visitor: Visitor) -> None:
    async with visitor.listen("channel=news", origin=APP) as stream:
        assert cors(stream.response) == {}
        assert not varies_by_origin(stream.response)
    preflight = await visitor.ask("channel=news", "OPTIONS", origin=APP, access_control_request_method="GET")
    assert cors(preflight) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        "*",
        "app.example.com",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://*.example.com",
        "https://App.example.com",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://user@app.example.com",
        "ftp://app.example.com",
        "wss://app.example.com",
        "null",
    ],
)
def test_a_setting_that_no_browser_would_ever_match_is_refused(settings: Any, wrong: str) -> None:
    settings.SSE_LIVE = {"ALLOWED_ORIGINS": [wrong]}
    with pytest.raises(ImproperlyConfigured, match="ALLOWED_ORIGINS"):
        live_settings()


@pytest.mark.parametrize("right", ["http://[::1]:8000", "http://127.0.0.1", "https://a_b.example.com:80"])
def test_those_that_browsers_write_are_not(settings: Any, right: str) -> None:
    settings.SSE_LIVE = {"ALLOWED_ORIGINS": [right]}
    assert live_settings().allowed_origins == (right,)


@pytest.mark.parametrize(
    ("host", "scheme", "origin"),
    [
        ("example.com:443", "https", "https://example.com"),  # of a proxy that sends $host:$server_port
        ("example.com:80", "http", "http://example.com"),
        ("Example.com", "http", "http://example.com"),
        ("example.com:80", "https", "https://example.com:80"),
        ("example.com:443", "http", "http://example.com:443"),
        ("example.com:8443", "https", "https://example.com:8443"),
        ("[::1]:80", "http", "http://[::1]"),
        ("[::80]", "http", "http://[::80]"),
    ],
)
def test_the_sites_own_origin_is_what_browsers_write(
    rf: Any, settings: Any, host: str, scheme: str, origin: str
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    assert own_origin(rf.get("/events/", headers={"host": host}, secure=scheme == "https")) == origin
