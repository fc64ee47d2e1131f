"""What must not be said: tokens in logs and error reports, names of channels to those who may not see them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import django
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.utils.log import AdminEmailHandler

from django_sse_live import abroadcast, sign_channels
from django_sse_live.backends import running_hub
from django_sse_live.log_filters import HideTokens
from tests.access.conftest import logged_in
from tests.visitors import Visitor


def fails(*_: Any) -> bool:
    raise ZeroDivisionError


class WithAttributes(logging.Formatter):
    """As logs in JSON are written: with a record's attributes, such as the request of a refusal."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{super().format(record)} {vars(record)!r}"


async def test_no_log_line_has_a_token_in_it(
    visitor: Visitor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(caplog.handler, "formatter", WithAttributes())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    token = sign_channels("secret")
    async with visitor.listen(f"token={token}") as stream:
        fresh = (await stream.next()).json["token"]
        await abroadcast("secret", "event", 1)
        await stream.next()
    await visitor.ask(f"token={token}x")
    await visitor.ask(f"token={token}&channel=other")
    await visitor.ask(f"token={token}&heartbeat=never")
    await visitor.ask(f"token={token}" + "&a=1" * 1001)
    await visitor.ask(f"token={token}", "DELETE")
    await visitor.ask("", authorization=f"Bearer {token}x")
    sender = Visitor(enforce_csrf_checks=True)
    await sender.post(f"/events/?token={token}", {}, content_type="application/json")
    sender.cookies["any"] = "cookie"
    await sender.post(f"/events/?token={token}", {}, content_type="application/json")
    await Visitor("/members/").ask(f"token={token}")
    assert "SSE client connected" in caplog.text
    assert "Forbidden" in caplog.text
    assert "DELETE '/events/?token=hidden'" in caplog.text and "(CSRF cookie not set.)" in caplog.text
    for tail in (token[-20:], fresh[-20:]):
        assert tail not in caplog.text


BEGINNING = re.compile(r"\beyJ|\.eJ")  # of every token: JSON in base64, compressed or not
ADMINS = ["admin@example.com"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.com")]


@pytest.fixture
def reports(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What has been mailed to ADMINS: as text, and as the page with every variable of every frame."""
    settings.ADMINS = ADMINS
    for handler in logging.getLogger("django").handlers:
        if isinstance(handler, AdminEmailHandler):
            monkeypatch.setattr(handler, "include_html", True)
    return lambda: [str(part) for mailed in mail.outbox for part in (mailed.body, mailed.alternatives)]


@pytest.mark.parametrize("where", ["authorize", "auth_hash"])
async def test_no_error_report_has_a_token_in_it(
    user: User, settings: Any, reports: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    settings.SSE_LIVE = {"AUTHORIZE": fails}
    token = sign_channels("secret", user=user)
    assert BEGINNING.match(token)
    if where == "auth_hash":  # the project's code too, where its user model has one of its own
        monkeypatch.setattr("django_sse_live.http.tokens.auth_digests", fails)
    visitor = await logged_in(user, raise_request_exception=False)
    response = await visitor.ask(f"channel=other&token={token}", authorization=f"Bearer {token}")
    assert response.status_code == 500
    body, page = reports()
    assert "ZeroDivisionError" in body and "channel=other" in body and "fails" in page
    assert not BEGINNING.search(body) and not BEGINNING.search(page), "neither what it brought, nor a fresh one"


@pytest.mark.parametrize("path", ["/fails-to-set-up/", "/fails-its-test/"])
async def test_nor_has_one_of_what_runs_before_the_view(user: User, reports: Any, path: str) -> None:
    visitor = await logged_in(user, path, raise_request_exception=False)
    assert (await visitor.ask(f"token={sign_channels('secret')}&ticket=eyJ")).status_code == 500
    body, page = reports()
    assert "ZeroDivisionError" in body and "token=hidden" in body
    assert not BEGINNING.search(body) and not BEGINNING.search(page)


@pytest.mark.parametrize(
    ("method", "accept"), [("GET", "*/*"), ("GET", "application/json, */*"), ("HEAD", "text/event-stream")]
)
async def test_a_full_worker_is_an_answer_and_no_error(settings: Any, reports: Any, method: str, accept: str) -> None:
    settings.SSE_LIVE = {"MAX_CLIENTS": 0}
    token = sign_channels("secret")
    response = await Visitor().ask(f"token={token}", method, accept=accept)
    assert response.status_code == 503
    assert not reports()


def test_nor_is_a_worker_that_speaks_wsgi(client: Client, reports: Any) -> None:
    for path in ("/events/", "/events/health/", "/events/status/"):
        assert client.get(path, {"token": sign_channels("secret")}).status_code == (403 if "status" in path else 501)
    assert not reports()


async def test_nor_is_a_worker_that_shuts_down(visitor: Visitor, reports: Any) -> None:
    hub = running_hub()
    hub.shut_down()
    assert (await visitor.get(f"/events/health/?token={sign_channels('secret')}")).status_code == 503
    assert not reports()


async def test_where_a_refusal_is_logged_all_the_same_it_has_no_token(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """By some middleware that looks at statuses itself."""
    settings.SSE_LIVE = {"MAX_CLIENTS": 0}
    settings.MIDDLEWARE = ["tests.access.middleware.LogsFailures", *settings.MIDDLEWARE]
    token = sign_channels("secret")
    await Visitor().ask(f"token={token}", accept="*/*")
    assert "/events/?token=hidden" in caplog.text and token[-20:] not in caplog.text


@pytest.mark.parametrize("query", ["channel=nothing", "token={forged}", "token={of_another}"])
async def test_a_refusal_names_no_channel_that_was_not_asked_for(user: User, other_user: User, query: str) -> None:
    token = sign_channels("top-secret", user=other_user)
    response = await (await logged_in(user)).ask(query.format(forged=f"x{token}", of_another=token))
    assert response.status_code == 403
    assert b"top-secret" not in response.content


async def test_a_refusal_is_no_page(visitor: Visitor) -> None:
    response = await visitor.ask("channel=<script>alert(1)</script>")
    assert response["Content-Type"] == "application/json"
    assert response["X-Content-Type-Options"] == "nosniff"


async def test_the_session_key_is_not_kept(user: User) -> None:
    from django_sse_live.backends import running_hub

    visitor = await logged_in(user)
    async with visitor.listen() as stream:
        await stream.next()
        (client,) = running_hub().clients
        assert client.session
        assert visitor.cookies["sessionid"].value not in repr(client.info)


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("%s - %s", ("1.2.3.4:5", "/events/?token=s3cret&channel=a")),
        ("HTTP %(path)s", ({"path": "/events/?channel=a&token=s3cret"},)),
        ('"GET /events/?token=s3cret HTTP/1.1" 200', ()),
        ("%d of %s", (7, "?token=s3cret&token=s3cret~2")),
        ('"GET /events/" "%(q)s"', ({"q": "token=s3cret&ticket=s3cret"},)),  # the query alone
    ],
)
def test_the_filter_for_access_logs_hides_tokens(message: str, args: Any) -> None:
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, message, args, None)
    assert HideTokens().filter(record)
    assert "s3cret" not in record.getMessage()
    assert "token=…" in record.getMessage()


class Atoms(dict[str, str]):
    """What Gunicorn and Hypercorn give an access log: names in any case, and a dash for what a request has not."""

    def __getitem__(self, name: str) -> str:
        return self.get(name.lower(), "-")


@pytest.mark.parametrize("query", ["token=s3cret", "channel=a"])
def test_the_filter_leaves_an_access_log_its_own_way_to_look_a_value_up(query: str) -> None:
    atoms = Atoms({"q": query, "{x-forwarded-for}i": "1.2.3.4"})
    message = "%({X-Forwarded-For}i)s %({Referer}i)s %(q)s"
    record = logging.LogRecord("hypercorn.access", logging.INFO, "", 0, message, (atoms,), None)
    assert HideTokens().filter(record)
    assert record.getMessage() == f"1.2.3.4 - {query.replace('s3cret', '…')}"
    assert atoms["q"] == query, "it is the server's own"
