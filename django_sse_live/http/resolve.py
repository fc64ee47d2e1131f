"""Which stream a url leads to, before Django handles the request.

Resolves as Django would: below the script name or FORCE_SCRIPT_NAME, in the language that LocaleMiddleware would
choose. A urlconf that other middleware sets on the request is unknown here, and must be passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.core.handlers.asgi import ASGIRequest
from django.middleware.locale import LocaleMiddleware
from django.urls import Resolver404, URLPattern, URLResolver, converters, get_resolver
from django.urls.resolvers import RegexPattern, RoutePattern
from django.utils import translation
from django.utils.module_loading import import_string

from .types import Scope
from .views import EventStreamView

REMEMBERED_MAX_LENGTH: Final = 1024  # of a path; where a longer one leads is not remembered, which would keep it
_TEXTS: Final[dict[type, str]] = {RoutePattern: "_route", RegexPattern: "_regex"}


@dataclass(frozen=True, slots=True)
class StreamUrl:
    """The view behind a url, and the arguments of the url."""

    view_class: type[EventStreamView]
    initkwargs: Mapping[str, Any]  # of as_view()
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    function: Any  # what as_view() made, perhaps decorated


def find_stream(scope: Scope, urlconf: Any = None) -> StreamUrl | None:
    """The EventStreamView that the url of this scope leads to; None if it leads elsewhere or nowhere.

    ``scope``: of a request or of a WebSocket. ``urlconf``: as ``request.urlconf``, by default ROOT_URLCONF. Raises what
    the project's urlconf raises.
    """
    try:
        request = ASGIRequest({"method": "GET", **scope}, BytesIO())
    except UnicodeDecodeError:  # in the query string; Django answers with 400
        return None
    return stream_of(request, urlconf)


def stream_of(request: ASGIRequest, urlconf: Any = None) -> StreamUrl | None:
    """The same for a request that Django has not handled yet."""
    resolver = get_resolver(urlconf)  # replaced with ROOT_URLCONF, and by clear_url_caches()
    path = request.path_info
    if _is_steady(resolver):
        return (_remembered if len(path) <= REMEMBERED_MAX_LENGTH else _find)(resolver, path)
    # In a copy of the context, so that the language activated here is not the request's.
    return copy_context().run(_find_in_its_language, request, resolver, urlconf)


def _find_in_its_language(request: ASGIRequest, resolver: URLResolver, urlconf: Any) -> StreamUrl | None:
    if settings.USE_I18N and _chooses_language(tuple(settings.MIDDLEWARE)):
        translation.activate(_language(request, settings.ROOT_URLCONF if urlconf is None else urlconf))
    return _find(resolver, request.path_info)


def _find(resolver: URLResolver, path: str) -> StreamUrl | None:
    try:
        match = resolver.resolve(path)
    except Resolver404:
        return None
    view_class = getattr(match.func, "view_class", None)
    if not (isinstance(view_class, type) and issubclass(view_class, EventStreamView)):
        return None
    return StreamUrl(view_class, getattr(match.func, "view_initkwargs", {}), match.args, match.kwargs, match.func)


_remembered = lru_cache(maxsize=256)(_find)


@lru_cache(maxsize=8)
def _is_steady(resolver: URLResolver) -> bool:
    """Whether a path always leads to the same view: neither languages nor code of the project, such as converters, have
    a say."""
    try:
        return all(map(_is_steady_pattern, resolver.url_patterns))
    except Exception:  # Django raises it again, if the request comes that far
        return False


def _is_steady_pattern(each: Any) -> bool:
    attribute = _TEXTS.get(type(each.pattern))
    if attribute is None or type(getattr(each.pattern, attribute)) is not str:  # a translated one is lazy
        return False
    if any(type(converter).__module__ != converters.__name__ for converter in each.pattern.converters.values()):
        return False
    return type(each) is URLPattern or (type(each) is URLResolver and all(map(_is_steady_pattern, each.url_patterns)))


def _language(request: ASGIRequest, urlconf: Any) -> str:
    """The language that LocaleMiddleware.process_request() would choose."""
    patterns_are_used, default_has_prefix = is_language_prefix_patterns_used(urlconf)
    if patterns_are_used and not default_has_prefix and not translation.get_language_from_path(request.path_info):
        return settings.LANGUAGE_CODE
    return translation.get_language_from_request(request, check_path=patterns_are_used)


@lru_cache(maxsize=8)
def _chooses_language(middleware: tuple[str, ...]) -> bool:
    classes = [import_string(path) for path in middleware]
    return any(isinstance(each, type) and issubclass(each, LocaleMiddleware) for each in classes)
