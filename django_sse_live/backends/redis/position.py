"""Position: the head of the Redis stream, for a process without a hub."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from ...events import NO_STREAM_ID, format_id
from .entries import read_id
from .server import UNAVAILABLE, Client, KeptClient
from .stream import RedisStream

logger: logging.Logger = logging.getLogger("django_sse_live")

ASK_SECONDS: Final = 1.0  # a page waits this long for the answer
PAUSE_SECONDS: Final = 5.0  # before a server that did not answer is asked again


class Position:
    """Methods may be called from any thread. One thread asks at a time, so while Redis is away pages wait for one
    answer."""

    def __init__(self, stream: RedisStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._client = KeptClient(stream.server, ASK_SECONDS)
        self._last_known: str | None = None
        self._ask_again_at = 0.0  # monotonic; 0 while Redis answers

    def ask(self) -> str:
        """Redis's answer. While Redis is away, an older position: the stream then begins too early, never too late.
        Without one, an id that gives the stream a reset."""
        with self._lock:
            if time.monotonic() >= self._ask_again_at and (self._ask_again_at or not self._stream.outage.is_on):
                try:
                    self._last_known = self._client.run(self._ask)
                except UNAVAILABLE as error:
                    if not self._ask_again_at:
                        said = str(error) or type(error).__name__
                        logger.warning("Redis does not say where the SSE stream is: %s.", said)
                    self._ask_again_at = time.monotonic() + PAUSE_SECONDS
                else:
                    if self._ask_again_at:
                        logger.info("Redis says again where the SSE stream is.")
                    self._ask_again_at = 0.0
            return self._last_known or NO_STREAM_ID

    def close(self) -> None:
        with self._lock:
            self._client.close()

    def _ask(self, client: Client) -> str:
        stream = self._stream
        epoch = client.get(stream.epoch_key) or client.eval(*stream.epoch_command())
        last = client.xrevrange(stream.name, count=1)
        stream.epoch = epoch.decode()
        return format_id(stream.epoch, read_id(last[0][0]) if last else 0)
