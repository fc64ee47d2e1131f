from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from django_sse_live.backends import running_hub
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from tests.hub.conftest import Reader
from tests.visitors import Visitor

Connect = Callable[..., Reader]


@pytest.fixture
async def hub() -> Hub:
    return running_hub()


@pytest.fixture
async def connect(hub: Hub) -> AsyncIterator[Connect]:
    readers: list[Reader] = []

    def connect(*channels: str, **kwargs: Any) -> Reader:
        reader = Reader(Client(hub, channels or ("a",), **kwargs))
        readers.append(reader)
        return reader

    yield connect
    for reader in readers:
        await reader.leave()


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()
