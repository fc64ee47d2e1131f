"""Daphne. Its ``send`` is a partial of the Twisted request, and writes without asking for room."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from .chunks import Chunks


def request_of(send: Any) -> Any:
    """The Twisted request behind Daphne's send; None if there is none."""
    request = send.args[0] if isinstance(send, partial) and send.args else None
    return request if hasattr(request, "registerProducer") and getattr(request, "channel", None) is not None else None


def socket_of(send: Any) -> Any:
    """Autobahn's WebSocket protocol behind Daphne's send; None if there is none."""
    protocol = send.args[0] if isinstance(send, partial) and send.args else None
    return protocol if hasattr(protocol, "sendMessage") and hasattr(protocol, "transport") else None


def is_tls(send: Any) -> bool:
    """Whether a WebSocket's connection is encrypted: Daphne's scope does not say so."""
    transport = getattr(socket_of(send), "transport", None)
    return hasattr(transport, "getPeerCertificate")  # Twisted's ISSLTransport


def transport_of(send: Any) -> Any:
    transport = getattr(getattr(request_of(send), "channel", None) or socket_of(send), "transport", None)
    return transport if hasattr(transport, "abortConnection") and hasattr(transport, "getHandle") else None


class TwistedFlow:
    """Asks Twisted to say when its transport is full: IPushProducer."""

    __slots__ = ("_request", "_resumed")

    def __init__(self, request: Any) -> None:
        self._request: Any = request
        self._resumed: asyncio.Future[None] | None = None  # exists while the transport is full
        request.registerProducer(self, True)

    @property
    def is_paused(self) -> bool:
        return self._resumed is not None

    async def ready(self) -> None:
        if self._resumed is not None:
            await self._resumed

    def end(self) -> None:
        request, self._request = self._request, None
        if request is not None and getattr(request, "channel", request) is not None:
            request.unregisterProducer()  # Request.finish() demands it

    def pauseProducing(self) -> None:
        if self._resumed is None:
            self._resumed = asyncio.get_running_loop().create_future()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.done():
            resumed.set_result(None)

    stopProducing = resumeProducing  # called when the connection is lost


class RequestWriter:
    """Bypasses send() and Request.write(): writes to the channel of a request whose response goes on and has room."""

    __slots__ = ("_channel", "_chunks", "_flow", "_plain", "_request")

    def __init__(self, request: Any, flow: TwistedFlow, chunks: Chunks) -> None:
        self._request = request
        self._channel: Any = request.channel
        # Only a socket's own transport. The type is compared, since a TLS wrapper passes every attribute on.
        transport: Any = self._channel.transport
        is_plain = hasattr(type(transport), "writeSomeData") and not getattr(transport, "TLS", False)
        self._plain: Any = transport if is_plain and hasattr(transport, "_tempDataBuffer") else None
        self._flow = flow
        self._chunks = chunks

    def has_room(self) -> bool:
        request = self._request
        return (
            not self._flow.is_paused
            and bool(request.chunked)  # known once the body has begun
            and request.channel is self._channel
            and not request.finished
        )

    def write(self, chunk: bytes) -> None:
        self._request.sentLength += len(chunk)  # for the access log
        framed = self._chunks.framed(chunk)
        transport, sent = self._plain, 0
        if transport is not None and transport.connected and not (transport.dataBuffer or transport._tempDataBuffer):
            # Written at once: asking the reactor when the socket is writable costs more than the write. An error is no
            # number, or negative; the reactor meets it again, and ends the connection.
            sent = transport.writeSomeData(framed)
            sent = sent if isinstance(sent, int) and sent > 0 else 0
        if sent < len(framed):
            self._channel.write(framed[sent:])


def writer_of(send: Any, flow: Any, chunks: Chunks) -> RequestWriter | None:
    request = request_of(send)
    is_known = all(hasattr(request, name) for name in ("chunked", "finished", "sentLength"))
    return RequestWriter(request, flow, chunks) if is_known and isinstance(flow, TwistedFlow) else None


class SocketFlow(TwistedFlow):
    """Of a WebSocket, whose transport still calls the HTTP channel of the handshake."""

    __slots__ = ()

    def __init__(self, transport: Any) -> None:
        transport.unregisterProducer()
        super().__init__(transport)
