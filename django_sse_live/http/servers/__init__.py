"""The few things that ASGI does not say, per server. Only the files of this folder know servers by name.

Each function is given the server's own ``send``, and does nothing where it does not know what is behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

from ...conf import live_settings
from ...hub.reading import ClientHub, Writer
from ..types import Message, Send
from . import daphne, hypercorn, sockets, uvicorn
from .chunks import UNSENT_MAX_BYTES as UNSENT_MAX_BYTES
from .chunks import Chunks

BREATHING_TURNS: Final = 5  # of the loop


# Ends that a server tells by no signal


def watch_termination(hub: ClientHub, send: Any) -> None:
    """Have the hub's sweep ask whether the server is ending this worker: Hypercorn's workers get no signal, and Uvicorn
    ends one that has served its number of requests without any."""
    if hub.must_close is not None:
        return
    context = hypercorn.context_of(send)
    if context is not None:
        hub.must_close = context.terminated.is_set
        # It also logs a traceback when the kernel ends a connection, so that is done before the kernel does.
        hub.finds_silence = sockets.CAN_FIND_SILENCE
    elif uvicorn.is_cycle(send) or uvicorn.is_socket(send):
        hub.must_close = uvicorn.is_ending


def say_it_is_gone(send: Any) -> None:
    """After a RuntimeError from send(): have the server know that the client has left."""
    uvicorn.say_it_is_gone(send)


# Pace


class Flow(Protocol):
    """Where a server takes whatever it is given and lets it pile up: waits until the client has taken enough of it.

    Bounds what lies in the server for one client to UNSENT_MAX_BYTES and one more send.
    """

    async def ready(self) -> None:
        """After a send that others follow."""

    def end(self) -> None:
        """Before the last send. May be called twice."""


def flow_of(send: Any) -> Flow | None:
    """None for a server whose send() waits by itself."""
    if uvicorn.is_cycle(send):
        return None
    request = daphne.request_of(send)
    if request is not None:
        return daphne.TwistedFlow(request)
    socket = daphne.socket_of(send)
    if socket is not None:
        return daphne.SocketFlow(socket.transport)
    stream, protocol = hypercorn.h2_of(send)
    return None if stream is None else hypercorn.H2Flow(stream, protocol, UNSENT_MAX_BYTES)


def paced(send: Send, server_send: Any = None) -> Send:
    """``send``, or one that waits for the client where the server's own does not. ``server_send``: where it is another
    one."""
    flow = flow_of(send if server_send is None else server_send)
    return send if flow is None else _PacedSend(send, flow)


class _PacedSend:
    __slots__ = ("flow", "send")

    def __init__(self, send: Send, flow: Flow) -> None:
        self.send = send
        self.flow = flow

    async def __call__(self, message: Message) -> None:
        if not message.get("more_body"):
            self.flow.end()
            await self.send(message)
        else:
            await self.flow.ready()  # a writer may have filled it
            await self.send(message)
            await self.flow.ready()


# Writing


def writer_of(hub: ClientHub, send: Any, flow: Flow | None = None) -> Writer | None:
    """What writes past the server's send(), where the server is known. To be asked once the headers are sent."""
    if isinstance(send, _PacedSend):
        send, flow = send.send, send.flow
    chunks: Chunks = hub.parts.setdefault(Chunks, Chunks())
    return uvicorn.writer_of(send, chunks) or daphne.writer_of(send, flow, chunks)


async def breathe() -> None:
    """After a large send, which others follow: let the server notice that the client has left.

    Hypercorn needs some turns of the loop from the broken socket to http.disconnect, and waits for none of them while
    it is given more; asyncio warns of each write to a broken socket from the sixth on.
    """
    for _ in range(BREATHING_TURNS):
        await asyncio.sleep(0)


# WebSockets


def is_tls(send: Any) -> bool:
    """Whether the connection of a WebSocket is encrypted, where the scope does not say so: Daphne's."""
    return daphne.is_tls(send)


def without_compression(send: Any) -> None:
    """Before websocket.accept: permessage-deflate is not agreed on. It costs each idle connection 30 to 85 KiB, and a
    broadcast twice the CPU: what is encoded once for all would be compressed for each."""
    uvicorn.without_compression(send)
    hypercorn.without_compression(send)


# Connections


def tune_connection(hub: ClientHub, send: Any) -> None:
    """Ask the kernel to hold little that the peer has no room for, and to drop a peer that acknowledges nothing."""
    transport = _transport_of(send)
    if transport is not None:
        timeout = None if hub.finds_silence else 2 * live_settings().send_timeout_seconds
        sockets.tune(_handle_of(transport), timeout)


def abort_connection(
    peer: Sequence[Any] | None,
    send: Any,
    found: dict[Any, Any],
    *,
    if_unread: bool = False,
    if_silent_for: float | None = None,
) -> None:
    """Drop the connection of a client that does not read, so that the server lets go of it too.

    ``peer``: ``scope["client"]``. ``send``: the server's own, where it is at hand. ``found``: empty at first, shared by
    those that are asked at one moment. ``if_unread``: leave it alone if its peer has all that was written.
    ``if_silent_for``: leave it alone if its peer has acknowledged anything in so many seconds, or had nothing to.
    """
    stream, protocol = hypercorn.h2_of(send)
    if stream is not None and not if_unread and if_silent_for is None:  # the connection may carry other streams
        hypercorn.reset_stream(stream, protocol, _transport_of(send))
        return
    transport = _transport_of(send)
    if transport is None:
        if peer and if_silent_for is None:
            sockets.reset_by_peer((str(peer[0]), str(peer[1])), found, if_unread=if_unread)
        return
    descriptor = _descriptor_of(transport)
    if descriptor < 0 or (if_unread and not sockets.holds_unread(descriptor)):
        return
    if if_silent_for is not None and not sockets.is_silent(descriptor, if_silent_for):
        return
    sockets.reset_at_close(descriptor)
    if hasattr(transport, "abortConnection"):
        transport.abortConnection()
    else:
        transport.abort()


def _transport_of(send: Any) -> Any:
    """What carries the bytes: Daphne's is Twisted's; Uvicorn's and Hypercorn's are asyncio's. None if not found."""
    return uvicorn.transport_of(send) or daphne.transport_of(send) or hypercorn.transport_of(send)


def _handle_of(transport: Any) -> Any:
    """The socket of a transport, or None: it is closed already."""
    try:
        return transport.getHandle() if hasattr(transport, "getHandle") else transport.get_extra_info("socket")
    except (AttributeError, OSError, RuntimeError, ValueError):  # uvloop has words of its own for a closed one
        return None


def _descriptor_of(transport: Any) -> int:
    handle = _handle_of(transport)
    try:
        return -1 if handle is None else int(handle.fileno())
    except (OSError, RuntimeError, ValueError):
        return -1
