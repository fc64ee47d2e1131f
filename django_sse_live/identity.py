"""How a user, a session, an address and a namespace are written down: in channel names, in tokens, in the registry.

Pure functions; nothing here looks anything up.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv6Address
from typing import Any, Final

NAMESPACE_SEPARATOR: Final = "\x1f"  # no name of a channel may have it: validate_name()
NAMESPACE_MAX_LENGTH: Final = 63  # what PostgreSQL allows for the name of a schema
USER_PREFIX: Final = "user:"  # channels that are never public: one's own, or by token


def user_pk(user: Any) -> str:
    """The primary key of a saved user (or a key itself), as text. ValueError for an anonymous or unsaved one."""
    is_user = hasattr(user, "is_authenticated")
    pk = getattr(user, "pk", None) if hasattr(user, "pk") or is_user else user
    if isinstance(pk, Iterable) and not isinstance(pk, (str, bytes, tuple)):
        # A queryset, a list, a request. The repr() of a queryset would ask the database.
        raise ValueError(f"A saved user or a primary key is needed, not a {type(pk).__name__}.")
    # An instance of another model, such as a profile, has a key that is another user's.
    if pk is None or pk == "" or isinstance(pk, bool) or (hasattr(user, "_meta") and not is_user):
        raise ValueError(f"A saved user or a primary key is needed, not {user!r}.")
    return str(pk)


def user_channel(user: Any) -> str:
    """The channel that this user's own streams always hear."""
    return USER_PREFIX + user_pk(user)


def validate_namespace(namespace: object) -> str:
    """The namespace itself. TypeError or ValueError says what is wrong with it."""
    if not isinstance(namespace, str):
        raise TypeError(
            f'SSE_LIVE["NAMESPACE"] must return a str, not {type(namespace).__name__}: {namespace!r}. '
            "Where no tenant is known, return a namespace that is nobody's, or raise LookupError."
        )
    if len(namespace) > NAMESPACE_MAX_LENGTH or not namespace.isprintable():
        raise ValueError(
            f"A namespace has at most {NAMESPACE_MAX_LENGTH} characters, all of them printable: {namespace[:80]!r}."
        )
    return str(namespace)


def scope_name(namespace: str, name: str) -> str:
    """A name (of a channel, a user) as workers, the log and the bus know it: with its namespace, if it has one."""
    return f"{namespace}{NAMESPACE_SEPARATOR}{name}" if namespace else name


def plain_name(scoped: str) -> str:
    """The name as the project and its browsers know it."""
    return scoped.rpartition(NAMESPACE_SEPARATOR)[2]


def namespace_of(scoped: str) -> str:
    """The namespace of a scoped name; "" for one that has none."""
    return scoped.rpartition(NAMESPACE_SEPARATOR)[0]


def session_digest(session_key: str) -> str:
    """Stands for a session where the key itself must not be seen: on the bus, in the registry, in the admin."""
    # Not keyed: while SECRET_KEY is being changed, workers have different ones. A session key cannot be guessed.
    return sha256(f"django_sse_live.session:{session_key}".encode()).hexdigest()[:32]


@lru_cache(maxsize=4096)
def as_digest(user_pk: str | None, namespace: str) -> str:
    """Stands for a user, or for nobody, in a browser that keeps messages to be sent later: whose they are."""
    name = scope_name(namespace, f"user:{user_pk}" if user_pk is not None else "nobody")
    # Not keyed: while SECRET_KEY is being changed, workers have different ones. It proves nothing, and is no secret.
    return sha256(f"django_sse_live.as:{name}".encode()).hexdigest()[:32]


def auth_digests(user: Any) -> list[str]:
    """What a token is bound to: the user's session auth hash, first as the present key gives it, then as each of
    SECRET_KEY_FALLBACKS does. A password change makes another. Empty for a user model that has none."""
    # Not hasattr(): users made of a JWT may say None for whatever they do not have.
    if not callable(getattr(user, "get_session_auth_hash", None)):
        return []
    older = getattr(user, "get_session_auth_fallback_hash", None)
    return [_digest(user.get_session_auth_hash()), *map(_digest, older() if callable(older) else ())]


def auth_marks(user: Any) -> str:
    """All of auth_digests(), by which the streams from before a password change are told from those after it, also by
    workers that have another SECRET_KEY for the present and this one among their SECRET_KEY_FALLBACKS."""
    return " ".join(auth_digests(user))


def have_auth_in_common(marks: str, others: str) -> bool:
    """Whether two auth_marks() are of the same password."""
    return marks == others or not set(marks.split()).isdisjoint(others.split())


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
