"""A POST: its form, its size, its media type, and where it may come from."""

from __future__ import annotations

import json
from http.cookies import SimpleCookie
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.middleware.csrf import get_token
from django.test import Client, RequestFactory
from django.urls import reverse

from tests.messages.conftest import Sender
from tests.visitors import Visitor

HERE = "http://testserver"


@pytest.fixture(autouse=True)
def ran(handle: Any) -> list[Any]:
    """The data of messages that were handled."""
    ran: list[Any] = []
    handle("typing")(lambda message: ran.append(message.data))
    return ran


@pytest.mark.parametrize("body", ["{", "[1", b"\xff", '{"id": NaN}', "[" * 50_000, "9" * 5000])
async def test_what_is_no_json(sender: Sender, body: str | bytes) -> None:
    status, answer = await sender.send(body=body)
    assert (status, answer["error"]) == (400, "malformed_json")


@pytest.mark.parametrize("body", ["[]", "1", "null", '"typing"'])
async def test_what_is_no_object(sender: Sender, body: str) -> None:
    assert (await sender.send(body=body))[1]["error"] == "malformed_message"


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
async def test_a_message_has_a_hundred_levels_and_no_more(sender: Sender, handle: Any, begin: str, end: str) -> None:
    handle("echo")(lambda message: message.data)

    def body(levels: int) -> str:  # two of them are the message itself, and the list of 1
        inner = begin * (levels - 2) + "[1]" + end * (levels - 2)
        return f'{{"id": "{uuid4().hex}", "type": "echo", "data": {inner}}}'

    for levels, status in ((100, 200), (101, 400), (1000, 400), (9995, 400)):
        assert (await sender.send(body=body(levels)))[0] == status, levels
    assert (await sender.send(data=1000 * [[1]]))[0] == 200


@pytest.mark.parametrize("id", ["", "short", "x" * 65, "é" * 32, "a b" * 10, 17, None, ["a"] * 20, {}])
async def test_a_malformed_id(sender: Sender, id: Any, ran: list[Any]) -> None:
    status, answer = await sender.send(body=json.dumps({"id": id, "type": "typing"}))
    assert (status, answer["error"], ran) == (400, "malformed_id", [])


@pytest.mark.parametrize("type", ["", "a\nb", "x" * 201, 17, None, [], "\ud800"])
async def test_a_malformed_type(sender: Sender, type: Any) -> None:
    assert (await sender.send(type))[1]["error"] == "malformed_type"


@pytest.mark.parametrize("channel", ["", "a\nb", "x" * 201, 17, []])
async def test_a_malformed_channel(sender: Sender, channel: Any) -> None:
    assert (await sender.send(channel=channel))[1]["error"] == "malformed_channel"


async def test_fields_that_nobody_asked_for_are_passed_over(sender: Sender, ran: list[Any]) -> None:
    assert (await sender.send(data=1, client_id={"no": "text"}, user=7, request=8))[0] == 200
    assert ran == [1]


@pytest.mark.parametrize("data", ["\ud800", "\0", {"a": [{"b": 1e400}]}, 10**30])
async def test_data_that_is_json_is_the_handlers_matter(sender: Sender, data: Any, ran: list[Any]) -> None:
    body = json.dumps({"id": uuid4().hex, "type": "typing", "data": data}).replace("Infinity", "1e400")
    assert (await sender.send(body=body))[0] == 200
    assert ran == [data]


async def test_64_kib_and_no_more(sender: Sender, ran: list[Any]) -> None:
    def body(size: int) -> str:
        start = f'{{"id":"{uuid4().hex}","type":"typing","data":"'
        return start + "x" * (size - len(start) - 2) + '"}'

    assert (await sender.send(body=body(65_536)))[0] == 200
    status, answer = await sender.send(body=body(65_537))
    assert (status, answer["error"], len(ran)) == (413, "too_large", 1)


async def test_a_body_beyond_what_django_takes_into_memory_is_refused_as_any(sender: Sender) -> None:
    assert (await sender.send(body="x" * 5_000_000))[0] == 413


@pytest.mark.parametrize("type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_other_media_types(sender: Sender, type: str, ran: list[Any]) -> None:
    status, answer = await sender.send(content_type=type)
    assert (status, answer["error"], ran) == (415, "unsupported_media_type", [])


async def test_a_charset_beside_the_media_type(sender: Sender) -> None:
    assert (await sender.send(content_type="application/json; charset=utf-8"))[0] == 200


async def test_the_page_of_the_workers_takes_none(sender: Sender, transactional_db: None, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls"
    await sender.aforce_login(await User.objects.acreate_superuser("root", password="x"))
    sender.path = reverse("admin:django_sse_live_liveconnection_stream")
    assert (await sender.send())[0] == 405


# From other sites


FOREIGN = [
    "null", "https://evil.example", "http://testserver.evil.example", "http://eviltestserver", "https://testserver",
    "http://testserver:81", "", "http://", "http://[", "file://",
]  # fmt: skip


@pytest.mark.parametrize("cookie", [None, "jwt=1", "sessionid=1"])
@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_origin_is_refused_with_and_without_cookies(
    sender: Sender, ran: list[Any], origin: str, cookie: str | None
) -> None:
    headers = {"Origin": origin, **({"Cookie": cookie} if cookie else {})}
    status, answer = await sender.send(headers=headers)
    assert (status, answer["error"], ran) == (403, "foreign_origin", [])
    assert "csrf_token" not in answer


async def test_an_origin_of_our_own_without_cookies(sender: Sender) -> None:
    assert (await sender.send(headers={"Origin": HERE}))[0] == 200


@pytest.mark.parametrize("origin", ["https://app.example.com", "https://a.b.example.org"])
async def test_trusted_origins_may_write(settings: Any, ran: list[Any], origin: str) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example.com", "https://*.example.org"]
    sender = Sender(enforce_csrf_checks=True)
    token = _give_cookie(sender)
    assert (await sender.send(headers={"Origin": origin, "X-CSRFToken": token}))[0] == 200
    assert (await sender.send(headers={"Origin": origin}))[1]["error"] == "csrf"


@pytest.mark.parametrize(
    "origin", ["http://a.example.org", "https://example.org.evil.example", "https://evilexample.org"]
)
async def test_what_only_looks_like_a_trusted_origin(sender: Sender, settings: Any, origin: str) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://*.example.org"]
    assert (await sender.send(headers={"Origin": origin}))[1]["error"] == "foreign_origin"


async def test_an_origin_that_may_read_may_write_without_cookies_alone(settings: Any, ran: list[Any]) -> None:
    settings.SSE_LIVE = {"ALLOWED_ORIGINS": ["https://app.example.com"]}
    sender = Sender(enforce_csrf_checks=True)
    headers = {"Origin": "https://app.example.com"}
    assert (await sender.send(headers=headers))[0] == 200
    assert sender.response["Access-Control-Allow-Origin"] == "https://app.example.com"
    token = _give_cookie(sender)
    status, answer = await sender.send(headers={**headers, "X-CSRFToken": token})
    assert (status, answer["error"]) == (403, "foreign_origin")


def _give_cookie(sender: Any) -> str:
    request = RequestFactory().get("/")
    token = get_token(request)
    sender.cookies["csrftoken"] = request.META["CSRF_COOKIE"]
    return token


@pytest.mark.parametrize("cookie", ["sessionid", "jwt", "theme"])
async def test_any_cookie_needs_the_csrf_token(ran: list[Any], cookie: str) -> None:
    sender = Sender(enforce_csrf_checks=True)
    sender.cookies = SimpleCookie({cookie: "1"})
    status, answer = await sender.send(headers={"Origin": HERE})
    assert (status, answer["error"], ran) == (403, "csrf", [])


@pytest.mark.parametrize("has_middleware", [True, False])
async def test_a_refusal_for_csrf_brings_a_fresh_token_that_is_good(
    settings: Any, ran: list[Any], has_middleware: bool
) -> None:
    if not has_middleware:
        settings.MIDDLEWARE = [path for path in settings.MIDDLEWARE if "csrf" not in path]
    sender = Sender(enforce_csrf_checks=True)
    sender.cookies = SimpleCookie({"jwt": "1"})
    answer = (await sender.send(5))[1]
    assert "csrftoken" in sender.response.cookies
    status, _ = await sender.send(data=5, headers={"X-CSRFToken": answer["csrf_token"], "Origin": HERE})
    assert (status, ran) == (200, [5])


async def test_the_token_in_the_session(transactional_db: None, settings: Any, ran: list[Any]) -> None:
    settings.CSRF_USE_SESSIONS = True
    sender = Sender(enforce_csrf_checks=True)
    sender.cookies = SimpleCookie({"jwt": "1"})
    answer = (await sender.send())[1]
    assert (await sender.send(headers={"X-CSRFToken": answer["csrf_token"]}))[0] == 200


async def test_the_token_is_known_where_the_site_has_another_header_for_it(settings: Any, ran: list[Any]) -> None:
    settings.CSRF_HEADER_NAME = "HTTP_X_XSRF_TOKEN"  # as Angular has it
    sender = Sender(enforce_csrf_checks=True)
    token = _give_cookie(sender)
    for name in ("X-CSRFToken", "X-XSRF-TOKEN"):
        assert (await sender.send(headers={name: token, "Origin": HERE}))[0] == 200
        assert (await sender.send(headers={name: "x" * 64, "Origin": HERE}))[1]["error"] == "csrf"
    assert len(ran) == 2


def test_csrf_under_wsgi() -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies = SimpleCookie({"jwt": "1"})
    response = client.post("/events/", {"id": uuid4().hex, "type": "typing"}, "application/json")
    assert (response.status_code, response.json()["error"]) == (403, "csrf")


async def test_the_element_has_the_token_where_the_page_sends(rf: RequestFactory) -> None:
    from django.template import engines

    request = rf.get("/")
    draw = engines["django"].from_string('{% load sse_live %}{% sse_live "room.1" send=True %}').render
    assert 'csrf-token="' in draw({}, request)
    assert request.META["CSRF_COOKIE_NEEDS_UPDATE"] is True
    request = rf.get("/")
    without = engines["django"].from_string('{% load sse_live %}{% sse_live "room.1" %}').render({}, request)
    assert "csrf" not in without and "CSRF_COOKIE" not in request.META


async def test_other_methods_say_that_a_post_is_possible() -> None:
    assert (await Visitor().ask(method="OPTIONS"))["Allow"] == "GET, HEAD, OPTIONS, POST"
