"""SocketMessages: gives a message on a WebSocket the meaning of a POST from its page.

The handshake and its request are over. Each message gets its own request, with what middleware set on the handshake's,
a fresh look at the session and the user, and the handshake's language and time zone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from typing import Any, Final, Protocol

from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils import timezone, translation

from ..hub.clients import Client
from ..identity import user_pk
from ..messages import Message, call_handler
from .csrf import check_origin
from .messages import MessageView, answer_message, told
from .refusals import Refused

# Attributes that belong to the handshake's request alone.
NOT_CARRIED: Final = frozenset({"session", "user", "auser", "_cached_user", "_acached_user", "_messages"})


class SocketView(MessageView, Protocol):
    request: HttpRequest


class SocketMessages:
    """The messages of one WebSocket, and the view that answer_message() asks for. Holds no request, so an idle socket
    costs little."""

    __slots__ = (
        "is_ended", "_carried", "_client_id", "_has_lookup", "_knew_session", "_language", "_namespace", "_scope",
        "_session", "_user_pk", "_view", "_zone",
    )  # fmt: skip

    def __init__(self, view: SocketView, request: ASGIRequest, client: Client) -> None:
        known = vars(request)
        self.is_ended: bool = False  # its user has logged out or lost access
        self._view = view
        self._client_id = client.id
        self._namespace = client.namespace
        self._user_pk = client.user_pk
        self._language = translation.get_language()  # the handshake's context ends with it
        self._zone = timezone.get_current_timezone()
        self._scope: Mapping[str, Any] = {**request.scope, "method": "POST", "extensions": {}}
        left_out = NOT_CARRIED | _names_of_any_request()
        self._carried: dict[str, Any] = {name: value for name, value in known.items() if name not in left_out}
        if (match := request.resolver_match) is not None:
            # Almost a KiB for each socket, so those of one url share it.
            self._carried["resolver_match"] = _match_of(match.func, match.route, request.path_info).setdefault(0, match)
        session: Any = known.get("session")
        self._session: tuple[type, str] | None = None
        self._knew_session = False
        if session is not None and session.session_key is not None:
            self._session = type(session), session.session_key
            self._knew_session = session.accessed
        # A user set by the project's middleware stays; Django's is looked up anew.
        found = known.get("_acached_user", known.get("_cached_user"))
        self._has_lookup = "auser" in known and (not view._is_default("get_user") or known.get("user") is found)
        if not self._has_lookup:
            self._carried.update({name: known[name] for name in ("user", "auser") if name in known})

    def end_handshake(self) -> None:
        """Forget the handshake's request."""
        self._view.request = None  # type: ignore[assignment]

    async def __call__(self, message: Mapping[str, Any], raw: bytes) -> dict[str, Any] | None:
        """Answer a message. Returns the members of the answer; None if the stream must end."""
        request = self._request(raw)
        self._view.request = request
        try:
            with translation.override(self._language), timezone.override(self._zone):
                answer = await answer_message(
                    self, request, message, client_id=self._client_id, namespace=self._namespace
                )
        finally:
            self._view.request = None  # type: ignore[assignment]
        if self.is_ended:
            return None
        to = message.get("id")
        said: dict[str, Any] = {"to": to if isinstance(to, str) else None, **answer.body}
        said.pop("id", None)
        if answer.status != 200:
            said["status"] = answer.status
            if "Retry-After" in answer.headers:
                said["retry"] = 1000 * int(answer.headers["Retry-After"])
        return said

    def _request(self, raw: bytes) -> ASGIRequest:
        request: Any = ASGIRequest(self._scope, BytesIO(raw))
        vars(request).update(self._carried)
        if self._session is not None:
            store, key = self._session
            request.session = store(key)
        elif self._has_lookup:
            request.session = import_module(settings.SESSION_ENGINE).SessionStore()
        if self._has_lookup:
            from django.contrib.auth.middleware import AuthenticationMiddleware

            AuthenticationMiddleware(_nothing).process_request(request)
        return request  # type: ignore[no-any-return]

    # The view

    def _is_default(self, method: str) -> bool:
        return self._view._is_default(method)

    @property
    def authorize(self) -> Callable[[HttpRequest, str], Any]:
        return self._view.authorize

    async def identify(self, request: HttpRequest) -> tuple[Any, tuple[str, ...]]:
        check_origin(request)  # ALLOWED_ORIGINS may open the socket, which gives no right to write by it
        session: Any = getattr(request, "session", None)
        is_gone = self._knew_session and not await session.akeys()
        user, fixed = await self._view.identify(request)
        if is_gone or (None if user is None else user_pk(user)) != self._user_pk:
            self.is_ended = True
            raise Refused(403, "revoked", "Your access has changed since the stream was opened.")
        return user, fixed

    async def receive(self, request: HttpRequest, message: Message) -> Any:
        try:
            answer = await call_handler(self._view.receive, request, message)
        except Exception as error:
            if told(error) is not None:
                await _save_session(request)
            raise
        await _save_session(request)
        return answer


async def _save_session(request: HttpRequest) -> None:
    """As SessionMiddleware does, without a cookie."""
    session: Any = getattr(request, "session", None)
    if session is not None and session.modified and session.session_key:
        try:
            await session.asave()
        except UpdateError:  # deleted meanwhile by a logout
            pass


def _nothing(request: HttpRequest) -> Any:
    return None


@lru_cache(maxsize=64)
def _match_of(func: Any, route: str, path: str) -> dict[int, Any]:
    return {}


@lru_cache(maxsize=1)
def _names_of_any_request() -> frozenset[str]:
    request = ASGIRequest({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}, BytesIO())
    request.GET, request.COOKIES, request.headers  # noqa: B018  # computed when they are first asked for
    return frozenset(vars(request)) - {"resolver_match"}
