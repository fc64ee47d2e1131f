"""Refused: a request that gets no stream, and why."""

from __future__ import annotations

import logging
from functools import cache

logger: logging.Logger = logging.getLogger("django_sse_live")


class Refused(Exception):
    """A request that gets no stream: the status, a word for programs, and a sentence that says how to fix it."""

    def __init__(self, status: int, error: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail
        # In a header too, as SSE-Live-Error: neither an EventSource nor a HEAD request sees the body.
        self.headers: dict[str, str] = {"SSE-Live-Error": error, "X-Content-Type-Options": "nosniff", **(headers or {})}


def asgi_required() -> Refused:
    """The answer under WSGI. Logged too, since a page is not told its reason."""
    _warn_of_wsgi()
    return Refused(
        501,
        "asgi_required",
        "Event streams need an ASGI server (Daphne, Uvicorn, Hypercorn, Granian, or Gunicorn with Uvicorn's worker): a "
        "WSGI worker would be blocked by each of them. Serve your project's asgi.py; see "
        "https://docs.djangoproject.com/en/stable/howto/deployment/asgi/.",
    )


@cache
def _warn_of_wsgi() -> None:
    """Once for each process."""
    logger.warning(
        "A page asked for an event stream and got 501, as this server speaks WSGI: nothing on the page is live. Serve "
        "your project's asgi.py by Daphne, Uvicorn, Hypercorn or Granian, or by Gunicorn with Uvicorn's worker: "
        "gunicorn yourproject.asgi:application -k uvicorn_worker.UvicornWorker."
    )
