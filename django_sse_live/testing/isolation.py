"""own_bus(): tests that share a bus neither with a running site nor with another process that runs tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.test import override_settings
from django.utils.module_loading import import_string

from ..backends.base import Backend
from ..conf import live_settings


@contextmanager
def own_bus() -> Iterator[None]:
    """SSE_LIVE with OPTIONS that are of this process alone, where its backend knows such. The fixtures and
    LiveServerTestCase are inside it by themselves; may be nested."""
    given = live_settings()
    backend: type[Backend] = import_string(given.backend)
    options = backend.options_in_tests(given.options)
    if options == given.options:
        yield
        return
    with override_settings(SSE_LIVE={**getattr(settings, "SSE_LIVE", {}), "OPTIONS": options}):
        yield
