"""The state of this site's streams: for load balancers (health) and for operators (status)."""

from __future__ import annotations

from typing import Any, Final

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.debug import sensitive_variables

from ..backends import get_backend, running_hub
from ..conf import live_settings
from ..hub.hub import Hub
from ..workers import totals, worker_of
from .open_view import OpenView
from .refusals import Refused
from .responses import no_error, refusal_response
from .shutdown import stop_gracefully
from .users import request_user

HEALTH_SECONDS: Final = 1.0  # an answer waits this long for a worker that has just started
# Earlier releases of Django 5.2 let the cache of a whole site keep everything that is not private.
NO_STORE: Final = {"Cache-Control": "no-store, private"}


def _hub(request: HttpRequest) -> Hub:
    """The hub of this worker. Raises Refused if there can be none."""
    if not isinstance(request, ASGIRequest):
        raise Refused(501, "asgi_required", "Event streams need an ASGI server; this worker speaks WSGI.")
    hub = running_hub()
    stop_gracefully(hub)
    return hub


class HealthView(OpenView):
    """200 while this worker can open streams, 503 while it cannot: it shuts down, or has never reached its bus.

    While the bus is away, streams stay open and new ones open. So the answer is 200 with ``degraded``: taking every
    worker out of service at once would help nobody. It reveals nothing secret.
    """

    http_method_names: list[str] = ["get", "head"]

    async def get(self, request: HttpRequest, **_: Any) -> HttpResponseBase:
        try:
            hub = _hub(request)
        except Refused as refused:
            return refusal_response(refused)
        await hub.filled(HEALTH_SECONDS)
        if not hub.is_ready:
            status = "stopping" if hub.is_closing else "starting"
            return no_error(JsonResponse({"status": status}, status=503, headers={**NO_STORE, "Retry-After": "1"}))
        return JsonResponse({"status": "ok" if get_backend().is_available else "degraded"}, headers=NO_STORE)


class StatusView(OpenView):
    """What every worker reports, and the sum. For staff, or with ``Authorization: Bearer <STATUS_TOKEN>``.

    If the bus reaches other processes, the answer takes half a second: the number of workers that will answer is
    unknown.
    """

    http_method_names: list[str] = ["get", "head"]

    async def get(self, request: HttpRequest, **_: Any) -> HttpResponseBase:
        try:
            await _check_operator(request)
            hub = _hub(request)
        except Refused as refused:
            return refusal_response(refused)
        await hub.filled()
        reports = await worker_of(hub).gather()
        return JsonResponse({"worker": hub.id, "total": totals(reports), "workers": reports}, headers=NO_STORE)


@sensitive_variables()
async def _check_operator(request: HttpRequest) -> None:
    token = live_settings().status_token
    scheme, _, bearer = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if token is not None and scheme.lower() == "bearer" and constant_time_compare(bearer.strip(), token):
        return
    user = await request_user(request)
    if not (getattr(user, "is_active", False) and getattr(user, "is_staff", False)):
        raise Refused(
            403,
            "forbidden",
            'Only staff may see this, or a request with "Authorization: Bearer …" and SSE_LIVE["STATUS_TOKEN"].',
        )
