"""What ends a stream from elsewhere: its session is flushed, or its user's password, activity or life is over.

Knows Django's users and sessions; carries what happened to every worker, after the commit that made it true. The
clients are not banned but asked to come back, so that the same checks as ever decide what they may hear now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import wraps
from importlib import import_module
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.signals import setting_changed
from django.db import router
from django.db.models import Model
from django.db.models.signals import post_delete, post_save

from .backends import get_backend
from .broadcasting import send_event
from .events import CONTROL_CHANNEL, Event
from .hub.hub import REVOKE
from .identity import auth_digest, session_digest, user_pk

DECIDING_FIELDS: Final = frozenset({"password", "is_active"})


def _revocation(**conditions: str) -> Event:
    """Conditions as Client.matches() has them."""
    return Event((CONTROL_CHANNEL,), REVOKE, json.dumps(conditions))


# Users


def _user_was_saved(
    *, instance: Any, created: bool, using: str, update_fields: Collection[str] | None = None, **_: Any
) -> None:
    """Nobody asks what the user was before: every worker compares its streams with what the user is now."""
    if created or (update_fields is not None and DECIDING_FIELDS.isdisjoint(update_fields)):
        return
    if getattr(instance, "is_active", True):
        send_event(_revocation(user_pk=user_pk(instance), not_auth=auth_digest(instance)), using=using)
    else:
        send_event(_revocation(user_pk=user_pk(instance)), using=using)


def _user_was_deleted(*, instance: Any, using: str, **_: Any) -> None:
    send_event(_revocation(user_pk=user_pk(instance)), using=using)


# Sessions. Django sends no signal when one ends: user_logged_out comes before the flush, when the session would still
# let its clients in again, and only for a logout. So flush() itself is followed, in the classes that define it.


def _follow_flush(store: type[SessionBase]) -> None:
    for owner in store.__mro__:
        for name, follow in (("flush", _followed), ("aflush", _afollowed)):
            flush = vars(owner).get(name)
            if flush is not None and not hasattr(flush, "__wrapped__"):
                setattr(owner, name, follow(flush))


def _followed(flush: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(flush)
    def flush_and_revoke(session: Any) -> None:
        key = session.session_key
        flush(session)
        if key:
            # Only a session that lives in a database can be brought back, by a rollback.
            model: type[Model] | None = getattr(session, "model", None)
            event = _revocation(session=session_digest(key))
            if model is None:
                get_backend().publish(event)
            else:
                send_event(event, using=router.db_for_write(model))

    return flush_and_revoke


def _afollowed(flush: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @wraps(flush)
    async def flush_and_revoke(session: Any) -> None:
        key = session.session_key
        await flush(session)
        if key:
            await get_backend().apublish(_revocation(session=session_digest(key)))

    return flush_and_revoke


def _follow_engine(*, setting: str = "SESSION_ENGINE", **_: Any) -> None:
    if setting == "SESSION_ENGINE":
        _follow_flush(import_module(settings.SESSION_ENGINE).SessionStore)


def connect() -> None:
    """Called once, when the app is ready. Without django.contrib.auth or sessions there is nothing to follow."""
    if apps.is_installed("django.contrib.auth"):
        from django.contrib.auth import get_user_model

        user_model = get_user_model()
        for model in apps.get_models():
            if issubclass(model, user_model):  # its proxies and children send signals of their own
                uid = f"django_sse_live.revocation:{model._meta.label}"
                post_save.connect(_user_was_saved, sender=model, dispatch_uid=uid)
                post_delete.connect(_user_was_deleted, sender=model, dispatch_uid=uid)
    if "django.contrib.sessions.middleware.SessionMiddleware" in settings.MIDDLEWARE or apps.is_installed(
        "django.contrib.sessions"
    ):
        _follow_engine()
        setting_changed.connect(_follow_engine, dispatch_uid="django_sse_live.revocation")
