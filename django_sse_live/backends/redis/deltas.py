"""DeltaSender: deltas of jobs on their way to a stream of their own. Those that cannot be sent at once are dropped: the
cache has their text. Events have their own connection, in the outbox."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from ...events import Event
from .entries import FIELD, encode_entry
from .server import UNAVAILABLE, KeptClient
from .stream import RedisStream

logger: logging.Logger = logging.getLogger("django_sse_live")

ANSWER_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 1.0  # pause after a failure
DELTAS_MAX: Final = 20_000  # entries kept at least, …
DELTAS_MS: Final = 10_000  # … and their age by Redis's clock

# KEYS: stream. ARGV: length, milliseconds, entry. Redis before 6.2 can only trim by length.
_ADD: Final = """
local now = redis.call('TIME')
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'event', ARGV[3])
redis.pcall('XTRIM', KEYS[1], 'MINID', '~', now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[2])
redis.call('PEXPIRE', KEYS[1], 6 * ARGV[2])
return id
"""
assert FIELD == b"event"


class DeltaSender:
    """Methods may be called from any thread; one sends at a time."""

    def __init__(self, stream: RedisStream) -> None:
        self._deltas_name = stream.deltas_name
        self._client = KeptClient(stream.server, ANSWER_SECONDS)
        self._lock = threading.RLock()
        self._again_at = 0.0  # monotonic

    def send(self, event: Event) -> None:
        entry = encode_entry(event, "jobs", 0)
        with self._lock:
            if time.monotonic() < self._again_at:
                return
            command = "EVAL", _ADD, 1, self._deltas_name, DELTAS_MAX, DELTAS_MS, entry
            try:
                self._client.run(lambda client: client.execute_command(*command))
            except UNAVAILABLE as error:
                logger.debug("Deltas of jobs are not sent: %r", error)
                self._again_at = time.monotonic() + RETRY_SECONDS

    def close(self) -> None:
        with self._lock:
            self._client.close()
