"""A native client that authenticates with Django REST framework's token: the example of docs/security.md."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.urls import path

from django_sse_live import asend_to_user, sign_channels
from django_sse_live.http.views import EventStreamView
from tests.access.conftest import answer
from tests.visitors import Visitor

pytest.importorskip("rest_framework", reason="needs djangorestframework")

pytestmark = pytest.mark.django_db(transaction=True)


class NativeEventStreamView(EventStreamView):
    def get_user(self, request: HttpRequest) -> Any:
        from rest_framework.authentication import TokenAuthentication
        from rest_framework.exceptions import AuthenticationFailed

        class BearerAuthentication(TokenAuthentication):
            keyword = "Bearer"

        try:
            authenticated = BearerAuthentication().authenticate(request)
        except AuthenticationFailed as error:
            raise PermissionDenied(str(error.detail)) from error
        return authenticated[0] if authenticated else None

    def authorize(self, request: HttpRequest, channel: str) -> bool:
        return channel == "orders" and request.user.is_authenticated


urlpatterns = [path("events/", NativeEventStreamView.as_view())]


@pytest.fixture
def key(settings: Any, transactional_db: None) -> str:
    """Ada's."""
    settings.ROOT_URLCONF = __name__
    from rest_framework.authtoken.models import Token

    return Token.objects.create(user=User.objects.create_user("ada")).key


async def test_a_key_opens_what_its_user_may_hear(key: str) -> None:
    user = await User.objects.aget()
    async with Visitor().listen("channel=orders", authorization=f"Bearer {key}") as stream:
        assert (await stream.next()).json["channels"] == ["orders", f"user:{user.pk}"]
        await asend_to_user(user, "hello", 1)
        assert (await stream.next()).type == "hello"


async def test_a_wrong_key_is_a_403_with_its_reason(key: str) -> None:
    response = await Visitor().ask("channel=orders", authorization=f"Bearer {key[:-1]}x")
    assert (response.status_code, response.json()) == (403, {"error": "forbidden", "detail": "Invalid token."})


async def test_no_key_is_nobody(key: str) -> None:
    assert await answer(Visitor(), "channel=orders") == "403 forbidden"
    assert await answer(Visitor(), "") == "400 no_channel"


async def test_a_deactivated_user_is_cut_off_and_stays_out(key: str) -> None:
    async with Visitor().listen(authorization=f"Bearer {key}") as stream:
        await stream.next()
        user = await User.objects.aget()
        user.is_active = False
        await user.asave()
        (goodbye,) = await stream.rest()
        assert goodbye.json["reason"] == "revoked"
    assert await answer(Visitor(), "", authorization=f"Bearer {key}") == "403 forbidden"


async def test_a_subscription_of_its_user_comes_beside_the_key(key: str) -> None:
    user = await User.objects.aget()
    token = await sync_to_async(sign_channels)("room", user=user)
    async with Visitor().listen(f"token={token}", authorization=f"Bearer {key}") as stream:
        assert (await stream.next()).json["channels"] == ["room", f"user:{user.pk}"]
