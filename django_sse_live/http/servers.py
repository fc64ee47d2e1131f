"""The few things that ASGI does not say, per server. The only file that knows servers by name.

Each function is harmless where it does not apply.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import threading
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, Final

from ..conf import live_settings
from ..hub.hub import GOODBYE_SECONDS, Hub
from ..hub.registry import open_hubs

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

POLL_SECONDS: Final = 0.02
KERNEL_UNSENT_BYTES: Final = 128 * 1024
UNSENT_BYTES: Final = 64 * 1024  # as much as asyncio's and Twisted's transports hold before they want no more

logger: logging.Logger = logging.getLogger("django_sse_live")

_stopping_pid = 0  # the process in which the handlers below stand


def stop_gracefully(hub: Hub) -> None:
    """On SIGTERM and SIGINT, say goodbye on every stream before the server's own handler is called.

    Every server but Daphne would otherwise wait for streams that never end. Python lets only the main thread set a
    handler; elsewhere (Django's autoreloader) the process ends without waiting for threads anyway.
    """
    global _stopping_pid
    if _stopping_pid == os.getpid() or threading.current_thread() is not threading.main_thread():
        return
    _stopping_pid = os.getpid()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if before is not None and before != signal.SIG_IGN:  # None: set by C code, which cannot be called from here
            signal.signal(number, _Goodbye(hub.loop, before))


class _Goodbye:
    """A signal handler: ends the streams, then calls the one it replaced."""

    def __init__(self, loop: AbstractEventLoop, before: Any) -> None:
        self._loop = loop
        self._before = before
        self._is_under_way = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        hubs = open_hubs()
        for hub in hubs:
            _on_loop(hub.loop, hub.shut_down)
        if self._is_under_way or self._loop.is_closed() or not any(hub.clients for hub in hubs):
            self._pass_on(number, frame)
            return
        self._is_under_way = True
        until = self._loop.time() + GOODBYE_SECONDS + POLL_SECONDS
        _on_loop(self._loop, lambda: self._wait(number, frame, until))

    def _wait(self, number: int, frame: FrameType | None, until: float) -> None:
        if self._loop.time() < until and any(hub.clients for hub in open_hubs()):
            self._loop.call_later(POLL_SECONDS, self._wait, number, frame, until)
        else:
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if callable(self._before):
            self._before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _on_loop(loop: AbstractEventLoop, function: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # closed: nobody is left on it
        pass


def watch_termination(hub: Hub, send: Any) -> None:
    """Hypercorn's worker processes get no signal; their context knows when they are to end. Looked at on each sweep."""
    context = getattr(getattr(send, "__self__", None), "context", None)
    terminated: Any = getattr(context, "terminated", None)
    if hasattr(terminated, "is_set"):
        hub.must_close = terminated.is_set
        # It also logs a traceback when the kernel ends a connection, so that is done before the kernel does.
        hub.finds_silence = hasattr(socket, "TCP_INFO")


def paced(send: Send) -> Send:
    """``send``, or, where a server takes whatever it is given and lets it pile up, one that waits for the client.

    Bounds what lies in the server for one client to UNSENT_BYTES and one more send.
    """
    request = _daphne_request(send)
    if request is not None:
        return _TwistedFlow(send, request)
    stream, protocol = _hypercorn_h2(send)
    return send if stream is None else _H2Flow(send, stream, protocol)


class _TwistedFlow:
    """Daphne writes to Twisted without asking. Here Twisted is asked to say when it has had enough: IPushProducer."""

    __slots__ = ("_request", "_resumed", "_send")

    def __init__(self, send: Send, request: Any) -> None:
        self._send = send
        self._request = request
        self._resumed: asyncio.Future[None] | None = None  # there is one while Twisted wants no more
        request.registerProducer(self, True)

    async def __call__(self, message: Message) -> None:
        if not message.get("more_body") and self._request.channel is not None:
            self._request.unregisterProducer()  # Request.finish() demands it
        await self._send(message)
        if self._resumed is not None and message.get("more_body"):
            await self._resumed

    def pauseProducing(self) -> None:
        if self._resumed is None:
            self._resumed = asyncio.get_running_loop().create_future()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.done():
            resumed.set_result(None)

    stopProducing = resumeProducing  # the connection is lost


class _H2Flow:
    """Hypercorn's buffer of an HTTP/2 stream has no end: its push() waits for an event that is always set."""

    __slots__ = ("_protocol", "_send", "_stream")

    def __init__(self, send: Send, stream: Any, protocol: Any) -> None:
        self._send = send
        self._stream = stream
        self._protocol = protocol

    async def __call__(self, message: Message) -> None:
        await self._send(message)
        while not self._stream.closed:
            buffer = self._protocol.stream_buffers.get(self._stream.stream_id)
            if buffer is None or len(buffer.buffer) <= UNSENT_BYTES:
                break
            await asyncio.sleep(POLL_SECONDS)


def _daphne_request(send: Any) -> Any:
    """The Twisted request behind Daphne's send, or None."""
    request = send.args[0] if isinstance(send, partial) and send.args else None
    return request if hasattr(request, "registerProducer") and getattr(request, "channel", None) is not None else None


def _hypercorn_h2(send: Any) -> tuple[Any, Any]:
    """The HTTPStream and the H2Protocol behind Hypercorn's send, or (None, None)."""
    stream = getattr(send, "__self__", None)
    protocol = getattr(getattr(stream, "send", None), "__self__", None)
    return (stream, protocol) if hasattr(protocol, "stream_buffers") else (None, None)


async def breathe() -> None:
    """After a large send, which others follow: let the server notice that the client has left.

    Hypercorn needs some turns of the loop from the broken socket to http.disconnect, and waits for none of them while
    it is given more; asyncio warns of each write to a broken socket from the sixth on.
    """
    for _ in range(5):
        await asyncio.sleep(0)


def say_it_is_gone(send: Any) -> None:
    """Uvicorn calls a response unfinished unless it knows that the client has left, which it does not if the client
    had sent another request on the same connection: its send then raises RuntimeError."""
    cycle: Any = getattr(send, "__self__", None)
    if hasattr(cycle, "disconnected"):
        cycle.disconnected = True


def tune_connection(hub: Hub, send: Send) -> None:
    """Ask two things of the kernel, where it has them.

    To take no more than KERNEL_UNSENT_BYTES that the peer's window has no room for: it would take 4 MB for each client
    that does not read, and the send that hangs, which ends its stream, would begin as much later.

    To drop the connection of a peer that acknowledges nothing (it sleeps, it lost its network), after twice
    SEND_TIMEOUT_SECONDS instead of a quarter of an hour: RFC 5482's user timeout.
    """
    transport = _transport(send)
    if transport is None:
        return
    options = {"TCP_NOTSENT_LOWAT": KERNEL_UNSENT_BYTES}
    if not hub.finds_silence:
        options["TCP_USER_TIMEOUT"] = int(2000 * live_settings().send_timeout_seconds)
    try:
        owner = transport.getHandle() if hasattr(transport, "getHandle") else transport.get_extra_info("socket")
        for name, value in options.items():
            if hasattr(socket, name):
                owner.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except (AttributeError, OSError, RuntimeError, ValueError):
        # closed already, for which uvloop has words of its own; or no TCP at all: a Unix socket behind nginx
        pass


Sockets = dict[tuple[str, str], int]  # peer → descriptor


def abort_connection(
    peer: Sequence[Any] | None,
    send: Any,
    found: Sockets,
    *,
    if_unread: bool = False,
    if_silent_for: float | None = None,
) -> None:
    """Drop the connection of a client that does not read, so that the server lets go of it too.

    ``peer``: ``scope["client"]``. ``send``: the server's own, where it is at hand. ``found``: empty at first, shared by
    those that are asked at one moment. ``if_unread``: leave it alone if its peer has all that was written.
    ``if_silent_for``: leave it alone if its peer has acknowledged anything in so many seconds, or had nothing to.
    """
    stream, protocol = _hypercorn_h2(send)
    if stream is not None and not if_unread and if_silent_for is None:  # the connection may carry other streams
        _reset_h2_stream(stream, protocol)
        return
    transport = _transport(send)
    if transport is None:
        if peer:
            _abort_by_address((str(peer[0]), str(peer[1])), found, if_unread)
        return
    try:
        handle = transport.getHandle() if hasattr(transport, "getHandle") else transport.get_extra_info("socket")
        descriptor = -1 if handle is None else handle.fileno()
    except (OSError, RuntimeError, ValueError):  # closed already
        return
    if descriptor < 0 or (if_unread and not _holds_unread(descriptor)):
        return
    if if_silent_for is not None and not _is_silent(descriptor, if_silent_for):
        return
    try:
        _reset(descriptor)
    except OSError:  # no descriptors but sockets on Windows: it ends without a reset
        pass
    if hasattr(transport, "abortConnection"):
        transport.abortConnection()
    else:
        transport.abort()


def _transport(send: Any) -> Any:
    """What carries the bytes: Daphne's is Twisted's; Uvicorn's and Hypercorn's are asyncio's. None if not found."""
    request = _daphne_request(send)
    if request is not None:
        transport = getattr(request.channel, "transport", None)
        return transport if hasattr(transport, "abortConnection") and hasattr(transport, "getHandle") else None
    server = getattr(send, "__self__", None)
    for _ in range(3):  # Hypercorn: HTTPStream → its protocol → TCPServer
        transport = getattr(getattr(server, "writer", server), "transport", None)
        if hasattr(transport, "abort"):
            return transport
        server = getattr(getattr(server, "send", None), "__self__", None)
    return None


def _reset_h2_stream(stream: Any, protocol: Any) -> None:
    try:
        protocol.connection.reset_stream(stream.stream_id)
    except Exception as error:  # h2's, which need not be there; all of them mean: it is closed
        logger.debug("The HTTP/2 stream %s was not reset: %r", stream.stream_id, error)
        return
    buffer = protocol.stream_buffers.get(stream.stream_id)
    if buffer is not None:
        buffer.buffer.clear()  # what paced() waits for will never be sent
    transport = _transport(stream.app_send)
    if transport is not None:
        transport.write(protocol.connection.data_to_send())


def _holds_unread(descriptor: int) -> bool:
    """Whether the kernel holds bytes that the peer has not acknowledged. True where it cannot say (it is not Linux)."""
    try:
        import fcntl
        import termios

        return fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0") != b"\0\0\0\0"
    except (ImportError, OSError):
        return True


def _is_silent(descriptor: int, seconds: float) -> bool:
    """Whether something is unacknowledged, and nothing has been acknowledged for that long. Linux's struct tcp_info."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    except OSError:
        return False
    unacknowledged, last_ack_milliseconds = struct.unpack("=24xI28xI", info)
    return bool(unacknowledged) and last_ack_milliseconds >= 1000 * seconds


def _reset(descriptor: int, *, shut_down: bool = False) -> None:
    """Have the socket end with a reset, so that the kernel keeps nothing of what its peer has not read."""
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if shut_down:
            duplicate.shutdown(socket.SHUT_RDWR)


def _abort_by_address(peer: tuple[str, str], found: Sockets, if_unread: bool) -> None:
    if not found:
        found.update(_own_sockets())
    descriptor = found.get(peer)
    if descriptor is not None and (not if_unread or _holds_unread(descriptor)):
        try:
            _reset(descriptor, shut_down=True)
        except OSError:  # closed meanwhile
            pass


def _own_sockets() -> Sockets:
    """This process's connected sockets by the address of their peer. A scan, and Linux alone: for the rare abort."""
    found: Sockets = {}
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for name in descriptors:
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as duplicate:
                    host, port = duplicate.getpeername()[:2]
                found[str(host), str(port)] = int(name)
        except (OSError, ValueError):  # closed meanwhile, not connected, or of another family
            continue
    return found
