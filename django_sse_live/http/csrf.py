"""Whether a page may write to this site: the origin of a POST, and its CSRF token.

Reading is cors.py's part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.utils.http import is_same_domain

from ..conf import live_settings
from .cors import own_origin
from .refusals import Refused
from .subscription import hide_tokens

CSRF: Final = "csrf"  # the Refused.error whose answer brings a fresh token


def may_write(request: HttpRequest, origin: str) -> bool:
    """Whether pages of this origin may write with a visitor's cookies, if they have the visitor's token: pages of this
    site, and of CSRF_TRUSTED_ORIGINS."""
    if origin == own_origin(request) or origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return any(
        parts.scheme == trusted.scheme and is_same_domain(parts.netloc, trusted.netloc.lstrip("*"))
        for trusted in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS)
        if trusted.netloc.startswith("*.")
    )


def check_origin(request: HttpRequest) -> None:
    """Refuse a message of a page that may not write here: with cookies, may_write(); without any, a page that may read
    may write too. Raises Refused."""
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None or may_write(request, origin):
        return
    if _has_cookies(request) or origin not in live_settings().allowed_origins:
        raise Refused(
            403,
            "foreign_origin",
            f"A page of {origin[:100]} may not send messages here. If it is yours, name its origin in "
            'CSRF_TRUSTED_ORIGINS and, so that it may read the answer, in SSE_LIVE["ALLOWED_ORIGINS"].',
        )


def _has_cookies(request: HttpRequest) -> bool:
    return bool(request.META.get("HTTP_COOKIE"))


async def check_csrf(request: HttpRequest) -> None:
    """Refuse a request that a page of another site may have made a browser send. Raises Refused."""
    check_origin(request)
    # Any cookie counts: the project's own middleware may log a user in by any.
    if _has_cookies(request) and not await sync_to_async(_has_token)(request):
        raise Refused(403, CSRF, "The CSRF token is missing or wrong. Send the one of this answer as X-CSRFToken.")


async def give_token(request: HttpRequest, make: Callable[[str], HttpResponse]) -> HttpResponse:
    """The response of ``make``, called with a fresh token, and with the token's cookie. For a page whose token is
    missing, or older than a login."""

    def give() -> HttpResponse:
        response = make(get_token(request))
        CsrfViewMiddleware(_nothing).process_response(request, response)  # the project may not have the middleware
        return response

    return await sync_to_async(give)()


def _nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def _has_token(request: HttpRequest) -> bool:
    """Whether CsrfViewMiddleware accepts the token. The response of CSRF_FAILURE_VIEW is meant for pages, and is
    dropped."""
    # The browser's client has one header, whatever CSRF_HEADER_NAME the site has chosen for its own scripts.
    if (token := request.META.get("HTTP_X_CSRFTOKEN")) is not None:
        request.META.setdefault(settings.CSRF_HEADER_NAME, token)
    check = CsrfViewMiddleware(_nothing)
    given = request.META.get("QUERY_STRING", ""), request.GET
    hide_tokens(request)  # Django logs a refusal with its request
    check.process_request(request)
    is_good = check.process_view(request, _nothing, (), {}) is None
    request.META["QUERY_STRING"], request.GET = given
    return is_good
