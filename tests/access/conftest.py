from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.visitors import Visitor


@pytest.fixture(autouse=True)
def urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.access.urls"
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"]}


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


@pytest.fixture
def user(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="secret")


@pytest.fixture
def other_user(transactional_db: None) -> User:
    return User.objects.create_user("bob", password="secret")


async def logged_in(user: User, path: str = "/events/", **kwargs: Any) -> Visitor:
    visitor = Visitor(path, **kwargs)
    await visitor.aforce_login(user)
    return visitor


async def answer(visitor: Visitor, query: str, method: str = "GET", **headers: str) -> str:
    """The status and the reason, as a client that cannot see the body knows them too."""
    response = await visitor.ask(query, method, **headers)
    return f"{response.status_code} {response['SSE-Live-Error']}"


async def channels(visitor: Visitor, query: str = "", **headers: str) -> list[str]:
    """Those of the stream that is opened."""
    async with visitor.listen(query, **headers) as stream:
        return (await stream.next()).json["channels"]
