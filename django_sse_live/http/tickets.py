"""Tickets: proof that a stream was let in. After a break it resumes with its ticket, and Django is not asked again.

What happens if something is revoked while a client with a ticket comes back, perhaps on another worker:

====================================  ==================================================================================
the revocation is …                   the ticket …
====================================  ==================================================================================
made before the checks began          is good: its position says that the checks have seen the revocation
not committed yet                     is good; the stream ends when the revocation arrives
committed, on its way over the bus    is good; the stream ends when the revocation arrives, as open streams do
heard by this worker                  is refused here: the revocation's position is greater than the ticket's
heard between this check and open()   is refused by open(), in the same turn of the loop as entering the registry: a
                                      revocation before that turn is known, one after it ends the stream
made before this worker began         is refused: a worker reads what the bus keeps before its first stream opens
forgotten by the bus or the worker    is refused: its position is older than the oldest known
waiting in the outbox of a process    is good: no other process can know. While this worker's bus is away, none is good
====================================  ==================================================================================

A ticket is its claims, the id of the client that got it, and the signature of both, joined by SEPARATOR. The next
ticket of a stream has the same claims, letter by letter, and another id.

The claims, in order: digest of the address asked for; digest of the session's cookie; address group; id of the bus when
the checks began; time of the checks, end of the stream, end of the session, by the clock of the bus in ms; names of
channels; own channels; namespace; user; auth marks; session; digest of the tokens' claims.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from hmac import HMAC, compare_digest
from json import JSONEncoder, loads
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.core import signing
from django.http import HttpRequest
from django.utils.encoding import force_bytes

from ..conf import live_settings
from ..hub.client_info import ClientInfo
from ..hub.clients import Client
from ..hub.hub import Hub
from ..hub.recent_ends import ticket_milliseconds
from ..identity import address_group, user_pk

PARAMETER: Final = "ticket"
TICKET_SALT: Final = "django_sse_live.ticket"
TICKET_MAX_BYTES: Final = 2048
SEPARATOR: Final = "~"
COMPRESSED: Final = "."  # marks compressed claims
FUTURE_MS: Final = 1_000  # two workers may read the bus's clock this differently
# Parameters that may change each time, or are compared separately.
LEFT_OUT: Final = frozenset({PARAMETER, "last_event_id", "heartbeat", "replaces", "token"})


class BadTicket(Exception):
    """The ticket is no good: Django handles the request. The argument is the reason, a word for metrics."""


class Ticket(NamedTuple):
    """The claims. The end of the stream is known once it opens."""

    target: str
    cookie: str
    address: str
    position: str
    checked_ms: int
    ends_ms: int | None  # of the stream; None: no end
    session_ends_ms: int | None
    names: list[str]
    own: list[str]
    namespace: str
    user_pk: str | None
    auth: str
    session: str | None
    claims: str

    def check_time(self, now_ms: float) -> None:
        """Check the times. Raises BadTicket."""
        if self.checked_ms > now_ms + FUTURE_MS:
            raise BadTicket("future")
        ends = self.checked_ms + ticket_milliseconds(), self.ends_ms, self.session_ends_ms
        if any(end is not None and end <= now_ms for end in ends):
            raise BadTicket("old")


class Brought(NamedTuple):
    """What a returning client has brought."""

    ticket: Ticket
    claims: str  # as written in the ticket
    client_id: str  # of the client that got the ticket


_encode = JSONEncoder(separators=(",", ":")).encode


def write(ticket: Ticket, client: Client) -> str | None:
    """The first ticket of a client that has just opened; None if it is too long for a url."""
    hub = client.hub
    if client.ends_at != float("inf"):
        ticket = ticket._replace(ends_ms=int(hub.clock_ms() + 1000 * (client.ends_at - hub.loop.time())))
    said = _encode(ticket).encode()
    for claims in (signing.b64_encode(said), COMPRESSED.encode() + signing.b64_encode(zlib.compress(said))):
        text = write_next(claims.decode(), client)
        if len(text) <= TICKET_MAX_BYTES:
            return text
    return None


def write_next(claims: str, client: Client) -> str:
    """The ticket of a client that was let in by one with these claims."""
    signed = f"{claims}{SEPARATOR}{client.id}"
    return f"{signed}{SEPARATOR}{_signature(signed, settings.SECRET_KEY)}"


def read(text: str) -> Brought:
    """Read and verify a ticket. Raises BadTicket."""
    try:
        if len(text) > TICKET_MAX_BYTES:
            raise ValueError
        signed, _, signature = text.rpartition(SEPARATOR)
        if not _is_ours(signed, signature):
            raise BadTicket("foreign")
        claims, _, client_id = signed.rpartition(SEPARATOR)
        said = signing.b64_decode(claims.removeprefix(COMPRESSED).encode())
        ticket = Ticket(*loads((zlib.decompress(said) if claims.startswith(COMPRESSED) else said).decode()))
        return Brought(ticket, claims, client_id)
    except (TypeError, ValueError):  # of another version
        raise BadTicket("unreadable") from None


def _is_ours(signed: str, signature: str) -> bool:
    given = signature.encode()
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(compare_digest(_signature(signed, secret).encode(), given) for secret in secrets)


def _signature(signed: str, secret: str | bytes) -> str:
    mac = _keyed(secret).copy()
    mac.update(signed.encode())
    return signing.b64_encode(mac.digest()).decode()


@lru_cache(maxsize=8)
def _keyed(secret: str | bytes) -> HMAC:
    """The HMAC of no message yet. With cold caches OpenSSL begins one in 38 µs, and copies one in 15."""
    return HMAC(sha256(TICKET_SALT.encode() + force_bytes(secret)).digest(), digestmod="sha256")


def target_of(request: HttpRequest, view_class: type, *given: Any) -> str:
    """A digest of what is asked for: scheme, host, path, origin and query, the view and the url's arguments, and the
    public channels. Raises DisallowedHost as Django does."""
    query = sorted((name, values) for name, values in request.GET.lists() if name not in LEFT_OUT)
    view = f"{view_class.__module__}.{view_class.__qualname__}"
    origin = request.META.get("HTTP_ORIGIN", "")
    parts = [request.scheme, request.get_host(), request.path, origin, query, view, given]
    return _digest(repr((*parts, live_settings().public_channels)))


def cookie_of(request: HttpRequest) -> str:
    """A digest of the session's cookie; "" without one."""
    cookie = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    return _digest(cookie) if cookie else ""


def _digest(text: str) -> str:
    return sha256(f"django_sse_live.ticket:{text}".encode()).hexdigest()[:32]


def ticket_for(
    request: HttpRequest,
    user: Any,
    info: ClientInfo,
    hub: Hub,
    *,
    target: str,
    position: str,
    checked_ms: float,
    own: tuple[str, ...],
    claims: str,
) -> Ticket | None:
    """The ticket of a request that has passed its checks, without its end. None if something besides the session's
    cookie says whose it is. ``position``: of the bus, known before the checks began."""
    if "HTTP_AUTHORIZATION" in request.META:
        return None
    session: Any = getattr(request, "session", None)
    known: Mapping[str, Any] | None = getattr(session, "__dict__", {}).get("_session_cache")
    session_user = None if known is None else known.get(SESSION_KEY)
    if session_user != (None if user is None else user_pk(user)):
        return None
    return Ticket(
        target=target,
        cookie=cookie_of(request),
        address=address_group(info.address),
        position=position,
        checked_ms=int(checked_ms),
        ends_ms=None,
        session_ends_ms=int(hub.clock_ms() + 1000 * session.get_expiry_age()) if known else None,
        names=list(info.names),
        own=list(own),
        namespace=info.namespace,
        user_pk=info.user_pk,
        auth=info.auth,
        session=info.session,
        claims=claims,
    )
