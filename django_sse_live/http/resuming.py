"""Resuming by ticket: a stream is checked and let in before Django, without a thread, a session or a database.

Anything missing, foreign, old or unclear is silently left to Django. For races see tickets.py.
"""

from __future__ import annotations

import logging
from functools import lru_cache, partial
from io import BytesIO
from typing import Final
from urllib.parse import parse_qs

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.http.response import ResponseHeaders
from django.utils.datastructures import MultiValueDict

from ..backends import get_backend, running_hub
from ..conf import live_settings
from ..events import parse_id
from ..hub.client_info import Admission, ClientInfo
from ..hub.clients import Client
from ..hub.hub import Hub
from ..hub.registry import count
from ..identity import address_group, scope_name
from .accept import names_event_stream
from .addresses import client_address
from .cors import is_foreign_subresource, own_origin, share_with_origin
from .refusals import Refused
from .resolve import StreamUrl, stream_of
from .responses import HEADERS, HEADERS_1
from .shutdown import stop_gracefully
from .subscription import QUERY_MAX_BYTES, asked_heartbeat, brought_id, is_final_id
from .tickets import PARAMETER, BadTicket, Brought, Ticket, cookie_of, read, target_of, write_next
from .tokens import renew
from .types import Scope

logger: logging.Logger = logging.getLogger("django_sse_live")

FIRST_FILL_SECONDS: Final = 1.0  # a request waits this long for a new worker to be filled; its view waits longer
BROUGHT: Final = f"{PARAMETER}=".encode()


Headers = list[tuple[bytes, bytes]]
NOT_RESUMED: Final[tuple[None, Headers]] = None, []


async def resume(scope: Scope) -> tuple[Client | None, Headers]:
    """The client of a request with a good ticket, and the response's headers. None: Django handles the request."""
    query = scope.get("query_string", b"")
    if BROUGHT not in query or scope["method"] != "GET" or len(query) > QUERY_MAX_BYTES:
        return NOT_RESUMED
    try:
        request = _request(scope)
        stream = stream_of(request)
        if stream is None:
            return NOT_RESUMED
        hub = running_hub()
        if not hub.clients:
            stop_gracefully(hub)
        await hub.filled(FIRST_FILL_SECONDS)
        resumed = _admit(request, stream, hub), _headers(request)
    except BadTicket as bad:
        reason = str(bad)
    # of the project's urlconf or settings, or of a malformed request: Django raises it again
    except Exception as error:
        logger.debug("A ticket could not be checked: %r", error)
        reason = "unclear"
    else:
        hub.counts.tickets += 1
        return resumed
    count(lambda counts: counts.tickets_refused.update((reason,)))
    return NOT_RESUMED


def _request(scope: Scope) -> ASGIRequest:
    """The request as Django reads it, except that its query is no QueryDict, which would cost twice the work."""
    request = ASGIRequest(scope, BytesIO())
    query = parse_qs(
        request.META["QUERY_STRING"],
        keep_blank_values=True,
        encoding=settings.DEFAULT_CHARSET,
        max_num_fields=settings.DATA_UPLOAD_MAX_NUMBER_FIELDS,
    )
    request.GET = MultiValueDict(query)  # type: ignore[assignment]
    return request


def _admit(request: ASGIRequest, stream: StreamUrl, hub: Hub) -> Client:
    """Check the ticket and make its client. Raises BadTicket, or what Django would raise."""
    query = request.GET
    if not stream.view_class.takes_tickets(stream.function):
        raise BadTicket("off")
    if len(query.getlist(PARAMETER)) != 1:
        raise BadTicket("unreadable")
    brought = read(query[PARAMETER])
    ticket = brought.ticket
    _check_request(request, stream, ticket)
    last_id = brought_id(request)
    position = parse_id(last_id) if last_id is not None and not is_final_id(last_id) else None
    if position is None:
        raise BadTicket("no_position")
    ticket.check_time(hub.clock_ms())
    try:
        granted = renew(query.getlist("token"))
    except Refused:
        raise BadTicket("token") from None
    if granted.claims != ticket.claims:
        raise BadTicket("token")
    address = client_address(request.scope)
    if address_group(address) != ticket.address:
        raise BadTicket("other_address")
    info = ClientInfo(
        tuple([scope_name(ticket.namespace, name) for name in ticket.names]),
        "envelope",
        namespace=ticket.namespace,
        user_pk=ticket.user_pk,
        auth=ticket.auth,
        session=ticket.session,
        address=address,
        user_agent=request.META.get("HTTP_USER_AGENT", "")[:200],
        heartbeat_seconds=asked_heartbeat(query),
        replaces=query.get("replaces", "")[:64],
    )
    client = Client(hub, info, last_id=position, tokens=granted.tokens, own=tuple(ticket.own))
    client.admission = _admission(hub, brought, info)
    client.make_ticket = partial(write_next, brought.claims)
    client.ends_at = (
        float("inf") if ticket.ends_ms is None else hub.loop.time() + (ticket.ends_ms - hub.clock_ms()) / 1000
    )
    return client


def _headers(request: ASGIRequest) -> Headers:
    headers = [*_usual_headers(request.scope.get("http_version", "1.1"))]
    if live_settings().allowed_origins:
        response = HttpResponse()
        share_with_origin(request, response)
        del response.headers["Content-Type"]
        headers += _encoded(response.headers)
    return headers


@lru_cache(maxsize=4)
def _usual_headers(version: str) -> tuple[tuple[bytes, bytes], ...]:
    return _encoded(HEADERS_1 if version == "1.1" else HEADERS)


def _encoded(headers: ResponseHeaders) -> tuple[tuple[bytes, bytes], ...]:
    return tuple([(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()])


def _check_request(request: ASGIRequest, stream: StreamUrl, ticket: Ticket) -> None:
    if not names_event_stream(request.META.get("HTTP_ACCEPT", "")) or is_foreign_subresource(request):
        raise BadTicket("unclear")
    if "HTTP_AUTHORIZATION" in request.META or (settings.SECURE_SSL_REDIRECT and not request.is_secure()):
        raise BadTicket("unclear")
    origin = request.META.get("HTTP_ORIGIN")
    if origin is not None and origin != own_origin(request):
        if origin not in live_settings().allowed_origins:
            raise BadTicket("other_origin")
    if target_of(request, stream.view_class, stream.args, stream.kwargs, stream.initkwargs) != ticket.target:
        raise BadTicket("other_url")
    if cookie_of(request) != ticket.cookie:
        raise BadTicket("other_session")


def _admission(hub: Hub, brought: Brought, info: ClientInfo) -> Admission:
    """The admission of a ticket, if every revocation since its checks is known and none concerns it."""
    if not hub.is_ready:
        raise BadTicket("not_ready")
    if hub.revocations is None or not get_backend().is_available:
        raise BadTicket("bus_away")
    known = parse_id(brought.ticket.position)
    if known is None or known[0] != hub.log.epoch:
        raise BadTicket("other_bus")
    admission = Admission(brought.client_id, *known)
    if hub.is_revoked(info, admission):
        raise BadTicket("revoked")
    return admission
