"""A WebSocket: a stream, and messages in the other direction, on one connection.

serving.py's loop sends the frames, as over HTTP. This file translates ASGI's messages and reads the client's. It calls
no code of the project except what answers a message.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import Any, Final, Protocol

from ..hub.clients import Client
from ..hub.reading import CloseReason
from ..hub.registry import count_message_refused
from ..wire import compact_json, line, refusal_line
from .handshake import Handshake
from .messages import MESSAGE_MAX_BYTES, parse_message
from .refusals import Refused
from .servers import bound_messages, without_compression
from .types import Message, Receive, Send

WAITING_MESSAGES_MAX: Final = 40
UNREAD_FRAMES_MAX: Final = 64  # answers that a client may leave unread before it has sent too much
UNREAD_FRAMES_PAUSE: Final = 8  # beyond it, no further message gets to its handler
UNREAD_POLL_SECONDS: Final = 0.05
LATE_ANSWER_SECONDS: Final = 0.5  # a goodbye at a stop has GOODBYE_SECONDS in all

# Daphne allows 1000, and 3000 and above. The frame before the close tells a client what it must know.
CLOSE_FINAL: Final = 1000
CLOSE_COME_BACK: Final = 4012
CLOSE_BINARY: Final = 4003
CLOSE_BAD_JSON: Final = 4007
CLOSE_TOO_MUCH: Final = 4008

# Finds the id of a message that is not parsed (too long, or one too many) but still gets an answer.
_ID = re.compile(r'"id"\s*:\s*"([0-9A-Za-z_-]{1,64})"')
_ID_SEARCHED_CHARACTERS: Final = 1024  # searched characters of a message


class MessageAnswerer(Protocol):
    """What answers the messages of a WebSocket: SocketMessages."""

    def __call__(self, message: Mapping[str, Any], raw: bytes) -> Awaitable[dict[str, Any] | None]:
        """Answer a message, given parsed and raw. Returns the members of the answer; None if the stream must end, since
        the session that opened it is gone."""

    def end_handshake(self) -> None: ...


logger: logging.Logger = logging.getLogger("django_sse_live")


class Socket:
    """One connection, from its handshake to its end. Touched on its loop alone.

    States: in the handshake (``client`` is None) → open → over. A receive() is always pending, so that a client that
    leaves is noticed, and its messages wait here, bounded, not in the server.
    """

    __slots__ = (
        "client", "answer", "handshake", "reader", "_receive", "_send", "_server_send", "_code", "_waiting",
        "_answering", "_late", "_is_gone",
    )  # fmt: skip

    def __init__(self, receive: Receive, send: Send, server_send: Send) -> None:
        self.client: Client | None = None
        self.answer: MessageAnswerer | None = None
        self.handshake: Handshake | None = Handshake()
        self._receive = receive
        self._send = send
        self._server_send = server_send
        self._code = 0  # close code, if the client has broken a rule
        self._waiting: deque[bytes] | None = None  # raw messages: parsed ones may take much more memory
        self._answering: asyncio.Future[None] | None = None  # done when no handler runs
        self._late: list[bytes] = []  # answers that come after the goodbye
        self._is_gone = False
        self.reader: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._read())

    # The handshake

    async def accept(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Accept the handshake. False if the client has left."""
        if self._is_gone:  # some servers' send() would not say so
            return False
        without_compression(self._server_send)
        bound_messages(self._server_send)
        return await self._try_send({"type": "websocket.accept", "headers": headers})

    async def refuse(self, said: dict[str, Any] | None) -> None:
        """Refuse the stream. ``said``: the members of a goodbye; the handshake is then accepted, since a page cannot
        see why one was denied. None: deny it."""
        self.reader.cancel()
        if said is not None and await self.accept([]):
            await self._try_send({"type": "websocket.send", "text": refusal_line(said).decode()})
            await self._try_send(
                {"type": "websocket.close", "code": CLOSE_COME_BACK if said["reconnect"] else CLOSE_FINAL}
            )
        elif said is None:
            await self._try_send({"type": "websocket.close"})

    async def _try_send(self, message: Message) -> bool:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:
            logger.debug("%s was not sent: %r", message["type"], error)
            return False
        return True

    # To the client

    async def send(self, message: Message) -> None:
        """Takes the place of an HTTP response's send()."""
        if message.get("more_body"):
            await self._send({"type": "websocket.send", "text": message["body"].decode()})
        else:
            await self._send_late()
            await self._send({"type": "websocket.close", "code": self._code or self._closing_code()})

    async def _send_late(self) -> None:
        """Send the answer of the handler that still runs, if it comes soon: the client waits for it."""
        if self._answering is not None and not self._is_gone:
            await asyncio.wait([self._answering], timeout=LATE_ANSWER_SECONDS)
        for body in self._late:
            await self._send({"type": "websocket.send", "text": body.decode()})

    def _closing_code(self) -> int:
        return CLOSE_FINAL if self.client is None or self.client.close_reason == "disconnected" else CLOSE_COME_BACK

    # From the client

    async def _read(self) -> None:
        """The one pending receive() of this connection."""
        try:
            while (message := await self._receive())["type"] != "websocket.disconnect":
                if message["type"] == "websocket.receive":
                    self._take(message)
        except Exception as error:
            logger.debug("receive() failed for a WebSocket: %r", error)
        self._is_gone = True
        if self.handshake is not None:
            self.handshake.leave()
        if self.client is not None:
            self.client.leave()

    def _take(self, message: Message) -> None:
        client = self.client
        if client is None or client.close_reason is not None:
            return
        text: str | None = message.get("text")
        if text is None:
            self._break_off(client, "bad_message", CLOSE_BINARY)
            return
        if len(text) > MESSAGE_MAX_BYTES or len(data := text.encode(errors="surrogatepass")) > MESSAGE_MAX_BYTES:
            self._refuse(client, text, 413, "too_large", f"A message may have {MESSAGE_MAX_BYTES} bytes.")
            return
        if self._waiting is None:
            self._waiting = deque()
        if len(self._waiting) >= WAITING_MESSAGES_MAX:
            self._refuse(
                client, text, 429, "too_many_messages", "Too many messages wait to be handled. Send fewer at once."
            )
            return
        self._waiting.append(data)
        if self._answering is None:
            self._answering = client.hub.loop.create_future()
            client.hub.spawn(self._answer_all(client))

    def _refuse(self, client: Client, text: str, status: int, error: str, detail: str) -> None:
        count_message_refused(error)
        found = _ID.search(text, 0, _ID_SEARCHED_CHARACTERS)
        answer = {"to": found and found[1], "error": error, "detail": detail, "status": status}
        if status == 429:
            answer["retry"] = 1000
        self._say(client, answer)

    def _break_off(self, client: Client, reason: CloseReason, code: int, *, retry_ms: int | None = None) -> None:
        if client.close_reason is None:
            self._code = code
            client.end(reason, retry_ms=retry_ms)

    def _say(self, client: Client, answer: dict[str, Any]) -> None:
        if client.close_reason is not None:
            self._late.append(answer_line(answer))
        elif client.say(answer_line(answer)) > UNREAD_FRAMES_MAX:
            self._break_off(client, "too_many_messages", CLOSE_TOO_MUCH, retry_ms=client.hub.retry_ms())

    async def _answer_all(self, client: Client) -> None:
        """Answer messages one after the other, in their own task: a handler that has begun runs to its end."""
        assert self._waiting is not None
        try:
            while self._waiting and client.is_open:
                await self._answer_next(client, self._waiting.popleft())
                while client.is_open and client.unread_frames > UNREAD_FRAMES_PAUSE:  # noqa: ASYNC110  # the rare case
                    await asyncio.sleep(UNREAD_POLL_SECONDS)
        except Exception:
            logger.exception("A message on the WebSocket of SSE client %s failed.", client.id)
            self._break_off(client, "error", CLOSE_COME_BACK, retry_ms=client.hub.retry_ms())
        finally:
            answering, self._answering, self._waiting = self._answering, None, None
            if answering is not None and not answering.done():
                answering.set_result(None)

    async def _answer_next(self, client: Client, data: bytes) -> None:
        try:
            message = parse_message(data)
        except Refused:
            self._break_off(client, "bad_message", CLOSE_BAD_JSON)
            return
        if self.answer is None:
            self._refuse(client, data.decode(), 405, "method_not_allowed", "This stream takes no messages.")
            return
        answer = await self.answer(message, data)
        if answer is None:
            client.end("revoked", retry_ms=client.hub.retry_ms())
        else:
            self._say(client, answer)


def answer_line(answer: dict[str, Any]) -> bytes:
    return line(compact_json({"type": "answer", **answer}))
