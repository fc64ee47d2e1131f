"""Signed subscriptions: what sign_channels() grants, and to whom.

Knows users and keys; knows nothing of requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from django.core import signing
from django.views.decorators.debug import sensitive_variables

from ..conf import live_settings
from ..events import CONTROL_CHANNEL, validate_name
from ..identity import auth_digests, user_pk
from .refusals import Refused

TOKEN_SALT: Final = "django_sse_live.token"
TOKEN_SEPARATOR: Final = "~"  # needs no escape in a url, and is allowed in a Bearer header (RFC 6750, section 2.1)


def sign_channels(channels: str | Iterable[str], *, user: Any = None, max_age: float | None = None) -> str:
    """A token that lets its bearer hear these channels.

    ``user``: binds it to that user (primary key and session auth hash, so a password change ends it); without one it is
    bound to nobody, and whoever has it may use it. ``max_age``: seconds, by default TOKEN_MAX_AGE_SECONDS.
    TypeError or ValueError for a bad channel, an unsaved user or a mere key, or a max_age that is not positive.
    """
    names = [channels] if isinstance(channels, str) else list(channels)
    if not names:
        raise ValueError("sign_channels() needs at least one channel.")
    for name in names:
        if validate_name("channel", name) == CONTROL_CHANNEL:
            raise ValueError(f"The channel {name!r} is what workers tell each other; nobody may listen to it.")
    if max_age is None:
        max_age = live_settings().token_max_age_seconds
    if max_age <= 0:
        raise ValueError(f"max_age is {max_age!r}; it must be a positive number of seconds.")
    claims: dict[str, Any] = {"c": names, "e": round(time.time() + max_age, 3), "a": max_age}
    if user is not None:
        if not hasattr(user, "pk"):
            raise TypeError(
                f"user is {user!r}, of which nobody can tell the password that the token ends with: "
                "pass the user itself, such as request.user."
            )
        claims["u"] = user_pk(user)
        claims["h"] = auth_digests(user)[:1]
    return _signer().sign_object(claims, compress=True)


def _signer() -> signing.Signer:
    return signing.Signer(salt=TOKEN_SALT, sep=TOKEN_SEPARATOR)  # verifies by SECRET_KEY_FALLBACKS too


def is_signed(token: str) -> bool:
    """Whether this site made it; not whether it still grants anything."""
    try:
        _signer().unsign(token)
    except signing.BadSignature:
        return False
    return True


@sensitive_variables()
def read_tokens(tokens: list[str], user: Any) -> tuple[list[str], tuple[str, ...]]:
    """The channels that these tokens grant to this user, and fresh tokens: one for all of them, and, where the request
    brought several, one in the place of each. Raises Refused."""
    channels: list[str] = []
    max_age = float("inf")
    is_bound = False
    fresh: list[str] = []
    for token in tokens:
        claims = _claims(token)
        if claims["e"] <= time.time():
            raise Refused(
                403,
                "token_expired",
                "The token has expired. Load the page again, or fetch one from a view that calls sign_channels().",
            )
        bearer = None
        if "u" in claims:
            _check_bearer(claims, user)
            bearer = user
            is_bound = True
        channels += claims["c"]
        max_age = min(max_age, claims["a"])
        if len(tokens) > 1:
            fresh.append(sign_channels(claims["c"], user=bearer, max_age=claims["a"]))
    if not tokens:
        return [], ()
    channels = list(dict.fromkeys(channels))
    return channels, (sign_channels(channels, user=user if is_bound else None, max_age=max_age), *fresh)


def _claims(token: str) -> dict[str, Any]:
    try:
        claims = _signer().unsign_object(token)
    except signing.BadSignature:
        raise Refused(
            403,
            "token_invalid",
            "The token was not signed by this site: it is forged, cut short, or older than the oldest of "
            "SECRET_KEY_FALLBACKS. Load the page again for a fresh one.",
        ) from None
    return claims  # type: ignore[no-any-return]


def _check_bearer(claims: dict[str, Any], user: Any) -> None:
    if user is not None and user_pk(user) == claims["u"]:
        digests = auth_digests(user)
        if claims["h"] == digests[:1] or any(digest in digests for digest in claims["h"]):
            return
        detail = "The token was made before this user's password changed."
    else:
        detail = "The token was made for another user than the one who is logged in here."
    raise Refused(403, "token_of_another_user", f"{detail} Load the page again for a fresh one.")
