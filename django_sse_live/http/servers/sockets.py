"""What the kernel knows about TCP connections. Linux tells all of it; other systems tell less."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from typing import Any, Final

KERNEL_UNSENT_MAX_BYTES: Final = 128 * 1024
UNSENT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)
USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
CAN_FIND_SILENCE: Final = hasattr(socket, "TCP_INFO")
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER, 0 s: close() drops unread bytes and resets the peer

Peer = tuple[str, str]  # address and port


def tune(owner: Any, timeout_seconds: float | None) -> None:
    """Have the kernel hold no more than KERNEL_UNSENT_MAX_BYTES beyond the peer's window. Otherwise it holds 4 MB for
    each client that does not read, and its send hangs, which ends the stream, that much later.

    Also have it drop a peer that acknowledges nothing (it sleeps, or has lost its network) after ``timeout_seconds``
    instead of a quarter of an hour: RFC 5482's user timeout.
    """
    try:
        if UNSENT is not None:
            owner.setsockopt(socket.IPPROTO_TCP, UNSENT, KERNEL_UNSENT_MAX_BYTES)
        if USER_TIMEOUT is not None and timeout_seconds is not None:
            owner.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, int(1000 * timeout_seconds))
    except (AttributeError, OSError, RuntimeError, ValueError):
        # closed, for which uvloop raises errors of its own; or not TCP: a Unix socket behind nginx
        pass


def holds_unread(descriptor: int) -> bool:
    """Whether the kernel holds bytes that the peer has not acknowledged. True if it cannot tell (not Linux)."""
    try:
        import fcntl
        import termios

        return fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0") != b"\0\0\0\0"
    except (ImportError, OSError):
        return True


def is_silent(descriptor: int, seconds: float) -> bool:
    """Whether bytes have waited that long for any acknowledgement. Linux's struct tcp_info."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    except OSError:
        return False
    unacknowledged, last_ack_milliseconds = struct.unpack("=24xI28xI", info)
    return bool(unacknowledged) and last_ack_milliseconds >= 1000 * seconds


def reset_at_close(descriptor: int) -> None:
    """Let the socket end with a reset when it is closed: the kernel then drops what the peer has not read."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    except OSError:  # Windows: descriptors are no sockets; it ends without a reset
        pass


class PeerResets:
    """Resets connections by the addresses of their peers, for a server whose transports cannot be reached. One for each
    hub.

    The search looks at every descriptor of the process (90 to 220 ms for 2,500 sockets), so a thread does it, once for
    all connections of one turn of the loop.
    """

    __slots__ = ("_wanted",)

    def __init__(self) -> None:
        self._wanted: dict[Peer, bool] = {}

    def add(self, peer: Peer, *, if_unread: bool) -> None:
        if not self._wanted:
            asyncio.get_running_loop().call_soon(self._reset)
        self._wanted[peer] = if_unread

    def _reset(self) -> None:
        wanted, self._wanted = self._wanted, {}
        asyncio.get_running_loop().run_in_executor(None, reset_peers, wanted)


def reset_peers(wanted: dict[Peer, bool]) -> None:
    """In any thread. ``wanted``: peers, and whether to spare one that has acknowledged everything."""
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # not Linux
        return
    for descriptor in descriptors:
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                # A duplicate, since the number may already belong to another file.
                with socket.socket(fileno=os.dup(descriptor)) as duplicate:
                    _reset_if_wanted(duplicate, wanted)
        except (OSError, ValueError):  # closed meanwhile, not connected, or of another family
            continue


def _reset_if_wanted(connection: socket.socket, wanted: dict[Peer, bool]) -> None:
    name = connection.getpeername()
    if not isinstance(name, tuple):  # a Unix socket
        return
    if_unread = wanted.get((str(name[0]), str(name[1])))
    if if_unread is None or (if_unread and not holds_unread(connection.fileno())):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.shutdown(socket.SHUT_RDWR)
