"""What projects put between Django's authentication and the stream."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from asgiref.sync import markcoroutinefunction
from django.contrib.auth.models import AnonymousUser, User
from django.utils.functional import SimpleLazyObject


class Sync:
    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.user = self.replaced(request)
        return self.get_response(request)

    def replaced(self, request: Any) -> Any:
        raise NotImplementedError


class Demotes(Sync):
    """Who has not given a second factor yet is nobody."""

    def replaced(self, request: Any) -> Any:
        return request.user if request.user.first_name == "verified" else AnonymousUser()


class DemotesLazily(Sync):
    def replaced(self, request: Any) -> Any:
        real = request.user
        return SimpleLazyObject(lambda: real if real.first_name == "verified" else AnonymousUser())


class LooksUpLazily(Sync):
    """By a query of its own, once somebody asks."""

    def replaced(self, request: Any) -> Any:
        return SimpleLazyObject(lambda: User.objects.filter(username=request.GET.get("as")).first())


class Impersonates(Sync):
    def replaced(self, request: Any) -> Any:
        may = request.user.is_authenticated and "as" in request.GET
        return User.objects.get(username=request.GET["as"]) if may else request.user


class Async:
    async_capable = True
    sync_capable = False
    hook: ClassVar[Callable[[], Awaitable[None]] | None] = None

    def __init__(self, get_response: Callable[[Any], Awaitable[Any]]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        await self.first(request)
        return await self.get_response(request)

    async def first(self, request: Any) -> None:
        raise NotImplementedError


class ReadsSession(Async):
    """As the middleware for time zones in Django's documentation does."""

    async def first(self, request: Any) -> None:
        await request.session.aget("django_timezone")


class ReadsUser(Async):
    async def first(self, request: Any) -> None:
        await request.auser()


class Waits(Async):
    """What happens elsewhere in the meantime: ``Async.hook``, once."""

    async def first(self, request: Any) -> None:
        if Async.hook is not None:
            hook, Async.hook = Async.hook, None
            await hook()


class LogsFailures:
    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        if response.status_code >= 500:
            logging.getLogger("somebody").error("%s", request.get_full_path())
        return response
