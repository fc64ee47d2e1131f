"""The user of a request: who it is, and whether something has asked that before the view.

Django's own lazy user is looked up without a thread. Tokens and channels are unknown here.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.utils.functional import LazyObject, SimpleLazyObject


def is_lookup_of_django(user: Any) -> bool:
    """Whether this is the lazy object of Django's AuthenticationMiddleware, for which auser() needs no thread."""
    # vars(), since any other attribute access would make the lookup.
    return isinstance(user, SimpleLazyObject) and (
        getattr(vars(user).get("_setupfunc"), "__module__", None) == "django.contrib.auth.middleware"
    )


async def request_user(request: HttpRequest) -> Any:
    """``request.user`` if it is authenticated, else None. A later middleware may have replaced it, for example while a
    second factor is missing. Afterwards ``request.user`` is no longer lazy, so async code may use it."""
    known = request.__dict__
    if "user" not in known and hasattr(request, "auser"):
        request.user = await request.auser()
        return _authenticated(request.user)
    user = getattr(request, "user", None)
    if is_lookup_of_django(user):
        request.user = known["_cached_user"] if "_cached_user" in known else await request.auser()
        return _authenticated(request.user)
    if isinstance(user, LazyObject):
        return await sync_to_async(_authenticated)(user)
    return _authenticated(user)


def _authenticated(user: Any) -> Any:
    return user if getattr(user, "is_authenticated", False) else None


def was_looked_at(request: HttpRequest) -> bool:
    """Whether code before the view may have looked the user up."""
    user = request.__dict__.get("user")
    session = getattr(request, "session", None)
    return "_session_cache" in getattr(session, "__dict__", {}) or not (user is None or is_lookup_of_django(user))


def put_user(request: HttpRequest, user: Any) -> Any:
    """Set the request's user, for the hooks after get_user(). Returns it if it is authenticated, else None. TypeError
    for what is no user, such as a name: nobody would be let in, in silence."""
    from django.contrib.auth.models import AnonymousUser  # a model's module: only after all apps are loaded

    async def auser() -> Any:
        return user

    if user is None:
        user = AnonymousUser()
    if not hasattr(user, "is_authenticated"):
        raise TypeError(f"get_user() returned a {type(user).__name__}; it must return a user, or None.")
    request.user = user
    request.auser = auser
    return _authenticated(user)
