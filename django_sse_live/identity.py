"""How a user, a session and an address are written down: in channel names, in tokens, in the registry.

Pure functions; nothing here looks anything up.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv6Address
from typing import Any, Final

from django.utils.crypto import salted_hmac

USER_PREFIX: Final = "user:"  # channels that are never public: one's own, or by token


def user_pk(user: Any) -> str:
    """The primary key of a saved user (or a key itself), as text. ValueError for an anonymous or unsaved one."""
    pk = getattr(user, "pk", None) if hasattr(user, "pk") or hasattr(user, "is_authenticated") else user
    if pk is None or pk == "" or isinstance(pk, bool):
        raise ValueError(f"A saved user or a primary key is needed, not {user!r}.")
    return str(pk)


def user_channel(user: Any) -> str:
    """The channel that this user's own streams always hear."""
    return USER_PREFIX + user_pk(user)


def session_digest(session_key: str) -> str:
    """Stands for a session where the key itself must not be seen: on the bus, in the registry, in the admin."""
    return salted_hmac("django_sse_live.session", session_key, algorithm="sha256").hexdigest()[:32]


def auth_digests(user: Any) -> list[str]:
    """What a token is bound to: the user's session auth hash, first as the present key gives it, then as each of
    SECRET_KEY_FALLBACKS does. A password change makes another. Empty for a user model that has none."""
    if not _has_auth_hash(user):
        return []
    return [auth_digest(user), *map(_digest, user.get_session_auth_fallback_hash())]


def auth_digest(user: Any) -> str:
    """The first of auth_digests(), by which the streams from before a password change are told from those after it."""
    return _digest(user.get_session_auth_hash()) if _has_auth_hash(user) else ""


def _has_auth_hash(user: Any) -> bool:
    # Not hasattr(): users made of a JWT may say None for whatever they do not have.
    return callable(getattr(user, "get_session_auth_hash", None))


def _digest(auth_hash: str) -> str:
    return sha256(f"django_sse_live.token:{auth_hash}".encode()).hexdigest()[:32]


def address_group(address: str) -> str:
    """What MAX_CLIENTS_PER_ADDRESS counts by: an IPv4 address, or the 64 bits of network that one home has of IPv6."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> 64:x}/64"
