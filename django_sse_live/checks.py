"""System checks: what can be seen to go wrong before the first visitor does."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.module_loading import import_string

from .backends import get_backend
from .conf import MEMORY_BACKEND, live_settings
from .http.responses import EventStreamResponse
from .hub.clients import Client
from .model_broadcasts import live_model


def register() -> None:
    for check in (check_settings, check_asgi, check_live_models, check_middleware):
        checks.register(check, "sse_live")
    checks.register(check_workers, "sse_live")
    checks.register(check_workers_of_deployment, "sse_live", deploy=True)


def check_settings(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    try:
        live_settings()
        get_backend()
    except ImproperlyConfigured as error:
        return [
            checks.Error(
                str(error), hint="The keys of SSE_LIVE are listed in django_sse_live/conf.py.", id="sse_live.E001"
            )
        ]
    return []


def check_asgi(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    if not getattr(settings, "ASGI_APPLICATION", None):
        return [
            checks.Warning(
                "ASGI_APPLICATION is not set. Event streams need an ASGI server.",
                hint='Set ASGI_APPLICATION = "yourproject.asgi.application".',
                id="sse_live.W001",
            )
        ]
    if settings.DEBUG and not apps.is_installed("daphne"):
        return [
            checks.Warning(
                "runserver speaks WSGI: it will answer each event stream with 501.",
                hint='Install daphne and put "daphne" first in INSTALLED_APPS, or develop on another ASGI server, such '
                'as "uvicorn yourproject.asgi:application --reload"; then silence this check.',
                id="sse_live.W002",
            )
        ]
    return []


def check_workers(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """The memory backend, where this very environment asks for several workers."""
    number = re.search(r"\s(?:--workers|-w)[ =]?(\d+)\b", " ".join(sys.argv)) or re.fullmatch(
        r"(\d+)", os.environ.get("WEB_CONCURRENCY", "").strip()
    )
    if number is None or int(number[1]) < 2:
        return []
    return _memory_does_not_reach(f"{number[1]} workers are asked for, by WEB_CONCURRENCY or on the command line")


def check_workers_of_deployment(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    if check_workers(app_configs):
        return []
    return _memory_does_not_reach("a deployment often has several workers, and management commands beside them")


def _memory_does_not_reach(because: str) -> list[checks.CheckMessage]:
    try:
        if live_settings().backend != MEMORY_BACKEND:
            return []
    except ImproperlyConfigured:
        return []  # check_settings() tells
    return [
        checks.Warning(
            f"SSE_LIVE uses the memory backend, which carries events within one process alone; {because}.",
            hint='Set SSE_LIVE["BACKEND"] to "django_sse_live.backends.redis_streams.RedisStreamsBackend" or '
            '"django_sse_live.backends.channel_layer.ChannelLayerBackend"; with one worker, silence this check.',
            id="sse_live.W005",
        )
    ]


def check_live_models(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    errors: list[checks.CheckMessage] = []
    for live in live_model.registrations:
        for name in live.fields or ():
            try:
                live.model._meta.get_field(name)
            except FieldDoesNotExist:
                if not hasattr(live.model, name):
                    errors.append(
                        checks.Error(
                            f"@live_model names the field {name!r}, which {live.model.__name__} does not have.",
                            hint="Each of fields is the name of a model field or of an attribute.",
                            obj=live.model,
                            id="sse_live.E002",
                        )
                    )
    return errors


# By name, since only what rewrites bodies is worth trying out.
_REWRITES_BODIES = re.compile("gzip|brotli|zstd|compress|minif", re.IGNORECASE)


def check_middleware(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Hand an event stream to each middleware that compresses or minifies, and see whether it comes out untouched.

    Django's own, and whatever else looks for a Content-Encoding first, leaves it alone.
    """
    return [
        checks.Warning(
            f"{path} rewrites event streams: events would be held back in its buffer.",
            hint='Make it skip responses that have a Content-Encoding header, or the content type "text/event-stream"; '
            "or leave compression to the web server.",
            id="sse_live.W003",
        )
        for path in getattr(settings, "MIDDLEWARE", [])
        if _REWRITES_BODIES.search(path) and _rewrites_streams(path)
    ]


def _rewrites_streams(path: str) -> bool:
    request = HttpRequest()
    request.method = "GET"
    request.META.update(HTTP_ACCEPT_ENCODING="gzip, br, zstd", HTTP_ACCEPT="text/event-stream")
    response = EventStreamResponse(cast(Client, SimpleNamespace()), request)  # never streamed, so nobody is needed
    try:
        result = import_string(path)(lambda request: response)(request)
    except Exception:
        return False  # it needs more than a check can give it; its own errors are not ours to report
    return isinstance(result, StreamingHttpResponse) and not (result is response and response.is_untouched)
