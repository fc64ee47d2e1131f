from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

# Nothing inline, no eval, nothing from elsewhere.
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'"


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    def add(response: HttpResponseBase) -> HttpResponseBase:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    async def amiddleware(request: HttpRequest) -> HttpResponseBase:
        return add(await get_response(request))

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return add(get_response(request))

    return amiddleware if iscoroutinefunction(get_response) else middleware
