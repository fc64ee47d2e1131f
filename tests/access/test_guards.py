"""What projects put before a stream: Django's access mixins and decorators, and hooks that ask for ``request.user``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required, permission_required
from django.contrib.auth.mixins import LoginRequiredMixin, PermissionRequiredMixin, UserPassesTestMixin
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.test import Client
from django.urls import path
from django.utils.decorators import method_decorator

from django_sse_live.http.views import EventStreamView
from tests.access.conftest import answer, channels, logged_in
from tests.visitors import Visitor

NEWS = {"channels": ["news"]}


class Members(LoginRequiredMixin, EventStreamView):
    pass


class MembersElse403(LoginRequiredMixin, EventStreamView):
    raise_exception = True


class Permitted(PermissionRequiredMixin, EventStreamView):
    permission_required = "auth.view_user"


class Chosen(UserPassesTestMixin, EventStreamView):
    def test_func(self) -> bool:
        return self.request.user.username == "ada"


@method_decorator(login_required, name="dispatch")
class Decorated(EventStreamView):
    pass


class SetsUp(EventStreamView):
    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        if not User.objects.filter(pk=request.user.pk, user_permissions__codename="view_user").exists():
            raise PermissionDenied


class OwnDispatch(EventStreamView):
    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return await super().dispatch(request, *args, **kwargs)


class AsyncHooks(EventStreamView):
    async def get_channels(self, request: HttpRequest) -> Iterable[str]:
        return ["staff"] if request.user.is_staff else []

    async def authorize(self, request: HttpRequest, channel: str) -> bool:
        return channel == f"of.{request.user.username}"

    async def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        return [("hello", request.user.get_username())]


class AsyncUser(EventStreamView):
    async def get_user(self, request: HttpRequest) -> Any:
        return request.user if request.user.is_authenticated else None


class Querysets(EventStreamView):
    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        return User.objects.values_list("username", flat=True)

    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        return User.objects.values_list("username", "is_staff")


class Generators(EventStreamView):
    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        for user in User.objects.all():
            yield user.username

    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        for user in User.objects.all():
            yield user.username, user.is_staff


class AsyncQuerysets(EventStreamView):
    async def get_channels(self, request: HttpRequest) -> Iterable[str]:
        return User.objects.values_list("username", flat=True)

    async def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        return User.objects.values_list("username", "is_staff")


class AsyncGenerators(EventStreamView):
    async def get_channels(self, request: HttpRequest) -> AsyncIterator[str]:
        async for user in User.objects.all():
            yield user.username

    async def get_initial_events(
        self, request: HttpRequest, channels: tuple[str, ...]
    ) -> AsyncIterator[tuple[str, Any]]:
        async for user in User.objects.all():
            yield user.username, user.is_staff


urlpatterns = [
    path("querysets/", Querysets.as_view()),
    path("generators/", Generators.as_view()),
    path("async-querysets/", AsyncQuerysets.as_view()),
    path("async-generators/", AsyncGenerators.as_view()),
    path("members/", Members.as_view(), NEWS),
    path("members-403/", MembersElse403.as_view(), NEWS),
    path("permitted/", Permitted.as_view(), NEWS),
    path("tested/", Chosen.as_view(), NEWS),
    path("decorated/", Decorated.as_view(), NEWS),
    path("function/", login_required(EventStreamView.as_view()), NEWS),
    path("function-permitted/", permission_required("auth.view_user")(EventStreamView.as_view()), NEWS),
    path("sets-up/", SetsUp.as_view(), NEWS),
    path("own-dispatch/", OwnDispatch.as_view(), NEWS),
    path("hooks/", AsyncHooks.as_view()),
    path("async-user/", AsyncUser.as_view(), NEWS),
]
LOGIN_NEEDED = [
    "/members/",
    "/members-403/",
    "/permitted/",
    "/tested/",
    "/decorated/",
    "/function/",
    "/function-permitted/",
]


@pytest.fixture(autouse=True)
def urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.access.test_guards"


@pytest.fixture
def ada(user: User) -> User:
    user.user_permissions.add(Permission.objects.get(codename="view_user"))
    return user


@pytest.mark.parametrize("url", [*LOGIN_NEEDED, "/sets-up/", "/own-dispatch/"])
async def test_the_right_user_gets_the_stream(ada: User, url: str) -> None:
    assert await channels(await logged_in(ada, url)) == ["news", f"user:{ada.pk}"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", ["/members/", "/members-403/", "/permitted/", "/tested/", "/sets-up/"])
async def test_a_mixin_or_a_setup_refuses_with_a_word_and_not_with_a_login_page(url: str) -> None:
    assert await answer(Visitor(url), "") == "403 forbidden"
    assert await answer(Visitor(url), "", "HEAD") == "403 forbidden"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", ["/decorated/", "/function/", "/function-permitted/"])
async def test_a_decorator_answers_as_it_does_for_every_view(url: str) -> None:
    assert (await Visitor(url).ask()).status_code == 302


@pytest.mark.parametrize("url", ["/permitted/", "/tested/", "/sets-up/"])
async def test_another_user_does_not(other_user: User, url: str) -> None:
    assert await answer(await logged_in(other_user, url), "") == "403 forbidden"


@pytest.mark.parametrize("url", ["/members/", "/permitted/", "/sets-up/"])
async def test_a_post_meets_the_same_guard(ada: User, url: str) -> None:
    visitor = await logged_in(ada, url)
    assert (await visitor.ask(method="POST")).status_code == 415  # let in, and no message


def test_under_wsgi_too_it_is_explained(ada: User) -> None:
    client = Client()
    client.force_login(ada)
    assert client.get("/members/").status_code == 501


async def test_async_hooks_may_ask_for_the_user(ada: User) -> None:
    ada.is_staff = True
    await ada.asave()
    visitor = await logged_in(ada, "/hooks/")
    async with visitor.listen("channel=of.ada") as stream:
        connected, hello = await stream.take(2)
    assert connected.json["channels"] == ["staff", "of.ada", f"user:{ada.pk}"]
    assert hello.json == "ada"


async def test_so_may_an_async_get_user(ada: User) -> None:
    assert await channels(await logged_in(ada, "/async-user/")) == ["news", f"user:{ada.pk}"]
    assert await channels(Visitor("/async-user/")) == ["news"]


@pytest.mark.parametrize("url", ["/querysets/", "/generators/", "/async-querysets/", "/async-generators/"])
async def test_hooks_may_give_what_asks_the_database_only_as_it_is_gone_through(ada: User, url: str) -> None:
    async with Visitor(url).listen() as stream:
        connected, snapshot = await stream.take(2)
    assert connected.json["channels"] == ["ada"]
    assert (snapshot.type, snapshot.json) == ("ada", False)


@pytest.mark.django_db(transaction=True)
async def test_async_hooks_may_ask_for_nobody() -> None:
    assert await answer(Visitor("/hooks/"), "channel=of.ada") == "403 forbidden"


async def test_an_async_authorize_of_the_settings_may_ask_for_the_user(ada: User, settings: Any) -> None:
    async def authorize(request: HttpRequest, channel: str) -> bool:
        return request.user.is_authenticated

    settings.SSE_LIVE = {"AUTHORIZE": authorize}
    settings.ROOT_URLCONF = "tests.access.urls"
    assert "room" in await channels(await logged_in(ada), "channel=room")
    assert await answer(Visitor(), "channel=room") == "403 forbidden"
