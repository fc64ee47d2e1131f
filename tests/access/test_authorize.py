"""Who may hear what, beyond tokens: public channels, one's own, AUTHORIZE and authorize()."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from tests.access.conftest import answer, channels, logged_in
from tests.visitors import Visitor


async def only_a(request: HttpRequest, channel: str) -> bool:
    return channel == "a"


class AsyncCallable:
    async def __call__(self, request: HttpRequest, channel: str) -> bool:
        return channel == "a"


class TestByDefault:
    async def test_nobody_hears_a_channel_that_nobody_opened(self, visitor: Visitor) -> None:
        response = await visitor.ask("channel=a")
        assert (response.status_code, response.json()["error"]) == (403, "forbidden")
        for way_in in ("sse_live", "PUBLIC_CHANNELS", "AUTHORIZE"):
            assert way_in in response.json()["detail"]

    async def test_one_denied_channel_denies_the_request_and_is_named(self, visitor: Visitor) -> None:
        response = await visitor.ask("channel=news&channel=a")
        assert response.status_code == 403
        assert "'a'" in response.json()["detail"]
        assert "news" not in response.json()["detail"]


class TestManyChannels:
    async def test_a_users_own_channel_is_not_one_of_those_that_a_stream_may_have(
        self, user: User, settings: Any
    ) -> None:
        settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["*"], "MAX_CHANNELS": 2}
        visitor = await logged_in(user)
        assert await channels(visitor, "channel=a&channel=b") == ["a", "b", f"user:{user.pk}"]
        assert await channels(visitor, f"channel=a&channel=b&channel=user:{user.pk}") == ["a", "b", f"user:{user.pk}"]
        response = await visitor.ask("channel=a&channel=b&channel=c")
        assert response.json()["detail"].startswith("3 channels were asked for; a stream may have 2.")


class TestPublicChannels:
    @pytest.mark.parametrize(
        ("patterns", "asked"),
        [
            (["news"], "*"),
            (["news"], "n*"),
            (["news"], "[n]ews"),
            (["news"], "????"),
            (["news"], "News"),
            (["news"], "news "),
            (["news"], " news"),
            (["news"], "news/../secret"),
            (["news"], "news."),
            (["post.*"], "post"),
            (["post.*"], "xpost.1"),
            (["post.?"], "post.12"),
            (["[ab]"], "[ab]"),
            ([], "news"),
        ],
    )
    async def test_what_is_not_listed(self, visitor: Visitor, settings: Any, patterns: list[str], asked: str) -> None:
        settings.SSE_LIVE = {"PUBLIC_CHANNELS": patterns}
        assert await answer(visitor, f"channel={quote(asked)}") == "403 forbidden"

    @pytest.mark.parametrize(("pattern", "asked"), [("post.*", "post.1"), ("post.*", "post.../.."), ("[ab]", "a")])
    async def test_what_is(self, visitor: Visitor, settings: Any, pattern: str, asked: str) -> None:
        settings.SSE_LIVE = {"PUBLIC_CHANNELS": [pattern]}
        assert await channels(visitor, f"channel={quote(asked)}") == [asked]


class TestUserChannels:
    """Channels that begin with ``user:`` are never public and never authorized, nor are those of the workers."""

    @pytest.mark.parametrize("setting", [{"PUBLIC_CHANNELS": ["*"]}, {"AUTHORIZE": lambda request, channel: True}])
    async def test_whatever_the_settings_say(self, visitor: Visitor, settings: Any, setting: Any) -> None:
        settings.SSE_LIVE = setting
        for asked in ("user:1", "sse.control"):
            assert await answer(visitor, f"channel={asked}") == "403 forbidden"
        assert await channels(visitor, "channel=users") == ["users"]

    async def test_not_to_another_user_either(self, user: User, other_user: User, settings: Any) -> None:
        settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["*"]}
        visitor = await logged_in(user)
        assert await channels(visitor, f"channel=user:{user.pk}") == [f"user:{user.pk}"]
        for asked in (f"user:{other_user.pk}", "user:", "user:0", f"user:{user.pk}x", f"user:0{user.pk}", "user:*"):
            assert await answer(visitor, f"channel={asked}") == "403 forbidden"


class TestAuthorize:
    @pytest.mark.parametrize(
        "authorize",
        [
            lambda request, channel: channel == "a",
            only_a,
            AsyncCallable(),
            lambda request, channel: only_a(request, channel),
            "tests.access.test_authorize.only_a",
        ],
        ids=["sync", "async", "async callable", "sync that gives a coroutine", "dotted path"],
    )
    async def test_of_every_kind(self, visitor: Visitor, settings: Any, authorize: Any) -> None:
        settings.SSE_LIVE = {"AUTHORIZE": authorize}
        assert await channels(visitor, "channel=a") == ["a"]
        assert await answer(visitor, "channel=b") == "403 forbidden"

    async def test_it_is_asked_about_each_channel_that_nothing_else_has_granted(
        self, visitor: Visitor, settings: Any
    ) -> None:
        asked: list[str] = []

        def authorize(request: HttpRequest, channel: str) -> bool:
            asked.append(channel)
            return True

        settings.SSE_LIVE = {"AUTHORIZE": authorize, "PUBLIC_CHANNELS": ["news"]}
        assert await channels(visitor, "channel=a&channel=news&channel=b&channel=a") == ["a", "news", "b"]
        assert asked == ["a", "b"]

    @pytest.mark.parametrize("path", ["/staff/", "/staff-async/"])
    async def test_the_views_own_method(self, user: User, other_user: User, path: str) -> None:
        other_user.is_staff = True
        await other_user.asave()
        assert "staff" in await channels(await logged_in(other_user, path), "channel=staff")
        assert await answer(await logged_in(user, path), "channel=staff") == "403 forbidden"
        assert await answer(Visitor(path), "channel=staff") == "403 forbidden"

    async def test_permission_denied_is_a_no(self) -> None:
        assert await answer(Visitor("/refuses/"), "channel=a") == "403 forbidden"

    async def test_permission_denied_elsewhere_is_a_403_too(self) -> None:
        response = await Visitor("/nobody/").ask("channel=news")
        assert (response.status_code, response.json()["detail"]) == (403, "Closed on Sundays.")


class TestErrors:
    """Whatever goes wrong: 500, logged, and nobody is let in."""

    @pytest.mark.parametrize(
        "answer",
        ["yes", 1, object(), [True], lambda: True],
        ids=["str", "int", "object", "list", "function"],
    )
    async def test_an_answer_that_is_no_answer(self, settings: Any, answer: Any) -> None:
        settings.SSE_LIVE = {"AUTHORIZE": lambda request, channel: answer}
        with pytest.raises(TypeError, match=r'SSE_LIVE\["AUTHORIZE"\] must return True or False'):
            await Visitor().ask("channel=a")

    async def test_no_answer_is_a_no(self, visitor: Visitor, settings: Any) -> None:
        settings.SSE_LIVE = {"AUTHORIZE": lambda request, channel: None}
        assert await answer(visitor, "channel=a") == "403 forbidden"

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_an_exception(self, settings: Any, caplog: pytest.LogCaptureFixture, method: str) -> None:
        def authorize(request: HttpRequest, channel: str) -> bool:
            raise ZeroDivisionError("no database today")

        settings.SSE_LIVE = {"AUTHORIZE": authorize}
        visitor = Visitor(raise_request_exception=False)
        response = await visitor.ask("channel=a", method)
        assert response.status_code == 500
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "/events/" in record.getMessage()
        assert record.exc_info is not None

    async def test_an_exception_that_django_takes_for_a_denial(self, settings: Any, visitor: Visitor) -> None:
        def authorize(request: HttpRequest, channel: str) -> bool:
            raise PermissionDenied

        settings.SSE_LIVE = {"AUTHORIZE": authorize}
        assert await answer(visitor, "channel=a") == "403 forbidden"


class TestOnesOwnAuthentication:
    async def test_get_user_decides_whose_stream_it_is(self, user: User, other_user: User) -> None:
        visitor = await logged_in(other_user, "/by-header/")
        assert await channels(visitor, "channel=of.ada", x_user="ada") == ["of.ada", f"user:{user.pk}"]
        assert await answer(visitor, "channel=of.bob", x_user="ada") == "403 forbidden"

    async def test_where_it_finds_nobody_the_session_does_not_count(self, other_user: User) -> None:
        visitor = await logged_in(other_user, "/by-header/")
        assert await answer(visitor, "") == "400 no_channel"
        assert await channels(visitor, "channel=of.AnonymousUser") == ["of.AnonymousUser"]
