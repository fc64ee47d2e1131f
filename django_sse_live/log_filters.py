"""HideTokens: a logging filter for the logs of servers, whose lines show the url of a stream with its token and
its ticket."""

from __future__ import annotations

import logging
import re
from copy import copy
from typing import Any, Final

_TOKEN: Final = re.compile(r"([?&](?:token|ticket)=)[^&\s\"']+")
_TOKEN_OF_QUERY: Final = re.compile(r"((?:^|[?&])(?:token|ticket)=)[^&\s\"']+")  # an argument may be a query alone


class HideTokens(logging.Filter):
    """Writes ``?token=…`` in place of a token, and the same for a ticket, in the message and in its arguments.

    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"hide_tokens": {"()": "django_sse_live.log_filters.HideTokens"}},
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "loggers": {
            "uvicorn.access": {"handlers": ["console"], "filters": ["hide_tokens"], "propagate": False},
            # Uvicorn writes of each WebSocket here, with its url.
            "uvicorn.error": {"handlers": ["console"], "filters": ["hide_tokens"], "propagate": False},
        },
    }
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _hidden(_TOKEN, record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_hidden(_TOKEN_OF_QUERY, value) for value in record.args)
        elif record.args:
            hidden = {name: _hidden(_TOKEN_OF_QUERY, value) for name, value in record.args.items()}
            if hidden != record.args:
                # Of the same class: those of Gunicorn and Hypercorn have a value for every name that a format may ask.
                arguments: Any = copy(record.args)
                arguments.update(hidden)
                record.args = arguments
        return True


def _hidden(pattern: re.Pattern[str], value: Any) -> Any:
    return pattern.sub(r"\1…", value) if isinstance(value, str) else value
