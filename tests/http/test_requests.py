"""What a request gets that opens no stream."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings

from django_sse_live.http.refusals import _warn_of_wsgi
from tests.visitors import Visitor


def error(response: Any) -> str:
    body = response.json()
    assert body.keys() == {"error", "detail"}
    assert body["detail"].endswith(".")
    assert response["SSE-Live-Error"] == body["error"]
    assert response["Cache-Control"] == "no-store"
    assert response["X-Content-Type-Options"] == "nosniff"
    return f"{response.status_code} {body['error']}"


async def test_no_channel(visitor: Visitor) -> None:
    response = await visitor.ask()
    assert error(response) == "400 no_channel"
    assert "?channel=comments" in response.json()["detail"]


@pytest.mark.parametrize(
    "channel", ["", "a%0Ab", "a%0Db", "a%00b", "a%09", "%C2%85", "x" * 201], ids=lambda channel: channel[:8] or "empty"
)
async def test_malformed_channel(visitor: Visitor, channel: str) -> None:
    assert error(await visitor.ask(f"channel={channel}")) == "400 malformed_channel"


async def test_a_malformed_channel_is_found_before_the_project_is_asked(visitor: Visitor, settings: Any) -> None:
    asked: list[str] = []
    settings.SSE_LIVE = {"AUTHORIZE": lambda request, channel: bool(asked.append(channel)) or True}
    assert error(await visitor.ask("channel=secret&channel=a%0Ab")) == "400 malformed_channel"
    assert not asked


async def test_51_channels(visitor: Visitor) -> None:
    response = await visitor.ask("&".join(f"channel=post.{n}" for n in range(51)))
    assert error(response) == "400 too_many_channels"
    assert "MAX_CHANNELS" in response.json()["detail"]


async def test_the_same_channel_51_times_is_one(visitor: Visitor) -> None:
    async with visitor.listen("&".join(["channel=news"] * 51)) as stream:
        assert (await stream.next()).json["channels"] == ["news"]


@pytest.mark.parametrize("query", ["format=xml", "format=", "format=NAMED"])
async def test_unknown_format(visitor: Visitor, query: str) -> None:
    assert error(await visitor.ask(f"channel=news&{query}")) == "400 malformed_format"


@pytest.mark.parametrize("heartbeat", ["", "soon", "-1", "0", "nan", "inf", "1e999"])
async def test_malformed_heartbeat(visitor: Visitor, heartbeat: str) -> None:
    assert error(await visitor.ask(f"channel=news&heartbeat={heartbeat}")) == "400 malformed_heartbeat"


async def test_a_query_of_100_kib(visitor: Visitor) -> None:
    assert error(await visitor.ask("channel=news&x=" + "x" * 100_000)) == "414 query_too_long"


async def test_more_parameters_than_django_takes(visitor: Visitor) -> None:
    assert error(await visitor.ask("&".join(["a=1"] * 1001))) == "400 too_many_parameters"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
async def test_other_methods_are_told_so_and_not_that_a_csrf_cookie_is_missing(method: str) -> None:
    response = await Visitor(enforce_csrf_checks=True).ask("channel=news", method)
    assert error(response) == "405 method_not_allowed"
    assert response["Allow"] == "GET, HEAD, OPTIONS, POST"


async def test_methods_that_the_view_has_for_other_purposes_are_no_requests(visitor: Visitor) -> None:
    assert error(await visitor.ask("channel=news", "DISPATCH")) == "405 method_not_allowed"


@pytest.mark.parametrize("accept", ["application/json", "text/html", "text/plain, image/*"])
async def test_an_accept_that_excludes_event_streams(visitor: Visitor, accept: str) -> None:
    assert error(await visitor.ask("channel=news", accept=accept)) == "406 not_acceptable"


@pytest.mark.parametrize("accept", ["text/event-stream", "text/event-stream;charset=utf-8", "text/*", "", None])
async def test_an_accept_that_does_not(visitor: Visitor, accept: str | None) -> None:
    response = await visitor.get("/events/?channel=news", headers={} if accept is None else {"accept": accept})
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"


async def test_head_runs_the_checks_and_ends(visitor: Visitor) -> None:
    allowed = await visitor.ask("channel=news", "HEAD")
    assert (allowed.status_code, allowed["Content-Type"], allowed.content) == (200, "text/event-stream", b"")
    denied = await visitor.ask("channel=other", "HEAD")
    assert (denied.status_code, denied["SSE-Live-Error"]) == (403, "forbidden")


async def test_options_says_what_is_possible_and_checks_nothing(visitor: Visitor) -> None:
    response = await visitor.ask("channel=other", "OPTIONS")
    assert (response.status_code, response["Allow"], response.content) == (204, "GET, HEAD, OPTIONS, POST", b"")


def test_under_wsgi_it_is_explained_and_no_worker_hangs(caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_wsgi.cache_clear()  # of other tests
    for _ in range(2):
        response = Client().get("/events/?channel=news")
        assert error(response) == "501 asgi_required"
        assert "asgi.py" in response.json()["detail"]
    (logged,) = [record.getMessage() for record in caplog.records if record.name == "django_sse_live"]
    assert "this server speaks WSGI" in logged and "uvicorn_worker.UvicornWorker" in logged


async def test_fixed_channels_that_are_one_string(visitor: Visitor) -> None:
    with pytest.raises(ImproperlyConfigured, match=r'"channels": \["comments"\]'):
        await Visitor("/wrong/").ask()


@pytest.mark.parametrize("path", ["/typed/user:1/", "/listed/user:1+news/"])
async def test_a_visitor_does_not_fix_channels_by_typing_a_url(path: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="anybody who types it would be let in"):
        await Visitor(path).ask()


async def test_reserved_channels_cannot_be_fixed(visitor: Visitor) -> None:
    with pytest.raises(ImproperlyConfigured, match="names that users choose"):
        await Visitor("/reserved/").ask()


async def test_an_initial_event_of_a_reserved_type(visitor: Visitor) -> None:
    with pytest.raises(ValueError, match="reserved"):
        await Visitor("/snapshot-reserved/").ask()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/snapshot-none/", r"get_initial_events\(\) returned None; it must return pairs"),
        ("/snapshot-wrong/", r"get_initial_events\(\) gave 'snapshot'; each event is a pair"),
        ("/named-user/", r"get_user\(\) returned a str; it must return a user, or None"),
    ],
)
async def test_a_hook_that_returns_something_else_is_told_what_is_wanted(path: str, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        await Visitor(path).ask("channel=news")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(("mode", "destination"), [("no-cors", "image"), ("no-cors", "empty"), ("navigate", "iframe")])
async def test_an_image_or_a_frame_of_another_origin_opens_no_stream(
    visitor: Visitor, site: str, mode: str, destination: str
) -> None:
    headers = {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": destination}
    assert error(await visitor.ask("channel=news", **headers)) == "403 cross_site"
    assert (await visitor.ask("channel=news", "HEAD", **headers)).status_code == 403


@pytest.mark.parametrize(
    ("site", "mode", "destination"),
    [
        ("same-origin", "cors", "empty"),  # an EventSource
        ("same-origin", "no-cors", "empty"),
        ("same-site", "cors", "empty"),  # what it may read is said by CORS
        ("cross-site", "cors", "empty"),
        ("none", "navigate", "document"),  # typed into the address bar
        ("cross-site", "navigate", "document"),  # a link
    ],
)
async def test_other_fetches_do(visitor: Visitor, site: str, mode: str, destination: str) -> None:
    headers = {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": destination}
    async with visitor.listen("channel=news", **headers) as stream:
        assert (await stream.next()).type == "connected"


@pytest.mark.parametrize("path", ["/events/status/", "/events/health/"])
async def test_a_post_is_told_405_and_not_the_csrf_page(path: str) -> None:
    response = await Visitor(path, enforce_csrf_checks=True).ask(method="POST")
    assert response.status_code == 405
    assert "GET" in response["Allow"]


@override_settings(SSE_LIVE={"PUBLIC_CHANNELS": ["news"], "MAX_CLIENTS": 0})
async def test_a_full_worker_tells_who_is_no_event_source_when_to_come_back(visitor: Visitor) -> None:
    response = await visitor.ask("channel=news")
    assert error(response) == "503 too_many_clients"
    assert 1 <= int(response["Retry-After"]) <= 10
    assert (await visitor.ask("channel=news", "HEAD", accept="text/event-stream")).status_code == 503
