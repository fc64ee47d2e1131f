"""The backend of this process, and the hub of the running loop."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from ..conf import live_settings
from ..events import Event
from ..hub.clients import Client
from ..hub.hub import Hub, hub_opened
from ..hub.log import EventLog
from ..hub.reading import LOST
from ..hub.registry import find_hub, forget_hubs, running_loop
from .base import Backend, HistoryUnavailable

logger: logging.Logger = logging.getLogger("django_sse_live")

LOOP_HELD_MAX_SECONDS: Final = 0.01  # a loop held longer is reported


class _InForce(NamedTuple):
    backend: Backend
    settings: tuple[str, Mapping[str, Any]]  # BACKEND and OPTIONS when it was made


# By process id, since a fork makes its own even if it runs none of Python's hooks. No lock: a finalizer or a signal
# handler that broadcasts may interrupt the making. A backend that loses this race is closed again.
_in_force: Final[dict[int, _InForce]] = {}


def get_backend() -> Backend:
    """The one backend of this process. Raises ImproperlyConfigured if SSE_LIVE names none that works."""
    found = _in_force.get(os.getpid())
    return found.backend if found is not None else _make_backend()


def _make_backend() -> Backend:
    given = live_settings()
    try:
        backend_class = import_string(given.backend)
    except ImportError as error:
        raise ImproperlyConfigured(
            f'SSE_LIVE["BACKEND"] is {given.backend!r}, which cannot be imported: {error}'
        ) from error
    if not (isinstance(backend_class, type) and issubclass(backend_class, Backend)):
        raise ImproperlyConfigured(
            f'SSE_LIVE["BACKEND"] is {given.backend!r}, which is not a subclass of '
            "django_sse_live.backends.base.Backend."
        )
    pid = os.getpid()
    made = _InForce(backend_class(given.options), (given.backend, given.options))
    found = _in_force.setdefault(pid, made)
    if found is not made:
        made.backend.close()
    for other in [other for other in _in_force if other != pid]:  # of a parent process
        _in_force.pop(other, None)
    return found.backend


def replace_backend(backend: Backend | None) -> Backend | None:
    """Set the backend, or None to have the next one made from the settings. Returns the one before."""
    before = _in_force.pop(os.getpid(), None)
    if backend is not None:
        given = live_settings()
        _in_force[os.getpid()] = _InForce(backend, (given.backend, given.options))
    return None if before is None else before.backend


def publish_event(event: Event) -> None:
    """Hand an event to the backend. In DEBUG, warn if that held up a running event loop."""
    backend = get_backend()
    if not (settings.DEBUG and running_loop() is not None):
        backend.publish(event)
        return
    began_at = time.perf_counter()
    backend.publish(event)
    seconds = time.perf_counter() - began_at
    if seconds > LOOP_HELD_MAX_SECONDS:
        logger.warning(
            "broadcast() of %r was called in a coroutine, and held its event loop for %.0f ms: every stream of this "
            "worker waited. In a coroutine, await abroadcast() instead.",
            event.type,
            1000 * seconds,
        )


def running_hub() -> Hub:
    """The hub of the running loop; made, and attached to the backend, on first use."""
    loop = asyncio.get_running_loop()
    hub = find_hub(loop)
    if hub is None:
        backend = get_backend()
        hub = Hub(loop, EventLog("0"))
        hub_opened.send(sender=None, hub=hub)  # the hub is complete before anything can find it
        backend.attach(hub)
    return hub


async def replay_history(client: Client) -> None:
    """Have the backend look for missed events that the hub no longer has. If it finds none, the client gets a reset."""
    hub, backend = cast(Hub, client.hub), get_backend()
    try:
        if client.cursor > hub.log.head:
            if not await backend.has_reached(hub, client.cursor):
                client.cursor = LOST
            return
        history = await backend.history(hub, client.channels, client.cursor)
    except HistoryUnavailable:
        client.refuse("not_ready")
        return
    if history is not None:
        client.replay(history)


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    """After a change of BACKEND or OPTIONS, the next event goes to a new backend, the next stream to a new hub."""
    found = _in_force.get(os.getpid())
    if setting != "SSE_LIVE" or found is None:
        return
    try:
        given = live_settings()
        if found.settings == (given.backend, given.options):
            return
    except ImproperlyConfigured:
        pass  # the next use of the backend raises it
    found.backend.close()
    replace_backend(None)
    forget_hubs()


def connect() -> None:
    """Called once, when the app is ready."""
    setting_changed.connect(_on_setting_changed, dispatch_uid="django_sse_live.backends")
    get_backend().check_process()
