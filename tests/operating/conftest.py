from __future__ import annotations

import pytest

from tests.hub.conftest import Connect, connect, hub
from tests.visitors import Visitor

__all__ = ["Connect", "connect", "hub"]  # fixtures of the hub's tests


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()
