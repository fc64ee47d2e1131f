from unittest import IsolatedAsyncioTestCase

from django_sse_live.backends.base import Backend
from django_sse_live.backends.memory import MemoryBackend
from django_sse_live.testing.backends import BackendSuite


class MemoryBackendTests(BackendSuite, IsolatedAsyncioTestCase):
    def make_backend(self) -> Backend:
        return MemoryBackend({})
