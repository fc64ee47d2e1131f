"""StreamClient: Django's test client, which can open streams and send messages, with an application or without."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.http import StreamingHttpResponse
from django.test import AsyncClient

from ..asgi import live_application
from ..conf import live_settings
from ..http.types import ASGIApplication, Scope
from .broadcasts import send_committed_broadcasts
from .exchanges import TIMEOUT_SECONDS, Exchange, SocketExchange, keep_transactions
from .streams import MessageRefused, Stream, StreamRefused

Query = Mapping[str, str | Iterable[str]] | str


class StreamClient(AsyncClient):
    """Django's AsyncClient (``force_login()``, cookies, headers …) that can also open streams and send messages.

    ``application``: an ASGI application that streams are asked of, such as the project's own with live_application
    around it. Without one they go the way of all requests of Django's test client, through middleware and view.
    ``transport``: what carries the streams, ``"sse"`` or ``"websocket"``. The latter needs an application that serves
    WebSockets; without one it is live_application around Django's.
    """

    def __init__(
        self,
        *args: Any,
        application: ASGIApplication | None = None,
        transport: Literal["sse", "websocket"] = "sse",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if application is None and transport == "websocket":
            application = live_application(get_asgi_application())
        self.application = application
        self.transport = transport

    @asynccontextmanager
    async def stream(
        self,
        path: str = "/events/",
        query: Query = "",
        *,
        last_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Stream]:
        """A Stream, closed at the end of the block.

        ``query``: parameters, such as ``{"channel": ["news", "comments"]}``, unless the path has its own after a ``?``.
        ``last_id``: the Last-Event-ID of the request.

        A WebSocket has this site's ``Origin``, unless ``headers`` give another one, or ``""`` for none. If it is denied
        access, ``connected`` is None and the first event is a goodbye.

        StreamRefused for an answer that is no stream.
        """
        await sync_to_async(send_committed_broadcasts)()  # what was saved before is not news to this stream
        headers = {"Accept": "text/event-stream", **(headers or {})}
        if last_id:
            headers["Last-Event-ID"] = last_id
        url = _url(path, query)
        socket = None
        await sync_to_async(keep_transactions)()
        if self.application is None:
            body = await self._ask_django(url, headers)
        elif self.transport == "websocket":
            socket = await self._open_socket(self.application, url, headers)
            body = socket.body()
        else:
            body = await self._ask_application(self.application, url, headers)
        stream = Stream(
            body,
            socket,
            headers.get("Last-Event-ID", ""),
            lambda last_id: self.stream(path, query, headers=headers, last_id=last_id),
            partial(self.send, path=path, query=query, headers={k: v for k, v in headers.items() if k != "Accept"}),
        )
        try:
            first = await stream.next(timeout=TIMEOUT_SECONDS)
            if first.type == "connected":
                stream.connected = first
            else:
                stream._put_back = first
            yield stream
        finally:
            await stream.close()

    async def send(
        self,
        type: str,
        data: Any = None,
        *,
        channel: str | None = None,
        path: str = "/events/",
        query: Query = "",
        id: str | None = None,
        client_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a message by POST, without a stream beside it. Gives the data of its answer.

        ``id``: of a message that is sent again; by default a new one.

        MessageRefused for any other answer than 200.
        """
        said = {"id": id or uuid4().hex, "type": type, "channel": channel, "data": data, "client_id": client_id}
        body = json.dumps(said, cls=live_settings().json_encoder).encode()
        url = _url(path, query)
        if self.application is None:
            response: Any = await self.generic("POST", url, body, "application/json", headers=dict(headers or {}))
            status, content = response.status_code, response.content
        else:
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
            scope = self._scope(url, headers)
            scope["method"] = "POST"
            await sync_to_async(keep_transactions)()
            exchange = Exchange(self.application, scope, body)
            status = await exchange.status()
            content = b"".join([chunk async for chunk in exchange.body()])
        if status != 200:
            raise MessageRefused(status, content)
        return json.loads(content)["data"]

    async def _ask_django(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        response: Any = await self.get(url, headers=dict(headers))
        if not isinstance(response, StreamingHttpResponse):
            raise StreamRefused(response.status_code, response.content)
        return aiter(response)

    def _base_scope(self, **request: Any) -> Scope:
        """Django's, with one Cookie header at most: Django 5.2 joins several with a comma, which no cookie survives."""
        scope: Scope = super()._base_scope(**request)  # type: ignore[misc]
        cookies = [value for name, value in scope["headers"] if name == b"cookie" and value]
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"cookie"]
        if cookies:
            scope["headers"].append((b"cookie", b"; ".join(cookies)))
        return scope

    def _scope(self, url: str, headers: Mapping[str, str]) -> Scope:
        parts = urlsplit(url)
        return self._base_scope(
            path=parts.path,
            raw_path=parts.path.encode(),
            query_string=parts.query.encode(),
            headers=[(b"host", b"testserver"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
        )

    async def _open_socket(self, application: ASGIApplication, url: str, headers: Mapping[str, str]) -> SocketExchange:
        scope = self._scope(url, {"Origin": "http://testserver", **headers})
        scope["headers"] = [header for header in scope["headers"] if header != (b"origin", b"")]
        scope.update(type="websocket", scheme="ws", subprotocols=[])
        del scope["method"]
        exchange = SocketExchange(application, scope)
        if not await exchange.is_accepted():
            raise StreamRefused(403, b"")
        return exchange

    async def _ask_application(
        self, application: ASGIApplication, url: str, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        scope = self._scope(url, headers)
        exchange = Exchange(application, scope)
        status = await exchange.status()
        if status != 200:
            raise StreamRefused(status, b"".join([chunk async for chunk in exchange.body()]))
        return exchange.body()


def _url(path: str, query: Query) -> str:
    return path if not query else f"{path}?{query if isinstance(query, str) else urlencode(query, doseq=True)}"
