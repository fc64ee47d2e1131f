"""A page that was drawn for one visitor, after another has logged in in the same browser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.template import RequestContext, Template
from django.test import RequestFactory

from django_sse_live import asend_to_user, sign_channels
from tests.access.conftest import answer, channels, logged_in
from tests.templatetags.test_sse_live import Elements
from tests.visitors import Visitor

TAGS = ["{% sse_live 'news' %}", "{% sse_live %}", "{% sse_live share=True %}", "{% sse_live 'news' share=True %}"]

pytestmark = pytest.mark.django_db(transaction=True)


def drawn_for(user: Any, tag: str = "{% sse_live %}") -> dict[str, str]:
    request = RequestFactory().get("/")
    request.user = user
    page = Template("{% load sse_live %}" + tag).render(RequestContext(request, {}))
    (element,) = Elements(page).of("sse-live")
    return element


@pytest.mark.parametrize("tag", TAGS)
async def test_one_drawn_for_a_user_opens_nothing_for_another(user: User, other_user: User, tag: str) -> None:
    token = drawn_for(user, tag)["token"]
    assert f"user:{user.pk}" in await channels(await logged_in(user), f"token={token}")
    assert await answer(await logged_in(other_user), f"token={token}") == "403 token_of_another_user"


@pytest.mark.parametrize("tag", [tag for tag in TAGS if "news" in tag])
async def test_one_drawn_for_nobody_shows_nothing_of_who_logs_in(user: User, tag: str) -> None:
    token = drawn_for(AnonymousUser(), tag)["token"]
    query = f"channel=news&token={token}&format=envelope"
    async with (await logged_in(user)).listen(query) as stream:
        connected = (await stream.next()).json
        assert connected["channels"] == ["news"] and "own" not in connected
        await asend_to_user(user, "private")
    # … nor with the token that it was given for the next time.
    for fresh in (connected["token"], *connected.get("tokens", ())):
        assert await channels(await logged_in(user), f"channel=news&token={fresh}") == ["news"]


async def test_after_a_logout_and_a_login_the_token_is_still_the_first_users(user: User, other_user: User) -> None:
    token = drawn_for(user)["token"]
    async with Visitor().listen(f"channel=news&token={token}") as stream:
        connected = (await stream.next()).json
    assert connected["channels"] == ["news"]
    for later in (token, connected["token"]):
        assert await answer(await logged_in(other_user), f"token={later}") == "403 token_of_another_user"


async def test_one_without_channels_goes_on_after_a_day_and_after_the_users_own_new_password(
    user: User, settings: Any
) -> None:
    settings.SSE_LIVE = {"TOKEN_MAX_AGE_SECONDS": 1}
    from django_sse_live.http import tokens

    token = drawn_for(user)["token"]
    claims = tokens._signer().unsign_object(token)
    old = tokens._signer().sign_object({**claims, "e": 1.0})
    user.set_password("another")
    await user.asave()
    assert await channels(await logged_in(user), f"token={old}") == [f"user:{user.pk}"]
    assert user.password not in json.dumps(claims)


def test_one_without_channels_brings_no_token_to_another_site(user: User) -> None:
    assert "token" not in drawn_for(user, "{% sse_live src='https://events.example.com/' %}")
    assert "token" in drawn_for(user, "{% sse_live src='/other/events/' %}")


async def test_a_token_that_the_project_signed_for_nobody_leaves_who_is_logged_in_their_own_channel(user: User) -> None:
    assert await channels(await logged_in(user), f"token={sign_channels('a')}") == ["a", f"user:{user.pk}"]
