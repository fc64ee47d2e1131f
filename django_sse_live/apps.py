"""AppConfig: validates the settings, connects signals, registers checks."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig


class SSELiveConfig(AppConfig):
    name = "django_sse_live"
    verbose_name: str = "Live events"

    def ready(self) -> None:
        from . import backends, checks, conf, metrics, revocation, workers
        from .broadcasting import broadcast
        from .presence import connect as connect_presence  # the package's attribute is the function
        from .signals import live_event

        def on_live_event(*, channel: Any, type: str, data: Any = None, **options: Any) -> None:
            options.pop("signal", None)
            options.pop("sender", None)
            broadcast(channel, type, data, **options)

        conf.connect()
        backends.connect()
        revocation.connect()
        checks.register()
        conf.live_settings()
        backends.get_backend()
        metrics.connect()
        workers.connect()
        connect_presence()
        live_event.connect(on_live_event, weak=False, dispatch_uid="django_sse_live.live_event")
