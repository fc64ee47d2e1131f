"""Hypercorn. Its ``send`` is a method of the HTTP stream, which leads to its protocol, and on to the TCP server."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from .chunks import UNSENT_MAX_BYTES

BUFFER_POLL_SECONDS: Final = 0.02

logger: logging.Logger = logging.getLogger("django_sse_live")


def context_of(send: Any) -> Any:
    """The worker's context, which knows when the worker ends; None if not found."""
    context = getattr(getattr(send, "__self__", None), "context", None)
    return context if hasattr(getattr(context, "terminated", None), "is_set") else None


def transport_of(send: Any) -> Any:
    server = getattr(send, "__self__", None)
    for _ in range(3):  # HTTPStream → its protocol → TCPServer
        transport = getattr(getattr(server, "writer", None), "transport", None)
        if hasattr(transport, "abort"):
            return transport
        server = getattr(getattr(server, "send", None), "__self__", None)
    return None


def h2_of(send: Any) -> tuple[Any, Any]:
    """The HTTPStream and the H2Protocol; (None, None) if it is not HTTP/2."""
    stream = getattr(send, "__self__", None)
    protocol = getattr(getattr(stream, "send", None), "__self__", None)
    return (stream, protocol) if hasattr(protocol, "stream_buffers") else (None, None)


def without_compression(send: Any) -> None:
    handshake: Any = getattr(getattr(send, "__self__", None), "handshake", None)
    if hasattr(handshake, "extensions"):
        handshake.extensions = None


def bound_messages(send: Any, max_bytes: int) -> None:
    buffer: Any = getattr(getattr(send, "__self__", None), "buffer", None)
    if hasattr(getattr(send, "__self__", None), "handshake") and hasattr(buffer, "max_length"):
        buffer.max_length = min(buffer.max_length, max_bytes)


class H2Flow:
    """Waits for an HTTP/2 stream's buffer, which is unbounded here: its push() waits for an event that is always
    set."""

    __slots__ = ("_protocol", "_stream")

    def __init__(self, stream: Any, protocol: Any) -> None:
        self._stream = stream
        self._protocol = protocol

    async def ready(self) -> None:
        while not self._stream.closed:
            buffer = self._protocol.stream_buffers.get(self._stream.stream_id)
            if buffer is None or len(buffer.buffer) <= UNSENT_MAX_BYTES:
                break
            await asyncio.sleep(BUFFER_POLL_SECONDS)

    def end(self) -> None:
        pass


def reset_stream(stream: Any, protocol: Any, transport: Any) -> None:
    """End one stream of an HTTP/2 connection."""
    try:
        protocol.connection.reset_stream(stream.stream_id)
    except Exception as error:  # h2's errors, which may not be installed; each means that it is closed
        logger.debug("The HTTP/2 stream %s was not reset: %r", stream.stream_id, error)
        return
    buffer = protocol.stream_buffers.get(stream.stream_id)
    if buffer is not None:
        buffer.buffer.clear()  # H2Flow waits for this buffer, which is never sent
    if transport is not None:
        transport.write(protocol.connection.data_to_send())
