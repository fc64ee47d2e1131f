"""The address of a request: for the limits, and for the line of openings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final

from django.http import HttpRequest

from ..conf import live_settings
from ..identity import address_group

ADDRESS_MAX_LENGTH: Final = 64


def scope_of(request: HttpRequest) -> Mapping[str, Any]:
    """The scope of a request; under WSGI as much of one as is needed here."""
    scope: Mapping[str, Any] | None = getattr(request, "scope", None)
    if scope is not None:
        return scope
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR")
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode("latin-1", "replace"))]
    return {"client": (request.META.get("REMOTE_ADDR", ""), 0), "headers": headers}


def client_address(scope: Mapping[str, Any]) -> str:
    """The peer's address or, behind PROXY_COUNT proxies, the one that the outermost of them reported. Nothing that a
    visitor can write counts. "" if unknown (a Unix socket)."""
    count = live_settings().proxy_count
    peer = scope.get("client")
    return (_written_down(scope, count) if count else "") or (str(peer[0]) if peer else "")


def line_address(scope: Mapping[str, Any]) -> str:
    """The address by which the line of openings tells visitors apart. Limits and logs use client_address().

    A peer with a private address, or none, is usually a proxy. If PROXY_COUNT does not tell the number of proxies, the
    last address in X-Forwarded-For is taken, so that the visitors of a site behind one nginx do not wait for each
    other. It can be forged: a forger in a private network gets more places, each for as long as a place lasts.
    """
    address = client_address(scope)
    if not live_settings().proxy_count and is_private(address):
        address = _written_down(scope, 1) or address
    return address_group(address)


def _written_down(scope: Mapping[str, Any], count: int) -> str:
    """The count-th address from the end of X-Forwarded-For, without its port; "" if there is none."""
    values = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"x-forwarded-for"]
    written = ",".join(values).rsplit(",", count)  # of a header that may have a million commas
    address = written[-count].strip() if len(written) >= count else ""
    if address.startswith("["):  # some proxies add the port, which differs for each connection
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    return address[:ADDRESS_MAX_LENGTH]


@lru_cache(maxsize=1024)
def is_private(address: str) -> bool:
    """Whether the address is not a public one: usually a proxy's. 100.64.0.0/10 is shared by carriers and clouds."""
    try:
        parsed = ip_address(address)
    except ValueError:  # a Unix socket has no address
        return True
    return not (getattr(parsed, "ipv4_mapped", None) or parsed).is_global
