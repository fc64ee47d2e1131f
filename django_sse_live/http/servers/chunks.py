"""What writers share: the chunked framing (RFC 9112, section 7.1), done once for all clients that are handed the same.

Who may write to a stream's transport, and when:

- The task that streams runs: it alone, by the server's send(), which waits where the server's flow control says so.
- It waits for news, and the writer has room: the fan-out, in one turn of the loop: has_room(), take(), write().
- It waits for news, and there is no room (the server has paused, UNSENT_MAX_BYTES lie in the transport, it closes, the
  response is over, another request has come): nobody. The fan-out wakes the task, which is the first state again.

The server loses sight of nothing: its transport counts each byte that waits, and pauses at its own mark, whoever wrote
it. The next send() waits for that; so a client that does not read is found by the time its send hangs, as without a
writer. The start of a response, its end, and whatever a stream says before it first waits go through send().
"""

from __future__ import annotations

from typing import Final

UNSENT_MAX_BYTES: Final = 64 * 1024  # as much as asyncio's and Twisted's transports hold before they want no more


class Chunks:
    """One for each hub. Keeps what it framed last: at an event one client after the other is handed the same object."""

    __slots__ = ("_body", "_framed")

    def __init__(self) -> None:
        self._body = self._framed = b""

    def framed(self, body: bytes) -> bytes:
        if body is not self._body:
            self._body, self._framed = body, b"%x\r\n%b\r\n" % (len(body), body)
        return self._framed
