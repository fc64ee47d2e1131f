"""System checks: what can be seen to go wrong before the first visitor does."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured

from .backends import get_backend
from .conf import MEMORY_BACKEND, live_settings, management_command
from .live_model_checks import check_live_models

DATABASE_APP = "django_sse_live.database"
CACHE_MIN_ENTRIES = 10_000  # two for each message of ten minutes, four for each job


def register() -> None:
    for check in (check_settings, check_backend, check_asgi, check_live_models, check_messages_cache, check_jobs_cache):
        checks.register(check, "sse_live")
    checks.register(check_workers, "sse_live")
    checks.register(check_workers_of_deployment, "sse_live", deploy=True)


def check_settings(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    try:
        given = live_settings()
        get_backend()
    except ImproperlyConfigured as error:
        if management_command() == "runserver" and threading.current_thread() is not threading.main_thread():
            # Of an error the autoreloader prints a traceback first. Either way it waits for the settings to change.
            print(f"sse_live.E001: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        hint = "Every key of SSE_LIVE, with what it takes, is in django_sse_live/conf.py."
        return [checks.Error(str(error), hint=hint, id="sse_live.E001")]
    if given.token_max_age_seconds < (given.max_age_seconds or 0):
        return [
            checks.Warning(
                "A page's token expires before its stream does, so that the page is refused when it comes back.",
                hint='Set SSE_LIVE["TOKEN_MAX_AGE_SECONDS"] to at least SSE_LIVE["MAX_AGE_SECONDS"].',
                id="sse_live.W018",
            )
        ]
    return []


def check_backend(
    app_configs: Sequence[AppConfig] | None, databases: Collection[str] | None = None, **_: Any
) -> list[checks.CheckMessage]:
    try:
        backend = get_backend()
    except ImproperlyConfigured:
        return []  # check_settings() tells
    messages = backend.check(databases or ())
    if apps.is_installed(DATABASE_APP) and live_settings().backend == MEMORY_BACKEND:
        messages.append(
            checks.Warning(
                f"{DATABASE_APP!r} is installed, but SSE_LIVE uses the memory backend, which reaches no other process.",
                hint='Set SSE_LIVE["BACKEND"] to "django_sse_live.database.DatabaseBackend", or take the app out of '
                "INSTALLED_APPS.",
                id="sse_live.W015",
            )
        )
    return messages


def check_asgi(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    if not getattr(settings, "ASGI_APPLICATION", None):
        return [
            checks.Warning(
                "ASGI_APPLICATION is not set. Event streams need an ASGI server.",
                hint='Set ASGI_APPLICATION = "yourproject.asgi.application", and serve it by an ASGI server such as '
                "Uvicorn: a WSGI server (Gunicorn without Uvicorn's worker) answers each event stream with 501.",
                id="sse_live.W001",
            )
        ]
    speaks_wsgi = settings.DEBUG and not apps.is_installed("daphne")
    if speaks_wsgi and management_command() in (None, "check", "runserver"):  # elsewhere it is of no concern
        return [
            checks.Warning(
                "runserver speaks WSGI: it will answer each event stream with 501.",
                hint='Install daphne and put "daphne" first in INSTALLED_APPS. Or develop on another ASGI server, such '
                'as "uvicorn yourproject.asgi:application --reload", and silence this check; that server has no static '
                "files unless asgi.py says application = ASGIStaticFilesHandler(application), from "
                "django.contrib.staticfiles.handlers.",
                id="sse_live.W002",
            )
        ]
    return []


def check_workers(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """The memory backend, where WEB_CONCURRENCY, which Uvicorn and Gunicorn read, asks for several workers."""
    number = os.environ.get("WEB_CONCURRENCY", "").strip()
    if not number.isdecimal() or int(number) < 2:
        return []
    return _memory_does_not_reach(f"WEB_CONCURRENCY asks for {number} workers")


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
            hint='Set SSE_LIVE["BACKEND"] to "django_sse_live.database.DatabaseBackend", which needs no other server, '
            'or to "django_sse_live.backends.redis_streams.RedisStreamsBackend"; with one worker, silence this check.',
            id="sse_live.W005",
        )
    ]


def check_messages_cache(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Whether MESSAGES_CACHE can keep a message from running twice."""
    unfit = "a cache that cannot keep a message from running twice"
    local = "a message that is sent again to another worker would run twice"
    small = "messages that are sent again could run twice"
    return _check_cache("MESSAGES_CACHE", ("E007", unfit), ("E008", local), ("W016", small))


def check_jobs_cache(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Whether JOBS_CACHE can hold jobs. Where it names none, the default one is looked at when a job begins."""
    unfit = "a cache that cannot hold jobs, and cannot keep one from running twice"
    local = "a job would be known to one process alone"
    small = "running jobs could be lost"
    return _check_cache("JOBS_CACHE", ("E011", unfit), ("E012", local), ("W017", small))


def _max_entries(given: Mapping[str, Any]) -> int:
    """Of an entry of CACHES, as Django's caches read it: 300 for what is no number."""
    try:
        return int(given.get("max_entries", given.get("OPTIONS", {}).get("MAX_ENTRIES", 300)))
    except (TypeError, ValueError):
        return 300


def _check_cache(
    key: str, unfit: tuple[str, str], local: tuple[str, str], small: tuple[str, str]
) -> list[checks.CheckMessage]:
    try:
        alias = getattr(live_settings(), key.lower())
        reaches_others = get_backend().reaches_other_processes
    except ImproperlyConfigured:
        return []  # check_settings() tells
    if alias is None:
        return []
    cache = caches[alias]
    hint = "Use Redis, memcached or a database cache with MAX_ENTRIES raised, or None with one process."
    # One keeps nothing; the other has no atomic add(): it asks, and then writes.
    if isinstance(cache, (DummyCache, FileBasedCache)):
        return [checks.Error(f'SSE_LIVE["{key}"] is {alias!r}, {unfit[1]}.', hint=hint, id=f"sse_live.{unfit[0]}")]
    if isinstance(cache, LocMemCache) and reaches_others:
        problem = f'SSE_LIVE["{key}"] is {alias!r}, a cache of one process, beside a bus for several: {local[1]}.'
        return [checks.Error(problem, hint=hint, id=f"sse_live.{local[0]}")]
    entries = _max_entries(settings.CACHES[alias])
    if isinstance(cache, DatabaseCache) and entries < CACHE_MIN_ENTRIES:
        return [
            checks.Warning(
                f'SSE_LIVE["{key}"] is {alias!r}, a database cache that drops entries above {entries}: {small[1]}.',
                hint=f'Set its OPTIONS["MAX_ENTRIES"] to {CACHE_MIN_ENTRIES} or more.',
                id=f"sse_live.{small[0]}",
            )
        ]
    return []
