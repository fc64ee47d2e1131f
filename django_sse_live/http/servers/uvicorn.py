"""Uvicorn, and Gunicorn with Uvicorn's worker. Its ``send`` is a method of the cycle of one request."""

from __future__ import annotations

import copy
import signal
from typing import Any

from .chunks import UNSENT_MAX_BYTES, Chunks


def is_cycle(send: Any) -> bool:
    cycle = getattr(send, "__self__", None)
    return hasattr(cycle, "keep_alive") and hasattr(cycle, "disconnected")


def is_socket(send: Any) -> bool:
    """Whether it is a send() of one of Uvicorn's WebSocket protocols: wsproto, websockets-sansio, websockets."""
    return hasattr(getattr(getattr(send, "__self__", None), "config", None), "ws_per_message_deflate")


def without_compression(send: Any) -> None:
    if not is_socket(send):
        return
    protocol: Any = send.__self__
    if hasattr(protocol, "available_extensions"):  # websockets: the list that the handshake will read
        protocol.available_extensions.clear()
    elif hasattr(getattr(protocol, "response", None), "headers"):  # websockets-sansio: already agreed on
        protocol.response.headers.pop("Sec-WebSocket-Extensions", None)
        protocol.conn.extensions = []
    # wsproto: agreed on at the accept; other connections share the configuration
    elif protocol.config.ws_per_message_deflate:
        protocol.config = copy.copy(protocol.config)
        protocol.config.ws_per_message_deflate = False


def bound_messages(send: Any, max_bytes: int) -> None:
    if not is_socket(send):
        return
    protocol: Any = send.__self__
    if hasattr(protocol, "max_size"):  # websockets
        protocol.max_size = min(protocol.max_size or max_bytes, max_bytes)
    elif hasattr(getattr(protocol, "conn", None), "max_message_size"):  # websockets-sansio
        protocol.conn.max_message_size = min(protocol.conn.max_message_size or max_bytes, max_bytes)
    elif hasattr(getattr(protocol, "buffer", None), "max_length"):  # wsproto
        protocol.buffer.max_length = min(protocol.buffer.max_length, max_bytes)


def transport_of(send: Any) -> Any:
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    return transport if hasattr(transport, "abort") else None


class CycleWriter:
    """Bypasses send(): writes to the transport what send() would write at once to a response that goes on.

    The cycle and its flow control are asked each time, to notice when the server pauses, closes, or gets another
    request on the connection. h11 shows no such state, so it gets no writer.
    """

    __slots__ = ("_chunks", "_cycle", "_flow", "_holds_more", "_protocol", "_transport")

    def __init__(self, cycle: Any, protocol: Any, chunks: Chunks) -> None:
        self._cycle = cycle
        self._flow: Any = cycle.flow
        self._protocol = protocol
        self._transport: Any = cycle.transport
        self._chunks = chunks
        # A transport that pauses at UNSENT_MAX_BYTES or earlier (all but TLS) need not be asked for its size.
        self._holds_more: bool = self._transport.get_write_buffer_limits()[1] > UNSENT_MAX_BYTES

    def has_room(self) -> bool:
        cycle, transport = self._cycle, self._transport
        return (
            self._protocol.cycle is cycle
            and not cycle.response_complete
            and not self._flow.write_paused
            and not transport.is_closing()
            and (not self._holds_more or transport.get_write_buffer_size() < UNSENT_MAX_BYTES)
        )

    def write(self, chunk: bytes) -> None:
        self._transport.write(self._chunks.framed(chunk))


def writer_of(send: Any, chunks: Chunks) -> CycleWriter | None:
    """A writer; None for h11, whose cycle does not tell how its response is framed, and for any other send."""
    cycle = getattr(send, "__self__", None)
    transport: Any = transport_of(send)
    protocol = transport.get_protocol() if hasattr(transport, "get_protocol") else None
    if (
        getattr(cycle, "chunked_encoding", None) is not True
        or not hasattr(getattr(cycle, "flow", None), "write_paused")
        or not hasattr(transport, "get_write_buffer_size")
        or not hasattr(transport, "get_write_buffer_limits")
        or getattr(protocol, "cycle", None) is not cycle
    ):
        return None
    return CycleWriter(cycle, protocol, chunks)


def say_it_is_gone(send: Any) -> None:
    """After a RuntimeError from send(): tell Uvicorn that the client has left, else it calls the response unfinished.
    It does not know if the client had sent another request on the connection: its send() then raises RuntimeError."""
    cycle: Any = getattr(send, "__self__", None)
    if hasattr(cycle, "disconnected"):
        cycle.disconnected = True


def is_ending() -> bool:
    """Whether this process's server shuts down: by a signal, or silently, after its number of requests
    (``--limit-max-requests``, Gunicorn's ``max_requests``)."""
    server = _server()
    if server is None:
        return False
    listeners = server.servers
    return bool(server.should_exit) or bool(listeners and not any(each.is_serving() for each in listeners))


def _server() -> Any:
    """uvicorn.Server, found by its signal handler; a server in another thread has none."""
    handler: Any = signal.getsignal(signal.SIGTERM)
    while hasattr(handler, "before"):  # this package's handlers wrap it, and each other
        handler = handler.before
    server = getattr(handler, "__self__", None)
    return server if hasattr(server, "should_exit") and hasattr(server, "servers") else None
