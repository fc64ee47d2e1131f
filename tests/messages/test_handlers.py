"""on_message(): which handler answers, and what its answer or its failure becomes."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import date
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, ValidationError
from django.http import Http404
from django.test import Client
from django.utils import timezone
from django.utils.translation import gettext

from django_sse_live import Message, on_message
from tests.messages.conftest import Sender


async def test_a_sync_handler_answers(sender: Sender, handle: Any) -> None:
    @handle("typing", "room.*")
    def typing(message: Message) -> Any:
        return {"on": message.channel, "got": message.data, "type": message.type, "by": message.user.is_authenticated}

    status, body = await sender.send("typing", [1, "é"], id="a" * 32, channel="room.1")
    assert (status, body["id"]) == (200, "a" * 32)
    assert body["data"] == {"on": "room.1", "got": [1, "é"], "type": "typing", "by": False}
    assert sender.response["Cache-Control"] == "no-store"


async def test_an_async_handler_answers(sender: Sender, handle: Any) -> None:
    @handle("typing")
    async def typing(message: Message) -> Any:
        return message.channel

    assert (await sender.send())[1]["data"] is None
    assert (await sender.send(channel="room.1"))[1]["data"] == "room.1"


class Adds:
    def __init__(self, added: int) -> None:
        self.added = added

    def __call__(self, message: Message) -> int:
        return int(message.data) + self.added


class AddsAsync(Adds):
    async def __call__(self, message: Message) -> int:  # type: ignore[override]
        return super().__call__(message)


@pytest.mark.parametrize("handler", [Adds(1), AddsAsync(1), partial(Adds.__call__, Adds(1)), Adds(1).__call__])
async def test_any_callable_answers(sender: Sender, handle: Any, handler: Any) -> None:
    handle("typing")(handler)
    handle("typing")(handler)
    assert (await sender.send(data=1))[1]["data"] == 2
    with pytest.raises(ImproperlyConfigured, match="two handlers"):
        handle("typing")(Adds(2))


def test_under_wsgi_too(handle: Any) -> None:
    @handle("typing")
    def typing(message: Message) -> Any:
        return {"ok": True}

    @handle("async")
    async def atyping(message: Message) -> Any:
        return {"ok": 2}

    for type, ok in (("typing", True), ("async", 2)):
        response = Client().post("/events/", {"id": "a" * 30 + type, "type": type}, "application/json")
        assert (response.status_code, response.json()["data"]) == (200, {"ok": ok})


async def test_the_answer_is_written_by_the_projects_encoder(sender: Sender, handle: Any) -> None:
    handle("typing")(lambda message: {"on": date(2026, 1, 2)})
    assert (await sender.send())[1]["data"] == {"on": "2026-01-02"}


async def test_the_longest_pattern_answers(sender: Sender, handle: Any) -> None:
    handle("typing")(lambda message: "any")
    handle("typing", "room.*")(lambda message: "rooms")
    handle("typing", "room.1")(lambda message: "one")
    channels = [None, "room.1", "room.2"]
    assert [(await sender.send(channel=channel))[1]["data"] for channel in channels] == ["any", "one", "rooms"]


def test_two_handlers_of_one_message_are_refused(handle: Any) -> None:
    handle("typing", "room.*")(len)
    with pytest.raises(ImproperlyConfigured, match="two handlers"):
        handle("typing", "room.*")(repr)


def test_a_decorator_without_its_parentheses_is_told_so() -> None:
    with pytest.raises(TypeError, match=r'write @on_message\("typing"\)'):
        on_message(len)  # type: ignore[arg-type]


@pytest.mark.parametrize("handler", [7, lambda: None, lambda message, channel: None])
def test_what_does_not_take_a_message_is_no_handler(handler: Any) -> None:
    with pytest.raises(TypeError, match=r"on_message\('typing'\) is for a function of the message"):
        on_message("typing")(handler)
    assert on_message.find("typing", None) is None


@pytest.mark.parametrize("type", ["answer", "connected", "sse.anything", "", "a\nb"])
def test_reserved_and_malformed_types_cannot_be_handled(type: str) -> None:
    with pytest.raises(ValueError):
        on_message(type)(len)


async def test_no_handler(sender: Sender, handle: Any) -> None:
    handle("typing", "room.*")(lambda message: 1)
    assert (await sender.send("other"))[0] == 404
    status, body = await sender.send("typing")  # names no channel
    assert (status, body["error"]) == (404, "no_handler")
    assert "'typing' without a channel" in body["detail"] and "live.py of an app" in body["detail"]


@pytest.mark.parametrize(
    ("raised", "answer"),
    [
        (PermissionDenied("Not your room."), (403, "forbidden", "Not your room.")),
        (PermissionDenied(), (403, "forbidden", "You may not send this.")),
        (ValidationError(["Too long.", "Too loud."]), (400, "invalid", "Too long. Too loud.")),
        (ValidationError({"text": "Too long."}), (400, "invalid", "Too long.")),
        (ValueError("No such day."), (400, "invalid", "No such day.")),
        (Http404("No room."), (404, "not_found", "No room.")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_handler_raises_on_purpose(
    sender: Sender, handle: Any, raised: Exception, answer: tuple[int, str, str], is_async: bool
) -> None:
    def fail(message: Message) -> None:
        raise raised

    async def afail(message: Message) -> None:
        raise raised

    handle("typing")(afail if is_async else fail)
    status, body = await sender.send()
    assert (status, body["error"], body["detail"]) == answer


async def test_what_a_hook_does_not_find_is_no_failure(
    sender: Sender, handle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sender.path = "/gone/"
    handle("typing")(lambda message: 1)
    status, body = await sender.send()
    assert (status, body["error"], body["detail"]) == (404, "not_found", "No such room.")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("answer", [object(), {"x": "x" * 65_536}, float("nan")], ids=["no JSON", "64 KiB", "NaN"])
async def test_an_answer_that_cannot_be_sent_is_the_handlers_failure(
    sender: Sender, handle: Any, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handle("typing")(lambda message: answer)
    assert (await sender.send())[0] == 500
    assert "'typing'" in caplog.text


async def test_every_other_failure_is_logged_and_not_told(
    sender: Sender, handle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @handle("typing")
    def typing(message: Message) -> None:
        raise KeyError("the secret")

    status, body = await sender.send()
    assert (status, body["error"]) == (500, "server_error")
    assert "secret" not in sender.response.content.decode()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "django_sse_live" and record.exc_info is not None


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_handler_that_exits_has_failed_and_its_worker_goes_on(
    sender: Sender, handle: Any, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    def leave(message: Message) -> None:
        sys.exit(3)  # as code of a command may

    async def aleave(message: Message) -> None:
        leave(message)

    handle("typing")(aleave if is_async else leave)
    for _ in range(2):
        status, body = await sender.send()
        assert (status, body["error"]) == (500, "server_error")
    assert caplog.text.count("The handler of a message 'typing' failed.") == 2


@pytest.mark.skipif(sys.version_info < (3, 11), reason="whose cancellation it is, is not known")
async def test_a_handler_that_awaits_what_it_has_cancelled_has_failed(
    sender: Sender, handle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @handle("typing")
    async def typing(message: Message) -> None:
        inner = asyncio.ensure_future(asyncio.sleep(3600))
        inner.cancel()
        await inner

    status, body = await sender.send()
    assert (status, body["error"]) == (500, "server_error")
    assert "The handler of a message 'typing' failed." in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_what_a_handler_keeps_in_the_session_is_saved_unless_it_fails(sender: Sender, handle: Any) -> None:
    """As SessionMiddleware has it for views: a refusal may count the attempts."""

    @handle("code")
    def code(message: Message) -> str:
        session = message.request.session
        session["attempts"] = session.get("attempts", 0) + 1
        if message.data == "raise":
            raise KeyError(message.data)
        if session["attempts"] < 3:
            raise ValidationError(f"Wrong: {session['attempts']}")
        return "right"

    await sender.aforce_login(await User.objects.acreate_user("ada"))
    answers = [await sender.send("code", data) for data in ("", "raise", "", "")]
    assert [body.get("detail") for _, body in answers] == ["Wrong: 1", "The server failed.", "Wrong: 2", None]
    assert (await Session.objects.aget()).get_decoded()["attempts"] == 3


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_handler_has_the_language_and_the_time_zone_that_middleware_has_chosen(
    sender: Sender, handle: Any, settings: Any, is_async: bool
) -> None:
    locale = "django.middleware.locale.LocaleMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, locale, "tests.messages.test_handlers.use_zone_of_visitor"]

    def look(message: Message) -> list[str]:
        return [gettext("Yes"), timezone.get_current_timezone_name()]

    async def alook(message: Message) -> list[str]:
        return look(message)

    handle("typing")(alook if is_async else look)
    headers = {"Accept-Language": "de", "X-Zone": "Asia/Tokyo"}
    assert (await sender.send(headers=headers))[1]["data"] == ["Ja", "Asia/Tokyo"]
    assert (await sender.send())[1]["data"] == ["Yes", settings.TIME_ZONE]
    assert timezone.get_current_timezone_name() == settings.TIME_ZONE


def use_zone_of_visitor(get_response: Any) -> Any:
    """As in Django's documentation of time zones."""

    def middleware(request: Any) -> Any:
        if zone := request.headers.get("X-Zone"):
            timezone.activate(ZoneInfo(zone))
        else:
            timezone.deactivate()
        return get_response(request)

    return middleware


async def test_the_hook_behind_the_decorator(sender: Sender, handle: Any) -> None:
    sender.path = "/hooked/"
    handle("typing")(lambda message: "decorated")
    assert (await sender.send("typing", 3))[1]["data"] == ["hooked", "decorated"]
    assert (await sender.send("mine", 3))[1]["data"] == ["mine", 3]
    assert (await sender.send("unknown"))[1]["error"] == "no_handler"
    sender.path = "/hooked/sync/"
    assert (await sender.send("mine", 3))[1]["data"] == ["sync", 3]


def test_live_modules_of_apps_are_found() -> None:
    assert on_message.find("found in testapp/live.py", None) is not None
