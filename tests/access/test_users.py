"""Whose stream it is: that of request.user, as every other view of the site sees it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncRequestFactory

from django_sse_live import sign_channels
from django_sse_live.http.views import EventStreamView
from tests.access.conftest import answer, channels, logged_in
from tests.visitors import Visitor

pytestmark = pytest.mark.django_db(transaction=True)


def add_middleware(settings: Any, name: str) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"tests.access.middleware.{name}"]


@pytest.mark.parametrize("middleware", ["Demotes", "DemotesLazily"])
async def test_whom_a_middleware_makes_nobody_is_nobody(user: User, settings: Any, middleware: str) -> None:
    add_middleware(settings, middleware)
    user.is_staff = True
    await user.asave()
    visitor = await logged_in(user)
    assert await answer(visitor, "") == "400 no_channel"
    assert await answer(visitor, "token=" + sign_channels("a", user=user)) == "403 token_of_another_user"
    assert (await visitor.get("/events/status/")).status_code == 403
    user.first_name = "verified"
    await user.asave()
    assert await channels(visitor) == [f"user:{user.pk}"]
    assert (await visitor.get("/events/status/")).status_code == 200


@pytest.mark.parametrize("middleware", ["Impersonates", "LooksUpLazily"])
async def test_whom_a_middleware_puts_there_is_the_user(
    user: User, other_user: User, settings: Any, middleware: str
) -> None:
    add_middleware(settings, middleware)
    visitor = await logged_in(user)
    assert await channels(visitor, "as=bob") == [f"user:{other_user.pk}"]
    assert await answer(visitor, "as=bob&token=" + sign_channels("a", user=user)) == "403 token_of_another_user"
    assert "a" in await channels(visitor, "as=bob&token=" + sign_channels("a", user=other_user))


async def test_a_lazy_user_that_turns_out_to_be_none_is_nobody(user: User, settings: Any) -> None:
    add_middleware(settings, "LooksUpLazily")
    assert await answer(await logged_in(user), "as=nobody") == "400 no_channel"


async def test_django_s_own_user_is_looked_up_without_a_thread(
    user: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = await logged_in(user)
    calls: list[Any] = []

    def in_a_thread(function: Any) -> Any:
        calls.append(function)
        raise AssertionError

    for module in ("http.users", "callables"):
        monkeypatch.setattr(f"django_sse_live.{module}.sync_to_async", in_a_thread)
    assert await channels(visitor) == [f"user:{user.pk}"]
    add_middleware(settings, "ReadsUser")
    assert await channels(visitor) == [f"user:{user.pk}"]
    assert not calls


class TokenUser:
    """As rest_framework_simplejwt has it: of everything that it does not know it says None."""

    pk = 5
    is_authenticated = True

    def __getattr__(self, name: str) -> None:
        return None


class HashedUser(TokenUser):
    def get_session_auth_hash(self) -> str:
        return "of its password"


@pytest.mark.parametrize("kind", [TokenUser, HashedUser])
async def test_a_user_that_is_no_model_needs_no_session_auth_hash(kind: type) -> None:
    class ByJWT(EventStreamView):
        def get_user(self, request: Any) -> Any:
            return kind()

    response = await ByJWT.as_view()(AsyncRequestFactory().get("/events/"))
    assert response.status_code == 200
    await response._iterator.aclose()


async def test_where_the_whole_site_requires_a_login_the_views_ask_for_what_they_always_do(
    user: User, settings: Any
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    origin, status_token = "https://app.example.com", "a-token-of-some-length"
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"], "ALLOWED_ORIGINS": [origin], "STATUS_TOKEN": status_token}
    visitor = Visitor()
    assert await channels(visitor, "channel=news") == ["news"]
    assert await channels(visitor, "", authorization=f"Bearer {sign_channels('a')}") == ["a"]
    assert await answer(visitor, "channel=other") == "403 forbidden"
    preflight = await visitor.ask("", "OPTIONS", origin=origin, access_control_request_method="GET")
    assert preflight.status_code == 204
    assert (await visitor.get("/events/health/")).status_code == 200
    assert (await visitor.get("/events/status/")).status_code == 403
    bearer = {"authorization": f"Bearer {status_token}"}
    assert (await visitor.get("/events/status/", headers=bearer)).status_code == 200
    assert (await visitor.get("/admin/django_sse_live/liveconnection/stream/")).status_code == 403
    assert (await visitor.get("/admin/django_sse_live/liveconnection/names/")).status_code == 302
