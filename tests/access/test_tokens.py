"""Signed subscriptions: what opens a stream, and everything that does not."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core import signing
from django.test import override_settings

from django_sse_live import sign_channels
from django_sse_live.http import tokens
from tests.access.conftest import answer, channels, logged_in
from tests.visitors import Visitor


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Move the clock by which tokens expire so many seconds past the test's beginning, and stop it there."""
    begun = round(time.time())

    def move(seconds: float) -> None:
        monkeypatch.setattr(tokens, "time", SimpleNamespace(time=lambda: begun + seconds))

    move(0)

    return move


async def test_a_token_opens_its_channels(visitor: Visitor) -> None:
    assert await channels(visitor, f"token={sign_channels(['a', 'user:9'])}") == ["a", "user:9"]


async def test_several_tokens_open_all_of_theirs(visitor: Visitor) -> None:
    query = f"token={sign_channels('a')}&token={sign_channels(['b', 'a'])}&channel=news"
    assert await channels(visitor, query) == ["news", "a", "b"]


def test_a_token_needs_no_escape_in_a_url_or_a_bearer_header() -> None:
    token = sign_channels(["ä b", "c:d", "x" * 200])
    assert quote(token, safe="") == token
    assert re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token)  # RFC 6750, section 2.1: b64token


class TestSigning:
    @pytest.mark.parametrize("wrong", [[], "", ["a\nb"], "x" * 201])
    def test_of_what_is_no_channel(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match="channel"):
            sign_channels(wrong)

    @pytest.mark.parametrize("reserved", ["sse.live", "sse.control", "sse.job.1", "sse."])
    def test_of_what_workers_tell_each_other(self, reserved: str) -> None:
        with pytest.raises(ValueError, match="belong to django-sse-live"):
            sign_channels(["comments", reserved])

    def test_of_what_is_no_text(self) -> None:
        with pytest.raises(TypeError, match="must be a str, not int"):
            sign_channels([7])

    @pytest.mark.parametrize("max_age", [0, -1])
    def test_for_no_time(self, max_age: float) -> None:
        with pytest.raises(ValueError, match="max_age"):
            sign_channels("a", max_age=max_age)

    @pytest.mark.parametrize("max_age", ["1h", timedelta(hours=1), True])
    def test_for_what_is_no_number_of_seconds(self, max_age: Any) -> None:
        with pytest.raises(TypeError, match="number of seconds, such as 3600"):
            sign_channels("a", max_age=max_age)

    def test_for_a_user_who_is_not_saved(self) -> None:
        with pytest.raises(ValueError, match="saved user"):
            sign_channels("a", user=User(username="new"))

    @pytest.mark.parametrize("key", [7, "7"])
    def test_for_a_key_which_has_no_password_to_be_bound_to(self, key: Any) -> None:
        with pytest.raises(TypeError, match="pass the user itself"):
            sign_channels("a", user=key)


class TestExpiry:
    async def test_an_expired_token_is_refused_with_a_reason_that_head_shows(
        self, visitor: Visitor, later: Any
    ) -> None:
        token = sign_channels("a", max_age=60)
        later(59)
        assert await channels(visitor, f"token={token}") == ["a"]
        later(60)
        assert await answer(visitor, f"token={token}") == "403 token_expired"
        assert await answer(visitor, f"token={token}", "HEAD") == "403 token_expired"

    async def test_token_max_age_seconds_is_the_usual_life(self, visitor: Visitor, settings: Any, later: Any) -> None:
        settings.SSE_LIVE = {"TOKEN_MAX_AGE_SECONDS": 10}
        token = sign_channels("a")
        later(9)
        assert await channels(visitor, f"token={token}") == ["a"]
        later(10)
        assert await answer(visitor, f"token={token}") == "403 token_expired"

    async def test_connected_brings_a_fresh_one_of_the_same_life(self, visitor: Visitor, later: Any) -> None:
        token = sign_channels("a", max_age=60)
        later(50)
        async with visitor.listen(f"token={token}") as stream:
            fresh = (await stream.next()).json["token"]
        later(100)
        assert await channels(visitor, f"token={fresh}") == ["a"]
        later(110)
        assert await answer(visitor, f"token={fresh}") == "403 token_expired"

    async def test_a_fresh_one_for_several_lives_as_long_as_the_shortest(self, visitor: Visitor, later: Any) -> None:
        query = f"token={sign_channels('a', max_age=60)}&token={sign_channels('b', max_age=600)}"
        async with visitor.listen(query) as stream:
            fresh = (await stream.next()).json["token"]
        assert await channels(visitor, f"token={fresh}") == ["a", "b"]
        later(61)
        assert await answer(visitor, f"token={fresh}") == "403 token_expired"

    async def test_several_bring_one_for_all_and_one_for_each(self, visitor: Visitor, later: Any) -> None:
        query = f"token={sign_channels('a', max_age=60)}&token={sign_channels(['b', 'c'], max_age=600)}"
        later(50)
        async with visitor.listen(query) as stream:
            connected = (await stream.next()).json
        first, second = connected["tokens"]
        assert await channels(visitor, f"token={connected['token']}") == ["a", "b", "c"]
        later(105)
        assert await channels(visitor, f"token={first}") == ["a"]
        later(640)
        assert await answer(visitor, f"token={first}") == "403 token_expired"
        assert await channels(visitor, f"token={second}") == ["b", "c"]

    async def test_a_stream_takes_as_many_as_it_may_have_channels(self, visitor: Visitor, settings: Any) -> None:
        """Not as many as its url is long: each costs time."""
        settings.SSE_LIVE = {"MAX_CHANNELS": 3}
        tokens = [f"token={sign_channels('a')}" for _ in range(4)]
        assert await channels(visitor, "&".join(tokens[:3])) == ["a"]
        assert await answer(visitor, "&".join(tokens)) == "400 too_many_channels"

    async def test_one_brings_one(self, visitor: Visitor) -> None:
        async with visitor.listen(f"token={sign_channels('a')}") as stream:
            assert "tokens" not in (await stream.next()).json


class TestKeys:
    async def test_a_token_of_a_rotated_key_works_as_long_as_the_key_is_a_fallback(self, visitor: Visitor) -> None:
        with override_settings(SECRET_KEY="old"):
            token = sign_channels("a")
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            async with visitor.listen(f"token={token}") as stream:
                fresh = (await stream.next()).json["token"]
        with override_settings(SECRET_KEY="new"):
            assert await answer(visitor, f"token={token}") == "403 token_invalid"
            assert await channels(visitor, f"token={fresh}") == ["a"]

    async def test_a_users_token_outlives_a_rotation_too(self, user: User) -> None:
        with override_settings(SECRET_KEY="old"):
            token = sign_channels("a", user=user)
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            assert await channels(await logged_in(user), f"token={token}") == ["a", f"user:{user.pk}"]

    @pytest.mark.parametrize(
        "forge",
        [
            lambda claims: signing.dumps(claims),
            lambda claims: signing.dumps(claims, salt="django_sse_live.token"),
            lambda claims: signing.Signer(sep="~").sign_object(claims),
            lambda claims: signing.Signer(key="guess", salt="django_sse_live.token", sep="~").sign_object(claims),
            lambda claims: signing.Signer(salt="django_sse_live.token", sep="~").sign_object(claims).split("~")[0],
            lambda claims: signing.Signer(salt="django_sse_live.token", sep="~").sign_object(claims)[:-1],
            lambda claims: "A" + signing.Signer(salt="django_sse_live.token", sep="~").sign_object(claims),
            lambda claims: "." + signing.Signer(salt="django_sse_live.token", sep="~").sign_object(claims),
            lambda claims: "",
            lambda claims: "~",
            lambda claims: "\x00~\ud7ff",
        ],
    )
    async def test_forged_and_truncated_ones_are_refused(self, visitor: Visitor, forge: Any) -> None:
        token = forge({"c": ["a"], "e": time.time() + 60, "a": 60})
        assert await answer(visitor, f"token={quote(token)}") == "403 token_invalid"

    async def test_one_bad_token_spoils_the_request(self, visitor: Visitor) -> None:
        good = sign_channels("a")
        assert await answer(visitor, f"token={good}&token={good[:-1]}") == "403 token_invalid"


class TestBoundToAUser:
    async def test_for_that_user_alone(self, user: User, other_user: User, visitor: Visitor) -> None:
        query = f"token={sign_channels('a', user=user)}"
        assert await channels(await logged_in(user), query) == ["a", f"user:{user.pk}"]
        assert await answer(await logged_in(other_user), query) == "403 token_of_another_user"
        assert await answer(visitor, query) == "403 token_of_another_user"

    async def test_replayed_as_a_bearer_it_still_needs_its_user(self, user: User, visitor: Visitor) -> None:
        token = sign_channels("a", user=user)
        assert await answer(visitor, "", authorization=f"Bearer {token}") == "403 token_of_another_user"

    async def test_a_fresh_one_is_bound_to_the_same(self, user: User, visitor: Visitor) -> None:
        async with (await logged_in(user)).listen(f"token={sign_channels('a', user=user)}") as stream:
            fresh = (await stream.next()).json["token"]
        assert await answer(visitor, f"token={fresh}") == "403 token_of_another_user"

    async def test_beside_one_that_is_bound_to_nobody_both_become_the_users(self, user: User, visitor: Visitor) -> None:
        query = f"token={sign_channels('a', user=user)}&token={sign_channels('b')}"
        async with (await logged_in(user)).listen(query) as stream:
            fresh = (await stream.next()).json["token"]
        assert await answer(visitor, f"token={fresh}") == "403 token_of_another_user"

    async def test_it_ends_with_the_password(self, user: User) -> None:
        token = sign_channels("a", user=user)
        user.set_password("another")
        await user.asave()
        response = await (await logged_in(user)).ask(f"token={token}")
        assert response["SSE-Live-Error"] == "token_of_another_user"
        assert "password" in response.json()["detail"]

    async def test_it_ends_with_the_session(self, user: User) -> None:
        visitor = await logged_in(user)
        await sync_to_async(visitor.logout)()
        assert await answer(visitor, f"token={sign_channels('a', user=user)}") == "403 token_of_another_user"


class TestBearer:
    """For clients that can send a header: no token in a url."""

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER  "])
    async def test_a_token_in_the_header(self, visitor: Visitor, scheme: str) -> None:
        assert await channels(visitor, authorization=f"{scheme} {sign_channels('a')}") == ["a"]

    async def test_beside_one_in_the_url(self, visitor: Visitor) -> None:
        query = f"token={sign_channels('a')}"
        assert await channels(visitor, query, authorization=f"Bearer {sign_channels('b')}") == ["a", "b"]

    async def test_forged(self, visitor: Visitor) -> None:
        token = sign_channels("a")[:-1]
        assert await answer(visitor, "", authorization=f"Bearer {token}") == "403 token_invalid"

    @pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic YTpi", "Bearer eyJh.eyJz.c2ln", "~", ""])
    async def test_what_is_not_ours_opens_nothing(self, visitor: Visitor, header: str) -> None:
        assert await answer(visitor, "", authorization=header) == "400 no_channel"
        assert await answer(visitor, "channel=a", authorization=header) == "403 forbidden"

    async def test_somebody_elses_bearer_is_left_to_them(self, user: User) -> None:
        visitor = Visitor("/by-header/")
        assert await channels(visitor, x_user="ada", authorization="Bearer not~ours") == [f"user:{user.pk}"]
        header = f"Bearer {sign_channels('a')}"
        assert await channels(visitor, x_user="ada", authorization=header) == ["a", f"user:{user.pk}"]
