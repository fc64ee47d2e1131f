from __future__ import annotations

import secrets
from unittest import IsolatedAsyncioTestCase

import pytest

from django_sse_live.backends.base import Backend
from django_sse_live.backends.redis_streams import RedisStreamsBackend
from django_sse_live.testing.backends import BackendSuite
from tests.backends.redis_process import RedisProcess

pytestmark = pytest.mark.needs("redis")


class RedisStreamsBackendTests(BackendSuite, IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def _redis(self, redis: RedisProcess) -> None:
        self.redis = redis
        self.stream = "sse_live_" + secrets.token_hex(4)

    def make_backend(self) -> Backend:
        return RedisStreamsBackend({"URL": self.redis.url, "STREAM": self.stream})

    async def take_bus_away(self) -> None:
        self.redis.pause()

    async def bring_bus_back(self) -> None:
        self.redis.resume()
