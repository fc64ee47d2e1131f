"""AppConfig: validates the settings, connects signals, registers checks."""

from __future__ import annotations

import logging
from typing import Any

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class SSELiveConfig(AppConfig):
    name = "django_sse_live"
    verbose_name: Any = _("Live events")  # the heading in the admin

    def ready(self) -> None:
        from . import backends, checks, conf, metrics, model_signals, revocation, workers
        from .broadcasting import broadcast
        from .http import job_messages
        from .jobs import running, watching
        from .presence import connect as connect_presence  # the package's attribute is the function
        from .signals import live_event

        def on_live_event(*, channel: Any, type: str, data: Any = None, **options: Any) -> None:
            options.pop("signal", None)
            options.pop("sender", None)
            broadcast(channel, type, data, **options)

        conf.connect()
        try:
            conf.live_settings()
            backends.connect()
        except ImproperlyConfigured:
            if conf.management_command() is None:
                raise
            # A command's system checks say it in one line: sse_live.E001.
        if conf.management_command() == "runserver":
            show_log_lines()
        checks.register()
        connect_presence()
        for module in (revocation, metrics, workers, running, watching, job_messages, model_signals):
            module.connect()
        live_event.connect(on_live_event, weak=False, dispatch_uid="django_sse_live.live_event")
        autodiscover_modules("live")  # each app's handlers of messages


def show_log_lines() -> None:
    """Show the log's lines as runserver shows its own, unless LOGGING has said where they go."""
    logger = logging.getLogger("django_sse_live")
    if not logger.hasHandlers() and logger.level == logging.NOTSET:
        logger.handlers = list(logging.getLogger("django.server").handlers)
        logger.setLevel(logging.INFO)
