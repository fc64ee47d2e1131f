"""Middleware that does to responses what middleware may do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware, sync_only_middleware
from django.utils.translation import get_language


async def _wrapped(content: Any) -> AsyncIterator[bytes]:
    yield b": wrapped\n\n"
    async for part in content:
        yield part


def _spoil(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    how = request.GET.get("spoil", "")
    if how == "raise":
        raise RuntimeError("The middleware was asked to fail.")
    if how.isdigit():
        return HttpResponse("spoiled", status=int(how))
    if how.startswith("status-"):
        response.status_code = int(how.removeprefix("status-"))
    elif how == "wrap":
        response.streaming_content = _wrapped(response.streaming_content)
    return response


@sync_and_async_middleware
def spoil(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """``?spoil=``: 403 or 500 (another response in its place), status-503, wrap, raise."""
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponseBase:
            return _spoil(request, await get_response(request))

        return middleware

    def sync_middleware(request: HttpRequest) -> HttpResponseBase:
        return _spoil(request, get_response(request))

    return sync_middleware


@sync_only_middleware
def leave_cookies(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Sync, so that Django runs it in a thread; changes the session and sets the language cookie."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        request.session["seen"] = True
        response = get_response(request)
        response.set_cookie("django_language", get_language() or "")
        return response

    return middleware


async def _aleave_cookies(request: HttpRequest, get_response: Callable[[HttpRequest], Awaitable[Any]]) -> Any:
    await request.session.aset("seen", True)
    response = await get_response(request)
    response.set_cookie("django_language", get_language() or "")
    return response


@sync_and_async_middleware
def aleave_cookies(get_response: Any) -> Any:
    """The same, async."""

    async def middleware(request: HttpRequest) -> Any:
        return await _aleave_cookies(request, get_response)

    return middleware if iscoroutinefunction(get_response) else leave_cookies(get_response)
