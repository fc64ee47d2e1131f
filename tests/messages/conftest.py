from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.test import AsyncClient

from django_sse_live import on_message
from django_sse_live.hub import registry

Send = Callable[..., Any]


@pytest.fixture(autouse=True)
def rooms(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.messages.urls"
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["room.*"]}


@pytest.fixture(autouse=True)
def new_process() -> None:
    """Nobody has sent anything yet."""
    registry._here().parts.clear()


@pytest.fixture
def handle() -> Iterator[Callable[..., Any]]:
    """on_message() for one test."""
    added: list[Any] = []

    def handle(type: str, channel: str | None = None) -> Callable[[Any], Any]:
        def decorate(handler: Any) -> Any:
            added.append(handler)
            return on_message(type, channel)(handler)

        return decorate

    yield handle
    for handler in added:
        on_message.remove(handler)


class Sender(AsyncClient):
    """Sends messages as the browser's client does."""

    path = "/events/"

    async def send(
        self,
        type: Any = "typing",
        data: Any = None,
        *,
        id: Any = None,
        query: str = "",
        body: str | bytes | None = None,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> tuple[int, Any]:
        """(status, body) of the answer; the response is kept as ``self.response``."""
        if body is None:
            body = json.dumps({"id": uuid4().hex if id is None else id, "type": type, "data": data, **more})
        self.response = await self.generic("POST", f"{self.path}{query}", body, content_type, headers=headers)
        return self.response.status_code, self.response.json()


@pytest.fixture
def sender() -> Sender:
    return Sender()
