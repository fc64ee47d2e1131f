"""Chunks: the chunked framing (RFC 9112, section 7.1), done once for all clients that get the same bytes.

Who may write to a stream's transport, and when:

- The stream's task runs: only the task writes, by the server's send(), which waits as the server's flow control says.
- The task waits for news, and the writer has room: the fan-out writes, in one turn of the loop: has_room(), take(),
  write().
- The task waits for news, and there is no room (the server has paused, UNSENT_MAX_BYTES lie in the transport, it
  closes, the response is over, another request has come): nobody writes. The fan-out wakes the task: the first state
  again.

The server misses nothing: its transport counts every waiting byte, and pauses at its own limit. The next send() waits
for that, so a client that does not read is found by its hanging send, as without a writer. The start and the end of a
response, and everything before the stream first waits, go through send().
"""

from __future__ import annotations

from typing import Final

UNSENT_MAX_BYTES: Final = 64 * 1024  # the transports of asyncio and Twisted hold as much before they pause


class Chunks:
    """One for each hub. Keeps the last framed body, since an event's clients get the same object one after the
    other."""

    __slots__ = ("_body", "_framed")

    def __init__(self) -> None:
        self._body = self._framed = b""

    def framed(self, body: bytes) -> bytes:
        if body is not self._body:
            self._body, self._framed = body, b"%x\r\n%b\r\n" % (len(body), body)
        return self._framed
