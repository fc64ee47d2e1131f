"""HideTokens: a logging filter for the access logs of servers, whose lines show the url of a stream with its token and
its ticket."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

_TOKEN: Final = re.compile(r"([?&](?:token|ticket)=)[^&\s\"']+")


class HideTokens(logging.Filter):
    """Writes ``?token=…`` in place of a token, and the same for a ticket, in the message and in its arguments.

    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"hide_tokens": {"()": "django_sse_live.log_filters.HideTokens"}},
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "loggers": {"uvicorn.access": {"handlers": ["console"], "filters": ["hide_tokens"], "propagate": False}},
    }
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _hidden(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_hidden(value) for value in record.args)
        elif record.args:
            record.args = {name: _hidden(value) for name, value in record.args.items()}
        return True


def _hidden(value: Any) -> Any:
    return _TOKEN.sub(r"\1…", value) if isinstance(value, str) else value
