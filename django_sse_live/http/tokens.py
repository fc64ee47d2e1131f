"""Tokens: signed subscriptions, as sign_channels() makes them, and what they grant to whom.

Of a request only its user is known here. The claims of a token: ``c`` channels; ``e`` when it expires; ``a`` how many
seconds a fresh one lives; ``u`` and ``h`` the user and the auth digest that it is bound to, or ``u`` alone, the user of
a page without channels; ``d`` the page was drawn for nobody; ``n`` the namespace. For a job's channel: ``o`` the owner,
who must be logged in; ``s`` the channels of jobs that it may stop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final, NamedTuple

from django.core import signing
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from ..conf import live_settings
from ..events import refuse_reserved, validate_name
from ..identity import auth_digests, user_pk
from ..namespaces import current_namespace
from .refusals import Refused

TOKEN_SALT: Final = "django_sse_live.token"
TOKEN_SEPARATOR: Final = "~"  # needs no escape in a url, and is allowed in a Bearer header (RFC 6750, section 2.1)


def sign_channels(channels: str | Iterable[str], *, user: Any = None, max_age: float | None = None) -> str:
    """A token that lets its bearer hear these channels.

    ``user``: binds the token to this user (primary key and session auth hash, so a password change ends it); without
    one, anybody who has the token may use it. ``max_age``: seconds, by default TOKEN_MAX_AGE_SECONDS.

    With NAMESPACE set, it grants the channels of the running code's namespace, to requests of that namespace.

    TypeError or ValueError for a bad or reserved channel, an unsaved user or a mere key, or a max_age that is not
    positive.
    """
    names = [channels] if isinstance(channels, str) else list(channels)
    if not names:
        raise ValueError("sign_channels() needs at least one channel.")
    claims = _claims(names, current_namespace(), max_age)
    if user is not None:
        if not hasattr(user, "pk"):
            raise TypeError(
                f"user is {user!r}, of which nobody can tell the password that the token ends with: "
                "pass the user itself, such as request.user."
            )
        claims.update(_bound_to(user))
    return _sign(claims)


def sign_page(channels: Iterable[str], *, request: HttpRequest) -> str:
    """The token of an element in a page: grants its channels to the page's user, or to nobody in particular.

    Without channels it grants nothing and never expires, but still names the page's user: once another user is logged
    in, no stream opens for the page. A page drawn for nobody goes on after a login, without the user's own channel.
    """
    names = list(channels)
    user = getattr(request, "user", None)
    claims = _claims(names, current_namespace(request), None)
    if user is None:
        return _sign(claims)
    if not user.is_authenticated:
        claims["d"] = 0
    elif names:
        claims.update(_bound_to(user))
    else:
        claims["u"] = user_pk(user)
    return _sign(claims)


def sign_job(
    channel: str, namespace: str, *, owner: str | None = None, may_stop: bool = False, max_age: float | None = None
) -> str:
    """A token to watch a job, and with ``may_stop`` to stop it. ``owner``: the primary key of the only user who may use
    it; without one, anybody who has it may."""
    claims = _lasting([channel], namespace, max_age)
    if owner is not None:
        claims["o"] = owner
    if may_stop:
        claims["s"] = [channel]
    return _sign(claims)


def _claims(names: list[str], namespace: str, max_age: float | None) -> dict[str, Any]:
    for name in names:
        validate_name("channel", name)
    refuse_reserved(names)
    return _lasting(names, namespace, max_age)


def _lasting(names: list[str], namespace: str, max_age: float | None) -> dict[str, Any]:
    if max_age is None:
        max_age = live_settings().token_max_age_seconds
    if isinstance(max_age, bool) or not isinstance(max_age, (int, float)):
        raise TypeError(f"max_age is {max_age!r}; it must be a number of seconds, such as 3600.")
    if not max_age > 0:
        raise ValueError(f"max_age is {max_age!r}; it must be a positive number of seconds.")
    claims: dict[str, Any] = {"c": names, "a": max_age}
    if namespace:
        claims["n"] = namespace
    return claims


def _bound_to(user: Any) -> dict[str, Any]:
    return {"u": user_pk(user), "h": auth_digests(user)[:1]}


def _sign(claims: dict[str, Any]) -> str:
    return _signer().sign_object({**claims, "e": round(time.time() + claims["a"], 3)}, compress=True)


def _signer() -> signing.Signer:
    return signing.Signer(salt=TOKEN_SALT, sep=TOKEN_SEPARATOR)  # SECRET_KEY_FALLBACKS verify too


def is_signed(token: str) -> bool:
    """Whether this site has signed it; it may grant nothing any more."""
    try:
        _signer().unsign(token)
    except signing.BadSignature:
        return False
    return True


class Granted(NamedTuple):
    """What the tokens of a request grant."""

    channels: list[str]
    tokens: tuple[str, ...]  # fresh ones: one for all channels and, if several were brought, one for each
    is_drawn_for_nobody: bool = False  # so this stream does not hear the user's own channel
    stoppable: tuple[str, ...] = ()  # channels of jobs that may be stopped
    claims: str = ""  # a digest of what the tokens say, apart from their expiry


@sensitive_variables()
def grant(tokens: list[str], user: Any, namespace: str) -> Granted:
    """What these tokens grant to this user in this namespace. Raises Refused."""
    brought = _read_all(tokens)
    for claims in brought:
        if claims.get("n", "") != namespace:
            raise Refused(403, "token_of_another_namespace", "The token was made for another site than this one.")
        if "u" in claims:
            _check_bearer(claims, user)
        if "o" in claims and (user is None or user_pk(user) != claims["o"]):
            raise Refused(
                403,
                "token_of_another_user",
                "The token is for the owner of this job, who is not logged in here. Load the page again for a fresh "
                "one.",
            )
        if "h" in claims:
            claims.update(_bound_to(user))
    return _granted(brought)


@sensitive_variables()
def renew(tokens: list[str]) -> Granted:
    """What these tokens granted when they were last checked, and fresh ones. Raises Refused for an expired or invalid
    one."""
    return _granted(_read_all(tokens))


def _granted(brought: list[dict[str, Any]]) -> Granted:
    if not brought:
        return Granted([], ())
    said = json.dumps([{**claims, "e": 0} for claims in brought], sort_keys=True)
    whole = {key: value for claims in brought for key, value in claims.items()}
    whole["c"] = list(dict.fromkeys(name for claims in brought for name in claims["c"]))
    whole["a"] = min(claims["a"] for claims in brought)
    stoppable = tuple(dict.fromkeys(name for claims in brought for name in claims.get("s", ())))
    if stoppable:
        whole["s"] = stoppable
    fresh = [whole, *brought] if len(brought) > 1 else [whole]
    digest = sha256(said.encode()).hexdigest()[:32]
    return Granted(whole["c"], tuple(map(_sign, fresh)), "d" in whole, stoppable, digest)


def _read_all(tokens: list[str]) -> list[dict[str, Any]]:
    limit = live_settings().max_channels
    if len(tokens) > limit:  # each is verified and signed anew, on the loop
        raise Refused(
            400,
            "too_many_channels",
            f"{len(tokens)} tokens were brought; a stream may have {limit}, as it may have channels. Sign several "
            'channels with one token, or raise SSE_LIVE["MAX_CHANNELS"].',
        )
    return [_read(token) for token in tokens]


def _read(token: str) -> dict[str, Any]:
    """The claims of a token. Raises Refused for an invalid or expired one."""
    try:
        claims: dict[str, Any] = _signer().unsign_object(token)
    except signing.BadSignature:
        raise Refused(
            403,
            "token_invalid",
            "The token was not signed by this site: it is forged, cut short, or older than the oldest of "
            "SECRET_KEY_FALLBACKS. Load the page again for a fresh one.",
        ) from None
    if claims["c"] and claims["e"] <= time.time():
        raise Refused(
            403,
            "token_expired",
            "The token has expired. Load the page again, or fetch one from a view that calls sign_channels().",
        )
    return claims


def _check_bearer(claims: dict[str, Any], user: Any) -> None:
    if user is None and "h" not in claims:
        return  # the token does not grant what another user, who is not logged in now, could see
    if user is not None and user_pk(user) == claims["u"]:
        if "h" not in claims:
            return
        digests = auth_digests(user)
        if claims["h"] == digests[:1] or any(digest in digests for digest in claims["h"]):
            return
        detail = "The token was made before this user's password changed."
    else:
        detail = "The token was made for another user than the one who is logged in here."
    raise Refused(403, "token_of_another_user", f"{detail} Load the page again for a fresh one.")
