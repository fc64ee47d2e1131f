from __future__ import annotations

from typing import Any

import pytest

from tests.visitors import Visitor


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


@pytest.fixture(autouse=True)
def public_news(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.http.urls"
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news", "post.*"], "RETRY_MS": 1500}
