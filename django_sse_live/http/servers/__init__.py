"""The few things that ASGI does not cover, per server. Only the files of this folder know servers by name.

Each function gets the server's own ``send``, and does nothing for an unknown server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ...conf import live_settings
from ...hub.reading import ClientHub, Writer
from ..types import Message, Send
from . import daphne, hypercorn, sockets, uvicorn
from .chunks import UNSENT_MAX_BYTES as UNSENT_MAX_BYTES
from .chunks import Chunks
from .daphne import is_tls as is_tls
from .sockets import PeerResets
from .uvicorn import say_it_is_gone as say_it_is_gone

BREATHING_TURNS: Final = 5  # turns of the loop
# Of one that the server gathers before it hands it on: as much as Daphne takes, for our client sends 64 KiB at most.
SOCKET_MESSAGE_MAX_BYTES: Final = 1024 * 1024


# Ends without a signal


def watch_termination(hub: ClientHub, send: Any) -> None:
    """Let the hub's sweep ask whether the server ends this worker. Hypercorn sends its workers no signal; nor does
    Uvicorn send one when a worker has served its number of requests."""
    if hub.must_close is not None:
        return
    context = hypercorn.context_of(send)
    if context is not None:
        hub.must_close = context.terminated.is_set
        # It also logs a traceback when the kernel drops a connection, so the sweep drops it first.
        hub.finds_silence = sockets.CAN_FIND_SILENCE
    elif uvicorn.is_cycle(send) or uvicorn.is_socket(send):
        hub.must_close = uvicorn.is_ending


# Pace


class Flow(Protocol):
    """For a server that accepts any amount of data: waits until the client has read enough of it.

    At most UNSENT_MAX_BYTES and one more send lie in the server for one client.
    """

    async def ready(self) -> None:
        """Wait, after a send that others follow."""

    def end(self) -> None:
        """Stop, before the last send. May be called twice."""


def flow_of(send: Any) -> Flow | None:
    """The flow of this send; None for a server whose send() waits by itself."""
    if uvicorn.is_cycle(send):
        return None
    request = daphne.request_of(send)
    if request is not None:
        return daphne.TwistedFlow(request)
    socket = daphne.socket_of(send)
    if socket is not None:
        return daphne.SocketFlow(socket.transport)
    stream, protocol = hypercorn.h2_of(send)
    return None if stream is None else hypercorn.H2Flow(stream, protocol)


def paced(send: Send, server_send: Any = None) -> Send:
    """``send``, made to wait for the client if the server's own does not. ``server_send``: the server's own, if it
    differs."""
    flow = flow_of(send if server_send is None else server_send)
    return send if flow is None else _PacedSend(send, flow)


@dataclass(slots=True, eq=False)
class _PacedSend:
    send: Send
    flow: Flow

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
    """A writer that bypasses send(), for a known server. To be called once the headers are sent."""
    if isinstance(send, _PacedSend):
        send, flow = send.send, send.flow
    chunks: Chunks = hub.parts.setdefault(Chunks, Chunks())
    return uvicorn.writer_of(send, chunks) or daphne.writer_of(send, flow, chunks)


async def breathe() -> None:
    """After a large send that others follow: let the server notice that the client has left.

    Hypercorn needs some turns of the loop between a broken socket and http.disconnect, and takes none while it is given
    more data. asyncio warns of every write to a broken socket from the sixth on.
    """
    for _ in range(BREATHING_TURNS):
        await asyncio.sleep(0)


# WebSockets


def without_compression(send: Any) -> None:
    """Before websocket.accept: do not agree on permessage-deflate. It costs each idle connection 30 to 85 KiB, and a
    broadcast twice the CPU: a body that is encoded once for all would be compressed for each."""
    uvicorn.without_compression(send)
    hypercorn.without_compression(send)


def bound_messages(send: Any) -> None:
    """Before websocket.accept: have the server close this WebSocket at a message beyond SOCKET_MESSAGE_MAX_BYTES, of
    which it would else keep 16 MiB for as long as the client likes to leave it unfinished."""
    uvicorn.bound_messages(send, SOCKET_MESSAGE_MAX_BYTES)
    hypercorn.bound_messages(send, SOCKET_MESSAGE_MAX_BYTES)


# Connections


def tune_connection(hub: ClientHub, send: Any) -> None:
    """Ask the kernel to hold few unread bytes, and to drop a peer that acknowledges nothing."""
    transport = _transport_of(send)
    if transport is not None:
        timeout = None if hub.finds_silence else 2 * live_settings().send_timeout_seconds
        sockets.tune(_handle_of(transport), timeout)


def abort_connection(
    hub: ClientHub,
    peer: Sequence[Any] | None,
    send: Any,
    *,
    if_unread: bool = False,
    if_silent_for: float | None = None,
) -> None:
    """Drop the connection of a client that does not read, so that the server forgets it too.

    ``peer``: ``scope["client"]``. ``send``: the server's own, if known. ``if_unread``: only if the peer has not
    acknowledged everything. ``if_silent_for``: only if the peer owes an acknowledgement for at least this many seconds.
    """
    stream, protocol = hypercorn.h2_of(send)
    if stream is not None and not if_unread and if_silent_for is None:  # the TCP connection may carry other streams
        hypercorn.reset_stream(stream, protocol, _transport_of(send))
        return
    transport = _transport_of(send)
    if transport is None:
        if peer and if_silent_for is None:
            resets: PeerResets = hub.parts.setdefault(PeerResets, PeerResets())
            resets.add((str(peer[0]), str(peer[1])), if_unread=if_unread)
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
    """The transport of a send: Twisted's for Daphne, asyncio's for Uvicorn and Hypercorn. None if not found."""
    return uvicorn.transport_of(send) or daphne.transport_of(send) or hypercorn.transport_of(send)


def _handle_of(transport: Any) -> Any:
    """The socket of a transport; None if it is closed."""
    try:
        return transport.getHandle() if hasattr(transport, "getHandle") else transport.get_extra_info("socket")
    except (AttributeError, OSError, RuntimeError, ValueError):  # uvloop raises errors of its own for a closed one
        return None


def _descriptor_of(transport: Any) -> int:
    handle = _handle_of(transport)
    try:
        return -1 if handle is None else int(handle.fileno())
    except (OSError, RuntimeError, ValueError):
        return -1
