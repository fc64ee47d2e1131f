"""System checks: each has an id and a hint."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.http import HttpRequest
from django.middleware.gzip import GZipMiddleware
from django.test import override_settings

from django_sse_live import live_model
from tests.testapp.models import Unheard


def ids() -> list[str | None]:
    messages = checks.run_checks(tags=["sse_live"])
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_a_good_project_has_nothing_to_say() -> None:
    assert ids() == []


@pytest.mark.parametrize("bad", [{"NO_SUCH_KEY": 1}, {"RETRY_MS": "2000"}, {"BACKEND": "no.such.Backend"}])
def test_bad_settings(bad: dict[str, Any]) -> None:
    with override_settings(SSE_LIVE=bad):
        assert ids() == ["sse_live.E001"]


def test_no_asgi_application() -> None:
    with override_settings(ASGI_APPLICATION=None):
        assert ids() == ["sse_live.W001"]


def test_a_runserver_that_speaks_wsgi() -> None:
    apps = ["django.contrib.auth", "django.contrib.contenttypes", "django_sse_live"]
    with override_settings(DEBUG=True, INSTALLED_APPS=apps):
        assert "sse_live.W002" in ids()


def test_a_field_that_does_not_exist() -> None:
    live_model.register(Unheard, "a", fields=["id", "nmae"])
    try:
        assert ids() == ["sse_live.E002"]
        assert "'nmae'" in checks.run_checks(tags=["sse_live"])[0].msg
    finally:
        live_model.unregister(Unheard)


class CarelessCompressionMiddleware(GZipMiddleware):
    """Compresses whatever comes by."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        response.streaming_content = [b"held back"]
        return response


def test_middleware_that_holds_streams_back() -> None:
    with override_settings(MIDDLEWARE=["tests.test_checks.CarelessCompressionMiddleware"]):
        assert ids() == ["sse_live.W003"]


def test_django_s_own_leaves_them_alone() -> None:
    with override_settings(MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", "no.such.CompressMiddleware"]):
        assert ids() == []
