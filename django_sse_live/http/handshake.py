"""The handshake of a WebSocket as the GET of its stream: whether it is allowed to ask, and what was answered.

No code of Django's request handling runs before refusal_of(). Middleware and view then see an ordinary request.
"""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from typing import Any, Final

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIHandler, ASGIRequest

from ..conf import live_settings
from .accept import EVENT_STREAM
from .cors import own_origin
from .servers import is_tls
from .types import Message, Scope, Send

# Headers of the connection, and of a body, which a handshake does not have.
LEFT_OUT: Final = frozenset({b"connection", b"upgrade", b"accept", b"content-length", b"transfer-encoding", b"te"})
# All together. Hypercorn takes no more; with Uvicorn a client may send a MiB, and the server keeps it twice.
HEADERS_MAX_BYTES: Final = 64 * 1024
REFUSAL_MAX_BYTES: Final = 16 * 1024  # of the JSON body of a refusal


def as_get(scope: Scope, send: Send) -> dict[str, Any]:
    """The scope of the GET that this WebSocket stands for. ``send``: the server's own."""
    scheme = scope.get("scheme") or ("wss" if is_tls(send) else "ws")
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name not in LEFT_OUT and not name.startswith(b"sec-websocket-")
    ]
    request = {
        **scope,
        "type": "http",
        "method": "GET",
        "scheme": "https" if scheme in ("wss", "https") else "http",
        "http_version": scope.get("http_version", "1.1"),
        "headers": [*headers, (b"accept", EVENT_STREAM.encode())],
    }
    request.pop("subprotocols", None)
    return request


def is_plain_django(application: Any) -> bool:
    """Whether this is Django's own handler, with or without static files: it knows no WebSocket."""
    inner = getattr(application, "application", None)
    return isinstance(application, ASGIHandler) and (inner is None or is_plain_django(inner))


def refusal_of(scope: Scope) -> str | None:
    """Why this handshake is denied, as a word for metrics; None if it may ask. ``scope``: as as_get() makes it."""
    if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADERS_MAX_BYTES:
        return "headers_too_long"  # they would stay as long as the socket
    return None if may_ask(scope) else "foreign_origin"


def may_ask(scope: Scope) -> bool:
    """Whether a page of this origin may open a WebSocket here. Browsers let any page open one, with the visitor's
    cookies. ``scope``: as as_get() makes it."""
    headers = scope["headers"]
    origins = [value for name, value in headers if name == b"origin"]
    if not origins:  # not a browser
        is_bearer = any(name == b"authorization" and value[:7].lower() == b"bearer " for name, value in headers)
        return is_bearer or not any(name == b"cookie" and value.strip() for name, value in headers)
    if len(origins) > 1:
        return False
    origin = origins[0].decode("latin-1")
    if origin in live_settings().allowed_origins:
        return True
    try:
        return bool(origin == own_origin(ASGIRequest(scope, BytesIO())))
    except (DisallowedHost, UnicodeDecodeError):
        return False


class Handshake:
    """Receive and send of that GET. Keeps the answer, if it is this package's."""

    def __init__(self) -> None:
        self.cookies: list[tuple[bytes, bytes]] = []
        self.status: int = 0
        # done once no answer is wanted any more
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._error = b""
        self._retry_after = 0
        self._body = b""
        self._is_asked = False

    def leave(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    async def receive(self) -> Message:
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.shield(self.gone)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message.get("headers", ()):
                name = name.lower()
                if name == b"set-cookie":
                    self.cookies.append((name, value))
                elif name == b"sse-live-error":
                    self._error = value
                elif name == b"retry-after" and value.isdigit():
                    self._retry_after = int(value)
        elif message["type"] == "http.response.body":
            if not self._error:
                self.leave()  # a response of the project's own, which may be endless
            elif len(self._body) < REFUSAL_MAX_BYTES:
                self._body += message.get("body", b"")

    @property
    def refusal(self) -> dict[str, Any] | None:
        """What a page must know about a refusal by this package, as the members of a goodbye. None for any other
        response, and for a redirect."""
        if self.status == 204:  # the request's id is that of a final goodbye
            return {"reason": "final", "reconnect": False}
        if not self._error:
            return None
        said: dict[str, Any] = {"reason": self._error.decode("latin-1"), "reconnect": self.status in (429, 503)}
        if said["reconnect"]:
            said["retry"] = 1000 * self._retry_after or live_settings().retry_ms
        try:
            said["detail"] = json.loads(self._body)["detail"]
        except (ValueError, KeyError, TypeError):
            pass
        return {**said, "status": self.status}
