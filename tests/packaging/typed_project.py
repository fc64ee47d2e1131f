"""What a project writes, as type checkers see it: mypy reads it with the package (pyproject.toml). Nothing runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.http import HttpRequest

from django_sse_live import Message
from django_sse_live.asgi import live_application
from django_sse_live.http.views import EventStreamView
from django_sse_live.testing import StreamClient

application = live_application(get_asgi_application())
client = StreamClient(application=get_asgi_application())


class SyncHooks(EventStreamView):
    def get_user(self, request: HttpRequest) -> User | None:
        return None

    def get_channels(self, request: HttpRequest) -> list[str]:
        return ["a"]

    def authorize(self, request: HttpRequest, channel: str) -> bool:
        return channel == "a"

    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        yield "tick", 1

    def get_not_before(self, request: HttpRequest) -> str:
        return "e:1-0"

    def receive(self, request: HttpRequest, message: Message) -> str:
        return "answer"


class AsyncHooks(EventStreamView):
    async def get_user(self, request: HttpRequest) -> User | None:
        return None

    async def get_channels(self, request: HttpRequest) -> list[str]:
        return [*super().get_channels(request), "a"]

    async def authorize(self, request: HttpRequest, channel: str) -> bool:
        return channel == "a" or bool(await super().authorize(request, channel))

    async def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> AsyncIterator[Any]:
        yield "tick", 1

    async def get_not_before(self, request: HttpRequest) -> str | None:
        return None

    async def receive(self, request: HttpRequest, message: Message) -> Any:
        return await super().receive(request, message)
