"""Cross-origin reading, exactly as SSE_LIVE["ALLOWED_ORIGINS"] says. If it is empty, no header is sent.

The Fetch standard's CORS protocol: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_vary_headers

from ..conf import live_settings

METHODS: Final = "GET, HEAD, POST"
REQUEST_HEADERS: Final = (
    # besides the headers that are always allowed
    "Authorization, Cache-Control, Content-Type, Last-Event-ID, X-CSRFToken"
)
EXPOSED_HEADERS: Final = "Retry-After, SSE-Live-Error"  # they tell a page why it was refused
PREFLIGHT_SECONDS: Final = 600


def share_with_origin(request: HttpRequest, response: HttpResponseBase) -> None:
    """Let the page that sent this request read the response, a refusal too, if its origin is on the list."""
    allowed = live_settings().allowed_origins
    if not allowed:
        return
    patch_vary_headers(response, ["Origin"])  # for every request, so that a cache never mixes up origins
    origin = request.META.get("HTTP_ORIGIN")
    if origin not in allowed:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Allow-Credentials"] = "true"
    if request.method != "OPTIONS":
        response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    elif "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META:
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)


def own_origin(request: HttpRequest) -> str:
    """The origin of this site, as browsers write it: also where a proxy passes a Host with the scheme's own port on.
    Raises DisallowedHost as Django does."""
    host = request.get_host().lower()
    return f"{request.scheme}://{host.removesuffix(':443' if request.scheme == 'https' else ':80')}"


def is_foreign_subresource(request: HttpRequest) -> bool:
    """Whether an image, a script, a frame or a no-cors fetch asks, from a page of another origin, of the same site
    too. It could read nothing, and would use up a visitor's streams. Browsers say so:
    https://www.w3.org/TR/fetch-metadata/"""
    meta = request.META
    if meta.get("HTTP_SEC_FETCH_SITE") not in ("cross-site", "same-site"):
        return False
    mode = meta.get("HTTP_SEC_FETCH_MODE")
    return mode == "no-cors" or (mode == "navigate" and meta.get("HTTP_SEC_FETCH_DEST") != "document")
