"""What must not be said: tokens in logs and error reports, names of channels to those who may not see them."""

from __future__ import annotations

import logging
from typing import Any

import django
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.http import HttpRequest

from django_sse_live import abroadcast, sign_channels
from django_sse_live.log_filters import HideTokens
from tests.access.conftest import logged_in
from tests.visitors import Visitor


def fails(request: HttpRequest, channel: str) -> bool:
    raise ZeroDivisionError


async def test_no_log_line_has_a_token_in_it(visitor: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    token = sign_channels("secret")
    async with visitor.listen(f"token={token}") as stream:
        fresh = (await stream.next()).json["token"]
        await abroadcast("secret", "event", 1)
        await stream.next()
    await visitor.ask(f"token={token}x")
    await visitor.ask(f"token={token}&channel=other")
    await visitor.ask("", authorization=f"Bearer {token}x")
    assert "SSE client connected" in caplog.text
    assert "Forbidden" in caplog.text
    for tail in (token[-20:], fresh[-20:]):
        assert tail not in caplog.text


async def test_no_error_report_has_a_token_in_it(settings: Any) -> None:
    settings.SSE_LIVE = {"AUTHORIZE": fails}
    settings.ADMINS = ["admin@example.com"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.com")]
    token = sign_channels("secret")
    visitor = Visitor(raise_request_exception=False)
    response = await visitor.ask(f"channel=other&token={token}", authorization=f"Bearer {token}")
    assert response.status_code == 500
    (report,) = mail.outbox
    assert "ZeroDivisionError" in report.body
    assert "channel=other" in report.body
    assert token[-20:] not in report.body


async def test_an_event_on_several_channels_names_only_those_that_are_heard(visitor: Visitor) -> None:
    async with visitor.listen("channel=news&format=envelope") as stream:
        await stream.next()
        await abroadcast(["news", "top-secret-board-of-7"], "headline", 1)
        assert (await stream.next()).json["channels"] == ["news"]
        assert b"top-secret" not in stream.raw


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
        assert visitor.cookies["sessionid"].value not in repr([getattr(client, name) for name in ("session", "auth")])


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("%s - %s", ("1.2.3.4:5", "/events/?token=s3cret&channel=a")),
        ("HTTP %(path)s", ({"path": "/events/?channel=a&token=s3cret"},)),
        ('"GET /events/?token=s3cret HTTP/1.1" 200', ()),
        ("%d of %s", (7, "?token=s3cret&token=s3cret~2")),
    ],
)
def test_the_filter_for_access_logs_hides_tokens(message: str, args: Any) -> None:
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, message, args, None)
    assert HideTokens().filter(record)
    assert "s3cret" not in record.getMessage()
    assert "token=…" in record.getMessage()
