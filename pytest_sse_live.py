"""The fixtures for pytest, there as soon as django-sse-live is installed (with pytest-django).

A module of its own, outside the package: pytest imports it in every run of the environment, also in runs of other
projects, and a plugin inside the package would import all of the package, and Django, before the first fixture is asked
for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from django_sse_live.testing import StreamClient


@pytest.fixture
def stream_client() -> Iterator[StreamClient]:
    """A StreamClient: Django's AsyncClient that can also open streams and send messages."""
    from django_sse_live.testing import StreamClient
    from django_sse_live.testing.isolation import own_bus

    with own_bus():
        yield StreamClient()


@pytest.fixture
def live_asgi_server(transactional_db: None) -> Iterator[str]:
    """The url of the project, ASGI application and static files, on a real server."""
    from django_sse_live.testing.servers import live_server

    with live_server() as url:
        yield url
