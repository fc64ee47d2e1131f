"""The backend in force, and the hub of the running loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from ..conf import live_settings
from ..hub.clients import Client
from ..hub.hub import Hub, hub_opened
from ..hub.log import EventLog
from ..hub.registry import find_hub, forget_hubs
from .base import Backend

_backend: Backend | None = None
_made_from: tuple[str, Mapping[str, Any]] = ("", {})
_lock = threading.Lock()


def get_backend() -> Backend:
    """The one backend of this process. ImproperlyConfigured if SSE_LIVE names none that works."""
    if _backend is not None:
        return _backend
    return _make_backend()


def _make_backend() -> Backend:
    global _backend, _made_from
    with _lock:
        if _backend is None:
            settings = live_settings()
            try:
                backend_class = import_string(settings.backend)
            except ImportError as error:
                raise ImproperlyConfigured(
                    f'SSE_LIVE["BACKEND"] is {settings.backend!r}, which cannot be imported: {error}'
                ) from error
            if not (isinstance(backend_class, type) and issubclass(backend_class, Backend)):
                raise ImproperlyConfigured(
                    f'SSE_LIVE["BACKEND"] is {settings.backend!r}, which is not a subclass of '
                    "django_sse_live.backends.base.Backend."
                )
            _backend = backend_class(settings.options)
            _made_from = (settings.backend, settings.options)
        return _backend


def replace_backend(backend: Backend | None) -> Backend | None:
    """Put another in force, or none, so that the next one asked for is made from the settings. Gives the one before."""
    global _backend
    before, _backend = _backend, backend
    return before


def running_hub() -> Hub:
    """The hub of the running loop; made, and attached to the backend, when first asked for."""
    loop = asyncio.get_running_loop()
    hub = find_hub(loop)
    if hub is None:
        backend = get_backend()
        hub = Hub(loop, EventLog("0"))
        backend.attach(hub)
        hub_opened.send(sender=None, hub=hub)
    return hub


async def replay_history(client: Client) -> None:
    """Let the backend find what this client missed and its hub no longer has; else it will be told by a reset."""
    history = await get_backend().history(client.hub, client.channels, client.cursor)
    if history is not None:
        client.replay(history)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    replace_backend(None)
    forget_hubs()


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    """Another BACKEND or other OPTIONS: the next event goes to a new backend, the next stream to a new hub."""
    if setting != "SSE_LIVE" or _backend is None:
        return
    try:
        settings = live_settings()
        if _made_from == (settings.backend, settings.options):
            return
    except ImproperlyConfigured:
        pass  # whoever needs the backend next is told
    _backend.close()
    replace_backend(None)
    forget_hubs()


def connect() -> None:
    """Called once, when the app is ready."""
    setting_changed.connect(_on_setting_changed, dispatch_uid="django_sse_live.backends")
    if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
        os.register_at_fork(after_in_child=_after_fork)
