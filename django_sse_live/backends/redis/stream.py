"""RedisStream: the stream and its other keys, as every part of the backend knows them."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from ...hub.recent_ends import Revocations
from ..outage import Outage
from ..unreadable import MALFORMED
from .entries import read_id
from .server import UNAVAILABLE, Client, RedisServer

# Sets the new epoch if the current one is as given, and returns the epoch then. KEYS: epoch, stream. ARGV: the expected
# epoch ("": none), the new one. A full Redis lets a script write if it has trimmed something first.
SET_EPOCH: Final = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
  redis.pcall('XTRIM', KEYS[2], 'MAXLEN', '~', 1000000000)
  redis.call('SET', KEYS[1], ARGV[2])
end
return redis.call('GET', KEYS[1])
"""
# Revocations are kept apart from events: a hash of conditions and the newest id that they were sent with, and a sorted
# set of the same by time. "since" is the id after which they are complete. The first reader of an epoch creates it;
# publishers write nothing before that. KEYS: hash, set, stream. ARGV: epoch.
BEGIN_KEEPING: Final = """
local since = redis.call('HGET', KEYS[1], 'since') or ''
if string.sub(since, 1, #ARGV[1] + 1) ~= ARGV[1] .. ':' then
  local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
  since = ARGV[1] .. ':' .. (last and last[1] or '0-0')
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'since', since)
end
return since
"""
# The first line of an entry, which identifies it: in a stream that was deleted and made anew, another entry may have
# its id. XRANGE would send the whole entry. KEYS: stream. ARGV: id.
FIRST_LINE: Final = """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
return found and string.match(found[2][2], '^[^\\n]*')
"""


@dataclass(slots=True)
class RedisStream:
    """What the parts of one backend share. Only the outage belongs to a process."""

    name: str  # the stream's key
    server: RedisServer
    read_server: RedisServer
    max_length: int
    max_bytes: int
    outage: Outage
    epoch: str = ""  # of the stream, once it was asked for
    epoch_key: str = field(init=False)
    now_name: str = field(init=False)  # the stream of presence and worker reports
    deltas_name: str = field(init=False)  # the stream of jobs' deltas
    revoked_key: str = field(init=False)
    revoked_times_key: str = field(init=False)
    root: str = field(init=False)  # of the other keys: a cluster keeps all of them on one server

    def __post_init__(self) -> None:
        self.root = self.name if re.search(r"\{[^}]+\}", self.name) else f"{{{self.name}}}"
        self.epoch_key = f"{self.root}:epoch"
        self.now_name = f"{self.root}:now"
        self.deltas_name = f"{self.root}:jobs"
        self.revoked_key = f"{self.root}:revoked"
        self.revoked_times_key = f"{self.root}:revoked_times"

    async def info(self, client: Client) -> dict[str, Any] | None:
        """XINFO STREAM, by an asyncio client; None if there is no stream."""
        try:
            return await client.xinfo_stream(self.name)  # type: ignore[no-any-return]
        except UNAVAILABLE as error:
            if "no such key" in str(error):
                return None
            raise

    def is_complete(self, info: dict[str, Any]) -> bool:
        """Whether the stream has every entry added since it was made. The stream may have been deleted alone and made
        anew under the old epoch; an id older than its first entry then shows the loss."""
        return self.has_all(info, 0)

    def has_all(self, info: dict[str, Any], added: int) -> bool:
        """Whether the stream has every entry that came after the first ``added`` ones."""
        if "entries-added" in info:  # Redis 7
            return bool(info["entries-added"] - added <= info["length"])
        return bool(info["length"] < self.max_length)

    def epoch_command(self, before: str = "") -> tuple[Any, ...]:
        """The arguments of eval() for a new epoch; nothing happens if the current one is not ``before``."""
        return SET_EPOCH, 2, self.epoch_key, self.name, before, secrets.token_hex(4)

    async def begin_epoch(self, before: str = "") -> None:
        """Begin a new epoch, on the primary: readers may use a replica."""
        await self._on_primary("eval", *self.epoch_command(before))

    async def revocations(self, client: Client, epoch: str) -> Revocations:
        """The kept revocations, to be asked for after the stream's tail was read: later ones come as entries. In a new
        epoch they begin to be kept."""
        found = {field: id async for field, id in client.hscan_iter(self.revoked_key, count=1000)}
        # Last: revocations dropped meanwhile are before it.
        since = (await client.hget(self.revoked_key, "since") or b"").decode()
        if not since.startswith(f"{epoch}:"):
            keys = self.revoked_key, self.revoked_times_key, self.name
            since, found = (await self._on_primary("eval", BEGIN_KEEPING, 3, *keys, epoch)).decode(), {}
        found.pop(b"since", None)
        ends = [(read_id(id), _conditions(text)) for text, id in found.items()]
        return Revocations(read_id(since.partition(":")[2].encode()), ends)

    async def primary_has(self, entry_id: str, first_line: bytes) -> bool:
        return bool(await self._on_primary("eval", FIRST_LINE, 1, self.name, entry_id) == first_line)

    async def last_on_primary(self) -> list[Any]:
        """A list of the newest entry, or of nothing."""
        return await self._on_primary("xrevrange", self.name, count=1)  # type: ignore[no-any-return]

    async def _on_primary(self, method: str, *arguments: Any, **options: Any) -> Any:
        client = await self.server.aconnect(1.0)
        try:
            return await getattr(client, method)(*arguments, **options)
        finally:
            await client.aclose()


def _conditions(text: bytes) -> Any:
    """Of what was revoked; none of them where they are malformed in whatever way, which is then anybody's."""
    try:
        return json.loads(text)
    except MALFORMED:
        return {}
