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
from django.contrib.auth import SESSION_KEY
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

SAVED_BY_A_LOGIN: Final = frozenset({"last_login"})


def _revocation(**conditions: str) -> Event:
    """Conditions as Client.matches() has them."""
    return Event((CONTROL_CHANNEL,), REVOKE, json.dumps(conditions))


# Users


def _user_was_saved(
    *, instance: Any, created: bool, using: str, update_fields: Collection[str] | None = None, **_: Any
) -> None:
    """Nobody asks what the user was before: every worker compares its streams with what the user is now. Nor which
    fields were saved: in a project's own user model the session auth hash and is_active may be made of any."""
    if created or (update_fields is not None and SAVED_BY_A_LOGIN.issuperset(update_fields)):
        return
    if getattr(instance, "is_active", True):
        send_event(_revocation(user_pk=user_pk(instance), not_auth=auth_digest(instance)), using=using)
    else:
        send_event(_revocation(user_pk=user_pk(instance)), using=using)


def _user_was_deleted(*, instance: Any, using: str, **_: Any) -> None:
    send_event(_revocation(user_pk=user_pk(instance)), using=using)


# Sessions. Django sends no signal when one ends: user_logged_out comes before the flush, when the session would still
# let its clients in again, and only for a logout. So flush() itself is followed, in the classes that define it; and
# cycle_key(), after which a logout would look for the streams under another key than theirs.

FOLLOWED: Final = ("flush", "cycle_key")


def _follow_methods(store: type[SessionBase]) -> None:
    for owner in store.__mro__:
        for name, follow in [(name, _followed) for name in FOLLOWED] + [("a" + name, _afollowed) for name in FOLLOWED]:
            method = vars(owner).get(name)
            if method is not None and not hasattr(method, "__wrapped__"):
                setattr(owner, name, follow(method))


def _has_ended(session: Any) -> bool:
    """After one of them. A session that goes on under another key has not, if it is nobody's: so each login begins."""
    return not session.session_key or SESSION_KEY in session


def _followed(method: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(method)
    def call_and_revoke(session: Any) -> None:
        key = session.session_key
        method(session)
        if key and _has_ended(session):
            # Only a session that lives in a database can be brought back, by a rollback.
            model: type[Model] | None = getattr(session, "model", None)
            event = _revocation(session=session_digest(key))
            if model is None:
                get_backend().publish(event)
            else:
                send_event(event, using=router.db_for_write(model))

    return call_and_revoke


def _afollowed(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @wraps(method)
    async def call_and_revoke(session: Any) -> None:
        key = session.session_key
        await method(session)
        if key and _has_ended(session):
            await get_backend().apublish(_revocation(session=session_digest(key)))

    return call_and_revoke


def _follow_engine(*, setting: str = "SESSION_ENGINE", **_: Any) -> None:
    if setting == "SESSION_ENGINE":
        _follow_methods(import_module(settings.SESSION_ENGINE).SessionStore)


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
