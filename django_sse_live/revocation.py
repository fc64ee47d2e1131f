"""What ends a stream from elsewhere: its session is flushed, or its user's password, activity or life is over.

Knows Django's users and sessions; carries what happened to every worker, after the commit that made it true. The
clients are not banned but asked to come back, so that the same checks as ever decide what they may hear now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends import signed_cookies
from django.contrib.sessions.backends.base import SessionBase
from django.core.signals import setting_changed
from django.db import router
from django.db.models import Model
from django.db.models.signals import post_delete, post_save

from .backends import get_backend
from .broadcasting import send_event
from .events import REVOKE, Event, control_event
from .identity import auth_marks, session_digest, user_pk
from .namespaces import namespace_condition
from .savepoints import undone_if_it_fails

logger: logging.Logger = logging.getLogger("django_sse_live")

SAVED_BY_A_LOGIN: Final = frozenset({"last_login"})


def _user_revocation(pk: str, **conditions: str) -> Event:
    """Of that user in the running code's namespace. Where NAMESPACE does not know it, in all of them: their streams
    come back, while a revocation that is not made would leave one open. ``conditions``: further ones, as
    ClientInfo.matches() has them."""
    try:
        namespace = namespace_condition(by_user=True)
    except Exception as error:  # of project code, which must not make the save fail
        logger.warning(
            'SSE_LIVE["NAMESPACE"] failed as user %s was saved, deleted or logged out: the streams of that key are '
            "checked again in every namespace: %r",
            pk,
            error,
        )
        namespace = {}
    return control_event(REVOKE, {"user_pk": pk, **conditions, **namespace})


# Users


def _user_was_saved(
    *, instance: Any, created: bool, using: str, update_fields: Collection[str] | None = None, **_: Any
) -> None:
    """Nobody asks what the user was before: every worker compares its streams with what the user is now. Nor which
    fields were saved: in a project's own user model the session auth hash and is_active may be made of any."""
    if created or (update_fields is not None and SAVED_BY_A_LOGIN.issuperset(update_fields)):
        return
    send_event(_user_revocation(user_pk(instance), **_what_goes_on(instance)), using=using)


def _what_goes_on(user: Any) -> dict[str, str]:
    """The condition by which streams of a user who was just saved go on; none where nobody can tell: then all of them
    are checked again. An attribute may be what the database is yet to make something of, such as "False" or F()."""
    try:
        with undone_if_it_fails():
            return {"not_auth": auth_marks(user)} if getattr(user, "is_active", True) in (True,) else {}
    except Exception as error:  # of a user model's own code, which must not make the save fail
        logger.warning(
            "The session auth hash of user %s failed as it was saved: their streams are checked again: %r",
            user_pk(user),
            error,
        )
        return {}


def _user_was_deleted(*, instance: Any, using: str, **_: Any) -> None:
    send_event(_user_revocation(user_pk(instance)), using=using)


# Sessions. Django sends no signal when one ends: user_logged_out comes before the flush, when the session would still
# let its clients in again, and only for a logout. So flush() itself is followed, in the classes that define it;
# delete(), by which one session ends another; and cycle_key(), after which a logout would look for the streams under
# another key than theirs.

FOLLOWED_METHODS: Final = ("flush", "cycle_key", "delete")
IS_FOLLOWED: Final = "_django_sse_live_is_followed"  # of a session, while one of them runs, which may call another


def _follow_methods(store: type[SessionBase]) -> None:
    for owner in store.__mro__:
        for name in FOLLOWED_METHODS:
            for attribute, follow in ((name, _followed), (f"a{name}", _afollowed)):
                method = vars(owner).get(attribute)
                if method is not None and not hasattr(method, "__wrapped__"):
                    setattr(owner, attribute, follow(method, is_delete=name == "delete"))


def _followed(method: Callable[..., None], *, is_delete: bool) -> Callable[..., None]:
    @wraps(method)
    def call_and_revoke(session: Any, session_key: str | None = None) -> None:
        with _revoking(session, session_key, is_delete=is_delete) as revocations:
            method(session, *([] if session_key is None else [session_key]))
        # Only a session that lives in a database can be brought back, by a rollback.
        model: type[Model] | None = getattr(session, "model", None)
        for revocation in revocations:
            if model is None:
                get_backend().publish(revocation)
            else:
                send_event(revocation, using=router.db_for_write(model))

    return call_and_revoke


def _afollowed(method: Callable[..., Any], *, is_delete: bool) -> Callable[..., Any]:
    @wraps(method)
    async def call_and_revoke(session: Any, session_key: str | None = None) -> None:
        with _revoking(session, session_key, is_delete=is_delete) as revocations:
            await method(session, *([] if session_key is None else [session_key]))
        for revocation in revocations:
            await get_backend().apublish(revocation)

    return call_and_revoke


@contextmanager
def _revoking(session: Any, session_key: str | None, *, is_delete: bool) -> Iterator[list[Event]]:
    """A list that has, after the block, what is to be said of the session's end; nothing inside of another block."""
    revocations: list[Event] = []
    if hasattr(session, IS_FOLLOWED):
        yield revocations
        return
    end = _End(session, session_key)
    setattr(session, IS_FOLLOWED, True)
    try:
        yield revocations
    finally:
        delattr(session, IS_FOLLOWED)
    if end.has_come(session, is_delete):
        revocations.append(end.revocation())


class _End:
    """What the streams of a session are known by, before something is done that may end it."""

    def __init__(self, session: Any, session_key: str | None) -> None:
        self.key: str | None = session_key or session.session_key
        # A cookie that holds the session is another one after each change: its streams are known by another key, and
        # have nothing in common with it but the user.
        is_cookie = isinstance(session, signed_cookies.SessionStore)
        self.user: str | None = session.get(SESSION_KEY) if is_cookie and self.key else None

    def has_come(self, session: Any, is_delete: bool) -> bool:
        """A session that goes on under another key has not ended, if it is nobody's: so each login begins."""
        return bool(self.key) and (is_delete or not session.session_key or SESSION_KEY in session)

    def revocation(self) -> Event:
        assert self.key is not None
        if self.user is None:
            return control_event(REVOKE, {"session": session_digest(self.key)})
        from django.contrib.auth import get_user_model

        return _user_revocation(user_pk(get_user_model()._meta.pk.to_python(self.user)))


def _follow_engine(*, setting: str = "SESSION_ENGINE", **_: Any) -> None:
    if setting == "SESSION_ENGINE":
        _follow_methods(import_module(settings.SESSION_ENGINE).SessionStore)


def connect() -> None:
    """Called once, when the app is ready. Without django.contrib.auth or sessions there is nothing to follow."""
    if apps.is_installed("django.contrib.auth"):
        from django.contrib.auth import get_user_model

        concrete: Any = get_user_model()._meta.concrete_model
        parents = [parent for parent in concrete._meta.get_parent_list() if hasattr(parent, "get_session_auth_hash")]
        for model in apps.get_models():
            if issubclass(model, (concrete, *parents)):  # its proxies, children and parents send signals of their own
                uid = f"django_sse_live.revocation:{model._meta.label}"
                post_save.connect(_user_was_saved, sender=model, dispatch_uid=uid)
                post_delete.connect(_user_was_deleted, sender=model, dispatch_uid=uid)
    if "django.contrib.sessions.middleware.SessionMiddleware" in settings.MIDDLEWARE or apps.is_installed(
        "django.contrib.sessions"
    ):
        _follow_engine()
        setting_changed.connect(_follow_engine, dispatch_uid="django_sse_live.revocation")
