"""Fixtures for pytest, there as soon as the app is installed (with pytest-django)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .streams import StreamClient


@pytest.fixture
def stream_client() -> StreamClient:
    """A StreamClient: Django's AsyncClient that can also open streams."""
    from .streams import StreamClient

    return StreamClient()


@pytest.fixture
def live_asgi_server(transactional_db: None) -> Iterator[str]:
    """The url of the project, ASGI application and static files, on a real server."""
    from .servers import live_server

    with live_server() as url:
        yield url
